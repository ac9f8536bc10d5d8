"""What the `goalcover` command puts on record of itself: in the user's ledger, and in the runs that it writes to."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import audit, ledger

if TYPE_CHECKING:
    from ..chain import Event

BEGAN = "command began"
ENDED = "command ended"
RUN_OPENED = "run opened"
RUN_SEALED = "run sealed"

UNRECORDED = ("audit",)
"""Commands that only look at what is on record, and leave it as it is."""

GROUPS = {"models": ("list", "show", "pull", "add", "verify")}
"""Commands that have commands of their own."""

PACKAGES = ("torch", "transformers", "outlines", "vllm", "trl", "peft", "datasets")
"""The packages whose versions an event names, where they are installed."""


@contextmanager
def recorded(commands: Collection[str]) -> Iterator[None]:
    """A context in which the command that this process was called with is on record, with its exit code.

    Of `commands` alone: what is mistyped may be text, and help is none.
    """
    words = _words(sys.argv[1:], commands)
    if not words:
        yield
        return
    command = f"goalcover {' '.join(words)}"
    ledger.note(BEGAN, {"python": platform.python_version(), "packages": _versions()}, command)
    before, audit.recording = audit.recording, audit.Recording(command, outcome, _opening, _sealed)
    code: object = 1
    try:
        yield
        code = 0
    except SystemExit as left:
        code = left.code or 0
        raise
    finally:
        audit.recording = before
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
    ledger.note(RUN_OPENED, {"run": first.hash, "place": place(folder)}, last.command)


def _sealed(folder: Path, first: Event, last: Event) -> None:
    """Nothing; says where the run's chain stands, and puts it on record."""
    details = {"run": first.hash, "place": place(folder), "events": last.seq, "head": last.hash}
    ledger.note(RUN_SEALED, details, last.command)
    click.echo(f"Audit: {last.seq} events, head {last.hash}", err=True)


def _words(arguments: Sequence[str], commands: Collection[str]) -> list[str]:
    """The command's words, none if it is unknown, unrecorded, or only asks for help."""
    if {"-h", "--help", "--version"} & set(arguments):
        return []
    words = [word for word in arguments if not word.startswith("-")]
    if not words or words[0] not in commands or words[0] in UNRECORDED:
        return []
    return [words[0], *(word for word in words[1:2] if word in GROUPS.get(words[0], ()))]


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
