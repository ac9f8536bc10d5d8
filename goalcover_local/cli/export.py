"""`goalcover export`: what a run holds as JSON Lines: judgements, gaps, recommendations, written samples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..store import Run


@click.command("export", short_help="Write what a run holds, one JSON object a line.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; stdout if not given.")
@click.option(
    "--what",
    type=click.Choice(["judgements", "gaps", "recommendations", "candidates"]),
    default="judgements",
    show_default=True,
    help="What to write: a line for each row and subgoal, gap, recommendation or written sample.",
)
def command(run: Path, output: Path | None, what: str) -> None:
    """Write what the run in folder RUN holds, one JSON object a line: its judgements, or what was made of them.

    The order is that of the data, and the same however often the run was interrupted. Explanations may quote samples:
    the file is written for you alone (mode 0600).

    \b
    Example:
      goalcover export runs/first -o runs/first/judgements.jsonl
      goalcover export runs/first --what gaps
    """
    from ..store import Run

    with Run.open(run, write=False) as opened:
        records = _judgements(opened) if what == "judgements" else _made(opened, what)
        n = 0
        with click.open_file("-", "w", encoding="utf-8") if output is None else private(output) as stream:
            for record in records:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
                n += 1
        click.echo(f"{n} {what} written.", err=True)


def _judgements(run: Run) -> Iterator[Mapping[str, Any]]:
    import numpy as np

    from .results import results

    found = results(run)
    row_of = {int(position): row for row, position in enumerate(found.positions)}
    column_of = {subgoal.id: column for column, subgoal in enumerate(found.goal.subgoals)}
    corrected = found.values.get("corrected")
    for record in run.export(found.judge, found.positions):
        if corrected is not None:
            value = corrected[row_of[record["row"]], column_of[record["subgoal"]]]
            record["corrected"] = None if np.isnan(value) else float(value)
        yield record


def _made(run: Run, what: str) -> Iterator[Mapping[str, Any]]:
    from . import analyze, recommend, synthesize

    as_json = {"gaps": analyze.as_json, "recommendations": recommend.as_json, "candidates": synthesize.as_json}
    yield from as_json[what](run)[what]


@contextmanager
def private(output: Path) -> Iterator[IO[str]]:
    """The file to write, mode 0600. Raises StoreError if it cannot be written, or has the name of a run's own file."""
    from ..errors import StoreError

    if output.name.startswith("run."):
        raise StoreError(f"{output} is named like a file of a run.", "Choose another name for the export.")
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            if output.is_file():
                os.fchmod(stream.fileno(), 0o600)
            yield stream
    except OSError as error:
        raise StoreError(
            f"{output} cannot be written: {error.strerror}.", "Check the folder and its space, or name another file."
        ) from error
