"""Parquet files and folders saved by `datasets`, read without trust in who wrote them.

A few bytes of such a file can stand for very many: a value is written once and named by every row, and pages are
compressed. So rows come in pieces whose cells are measured before they are made, values that are named are not copied,
and what is declared to unpack to far more than is stored is refused. A folder's files must lie in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .arrow_rows import pieces_of, swollen
from .bounded import text_of
from .errors import DataError

_ROWS = 64  # of a piece, at most
_PASSES = 32  # pieces of a group of rows whose values are named: each piece names all values before it
_NAMED = 1 << 29  # bytes that a piece may come to where its values are not named
_UNPACKED = 1 << 26  # bytes that a group of rows may unpack to, however few are stored
_RATIO = 200  # times the bytes stored that a group of rows may unpack to beyond
_FREE_ROWS = 1 << 20  # however few bytes are stored: rows that are alike take none
_ROWS_PER_BYTE = 8  # a row of true or false is a bit
_LONGEST_LIST = 1 << 20  # bytes of a folder's own files
_STATE, _SPLITS = "state.json", "dataset_dict.json"


class Opened(NamedTuple):
    """A file's Arrow schema, and its rows in pieces: record batches, or None for one row that is too long.

    Texts in a piece may be dictionaries where the schema says otherwise: see `as_schema`.
    """

    schema: Any
    pieces: Iterator[Any]


def open_parquet(file: Path) -> Opened:
    """The rows of a Parquet file. Raises DataError, at once or on the way, if it is damaged or unpacks to too much."""
    import pyarrow
    from pyarrow import parquet

    def pieces() -> Iterator[Any]:
        try:
            with parquet.ParquetFile(file, read_dictionary=named) as table:
                n_read = 0
                for group in range(table.num_row_groups):  # each has dictionaries of its own
                    n_rows = max(_ROWS, table.metadata.row_group(group).num_rows // _PASSES) if named else _ROWS
                    for batch in table.iter_batches(batch_size=n_rows, row_groups=[group]):
                        n_read += len(batch)
                        _refuse_rows(file, n_read, n_bytes)
                        yield from pieces_of(file, batch)
        except pyarrow.ArrowException:
            raise damaged from None

    damaged = DataError(f"{file} is not a whole Parquet file.", "Copy it again, or name its format with --format.")
    try:
        with parquet.ParquetFile(file) as table, file.open("rb") as content:
            schema, columns = table.schema_arrow, [table.schema.column(n) for n in range(len(table.schema.names))]
            n_bytes = file.stat().st_size
            _refuse_rows(file, _n_rows(table.metadata), n_bytes)
            if not _can_be_told(table.metadata):
                raise damaged
            _refuse_unpacking(file, table.metadata, columns)
            named = _named(content, table.metadata, columns)
    except (pyarrow.ArrowException, IndexError, UnicodeDecodeError):  # a column's name need not be UTF-8
        raise damaged from None
    return Opened(schema, pieces())


def open_folder(folder: Path, split: str | None) -> Opened:
    """The rows of a folder that `datasets` saved, or of one of its splits; the only one if none is named.

    Raises DataError, at once or on the way, if the folder is damaged, has no such split or several, names files outside
    it, or holds what cannot be bounded.
    """
    import pyarrow

    damaged = DataError(
        f"{folder} cannot be read as a folder saved by `datasets`.",
        "Save it again with save_to_disk, or export it as JSONL.",
    )

    def pieces(files: Sequence[Path], schema: Any) -> Iterator[Any]:
        n_read = n_bytes = 0
        try:
            for file in files:
                n_bytes += file.stat().st_size
                with pyarrow.memory_map(str(file)) as content, pyarrow.ipc.open_stream(content) as stream:
                    if stream.schema != schema:
                        raise damaged
                    for batch in stream:
                        n_read += len(batch)
                        _refuse_rows(folder, n_read, n_bytes)
                        batch.validate(full=True)
                        for start in range(0, len(batch), _ROWS):
                            yield from pieces_of(folder, batch.slice(start, _ROWS))
        except pyarrow.ArrowException:
            raise damaged from None

    try:
        place = _split(folder, split)
        stated = _stated(place / _STATE)
        if stated.get("_indices_data_files"):  # of `datasets` before 2: a choice and an order that are kept apart
            raise damaged
        files = [_part(folder, place, part["filename"], stat.S_ISREG) for part in stated["_data_files"]]
        if len(set(files)) < len(files):
            raise damaged
        for file in files:
            _refuse_compressed(folder, file)
        with pyarrow.memory_map(str(files[0])) as content, pyarrow.ipc.open_stream(content) as stream:
            schema = stream.schema
            _ = schema.names  # raises if one is no UTF-8
    except (pyarrow.ArrowException, ValueError, TypeError, LookupError, RecursionError, struct.error):
        raise damaged from None
    return Opened(schema, pieces(files, schema))


def as_schema(piece: Any, schema: Any) -> Any:
    """The piece as an Arrow table of that schema, its dictionaries as their values where the schema has these."""
    import pyarrow

    columns = []
    for column, field in zip(piece.columns, schema, strict=True):
        if column.type != field.type and field.type in (pyarrow.string_view(), pyarrow.binary_view()):
            column = column.cast(column.type.value_type)  # there is no way from a dictionary to a view
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pyarrow.Table.from_arrays(columns, schema=schema)


# What a folder names


def _split(folder: Path, split: str | None) -> Path:
    """The folder that holds the rows. Raises DataError where none can be chosen, ValueError if it is damaged."""
    if not (folder / _SPLITS).is_file():
        if split is not None:
            raise DataError(f"{folder} has no splits.", "Leave --split out.")
        return folder
    held = _stated(folder / _SPLITS)["splits"]
    if not isinstance(held, list) or not held:
        raise ValueError
    places = {str(name): _part(folder, folder, name, stat.S_ISDIR) for name in held}
    chosen = next(iter(places)) if split is None and len(places) == 1 else split
    if chosen not in places:
        problem = f"{folder} has no split {split!r}" if split else f"{folder} has several splits"
        raise DataError(f"{problem}.", f"Name one with --split: {', '.join(places)}.")
    return places[chosen]


def _stated(path: Path) -> dict[str, Any]:
    """What a folder's own JSON file states. Raises DataError if it is a link, ValueError if it cannot be read."""
    _part(path.parent, path.parent, path.name, stat.S_ISREG)
    found = json.loads(text_of(path, _LONGEST_LIST))
    if not isinstance(found, dict):
        raise ValueError
    return found


def _part(folder: Path, place: Path, name: object, is_kind: Any) -> Path:
    """What a folder names, in this place of it. Raises DataError unless it lies there itself, and is no link."""
    if isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\0"} & set(name):
        with suppress(OSError):
            if is_kind((place / name).lstat().st_mode):
                return place / name
    kind = "file" if is_kind is stat.S_ISREG else "folder"
    told = ascii(name[:60]) if isinstance(name, str) else f"a {type(name).__name__}"
    raise DataError(f"{folder} names {told}, which is no {kind} in it.", "Take data only from whom you trust.")


# What a file unpacks to


def _n_rows(metadata: Any) -> int:
    """The rows that a Parquet file declares, in all or by its groups."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return max(int(metadata.num_rows), sum(int(group.num_rows) for group in groups))


def _refuse_rows(file: Path, n_rows: int, n_bytes: int) -> None:
    """Raises DataError if there are far more rows than can differ in so few bytes."""
    if n_rows > _ROWS_PER_BYTE * n_bytes + _FREE_ROWS:
        raise swollen(file, f"{n_bytes} bytes that stand for {n_rows} rows or more")


def _can_be_told(metadata: Any) -> bool:
    """Whether pyarrow can tell of every group of every column; of some damaged files it ends the process instead.

    So a child asks first, that says nothing and has a minute.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child asks, and is gone
        child = os.fork()
    if not child:
        try:
            signal.alarm(60)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                for number in range(group.num_columns):
                    group.column(number)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _refuse_unpacking(file: Path, metadata: Any, columns: Sequence[Any]) -> None:
    """Raises DataError if a group of rows is declared to unpack to far more than is stored."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        stored = unpacked = 0
        for column, declared in zip(columns, map(group.column, range(group.num_columns)), strict=True):
            values = 8 * declared.num_values if column.max_repetition_level else 0
            values += min(_ROWS, declared.num_values) * (column.length or 0)  # of values of one length
            stored += declared.total_compressed_size
            unpacked += max(declared.total_uncompressed_size, values)
        if unpacked > max(_UNPACKED, _RATIO * stored):
            raise swollen(file, f"{stored} bytes that unpack to {unpacked}")


def _named(content: BinaryIO, metadata: Any, columns: Sequence[Any]) -> list[str]:
    """The columns of texts that are to be read as names of values: else a piece could come to too much."""
    known: dict[str, int] = {}
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column, declared in zip(columns, map(group.column, range(group.num_columns)), strict=True):
            if column.physical_type == "BYTE_ARRAY":
                n_values = declared.num_values if column.max_repetition_level else min(_ROWS, declared.num_values)
                most = n_values * _dictionary_size(content, declared)
                known[column.path] = max(most, known.get(column.path, 0))
    return [path for path, most in known.items() if most * len(known) > _NAMED]


def _dictionary_size(content: BinaryIO, declared: Any) -> int:
    """The bytes of a column's values that are written once, 0 if there are none: of its first page, by its header.

    A header is a Thrift struct in the compact protocol, and begins with the numbers of kind, size and size stored
    (format: parquet.thrift of Apache Parquet). Raises IndexError if it does not.
    """
    named = declared.dictionary_page_offset if declared.has_dictionary_page else 0
    content.seek(named if 0 < (named or 0) < declared.data_page_offset else declared.data_page_offset)
    header, at, found = content.read(40), 0, []
    for _ in range(3):
        if header[at] != 0x15:  # the next field, a number
            raise IndexError
        number = shift = 0
        more = True
        while more:
            at += 1
            number |= (header[at] & 0x7F) << shift
            shift, more = shift + 7, header[at] > 0x7F
        found.append(number >> 1)  # no negative one fits
        at += 1
    return max(found[1:]) if found[0] == 2 else 0


def _refuse_compressed(folder: Path, file: Path) -> None:
    """Raises DataError if an Arrow file is compressed: `datasets` writes none that is, and nothing bounds it."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as content:
        for message in pyarrow.ipc.MessageReader.open_stream(content):
            held = message.metadata
            table = _pointed(held, _field(held, _pointed(held, 0), 2))
            if message.type == "dictionary":
                table = _pointed(held, _field(held, table, 1))
            if message.type in ("dictionary", "record batch") and _field(held, table, 3):
                raise swollen(folder, "compressed Arrow files")


def _pointed(held: Any, at: int) -> int:
    return at + int(struct.unpack_from("<I", held, at)[0])


def _field(held: Any, table: int, number: int) -> int:
    """Where a field of a FlatBuffers table stands, 0 if it has none (format: Message.fbs of Apache Arrow)."""
    names = table - struct.unpack_from("<i", held, table)[0]
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", held, names + place)[0] if place < struct.unpack_from("<H", held, names)[0] else 0
    return table + int(offset) if offset else 0
