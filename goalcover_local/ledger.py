"""The ledger: one chain of events for a user, across all runs, in `ledger.jsonl` of the state folder.

Each line is an event (see `chain`). An event is appended under a lock and is on the disk before `append` returns; only
then does `ledger.head` name it, so that lines cut from the end are missed. What a crash left of a half-written line is
put into a file of its own, and an event tells so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .chain import Event, from_line, next_event, problems
from .errors import GoalCoverError, GoalError, StoreError
from .files import replace_file
from .resources import state
from .terms import canonical_json

FILE = "ledger.jsonl"
HEAD = "ledger.head"

MENDED = "ledger mended"
"""The kind of the event that tells of bytes at the end that were no event, and were put into a file of their own."""

LOST = "ledger lost"
"""The kind of the event that tells of events that were once written and are gone."""

PATIENCE = 10.0
"""Seconds to wait for another process that is writing."""

LAST_BYTES = 1 << 16
"""How much of the end is searched for the last event before all of it is."""

_warned: set[str] = set()


class Head(NamedTuple):
    """The last event that is known to have been on the disk."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands in the ledger.

    `unreadable` are the lines, counted from 1, that hold no event; `torn` are the bytes after the last line's end.
    `head` is None where there is none, or none that can be read.
    """

    events: tuple[Event, ...]
    unreadable: tuple[int, ...]
    torn: int
    head: Head | None

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence each; empty if the ledger is whole. A line that a crash tore is no wrong."""
        found = [f"Line {line} is not an event, or not as it was written." for line in self.unreadable]
        found += problems(self.events, self.head.seq if self.head else 0)
        if self.head is None and len(self.events) > 1:
            found.append(f"{HEAD} is missing, or cannot be read: events at the end may be missing too.")
        if self.head and any(event.seq == self.head.seq and event.hash != self.head.hash for event in self.events):
            found.append(f"Event {self.head.seq} is not the one that {HEAD} names.")
        found += [f"Event {e.seq} tells that {_lost_in_words(e.told)}." for e in self.events if e.kind == LOST]
        return found


def path() -> Path:
    """The ledger's file; it need not exist."""
    return state() / FILE


def append(kind: str, details: Mapping[str, Any], command: str | None = None) -> Event:
    """The event as added to the ledger, on the disk; see `chain.next_event`.

    The file is made with mode 0600 where there is none. Raises StoreError for details that look like text, and if the
    ledger cannot be written.
    """
    place = path()
    try:
        with _opened(place) as file:
            last = _mended(file, place)
            event = next_event(last, kind, details, command)
            _write(file, place, event)
            return event
    except (OSError, GoalError) as error:
        why = error.strerror if isinstance(error, OSError) else "its head stays behind"
        raise StoreError(
            f"The ledger {place} cannot be written ({why}).",
            "Check its permissions and the space there, or set GOALCOVER_STATE to a folder of your own.",
        ) from None


def note(kind: str, details: Mapping[str, Any], command: str | None = None) -> Event | None:
    """The event as added to the ledger; None where that failed, which is said once on stderr and never raised."""
    try:
        return append(kind, details, command)
    except Exception as error:
        why = error.problem if isinstance(error, GoalCoverError) else f"{type(error).__name__} at the ledger."
        if why not in _warned and sys.stderr is not None and not sys.stderr.closed:
            _warned.add(why)
            print(f"Warning: {why} What is done goes on, and is not recorded there.", file=sys.stderr)
        return None


def read() -> Reading:
    """What stands in the ledger now; nothing is mended. Raises StoreError if it is there and cannot be read."""
    place = path()
    try:
        with place.open("rb") as file:
            _lock(file, fcntl.LOCK_SH, place)
            data, head = file.read(), _head(place)
    except FileNotFoundError:
        data, head = b"", _head(place)
    except OSError as error:
        raise StoreError(
            f"The ledger {place} cannot be read ({error.strerror}).", "Have its permissions changed."
        ) from None
    *lines, rest = data.split(b"\n")
    events, unreadable = [], []
    for number, line in enumerate(lines, 1):
        try:
            events.append(from_line(line))
        except ValueError:
            unreadable.append(number)
    return Reading(tuple(events), tuple(unreadable), len(rest), head)


@contextmanager
def _opened(place: Path) -> Iterator[BinaryIO]:
    """The ledger's file, this process alone writing to it."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        os.fchmod(descriptor, 0o600)
        _lock(file, fcntl.LOCK_EX, place)
        yield file


def _lock(file: BinaryIO, kind: int, place: Path) -> None:
    """Nothing; the lock goes with the file. Raises StoreError if another process holds it too long."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise StoreError(
                    f"Another process has been writing to the ledger {place} for {PATIENCE:g} seconds.",
                    "End it, then start again.",
                ) from None
            time.sleep(0.02)


def _mended(file: BinaryIO, place: Path) -> Event | None:
    """The last event, after which nothing stands; None in an empty ledger. What was torn or lost has been told."""
    last, end = _last(file)
    size = file.seek(0, os.SEEK_END)
    if end < size:
        file.seek(end)
        torn = file.read()
        digest = hashlib.sha256(torn).hexdigest()
        _keep_aside(place.with_name(f"ledger.torn-{digest[:16]}"), torn)
        file.truncate(end)
        lost = _lost(last, _head(place))
        last = next_event(last, MENDED, {"bytes": len(torn), "sha256": digest})
        _write(file, place, last)
    else:
        lost = _lost(last, _head(place))
    if lost:
        last = next_event(last, LOST, lost)
        _write(file, place, last)
    return last


def _last(file: BinaryIO) -> tuple[Event | None, int]:
    """The last whole and unaltered event, and where its line ends; None and 0 if there is none."""
    size = file.seek(0, os.SEEK_END)
    for start in dict.fromkeys((max(0, size - LAST_BYTES), 0)):
        file.seek(start)
        data = file.read()
        end = data.rfind(b"\n") + 1
        while end:
            begin = data.rfind(b"\n", 0, end - 1) + 1
            if begin or not start:
                try:
                    event = from_line(data[begin:end])
                except ValueError:
                    event = None
                if event is not None and event.hash == event.seal:
                    return event, start + end
            end = begin
    return None, 0


def _lost(last: Event | None, head: Head | None) -> dict[str, Any]:
    """What is gone, if the head named an event that is no longer there: empty if nothing."""
    here = last.seq if last else 0
    if head is None:
        return {"head": "missing"} if here > 1 else {}
    if head.seq > here:
        return {"first": here + 1, "last": head.seq, "hash": head.hash}
    if last is not None and head.seq == here and head.hash != last.hash:
        return {"first": here, "last": here, "hash": head.hash}
    return {}


def _lost_in_words(details: Mapping[str, Any]) -> str:
    if "head" in details:
        return f"{HEAD} was missing"
    return f"events {details.get('first')} to {details.get('last')} were gone, the last of them {details.get('hash')}"


def _write(file: BinaryIO, place: Path, event: Event) -> None:
    """Nothing; the event is on the disk, and the head names it. A line that does not fit on the disk is taken back."""
    start, line = file.seek(0, os.SEEK_END), event.line.encode() + b"\n"
    try:
        if file.write(line) != len(line):
            raise OSError(0, "the disk is full")
        os.fsync(file.fileno())
    except OSError:
        file.truncate(start)
        raise
    replace_file(place.with_name(HEAD), canonical_json(Head(event.seq, event.hash)._asdict()), mode=0o600)


def _keep_aside(place: Path, data: bytes) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _head(place: Path) -> Head | None:
    try:
        held = Head(**json.loads(place.with_name(HEAD).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return held if type(held.seq) is int and isinstance(held.hash, str) else None
