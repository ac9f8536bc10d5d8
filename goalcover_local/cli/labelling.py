"""People's labels beside the judgements of a run: read from a file, matched by ids, what does not fit told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .refusals import tell_refusals

if TYPE_CHECKING:
    import numpy as np

    from ..store import Run
    from .results import Results


@dataclass(frozen=True)
class Labelled:
    """The labels of rows: `values` in [0, 1], (n_rows, n_subgoals), NaN where there is none.

    `random`, boolean, of the same shape, is False where the file says that a row was drawn for disagreement. `n_labels`
    counts the labels that were taken, and `digest` is that of the file.
    """

    values: np.ndarray
    random: np.ndarray
    n_labels: int
    digest: str


def labelled(run: Run, found: Results, path: Path) -> Labelled:
    """The labels in a file of the rows that an assessment drew, in the order of its positions.

    Tells on stderr of labels that cannot be used. Raises DataError if the file cannot be read, or none can be used.
    """
    place = {int(position): row for row, position in enumerate(found.positions)}
    rows = {sample.id: place[at] for at, sample in enumerate(run.rows()) if at in place}
    columns = {subgoal.id: column for column, subgoal in enumerate(found.goal.subgoals)}
    return matched(path, rows, columns, len(found.positions), len(columns))


def matched(path: Path, rows: Mapping[str, int], columns: Mapping[str, int], n_rows: int, n_columns: int) -> Labelled:
    """The labels in a file, put where `rows` and `columns` say for the ids of rows and subgoals.

    Where several rows are one, their labels' mean stands. Otherwise as `labelled`.
    """
    import numpy as np

    from ..errors import DataError
    from ..formats import content_digest, source_of
    from ..labels import read_labels
    from ..terms import Refusal

    labels, refusals = read_labels(path)
    shape = n_rows, n_columns
    total, counts, random = np.zeros(shape), np.zeros(shape), np.ones(shape, dtype=np.bool_)
    for label in labels:
        if label.row not in rows:
            refusals.append(Refusal(source_of(path), label.line, "its id is that of no row that was assessed"))
        elif label.subgoal not in columns:
            refusals.append(Refusal(source_of(path), label.line, "its subgoal is none of the goal's"))
        else:
            cell = rows[label.row], columns[label.subgoal]
            total[cell] += label.value
            counts[cell] += 1
            random[cell] &= label.drawn != "disagreement"
    if refusals:
        click.echo(f"{len(refusals)} rows of {source_of(path)} were refused and are no labels:", err=True)
        tell_refusals(sorted(refusals, key=lambda refusal: refusal.line))
    if not counts.any():
        mend = "Fill its column 'label' with numbers from 0 to 1, or yes and no; ids are those of the run's rows."
        raise DataError(f"{path} has no label that can be used.", mend)
    values = np.divide(total, counts, out=np.full(shape, np.nan), where=counts > 0)
    return Labelled(values, random, int(counts.sum()), content_digest(path))
