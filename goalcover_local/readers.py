"""Dataset files become samples: which layout a file has, and its rows one by one, as `Sample` or `Refusal`.

`formats` turns a file into rows; a layout turns a row into an input and an output. A new layout is one line
in `_KNOWN`. No message contains text of a row: file, line and column only, and an id where it stands twice.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from string import Formatter
from typing import Any

from .errors import DataError
from .formats import (
    FORMATS,
    NOT_UTF8,
    Row,
    conversion,
    explained,
    format_of,
    rows_of,
    source_of,
)
from .terms import Refusal, Sample

_LOOK = 100  # rows that recognition looks at
_LOOK_BYTES = 1 << 25  # or fewer, once they come to so much
_LONGEST_ID = 200  # characters
_NAME = re.compile(r"[A-Za-zÀ-ɏ_][0-9A-Za-zÀ-ɏ_.-]{0,39}|(Unnamed: \d+)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of one file become samples.

    `input` and `output` are the columns joined into each; those in `optional` may be missing from a row.
    `template` is the text of the input with `{column}` places, if one was given; `turns` the column of a
    conversation; `format` one of `FORMATS`; `id_column` and `split` are None where there is none.
    """

    name: str
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    template: str = ""
    turns: str = ""
    id_column: str | None = None
    format: str = "jsonl"
    split: str | None = None

    def describe(self) -> str:
        """One sentence for a person: what was recognised, and which columns go where."""
        if self.turns:
            places = f"the last assistant turn of {self.turns!r} is the output, the turns before it the input"
        else:
            source = "a template of " if self.template else ""
            places = f"input from {source}{_listed(self.input)}, output from {_listed(self.output)}"
        rows = f"{self.format}, split {self.split!r}" if self.split else self.format
        ids = f"column {self.id_column!r}" if self.id_column else "file name and line"
        return f"{self.name} ({rows}): {places}; ids from {ids}."


_KNOWN: tuple[Layout, ...] = (
    Layout("chat messages", turns="messages"),
    Layout("ShareGPT conversations", turns="conversations"),
    Layout("Alpaca", ("instruction", "input"), ("output",), optional=("input",)),
    Layout("prompt-completion", ("prompt",), ("completion",)),
    Layout("prompt-response", ("prompt",), ("response",)),
    Layout("question-answer", ("question",), ("answer",)),
    Layout("input-output", ("input",), ("output",)),
    Layout("text only", (), ("text",)),
)
"""The layouts recognised by their columns, the first that fits."""

_ROLES = {"human": "user", **dict.fromkeys(("gpt", "chatgpt", "model", "bot"), "assistant")}


class _Unusable(Exception):
    """Why a row is no sample, without its text."""


def recognise(
    path: Path | str,
    *,
    input_column: str | Sequence[str] | None = None,
    output_column: str | Sequence[str] | None = None,
    template: str | None = None,
    id_column: str | None = None,
    format: str | None = None,
    split: str | None = None,
) -> Layout:
    r"""The layout of a dataset file, from its first 100 rows.

    Named columns (a sequence, or joined by commas) replace what would be recognised; either side may be left
    out. `template` is the input's text with `{column}` places: `{{` and `}}` are braces, `\n` a new line.
    Without `id_column` a column `id` serves, else file name and line. `format` overrules the file's suffix;
    `split` is one of a datasets folder's. Raises DataError if the file as a whole cannot be used.
    """
    file = Path(path)
    with explained(file):
        kind = format_of(file, format)
    head = _head(rows_of(file, kind, split))
    rows = [row for row in head if isinstance(row, Row)]
    _refuse_unreadable(file, head, rows)
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    inputs, outputs = _named(input_column), _named(output_column)
    if template is not None:
        if inputs:
            raise DataError("Both a template and an input column are given.", "Give one of the two.")
        inputs = _places(template)
    _refuse_absent(file, kind, columns, [*inputs, *outputs, *([id_column] if id_column else [])])
    if template is not None:
        found = Layout("template", inputs, outputs, template=template.replace(r"\n", "\n"))
    elif inputs or outputs:
        found = Layout("named columns", inputs, outputs)
    else:
        found = _known(file, kind, rows, columns)
    identity = id_column or ("id" if "id" in columns else None)
    return replace(found, id_column=identity, format=kind, split=split)


def read(
    path: Path | str, layout: Layout, *, seen: dict[str, tuple[str, int]] | None = None
) -> Iterator[Sample | Refusal]:
    """The rows of a file in its order, each a sample or the reason why not.

    A sample's `line` counts from 1: the line of a JSONL or CSV file, else the row. `raw` is the exact line of
    a JSONL file without its line feed, else the row's canonical JSON. Rows of equal text are all kept; an id
    that stands twice is refused. `seen` (id to source and line) is filled: files whose ids must differ share
    one. Raises DataError if the file as a whole cannot be read.
    """
    file = Path(path)
    if seen is None and layout.id_column:
        seen = {}
    for row in rows_of(file, layout.format, layout.split):
        if isinstance(row, Refusal):
            yield row
            continue
        try:
            sample = _sample(source_of(file), row, layout)
            if seen is not None:
                _claim(sample, seen)
        except _Unusable as why:
            yield Refusal(source_of(file), row.line, str(why))
        else:
            yield sample


def written_columns(layout: Layout) -> tuple[str, ...]:
    """The names of the texts that make a new row of a layout, the inputs first."""
    return ("user", "assistant") if layout.turns else tuple(dict.fromkeys((*layout.input, *layout.output)))


def written_texts(layout: Layout, sample: Sample) -> Mapping[str, str] | None:
    """The texts of a row as they would be written anew, by `written_columns`.

    None if one is no text, or is empty and not optional, or if a conversation is more than a turn of the user and one
    of the assistant.
    """
    values = json.loads(sample.raw)
    if layout.turns:
        turns = [_turn(turn, "a turn") for turn in values[layout.turns]]
        if [role for role, _ in turns] != ["user", "assistant"]:
            return None
        texts: dict[str, Any] = dict(turns)
    else:
        texts = {column: values.get(column) for column in written_columns(layout)}
        texts |= {column: "" for column in layout.optional if texts[column] is None}
    well = all(isinstance(text, str) and (text.strip() or column in layout.optional) for column, text in texts.items())
    return texts if well else None


def new_row(layout: Layout, texts: Mapping[str, str], identity: str) -> dict[str, Any]:
    """A row in the layout of the data, from the texts of its `written_columns`; with an id where the data have one."""
    if layout.turns:
        role, content = ("from", "value") if layout.name.startswith("ShareGPT") else ("role", "content")
        user, assistant = ("human", "gpt") if role == "from" else ("user", "assistant")
        row: dict[str, Any] = {
            layout.turns: [{role: user, content: texts["user"]}, {role: assistant, content: texts["assistant"]}]
        }
    else:
        row = {column: texts.get(column, "") for column in (*layout.input, *layout.output)}
    return {layout.id_column: identity, **row} if layout.id_column else row


def sample_of(layout: Layout, row: Mapping[str, Any], source: str, line: int) -> Sample | Refusal:
    """The sample that a row of this layout makes, or why it makes none."""
    try:
        raw = json.dumps(row, ensure_ascii=False).encode()
        return _sample(source, Row(line, row, raw), layout)
    except UnicodeEncodeError:
        return Refusal(source, line, "holds half a surrogate pair")
    except _Unusable as why:
        return Refusal(source, line, str(why))


def layout_from(record: Mapping[str, Any]) -> Layout:
    """The layout whose fields, as plain values, these are."""
    fields: dict[str, Any] = {name: tuple(held) if isinstance(held, list) else held for name, held in record.items()}
    return Layout(**fields)


def _claim(sample: Sample, seen: dict[str, tuple[str, int]]) -> None:
    if sample.id in seen:
        source, line = seen[sample.id]
        where = f"line {line}" if source == sample.source else f"line {line} of {source}"
        raise _Unusable(f"duplicate id {sample.id!r}, first on {where}")
    seen[sample.id] = (sample.source, sample.line)


# From a row to a sample


def _sample(source: str, row: Row, layout: Layout) -> Sample:
    if layout.turns:
        given, wanted = _conversation(row.values, layout.turns)
    else:
        given, wanted = _fields(row.values, layout)
    return Sample(_identity(source, row, layout), given, wanted, source, row.line, row.raw)


def _fields(values: Mapping[str, Any], layout: Layout) -> tuple[str, str]:
    """Input and output of a row with a column for each part; what is trained on must not be empty."""
    texts = {column: _cell(values, column, layout.optional) for column in layout.input + layout.output}
    filled = {column: text for column, text in texts.items() if text.strip()}
    needed = layout.output or layout.input
    if not any(column in filled for column in needed):
        raise _Unusable(f"{_listed(needed)} is empty")
    given, wanted = (
        "\n\n".join(filled[column] for column in columns if column in filled)
        for columns in (layout.input, layout.output)
    )
    if layout.template and given:
        parts = Formatter().parse(layout.template)
        given = "".join(literal + (texts[column] if column else "") for literal, column, _, _ in parts)
    return given, wanted


def _identity(source: str, row: Row, layout: Layout) -> str:
    identity = ""
    if layout.id_column:
        identity = _text(row.values.get(layout.id_column), f"column {layout.id_column!r}")
    if len(identity) > _LONGEST_ID:
        raise _Unusable(f"the id is longer than {_LONGEST_ID} characters")
    return identity if identity.strip() else f"{Path(source.removesuffix('.gz')).stem}:{row.line}"


def _cell(values: Mapping[str, Any], column: str, optional: Iterable[str] = ()) -> str:
    if column not in values and column not in optional:
        raise _Unusable(f"has no column {column!r}")
    return _text(values.get(column), f"column {column!r}")


def _text(value: Any, where: str) -> str:
    """The text of a value: numbers are written out, lists joined by new lines, null is empty."""
    if value is None:
        return ""
    if isinstance(value, list) and not any(isinstance(part, list) for part in value):
        return "\n".join(_text(part, where) for part in value if part is not None)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise _Unusable(f"{where} holds nested values, not text")
    if "\0" in value:
        raise _Unusable(f"{where} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Unusable(f"{where} holds half a surrogate pair") from None
    return value


def _conversation(values: Mapping[str, Any], column: str) -> tuple[str, str]:
    """Input and output of a conversation: what stands before its last assistant turn, and that turn."""
    if column not in values:
        raise _Unusable(f"has no column {column!r}")
    if not isinstance(values[column], list):
        raise _Unusable(f"column {column!r} is not a list of turns")
    turns = [_turn(turn, f"turn {place} of {column!r}") for place, turn in enumerate(values[column], 1)]
    last = max((place for place, (role, _) in enumerate(turns) if role == "assistant"), default=None)
    if last is None:
        raise _Unusable("has no assistant turn")
    before, wanted = [turn for turn in turns[:last] if turn[1].strip()], turns[last][1]
    if not wanted.strip():
        raise _Unusable("the last assistant turn is empty")
    if [role for role, _ in before] == ["user"]:
        return before[0][1], wanted
    return "\n".join(f"{role}: {text}" for role, text in before), wanted


def _turn(turn: Any, where: str) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise _Unusable(f"{where} is not an object")
    role = turn.get("role") or turn.get("from")
    if not isinstance(role, str):
        raise _Unusable(f"{where} has no role")
    content = turn.get("value") if turn.get("content") is None else turn["content"]
    if isinstance(content, list):
        content = [part["text"] if isinstance(part, dict) and "text" in part else part for part in content]
    return _ROLES.get(role.lower(), role.lower()), _text(content, where)


# Recognition


def _head(rows: Iterable[Row | Refusal]) -> list[Row | Refusal]:
    """The first rows."""
    found: list[Row | Refusal] = []
    n_bytes = 0
    for row in islice(rows, _LOOK):
        found.append(row)
        n_bytes += len(row.raw) if isinstance(row, Row) else 0
        if n_bytes > _LOOK_BYTES:
            break
    return found


def _known(file: Path, kind: str, rows: Sequence[Row], columns: Sequence[str]) -> Layout:
    """The first known layout whose columns are there; small letters go before capitals."""
    written = {column.lower(): column for column in sorted(columns)}

    def spelt(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(written.get(name, name) for name in names)

    for known in _KNOWN:
        turns = written.get(known.turns, "")
        if turns and any(isinstance(row.values.get(turns), list) for row in rows):
            return replace(known, turns=turns)
        needed = set(known.input + known.output) - set(known.optional)
        if needed and needed <= written.keys():
            return replace(known, input=spelt(known.input), output=spelt(known.output), optional=spelt(known.optional))
    mend = "Say which hold the input and the output: --input-column and --output-column, or --template."
    raise DataError(f"{file} has no layout that is recognised: {_shown(kind, columns)}.", mend)


def _refuse_unreadable(file: Path, head: Sequence[Row | Refusal], rows: Sequence[Row]) -> None:
    """Raises DataError if most of the first rows are in another encoding, or none can be read."""
    refusals = [row for row in head if isinstance(row, Refusal)]
    if 2 * sum(NOT_UTF8 in refusal.reason for refusal in refusals) > len(head):
        raise DataError(f"{file} is not UTF-8, probably Latin-1.", conversion(file, "LATIN1"))
    if not rows:
        first = refusals[0]
        problem = f"{file} has no row that can be read among its first {len(head)}"
        mend = f"If it has another format, name it with --format: {', '.join(FORMATS)}."
        raise DataError(f"{problem}; line {first.line}: {first.reason}.", mend)


def _refuse_absent(file: Path, kind: str, columns: Sequence[str], named: Sequence[str]) -> None:
    """Raises DataError if a named column is in none of the first rows."""
    lower = {column.lower(): column for column in columns if _may_show(kind, columns, named)}
    for name in named:
        if name not in columns:
            close = difflib.get_close_matches(name.lower(), lower, n=1)
            mend = f"Did you mean {lower[close[0]]!r}?" if close else "Name a column that is there."
            raise DataError(f"{file} has no column {name!r}: {_shown(kind, columns, named)}.", mend)


def _named(columns: str | Sequence[str] | None) -> tuple[str, ...]:
    given = [columns] if isinstance(columns, str) else columns or []
    return tuple(name.strip() for names in given for name in names.split(",") if name.strip())


def _places(template: str) -> tuple[str, ...]:
    """The columns of a template, each once. Raises DataError if it is malformed or names none."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        parts = []
    columns = tuple(dict.fromkeys(column for _, column, _, _ in parts if column is not None))
    if not columns or not all(columns) or any(extra for part in parts for extra in part[2:]):
        raise DataError("The template cannot be used.", "Write column names in braces, as in '{title}: {text}'.")
    return columns


def _are_names(columns: Sequence[str]) -> bool:
    """False if one of the columns looks like text of a row, as where a header is missing."""
    return all(_NAME.fullmatch(column) for column in columns)


def _may_show(kind: str, columns: Sequence[str], named: Iterable[str] = ()) -> bool:
    """False if the columns may be text of a row: one looks like it, or a table has no column that anyone knows.

    A table without a header has its first row there, whose texts may well look like names.
    """
    known = {"id", *named, *(name for each in _KNOWN for name in (*each.input, *each.output, each.turns))}
    headed = kind not in ("csv", "tsv") or any(column.lower() in known or column in known for column in columns)
    return headed and _are_names(columns)


def _shown(kind: str, columns: Sequence[str], named: Iterable[str] = ()) -> str:
    """The columns that were found, for an error; not shown if they might be text of a row."""
    if not _may_show(kind, columns, named):
        why = "one looks like text" if not _are_names(columns) else "the first line may be no header but a row"
        return f"the names of its {len(columns)} columns are not shown, as {why}"
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    return f"its columns are {', '.join(columns[:20])}{more}"


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(map(repr, columns)) or "nothing"
