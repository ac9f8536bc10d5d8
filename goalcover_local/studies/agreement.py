"""How far judges agree with each other and with people. Pure functions; missing is NaN, and so is what has no answer.

A rater's values have shape (n_rows, n_subgoals) and lie in [0, 1]; several raters' have shape (n_raters, n_rows,
n_subgoals). Intervals are 95% percentile intervals of a seeded bootstrap that draws rows, never single pairs: the
subgoals of one row are not independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..resampling import interval, told_apart
from ..stats import spearman, supports
from ..terms import ANCHORS, Estimate

RESAMPLES = 1000
"""How often rows are drawn for an interval."""

_NONE = float("nan")
_APART = np.subtract.outer(np.arange(len(ANCHORS)), np.arange(len(ANCHORS))) ** 2.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two raters agree on the `n` pairs that both judged.

    `kappa` is weighted by squared distance of the nearest anchors; `exact` and `within_one` are shares of pairs with
    the same anchor, or one beside it; `difference` is the mean of the first rater's values minus the second's.
    """

    n: int
    kappa: Estimate
    spearman: float
    exact: float
    within_one: float
    difference: float


@dataclass(frozen=True, slots=True)
class Bias:
    """One rater's mean distance above another where that one is nearest each anchor, ascending, and over how many."""

    means: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a rater's values fit people's labels on the `n` pairs that have both.

    `error` is the mean absolute one. `auc` is that of telling support (a label of 0.6 or more), the mean over the
    subgoals that have labels of both kinds. `support` is the share of pairs where both say the same of support.
    """

    n: int
    error: Estimate
    auc: Estimate
    kappa: Estimate
    support: Estimate


@dataclass(frozen=True, slots=True)
class Labels:
    """What a rater can be held against: the labels' mean, and the base rate, the share of them that are support.

    `constant` is the fit of whoever never looks at a row: always says the subgoal's mean, and of support what most of
    its labels say. Where subgoals differ in how common support is, even its kappa is above 0.
    """

    n: int
    mean: float
    base_rate: Estimate
    constant: Fit


def anchors(values: np.ndarray) -> np.ndarray:
    """The number of the nearest anchor, 0 to 5, of the same shape; -1 where missing."""
    steps = len(ANCHORS) - 1
    return np.where(np.isnan(values), -1, np.clip(np.rint(np.nan_to_num(values) * steps), 0, steps)).astype(np.int64)


def agreement(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Agreement:
    """How two raters agree, each (n_rows, n_subgoals)."""
    both = ~(np.isnan(first) | np.isnan(second))
    one, other = first[both], second[both]
    if not len(one):
        return Agreement(0, Estimate(_NONE, _NONE, _NONE, 0), _NONE, _NONE, _NONE, _NONE)
    apart = np.abs(anchors(one) - anchors(other))
    return Agreement(
        n=len(one),
        kappa=_kappa_interval(first, second, seed),
        spearman=spearman(one, other),
        exact=float((apart == 0).mean()),
        within_one=float((apart <= 1).mean()),
        difference=float((one - other).mean()),
    )


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa on the nearest anchors with quadratic weights (Cohen 1968), in [-1, 1], over pairs of any shape.

    NaN with fewer than two pairs, and where both always say the same anchor: agreement beyond chance is then not
    defined. One constant rater beside another that is not has 0.
    """
    return _kappa_of(_tables(np.ravel(first)[:, None], np.ravel(second)[:, None]).sum(axis=0))


def alpha(values: np.ndarray) -> float:
    """Krippendorff's alpha for interval data, at most 1, of values with shape (n_raters, …), NaN where missing.

    Disagreement observed within items against that expected across all values that can be paired (Krippendorff 2011,
    "Computing Krippendorff's Alpha-Reliability"). NaN if no item has two values, or all values are equal.
    """
    units = values.reshape(len(values), -1)
    units = units[:, (~np.isnan(units)).sum(axis=0) >= 2]
    if not units.size or np.nanmax(units) == np.nanmin(units):
        return _NONE
    units = units - np.nanmean(units)
    n_values = (~np.isnan(units)).sum(axis=0)
    sums, squares = np.nansum(units, axis=0), np.nansum(units**2, axis=0)
    n = n_values.sum()
    observed = (2 * (n_values * squares - sums**2) / (n_values - 1)).sum() / n
    expected = 2 * (n * squares.sum() - sums.sum() ** 2) / (n * (n - 1))
    return float(1 - observed / expected)


def bias(rater: np.ndarray, other: np.ndarray) -> Bias:
    """How far a rater lies above another, anchor by anchor of the other; both of the same shape."""
    both = ~(np.isnan(rater) | np.isnan(other))
    at, above = anchors(other[both]), rater[both] - other[both]
    counts = np.bincount(at, minlength=len(ANCHORS))
    sums = np.bincount(at, weights=above, minlength=len(ANCHORS))
    means = np.divide(sums, counts, out=np.full(len(ANCHORS), np.nan), where=counts > 0)
    return Bias(tuple(map(float, means)), tuple(map(int, counts)))


def fit(values: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Fit:
    """How a rater's values fit labels, both (n_rows, n_subgoals)."""
    n = int((~(np.isnan(values) | np.isnan(labels))).sum())

    def over(statistic: Callable[[np.ndarray, np.ndarray], float]) -> Estimate:
        return bootstrap(lambda rows: statistic(values[rows], labels[rows]), _paired(values, labels), n, seed)

    return Fit(n, over(_error), over(auc), _kappa_interval(values, labels, seed), over(_same_support))


def about_labels(labels: np.ndarray, *, seed: int = 0) -> Labels:
    """The labels' mean and base rate, and how a constant predictor fits them; shape (n_rows, n_subgoals)."""
    given = labels[~np.isnan(labels)]
    rows, n = _paired(labels, labels), len(given)
    base = bootstrap(lambda drawn: _base_rate(labels[drawn]), rows, n, seed)
    mean = float(given.mean()) if n else _NONE
    always = fit(_own_means(labels), labels, seed=seed)
    of_most = (_own_means(np.where(np.isnan(labels), np.nan, supports(labels))) >= 0.5).astype(float)
    majority = bootstrap(lambda drawn: _same_support(of_most[drawn], labels[drawn]), rows, n, seed)
    return Labels(n, mean, base, Fit(n, always.error, always.auc, always.kappa, majority))


def auc(values: np.ndarray, labels: np.ndarray) -> float:
    """The area under the ROC curve for support (a label of 0.6 or more), mean over subgoals that have both kinds.

    Ties count half; in [0, 1], NaN if no subgoal has both kinds.
    """
    said = np.where(np.isnan(labels), np.nan, values)
    areas = [told_apart(own[:, None], supports(label))[0] for own, label in zip(said.T, labels.T, strict=True)]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else _NONE


def disputed(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs on which raters differ most: indexes (n, 2) of rows and subgoals, and spreads (n,), falling.

    `values` has shape (n_raters, n_rows, n_subgoals). At most `most` pairs, of equal spread the first in the data;
    none on which all agree, or that only one rater judged.
    """
    from_low, to_high = np.nan_to_num(values, nan=np.inf).min(axis=0), np.nan_to_num(values, nan=-np.inf).max(axis=0)
    spread = np.where(np.isfinite(from_low), to_high, 0) - np.where(np.isfinite(from_low), from_low, 0)
    spread = np.round(spread, 9)  # what sums of the same numbers differ by is no dispute
    order = np.argsort(-spread.ravel(), kind="stable")[:most]
    order = order[spread.ravel()[order] > 0]
    return np.column_stack(np.unravel_index(order, spread.shape)), spread.ravel()[order]


def bootstrap(statistic: Callable[[np.ndarray], float], rows: np.ndarray, n: int, seed: int) -> Estimate:
    """A statistic of rows with its percentile interval (Efron 1979); `rows` are indexes, drawn again with replacement.

    `n` is told in the estimate. Draws of which the statistic is NaN are left out; with one row there is no interval.
    """
    if not len(rows):
        return Estimate(_NONE, _NONE, _NONE, n)
    value = statistic(rows)
    if len(rows) == 1 or np.isnan(value):
        return Estimate(value, _NONE, _NONE, n)
    draw = np.random.default_rng(seed)
    found = np.array([statistic(draw.choice(rows, len(rows))) for _ in range(RESAMPLES)])
    return Estimate(value, *interval(found), n)


def _kappa_interval(first: np.ndarray, second: np.ndarray, seed: int) -> Estimate:
    """Kappa with its interval: rows are counted in tables once, and only the tables are added up anew."""
    tables = _tables(first, second)
    n = int(tables.sum())

    def of(rows: np.ndarray) -> float:
        return _kappa_of(np.tensordot(np.bincount(rows, minlength=len(tables)).astype(float), tables, axes=1))

    return bootstrap(of, _paired(first, second), n, seed)


def _tables(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How often each row has each two anchors, (n_rows, 6, 6); pairs that either lacks are left out."""
    size = len(ANCHORS)
    found = np.zeros((len(first), size, size))
    one, other = anchors(first), anchors(second)
    rows, columns = np.nonzero((one >= 0) & (other >= 0))
    np.add.at(found, (rows, one[rows, columns], other[rows, columns]), 1)
    return found


def _kappa_of(table: np.ndarray) -> float:
    """Quadratic-weighted kappa of a table of counts, (6, 6); NaN where it is not defined."""
    n = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) * _APART
    if n < 2 or not expected.any():
        return _NONE
    return float(1 - n * (table * _APART).sum() / expected.sum())


def _paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The rows that have a pair judged by both, ascending."""
    return np.flatnonzero((~(np.isnan(first) | np.isnan(second))).any(axis=1))


def _own_means(labels: np.ndarray) -> np.ndarray:
    """Each subgoal's mean where there is a label, of the same shape; NaN where there is none."""
    there = ~np.isnan(labels)
    means = np.where(there, labels, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return np.where(there, means, np.nan)


def _base_rate(labels: np.ndarray) -> float:
    return float(supports(labels[~np.isnan(labels)]).mean())


def _error(values: np.ndarray, labels: np.ndarray) -> float:
    return float(np.nanmean(np.abs(values - labels)))


def _same_support(values: np.ndarray, labels: np.ndarray) -> float:
    both = ~(np.isnan(values) | np.isnan(labels))
    return float((supports(values[both]) == supports(labels[both])).mean())
