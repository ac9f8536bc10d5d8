"""Rows of a run become dataset files again: their very bytes as JSON Lines, their values and types in other formats."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from . import columnar
from .errors import DataError
from .formats import content_digest
from .outputs import Place, failures_told
from .readers import Layout, _are_names
from .terms import Sample

if TYPE_CHECKING:
    import numpy as np

_SORTED = ("json", "csv", "tsv")
"""Formats whose rows a run holds as canonical JSON: the order of their columns is not known."""


@dataclass(frozen=True)
class Source:
    """The rows of a run as they can be written again.

    `rows` gives them anew each time, in the order of the data. `data` is the file they came from, `content` its digest
    and `layout` how it was read; it is read again where its columns have types that JSON lacks.
    """

    rows: Callable[[], Iterator[Sample]]
    layout: Layout | None = None
    data: Path | None = None
    content: str = ""

    @cached_property
    def lines(self) -> np.ndarray:
        """The line of each row, counted from 1, (n_rows,)."""
        import numpy as np

        return np.fromiter((row.line for row in self.rows()), dtype=np.int64)

    def values(self) -> Iterator[dict[str, Any]]:
        """Every row by its columns."""
        return (json.loads(row.raw) for row in self.rows())

    def columns(self, added: Iterable[Mapping[str, Any]]) -> list[str]:
        """Every column of the rows and of those added: as they come, or what makes samples first, then by name."""
        found = dict.fromkeys(column for values in chain(self.values(), added) for column in values)
        first: Iterable[str | None] = ()
        if self.layout is not None and self.layout.format in _SORTED:
            first = (self.layout.id_column, *self.layout.input, *self.layout.output)
        return list(dict.fromkeys([*(column for column in first if column in found), *found]))

    @cached_property
    def original(self) -> Path:
        """The file the rows came from. Raises DataError unless it is there, and as it was."""
        mend = "Say with --data where it is as it was, or write JSON Lines, which do not need it."
        if self.data is None or not self.data.exists():
            raise DataError(f"{self.data} is no longer there.", mend)
        if content_digest(self.data) != self.content:
            raise DataError(f"{self.data} is not the file that was assessed: its content differs.", mend)
        return self.data


def write(place: Place, source: Source, chosen: np.ndarray, added: Sequence[Mapping[str, Any]] = ()) -> None:
    """Nothing; the place holds the rows `chosen`, boolean, (n_rows,), in their order, and after them those added.

    JSON Lines and JSON hold each row as the run does, byte for byte; CSV holds texts as they are, null as nothing, and
    all else as JSON. Parquet and datasets keep the types of a columnar original, read again; rows of other formats get
    the types of their values in the whole data, the same for any choice. Raises DataError if the format cannot hold a
    value, or if the original is needed and not as it was.
    """
    with failures_told(place.output):
        try:
            if place.kind in ("parquet", "datasets"):
                tables = _tables(source, chosen, added)
                (columnar.write_parquet if place.kind == "parquet" else columnar.write_dataset)(place.path, tables)
                return
            raws = chain((row.raw for row in compress(source.rows(), chosen)), map(_line, added))
            with place.path.open("wb") as stream:
                if place.kind == "jsonl":
                    stream.writelines(raw + b"\n" for raw in raws)
                elif place.kind == "json":
                    stream.writelines(_listed(raws))
                else:
                    _separate(stream, "\t" if place.kind == "tsv" else ",", source.columns(added), raws)
        except columnar.Unfit as what:
            raise DataError(
                f"{place.output} cannot be written as {place.kind}: the rows hold {_told(what)}.",
                "Write JSON Lines, which hold any row: --format jsonl.",
            ) from None


def _told(what: columnar.Unfit) -> str:
    """What rows hold, in words; a column's name that looks like text of a row is not shown."""
    return str(what).format(column=f"column {repr(what.column) if _are_names([what.column]) else what.number}")


def write_records(place: Place, records: Iterable[Mapping[str, Any]]) -> None:
    """Nothing; the place holds these as JSON Lines."""
    with failures_told(place.output), place.path.open("wb") as stream:
        stream.writelines(_line(record) + b"\n" for record in records)


def _line(record: Mapping[str, Any]) -> bytes:
    """The record as JSON; halves of surrogate pairs are escaped, and with them all that is not ASCII."""
    try:
        return json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(record).encode()


def _listed(raws: Iterable[bytes]) -> Iterator[bytes]:
    """A JSON list, an item a line."""
    before = b"[\n"
    for raw in raws:
        yield before + raw
        before = b",\n"
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _separate(stream: BinaryIO, delimiter: str, columns: Sequence[str], raws: Iterable[bytes]) -> None:
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    table = csv.writer(text, delimiter=delimiter)
    try:
        table.writerow(columns)
        table.writerows([_cell(values.get(column)) for column in columns] for values in map(json.loads, raws))
        text.detach()
    except UnicodeEncodeError:
        raise columnar.Unfit("half a character") from None


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _tables(source: Source, chosen: np.ndarray, added: Sequence[Mapping[str, Any]]) -> columnar.Tables:
    layout = source.layout
    if layout is None:
        raise DataError(
            "The run is of an older version and does not say where its data came from.",
            "Give the same `goalcover assess` again: it notes the place, and judges nothing twice.",
        )
    if layout.format in ("parquet", "datasets"):
        import numpy as np

        lines = source.lines[np.flatnonzero(chosen)]
        return columnar.from_file(source.original, layout.format, layout.split, lines, added)
    known = chain(source.values(), added)
    return columnar.from_values(source.columns(added), known, chain(compress(source.values(), chosen), added))
