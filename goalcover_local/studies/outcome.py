"""What the grades of a fine-tuning study come to: standings, comparisons, subgoals, and what may be read from them.

Pure functions. A row is a dataset that was trained on, or the policy before any training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..finetune.evaluate import (
    Comparison,
    Standing,
    SubgoalStanding,
    by_subgoal,
    compare,
    holm,
    length_correlation,
    over_seeds,
    seed_spread,
    stand,
)
from ..stats import CONFIDENCE

SCORE, JUDGED, CHECKED = "score", "judged", "checked"
PARTS = (SCORE, JUDGED, CHECKED)
"""What a grade comes to: all of it, what the judge says, what a program computes."""

LEVEL = round(1 - CONFIDENCE, 9)
"""An adjusted p below it is more than chance: the level that goes with the intervals beside it."""

FEW = 20
"""A subgoal with fewer test rows tells next to nothing."""


@dataclass(frozen=True, slots=True)
class Grades:
    """A row's grades, each (n_seeds, n_samples), NaN where missing: a line for each training that differs by its seed.

    `score` and `judged` are in [1, 5], `checked` in [0, 1]; `words` counts those of each response.
    """

    score: np.ndarray
    judged: np.ndarray
    checked: np.ndarray
    words: np.ndarray

    def part(self, name: str) -> np.ndarray:
        """One of `PARTS`, the mean over the seeds for each sample, (n_samples,)."""
        return over_seeds(getattr(self, name))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rows came to, in their order.

    `comparisons` are by part, and by the row that others are held against. `subgoals` have the rows in the order of
    `subgoal_rows`, of which the first is what differences are to. `seeds` has the mean of each training of a row, and
    `spread` their standard deviation, NaN for one. `lengths` is the correlation of scores with lengths.
    """

    standings: Sequence[Standing]
    comparisons: Mapping[tuple[str, str], Sequence[Comparison]]
    subgoals: Sequence[SubgoalStanding]
    subgoal_rows: Sequence[str]
    seeds: Mapping[str, Sequence[float]]
    spread: Mapping[str, float]
    lengths: Mapping[str, float]


def outcome(
    grades: Mapping[str, Grades],
    against: Sequence[str],
    members: np.ndarray,
    subgoals: Sequence[str],
    seed: int = 0,
) -> Outcome:
    """What the grades come to; `against` are rows that the others are compared with, those that are there.

    `members`, boolean (n_samples, n_subgoals), says which samples are a subgoal's.
    """
    known = [row for row in against if row in grades]
    order = [*known[:1], *(row for row in grades if row not in known[:1])]
    scores = np.array([grades[row].part(SCORE) for row in order])
    return Outcome(
        [_standing(row, each, seed) for row, each in grades.items()],
        {(part, other): _compared(grades, part, other, seed) for other in known for part in PARTS},
        by_subgoal(scores, members, subgoals, seed),
        order,
        {row: [_mean(line) for line in each.score] for row, each in grades.items()},
        {row: seed_spread(each.score) for row, each in grades.items()},
        {row: length_correlation(each.part(SCORE), each.words.mean(axis=0)) for row, each in grades.items()},
    )


def _standing(row: str, each: Grades, seed: int) -> Standing:
    return stand(row, each.part(SCORE), each.part(JUDGED), each.part(CHECKED), each.words.mean(axis=0), seed)


def _compared(grades: Mapping[str, Grades], part: str, other: str, seed: int) -> list[Comparison]:
    """Every other row beside one; none where that part is nowhere."""
    base = grades[other].part(part)
    if np.isnan(base).all():
        return []
    return [compare(row, each.part(part), other, base, seed) for row, each in grades.items() if row != other]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def told_apart(comparisons: Sequence[Comparison]) -> list[bool]:
    """Whether each is more than chance among so many: its p, adjusted, below LEVEL, and 0 outside its interval.

    What all pairs share, and tests therefore say nothing of, is told apart by none.
    """
    adjusted = holm([each.p for each in comparisons])
    return [
        bool(p < LEVEL and (each.difference.low > 0 or each.difference.high < 0))
        for each, p in zip(comparisons, adjusted, strict=True)
    ]


def differences(found: Outcome, titles: Mapping[str, str]) -> list[str]:
    """Which rows differ by more than chance, and which do not, in sentences; `titles` are what rows are called."""
    return [
        _against(comparisons, f"the {'judged part of the score' if part == JUDGED else 'score'}", titles)
        for (part, _), comparisons in found.comparisons.items()
        if comparisons and part in (SCORE, JUDGED)
    ]


def cautions(found: Outcome, titles: Mapping[str, str]) -> list[str]:
    """What may not be read from an outcome, in sentences."""
    said = []
    if small := [f"{each.subgoal} ({each.n})" for each in found.subgoals if each.n < FEW]:
        said.append(f"Fewer than {FEW} test rows, which tell next to nothing: {', '.join(small)}.")
    if n := sum(each is not None for row in found.subgoals for each in row.differences):
        said.append(f"By subgoal {n} differences are looked at: of their intervals, one in twenty is off by chance.")
    spreads = {row: spread for row, spread in found.spread.items() if spread == spread}
    if spreads:
        told = ", ".join(f"{titles.get(row, row)} {spread:.3f}" for row, spread in spreads.items())
        said.append(f"Standard deviation of a row's mean from training to training: {told}.")
    else:
        said.append(
            "Each dataset was trained on once: intervals tell what other test rows could show, not what another "
            "training could."
        )
    return said


def _against(comparisons: Sequence[Comparison], what: str, titles: Mapping[str, str]) -> str:
    """Which rows differ from one by more than chance, and which do not, in a sentence or two."""
    apart = told_apart(comparisons)
    other = titles.get(comparisons[0].against, comparisons[0].against)
    differ = [
        f"{titles.get(each.policy, each.policy)} by {each.difference.value:+.3f} ({each.difference.low:+.3f} to "
        f"{each.difference.high:+.3f})"
        for each, differs in zip(comparisons, apart, strict=True)
        if differs
    ]
    alike = [
        titles.get(each.policy, each.policy) for each, differs in zip(comparisons, apart, strict=True) if not differs
    ]
    if not differ:
        return f"In {what} no row can be told apart from {other}: {', '.join(alike)}."
    told = f"In {what} these differ from {other} by more than chance (adjusted p < {LEVEL:g}): {', '.join(differ)}."
    return f"{told} Not told apart: {', '.join(alike)}." if alike else told
