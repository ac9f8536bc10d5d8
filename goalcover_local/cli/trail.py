"""What the `goalcover` command puts on record of itself: in the user's ledger, and in the runs that it writes to."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import audit, ledger
from .. import folder as runs

if TYPE_CHECKING:
    from ..chain import Event

BEGAN = "command began"
ENDED = "command ended"
RUN_OPENED = "run opened"
RUN_SEALED = "run sealed"
RUN_READ = "run read"

UNRECORDED = ("audit",)
"""Commands that only look at what is on record, and leave it as it is."""

GROUPS = {"models": ("list", "show", "pull", "add", "verify")}
"""Commands that have commands of their own."""

HELP = {"-h", "--help", "--version"}
"""The options with which click answers itself, and calls no command."""

PACKAGES = ("torch", "transformers", "outlines", "vllm", "trl", "peft", "datasets")
"""The packages whose versions an event names, where they are installed."""


@contextmanager
def recorded(commands: Collection[str]) -> Iterator[None]:
    """A context in which the command that this process was called with is on record: what it opens, and its exit code.

    Of `commands` alone: what is mistyped may be text, and help is none.
    """
    words = _words(sys.argv[1:], commands)
    if not words:
        yield
        return
    command = f"goalcover {' '.join(words)}"
    ledger.note(BEGAN, {"python": platform.python_version(), "packages": _versions()}, command)
    before = audit.recording, runs.on_reading
    audit.recording = audit.Recording(command, outcome, _opening, _sealed)
    runs.on_reading = _reading(command)
    code: object = 1
    try:
        yield
        code = 0
    except SystemExit as left:
        code = left.code or 0
        raise
    finally:
        audit.recording, runs.on_reading = before
        ledger.note(ENDED, {"code": code if isinstance(code, int) else 1}, command)


def outcome(error: BaseException | None) -> str:
    """How work that raised this ended: "ended", "interrupted" or "failed"."""
    code = getattr(error, "exit_code", None) if isinstance(error, click.exceptions.Exit) else None
    if isinstance(error, KeyboardInterrupt | click.Abort) or code == 130:
        return "interrupted"
    return "ended" if error is None or code in (0, 3) else "failed"


def place(folder: Path) -> str:
    """The digest of where a run lies: a path may hold a name that is nobody's business."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()


def _opening(folder: Path, first: Event, last: Event) -> None:
    """Nothing; the ledger knows the run before anything in it changes."""
    ledger.note(RUN_OPENED, _named(folder, first, last), last.command)


def _reading(command: str) -> Callable[[Path, str], None]:
    """Puts a run on record before anything in it is read: once for a command, however often that opens it."""
    known = set()

    def tell(folder: Path, first: str) -> None:
        run = first if re.fullmatch("[0-9a-f]{64}", first) else ""  # somebody may have put a text there
        if (run, here := place(folder)) not in known:
            known.add((run, here))
            ledger.note(RUN_READ, {"run": run, "place": here}, command)

    return tell


def _sealed(folder: Path, first: Event, last: Event) -> None:
    """Nothing; says where the run's chain stands, and puts it on record."""
    ledger.note(RUN_SEALED, _named(folder, first, last), last.command)
    click.echo(f"Audit: {last.seq} events, head {last.hash}", err=True)


def _named(folder: Path, first: Event, last: Event) -> dict[str, str | int]:
    """What names a run, where it lies, and how far its chain goes."""
    return {"run": first.hash, "place": place(folder), "events": last.seq, "head": last.hash}


def _words(arguments: Sequence[str], commands: Collection[str]) -> list[str]:
    """The command's words, none if it is unknown, unrecorded, or only asks for help.

    It does so for certain where the help option comes before all others but --debug: further on it may be the value of
    another option, so that such a command is on record even if help is all that it gives.
    """
    words = [word for word in arguments if not word.startswith("-")]
    if not words or words[0] not in commands or words[0] in UNRECORDED:
        return []
    words = [words[0], *(word for word in words[1:2] if word in GROUPS.get(words[0], ()))]
    first = [word for word in arguments if word != "--debug"][: len(words) + 1]
    return [] if HELP & set(first) else words


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
