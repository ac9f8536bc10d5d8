"""Parquet files and datasets folders from strangers: no file outside is read, and little never becomes very much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from goalcover_local import arrow_files, arrow_rows, columnar
from goalcover_local.arrow_files import as_schema, open_folder, open_parquet
from goalcover_local.arrow_rows import LONGEST_ROW
from goalcover_local.errors import DataError
from goalcover_local.readers import read, recognise
from goalcover_local.terms import Refusal, Sample

GOOD = {"question": "Which dose?", "answer": "Ten milligrams."}
SECRET = "Zwiebelkuchen4711"
FILE = "data-00000-of-00001.arrow"


def arrow(path: Path, table: Any, compression: str | None = None) -> Path:
    options = pyarrow.ipc.IpcWriteOptions(compression=compression)
    with path.open("wb") as stream, pyarrow.ipc.new_stream(stream, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


def folder(place: Path, table: Any, *names: object, compression: str | None = None) -> Path:
    """A folder as `datasets` saves one, that names these files."""
    place.mkdir()
    arrow(place / FILE, table, compression)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names or (FILE,)]}))
    return place


def splits(place: Path, *names: object) -> Path:
    """A folder of splits that names these."""
    place.mkdir()
    folder(place / "train", pyarrow.table({name: [text] for name, text in GOOD.items()}))
    (place / "dataset_dict.json").write_text(json.dumps({"splits": list(names)}))
    return place


def found(file: Path, split: str | None = None) -> list[Sample | Refusal]:
    return list(read(file, recognise(file, split=split)))


def complaint(file: Path, split: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        found(file, split)
    assert str(file) in caught.value.problem and caught.value.mend
    assert SECRET not in str(caught.value)
    return caught.value.problem


@pytest.fixture
def good() -> Any:
    return pyarrow.table({name: [text] * 3 for name, text in GOOD.items()})


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A whole Arrow file beside the folder."""
    return arrow(tmp_path / "outside.arrow", pyarrow.table({"question": [SECRET], "answer": [SECRET]}))


# What a folder names


@pytest.mark.parametrize("name", ["../outside.arrow", "", ".", "..", "train/data.arrow", "a\0b", 7, None, ["x"], "x"])
def test_a_file_that_is_not_in_the_folder_is_not_read(tmp_path: Path, good: Any, outside: Path, name: object) -> None:
    place = folder(tmp_path / "data", good, FILE, name)
    said = complaint(place)
    assert "which is no file in it" in said
    assert not isinstance(name, str) or ascii(name) in said


def test_an_absolute_name_and_a_link_are_not_followed(tmp_path: Path, good: Any, outside: Path) -> None:
    assert "outside.arrow' , which" not in complaint(folder(tmp_path / "one", good, str(outside)))
    place = folder(tmp_path / "two", good, "link.arrow")
    (place / "link.arrow").symlink_to(outside)
    assert "names 'link.arrow', which is no file in it" in complaint(place)
    os.mkfifo(place / "pipe")
    (place / "state.json").write_text('{"_data_files": [{"filename": "pipe"}]}')
    assert "names 'pipe', which is no file in it" in complaint(place)


def test_a_list_of_files_that_is_a_link_is_not_followed(tmp_path: Path, good: Any) -> None:
    place = folder(tmp_path / "data", good)
    (place / "state.json").rename(tmp_path / "state.json")
    (place / "state.json").symlink_to(tmp_path / "state.json")
    assert "names 'state.json', which is no file in it" in complaint(place)


@pytest.mark.parametrize("name", ["../outside", "", "..", "link", "train/..", 3, "dataset_dict.json"])
def test_a_split_that_is_no_folder_in_it_is_not_read(tmp_path: Path, good: Any, name: object) -> None:
    folder(tmp_path / "outside", good)
    place = splits(tmp_path / "data", "train", name)
    (place / "link").symlink_to(tmp_path / "outside")
    assert "which is no folder in it" in complaint(place, split="train")


def test_a_split_of_its_own_is_read(tmp_path: Path) -> None:
    [row] = found(splits(tmp_path / "data", "train"))
    assert isinstance(row, Sample) and row.output == GOOD["answer"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            "{}",
            '{"_data_files": 3}',
            '{"_data_files": []}',
            '{"_data_files": ["x"]}',
            '{"_data_files": [{}]}',
        ),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"_data_files": []' + " " * (1 << 20) + "}", id="long"),
    ],
)
def test_a_list_of_files_that_is_malformed_is_an_error(tmp_path: Path, good: Any, text: str) -> None:
    place = folder(tmp_path / "data", good)
    (place / "state.json").write_text(text)
    assert "cannot be read as a folder saved by `datasets`" in complaint(place)


def test_rows_whose_order_is_kept_apart_are_an_error(tmp_path: Path, good: Any) -> None:
    place = folder(tmp_path / "old", good)
    state = json.loads((place / "state.json").read_text()) | {"_indices_data_files": [{"filename": "indices.arrow"}]}
    (place / "state.json").write_text(json.dumps(state))
    assert "cannot be read as a folder saved by `datasets`" in complaint(place)


def test_files_of_different_columns_are_an_error(tmp_path: Path, good: Any) -> None:
    place = folder(tmp_path / "data", good, FILE, "other.arrow")
    arrow(place / "other.arrow", good.select(["answer"]))
    assert "cannot be read as a folder saved by `datasets`" in complaint(place)


@pytest.mark.parametrize(
    "change", [lambda raw: raw[:-60], lambda raw: raw[:90] + b"\xff" * 40 + raw[130:], lambda _: b""]
)
def test_a_damaged_arrow_file_is_an_error(tmp_path: Path, good: Any, change: Callable[[bytes], bytes]) -> None:
    place = folder(tmp_path / "data", good)
    (place / FILE).write_bytes(change((place / FILE).read_bytes()))
    assert "cannot be read" in complaint(place)


def test_offsets_that_lead_out_of_an_arrow_file_are_an_error(tmp_path: Path) -> None:
    offsets = pyarrow.array([0, 1 << 28, 2], pyarrow.int32()).buffers()[1]
    text = pyarrow.StringArray.from_buffers(2, offsets, pyarrow.py_buffer(b"ab"))
    place = folder(tmp_path / "data", pyarrow.table({"text": text}))
    assert "cannot be read as a folder saved by `datasets`" in complaint(place)


# Little that stands for much


def named(n_rows: int, length: int) -> Any:
    """A text that every row names."""
    values = pyarrow.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), pyarrow.array(["x" * length]))
    return pyarrow.table({"question": values, "answer": ["a"] * n_rows})


def listed(n_values: int, length: int) -> Any:
    """A row with a list that names a text many times."""
    values = pyarrow.DictionaryArray.from_arrays(np.zeros(n_values, np.int32), pyarrow.array(["x" * length]))
    return pyarrow.table({"question": pyarrow.ListArray.from_arrays([0, n_values], values), "answer": ["a"]})


def test_reading_little_that_stands_for_much_takes_little_memory(tmp_path: Path) -> None:
    """In a process of its own, whose memory is measured: 0.5 GB and 8 GB, written in about a kilobyte."""
    program = """
import resource, sys
from pathlib import Path
from goalcover_local.errors import DataError
from goalcover_local.readers import read, recognise
from goalcover_local.terms import Sample
import numpy, pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        print(sum(isinstance(row, Sample) for row in read(Path(name), recognise(name))), end=" ")
    except DataError as error:
        print("too long" if "longer than 16777216" in str(error) else error, end=" ")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    files = [tmp_path / name for name in ("named.parquet", "listed.parquet")]
    parquet.write_table(named(60, 8_000_000), files[0], compression="zstd")
    parquet.write_table(listed(1000, 8_000_000), files[1], compression="zstd")
    assert all(file.stat().st_size < 3000 for file in files)
    files.append(folder(tmp_path / "folder", listed(1000, 8_000_000)))
    done = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, check=True)
    *said, memory = done.stdout.strip().replace("too long", "-").split()
    assert said == ["60", "-", "-"]
    assert int(memory) < 600


@pytest.mark.parametrize("n", [999, 1001])
@pytest.mark.parametrize("saves", [folder, lambda path, table: parquet.write_table(table, path) or path])
def test_a_row_that_is_too_long_is_refused_alone(tmp_path: Path, saves: Callable[[Path, Any], Path], n: int) -> None:
    length = LONGEST_ROW // 1000
    rows = [["a"], ["x" * length] * n, ["b"]]
    table = pyarrow.table({"question": rows, "answer": ["a"] * 3})
    file = saves(tmp_path / ("data" if saves is folder else "data.parquet"), table)
    got = found(file)
    fits = n * (length + 1) + 2 < LONGEST_ROW
    assert [type(row) for row in got] == [Sample, Sample if fits else Refusal, Sample]
    assert [row.line for row in got] == [1, 2, 3]
    if not fits:
        assert got[1] == Refusal(file.name, 2, f"longer than {LONGEST_ROW} bytes")


def nothing(kind: str, n: int) -> Any:
    """A row of n values of nothing, which take no bytes."""
    inside = pyarrow.nulls(n)
    if kind == "list":
        return pyarrow.ListArray.from_arrays(pyarrow.array([0, n], pyarrow.int32()), inside)
    if kind == "list view":
        return pyarrow.ListViewArray.from_arrays([0], [n], inside)
    if kind == "fixed":
        return pyarrow.FixedSizeListArray.from_arrays(inside, n)
    if kind == "nested":
        for _ in range(40):
            inside = pyarrow.FixedSizeListArray.from_arrays(inside, 1)
        return pyarrow.ListArray.from_arrays([0, n], inside)
    return pyarrow.StructArray.from_arrays([nothing("list", n)], names=["a"])


@pytest.mark.parametrize(
    ("kind", "n"),
    [*((kind, 2_000_000_000) for kind in ("list", "list view", "fixed", "struct")), ("nested", LONGEST_ROW // 40)],
)
def test_a_row_of_very_many_values_that_take_no_bytes_is_not_measured(
    tmp_path: Path, kind: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measured(file: Path, array: Any) -> Any:
        asked.append(len(array))
        raise AssertionError("it is measured, which takes memory for each value")

    monkeypatch.setattr(arrow_rows, "_sizes", measured)
    row = nothing(kind, n)
    place = folder(tmp_path / "data", pyarrow.table({"question": ["a"], "answer": ["b"], "more": row}))
    assert (place / FILE).stat().st_size < 30_000
    assert list(open_folder(place, None).pieces) == [None]
    assert f"line 1: longer than {LONGEST_ROW} bytes" in complaint(place) and not asked


def test_a_row_of_very_many_values_costs_no_other_row(tmp_path: Path) -> None:
    n = LONGEST_ROW + 1
    lists = pyarrow.ListArray.from_arrays(pyarrow.array([0, 2, n + 2, n + 3], pyarrow.int32()), pyarrow.nulls(n + 3))
    texts = ["a", "b", "c"]
    place = folder(tmp_path / "data", pyarrow.table({"question": texts, "answer": texts, "more": lists}))
    assert [type(row) for row in found(place)] == [Sample, Refusal, Sample]


def test_lists_that_view_far_parts_are_measured_by_themselves() -> None:
    kind = pyarrow.list_view(pyarrow.null())
    views = pyarrow.ListViewArray.from_arrays([0, 2_000_000_000, 7], [2, 3, 0], pyarrow.nulls(2_000_000_003), type=kind)
    pieces = list(arrow_rows.pieces_of(Path("data"), pyarrow.record_batch([views], names=["more"])))
    assert [piece.to_pylist() for piece in pieces] == [[{"more": [None] * 2}], [{"more": [None] * 3}, {"more": []}]]


def test_a_dictionary_of_very_many_values_that_take_no_bytes_is_refused(tmp_path: Path) -> None:
    much = pyarrow.ListArray.from_arrays(
        pyarrow.array([0, 2_000_000_000], pyarrow.int32()), pyarrow.nulls(2_000_000_000)
    )
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 0], pyarrow.int8()), much)
    place = folder(tmp_path / "data", pyarrow.table({"question": ["a"] * 2, "answer": ["a"] * 2, "more": column}))
    assert "holds a dictionary of 2000000001 values in few bytes" in complaint(place)


@pytest.mark.parametrize("n_batches", [1, 40])
def test_very_many_rows_that_take_no_bytes_are_refused(tmp_path: Path, n_batches: int) -> None:
    n_rows = 80_000_000
    table = pyarrow.table({"question": pyarrow.chunked_array([pyarrow.nulls(n_rows // n_batches)] * n_batches)})
    place = folder(tmp_path / "data", table)
    n_bytes = (place / FILE).stat().st_size
    assert n_bytes < 10_000
    with pytest.raises(DataError, match=f"holds {n_bytes} bytes that stand for .* rows or more"):
        for piece in open_folder(place, None).pieces:
            assert len(piece) < 0, "the first rows are more than there may be"


def test_very_many_rows_of_a_parquet_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.parquet"
    n_rows = 5_000_000
    parquet.write_table(pyarrow.table({"question": pyarrow.nulls(n_rows)}), file)
    n_bytes = file.stat().st_size
    assert n_bytes < 10_000
    with pytest.raises(DataError, match=f"holds {n_bytes} bytes that stand for {n_rows} rows or more"):
        open_parquet(file)
    monkeypatch.setattr(arrow_files, "_n_rows", lambda _: 1)  # a file may declare what it likes
    monkeypatch.setattr(arrow_files, "_FREE_ROWS", 1000)
    n_read = 0
    with pytest.raises(DataError, match="rows or more"):
        for piece in open_parquet(file).pieces:
            n_read += len(piece)
    assert 0 < n_read <= 8 * n_bytes + 1000


def test_rows_that_are_all_alike_are_read(tmp_path: Path) -> None:
    n_rows = 300_000
    table = pyarrow.table({"question": ["a"] * n_rows, "answer": ["b"] * n_rows})
    file = tmp_path / "data.parquet"
    parquet.write_table(table, file, compression="zstd")
    assert 100 * file.stat().st_size < n_rows
    assert sum(map(len, open_parquet(file).pieces)) == n_rows


def test_a_file_that_is_named_twice_is_an_error(tmp_path: Path, good: Any) -> None:
    assert "cannot be read as a folder saved by `datasets`" in complaint(folder(tmp_path / "data", good, FILE, FILE))


def test_a_page_that_unpacks_to_very_much_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.parquet"
    table = pyarrow.table({"question": ["x" * 1_000_000] * 100, "answer": ["a"] * 100})
    parquet.write_table(table, file, compression="zstd", use_dictionary=False)
    assert "bytes that unpack to 100" in complaint(file)
    nothing = pyarrow.ListArray.from_arrays([0, 10_000_000], pyarrow.nulls(10_000_000, pyarrow.string()))
    parquet.write_table(pyarrow.table({"question": nothing, "answer": ["a"]}), file)
    assert "bytes that unpack to" in complaint(file)


def test_compressed_arrow_files_are_refused(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["x" * 1_000_000] * 20, "answer": ["a"] * 20})
    place = folder(tmp_path / "one", table, compression="zstd")
    assert (place / FILE).stat().st_size < 100_000
    assert "holds compressed Arrow files" in complaint(place)
    place = folder(tmp_path / "two", named(3, 1_000_000), compression="lz4")
    assert "holds compressed Arrow files" in complaint(place)


# Every type of column


def typed() -> Any:
    """A column of each type that is measured, with nulls."""
    text = pyarrow.string()
    columns = {
        "text": pyarrow.array(["abc", None, ""]),
        "large": pyarrow.array(["abc", None, ""], pyarrow.large_string()),
        "view": pyarrow.array(["abc", None, "x" * 40], pyarrow.string_view()),
        "bytes": pyarrow.array([b"abc", None, b""]),
        "named": pyarrow.array(["abc", None, "abc"]).dictionary_encode(),
        "list": pyarrow.array([["a", "bc"], None, []]),
        "large list": pyarrow.array([["a", "bc"], None, []], pyarrow.large_list(text)),
        "fixed": pyarrow.array([[1, 2], None, [3, 4]], pyarrow.list_(pyarrow.int8(), 2)),
        "map": pyarrow.array([[("k", "v")], None, []], pyarrow.map_(text, text)),
        "struct": pyarrow.array([{"a": "x", "b": [{"c": "y"}]}, None, {"a": None, "b": None}]),
        "number": pyarrow.array([1.5, None, 2.5]),
        "flag": pyarrow.array([True, None, False]),
        "nothing": pyarrow.nulls(3),
    }
    return pyarrow.table(columns)


def sizes_of(array: Any) -> list[int]:
    from goalcover_local.arrow_rows import _sizes

    return [int(size) for size in _sizes(Path("data"), array)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("text", [4, 1, 1]),
        ("large", [4, 1, 1]),
        ("view", [4, 1, 41]),
        ("bytes", [4, 1, 1]),
        ("named", [5, 1, 5]),
        ("list", [6, 1, 1]),
        ("large list", [6, 1, 1]),
        ("fixed", [5, 5, 5]),
        ("map", [6, 1, 1]),
        ("struct", [7, 3, 3]),
        ("number", [9, 9, 9]),
        ("flag", [2, 2, 2]),
        ("nothing", [1, 1, 1]),
    ],
)
def test_every_type_is_measured_and_so_is_a_part_of_it(column: str, expected: list[int]) -> None:
    array = typed().column(column).chunk(0)
    assert sizes_of(array) == expected
    assert sizes_of(array.slice(1)) == expected[1:] and sizes_of(array.slice(2)) == expected[2:]


def test_parts_of_a_list_that_overlap_are_measured_as_often_as_they_stand() -> None:
    kind = pyarrow.list_view(pyarrow.string())
    array = pyarrow.ListViewArray.from_arrays([0, 0, 1], [2, 2, 1], pyarrow.array(["ab", "cdef"]), type=kind)
    assert sizes_of(array) == [9, 9, 6]


def test_a_type_that_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    union = pyarrow.UnionArray.from_sparse(pyarrow.array([0], pyarrow.int8()), [pyarrow.array(["a"])])
    place = folder(tmp_path / "data", pyarrow.table({"text": union}))
    assert "a column of a type that is not read" in complaint(place)


@pytest.mark.parametrize("length", [3, 3_000_000])
def test_rows_and_types_are_those_that_were_written(tmp_path: Path, length: int) -> None:
    """Whether or not texts are long enough to be read as names of values."""
    table = typed().append_column("long", pyarrow.array(["x" * length, "y", None]))
    table = pyarrow.concat_tables([table] * 4)
    file = tmp_path / "data.parquet"
    parquet.write_table(table, file, row_group_size=5)
    place = folder(tmp_path / "data", table)
    for schema, pieces in (open_parquet(file), open_folder(place, None)):
        assert schema.equals(table.schema)
        whole = pyarrow.concat_tables([as_schema(piece, schema) for piece in pieces])
        assert whole.schema.equals(table.schema) and whole.to_pylist() == table.to_pylist()
    table = table.drop_columns(["view"])  # of which pyarrow takes no rows
    parquet.write_table(table, file, row_group_size=5)
    schema, pieces = columnar.from_file(file, "parquet", None, np.array([2, 7, 12]), [])
    assert pyarrow.concat_tables(pieces).to_pylist() == table.take([1, 6, 11]).to_pylist()


def test_a_row_that_is_too_long_is_passed_over_where_rows_are_written_again(tmp_path: Path) -> None:
    file = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", "x" * (LONGEST_ROW + 1), "b", "c"]}), file)
    _, pieces = columnar.from_file(file, "parquet", None, np.array([1, 3]), [])
    assert pyarrow.concat_tables(pieces).to_pylist() == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_a_columns_name_that_is_not_utf8_is_an_error(tmp_path: Path, kind: str, nested: bool) -> None:
    value = {"question": SECRET, "answer": "b"}
    table = pyarrow.Table.from_pylist([{"turn": value, **GOOD} if nested else value])
    if kind == "parquet":
        file = damaged = tmp_path / "rows.parquet"
        parquet.write_table(table, file, store_schema=False)
    else:
        file = folder(tmp_path / "rows", table)
        damaged = file / FILE
    damaged.write_bytes(damaged.read_bytes().replace(b"question", b"que\xf3tion"))
    assert "cannot be read" in complaint(file) or "not a whole Parquet" in complaint(file)


@pytest.mark.parametrize("name", ["named", "plain"])
def test_a_header_of_a_page_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, good: Any) -> None:
    file = tmp_path / "data.parquet"
    parquet.write_table(good, file, use_dictionary=name == "named")
    raw = bytearray(file.read_bytes())
    raw[4] = 0xFF
    file.write_bytes(bytes(raw))
    assert "is not a whole Parquet file" in complaint(file)
