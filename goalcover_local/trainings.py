"""The trainings of a run: how each was set, what its steps measured, which checkpoints it left, what it came to."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import StoreError
from .records import as_json
from .store import Run
from .terms import UNTUNED

LONGEST_NAME = 60
LONGEST_VALUE = 60
"""Characters that a setting may have, as JSON, to be told in an error; a longer one is told by its name alone."""


class Trainings:
    """The trainings that an open run holds, each under its name; their files lie in the run's `policies/NAME/`.

    As with the run, every method that writes is one transaction, on the disk once it has returned. Every method raises
    StoreError when the file fails, when it writes to a run opened for reading, or when it names a training that the
    run does not hold, and ValueError for NaN and infinities: what is missing is None.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._transaction = run._transaction
        self._read = run._read

    def begin(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether the training is new; False if it was begun with these settings before, and so is to be resumed.

        Settings are compared as JSON. Raises StoreError if it was begun with others, naming those that differ, and for
        a name that is no `[a-z0-9][a-z0-9._+-]*` of at most 60 characters, or is "base".
        """
        check_name(name)
        given = _strict_json(settings)
        with self._transaction() as database:
            held = database.execute("SELECT json FROM trainings WHERE name = ?", (name,)).fetchone()
            if held and held[0] != given:
                raise StoreError(
                    f"The training {name} was begun with other settings: {_differences(held[0], given)}.",
                    "Use another --name, or the settings it was begun with.",
                )
            database.execute(
                "INSERT OR IGNORE INTO trainings(name, json, position)"
                " VALUES (?, ?, (SELECT coalesce(max(position), 0) + 1 FROM trainings))",
                (name, given),
            )
        return held is None

    def names(self) -> list[str]:
        """The names of all trainings, in the order in which they were begun."""
        return [name for (name,) in self._read("SELECT name FROM trainings ORDER BY position")]

    def settings(self, name: str) -> dict[str, Any]:
        """What the training was begun with."""
        return dict(json.loads(self._held(name)[0]))

    def add_step(self, name: str, step: int, metrics: Mapping[str, float | None]) -> None:
        """Keeps what was measured at a step, in place of what was measured there before."""
        self._put("steps", name, step, metrics)

    def steps(self, name: str) -> list[dict[str, Any]]:
        """What was measured at each step, ascending; "step" is its number."""
        return [{**metrics, "step": step} for step, metrics in self._at_steps("steps", name)]

    def rewind(self, name: str, step: int) -> None:
        """Forgets the steps and checkpoints after this one, from which a resumed training goes on."""
        with self._transaction() as database:
            self._expect(database, name)
            database.execute("DELETE FROM steps WHERE training = ? AND step > ?", (name, step))
            database.execute("DELETE FROM checkpoints WHERE training = ? AND step > ?", (name, step))

    def add_checkpoint(self, name: str, step: int, files: Mapping[str, str]) -> None:
        """Keeps the digests of a checkpoint's files by their relative names, in place of earlier ones of this step."""
        self._put("checkpoints", name, step, files)

    def checkpoints(self, name: str) -> dict[int, dict[str, str]]:
        """By step, ascending: the digests of the checkpoint's files by their relative names."""
        return dict(self._at_steps("checkpoints", name))

    def forget_checkpoint(self, name: str, step: int) -> None:
        """Forgets a checkpoint, if there is one at this step; its files are the caller's to remove."""
        with self._transaction() as database:
            self._expect(database, name)
            database.execute("DELETE FROM checkpoints WHERE training = ? AND step = ?", (name, step))

    def finish(self, name: str, result: Mapping[str, Any]) -> None:
        """Keeps what the training came to. Raises StoreError if it came to something else before."""
        given = _strict_json(result)
        with self._transaction() as database:
            self._expect(database, name)
            (held,) = database.execute("SELECT result FROM trainings WHERE name = ?", (name,)).fetchone()
            if held not in (None, given):
                raise StoreError(
                    f"The training {name} came to another result before: {_differences(held, given)}.",
                    "Use another --name to train anew.",
                )
            database.execute("UPDATE trainings SET result = ? WHERE name = ?", (given, name))

    def result(self, name: str) -> dict[str, Any] | None:
        """What the training came to; None while it is under way."""
        held = self._held(name)[1]
        return None if held is None else dict(json.loads(held))

    def folder(self, name: str) -> Path:
        """Where the training's files lie, there or not. Raises StoreError for what cannot be a name."""
        check_name(name)
        return self._run.folder / "policies" / name

    def make_folder(self, name: str) -> Path:
        """Where the training's files lie: a folder with mode 0700 whatever the umask, made if it is not there.

        Raises StoreError for what cannot be a name, and if the folder cannot be made.
        """
        folder = self.folder(name)
        for place in (folder.parent, folder):
            try:
                place.mkdir(mode=0o700, exist_ok=True)
                place.chmod(0o700)
            except OSError as error:
                raise StoreError(
                    f"The folder {place} cannot be made ({error.strerror}).",
                    "Check its permissions and the space there, then start again.",
                ) from error
        return folder

    def _held(self, name: str) -> tuple[str, str | None]:
        """Settings and result of a training, as they are stored."""
        found = self._read("SELECT json, result FROM trainings WHERE name = ?", (name,))
        if not found:
            raise self._unknown(name, self.names())
        return found[0][0], found[0][1]

    def _put(self, table: str, name: str, step: int, record: Mapping[str, Any]) -> None:
        given = _strict_json(record)
        with self._transaction() as database:
            self._expect(database, name)
            database.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", (name, step, given))

    def _at_steps(self, table: str, name: str) -> list[tuple[int, dict[str, Any]]]:
        """A training's records in one of the tables that have one for a step, ascending."""
        self._held(name)
        found = self._read(f"SELECT step, json FROM {table} WHERE training = ? ORDER BY step", (name,))
        return [(step, json.loads(text)) for step, text in found]

    def _expect(self, database: sqlite3.Connection, name: str) -> None:
        """Nothing. Raises StoreError, which ends the transaction, for a training that the run does not hold."""
        names = [held for (held,) in database.execute("SELECT name FROM trainings ORDER BY position")]
        if name not in names:
            raise self._unknown(name, names)

    def _unknown(self, name: str, names: list[str]) -> StoreError:
        return StoreError(
            f"The run {self._run.folder} holds no training {name[:LONGEST_NAME]!a}.",
            f"It holds: {', '.join(names)}." if names else "Begin one with `goalcover train`.",
        )


def check_name(name: str) -> None:
    """Nothing; raises StoreError for what cannot be a training's name."""
    if name == UNTUNED:
        raise StoreError(
            f'"{UNTUNED}" is the policy before any training, and names no training.', "Give another --name."
        )
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z0-9][a-z0-9._+-]*", name):
        raise StoreError(
            f"A training cannot be named {name[:LONGEST_NAME]!a}.",
            f'Give a --name like "original-2": at most {LONGEST_NAME} of a to z, 0 to 9 and . _ + - with a letter or'
            " digit first.",
        )


def _strict_json(record: Mapping[str, Any]) -> str:
    """A record as JSON. Raises ValueError for NaN and infinities, which JSON does not know."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number: what is missing is None")

    text = as_json(dict(record))
    json.loads(text, parse_constant=refuse)
    return text


def _flat(record: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Every value that is no record itself, as JSON, under its path: "settings.seed"."""
    found: dict[str, str] = {}
    for key, value in record.items():
        here = f"{path}{key}"
        found |= _flat(value, f"{here}.") if isinstance(value, dict) and value else {here: as_json(value)}
    return found


def _differences(held: str, given: str) -> str:
    """The keys whose values differ between two records, with the values where they are short."""
    before, now = (_flat(json.loads(text)) for text in (held, given))
    told = []
    for key in sorted(before.keys() | now.keys()):
        values = before.get(key, "nothing"), now.get(key, "nothing")
        if values[0] != values[1]:
            short = max(map(len, values)) <= LONGEST_VALUE
            told.append(f"{key} ({values[0]}, now {values[1]})" if short else key)
    return ", ".join(told)
