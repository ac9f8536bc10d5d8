"""Runs with judgements put by hand, so that a row has the very values that a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from goalcover_local.cli.results import STARTED
from goalcover_local.formats import content_digest
from goalcover_local.readers import read, recognise
from goalcover_local.store import Origin, Run
from goalcover_local.terms import ANCHORS, Goal, Judgement, Subgoal

SUBGOALS = (Subgoal("treatment", "Treatment", "How it is treated."), Subgoal("causes", "Causes", "Why it comes."))
GOAL = Goal("Answer patients.", subgoals=SUBGOALS)

Values = Sequence[float | None]
"""A row's value for each subgoal; None is a failed judgement."""


def probabilities(value: float) -> tuple[float, ...]:
    """Those of the anchors around a value, whose mean is that value."""
    low = min(int(value * 5 + 1e-9), len(ANCHORS) - 2)
    found = [0.0] * len(ANCHORS)
    found[low + 1] = value * 5 - low
    found[low] = 1 - found[low + 1]
    return tuple(max(0.0, each) for each in found)


def judged_run(
    folder: Path, data: Path, values: Mapping[str, Values], *, limit: int = 0, split: str | None = None
) -> Path:
    """The folder of a run over these data, each sample judged as `values` say for its output; others are not judged."""
    layout = recognise(data, split=split)
    with Run.open(folder, write=True, create=True) as run:
        run.put_goal(GOAL)
        run.put_rows(read(data, layout), "data", Origin(str(data.absolute()), content_digest(data), asdict(layout)))
        judge = run.put_judge({"card": "by hand"})
        run.append(
            judge,
            [
                Judgement(digest, subgoal.digest, None if value is None else probabilities(value), failure)
                for digest, found in {row.digest: values.get(row.output) for row in run.rows()}.items()
                if found is not None
                for subgoal, value in zip(SUBGOALS, found, strict=True)
                for failure in ["token limit" if value is None else None]
            ],
        )
        told = {"judge": judge, "goal": GOAL.digest, "data": "data", "seed": 0, "limit": limit, "tau": 0.6}
        run.event(STARTED, {**told, "value": "expectation"}, "test")
    return folder
