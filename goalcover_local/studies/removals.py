"""Study files: which rows are to be taken out of a dataset, and for which subgoal that should be noticed."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..errors import DataError, GoalError
from ..goal_files.reading import find_goal, read_answers, read_goal
from ..goal_files.tables import Table, table_of, text_of
from ..resampling import drawn
from ..resources import shipped
from ..terms import Exchange, Goal, Sample
from .corruption import Kind

Row: TypeAlias = Mapping[str, Any]
"""A row of the data by its columns."""

_KEYS = ("goal", "answers", "input", "output", "removals")
_WAYS = ("terms", "pattern", "column", "ids", "random", "longest")
_PARTS = {"fields": ("terms", "pattern"), "values": ("column",), "shares": ("column",)}
"""What some ways need or take beside them."""
_REMOVAL_KEYS = ("name", "target", *_WAYS, *_PARTS, "keep")
_APART = 1_000_003
"""Between the seeds of samples and of removals: what is removed must not hang on what is drawn from the same rows."""


class Way(Protocol):
    """How rows are chosen that a removal takes out; never by a judge."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns that it reads."""
        ...

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        """Which rows are chosen, boolean, (n,)."""
        ...


@dataclass(frozen=True)
class Pattern:
    """Rows with an expression in one of their columns, in any case; in what a judge reads if none are named."""

    expression: str
    columns: tuple[str, ...] = ()

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        found = _compiled(self.expression)
        texts = (
            [_text(row.get(column)) for column in self.columns] if self.columns else [sample.input, sample.output]
            for sample, row in zip(samples, rows, strict=True)
        )
        return np.array([any(found.search(text) for text in each) for each in texts], dtype=bool)


@dataclass(frozen=True)
class Labelled:
    """Rows whose label is one of the values; a column that holds a list has every label in it."""

    column: str
    values: tuple[str, ...]

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        return np.array([not self._wanted.isdisjoint(_labels(row.get(self.column))) for row in rows], dtype=bool)

    @cached_property
    def _wanted(self) -> frozenset[str]:
        return frozenset(self.values)


@dataclass(frozen=True)
class Shifted:
    """As few rows, drawn at random, as give the labels of a column these shares; rows with other labels stay.

    Choosing raises DataError where a label that is to have a share has no row.
    """

    column: str
    shares: Mapping[str, float]

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        labels = np.array([_text(row.get(self.column)) for row in rows], dtype=object)
        places = {label: np.flatnonzero(labels == label) for label in self.shares}
        for label, share in self.shares.items():
            if share > 0 and not len(places[label]):
                raise DataError(
                    f"No row has the label {label!r} in its column {self.column!r}.",
                    "Give shares to labels that are there.",
                )
        whole = min(len(places[label]) / share for label, share in self.shares.items() if share > 0)
        chosen = np.zeros(len(rows), dtype=bool)
        for label, share in self.shares.items():
            order = places[label][drawn(len(places[label]), seed)]
            chosen[order[int(whole * share + 1e-9) :]] = True
        return chosen


@dataclass(frozen=True)
class Listed:
    """Rows with these ids."""

    ids: frozenset[str]

    columns: tuple[str, ...] = ()

    def n_unknown(self, samples: Sequence[Sample]) -> int:
        """How many of the ids are of no sample."""
        return len(self.ids.difference(sample.id for sample in samples))

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        return np.array([sample.id in self.ids for sample in samples], dtype=bool)


@dataclass(frozen=True)
class Random:
    """A share of the rows, drawn at random: a removal that no capability should notice."""

    share: float

    columns: tuple[str, ...] = ()

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        return _mask(len(rows), drawn(len(rows), seed, round(self.share * len(rows))))


@dataclass(frozen=True)
class Computed:
    """Rows for which a function of sample and row is true; the function is the caller's, and asks no judge."""

    function: Callable[[Sample, Row], bool]

    columns: tuple[str, ...] = ()

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        return np.array([bool(self.function(s, row)) for s, row in zip(samples, rows, strict=True)], dtype=bool)


@dataclass(frozen=True)
class Longest:
    """The share of the rows with the longest texts: a function of the row that asks no judge."""

    share: float

    columns: tuple[str, ...] = ()

    def chosen(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        lengths = np.array([len(sample.input) + len(sample.output) for sample in samples])
        return _mask(len(rows), np.argsort(-lengths, kind="stable")[: round(self.share * len(rows))])


@dataclass(frozen=True)
class Removal:
    """What is taken out of a dataset to see whether its judge notices (paper, Definition 4).

    `target` is the id of the subgoal that should lose. Of the rows chosen the share `keep` stays: a class is thinned,
    not removed.
    """

    name: str
    target: str
    way: Way
    keep: float = 0.0

    @property
    def kind(self) -> Kind:
        """What it makes: a gap as data have them, thin or lopsided, where not everything is taken out, or a control."""
        if isinstance(self.way, Random):
            return "control"
        return "natural gap" if self.keep > 0 or isinstance(self.way, Shifted) else "removal"

    def absent(self, rows: Sequence[Row]) -> list[str]:
        """The columns that it reads and no row has."""
        return [column for column in self.way.columns if not any(column in row for row in rows)]

    def removed(self, samples: Sequence[Sample], rows: Sequence[Row], seed: int) -> np.ndarray:
        """Which rows are taken out, boolean, (n,); only a random choice hangs on the seed."""
        chosen = self.way.chosen(samples, rows, seed + _APART)
        if self.keep:
            places = np.flatnonzero(chosen)
            chosen[places[drawn(len(places), seed + _APART, round(self.keep * len(places)))]] = False
        return chosen


@dataclass(frozen=True)
class Study:
    """A goal, the columns that its data are read by if they have them, and what is taken out of them in turn.

    `exchanges` are answers by which a model may decompose the goal anew.
    """

    name: str
    goal: Goal
    removals: tuple[Removal, ...]
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    ships: bool = False


def find_study(name: str) -> Path:
    """The study file of that path, or the one that ships under that name. Raises GoalError if there is neither."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    known = sorted(each.stem for each in shipped("studies").glob("*.toml"))
    if name in known:
        return shipped("studies") / f"{name}.toml"
    close = difflib.get_close_matches(name, known, n=1)
    mend = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}; or give a path to a study file."
    raise GoalError(f"There is no study named {name!r}.", mend)


def read_study(path: Path) -> Study:
    """The study that a file states.

    It needs `goal` (a file beside it, or the name of one that ships) and at least one `[[removals]]` with `name`,
    `target` and one way to choose rows: `terms` (whole words) and `pattern` (a regular expression), in `fields`;
    `column` with `values` or with `shares`; `ids` (a file of them, one a line), `random` or `longest` (a share).
    `keep` leaves a share of what is chosen. `answers` names a file of answers beside it. Raises GoalError, naming file
    and table, for anything else.
    """
    if not path.stem.isprintable():
        problem = f"The name of the study file {path.name!r} holds a line break or a control character."
        raise GoalError(problem, "Rename the file.")
    top = table_of(text_of(path), str(path))
    if "subgoals" in top and "removals" not in top:
        raise GoalError(f"{path} is a goal, not a study.", "Write a study.toml that names it; docs/guide.md has one.")
    top.refuse_unknown(_KEYS)
    named = top.text("goal")
    beside = path.parent / named
    goal = read_goal(beside if beside.is_file() else find_goal(named))
    tables = top.tables("removals", "removal")
    if not tables:
        raise GoalError(f"{path} removes nothing.", "Add at least one [[removals]] with name, target and terms.")
    removals = tuple(_removal(table, goal, path.parent) for table in tables)
    names = [removal.name for removal in removals]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise GoalError(f"{path}: two removals are named {twice!r}.", "Give each its own name.")
    ships = path.parent == shipped("studies")
    exchanges = read_answers(path.parent / top.text("answers"))[0] if "answers" in top else goal.exchanges
    return Study(path.stem, goal, removals, top.texts("input"), top.texts("output"), exchanges, ships)


def whole_words(terms: Sequence[str]) -> str:
    """An expression for any of the terms as whole words; "$" stands for an amount, the sign with a digit after it."""
    words = [r"\$\s?\d" if term == "$" else rf"(?<!\w){re.escape(term)}(?!\w)" for term in terms]
    return "|".join(words)


def _removal(table: Table, goal: Goal, folder: Path) -> Removal:
    table.refuse_unknown(_REMOVAL_KEYS)
    target = table.id("target")
    if target not in (known := [subgoal.id for subgoal in goal.subgoals]):
        raise GoalError(f"{table.where}: there is no subgoal {target!r}.", f"Choose among {', '.join(known)}.")
    name = table.text("name")
    if not name.isprintable():
        raise GoalError(f"{table.where}: 'name' holds a line break or a control character.", "Write it on one line.")
    keep = table.share("keep", default=0.5) if "keep" in table else 0.0
    if keep == 1:
        raise GoalError(f"{table.where}: keep is 1: nothing would be removed.", "Give a share below 1.")
    return Removal(name, target, _way(table, folder), keep)


def _way(table: Table, folder: Path) -> Way:
    ways = {"terms" if key == "pattern" else key for key in _WAYS if key in table}
    if len(ways) != 1:
        said = f"says both {' and '.join(sorted(ways))}" if ways else "does not say which rows it removes"
        raise GoalError(f"{table.where} {said}.", f"Give one of {', '.join(_WAYS)}.")
    for part, needed in _PARTS.items():
        if part in table and not any(key in table for key in needed):
            raise GoalError(f"{table.where}: {part!r} goes with {' or '.join(needed)} only.", "Remove one of them.")
    way = ways.pop()
    if way == "terms":
        return _pattern(table)
    if way == "column":
        if ("values" in table) == ("shares" in table):
            raise GoalError(f"{table.where}: 'column' needs 'values' or 'shares'.", "Give one of the two.")
        if "values" in table:
            return Labelled(table.text("column"), table.texts("values"))
        shares = table.table("shares")
        found = {label: shares.probability(label) for label in shares.values}
        if not found or abs(sum(found.values()) - 1) > 1e-6:
            raise GoalError(f"{table.where}: the shares do not sum to 1.", "Write, for example: {yes = 0.5, no = 0.5}")
        return Shifted(table.text("column"), found)
    if way == "ids":
        lines = text_of(folder / table.text("ids")).splitlines()
        return Listed(frozenset(line.strip() for line in lines if line.strip()))
    share = table.share(way, default=0.1)
    return Random(share) if way == "random" else Longest(share)


def _pattern(table: Table) -> Pattern:
    if "terms" in table and not table.texts("terms"):
        raise GoalError(f"{table.where}: 'terms' is empty.", "Name at least one word.")
    parts = [whole_words(table.texts("terms"))] if "terms" in table else []
    parts += [table.text("pattern")] if "pattern" in table else []
    expression = "|".join(parts)
    try:
        found = _compiled(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise GoalError(f"{table.where}: 'pattern' is no regular expression: {error}.", "Mend it.") from None
    if found.search(""):
        problem = f"{table.where}: 'pattern' matches an empty text, so it would remove every row."
        raise GoalError(problem, "Let it need a character at least.")
    return Pattern(expression, table.texts("fields"))


def _compiled(expression: str) -> re.Pattern[str]:
    """The expression for any case; what Python may change about its meaning one day is not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(expression, re.IGNORECASE)


def check_columns(study: Study, rows: Sequence[Row]) -> tuple[list[Removal], list[tuple[Removal, list[str]]]]:
    """The removals whose columns the data have, and the others with what they lack.

    Raises DataError if none is left, or if one of a study that does not ship lacks any.
    """
    lacking = [(removal, absent) for removal in study.removals if (absent := removal.absent(rows))]
    fit = [removal for removal in study.removals if not removal.absent(rows)]
    if lacking and (not study.ships or not fit):
        removal, absent = lacking[0]
        raise DataError(
            f"The removal {removal.name!r} reads {', '.join(absent)}, which no row has.",
            "Name columns that the data have, in a study file.",
        )
    return fit, lacking


def _text(value: Any) -> str:
    """A column's value as text, as JSON writes true and false; the parts of a list or table one after the other."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return "\n".join(_text(part) for part in value)
    return "" if value is None else str(value)


def _labels(value: Any) -> set[str]:
    return {_text(part) for part in value} if isinstance(value, list | tuple) else {_text(value)}


def _mask(n: int, places: np.ndarray) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[places] = True
    return mask
