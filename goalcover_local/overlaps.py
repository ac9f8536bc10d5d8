"""Measured overlap: how far an assessment's values tell two subgoals apart, whatever a model thinks of their texts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .stats import supports
from .terms import Estimate

FEWEST_ROWS = 10
"""A correlation over fewer rows is not stated."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How two subgoals' values go together over the rows of a run.

    `correlation` is Spearman's, with its 95% interval; None where too few rows have both values, or one of them does
    not vary. `n_both` rows support both subgoals and `n_either` at least one.
    """

    subgoals: tuple[str, str]
    correlation: Estimate | None
    n_both: int
    n_either: int


def overlaps(ids: list[str], values: np.ndarray) -> list[Overlap]:
    """The overlap of every pair of subgoals, from their values, (n_samples, n_subgoals); NaN is missing."""
    found = []
    for first, second in combinations(range(len(ids)), 2):
        rows = values[:, [first, second]]
        rows = rows[~np.isnan(rows).any(axis=1)]
        both = supports(rows)
        found.append(
            Overlap(
                (ids[first], ids[second]),
                rank_correlation(rows[:, 0], rows[:, 1]),
                int(both.all(axis=1).sum()),
                int(both.any(axis=1).sum()),
            )
        )
    return found


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Estimate | None:
    """Spearman's correlation in [-1, 1] with its 95% interval by Fisher's z (variance of Bonett and Wright, 2000)."""
    from scipy.stats import norm, spearmanr

    n = len(first)
    if n < FEWEST_ROWS or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    rho = float(spearmanr(first, second).statistic)
    half = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    low, high = float(np.tanh(centre - half)), float(np.tanh(centre + half))
    return Estimate(rho, min(low, rho), max(high, rho), n)
