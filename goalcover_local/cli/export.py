"""`goalcover export`: a run's judgements as JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click


@click.command("export", short_help="Write a run's judgements, one JSON object a line.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; stdout if not given.")
def command(run: Path, output: Path | None) -> None:
    """Write what was judged in folder RUN, one JSON object for each row and subgoal.

    The order is that of the data, and the same however often the run was interrupted. Explanations may quote samples:
    the file is written for you alone (mode 0600).

    \b
    Example:
      goalcover export runs/first -o runs/first/judgements.jsonl
    """
    import numpy as np

    from ..store import Run
    from .results import results

    with Run.open(run, write=False) as opened:
        found = results(opened)
        row_of = {int(position): row for row, position in enumerate(found.positions)}
        column_of = {subgoal.id: column for column, subgoal in enumerate(found.goal.subgoals)}
        corrected = found.values.get("corrected")
        n = 0
        with click.open_file("-", "w", encoding="utf-8") if output is None else private(output) as stream:
            for record in opened.export(found.judge, found.positions):
                if corrected is not None:
                    value = corrected[row_of[record["row"]], column_of[record["subgoal"]]]
                    record["corrected"] = None if np.isnan(value) else float(value)
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
                n += 1
        click.echo(f"{n} judgements written.", err=True)


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
