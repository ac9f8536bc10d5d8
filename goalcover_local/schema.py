"""Whether a SQLite file holds the tables that a script makes, and nothing else: no trigger, no view, no other table.

What stands beside them could run with our own statements: a trigger changes what they do, unseen by a seal over rows.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .errors import StoreError

TYPES = ("table", "index", "view", "trigger")
LONGEST_NAME = 40
MOST_NAMED = 3


class Entry(NamedTuple):
    """A line of SQLite's list of what a file holds; the indexes that it makes by itself have no statement."""

    type: str
    name: str
    table: str
    statement: str


STATISTICS = frozenset(
    Entry("table", name, name, f"CREATE TABLE {name}({columns})")
    for name, columns in {"sqlite_stat1": "tbl,idx,stat", "sqlite_stat4": "tbl,idx,neq,nlt,ndlt,sample"}.items()
)
"""What SQLite adds to a file that somebody had it analyze."""


def entries(database: sqlite3.Connection) -> frozenset[Entry]:
    """What the file of this connection holds; text that is no UTF-8 is read all the same."""
    columns = ", ".join(f"CAST(coalesce({name}, '') AS BLOB)" for name in ("type", "name", "tbl_name", "sql"))
    held = database.execute(f"SELECT {columns} FROM main.sqlite_master")
    return frozenset(Entry(*(field.decode("utf-8", "replace") for field in row)) for row in held)


@cache
def made_by(script: str) -> frozenset[Entry]:
    """What an empty file holds once this script was run."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(script)
        return entries(database)


def check(database: sqlite3.Connection, file: Path, due: Collection[Entry], may: Collection[Entry] = ()) -> None:
    """Nothing. Raises StoreError unless the file holds all that is `due`, and beside it only what it `may`."""
    held = entries(database)
    there = {(entry.type, entry.name) for entry in held}
    odd = [_named(entry) for entry in sorted(held - {*due, *may, *STATISTICS})]
    odd += [f"no {_named(entry)}" for entry in sorted(due) if (entry.type, entry.name) not in there]
    if odd:
        more = f" and {len(odd) - MOST_NAMED} more" if len(odd) > MOST_NAMED else ""
        raise StoreError(
            f"{file} is not as we make it: it holds {', '.join(odd[:MOST_NAMED])}{more}.",
            "Restore the run from a copy.",
        )


def _named(entry: Entry) -> str:
    """The entry by type and name; of a name that somebody else chose, only plain letters are told."""
    kind = entry.type if entry.type in TYPES else "something"
    return f"{kind} {re.sub('[^A-Za-z0-9_]', '?', entry.name)[:LONGEST_NAME]}"
