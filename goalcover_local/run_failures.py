"""What goes wrong with a run's file or its disk, told as a StoreError: one sentence what, one how to mend it."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreError

_FULL = ("is on a disk that is full", "Free some space and start again: all that was stored before is kept.")
_BARRED = ("may not be written to", "Have its permissions changed, or copy it to a folder of your own.")
_DAMAGED = (
    "is damaged, or is no run",
    "Bring it back from a copy, or save what `sqlite3 .recover` still reads.",
)
_FAILED = ("could not be read or written", "Check its path, its disk and the space there, then start again.")
_NO_FOLDER = ("is named like a file", "Name a folder with --run.")
_UNFIT = ("was given a record that does not fit", "Put its judge, subgoal and sample first.")
_TROUBLES = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _BARRED,
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "Check that you may read it, or copy it to your own folder.",
    ),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_ERROR: _DAMAGED,
    sqlite3.SQLITE_BUSY: ("is in use by another program", "Close that program and start again."),
    sqlite3.SQLITE_CONSTRAINT: _UNFIT,
}
_SYSTEM_TROUBLES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _BARRED,
    errno.EPERM: _BARRED,
    errno.EROFS: _BARRED,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
}


@contextmanager
def failures_told(folder: Path) -> Iterator[None]:
    """Turns what SQLite raises into a StoreError; its own messages hold no stored text."""
    try:
        yield
    except sqlite3.Error as error:
        if not result_code(error):
            raise
        trouble, mend = _TROUBLES.get(result_code(error), _FAILED)
        raise StoreError(f"The run {folder} {trouble} ({error}).", mend) from error


@contextmanager
def system_failures_told(folder: Path) -> Iterator[None]:
    """Turns what the operating system raises into a StoreError."""
    try:
        yield
    except OSError as error:
        trouble, mend = _SYSTEM_TROUBLES.get(error.errno or 0, _FAILED)
        raise StoreError(f"The run {folder} {trouble} ({error.strerror}).", mend) from error


def result_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error that is not SQLite's but our own misuse of it."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
