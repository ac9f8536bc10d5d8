"""A specification or a set of subgoals in the person's $EDITOR."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .terminal import plain

if TYPE_CHECKING:
    from ..terms import Subgoal

_TRIES = 5
"""How often the editor opens on a set that cannot be read."""


def edited_lines(lines: Sequence[str]) -> tuple[str, ...] | None:
    """The lines as the person left them in $EDITOR, None if nothing changed. Raises UsageError if it failed."""
    with _editing():
        text = click.edit("".join(f"{line}\n" for line in lines), extension=".txt")
    changed = None if text is None else tuple(plain(line).strip() for line in text.splitlines() if line.strip())
    return None if changed == tuple(lines) else changed


def edited_set(subgoals: Sequence[Subgoal]) -> tuple[Subgoal, ...] | None:
    """The set as the person left it in $EDITOR, None if nothing changed. Raises UsageError if it is wrong."""
    from ..errors import GoalError
    from ..goal_files.reading import read_subgoals
    from ..goal_files.writing import written_subgoals

    with tempfile.TemporaryDirectory(prefix="goalcover-") as folder:
        path = Path(folder) / "subgoals.toml"
        path.write_text(written_subgoals(subgoals), encoding="utf-8")
        left = b""
        for tries in range(_TRIES):
            with _editing():
                click.edit(filename=str(path))
            try:
                changed = read_subgoals(path)
                break
            except GoalError as error:
                told = str(error).replace(str(path), path.name)
                if not path.exists() or path.read_bytes() == left or tries == _TRIES - 1:
                    raise click.UsageError(f"{told} The set is as it was.") from None
            left = path.read_bytes()
            click.echo(f"{told} The editor opens again; leave the text as it is to give up.")
    return None if changed == tuple(subgoals) else changed


@contextmanager
def _editing() -> Iterator[None]:
    """A context in which an editor that fails raises click.UsageError, so that the interview goes on."""
    try:
        yield
    except (click.ClickException, ValueError) as error:
        problem = (
            error.message if isinstance(error, click.ClickException) else "the text is no UTF-8, or $EDITOR is wrong"
        )
        raise click.UsageError(f"{problem}. All is as it was; $EDITOR names the editor.") from None
