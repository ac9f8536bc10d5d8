"""What a run's chain says of the run: its events, and the seals that bind them to what the run holds.

A program that records itself (see `Recording`) writes an event before it changes anything, and a seal when it closes
the run: the digest of every kind of content as it stands then. Contents that differ from the last seal were edited by
somebody else. All is digested anew each time, some seconds for a million judgements: sums that are kept up row by row
would have to be trusted, or checked in the same way.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain as joined
from pathlib import Path
from typing import Any

from . import chain
from .folder import VERSION, open_database
from .records import NUMBERS
from .run_failures import failures_told

OPENED = "opened"
"""The kind of the event before a command's first change: what the run holds then, in the same words as a seal.

"edited" are the kinds of content that are not as they were sealed, where any are, and `INDEXES` where those are wrong.
"""

SEALED = "sealed"
"""The kind of the event that seals: how the command ended, and of each kind of content the digest and the count."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "goal": ("goals", "subgoals", "goal_subgoals"),
    "rows": ("rows", "samples", "refusals", "data", "origin"),
    "judges": ("judges", "scales"),
    "judgements": ("judgements", "truncations"),
    "explanations": ("explanations",),
    "answers": ("answers",),
    "gaps": ("gaps",),
    "recommendations": ("recommendations",),
    "candidates": ("candidates",),
    "trainings": ("trainings", "steps", "checkpoints"),
    "decisions": ("decisions",),
    "counters": ("counters",),
}
"""The kinds of content and their tables; the rows of the first are counted."""

INDEXES = "indexes"
"""What stands beside the kinds of content where the file's own structure, which is not digested, does not hold."""


@dataclass(frozen=True, slots=True)
class Recording:
    """How a program puts the runs that it writes to on record: under which command's name, and whom it tells.

    Both are given the run's folder, its first event and its last: `opening` just before the first change is on the
    disk, `sealed` once all that was written is. `outcome` names how the work ended, given what it raised.
    """

    command: str
    outcome: Callable[[BaseException | None], str]
    opening: Callable[[Path, chain.Event, chain.Event], None]
    sealed: Callable[[Path, chain.Event, chain.Event], None]


recording: Recording | None = None
"""How this program records itself; None in one that uses the package as a library."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one command wrote to the chain: from `opened` to `sealed`, which is None where it was killed."""

    opened: chain.Event
    sealed: chain.Event | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """By kind, the digest of what a run holds, and how many."""

    digests: Mapping[str, str]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Examined:
    """What a run told at one moment: see `events`, `problems` and `unlike_seal`."""

    events: list[chain.Event]
    problems: list[str]
    edited: list[str] | None


def examined(folder: Path) -> Examined:
    """The chain and the contents of the run in a folder as they stood together, whoever writes to it meanwhile.

    Raises StoreError as `folder.open_database`, and for a file that is damaged.
    """
    with ExitStack() as held, failures_told(folder):
        database = open_database(folder, held, write=False, create=False)
        database.execute("BEGIN")
        return Examined(events(database), problems(database), unlike_seal(database))


def add(database: sqlite3.Connection, kind: str, details: Mapping[str, Any], command: str | None = None) -> chain.Event:
    """The event as added to the run's chain, see `chain.next_event`. Raises StoreError for text."""
    last = next(iter(_events(database, "ORDER BY seq DESC LIMIT 1")), None)
    event = chain.next_event(last, kind, details, command)
    values = [getattr(event, name) for name in event.__slots__]
    database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    return event


def events(database: sqlite3.Connection) -> list[chain.Event]:
    """Every event, oldest first."""
    return _events(database, "ORDER BY seq")


def problems(database: sqlite3.Connection) -> list[str]:
    """What is wrong with the chain, a sentence each; empty if it is whole and unaltered."""
    query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
    return chain.problems(events(database), database.execute(query).fetchone()[0])


def begin(database: sqlite3.Connection, command: str) -> tuple[chain.Event, chain.Event]:
    """The first event and the last, which now says that a command begins to write, and what the run holds then."""
    found = contents(database)
    edited = _unlike(_standing_seal(database), found) + _wrong_indexes(database)
    details = _sealing(found) | ({"edited": edited} if edited else {})
    last = add(database, OPENED, details, command)
    return _events(database, "ORDER BY seq LIMIT 1")[0], last


def seal(database: sqlite3.Connection, command: str, outcome: str) -> tuple[chain.Event, chain.Event]:
    """The first event and the last, which now seals what the run holds."""
    last = add(database, SEALED, {"outcome": outcome, **_sealing(contents(database))}, command)
    return _events(database, "ORDER BY seq LIMIT 1")[0], last


def unlike_seal(database: sqlite3.Connection) -> list[str] | None:
    """The kinds of content that are not as they were sealed; None if no seal of this format stands.

    `INDEXES` is among them where the file's structure does not hold, sealed or not: what an index says wrongly is
    found wrongly, and no digest of the rows shows it. A command that was killed leaves no seal, and a reader meets
    none while another process writes. Events that belong to no command (see `stretches`) neither lift a seal nor are
    one.
    """
    sealed = _standing_seal(database)
    edited = _unlike(sealed, contents(database)) if sealed else []
    edited += _wrong_indexes(database)
    return edited if sealed or edited else None


def stretches(found: Iterable[chain.Event]) -> tuple[list[Stretch], list[chain.Event]]:
    """The chain as the commands that wrote it, oldest first, and the events that belong to none of them.

    A command's events follow its `opened` up to its `sealed`, by the same user on the same machine. What stands before
    the first of all was written by a program that does not record itself.
    """
    commands: list[Stretch] = []
    strays = []
    for event in found:
        at_work = commands[-1] if commands and commands[-1].sealed is None else None
        if event.kind == OPENED:
            commands.append(Stretch(event))
        elif at_work is None:
            strays += [event] if commands or event.kind == SEALED else []
        elif (event.who, event.host) != (at_work.opened.who, at_work.opened.host):
            strays.append(event)
        elif event.kind == SEALED:
            commands[-1] = replace(at_work, sealed=event)
    return commands, strays


def changed(before: chain.Event, after: chain.Event) -> list[str] | None:
    """The kinds of content that differ between two events that tell of all; None if they cannot be compared."""
    one, other = before.told.get("contents"), after.told.get("contents")
    if (
        not isinstance(one, dict)
        or not isinstance(other, dict)
        or before.told.get("format") != after.told.get("format")
    ):
        return None
    return [kind for kind in KINDS if one.get(kind) != other.get(kind)]


def edits(found: Sequence[chain.Event]) -> list[str]:
    """What the chain itself tells of contents that were edited between two commands, a sentence each."""
    return [
        f"When event {event.seq} was written, {', '.join(map(str, event.told['edited']))} were not as sealed before it."
        for event in found
        if event.kind == OPENED and isinstance(event.told.get("edited"), list)
    ]


def contents(database: sqlite3.Connection) -> Contents:
    """Digests and counts of all that a run holds but its events: SHA-256 over the rows of each table by its key."""
    digests, counts = {}, {}
    with _any_text(database):
        for kind, tables in KINDS.items():
            digest = hashlib.sha256()
            for table in tables:
                digest.update(table.encode() + b"\n")
                for part in _judgements(database) if table == "judgements" else _rows(database, table):
                    digest.update(part)
            digests[kind] = digest.hexdigest()
            counts[kind] = database.execute(f"SELECT count(*) FROM {tables[0]}").fetchone()[0]
    return Contents(digests, counts)


def _sealing(found: Contents) -> dict[str, Any]:
    """What a run holds as the details of an event."""
    counts = {kind: n for kind, n in found.counts.items() if n}
    return {"format": VERSION, "contents": dict(found.digests), "counts": counts}


def _standing_seal(database: sqlite3.Connection) -> chain.Event | None:
    """The seal of the last command that wrote; None if it set none, or one of another format."""
    commands, _ = stretches(events(database))
    sealed = commands[-1].sealed if commands else None
    return sealed if sealed is not None and sealed.told.get("format") == VERSION else None


def _unlike(seal: chain.Event | None, found: Contents) -> list[str]:
    """The kinds of content that are not as they were sealed; none without a seal."""
    if seal is None:
        return []
    sealed = seal.told.get("contents")
    return [kind for kind in KINDS if not isinstance(sealed, dict) or sealed.get(kind) != found.digests[kind]]


def _wrong_indexes(database: sqlite3.Connection) -> list[str]:
    """`INDEXES` alone where SQLite finds an index, a page or a constraint that does not hold; else none."""
    with _any_text(database):
        found = database.execute("PRAGMA main.integrity_check(1)").fetchall()
    return [] if found == [("ok",)] else [INDEXES]


def _rows(database: sqlite3.Connection, table: str, columns: str = "*", only: str = "") -> Iterator[bytes]:
    """Each row as the ASCII text of a Python tuple, in the order of the table's key."""
    keys = database.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)).fetchall()
    order = ", ".join(key for (key,) in keys) or "rowid"
    for row in database.execute(f"SELECT {columns} FROM {table} {only} ORDER BY {order}"):
        yield ascii(row).encode() + b"\n"


def _judgements(database: sqlite3.Connection) -> Iterator[bytes]:
    """Judgements, of which there are most: their numbers as float64, nan where there is none, then the failures."""
    import numpy as np

    key = "judge, subgoal, sample"
    cursor = database.execute(f"SELECT {key}, {NUMBERS} FROM judgements ORDER BY {key}")
    while page := cursor.fetchmany(10_000):
        if set(map(type, joined.from_iterable(page))) <= {int, float, type(None)}:
            yield np.array(page, dtype="<f8").tobytes()
        else:  # somebody put in what is no number, and may look like one
            yield ascii(page).encode()
    yield from _rows(database, "judgements", f"{key}, failure", "WHERE failure IS NOT NULL")


def _events(database: sqlite3.Connection, which: str) -> list[chain.Event]:
    """Those events; text that was altered to what is no UTF-8 is read all the same, and breaks the event's hash."""
    with _any_text(database):
        found = database.execute(f"SELECT * FROM events {which}").fetchall()
    return [chain.Event(seq, *map(_as_text, fields)) for seq, *fields in found]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else ascii(value)


@contextmanager
def _any_text(database: sqlite3.Connection) -> Iterator[None]:
    """A context in which text that is no UTF-8 can be read."""
    before = database.text_factory
    database.text_factory = lambda held: held.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        database.text_factory = before
