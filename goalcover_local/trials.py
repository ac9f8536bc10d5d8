"""Trials of a judge on ground of our own: does it tell a clear case, and does it say the same thing twice?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import EngineError
from .judges import Judge, Pair
from .scales import reference_pairs, reference_samples
from .terms import Sample, Subgoal

PAIRS_REPEATED = 100


@dataclass(frozen=True, slots=True)
class Repetition:
    """What changed between two judgings of the same pairs in different batches.

    `n_verdicts_changed` counts pairs with another score, `largest_move` is of the expectation, in [0, 1]; `n_failed`
    counts pairs that failed in either.
    """

    n_pairs: int
    n_verdicts_changed: int
    largest_move: float
    n_failed: int


def tells_a_clear_case(judge: Judge) -> tuple[float, float]:
    """The expectations of a fitting capability and of an alien one. Raises EngineError if they are the wrong way."""
    sample = Sample(
        "trial", "Which knot holds two ropes together?", "Use a sheet bend: it joins ropes of unlike thickness."
    )
    fitting = Subgoal("fitting", "Knots and ropes", "Explains how to tie knots and join ropes.")
    alien = Subgoal("alien", "Dental care", "Explains how to care for teeth and gums.")
    batch = judge.judge([(sample, fitting), (sample, alien)])
    first, second = (judgement.expectation for judgement in batch.judgements)
    if first is None or second is None:
        failure = next(j.failure for j in batch.judgements if j.failure)
        raise EngineError(f"The judge failed: {failure}.", "Use another engine, or another judge.")
    if first <= second:
        raise EngineError(
            f"The judge confuses a clear case: a fitting capability gets {first:.2f}, an alien one {second:.2f}.",
            "Use a stronger judge.",
        )
    return first, second


def repeated(judge: Judge, n_pairs: int = PAIRS_REPEATED, seed: int = 0) -> Repetition:
    """How two judgings of the same reference pairs differ: once in their order, once shuffled and in smaller batches.

    What an engine answers may hang on the company that a pair is asked in; a difference is rounding, and how large it
    is says how far a single judgement may be trusted.
    """
    pairs = _pairs(n_pairs)
    order = np.random.default_rng(seed).permutation(len(pairs))
    first = _expectations(judge, pairs, 48)
    second = np.empty_like(first)
    second[:, order] = _expectations(judge, [pairs[k] for k in order], 20)
    moves = np.abs(first[0] - second[0])
    failed = np.isnan(moves)
    changed = (first[1] != second[1]) & ~failed
    return Repetition(len(pairs), int(changed.sum()), float(np.nanmax(moves, initial=0.0)), int(failed.sum()))


def _pairs(n_pairs: int) -> list[Pair]:
    """The first pairs of reference samples and the capabilities they are known for, sample outermost."""
    subgoals = list({pair.subgoal.digest: pair.subgoal for pair in reference_pairs()}.values())
    pairs = [(sample, subgoal) for sample in reference_samples() for subgoal in subgoals]
    return pairs[:n_pairs]


def _expectations(judge: Judge, pairs: Sequence[Pair], size: int) -> np.ndarray:
    """Expectation and score of each pair, NaN where it failed, shape (2, n_pairs)."""
    judgements = [
        j for start in range(0, len(pairs), size) for j in judge.judge(pairs[start : start + size]).judgements
    ]
    found = [(np.nan, np.nan) if j.failure else (j.expectation, j.score) for j in judgements]
    return np.array(found, dtype=float).reshape(-1, 2).T
