"""A chain of events: who did what and when, each sealed by a hash over it and the one before.

An event on a line is canonical JSON: keys sorted, no spaces, UTF-8. Its hash is the SHA-256 of that line without the
field "hash", so that anyone can check a chain: `jq -cSj 'del(.hash)'` of a line, given to `sha256sum`, prints its hash,
which the next line repeats as "previous".
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import pwd
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from . import __version__
from .errors import StoreError
from .terms import canonical_json, digest_of

BEGINNING = "0" * 64
"""What stands for the hash before the first event."""

LONGEST_DETAIL = 200
"""Characters that a text in an event's details may have: enough for a digest or a name, not for a sample."""


@dataclass(frozen=True, slots=True)
class Event:
    """One link of the chain: `seq` counts from 1, `at` is UTC in ISO 8601, `details` is canonical JSON.

    `version` is the package's; events of before it was noted have none.
    """

    seq: int
    at: str
    who: str
    host: str
    command: str
    kind: str
    details: str
    previous: str
    hash: str
    version: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """The fields as they stand on a line; a version only where there is one."""
        return {name: value for name, value in asdict(self).items() if value or name != "version"}

    @property
    def line(self) -> str:
        """The event as canonical JSON, without a line's end."""
        return canonical_json(self.record)

    @property
    def seal(self) -> str:
        """The hash that this event should have: SHA-256 of the canonical JSON of every other field."""
        return digest_of({name: value for name, value in self.record.items() if name != "hash"})

    @property
    def told(self) -> dict[str, Any]:
        """The details as values; empty if they were altered so that nobody can read them."""
        try:
            found = json.loads(self.details)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def from_line(line: bytes) -> Event:
    """The event that stands on a line, whose end may be there. Raises ValueError unless it is one as `Event.line` is.

    Whether its hash fits is not looked at: see `problems`.
    """
    text = line.removesuffix(b"\n").decode()
    try:
        record = json.loads(text)
        event = Event(**record)
    except (TypeError, RecursionError):
        raise ValueError("no event") from None
    if type(record.pop("seq")) is not int or not all(isinstance(value, str) for value in record.values()):
        raise ValueError("no event")
    if event.line != text:
        raise ValueError("not canonical")
    return event


def next_event(last: Event | None, kind: str, details: Mapping[str, Any], command: str | None = None) -> Event:
    """The event that follows `last`, sealed, as of now, by this user on this machine.

    `details` hold digests, counts and names. Without `command` it is the running program and its subcommand;
    other arguments may be text and are left out. Raises StoreError for details that look like text.
    """
    _refuse_text(kind, details)
    who, host = author()
    fields: dict[str, Any] = {
        "seq": last.seq + 1 if last else 1,
        "at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "who": who,
        "host": host,
        "command": _running() if command is None else command,
        "kind": kind,
        "details": canonical_json(details),
        "previous": last.hash if last else BEGINNING,
        "version": __version__,
    }
    return Event(**fields, hash=Event(**fields, hash="").seal)


def problems(events: Iterable[Event], n_written: int) -> list[str]:
    """What is wrong with a chain that once had `n_written` events: a sentence each, empty if nothing."""
    found = []
    seq, seal = 0, BEGINNING
    for event in events:
        if event.seq <= seq:
            found.append(f"Event {event.seq} stands after event {seq}.")
        elif event.seq != seq + 1:
            found.append(_missing(seq + 1, event.seq - 1))
        elif event.previous != seal:
            found.append(f"Event {event.seq} does not follow the event before it.")
        if event.hash != event.seal:
            found.append(f"Event {event.seq} was altered: its hash does not fit its content.")
        seq, seal = event.seq, event.hash
    if seq < n_written:
        found.append(_missing(seq + 1, n_written))
    return found


def _missing(first: int, last: int) -> str:
    return f"Event {first} is missing." if first == last else f"Events {first} to {last} are missing."


def _refuse_text(kind: str, value: Any) -> None:
    """Raises StoreError if a value is, or holds, what could be a text rather than a name or a number."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            _refuse_text(kind, key)
            _refuse_text(kind, held)
    elif isinstance(value, list | tuple):
        for held in value:
            _refuse_text(kind, held)
    elif isinstance(value, str):
        if len(value) > LONGEST_DETAIL or not value.isprintable():
            raise StoreError(
                f"The details of the event {kind!r} hold a text of {len(value)} characters.",
                f"Give its digest or length: one line of at most {LONGEST_DETAIL} characters may stand.",
            )
    elif not isinstance(value, int | float | None):
        raise StoreError(
            f"The details of the event {kind!r} hold a {type(value).__name__}.",
            "Give numbers, names and digests only.",
        )


def digest_of_text(text: str) -> str:
    """What stands in an event for a text that does not belong there: the SHA-256 of its UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def author() -> tuple[str, str]:
    """Who writes the events of this process, and on which host: as the system says, not variables that anyone sets.

    Asked once: a host may be given another name while a command is at work, whose events belong together.
    """
    try:
        who = _plain(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        who = str(os.getuid())
    return who, _plain(platform.node())


def _running() -> str:
    """The running program's name, and its subcommand if it has one."""
    program, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    subcommand = next((word for word in arguments if re.fullmatch(r"[a-z][a-z-]{0,19}", word)), "")
    return _plain(f"{program} {subcommand}".strip())


def _plain(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
