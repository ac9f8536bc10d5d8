"""Phase 2, coverage assessment: every sample judged against every subgoal (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..judges import Batch, Judge
from ..terms import Sample, Subgoal

LOW = 0.4
"""Rows of at most this value are the low-scoring ones whose explanations the gap analysis reads (paper, Eq. 7)."""

EXPLAINED_PER_SUBGOAL = 200
"""How many low rows of a subgoal are explained unless all are asked for."""


def blocks(missing: np.ndarray, size: int) -> Iterator[slice]:
    """The batches still to be judged, in plan order, as slices of at most `size` of the plan's samples.

    `missing` is boolean, (n_samples, n_subgoals). The borders depend on the plan alone, so a run that was interrupted
    asks the very batches that an unbroken one would.
    """
    for start in range(0, len(missing), size):
        rows = slice(start, min(start + size, len(missing)))
        if missing[rows].any():
            yield rows


def assess(
    judge: Judge,
    missing: np.ndarray,
    read: Callable[[slice], Sequence[Sample]],
    subgoals: Sequence[Subgoal],
    asking: Callable[[int], None] = lambda n_pairs: None,
) -> Iterator[Batch]:
    """Judgements of the missing pairs, a batch at a time; `missing` is boolean, (n_samples, n_subgoals).

    `read` gives the samples of a slice of the plan; `asking` hears how many pairs are about to be asked.
    """
    for rows in blocks(missing, judge.samples_per_batch):
        wanted = missing[rows]
        asking(int(wanted.sum()))
        yield judge.judge(
            [
                (sample, subgoal)
                for sample, row in zip(read(rows), wanted, strict=True)
                for subgoal, is_wanted in zip(subgoals, row, strict=True)
                if is_wanted
            ]
        )


def explain(
    judge: Judge, missing: np.ndarray, read: Callable[[slice], Sequence[tuple[Sample, Subgoal, float]]]
) -> Iterator[Batch]:
    """Explanations of scores already given, a batch at a time, in the fixed batches of a plan as in `assess`.

    `missing` is boolean, (n_scores,); `read` gives a slice of the plan. A batch is asked whole if any of it is missing,
    since what a model writes may hang on its company.
    """
    for rows in blocks(missing[:, None], judge.samples_per_batch):
        yield judge.explain(read(rows))


def low_rows(values: np.ndarray, *, most: int | None, seed: int) -> np.ndarray:
    """Which rows have a low value (at most 0.4), ascending; where there are more than `most`, a seeded sample."""
    rows = np.flatnonzero(values <= LOW + 1e-9)
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    return rows
