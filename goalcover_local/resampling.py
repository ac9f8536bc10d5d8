"""What chance would do: permutation and bootstrap over rows, effect sizes and paired tests. Pure; missing is NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats as distributions

from .stats import CONFIDENCE

_AT_ONCE = 4_000_000
"""Numbers held at once while drawing: what bounds memory, not what is drawn."""

_DUST = 1e-12
"""What rounding leaves of equal numbers: a spread below it is none."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What a paired test says of two columns: how far apart on average, and how likely that is by chance.

    `p` is of Student's test, two-sided, `p_ranks` of Wilcoxon's signed ranks; NaN with fewer than two pairs, or if all
    are equally far apart, of which these tests say nothing. `d` is Cohen's d with the pooled standard deviation of both
    columns, `d_paired` that of the differences (Lakens 2013: d_s and d_z).
    """

    n: int
    difference: float
    p: float
    p_ranks: float
    d: float
    d_paired: float


def drawn(n_rows: int, seed: int, limit: int | None = None) -> npt.NDArray[np.int64]:
    """The first `limit` of `n_rows` positions, or all, in an order fixed by `seed`: (n,), counted from 0.

    A smaller limit draws a part of what a larger one draws. Only the generator's raw numbers are used, which numpy
    keeps the same from version to version.
    """
    order = np.argsort(np.random.PCG64(seed).random_raw(n_rows), kind="stable")
    return order[:limit].astype(np.int64)


def changes(values: np.ndarray, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means (k, m) before and after each of k removals, of values (n, m) and removed rows (k, n).

    Missing values count in neither; a mean over nothing is NaN.
    """
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    before = _ratio(filled.sum(axis=0), there.sum(axis=0))
    kept = (~removed).astype(float)
    return np.broadcast_to(before, (len(removed), values.shape[1])), _ratio(kept @ filled, kept @ there)


def distinct(values: np.ndarray, removed: np.ndarray, samples: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The values (d, m) of the different samples, and which of them are removed, (d,): those of which any row is.

    Rows that hold the same sample are removed together: taken one by one, chance would look smaller than it is.
    """
    if samples is None:
        return values, removed
    _, first, of = np.unique(samples, return_index=True, return_inverse=True)
    gone = np.zeros(len(first), dtype=bool)
    np.logical_or.at(gone, of, removed)
    return values[first], gone


def by_chance(values: np.ndarray, removed: np.ndarray, *, n_draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """How likely a random removal of as many rows lowers each mean at least as much, (m,), in (0, 1].

    `values` is (n, m), `removed` (n,). One-sided; the removal itself counts as one of the draws (Phipson and Smyth
    2010), so that it is never 0. NaN where a column has no value removed, or none kept.
    """
    found = np.full(values.shape[1], np.nan)
    there = ~np.isnan(values)
    for rows in np.unique(there, axis=1).T:
        columns = np.flatnonzero((there == rows[:, None]).all(axis=0))
        own, gone = values[np.ix_(rows, columns)], removed[rows]
        size = int(gone.sum())
        if not 0 < size < len(own):
            continue
        # The mean falls by more the more is removed. Of what is removed and what is kept the smaller part is drawn.
        smaller = gone if 2 * size <= len(own) else ~gone
        own = own if smaller is gone else -own
        sums = _drawn_sums(own, int(smaller.sum()), n_draws, np.random.default_rng(seed))
        found[columns] = (1 + (sums >= own[smaller].sum(axis=0) - 1e-9).sum(axis=0)) / (1 + n_draws)
    return found


def _drawn_sums(values: np.ndarray, size: int, n_draws: int, random: np.random.Generator) -> np.ndarray:
    """Sums of `size` of the rows of (n, m), drawn without replacement, (n_draws, m)."""
    sums = np.empty((n_draws, values.shape[1]))
    step = max(1, _AT_ONCE // (len(values) + size * values.shape[1]))
    for start in range(0, n_draws, step):
        n = min(step, n_draws - start)
        places = np.argpartition(random.random((n, len(values)), dtype=np.float32), size - 1, axis=1)[:, :size]
        sums[start : start + n] = values[places].sum(axis=1)
    return sums


def told_apart(values: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """How often a removed row has a higher value than a kept one, ties by half, (m,): the area under the ROC curve.

    `values` is (n, m), `removed` (n,). 0.5 is chance; NaN where a column has no value removed, or none kept. By ranks
    (Hanley and McNeil 1982).
    """
    found = np.full(values.shape[1], np.nan)
    for column, own in enumerate(values.T):
        there = ~np.isnan(own)
        gone = removed[there]
        n_gone = int(gone.sum())
        if 0 < n_gone < len(gone):
            ranks = distributions.rankdata(own[there])[gone].sum()
            found[column] = (ranks - n_gone * (n_gone + 1) / 2) / (n_gone * (len(gone) - n_gone))
    return found


def replicates(
    values: np.ndarray,
    removed: np.ndarray,
    samples: np.ndarray | None = None,
    *,
    n_draws: int = 2_000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Means before and after each removal, both (n_draws, k, m), of samples drawn again with replacement (bootstrap).

    `values` is (n, m), `removed` (k, n), `samples` (n,) says which rows hold the same sample; without it each row is
    its own. A sample is drawn with all its rows, their values, and what removes them.
    """
    _, of = np.unique(np.arange(len(values)) if samples is None else samples, return_inverse=True)
    random = np.random.default_rng(seed)
    there = ~np.isnan(values)
    filled, kept = np.where(there, values, 0.0), ~removed
    n = int(of.max(initial=-1)) + 1
    before = np.empty((n_draws, 1, values.shape[1]))
    after = np.empty((n_draws, len(removed), values.shape[1]))
    step = max(1, _AT_ONCE // len(values))
    for start in range(0, n_draws, step):
        part = slice(start, min(start + step, n_draws))
        counts = random.multinomial(n, np.full(n, 1 / n), size=part.stop - start).astype(float)[:, of]
        before[part, 0] = _ratio(counts @ filled, counts @ there)
        for k, row in enumerate(kept):
            after[part, k] = _ratio((counts * row) @ filled, (counts * row) @ there)
    return np.broadcast_to(before, after.shape), after


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95% interval of bootstrap draws (n_draws,): their percentiles; NaN if none is a number."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.percentile(draws, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def cohens_d(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """By how many pooled standard deviations the first exceeds the second (Cohen 1988), (…), of (n, …) and (m, …).

    NaN with fewer than two numbers in either, or where neither has a spread.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        return np.full(first.shape[1:], np.nan)
    squares = (n - 1) * first.var(axis=0, ddof=1) + (m - 1) * second.var(axis=0, ddof=1)
    pooled = np.sqrt(squares / (n + m - 2))
    spread = pooled > _DUST
    return np.where(spread, (first.mean(axis=0) - second.mean(axis=0)) / np.where(spread, pooled, 1.0), np.nan)


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """What paired tests say of two columns (n,); pairs with a missing one are left out."""
    whole = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[whole], second[whole]
    apart = first - second
    n, nan = len(apart), float("nan")
    if n == 0:
        return Paired(0, nan, nan, nan, nan, nan)
    difference, d = float(apart.mean()), float(cohens_d(first, second))
    if n < 2 or np.ptp(apart) < _DUST:
        return Paired(n, difference, nan, nan, d, nan)
    p = float(distributions.ttest_rel(first, second).pvalue)
    p_ranks = float(distributions.wilcoxon(apart).pvalue)
    return Paired(n, difference, p, p_ranks, d, float(difference / apart.std(ddof=1)))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Total by count, NaN where the count is 0."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
