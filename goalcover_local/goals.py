"""Goal files: `goal.toml` becomes a `Goal`, checked strictly, and the goals that ship are found by name."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import GoalError
from .resources import shipped
from .terms import Exchange, Goal, Subgoal

_GOAL_KEYS = ("goal", "specification", "tau", "exchanges", "subgoals", "checks")
_EXCHANGE_KEYS = ("question", "answer")
_SUBGOAL_KEYS = ("id", "name", "description", "evidence", "target_share")
_ID = re.compile(r"[a-z][a-z0-9-]*")


def read_goal(path: Path | str) -> Goal:
    """The goal that a `goal.toml` states: texts trimmed at both ends, subgoals in the order of the file.

    `goal` and at least one `[[subgoals]]` are needed; `tau` and each `target_share` lie in (0, 1]; `[checks]`
    may stand there and is not read. Raises GoalError, naming the file and the subgoal, for anything else: an
    unknown key, a wrong type, an empty text, a bad or repeated id, two subgoals of one text.
    """
    top = _Table(_parsed(Path(path)), str(path))
    top.refuse_unknown(_GOAL_KEYS)
    top.table("checks")
    subgoals = [_subgoal(table) for table in top.tables("subgoals", "subgoal")]
    if not subgoals:
        mend = "Add at least one [[subgoals]] with id, name and description."
        raise GoalError(f"{path} has no subgoals.", mend)
    _refuse_equals(str(path), subgoals)
    return Goal(
        text=top.text("goal"),
        specification=top.text("specification", default=""),
        exchanges=tuple(_exchange(table) for table in top.tables("exchanges", "exchange")),
        subgoals=tuple(subgoals),
        tau=top.share("tau", default=0.6),
    )


def find_goal(name_or_path: Path | str) -> Path:
    """The goal file meant: that path if it is a file, else the shipped goal of that name.

    Raises GoalError, which names the shipped goals, if there is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = shipped_goals()
    name = str(name_or_path)
    if name in known:
        return known[name]
    what = "is a folder, not a goal file" if path.is_dir() else "is neither a file nor a shipped goal"
    close = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(known) if known else "none"
    raise GoalError(f"{name!r} {what}.", f"{hint}Give the path of a goal.toml, or a shipped goal: {listed}.")


def shipped_goals() -> dict[str, Path]:
    """The goals that ship, name to file, in alphabetical order."""
    return {file.stem: file for file in sorted(shipped("goals").glob("*.toml"))}


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of a goal file; `where` names it in errors."""

    values: dict[str, Any]
    where: str

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

    def share(self, key: str, default: float) -> float:
        """The number under a key, in (0, 1]."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            problem = f"{self.where}: {key!r} is {_kind(value)}, not a number."
            raise GoalError(problem, f"Write, for example: {key} = {default}")
        if not 0 < value <= 1:
            raise GoalError(f"{self.where}: {key!r} is {value}.", "Give a number above 0 and at most 1.")
        return float(value)

    def table(self, key: str) -> dict[str, Any]:
        """The table under a key, empty if there is none."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise GoalError(f"{self.where}: {key!r} is {_kind(value)}, not a table.", f"Write it as [{key}].")
        return value

    def tables(self, key: str, noun: str) -> list[_Table]:
        """The list of tables under a key, empty if there is none; each is named by its noun and position."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise GoalError(f"{self.where}: {key!r} is not a list of tables.", f"Write each as [[{key}]].")
        return [_Table(table, f"{self.where}, {noun} {place}") for place, table in enumerate(value, 1)]


def _parsed(path: Path) -> dict[str, Any]:
    """The TOML table of a file. Raises GoalError: not there, not UTF-8, not TOML."""
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}."
        raise GoalError(problem, "Check the path and its permissions.") from None
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise GoalError(f"{path} begins with a byte-order mark.", "Save it as UTF-8 without one.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise GoalError(f"{path} is not UTF-8: line {line}.", "Save it as UTF-8.") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error).replace("at end of document", f"at line {len(text.splitlines())}, its last")
        raise GoalError(f"{path} is not valid TOML: {problem}.", "Mend that line.") from None


def _exchange(table: _Table) -> Exchange:
    table.refuse_unknown(_EXCHANGE_KEYS)
    return Exchange(question=table.text("question"), answer=table.text("answer"))


def _subgoal(table: _Table) -> Subgoal:
    identity = table.text("id")
    if not _ID.fullmatch(table.values["id"]):
        mend = "Begin with a small letter; then small letters, digits and hyphens."
        raise GoalError(f"{table.where}: {table.values['id']!r} cannot be an id.", mend)
    named = _Table(table.values, f"{table.where} ({identity!r})")
    named.refuse_unknown(_SUBGOAL_KEYS)
    return Subgoal(
        id=identity,
        name=named.text("name"),
        description=named.text("description"),
        evidence=named.text("evidence", default=""),
        target_share=named.share("target_share", default=0.05),
    )


def _refuse_equals(where: str, subgoals: list[Subgoal]) -> None:
    """Raises GoalError if two subgoals share an id, or all that a judge reads of them."""
    ids: dict[str, int] = {}
    texts: dict[str, str] = {}
    for place, subgoal in enumerate(subgoals, 1):
        if subgoal.id in ids:
            problem = f"{where}: subgoals {ids[subgoal.id]} and {place} have the same id {subgoal.id!r}."
            raise GoalError(problem, "Give each its own id.")
        if subgoal.digest in texts:
            problem = f"{where}: subgoals {texts[subgoal.digest]!r} and {subgoal.id!r} have the same text."
            raise GoalError(problem, "Remove one, or say how they differ.")
        ids[subgoal.id] = place
        texts[subgoal.digest] = subgoal.id


def _kind(value: object) -> str:
    """What a TOML value is, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
