"""The commands that an experiment is made of: shown as they would be typed, run in this process, each once."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .evaluating import stop

STAGE = "experiment stage ended"
FAILED = 3
"""The exit code of a command that came to its end with some answers missing."""

_SHORTEST = 1e-6


class Stages:
    """The stages of an experiment in a run folder, one after the other until `ends` on the monotonic clock.

    A stage that has ended is left out as long as it, and all before it, would be the same again. `code` is what the
    worst of them left with, 0 or 3. No stage holds the run while another one runs.
    """

    def __init__(self, folder: Path, beginning: str, ends: float = float("inf")) -> None:
        self.folder = folder
        self.code = 0
        self.ends = ends
        self._key = beginning

    def fork(self) -> Stages:
        """Stages that begin where these are: what becomes of either does not matter to the other."""
        return Stages(self.folder, self._key, self.ends)

    def run(self, name: str, command: click.Command, arguments: Sequence[str]) -> None:
        """Nothing; the command has been run with these arguments, now or before. Its results are not printed.

        Leaves with 130 where it does, or where time is up before it begins.
        """
        from ..terms import digest_of

        # The folder may be called by another path the next time.
        self._key = digest_of([self._key, name, [each.replace(str(self.folder), "RUN") for each in arguments]])
        if (code := self._ended(name)) is None:
            if time.monotonic() >= self.ends:
                stop()
            arguments = [*arguments, *self._time_left(command)]
            click.echo(f"\n$ goalcover {shlex.join([str(command.name), *arguments])}", err=True)
            code, _ = called(command, arguments)
            if code not in (0, FAILED):
                click.get_current_context().exit(code)
            self._note(name, code)
        else:
            click.echo(f"{name}: done before.", err=True)
        self.code = max(self.code, code)

    def _time_left(self, command: click.Command) -> list[str]:
        stops = any(parameter.name == "max_hours" for parameter in command.params)
        hours = max(_SHORTEST, (self.ends - time.monotonic()) / 3600)
        return ["--max-hours", f"{hours:.6f}"] if stops and hours != float("inf") else []

    def _ended(self, name: str) -> int | None:
        """The code with which the stage left when it was the same; None if it never was."""
        from ..store import Run

        with Run.open(self.folder, write=False) as run:
            told = [json.loads(event.details) for event in run.events() if event.kind == STAGE]
        same = [each for each in told if each["stage"] == name][-1:]
        return int(same[0]["code"]) if same and same[0]["key"] == self._key else None

    def _note(self, name: str, code: int) -> None:
        from ..store import Run

        with Run.open(self.folder, write=True) as run:
            run.event(STAGE, {"stage": name, "key": self._key, "code": code}, "goalcover experiment")


def called(command: click.Command, arguments: Sequence[str]) -> tuple[int, str]:
    """The code with which a command leaves, and what it printed on stdout.

    Raises what the command raises, click.UsageError for arguments that it does not take included.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), _collected():
        context = command.make_context(str(command.name), list(arguments), parent=click.get_current_context())
        try:
            with context:
                command.invoke(context)
        except click.exceptions.Exit as left:
            return left.exit_code, said.getvalue()
    return 0, said.getvalue()


@contextlib.contextmanager
def _collected() -> Iterator[None]:
    """A context after which the models that were open in it are gone from memory."""
    try:
        yield
    finally:
        gc.collect()


def flags(command: click.Command, values: Mapping[str, Any]) -> list[str]:
    """The values as the command's options, each by its parameter's name; those that are its defaults are left out."""
    found: list[str] = []
    for option in command.params:
        value = values.get(str(option.name))
        if not isinstance(option, click.Option) or value is None or value is False or value in ("", option.default):
            continue
        if option.is_flag:
            found.append(option.opts[0])
            continue
        for each in value if option.multiple else [value]:
            found += [option.opts[0], str(each)]
    return found
