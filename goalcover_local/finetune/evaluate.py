"""What grades of a fixed test set say of policies. Pure functions; missing is NaN, and so is what has no answer.

A policy's grades have shape (n_samples,), one for each different test sample, in the same order for every policy. Any
scale will do: the score and its judged part lie in [1, 5], the checked part in [0, 1]. Intervals are those of
`estimate`: they tell what other test samples could have shown, not what another training could.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from ..resampling import paired
from ..stats import CONFIDENCE, spearman
from ..terms import Estimate

RESAMPLES = 9_999
"""How often samples are drawn again for an interval."""

TIE = 1e-9
"""Grades closer than this are equal."""

_AT_ONCE = 4_000_000
_NONE = float("nan")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a policy did on the test samples.

    `n` samples have a score and `n_failed` have none, their judgement being missing. `score` and its `judged` part are
    in [1, 5]; `checked`, what programs found, is in [0, 1], and None if nothing was checked. `length` is the mean
    number of words written.
    """

    policy: str
    n: int
    n_failed: int
    score: Estimate
    judged: Estimate
    checked: Estimate | None
    length: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a policy did beside another on the `n` test samples where both have a grade.

    `difference` is the mean of the policy's grades minus the other's. `p` is of Student's paired test, `p_ranks` of
    Wilcoxon's, `d` is Cohen's with the pooled deviation: see `resampling.Paired`. `wins` is the share of samples where
    the policy is better, ties by half, so that 0.5 is no better and no worse; `ties` is the share of those.
    """

    policy: str
    against: str
    n: int
    difference: Estimate
    p: float
    p_ranks: float
    d: float
    wins: float
    ties: float


@dataclass(frozen=True, slots=True)
class SubgoalStanding:
    """How the policies did on the `n` test samples of one subgoal.

    `means` has each policy's mean, and `differences` how far it lies above the first policy on the samples that both
    have, in the policies' order; None where there is no sample, and for the first policy's difference to itself.
    """

    subgoal: str
    n: int
    means: tuple[Estimate | None, ...]
    differences: tuple[Estimate | None, ...]


def stand(
    policy: str,
    scores: np.ndarray,
    judged: np.ndarray,
    checked: np.ndarray | None,
    lengths: np.ndarray,
    seed: int = 0,
) -> Standing:
    """How a policy did; every array has shape (n_samples,), and `lengths` count words.

    Each estimate rests on the samples that have its own value: a response whose judgement failed is checked still.
    """
    n = int((~np.isnan(scores)).sum())
    words = lengths[~np.isnan(lengths)]
    return Standing(
        policy=policy,
        n=n,
        n_failed=len(scores) - n,
        score=estimate(scores, seed),
        judged=estimate(judged, seed),
        checked=None if checked is None or np.isnan(checked).all() else estimate(checked, seed),
        length=float(words.mean()) if len(words) else _NONE,
    )


def compare(policy: str, scores: np.ndarray, against: str, base_scores: np.ndarray, seed: int = 0) -> Comparison:
    """How a policy did beside another, by any grade, both (n_samples,); samples that either lacks are left out.

    Pairs are drawn again as pairs, which is why the interval is of their difference and not of two means.
    """
    scores = np.where(np.abs(scores - base_scores) < TIE, base_scores, scores)
    apart = scores - base_scores
    told = paired(scores, base_scores)
    known = apart[~np.isnan(apart)]
    ties = float((known == 0).mean()) if len(known) else _NONE
    better = float((known > 0).mean()) if len(known) else _NONE
    return Comparison(
        policy=policy,
        against=against,
        n=told.n,
        difference=estimate(apart, seed),
        p=told.p,
        p_ranks=told.p_ranks,
        d=told.d,
        wins=better + ties / 2,
        ties=ties,
    )


def by_subgoal(
    scores: np.ndarray, members: np.ndarray, subgoals: Sequence[str], seed: int = 0
) -> list[SubgoalStanding]:
    """How the policies did on the samples of each subgoal (paper, section 6.4), in the order of `subgoals`.

    `scores` is (n_policies, n_samples), `members` (n_samples, n_subgoals) says which samples are a subgoal's, of which
    one sample may have several. A subgoal without samples stays, with nothing known of it. The intervals are of one
    number each: of many that are looked at, some are off.
    """
    found = []
    for subgoal, rows in zip(subgoals, members.astype(bool).T, strict=True):
        own = scores[:, rows]
        found.append(
            SubgoalStanding(
                subgoal=subgoal,
                n=int(rows.sum()),
                means=tuple(_known(row, seed) for row in own),
                differences=tuple(_known(row - own[0], seed) if place else None for place, row in enumerate(own)),
            )
        )
    return found


def length_correlation(scores: np.ndarray, lengths: np.ndarray) -> float:
    """Spearman's rank correlation of scores with lengths, both (n_samples,), in [-1, 1]; NaN if either is constant.

    A reward that pays for length shows here.
    """
    return spearman(scores, lengths)


def over_seeds(scores: np.ndarray) -> np.ndarray:
    """Each sample's mean (n_samples,) over trainings that differ by their seed, of (n_seeds, n_samples).

    A seed that lacks a sample is left out of its mean; NaN where all do.
    """
    there = ~np.isnan(scores)
    sums = np.where(there, scores, 0.0).sum(axis=0)
    return np.where(there.any(axis=0), sums / np.maximum(there.sum(axis=0), 1), np.nan)


def seed_spread(scores: np.ndarray) -> float:
    """The standard deviation of the seeds' means, of (n_seeds, n_samples), over the samples that all of them have.

    It tells what another training could show, as no interval here does. NaN with fewer than two seeds, and where they
    have no sample in common.
    """
    shared = scores[:, ~np.isnan(scores).any(axis=0)]
    return float(shared.mean(axis=1).std(ddof=1)) if len(shared) > 1 and shared.size else _NONE


def holm(p: Sequence[float]) -> list[float]:
    """The p-values, adjusted for being several (Holm 1979), in [0, 1] and in the same order; NaN stays, uncounted.

    Calling significant what stays below a level lets chance through in any of them no more often than that level,
    however they hang together.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)[: int((~np.isnan(values)).sum())]
    left = np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(left * values[order]), 1.0)
    return [float(value) for value in adjusted]


def estimate(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of the values (n,) that are not missing, with its 95% bootstrap interval; `n` counts them.

    Percentiles, taken further out for few values, so that they cover as often as Student's interval does (Hesterberg
    2015, "What Teachers Should Know About the Bootstrap"), yet never leave the values' own range: with fewer than five
    that is too narrow. NaN with none, and no interval with one.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]) if n else _NONE, _NONE, _NONE, n)
    further = np.sqrt(n / (n - 1)) * distributions.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    interval = distributions.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _AT_ONCE // n),
        vectorized=True,
        confidence_level=1 - 2 * distributions.norm.sf(further),
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high), n)


def _known(values: np.ndarray, seed: int) -> Estimate | None:
    """The estimate; None if there is nothing to estimate from."""
    return None if np.isnan(values).all() else estimate(values, seed)
