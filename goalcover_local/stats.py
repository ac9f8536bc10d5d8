"""Numbers from arrays: intervals, verdicts and the correction of a judge's bias. Pure functions; missing is NaN."""

from __future__ import annotations

import numpy as np
from scipy import stats as distributions

from .terms import ANCHORS, SUPPORT_AT, Estimate, Verdict

CONFIDENCE = 0.95


def scores(probabilities: np.ndarray) -> np.ndarray:
    """The most probable anchor, shape (…), of probabilities with shape (…, 6); NaN where missing."""
    missing = np.isnan(probabilities).any(axis=-1)
    best = np.asarray(ANCHORS)[np.nan_to_num(probabilities).argmax(axis=-1)]
    return np.where(missing, np.nan, best)


def expectations(probabilities: np.ndarray) -> np.ndarray:
    """The mean of the anchors under their probabilities, in [0, 1], shape (…), of shape (…, 6); NaN where missing."""
    mean: np.ndarray = probabilities @ np.asarray(ANCHORS)
    return mean


def anchor_shares(values: np.ndarray) -> np.ndarray:
    """The share of values nearest to each of the six anchors, ascending, shape (6,); all NaN if there are none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.full(len(ANCHORS), np.nan)
    nearest = np.clip(np.rint(values * 5), 0, 5).astype(int)
    return np.bincount(nearest, minlength=len(ANCHORS)) / len(values)


def mean_interval(values: np.ndarray) -> Estimate:
    """Mean of the values that are not missing, with Student's 95% interval cut to [0, 1]."""
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, 0.0, 1.0, 1)
    half = float(distributions.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), n)


def share_interval(n_hits: int, n: int) -> Estimate:
    """A share with its 95% interval (Wilson 1927): sensible near 0, where support is rarest and of most interest."""
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    interval = distributions.binomtest(n_hits, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(n_hits / n, float(interval.low), float(interval.high), n)


def support(values: np.ndarray) -> tuple[int, Estimate]:
    """How many values reach 0.6, and their share among those that are not missing."""
    values = values[~np.isnan(values)]
    hits = int((values >= SUPPORT_AT - 1e-9).sum())
    return hits, share_interval(hits, len(values))


def verdict(share: Estimate, target_share: float) -> Verdict:
    """Gap if the interval lies wholly below the target share, covered if wholly above, else undecided."""
    if share.high < target_share:
        return "gap"
    if share.low > target_share:
        return "covered"
    return "undecided"


def rows_to_share(n_hits: int, n: int, target: float, *, surely: bool = False) -> int:
    """How many more rows, all of them hits, make the share reach its target; 0 if it does already.

    With `surely` its whole 95% interval must lie above the target. `target` is in (0, 1).
    """
    if not surely:
        return max(0, int(np.ceil((target * n - n_hits) / (1 - target) - 1e-9)))
    low, high = 0, 1
    while share_interval(n_hits + high, n + high).low <= target:
        low, high = high, 2 * high
    if low == 0 and share_interval(n_hits, n).low > target:
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if share_interval(n_hits + middle, n + middle).low > target else (middle, high)
    return high
