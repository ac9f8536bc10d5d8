"""Rows in columns, with types: read again from the file they came from, or made of JSON values, and written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .arrow_files import as_schema, open_folder, open_parquet
from .files import digest_of_file

if TYPE_CHECKING:
    import numpy as np

Tables: TypeAlias = tuple[Any, Iterator[Any]]
"""An Arrow schema, and tables of it that hold some of the rows each."""

_ROWS = 1000  # held at once
_DEEPEST = 48  # lists and objects in each other: Parquet files with 50 lists can be written and not read
_GROUP = 1 << 16  # rows of a row group, at most
_GROUP_BYTES = 1 << 26
_NOTES = b"huggingface"  # where a schema says what `datasets` takes its columns for, such as images in files


class Unfit(Exception):
    """What rows hold that a format cannot, in words where `{column}` stands for the column, whose name may be text.

    `number` is that of the column, counted from 1; 0 if it is about none.
    """

    def __init__(self, what: str, column: str = "", number: int = 0) -> None:
        super().__init__(what)
        self.column = column
        self.number = number


# From a file, from values


def from_file(
    file: Path, kind: str, split: str | None, lines: np.ndarray, added: Sequence[Mapping[str, Any]]
) -> Tables:
    """The rows at `lines`, ascending from 1, (n,), as they stand in a Parquet file or a datasets folder; then `added`.

    What `datasets` noted of their columns is left behind: it obeys such notes, and some name files to copy in.
    Raises Unfit if what is added does not fit their columns.
    """
    import numpy as np

    schema, read = open_folder(file, split) if kind == "datasets" else open_parquet(file)
    schema = schema.with_metadata({name: held for name, held in (schema.metadata or {}).items() if name != _NOTES})
    for row in added:
        for number, column in enumerate(row, 1):
            if column not in schema.names:
                raise Unfit("a {column} that the data lack", column, number)

    def pieces() -> Iterator[Any]:
        start = 1
        for piece in read:
            n_rows = 1 if piece is None else len(piece)  # what is too long was no row of a run
            low, high = np.searchsorted(lines, [start, start + n_rows])
            if piece is not None and high > low:
                yield as_schema(piece.take(lines[low:high] - start), schema)
            start += n_rows
        if added:
            yield _table(schema, added)

    return schema, pieces()


def from_values(
    columns: Iterable[str], known: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]
) -> Tables:
    """These rows, the columns in that order, with the types of all the values in `known`; what a row lacks is null.

    Raises Unfit if a column holds values of different types, or one that no type holds.
    """
    import pyarrow

    types: dict[str, Any] = dict.fromkeys(columns, pyarrow.null())
    for values in known:
        for column, value in values.items():
            try:
                types[column] = _either(types[column], _type_of(value))
            except pyarrow.ArrowException:
                raise Unfit("values of different types in {column}", column, list(types).index(column) + 1) from None
            except RecursionError:
                raise Unfit("a value nested too deeply in {column}", column, list(types).index(column) + 1) from None
    schema = pyarrow.schema(list(types.items()))
    left = iter(rows)
    return schema, (_table(schema, some) for some in iter(lambda: list(islice(left, _ROWS)), []))


def _type_of(value: Any, depth: int = 0) -> Any:
    """The Arrow type of a JSON value. Raises an ArrowException for a list of different types, RecursionError for one
    that is nested too deeply.
    """
    import pyarrow

    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        return pyarrow.struct([(name, _type_of(part, depth + 1)) for name, part in value.items()])
    if isinstance(value, list):
        kind = pyarrow.null()
        for part in value:
            kind = _either(kind, _type_of(part, depth + 1))
        return pyarrow.list_(kind)
    if value is None:
        return pyarrow.null()
    if isinstance(value, str):
        return pyarrow.string()
    if isinstance(value, bool):
        return pyarrow.bool_()
    return pyarrow.int64() if isinstance(value, int) else pyarrow.float64()


def _either(one: Any, other: Any) -> Any:
    """The type that holds what either holds, such as a float for a whole number. Raises an ArrowException for none."""
    import pyarrow

    if one.equals(other):
        return one
    schemas = [pyarrow.schema([("", kind)]) for kind in (one, other)]
    return pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type


def _table(schema: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    import pyarrow

    arrays = []
    for number, field in enumerate(schema, 1):
        try:
            arrays.append(pyarrow.array([row.get(field.name) for row in rows], type=field.type))
        except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
            kind = str(field.type).partition("<")[0]
            raise Unfit(f"a value in {{column}} that is no {kind}", field.name, number) from None
    return pyarrow.Table.from_arrays(arrays, schema=schema)


# To a file


def write_parquet(path: Path, tables: Tables) -> None:
    """Nothing; a Parquet file holds the tables. Raises Unfit if it cannot."""
    import pyarrow
    from pyarrow import parquet

    schema, pieces = tables
    try:
        with parquet.ParquetWriter(path, schema) as writer:
            for group in _grouped(pieces):
                writer.write_table(group)
    except pyarrow.ArrowException as error:
        raise Unfit(f"values that it cannot hold ({type(error).__name__})") from None


def _grouped(tables: Iterable[Any]) -> Iterator[Any]:
    """The same rows in tables large enough for row groups."""
    import pyarrow

    held: list[Any] = []
    n_rows = n_bytes = 0
    for table in tables:
        held.append(table)
        n_rows, n_bytes = n_rows + len(table), n_bytes + table.nbytes
        if n_rows >= _GROUP or n_bytes >= _GROUP_BYTES:
            yield pyarrow.concat_tables(held)
            held, n_rows, n_bytes = [], 0, 0
    if held:
        yield pyarrow.concat_tables(held)


def write_dataset(folder: Path, tables: Tables) -> None:
    """Nothing; the empty folder holds the tables as `datasets` loads them. Raises Unfit if it cannot.

    They go by way of an Arrow file in the folder, which is mapped into memory, not held in it, and removed.
    """
    import pyarrow

    datasets = _datasets()
    schema, pieces = tables
    file = folder / ".rows" / "rows.arrow"
    file.parent.mkdir()
    n_rows = 0
    kinds = datasets.table
    try:
        with file.open("wb") as stream, pyarrow.ipc.new_stream(stream, schema) as writer:
            for piece in pieces:
                writer.write_table(piece)
                n_rows += len(piece)
        fingerprint = digest_of_file(file)[:16]
        table = kinds.MemoryMappedTable.from_file(str(file)) if n_rows else kinds.InMemoryTable(schema.empty_table())
        found = datasets.Dataset(table, fingerprint=fingerprint)
        # Left to itself, the library writes an empty dataset in no file at all, and cannot load it again.
        found.save_to_disk(str(folder), num_shards=None if n_rows else 1)
    except (ValueError, TypeError, NotImplementedError, RecursionError, pyarrow.ArrowException) as error:
        raise Unfit(f"values that it cannot hold ({type(error).__name__})") from None
    shutil.rmtree(file.parent)


def _datasets() -> Any:
    """The library of that name, offline and silent. It is used only where it caches nothing."""
    os.environ.update(HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    import datasets

    datasets.disable_progress_bars()
    return datasets
