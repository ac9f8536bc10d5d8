"""Records as a run's tables hold them: how each is written, and how a table refers to another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

from .errors import StoreError
from .terms import Explanation, Judgement, Refusal, Sample, Subgoal

T = TypeVar("T")

JUDGE = "(SELECT key FROM judges WHERE digest = ?)"
SUBGOAL = "(SELECT key FROM subgoals WHERE digest = ?)"
SAMPLE = "(SELECT key FROM samples WHERE digest = ?)"
"""A table names each judge, subgoal and sample by a small number; these find it by the digest."""

NUMBERS = "p0, p1, p2, p3, p4, p5"
"""The columns of the six probabilities, anchors ascending."""

PURGED = b"\xff"
"""What stands in a run where a sample's text was purged: never a text's own bytes, for UTF-8 has no such byte."""


def insert_subgoals(database: sqlite3.Connection, subgoals: Iterable[Subgoal]) -> None:
    """Nothing. A subgoal that is known stays as it is."""
    for subgoal in subgoals:
        read = {"name": subgoal.name, "description": subgoal.description, "evidence": subgoal.evidence}
        query = "INSERT OR IGNORE INTO subgoals(digest, json) VALUES (?, ?)"
        database.execute(query, (subgoal.digest, as_json(read)))


def insert_sample(database: sqlite3.Connection, sample: Sample) -> bytes:
    """The sample's digest, 32 bytes. A sample that is known stays as it is; one that was purged has its text again."""
    values = bytes.fromhex(sample.digest), as_bytes(sample.input), as_bytes(sample.output)
    database.execute(
        "INSERT INTO samples(digest, input, output) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE"
        " SET input = excluded.input, output = excluded.output WHERE samples.input = ?",
        (*values, PURGED),
    )
    return values[0]


def insert_rows(database: sqlite3.Connection, rows: Iterable[Sample | Refusal]) -> None:
    """Nothing. Samples are numbered from 0 in their order; refusals keep one of their own."""
    position = 0
    for row in rows:
        if isinstance(row, Refusal):
            refusal = as_bytes(row.source), row.line, as_bytes(row.reason)
            database.execute("INSERT INTO refusals(source, line, reason) VALUES (?, ?, ?)", refusal)
        else:
            digest = insert_sample(database, row)
            values = position, digest, as_bytes(row.id), as_bytes(row.source), row.line, row.raw
            database.execute(f"INSERT INTO rows VALUES (?, {SAMPLE}, ?, ?, ?, ?)", values)
            position += 1


def insert_judgements(database: sqlite3.Connection, judge: str, judgements: Iterable[Judgement]) -> None:
    """Nothing. A judgement that is known stays as it is, unless it failed."""
    newer = ", ".join(f"{name} = excluded.{name}" for name in (*NUMBERS.split(", "), "failure"))
    database.executemany(
        f"INSERT INTO judgements VALUES ({JUDGE}, {SUBGOAL}, {SAMPLE}, ?, ?, ?, ?, ?, ?, ?)"
        f" ON CONFLICT (judge, subgoal, sample) DO UPDATE SET {newer} WHERE judgements.failure IS NOT NULL",
        (
            (judge, j.subgoal, bytes.fromhex(j.sample), *map(float, j.probabilities), j.failure)
            if j.probabilities is not None
            else (judge, j.subgoal, bytes.fromhex(j.sample), *[None] * 6, j.failure)
            for j in judgements
        ),
    )


def insert_explanations(database: sqlite3.Connection, judge: str, explanations: Iterable[Explanation]) -> None:
    """Nothing. A later explanation replaces an earlier one."""
    database.executemany(
        f"INSERT OR REPLACE INTO explanations VALUES ({JUDGE}, {SUBGOAL}, {SAMPLE}, ?, ?)",
        ((judge, e.subgoal, bytes.fromhex(e.sample), as_bytes(e.text), as_bytes(e.answer)) for e in explanations),
    )


def as_json(value: Any) -> str:
    """A record as JSON, its keys sorted."""
    return json.dumps(value, sort_keys=True)


def as_bytes(text: str) -> bytes:
    """A text as it is stored: JSON may hold halves of surrogate pairs, which SQLite's own texts cannot."""
    return text.encode("utf-8", "surrogatepass")


def as_text(stored: bytes) -> str:
    """The text that `as_bytes` stored. Raises StoreError if it was purged."""
    if stored == PURGED:
        raise StoreError(
            "The texts of this run's samples were purged.",
            "Give the data again with `goalcover assess`: the texts come back, and nothing is judged twice.",
        )
    return stored.decode("utf-8", "surrogatepass")


def as_record(record: Any) -> str:
    """A record of the terms as JSON, in the order of its fields."""
    kind: Any = type(record)
    text: bytes = _adapter(kind).dump_json(record)
    return text.decode()


def from_record(kind: type[T], text: str) -> T:
    """The record of this kind that `as_record` wrote."""
    adapter: Any = kind
    found: T = _adapter(adapter).validate_json(text)
    return found


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
