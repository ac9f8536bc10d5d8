"""What a study draws from the data and takes out of them: options, columns, rows, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .assessing import data_options, recognised, stop_options

if TYPE_CHECKING:
    import numpy as np

    from ..readers import Layout
    from ..store import Origin
    from ..studies.removals import Removal, Row, Study
    from ..terms import Sample
    from .judging import Command

_SEEDS = 5
_OPTIONS = (
    click.argument("study"),
    click.argument("data", type=click.Path(path_type=Path)),
    click.option(
        "--run",
        "run_folder",
        type=click.Path(path_type=Path),
        help="The run folder, new or to be continued; runs/validate-STUDY if not given.",
    ),
    click.option(
        "--rows",
        type=click.IntRange(4),
        help="Judge strategic samples of this many rows, half of them matching the removals, not the whole of DATA.",
    ),
    click.option(
        "--seeds",
        "n_seeds",
        type=click.IntRange(1),
        help=f"How many strategic samples are drawn; {_SEEDS} if not given, or 1 with --rows, as each is judged.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes all that is drawn."),
    click.option(
        "--draws",
        type=click.IntRange(100),
        default=10_000,
        show_default=True,
        help="Random removals that each removal is compared with.",
    ),
    stop_options,
    data_options,
)


def study_options(command: Command) -> Command:
    """The command with everything that a study takes: study, data, run folder, and what is drawn."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def folder_of(study: Study, options: Mapping[str, Any]) -> Path:
    """The run folder that the options name, else runs/validate-STUDY."""
    return options["run_folder"] or Path("runs") / f"validate-{study.name}"


def data_given(study: Study, options: dict[str, Any]) -> tuple[Layout, Origin]:
    """How the data are read, by the study's columns unless options name others, and where they come from."""
    from ..errors import DataError

    own = not (options["input_column"] or options["output_column"] or options["template"])
    if own and (study.input or study.output):
        named = {"input_column": ",".join(study.input), "output_column": ",".join(study.output)}
        try:
            return recognised({**options, **named})
        except DataError:
            if not study.ships:
                raise
    return recognised(options)


@dataclass(frozen=True)
class Drawing:
    """What a study draws and removes.

    `judged` are positions of all rows to be judged, `natural` and each of `strategic` (by seed) are parts of them.
    `removed` (k, n_rows) says which rows each of the removals takes; `shortfalls` (by seed) how many rows of a
    strategic sample each lacks, `lacking` which removals the data have no columns for. `samples` (n_rows,) says which
    rows hold the same sample, `unknown` how many ids of a removal are of no row, and of how many.
    """

    removals: Sequence[Removal]
    removed: np.ndarray
    judged: np.ndarray
    natural: np.ndarray
    strategic: Mapping[int, np.ndarray]
    shortfalls: Mapping[int, Mapping[str, int]]
    lacking: Sequence[tuple[Removal, Sequence[str]]]
    samples: np.ndarray
    unknown: Mapping[str, tuple[int, int]]


def drawing_of(study: Study, samples: Sequence[Sample], options: Mapping[str, Any]) -> Drawing:
    """What the options draw of these rows. Raises DataError if a removal takes no row, or all of them."""
    import numpy as np

    from ..studies.corruption import strategic
    from ..studies.removals import Listed, check_columns

    rows: list[Row] = [_columns(sample) for sample in samples]
    removals, lacking = check_columns(study, rows)
    seed, size = options["seed"], options["rows"]
    removed = np.array([removal.removed(samples, rows, seed) for removal in removals])
    for removal, mask in zip(removals, removed, strict=True):
        _refuse_all_or_none(removal, mask)
    patterns = [k for k, removal in enumerate(removals) if removal.kind == "removal"] or list(range(len(removals)))
    matched = removed[patterns]
    size = size or min(len(rows), 2 * int(matched.any(axis=0).sum()))
    n_seeds = 1 if size >= len(rows) else options["n_seeds"] or (1 if options["rows"] else _SEEDS)
    seeds = range(seed, seed + n_seeds)
    drawn = {each: strategic(matched, size, each) for each in seeds}
    some = bool(options["rows"]) and size < len(rows)
    natural = np.unique(np.concatenate([base for _, base, _ in drawn.values()]))
    judged = np.unique(np.concatenate([positions for positions, _, _ in drawn.values()]))
    everything = np.arange(len(rows))
    return Drawing(
        removals,
        removed,
        judged if some else everything,
        natural if some else everything,
        {each: positions for each, (positions, _, _) in drawn.items()},
        {
            each: {removals[k].name: int(n) for k, n in zip(patterns, lack, strict=True) if n}
            for each, (_, _, lack) in drawn.items()
        },
        lacking,
        np.unique([sample.digest for sample in samples], return_inverse=True)[1],
        {
            removal.name: (removal.way.n_unknown(samples), len(removal.way.ids))
            for removal in removals
            if isinstance(removal.way, Listed)
        },
    )


def _columns(sample: Sample) -> Row:
    """A row by its columns; empty where it is a text alone."""
    try:
        row = json.loads(sample.raw)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _refuse_all_or_none(removal: Removal, mask: np.ndarray) -> None:
    from ..errors import DataError

    if not mask.any() or mask.all():
        raise DataError(
            f"The removal {removal.name!r} takes {'every row' if mask.all() else 'no row'} of the data.",
            "Name other terms, fields or values in a study file.",
        )


def tell_drawing(drawing: Drawing) -> None:
    """Nothing; tells how many rows each removal matches, what strategic samples lack, and what is left out."""
    for removal, absent in drawing.lacking:
        click.echo(f"Left out: {removal.name}: the data have no column {', '.join(absent)}.", err=True)
    for removal, mask in zip(drawing.removals, drawing.removed, strict=True):
        click.echo(f"{removal.name}: {int(mask.sum())} of {len(mask)} rows, for {removal.target}.", err=True)
        n_unknown, n_ids = drawing.unknown.get(removal.name, (0, 0))
        if n_unknown:
            click.echo(f"{removal.name}: {n_unknown} of {n_ids} ids are of no row.", err=True)
    seed, positions = next(iter(drawing.strategic.items()))
    for name, n in drawing.shortfalls[seed].items():
        click.echo(f"Shortfall: the strategic sample has {n} rows fewer than it should of {name}.", err=True)
    n = len(drawing.strategic)
    click.echo(
        f"{len(drawing.judged)} rows to judge: natural mix {len(drawing.natural)}, "
        f"{n} strategic sample{'' if n == 1 else 's'} of {len(positions)}.",
        err=True,
    )
    if len(positions) == len(drawing.samples):
        click.echo("So many rows match that a strategic sample is the whole data: one is as good as several.", err=True)
