"""Which subgoals the rows of a test set belong to: by a column of theirs, or by what a judge of alignment says."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from ..judges import Judge
    from ..store import Memory
    from ..terms import Goal, Sample, Subgoal

NONE = "none of them"
"""Where the rows stand that belong to no subgoal."""

LONGEST_VALUE = 80
MOST_VALUES = 100
"""A column with longer or with more values holds texts rather than names, and is refused."""


@dataclass(frozen=True)
class Belonging:
    """The subgoals, and which samples are theirs: `members` is boolean, (n_samples, n_subgoals).

    The last of the subgoals is `NONE` if `n_none` samples belong to no other. `value` is what told, `n_failed` how many
    judgements are missing.
    """

    subgoals: Sequence[str]
    members: np.ndarray
    n_none: int
    value: str
    n_failed: int = 0


def by_column(rows: Sequence[Sample], column: str) -> dict[str, set[str]]:
    """By sample digest, the values of a column in the rows that hold the sample; a list has several.

    Raises DataError if no row has the column, or if what it holds are no names; it tells of a line, never of a value.
    """
    from ..errors import DataError

    found: dict[str, set[str]] = {}
    there = False
    for row in rows:
        values = json.loads(row.raw)
        there = there or column in values
        given = values.get(column)
        names = [given] if not isinstance(given, list) else given
        for name in names:
            if not _is_name(name):
                raise DataError(
                    f"The column {column!r} holds no name of a subgoal in {row.source}:{row.line}.",
                    f"Name a column of lines of at most {LONGEST_VALUE} characters, of numbers, or of lists of them.",
                )
        found.setdefault(row.digest, set()).update(str(name).strip() for name in names if _says(name))
    if not there:
        raise DataError(f"The data have no column {column!r}.", "Name one that is there with --subgoal-column.")
    if (n := len(set().union(*found.values()))) > MOST_VALUES:
        raise DataError(
            f"The column {column!r} holds {n} different values, too many to be subgoals.",
            f"Name a column with at most {MOST_VALUES}, or let a judge say with --goal.",
        )
    return found


def _is_name(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_VALUE and value.strip().isprintable()
    return value is None or isinstance(value, bool | int | float)


def _says(value: Any) -> bool:
    return value is not None and bool(str(value).strip())


def of_column(named: Mapping[str, set[str]], samples: Sequence[Sample], column: str) -> Belonging:
    """What `by_column` found, for these samples; subgoals by name."""
    import numpy as np

    subgoals = sorted(set().union(*(named[sample.digest] for sample in samples)))
    members = np.array([[name in named[sample.digest] for name in subgoals] for sample in samples], dtype=bool)
    neither = np.array([not named[sample.digest] for sample in samples])
    return _with_none(subgoals, members.reshape(len(samples), len(subgoals)), neither, f"column {column}")


def by_judge(
    judge: Judge,
    goal: Goal,
    samples: Sequence[Sample],
    memory: Memory,
    *,
    value: str,
    retry_failed: bool = False,
    ends: float = float("inf"),
) -> Belonging | None:
    """The subgoals of a goal that samples support, as a judge sees it; None if `ends` came on the monotonic clock.

    A sample belongs to the subgoals for which its value reaches 0.6. Where a judgement is missing it may or may not
    belong, and so counts neither there nor among those that belong to none. Judgements are kept in the memory.
    """
    import numpy as np

    from ..coverage import values
    from ..scales import evidence, subgoal_bias
    from ..stats import supports
    from .assessing import _scale, references

    aliens, ground = references(value)
    asked = [*goal.subgoals, *aliens]
    scale = _scale(judge) if aliens else None
    if not _judge(judge, [*ground, *samples], asked, memory, retry_failed, ends):
        return None
    own = _probabilities(judge, samples, goal.subgoals, memory)
    bias = np.zeros(len(goal.subgoals))
    if aliens:
        known = (_probabilities(judge, ground, subgoals, memory) for subgoals in (goal.subgoals, aliens))
        bias = subgoal_bias(evidence(*known))
    found = values(own, _probabilities(judge, samples, aliens, memory), bias, scale)[value]
    members, missing = supports(found), np.isnan(found)
    neither = ~members.any(axis=1) & ~missing.any(axis=1)
    return _with_none([each.id for each in goal.subgoals], members, neither, value, int(missing.sum()))


def tell_belonging(found: Belonging, n_samples: int) -> None:
    """Nothing; says how many samples belong to no subgoal, and how many judgements are missing."""
    click.echo(f"{found.n_none} of {n_samples} rows belong to no subgoal, by {found.value}.", err=True)
    if found.n_failed:
        click.echo(
            f"{found.n_failed} judgements of what rows belong to failed and are left out; --retry-failed asks again.",
            err=True,
        )


def _with_none(
    subgoals: Sequence[str], members: np.ndarray, neither: np.ndarray, value: str, n_failed: int = 0
) -> Belonging:
    import numpy as np

    n_none = int(neither.sum())
    if n_none:
        subgoals, members = [*subgoals, NONE], np.column_stack([members, neither])
    return Belonging(subgoals, members, n_none, value, n_failed)


def _judge(
    judge: Judge,
    samples: Sequence[Sample],
    asked: Sequence[Subgoal],
    memory: Memory,
    retry_failed: bool,
    ends: float,
) -> bool:
    """Whether the memory holds a judgement of every pair, and was not stopped at `ends`."""
    import numpy as np

    from ..finetune.responding import due
    from ..phases.assess import assess
    from .progress import progress

    def key(sample: str, subgoal: str) -> str | None:
        return due(_key(judge, sample, subgoal), memory, retry_failed=retry_failed)

    missing = np.array([[key(s.digest, a.digest) is not None for a in asked] for s in samples])
    with progress("Judging what rows belong to", int(missing.sum()), "pairs") as bar:
        for batch in assess(judge, missing, lambda rows: samples[rows], asked):
            for judgement in batch.judgements:
                if place := key(judgement.sample, judgement.subgoal):
                    memory[place] = {"probabilities": judgement.probabilities, "failure": judgement.failure}
            memory.keep()
            bar.advance(len(batch.judgements), sum(each.failure is not None for each in batch.judgements))
            if time.monotonic() > ends and bar.done < missing.sum():
                return False
    return True


def _probabilities(
    judge: Judge, samples: Sequence[Sample], subgoals: Sequence[Subgoal], memory: Mapping[str, Any]
) -> np.ndarray:
    """What is remembered of these pairs, (n_samples, n_subgoals, 6); NaN where the judge failed."""
    import numpy as np

    from ..finetune.responding import latest
    from ..terms import ANCHORS

    missing = [float("nan")] * len(ANCHORS)
    told = [[memory[latest(_key(judge, s.digest, a.digest), memory)] for a in subgoals] for s in samples]
    numbers = [[each["probabilities"] or missing for each in row] for row in told]
    return np.array(numbers, dtype=float).reshape(len(samples), len(subgoals), len(ANCHORS))


def _key(judge: Judge, sample: str, subgoal: str) -> str:
    from ..terms import digest_of

    return digest_of(["alignment", judge.digest, sample, subgoal])
