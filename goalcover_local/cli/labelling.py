"""People's labels beside the judgements of a run: read from a file, matched by ids, what does not fit told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..terms import Refusal

if TYPE_CHECKING:
    import numpy as np

    from ..store import Run
    from .results import Results

_SHOWN = 10


@dataclass(frozen=True)
class Labelled:
    """The labels of rows: `values` in [0, 1], (n_rows, n_subgoals), NaN where there is none.

    `random`, boolean, of the same shape, is False where the file says that a row was drawn for disagreement, or does
    not say how it was drawn although it does of others. `n_labels` counts the labels that were taken, and `digest` is
    that of the file.
    """

    values: np.ndarray
    random: np.ndarray
    n_labels: int
    digest: str


def refuse_filled(path: Path) -> None:
    """Nothing; raises DataError if a new sheet would replace one with labels, or what is no sheet of ours."""
    from ..errors import DataError
    from ..labels import has_labels, is_sheet

    if not path.is_file():
        return
    if not is_sheet(path):
        raise DataError(f"{path} is there already, and is no sheet of ours.", "Choose another name.")
    if has_labels(path):
        problem = f"{path} has labels in it, or rows that cannot be read."
        raise DataError(problem, "Name another sheet, or give this one with --labels.")


def labelled(run: Run, found: Results, path: Path) -> Labelled:
    """The labels in a file of the rows that an assessment drew, in the order of its positions.

    Tells on stderr of labels that cannot be used. Raises DataError if the file cannot be read, or none can be used.
    """
    place = {int(position): row for row, position in enumerate(found.positions)}
    rows = {sample.id: place[at] for at, sample in enumerate(run.rows()) if at in place}
    columns = {subgoal.id: column for column, subgoal in enumerate(found.goal.subgoals)}
    return matched(path, rows, columns, (len(found.positions), len(columns)))


def matched(
    path: Path,
    rows: Mapping[str, int],
    columns: Mapping[str, int],
    shape: tuple[int, int],
    ambiguous: Collection[str] = (),
) -> Labelled:
    """The labels in a file, put where `rows` and `columns` say for the ids of rows and subgoals.

    Where several rows are one, their labels' mean stands; an id that is `ambiguous` is of none. Otherwise as
    `labelled`.
    """
    import numpy as np

    from ..errors import DataError
    from ..formats import content_digest, source_of
    from ..labels import read_labels

    labels, refusals = read_labels(path)
    told = any(label.drawn for label in labels)
    n_silent = 0
    total, counts, random = np.zeros(shape), np.zeros(shape), np.ones(shape, dtype=np.bool_)
    for label in labels:
        if label.row in ambiguous:
            refusals.append(Refusal(source_of(path), label.line, "its id is that of different rows"))
        elif label.row not in rows:
            refusals.append(Refusal(source_of(path), label.line, "its id is that of no row that was assessed"))
        elif label.subgoal not in columns:
            refusals.append(Refusal(source_of(path), label.line, "its subgoal is none of the goal's"))
        else:
            cell = rows[label.row], columns[label.subgoal]
            total[cell] += label.value
            counts[cell] += 1
            random[cell] &= label.drawn == "random" or not told
            n_silent += not label.drawn
    _tell_refusals(source_of(path), refusals)
    if not counts.any():
        mend = "Fill its column 'label' with numbers from 0 to 1, or yes and no."
        raise DataError(f"{path} has no label that can be used.", "Mend the rows refused." if refusals else mend)
    if n_silent:
        _tell_silent(source_of(path), n_silent, told)
    values = np.divide(total, counts, out=np.full(shape, np.nan), where=counts > 0)
    return Labelled(values, random, int(counts.sum()), content_digest(path))


def _tell_refusals(source: str, refusals: Sequence[Refusal]) -> None:
    """Nothing; tells on stderr of the rows refused, those with one reason together, at most ten lines and reasons."""
    from .terminal import counted

    if not refusals:
        return
    were = "was refused and is no label" if len(refusals) == 1 else "were refused and are no labels"
    click.echo(f"{counted(len(refusals), 'row')} of {source} {were}:", err=True)
    lines: dict[str, list[int]] = {}
    for refusal in sorted(refusals, key=lambda refusal: refusal.line):
        lines.setdefault(refusal.reason, []).append(refusal.line)
    for reason, found in list(lines.items())[:_SHOWN]:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        click.echo(f"  refused {source}:{', '.join(map(str, found[:_SHOWN]))}{more}: {reason}", err=True)
    if n_more := sum(map(len, list(lines.values())[_SHOWN:])):
        click.echo(f"  and {n_more} more", err=True)


def _tell_silent(source: str, n_silent: int, told: bool) -> None:
    """Nothing; tells on stderr of labels that do not say how their rows were chosen; `told` is whether others do."""
    from .terminal import counted

    if not told:
        click.echo(
            f"{source} does not say how its rows were chosen. They are taken as drawn at random: if they were picked, "
            "intervals that rest on them do not hold.",
            err=True,
        )
    else:
        click.echo(
            f"{counted(n_silent, 'label')} of {source} {'does' if n_silent == 1 else 'do'} not say how the row was "
            "chosen, while others do: no interval rests on what may have been picked.",
            err=True,
        )
