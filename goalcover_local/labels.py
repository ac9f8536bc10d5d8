"""What people say of rows: labels read from a file, and the sheet on which they write them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError
from .formats import NOT_UTF8, Row, conversion, explained, format_of, rows_of, source_of
from .outputs import Place, failures_told
from .terms import Refusal

COLUMNS: tuple[str, ...] = ("id", "subgoal", "label")
"""The columns that a file of labels must have."""

SHEET: tuple[str, ...] = ("id", "subgoal", "capability", "input", "output", "label", "drawn")
"""The columns with which a sheet for people begins."""

DRAWN: tuple[str, ...] = ("random", "disagreement", "")
"""How a row was chosen for labelling; empty where nobody told."""

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_LONGEST_HEADER = 1 << 16  # characters of a sheet's first line that are looked at
_WORDS = {"yes": 1.0, "y": 1.0, "true": 1.0, "no": 0.0, "n": 0.0, "false": 0.0}
_FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")
"""The beginning of a text that a spreadsheet would compute, or that `_harmless` has made harmless."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a person said of one row and one subgoal, both by their ids: a value in [0, 1].

    `line` is that of the file, the header being 1. `drawn` says how the row was chosen: one of `DRAWN`.
    """

    row: str
    subgoal: str
    value: float
    line: int
    drawn: str = ""


class _Unusable(Exception):
    """Why a row is no label, without its text."""


def read_labels(path: Path) -> tuple[list[Label], list[Refusal]]:
    """The labels of a CSV, TSV or JSON Lines file in its order, and the rows that are none, with reasons.

    Columns are `id`, `subgoal`, `label` (a number from 0 to 1, or yes or no, y or n; empty means not labelled yet, and
    is passed over) and, if there, `drawn`. Others are ignored. A pair that is labelled twice keeps its first label.
    Raises DataError if the file as a whole cannot be read, has no row, lacks a column, or has a label above 1.
    """
    if not path.name.lower().removesuffix(".gz").endswith(_SUFFIXES):
        raise DataError(f"{path} has a suffix that no file of labels has.", f"End it with {', '.join(_SUFFIXES)}.")
    with explained(path):
        kind = format_of(path, None)
    rows = _rows(path, kind)
    _refuse_useless(path, rows)
    _refuse_other_scale(path, rows)
    labels: list[Label] = []
    refusals: list[Refusal] = []
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        if isinstance(row, Refusal):
            refusals.append(row)
            continue
        try:
            label = _label(row)
            if label is None:
                continue
            first = seen.setdefault((label.row, label.subgoal), label.line)
            if first != label.line:
                raise _Unusable(f"the same id and subgoal have a label on line {first}")
        except _Unusable as why:
            refusals.append(Refusal(source_of(path), row.line, str(why)))
        else:
            labels.append(label)
    return labels, refusals


def write_sheet(place: Place, rows: Iterable[Mapping[str, Any]]) -> None:
    """Nothing; the place holds a CSV sheet for people: the columns of `SHEET`, then any others, as they come.

    Numbers are written as they are, None as nothing. Texts that a spreadsheet would take for a formula begin with an
    apostrophe, which `read_labels` takes away again. Raises DataError if it cannot be written.
    """
    filled = list(rows)
    columns = list(dict.fromkeys([*SHEET, *(column for row in filled for column in row)]))
    with failures_told(place.output), place.path.open("wb") as stream:
        # The mark at the start is how spreadsheets tell UTF-8.
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
        sheet = csv.writer(text)
        sheet.writerow(map(_harmless, columns))
        sheet.writerows([_harmless(row.get(column)) for column in columns] for row in filled)
        text.detach()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _as_written(text: str) -> str:
    """The text that `_harmless` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _rows(path: Path, kind: str) -> Sequence[Row | Refusal]:
    """The rows of a file. Raises DataError if it cannot be read, or has none."""
    try:
        return list(rows_of(path, kind, None))
    except DataError as error:
        if error.problem != f"{path} holds no rows.":
            raise
        raise DataError(error.problem, "Give a file with at least one label.") from None


def _refuse_useless(path: Path, rows: Sequence[Row | Refusal]) -> None:
    """Raises DataError if a needed column is in no row, or most rows are in another encoding."""
    if 2 * sum(isinstance(row, Refusal) and NOT_UTF8 in row.reason for row in rows) > len(rows):
        raise DataError(f"{path} is not UTF-8, probably Latin-1.", conversion(path, "LATIN1"))
    readable = [row for row in rows if isinstance(row, Row)]
    absent = [column for column in COLUMNS if not any(column in row.values for row in readable)]
    if readable and absent:
        raise DataError(
            f"{path} has no column {' and no column '.join(map(repr, absent))}.",
            f"Give it the columns {', '.join(COLUMNS)}, with these names on its first line.",
        )


def _refuse_other_scale(path: Path, rows: Sequence[Row | Refusal]) -> None:
    """Raises DataError if a label is a number above 1: its 1 would then mean something else too."""
    for row in rows:
        number = None if isinstance(row, Refusal) else _number(row.values.get("label"))
        if number is not None and number > 1:
            raise DataError(
                f"{path} has a label above 1 on line {row.line}.",
                "Labels go from 0 to 1: turn 1 to 5 into 0, 0.25, 0.5, 0.75 and 1.",
            )


def _number(value: Any) -> float | None:
    """The number that a cell means, None if it means none; a comma may stand for the point."""
    try:
        found = float(value.strip().replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def is_sheet(path: Path) -> bool:
    """Whether a file begins with the columns of `SHEET`, whichever separator it was saved with."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            first = stream.readline(_LONGEST_HEADER)
        headers = [next(csv.reader([first], delimiter=delimiter), []) for delimiter in ",;\t"]
    except (OSError, csv.Error):
        return False
    return any(tuple(header[: len(SHEET)]) == SHEET for header in headers)


def has_labels(path: Path) -> bool:
    """Whether somebody's work may be on a sheet: a label of whatever kind, or what cannot be read."""
    with explained(path), path.open("rb") as stream:
        stream.readline()
        if not stream.read().strip():
            return False
    try:
        rows = rows_of(path, "csv", None)
        return any(isinstance(row, Refusal) or bool(row.values.get("label", "?").strip()) for row in rows)
    except DataError:
        return True


def _label(row: Row) -> Label | None:
    """The label on a row; None if there is none yet."""
    for column in COLUMNS:
        if column not in row.values:
            raise _Unusable(f"has no column {column!r}")
    value = _value(row.values["label"])
    if value is None:
        return None
    identity, subgoal = (_name(row.values[column], column) for column in ("id", "subgoal"))
    drawn = row.values.get("drawn")
    chosen = drawn.strip().lower() if isinstance(drawn, str) else drawn or ""
    if chosen not in DRAWN:
        raise _Unusable(f"column 'drawn' must be {', '.join(filter(None, DRAWN))} or empty")
    return Label(identity, subgoal, value, row.line, chosen)


def _name(value: Any, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Unusable(f"column {column!r} is no text")
    text = _as_written(str(value))
    if not text.strip():
        raise _Unusable(f"column {column!r} is empty")
    return text.strip() if column == "subgoal" else text


def _value(value: Any) -> float | None:
    """The value in [0, 1] that a cell means, None for an empty one; a comma may stand for the point."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word is None or word == "":
        return None
    number = _WORDS[word] if isinstance(word, str) and word in _WORDS else _number(word)
    if number is None or not 0 <= number <= 1:
        raise _Unusable("column 'label' must be yes, no or a number from 0 to 1")
    return number
