"""Purging a run: the texts of its samples go, and every text that may quote one; numbers, digests and the chain stay.

What stays: goal and subgoals, judgements with their failures, gaps and recommendations as counts, trainings, events,
answers of models that are numbers. What goes: inputs, outputs, rows as they were read, explanations, what models wrote
(names of missing capabilities, recommendations, candidates, responses), and people's reasons for their decisions.
Reference samples, which ship, stay too, and of the files in the folder those whose content is certain (see `beside`).

Nothing is lost half: each step may be done again, so that a purge which was killed is finished by the next one.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from .audit import add
from .beside import Files, files
from .decisions import REASON_PURGED
from .errors import StoreError
from .folder import DATABASE
from .records import PURGED, as_bytes, as_json, as_record, as_text, from_record, insert_sample
from .scales import reference_samples
from .store import Run
from .terms import Gap, MissingCapability, Recommendation, Refusal, Sample, digest_of

BEGUN = "purge begun"
ENDED = "samples purged"
GIVEN = "samples given again"

REMOVED = "(purged)"
"""What stands in gaps and recommendations where a text was."""

CHANGED = ("samples", "rows", "explanations", "answers", "gaps", "recommendations", "candidates", "decisions")
"""The tables from which texts go."""

NAMED = ("rows", "refusals", "origin")
"""The tables from which ids and paths go, if these go too."""

KEPT = (
    *("goals", "subgoals", "goal_subgoals", "data", "judges", "judgements", "truncations", "scales", "counters"),
    *("events", "trainings", "steps", "checkpoints"),
)
"""The tables that hold no text of a sample."""


class Texts(NamedTuple):
    """How many texts of each kind a run holds that a purge removes."""

    samples: int
    rows: int
    explanations: int
    answers: int
    gaps: int
    recommendations: int
    candidates: int
    reasons: int


def is_purged(run: Run) -> bool:
    """Whether the texts of the run's rows were purged and not given again."""
    return bool(run._read("SELECT EXISTS (SELECT 1 FROM rows WHERE raw = ?)", (PURGED,))[0][0])


def is_begun(run: Run) -> bool:
    """Whether a purge was begun that did not come to its end."""
    kinds = [event.kind for event in run.events() if event.kind in (BEGUN, ENDED)]
    return kinds[-1:] == [BEGUN]


def texts(run: Run) -> Texts:
    """How many texts of each kind a purge would remove."""
    n = {table: int(run._read(f"SELECT count(*) FROM {table}")[0][0]) for table in ("explanations", "candidates")}
    return Texts(
        samples=run._read(f"SELECT count(*) FROM samples WHERE {_WHOLE}", _purged())[0][0],
        rows=run._read("SELECT count(*) FROM rows WHERE raw <> ?", (PURGED,))[0][0],
        answers=sum(1 for _ in _telling(run._read("SELECT key, json FROM answers"))),
        gaps=sum(gap != _without_words(gap) for gap in run.gaps()),
        recommendations=sum(each != _without_text(each) for each in run.recommendations()),
        reasons=sum(text != _without_reason(text) for (text,) in run._read("SELECT json FROM decisions")),
        **n,
    )


def purge(run: Run, *, ids: bool = False, others: bool = False) -> tuple[Texts, Files]:
    """What was removed, and what lay beside the run.

    With `ids`, ids of rows, names of files and the data's path give way to their digests; with `others`, files of
    unknown content go as well. Runs inside the folder are not touched: they are to be purged by themselves. Not one
    byte of a text is left in the run's file. Raises StoreError if another program keeps the file open, if a file cannot
    be removed, or if a text is there afterwards all the same: then the purge is not finished, and may be tried again.
    """
    held, lying = texts(run), files(run)
    told = {**held._asdict(), "ids": ids, "files": len(lying.rows) + (len(lying.others) if others else 0)}
    run.event(BEGUN, told)
    run._read("PRAGMA secure_delete = ON")
    with run._transaction() as database:
        _remove_texts(database)
        if ids:
            _remove_ids(database)
    for path in (*lying.rows, *(lying.others if others else ())):
        _remove_file(run.folder, path)
    _shrink(run)
    with run._transaction() as database:
        add(database, ENDED, told)
        _check(run)
    return held, lying


def _check(run: Run) -> None:
    """Nothing; raises StoreError if the run holds a text that was to be removed."""
    if left := {name: n for name, n in texts(run)._asdict().items() if n}:
        raise StoreError(
            f"The run {run.folder} still holds texts ({', '.join(f'{n} {name}' for name, n in left.items())}),"
            " so the purge is not finished.",
            "Something in its file puts them back: run the same command again, and if that does not help, delete it.",
        )


def give_again(run: Run, rows: Iterable[Sample | Refusal]) -> int:
    """How many rows have their texts, ids and places again: those of the very data that the run was made from.

    All of them or none. Raises StoreError if a row is not the one that stood there.
    """
    run.event(GIVEN, {"n_rows": run.n_rows()})
    position = n_refused = 0
    with run._transaction() as database:
        known = dict(database.execute("SELECT r.position, s.digest FROM rows r JOIN samples s ON s.key = r.sample"))
        for row in rows:
            if isinstance(row, Refusal):
                n_refused += 1
                values: tuple[Any, ...] = (as_bytes(row.source), as_bytes(row.reason), n_refused)
                database.execute("UPDATE refusals SET source = ?, reason = ? WHERE position = ?", values)
                continue
            if known.get(position) != bytes.fromhex(row.digest):
                raise StoreError(
                    f"Line {row.line} of {row.source} is not what the run {run.folder} was made from.",
                    "Give the very file that was assessed, or assess this one in a new folder.",
                )
            insert_sample(database, row)
            values = (as_bytes(row.id), as_bytes(row.source), row.raw, position)
            database.execute("UPDATE rows SET id = ?, source = ?, raw = ? WHERE position = ?", values)
            position += 1
    return position


_WHOLE = "(input <> ?1 OR output <> ?1) AND hex(digest) NOT IN (SELECT value FROM json_each(?2))"
"""Which samples have their text, and are none of ours; the values are `_purged()`."""


def _purged() -> tuple[bytes, str]:
    """What stands for a text, and the digests of the reference samples as a JSON list, in SQLite's capitals."""
    return PURGED, json.dumps([sample.digest.upper() for sample in reference_samples()])


def _remove_texts(database: sqlite3.Connection) -> None:
    database.execute(f"UPDATE samples SET input = ?1, output = ?1 WHERE {_WHOLE}", _purged())
    database.execute("UPDATE rows SET raw = ?", (PURGED,))
    for table in ("explanations", "candidates"):
        database.execute(f"DELETE FROM {table}")
    answers = database.execute("SELECT key, json FROM answers").fetchall()
    database.executemany("DELETE FROM answers WHERE key = ?", ((key,) for key in _telling(answers)))
    for position, text in database.execute("SELECT position, json FROM gaps").fetchall():
        record = as_record(_without_words(from_record(Gap, text)))
        database.execute("UPDATE gaps SET json = ? WHERE position = ?", (record, position))
    for position, text in database.execute("SELECT position, json FROM recommendations").fetchall():
        record = as_record(_without_text(from_record(Recommendation, text)))
        database.execute("UPDATE recommendations SET json = ? WHERE position = ?", (record, position))
    for event, text in database.execute("SELECT event, json FROM decisions").fetchall():
        database.execute("UPDATE decisions SET json = ? WHERE event = ?", (_without_reason(text), event))


def _remove_ids(database: sqlite3.Connection) -> None:
    for table, key, column in (
        ("rows", "position", "id"),
        ("rows", "position", "source"),
        ("refusals", "position", "source"),
        ("origin", "rowid", "path"),
    ):
        held = database.execute(f"SELECT {key}, {column} FROM {table}").fetchall()
        changed = ((as_bytes(_digested(as_text(value))), place) for place, value in held)
        database.executemany(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", changed)
    for place, reason in database.execute("SELECT position, reason FROM refusals").fetchall():
        nameless = re.sub(r"^(duplicate id)\b.*", r"\1", as_text(reason), flags=re.DOTALL)
        database.execute("UPDATE refusals SET reason = ? WHERE position = ?", (as_bytes(nameless), place))


def _digested(name: str) -> str:
    """What stands for a name: the beginning of its digest; what stands for one already stays."""
    return name if re.fullmatch(r"sha256:[0-9a-f]{32}", name) else f"sha256:{digest_of(name)[:32]}"


def _telling(answers: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The keys of those answers of models that hold words."""
    return (key for key, text in answers if not _is_numbers(json.loads(text)))


def _is_numbers(answer: Any) -> bool:
    """Whether an answer is numbers alone; why one failed is said in set words, and is no text."""
    if isinstance(answer, dict):
        return all(name == "failure" or _is_numbers(value) for name, value in answer.items())
    if isinstance(answer, list):
        return all(map(_is_numbers, answer))
    return not isinstance(answer, str)


def _without_words(gap: Gap) -> Gap:
    """A gap as counts: what models called its capabilities may quote samples, as do their quotations."""

    def counted(found: tuple[MissingCapability, ...]) -> tuple[MissingCapability, ...]:
        return tuple(
            replace(each, name=REMOVED, quotations=tuple((sample, REMOVED) for sample, _ in each.quotations))
            for each in found
        )

    return replace(gap, missing=counted(gap.missing), instead=counted(gap.instead))


def _without_text(each: Recommendation) -> Recommendation:
    actions = tuple(replace(action, text=REMOVED) for action in each.actions)
    return replace(each, issue=REMOVED, fix=REMOVED, actions=actions)


def _without_reason(decision: str) -> str:
    return as_json({**json.loads(decision), "reason": REASON_PURGED})


def _remove_file(folder: Path, path: Path) -> None:
    """Nothing; the file is gone, and so are folders that are empty without it."""
    try:
        path.unlink(missing_ok=True)
        for above in path.relative_to(folder).parents:
            place = folder / above
            if place != folder and place.is_dir() and not any(place.iterdir()):
                shutil.rmtree(place)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be removed ({error.strerror}), so the purge is not finished.",
            "Have its permissions changed, then run the same command again.",
        ) from error


def _shrink(run: Run) -> None:
    """Nothing; the run's file is written anew without what was removed, and its log is empty.

    SQLite does so in memory (`temp_store`), not in a file elsewhere. A rollback journal that another program left goes
    too: it may hold pages of before.
    """
    run._read("VACUUM")
    busy = run._read("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]
    if busy:
        raise StoreError(
            f"Another program reads the run {run.folder}, so that removed text is still in its log.",
            "End that program, then run the same command again.",
        )
    journal = run.folder / f"{DATABASE}-journal"
    if run._one("PRAGMA journal_mode") == "wal" and journal.is_file() and not journal.is_symlink():
        _remove_file(run.folder, journal)
