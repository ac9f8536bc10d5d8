"""Numbers from arrays: intervals, verdicts and the correction of a judge's bias. Pure functions; missing is NaN."""

from __future__ import annotations

import numpy as np
from scipy import stats as distributions

from .terms import ANCHORS, SUPPORT_AT, Estimate, Verdict

CONFIDENCE = 0.95
WEAK, STRONG = 0.4, 0.8


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


_PSEUDO_ERROR = 2.0
"""Squared error that a judge is charged beside what the labels show: a few labels without one prove little."""


def prediction_powered(judged: np.ndarray, labelled_judged: np.ndarray, labels: np.ndarray) -> Estimate:
    """The mean of labels over all rows, from few rows with a label and many with a judge's value, with its interval.

    `judged` (n_rows,) are the judge's values of the rows without a label, `labelled_judged` (n_labels,) those of the
    rows with one; values and labels are in [0, 1], and pairs with a NaN are left out. Labelled rows must be drawn at
    random, and their values must come from a judge that did not learn from their labels. The judge's mean over the
    rows is corrected by its error on the labels, and counts by as much as it explains, down to nothing. The 95%
    interval is the exact one of a share seen in as many labels as the estimate is worth: it never has width zero, and
    without a useful judge it is that of the labels alone. `n` counts rows with and without a label.
    Sources: Angelopoulos, Duchi and Zrnic, PPI++ (2023, arXiv 2311.01453), for the estimate and the judge's weight;
    Korn and Graubard (1998), for the exact interval at an effective size.
    """
    there = ~(np.isnan(labelled_judged) | np.isnan(labels))
    f, y, others = labelled_judged[there], labels[there], judged[~np.isnan(judged)]
    n, n_others = len(y), len(others)
    if n < 2:
        return Estimate(float(y.mean()) if n else float("nan"), 0.0, 1.0, n + n_others)
    away, spread = f - f.mean(), float(np.concatenate([f, others]).var())
    weight = 0.0
    if n_others and spread > 0:
        weight = float(np.clip((away @ (y - y.mean())) / n / spread / (1 + n / n_others), 0, 1))
    mean = float(y.mean())
    value = float(np.clip(mean + (weight * (others.mean() - f.mean()) if weight else 0.0), 0, 1))
    errors = y - mean - weight * away
    # Shares of the variance that as many yes-or-no labels of this mean would have: what is left, and what is explained.
    most = n * mean * (1 - mean) + _PSEUDO_ERROR
    left = (float(errors @ errors) + _PSEUDO_ERROR) / most
    explained = weight**2 * spread * n / most
    size = 1 / (left / n + (explained / n_others if n_others else 0.0))
    return Estimate(value, *_exact_interval(value * size, size), n + n_others)


def _exact_interval(n_hits: float, n: float) -> tuple[float, float]:
    """The interval of a share by Clopper and Pearson (1934), for counts that need not be whole."""
    tail, n_misses = (1 - CONFIDENCE) / 2, n - n_hits
    low = float(distributions.beta.ppf(tail, n_hits, n_misses + 1)) if n_hits > 0 else 0.0
    high = float(distributions.beta.ppf(1 - tail, n_hits + 1, n_misses)) if n_misses > 0 else 1.0
    return low, high


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation over pairs of any shape, in [-1, 1]; NaN if either is constant."""
    both = ~(np.isnan(first) | np.isnan(second))
    one, other = first[both], second[both]
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(distributions.spearmanr(one, other).statistic)


def support(values: np.ndarray) -> tuple[int, Estimate]:
    """How many values reach 0.6, and their share among those that are not missing."""
    values = values[~np.isnan(values)]
    hits = int(supports(values).sum())
    return hits, share_interval(hits, len(values))


def supports(values: np.ndarray) -> np.ndarray:
    """Which values reach 0.6, whatever rounding made of it, boolean, of the same shape; missing ones do not."""
    reached: np.ndarray = values >= SUPPORT_AT - 1e-9
    return reached


def graded_support(values: np.ndarray) -> np.ndarray:
    """How far each value supports, in [0, 1]: 0 up to the anchor 0.4 (weak), half at 0.6, 1 from 0.8 on (strong).

    It is the step at 0.6 made smooth, so that a mean does not hang on the few rows that lie close to it. NaN stays NaN.
    """
    return np.clip((values - WEAK) / (STRONG - WEAK), 0.0, 1.0)


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
