"""Dataset files become rows: a function for each format yields `Row` or `Refusal`, a batch held at most."""

from __future__ import annotations

import base64
import codecs
import csv
import gzip
import io
import json
import math
import re
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import IO, Any, NamedTuple

from .arrow_files import Opened, open_folder, open_parquet
from .arrow_rows import LONGEST_ROW
from .errors import DataError
from .files import digest_of_file
from .terms import Refusal, canonical_json, digest_of

NOT_UTF8 = "not valid UTF-8"
_TOO_LONG = f"longer than {LONGEST_ROW} bytes"  # or characters, of one row of a JSON or CSV file
_NO_VALUE = "holds a value that cannot be read"


class Row(NamedTuple):
    """A row that can be read: its place, its cells by column, and its bytes."""

    line: int
    values: Mapping[str, Any]
    raw: bytes


def source_of(file: Path) -> str:
    """The name by which samples and refusals call a file."""
    return file.name or file.resolve().name


def content_digest(file: Path) -> str:
    """SHA-256 of a dataset's bytes, or of the names and digests of the files of a datasets folder."""
    if not file.exists():
        raise DataError(f"There is no {file}.", "Check the path.")
    if file.is_dir():
        parts = sorted(part for part in file.rglob("*") if part.is_file())
        return digest_of([[str(part.relative_to(file)), content_digest(part)] for part in parts])
    with explained(file):
        return digest_of_file(file)


def conversion(file: Path, encoding: str) -> str:
    """The mend for a file in another encoding."""
    name = file.name.removesuffix(".gz")
    target = Path(name).with_suffix(f".utf8{Path(name).suffix}")
    return f"Convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(name)} > {shlex.quote(str(target))}"


def format_of(file: Path, named: str | None) -> str:
    """The format named, else that of the suffix; a `.json` file with an object on each line is JSONL."""
    if named is not None and named not in FORMATS:
        raise DataError(f"There is no format {named!r}.", f"Choose one of {', '.join(FORMATS)}.")
    if file.is_dir():
        if any((file / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return "datasets"
        raise DataError(f"{file} is a folder, and not one saved by `datasets`.", "Name one file in it.")
    found = named or SUFFIXES.get(Path(file.name.removesuffix(".gz")).suffix.lower())
    if found is None:
        mend = f"Name its format with --format: {', '.join(FORMATS)}."
        raise DataError(f"{file} has a suffix that is not known.", mend)
    if named is None and found == "json":
        with _opened(file) as stream:
            first, second = stream.readline(1 << 20), stream.readline(1 << 20)
        if first.removeprefix(codecs.BOM_UTF8).startswith(b"{") and second.startswith(b"{"):
            return "jsonl"
    return found


def rows_of(file: Path, kind: str, split: str | None) -> Iterator[Row | Refusal]:
    """The rows of a file, or why one cannot be read. Raises DataError if the file cannot, or has none."""
    if split is not None and kind != "datasets":
        raise DataError(f"{file} has no splits.", "Leave --split out: only a folder saved by `datasets` has.")
    empty = True
    with explained(file):
        for row in _columnar(file, open_folder(file, split)) if kind == "datasets" else _READERS[kind](file):
            empty = False
            yield row
    if empty:
        raise DataError(f"{file} holds no rows.", "Name a dataset file with at least one row.")


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Turns what the operating system or a decompressor raises into a DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        mend = "Check its path, its permissions, and that it is whole."
        raise DataError(f"{file} cannot be read: {why}.", mend) from None


@contextmanager
def _opened(file: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """The bytes of a text file, unpacked if its name ends in `.gz`. Raises DataError if it is UTF-16."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        head = stream.read(4096)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 4 * head.count(0) > len(head):
            raise DataError(f"{file} is not UTF-8, probably UTF-16.", conversion(file, "UTF-16"))
        stream.seek(0)
        yield stream


@contextmanager
def _decoded(file: Path) -> Iterator[IO[str]]:
    """The text of a file without its byte-order mark; bytes that are not UTF-8 become surrogates."""
    with _opened(file) as stream:
        yield io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")


def _row(file: Path, line: int, value: Any) -> Row | Refusal:
    """The row that holds a value, whose raw bytes are its canonical JSON."""
    if not isinstance(value, dict):
        return Refusal(source_of(file), line, "not a JSON object")
    try:
        return Row(line, value, canonical_json(value).encode())
    except UnicodeEncodeError as error:
        escaped = "\udc80" <= error.object[error.start] <= "\udcff"
        return Refusal(source_of(file), line, NOT_UTF8 if escaped else "holds half a surrogate pair")


def _jsonl(file: Path) -> Iterator[Row | Refusal]:
    with _opened(file) as stream:
        for number, line in enumerate(_lines(stream), 1):
            if line is None:
                yield Refusal(source_of(file), number, _TOO_LONG)
                continue
            raw = line.removesuffix(b"\n")
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.strip():
                values = _parsed(raw)
                if isinstance(values, str):
                    yield Refusal(source_of(file), number, values)
                else:
                    yield Row(number, values, raw)


def _lines(stream: gzip.GzipFile | io.BufferedReader) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long, which is passed without being held."""
    while line := stream.readline(LONGEST_ROW + 1):
        if len(line) <= LONGEST_ROW:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_ROW)
        yield None


def _parsed(raw: bytes) -> dict[str, Any] | str:
    """The object on a line, or why there is none."""
    try:
        value = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        return f"{NOT_UTF8} at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        return f"malformed JSON at column {error.colno}"
    except (ValueError, RecursionError):
        return "JSON nested too deeply, or a number too long"
    return value if isinstance(value, dict) else "not a JSON object"


def _json(file: Path) -> Iterator[Row | Refusal]:
    row = 0
    with _decoded(file) as stream:
        try:
            for row, (key, value) in enumerate(_elements(_Window(stream)), 1):
                keyed = key is not None and isinstance(value, dict)
                yield _row(file, row, {"id": key} | value if keyed else value)
        except (ValueError, RecursionError):
            mend = "Give a list of objects, or an object of id to object."
            raise DataError(f"{file} is malformed JSON after row {row}.", mend) from None


class _Window:
    """A JSON text read piece by piece; what has been passed is dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.text, self.at = stream, "", 0

    def more(self) -> bool:
        """True if there was more: as much as is held, so that a long row is parsed only a few times."""
        kept = len(self.text) - self.at
        piece = self.stream.read(max(1 << 16, kept)) if kept < LONGEST_ROW else ""
        if piece:
            self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character that is not blank, empty at the end."""
        while True:
            self.at = _past_blanks(self.text, self.at)
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def take(self, expected: str) -> str:
        """The next character, passed. Raises ValueError if it is none of those expected."""
        mark = self.peek()
        if not mark or mark not in expected:
            raise ValueError
        self.at += 1
        return mark

    def value(self) -> Any:
        """The next value, passed; it is whole once a separator follows. Raises ValueError if malformed."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self.more():
                    raise
                continue
            following = _past_blanks(self.text, end)
            if self.text[following : following + 1] in tuple(",:]}") or not self.more():
                self.at = end
                return value


def _elements(window: _Window) -> Iterator[tuple[str | None, Any]]:
    """The values of a JSON list or object with their keys, None in a list. Raises ValueError if malformed."""
    if not window.peek():
        return
    closing = "]" if window.take("[{") == "[" else "}"
    mark = "," if window.peek() != closing else window.take(closing)
    while mark == ",":
        key = window.value() if closing == "}" else None
        if closing == "}":
            window.take(":")
        yield key, window.value()
        mark = window.take("," + closing)
    if window.peek():
        raise ValueError


def _past_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def _csv(file: Path) -> Iterator[Row | Refusal]:
    return _separated(file, ",;\t")


def _tsv(file: Path) -> Iterator[Row | Refusal]:
    return _separated(file, "\t")


def _separated(file: Path, delimiters: str) -> Iterator[Row | Refusal]:
    """The rows below a header, separated by whichever delimiter the header has most of."""
    csv.field_size_limit(LONGEST_ROW)
    with _decoded(file) as stream:
        lines = _bounded(file, stream)
        first = next(lines, "")
        delimiter = max(delimiters, key=first.count)
        records = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        header = _header(file, records)
        while True:
            line = records.line_num + 1
            try:
                fields = next(records, None)
            except csv.Error:
                yield Refusal(source_of(file), line, f"malformed quotes in lines {line} to {records.line_num}")
                continue
            if fields is None:
                return
            if fields and len(fields) != len(header):
                reason = f"{len(fields)} fields where the header has {len(header)}"
                yield Refusal(source_of(file), line, reason)
            elif fields:
                yield _row(file, line, dict(zip(header, fields, strict=True)))


def _bounded(file: Path, stream: IO[str]) -> Iterator[str]:
    """The lines of a text. Raises DataError at one that is too long to be part of a row."""
    for number in count(1):
        line = stream.readline(LONGEST_ROW + 1)
        if len(line) > LONGEST_ROW:
            raise DataError(f"{file}, line {number}: {_TOO_LONG}.", "Take the line out, or name the file's format.")
        if not line:
            return
        yield line


def _header(file: Path, records: Iterator[list[str]]) -> list[str]:
    """The column names of the first record that is not blank. Raises DataError if they cannot serve."""
    try:
        header = [name.strip() for name in next(filter(None, records), [])]
        "".join(header).encode()
    except csv.Error:
        raise DataError(f"{file} has malformed quotes in its header.", "Mend its first line.") from None
    except UnicodeEncodeError:
        raise DataError(f"{file} is not UTF-8, probably Latin-1.", conversion(file, "LATIN1")) from None
    _refuse_same(file, header)
    return header


def _refuse_same(file: Path, names: Sequence[str]) -> None:
    """Raises DataError if two columns have the same name."""
    first: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if first.setdefault(name, place) != place:
            problem = f"{file}: columns {first[name]} and {place} have the same name."
            raise DataError(problem, "Give each column its own name.")


def _parquet(file: Path) -> Iterator[Row | Refusal]:
    return _columnar(file, open_parquet(file))


def _columnar(file: Path, opened: Opened) -> Iterator[Row | Refusal]:
    """The rows of Arrow batches, numbered from 1; None stands for one that is too long."""
    _refuse_same(file, opened.schema.names)
    line = 0
    for piece in opened.pieces:
        for values in [_TOO_LONG] if piece is None else _cells(piece):
            line += 1
            if isinstance(values, str):
                yield Refusal(source_of(file), line, values)
            else:
                yield _row(file, line, _plain(values))


def _cells(batch: Any) -> list[dict[str, Any] | str]:
    """The rows of an Arrow batch; in place of each that cannot be read, found by halving, why."""
    import pyarrow

    try:
        return list(batch.to_pylist())
    except (ValueError, ArithmeticError, LookupError, TypeError, NotImplementedError, pyarrow.ArrowException) as error:
        half = batch.num_rows // 2
        why = NOT_UTF8 if isinstance(error, UnicodeDecodeError) else _NO_VALUE
        return [*_cells(batch.slice(0, half)), *_cells(batch.slice(half))] if half else [why]


def _plain(value: Any) -> Any:
    """An Arrow value as JSON has it: no number is null, dates are text, bytes an object of base64."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float) else str(value)


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_BLANKS = re.compile(r"[ \t\r\n]*")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_READERS: dict[str, Callable[[Path], Iterator[Row | Refusal]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
}
FORMATS: tuple[str, ...] = (*_READERS, "datasets")
"""The formats that can be read."""
