"""TOML read strictly: every key known, every value of its type and in its range, every error with file and place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..bounded import content_of, toml_of
from ..errors import GoalError

Word = TypeVar("Word", bound=str)
_LONGEST = 4_000_000  # bytes of a file
_ID = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a goal file; `where` names it in errors, `path` is what its keys' headers begin with.

    Every method raises GoalError where it finds otherwise than it says.
    """

    values: dict[str, Any]
    where: str
    path: str = ""

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raises GoalError at the first key that is not among the known."""
        allowed = list(known)
        for key in self.values:
            if key not in allowed:
                close = difflib.get_close_matches(key, allowed, n=1)
                mend = f"Did you mean {close[0]!r}?" if close else f"The keys here are {', '.join(allowed)}."
                raise GoalError(f"{self.where} has an unknown key {key!r}.", mend)

    def text(self, key: str, default: str | None = None) -> str:
        """The text under a key, trimmed; without a default it must stand there and not be empty."""
        value = self.values.get(key, default)
        if value is None:
            raise GoalError(f"{self.where} has no {key!r}.", f'Add: {key} = "…"')
        if not isinstance(value, str):
            raise GoalError(f"{self.where}: {key!r} is {_kind(value)}, not a text.", "Put it in quotes.")
        if default is None and not value.strip():
            raise GoalError(f"{self.where}: {key!r} is empty.", "Write a text there.")
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts listed under a key, trimmed, none of them empty; no text if the key is absent."""
        value = self.values.get(key, [])
        if not isinstance(value, list):
            problem = f"{self.where}: {key!r} is {_kind(value)}, not a list of texts."
            raise GoalError(problem, f'Write: {key} = ["…", "…"]')
        for place, text in enumerate(value, 1):
            if not isinstance(text, str):
                problem = f"{self.where}: {key!r} holds {_kind(text)} at place {place}, not a text."
                raise GoalError(problem, "Put it in quotes.")
            if not text.strip():
                raise GoalError(
                    f"{self.where}: {key!r} is empty at place {place}.", "Write a text there, or remove it."
                )
        return tuple(text.strip() for text in value)

    def id(self, key: str) -> str:
        """The id under a key: small letters, digits and hyphens, a letter first."""
        self.text(key)
        return self.as_id(self.values[key])

    def ids(self, key: str) -> tuple[str, ...]:
        """The ids listed under a key; none if the key is absent."""
        self.texts(key)
        return tuple(map(self.as_id, self.values.get(key, [])))

    def as_id(self, text: str) -> str:
        """That text, if it can be the id of a subgoal."""
        if not _ID.fullmatch(text):
            mend = "Begin with a small letter; then small letters, digits and hyphens."
            raise GoalError(f"{self.where}: {text!r} cannot be an id.", mend)
        return text

    def word(self, key: str, permitted: Sequence[Word]) -> Word:
        """The text under a key, which must be one of the permitted."""
        text = self.text(key)
        for word in permitted:
            if text == word:
                return word
        raise GoalError(f"{self.where}: {key!r} is {text!r}.", f"Write one of {', '.join(permitted)}.")

    def words(self, key: str, permitted: Sequence[Word]) -> tuple[Word, ...]:
        """The texts listed under a key, each one of the permitted; none if the key is absent."""
        texts = self.texts(key)
        for text in texts:
            if text not in permitted:
                raise GoalError(f"{self.where}: {key!r} holds {text!r}.", f"Write some of {', '.join(permitted)}.")
        return tuple(word for text in texts for word in permitted if word == text)

    def flag(self, key: str) -> bool:
        """The truth under a key."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            said = f": {key!r} is {_kind(value)}, not true or false" if key in self else f" has no {key!r}"
            raise GoalError(f"{self.where}{said}.", f"Write {key} = true, or {key} = false.")
        return value

    def share(self, key: str, default: float) -> float:
        """The number under a key, in (0, 1]."""
        value = self._number(key, self.values.get(key, default), default)
        if not 0 < value <= 1:
            raise GoalError(f"{self.where}: {key!r} is {value}.", "Give a number above 0 and at most 1.")
        return float(value)

    def probability(self, key: str) -> float:
        """The number under a key, in [0, 1]."""
        value = self._number(key, self.values[key], 0.9)
        if not 0 <= value <= 1:
            raise GoalError(f"{self.where}: {key!r} is {value}.", "Give a number from 0 to 1.")
        return float(value)

    def table(self, key: str) -> Table:
        """The table under a key, empty if there is none."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise GoalError(
                f"{self.where}: {key!r} is {_kind(value)}, not a table.", f"Write it as [{self.path}{key}]."
            )
        return Table(value, f"{self.where}, {key}", f"{self.path}{key}.")

    def tables(self, key: str, noun: str) -> list[Table]:
        """The list of tables under a key, empty if there is none; each is named by its noun and position."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise GoalError(f"{self.where}: {key!r} is not a list of tables.", f"Write each as [[{self.path}{key}]].")
        path = f"{self.path}{key}."
        return [Table(table, f"{self.where}, {noun} {place}", path) for place, table in enumerate(value, 1)]

    def _number(self, key: str, value: object, example: float) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            problem = f"{self.where}: {key!r} is {_kind(value)}, not a number."
            raise GoalError(problem, f"Write, for example: {key} = {example}")
        return value


def text_of(path: Path) -> str:
    """The text of a file, its line ends as they are. Raises GoalError: not there, too large, or not UTF-8."""
    try:
        content = content_of(path, _LONGEST)
    except ValueError:
        raise GoalError(f"{path} is larger than {_LONGEST} bytes.", "Give a goal file; it holds no data.") from None
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}."
        raise GoalError(problem, "Check the path and its permissions.") from None
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise GoalError(f"{path} begins with a byte-order mark.", "Save it as UTF-8 without one.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise GoalError(f"{path} is not UTF-8: line {line}.", "Save it as UTF-8.") from None


def table_of(text: str, where: str) -> Table:
    """The table that a TOML text states, named by `where` in errors. Raises GoalError if it is no TOML."""
    try:
        return Table(toml_of(text), where)
    except ValueError as error:
        problem = str(error).replace("at end of document", f"at line {len(text.splitlines())}, its last")
        raise GoalError(f"{where} is not valid TOML: {problem}.", "Mend that line.") from None


def _kind(value: object) -> str:
    """What a TOML value is, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
