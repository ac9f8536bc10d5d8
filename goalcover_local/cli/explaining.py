"""Explanations of scores already given: which rows are to have one, and having the judge write those that lack it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from ..judges import Judge
from ..phases.assess import EXPLAINED_PER_SUBGOAL, explain, low_rows
from ..store import Run
from ..terms import Sample, Subgoal
from .progress import progress
from .results import Results


def low_samples(
    run: Run,
    found: Results,
    *,
    most: int | None = EXPLAINED_PER_SUBGOAL,
    all_rows: bool = False,
    seed: int = 0,
) -> Mapping[int, np.ndarray]:
    """The places (n,) in the results of rows whose scores are to be explained, by the subgoal's column.

    Of each gap its low rows, at most `most` by seed; with `all_rows` every row that was judged, of every subgoal. Of
    rows that hold the same sample the first alone.
    """
    wanted = {}
    for column, covered in enumerate(found.coverage):
        chosen = found.values[found.value][:, column]
        if all_rows:
            rows = np.flatnonzero(~np.isnan(chosen))
        elif covered.verdict == "gap":
            rows = low_rows(chosen, most=most, seed=seed)
        else:
            continue
        wanted[column] = distinct(run, found, rows)
    return wanted


def distinct(run: Run, found: Results, rows: np.ndarray) -> np.ndarray:
    """Of these places of rows in the results, (n,), the first of each sample."""
    _, first = np.unique(run.row_samples(found.positions)[rows], return_index=True)
    return np.asarray(rows[np.sort(first)])


def unexplained(run: Run, found: Results, wanted: Mapping[int, np.ndarray]) -> np.ndarray:
    """Whether each of the wanted rows still lacks its explanation, (n,), column by column."""
    samples = run.row_samples(found.positions)
    lacking = [np.zeros(0, dtype=bool)]
    for column, rows in wanted.items():
        told = run.explanations(found.judge, found.goal.subgoals[column].digest)
        lacking.append(~np.isin(samples[rows], run.keys(each.sample for each in told)))
    return np.concatenate(lacking)


def explain_missing(
    run: Run, judge: Judge, found: Results, wanted: Mapping[int, np.ndarray], ends: float = float("inf")
) -> bool:
    """Whether it came to the end: explains the wanted rows that lack it, until `ends` on the monotonic clock."""
    samples = run.row_samples(found.positions)
    scores = found.values["score"]
    plan = [(int(row), column) for column, rows in wanted.items() for row in rows]
    lacking = unexplained(run, found, wanted)

    def read(some: slice) -> list[tuple[Sample, Subgoal, float]]:
        texts = run.samples(samples[[row for row, _ in plan[some]]])
        return [
            (sample, found.goal.subgoals[column], float(scores[row, column]))
            for sample, (row, column) in zip(texts, plan[some], strict=True)
        ]

    with progress("Explaining", int(lacking.sum()), "scores") as bar:
        for batch in explain(judge, lacking, read):
            run.append_explanations(found.judge, batch.explanations)
            run.count("device_seconds", batch.seconds)
            bar.advance(len(batch.explanations))
            if time.monotonic() > ends:
                return False
    return True
