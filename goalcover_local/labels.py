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
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
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

    Columns are `id`, `subgoal`, `label` (a number from 0 to 1, or yes or no; empty means not labelled yet, and is
    passed over) and, if there, `drawn`. Others are ignored. A pair that is labelled twice keeps its first label. Raises
    DataError if the file as a whole cannot be read, has no row, or lacks a column.
    """
    if not path.name.lower().removesuffix(".gz").endswith(_SUFFIXES):
        raise DataError(f"{path} has a suffix that no file of labels has.", f"End it with {', '.join(_SUFFIXES)}.")
    with explained(path):
        kind = format_of(path, None)
    rows = list(rows_of(path, kind, None))
    _refuse_useless(path, rows)
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
        raise _Unusable(f"column 'drawn' is none of {', '.join(filter(None, DRAWN))}, and not empty")
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
    number = value
    if isinstance(value, str):
        word = value.strip().lower()
        if not word:
            return None
        try:
            number = _WORDS[word] if word in _WORDS else float(word.replace(",", "."))
        except ValueError:
            number = None
    elif value is None:
        return None
    if not isinstance(number, int | float) or not math.isfinite(number) or not 0 <= number <= 1:
        raise _Unusable("column 'label' is no number from 0 to 1, and neither yes nor no")
    return float(number)
