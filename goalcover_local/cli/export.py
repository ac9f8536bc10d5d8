"""`goalcover export`: what a run holds as JSON Lines: judgements, gaps, recommendations, written samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .table import as_text

if TYPE_CHECKING:
    from ..store import Run


@click.command("export", short_help="Write what a run holds, one JSON object a line.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; stdout if not given.")
@click.option(
    "--what",
    type=click.Choice(["judgements", "gaps", "recommendations", "candidates", "decisions"]),
    default="judgements",
    show_default=True,
    help="What to write: a line for each row and subgoal, gap, recommendation, written sample or decision.",
)
def command(run: Path, output: Path | None, what: str) -> None:
    """Write what the run in folder RUN holds, one JSON object a line: its judgements, or what was made of them.

    The order is that of the data, and the same however often the run was interrupted. Explanations may quote samples:
    the file is written for you alone (mode 0600), whole or not at all. On stdout, control characters are escaped.

    \b
    Example:
      goalcover export runs/first -o runs/first/judgements.jsonl
      goalcover export runs/first --what gaps
    """
    from ..store import Run

    with Run.open(run, write=False) as opened:
        records = _judgements(opened) if what == "judgements" else _made(opened, what)
        n = _print(records) if output is None else _write(opened, output, records)
        click.echo(f"{n} {what} written.", err=True)


def _print(records: Iterable[Mapping[str, Any]]) -> int:
    """How many records were printed, one a line; control characters that a terminal would obey are escaped."""
    n = 0
    with click.open_file("-", "w", encoding="utf-8") as stream:
        for record in records:
            n += 1
            stream.write(as_text(record, indent=None) + "\n")
    return n


def _write(run: Run, output: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """How many records the file now holds. Raises DataError if it cannot be written, or is the data or a run's own."""
    from ..outputs import placed
    from ..writers import write_records

    origin, n = run.origin(), 0

    def counted() -> Iterator[Mapping[str, Any]]:
        nonlocal n
        for record in records:
            n += 1
            yield record

    with placed(output, "jsonl", [Path(origin.path)] if origin else []) as place:
        write_records(place, counted())
    return n


def _judgements(run: Run) -> Iterator[Mapping[str, Any]]:
    """The judgements of the rows drawn; of a panel each judge's, one judge after the other, with its digest."""
    from .results import results, values_of

    found = results(run)
    columns = {subgoal.id: column for column, subgoal in enumerate(found.goal.subgoals)}
    rows = {int(position): row for row, position in enumerate(found.positions)}
    samples = run.row_samples(found.positions)
    for judge in found.judges:
        values = values_of(run, found.goal, judge, samples)[2] if found.panel else found.values
        more = [name for name in ("corrected", "calibrated") if name in values]
        for record in run.export(judge, found.positions):
            cell = rows[record["row"]], columns[record["subgoal"]]
            for name in more:
                value = float(values[name][cell])
                record[name] = None if value != value else value
            yield {**record, "judge": judge} if found.panel else record


def _made(run: Run, what: str) -> Iterator[Mapping[str, Any]]:
    from . import analyze, decided, recommend, written
    from .results import results

    if what == "decisions":
        yield from decided.records(run, results(run))
        return
    as_json = {"gaps": analyze.as_json, "recommendations": recommend.as_json, "candidates": written.as_json}
    yield from as_json[what](run)[what]
