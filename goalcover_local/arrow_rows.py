"""What rows of Arrow hold, counted and measured before a cell of them is made.

Values may take no bytes where they lie (nulls), or be named by every row and lie once: so they are counted first, then
measured, and rows come in pieces that can be held.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError

if TYPE_CHECKING:
    import numpy as np

LONGEST_ROW = 1 << 24
"""Bytes of one row, and of the cells of one piece."""


def pieces_of(file: Path, batch: Any) -> Iterator[Any]:
    """The batch in pieces that hold no more than may be held; None for a row that alone holds more."""
    half = len(batch) // 2
    if sum(_n_values(file, column) for column in batch.columns) <= LONGEST_ROW:
        sizes = sum((_sizes(file, column) for column in batch.columns), start=_zeros(len(batch)))
        yield from _divided(batch, sizes)
    elif half:
        yield from pieces_of(file, batch.slice(0, half))
        yield from pieces_of(file, batch.slice(half))
    else:
        yield None


def _divided(batch: Any, sizes: np.ndarray) -> Iterator[Any]:
    half = len(batch) // 2
    if sizes.sum() <= LONGEST_ROW:
        yield batch
    elif half:
        yield from _divided(batch.slice(0, half), sizes[:half])
        yield from _divided(batch.slice(half), sizes[half:])
    else:
        yield None


def _zeros(n: int) -> np.ndarray:
    import numpy as np

    return np.zeros(n, dtype=np.int64)


def _n_values(file: Path, array: Any) -> int:
    """How many values an Arrow array holds, with those inside them: what measuring it takes, whatever it is stored in.

    Raises DataError for a dictionary of more values than could be measured, and than are stored.
    """
    import pyarrow
    from pyarrow import types

    kind, n = array.type, len(array)
    if not n:
        return 0
    if isinstance(array, pyarrow.ExtensionArray):
        return _n_values(file, array.storage)
    if types.is_dictionary(kind):
        n_named = _n_values(file, array.dictionary)
        if n_named > LONGEST_ROW and n_named > array.dictionary.nbytes:
            raise swollen(file, f"a dictionary of {n_named} values in few bytes")
    elif types.is_struct(kind):
        n += sum(_n_values(file, array.field(number)) for number in range(kind.num_fields))
    elif _holds_lists(kind):
        first, last = _span(array)
        n += _n_values(file, array.values.slice(first, last - first))
    return n


def _holds_lists(kind: Any) -> bool:
    from pyarrow import types

    several = (types.is_list, types.is_large_list, types.is_map, types.is_list_view, types.is_large_list_view)
    return types.is_fixed_size_list(kind) or any(is_one(kind) for is_one in several)


def _span(array: Any) -> tuple[int, int]:
    """Between which of the values inside it an array of lists lies; it is not empty."""
    from pyarrow import types

    if types.is_fixed_size_list(array.type):
        length = array.type.list_size
        return array.offset * length, (array.offset + len(array)) * length
    if types.is_list_view(array.type) or types.is_large_list_view(array.type):
        starts, held = _views(array)
        there = held > 0
        return (int(starts[there].min()), int((starts + held)[there].max())) if there.any() else (0, 0)
    return array.offsets[0].as_py(), array.offsets[-1].as_py()


def _views(array: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where each list of an array of views begins and how long it is, 0 for one that is null, (n,) each."""
    import numpy as np

    starts, held = (np.asarray(each).astype(np.int64) for each in (array.offsets, array.sizes))
    return starts, np.where(np.asarray(array.is_valid()), held, 0)


def _sizes(file: Path, array: Any) -> np.ndarray:
    """The bytes of each value of an Arrow array, and one for each value inside it: (n,).

    Raises DataError for a type that cannot be measured.
    """
    import numpy as np
    import pyarrow.compute
    from pyarrow import types

    kind = array.type
    sizes = np.ones(len(array), dtype=np.int64)
    if not len(array):
        return sizes
    if isinstance(array, pyarrow.ExtensionArray):
        return _sizes(file, array.storage)
    if types.is_dictionary(kind):
        values = _sizes(file, array.dictionary)
        there = np.asarray(array.indices.is_valid())
        sizes[there] += values[np.asarray(array.indices.drop_null())]
    elif kind in (pyarrow.string_view(), pyarrow.binary_view()):
        lengths = np.frombuffer(array.buffers()[1], np.int32)[4 * array.offset : 4 * (array.offset + len(array)) : 4]
        sizes += np.where(np.asarray(array.is_valid()), lengths, 0)
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        sizes += np.asarray(pyarrow.compute.binary_length(array).fill_null(0))
    elif types.is_struct(kind):
        sizes += sum((_sizes(file, array.field(n)) for n in range(kind.num_fields)), start=_zeros(len(array)))
    elif _holds_lists(kind):
        first, last = _span(array)
        inside = _sizes(file, array.values.slice(first, last - first))
        if types.is_fixed_size_list(kind):
            sizes += inside.reshape(len(array), kind.list_size).sum(axis=1)
            return sizes
        summed = _zeros(len(inside) + 1)
        np.cumsum(inside, out=summed[1:])
        if types.is_list_view(kind) or types.is_large_list_view(kind):
            starts, held = _views(array)
            starts = np.where(held, starts - first, 0)
            sizes += summed[starts + held] - summed[starts]
        else:
            sizes += np.diff(summed[np.asarray(array.offsets).astype(np.int64) - first])
    elif types.is_null(kind) or types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        sizes += 0 if types.is_null(kind) else (kind.bit_width + 7) // 8
    else:
        raise DataError(f"{file} has a column of a type that is not read.", "Export it as JSONL.")
    return sizes


def swollen(file: Path, what: str) -> DataError:
    """The error to raise of a file in which little stands for very much."""
    return DataError(f"{file} holds {what}.", "Export it as JSONL, which is read row by row.")
