"""Explanations of scores already given: which rows are to have one, and having the judge write those that lack it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from ..judges import Judge
from ..phases.assess import EXPLAINED_PER_SUBGOAL, explain, low_rows
from ..store import Run
from ..terms import ANCHORS, Sample, Subgoal
from .progress import progress
from .results import Results


def low_samples(run: Run, found: Results, *, all_rows: bool = False, seed: int = 0) -> Mapping[int, np.ndarray]:
    """The places (n,) in the results of rows whose scores are to be explained, by the subgoal's column.

    Of each gap its low rows, at most 200 by seed; with `all_rows` every row that was judged, of every subgoal. Of rows
    that hold the same sample the first alone.
    """
    wanted = {}
    for column, covered in enumerate(found.coverage):
        chosen = found.values[found.value][:, column]
        if all_rows:
            wanted[column] = distinct(run, found, np.flatnonzero(~np.isnan(chosen)))
        elif covered.verdict == "gap":
            wanted[column] = distinct(run, found, low_rows(chosen, most=EXPLAINED_PER_SUBGOAL, seed=seed))
    return wanted


def distinct(run: Run, found: Results, rows: np.ndarray) -> np.ndarray:
    """Of these places of rows in the results, (n,), the first of each sample."""
    _, first = np.unique(run.row_samples(found.positions)[rows], return_index=True)
    return np.asarray(rows[np.sort(first)])


def unexplained(run: Run, found: Results, column: int, rows: np.ndarray) -> np.ndarray:
    """Whether each of these rows still lacks its explanation for a subgoal, (n,)."""
    told = run.explanations(found.judge, found.goal.subgoals[column].digest)
    samples = run.row_samples(found.positions)[rows]
    return ~np.isin(samples, run.keys(each.sample for each in told))


def explain_missing(
    run: Run, judge: Judge, found: Results, wanted: Mapping[int, np.ndarray], ends: float = float("inf")
) -> bool:
    """Whether it came to the end: explains the wanted rows that lack it, until `ends` on the monotonic clock.

    Each subgoal is a plan of its own, so that it is explained in the same batches whatever else is. A panel's score is
    explained as the anchor nearest to it, since a judge gives no other.
    """
    samples = run.row_samples(found.positions)
    scores = found.values["score"]
    lacking = {column: unexplained(run, found, column, rows) for column, rows in wanted.items()}
    with progress("Explaining", sum(int(each.sum()) for each in lacking.values()), "scores") as bar:
        for column, rows in wanted.items():
            subgoal = found.goal.subgoals[column]

            def read(
                some: slice, rows: np.ndarray = rows, subgoal: Subgoal = subgoal, column: int = column
            ) -> list[tuple[Sample, Subgoal, float]]:
                texts = run.samples(samples[rows[some]])
                return [
                    (sample, subgoal, ANCHORS[round(5 * float(score))])
                    for sample, score in zip(texts, scores[rows[some], column], strict=True)
                ]

            for batch in explain(judge, lacking[column], read):
                run.append_explanations(found.judge, batch.explanations)
                run.count("device_seconds", batch.seconds)
                bar.advance(len(batch.explanations))
                if time.monotonic() > ends:
                    return False
    return True
