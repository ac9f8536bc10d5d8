"""Rows written again: bytes and values as they were, whole or not at all, for their owner alone."""

from __future__ import annotations

import csv
import datetime as dates
import gzip
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.errors import DataError
from goalcover_local.formats import content_digest
from goalcover_local.outputs import FORMATS, format_of, placed
from goalcover_local.readers import read, recognise
from goalcover_local.terms import Sample
from goalcover_local.writers import Source, write, write_records

pyarrow: Any = pytest.importorskip("pyarrow")
CANARY = "Zwiebelkuchen4711"
AWKWARD = [
    b'{"question": "plain", "answer": "a"}',
    b'  {"answer":"spaces",   "question" : "1"}\r',
    '{"question": "raw é 👩‍⚕️", "answer": "\\u00e9 \\ud83d\\ude00 \\/", "n": 1.10}'.encode(),
    b'{"question": "twice", "question": "2", "answer": "b", "other": "\\ud800"}',
    b'{"question": "number", "answer": "c", "n": NaN, "big": 123456789012345678901234567890}',
    b'{"question": "plain", "answer": "a"}',
]


def source_of(data: Path, split: str | None = None, **columns: str) -> Source:
    """The rows of a file as a run would give them."""
    layout = recognise(data, split=split, **columns)  # type: ignore[arg-type]
    rows = [row for row in read(data, layout) if isinstance(row, Sample)]
    return Source(lambda: iter(rows), layout, data, content_digest(data))


def written(
    output: Path,
    source: Source,
    chosen: Sequence[int] | None = None,
    added: Sequence[Mapping[str, Any]] = (),
    kind: str | None = None,
) -> Path:
    """The output, holding the rows at those positions, or all."""
    n_rows = len(list(source.rows()))
    kept = np.isin(np.arange(n_rows), range(n_rows) if chosen is None else chosen)
    with placed(output, format_of(output, kind), [source.data] if source.data else []) as place:
        write(place, source, kept, added)
    return output


def lines_of(*rows: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(AWKWARD))
    return path


# JSON Lines


def test_json_lines_stay_as_they_are_byte_for_byte(awkward: Path, tmp_path: Path) -> None:
    source = source_of(awkward)
    assert written(tmp_path / "all.jsonl", source).read_bytes() == b"".join(line + b"\n" for line in AWKWARD)
    some = written(tmp_path / "some.ndjson", source, [1, 3, 5]).read_bytes()
    assert some == b"".join(AWKWARD[n] + b"\n" for n in (1, 3, 5))


def test_packed_json_lines_come_out_unpacked(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl.gz"
    data.write_bytes(gzip.compress(b"\n\n".join(AWKWARD)))
    found = written(tmp_path / "out.jsonl", source_of(data), [2, 4]).read_bytes()
    assert found == AWKWARD[2] + b"\n" + AWKWARD[4] + b"\n"


def test_json_lines_need_no_original(awkward: Path, tmp_path: Path) -> None:
    source = source_of(awkward)
    awkward.unlink()
    assert len(written(tmp_path / "out.jsonl", source).read_bytes().splitlines()) == len(AWKWARD)
    unknown = Source(source.rows)
    assert written(tmp_path / "old.jsonl", unknown).read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(DataError, match="older version"):
        written(tmp_path / "old.parquet", unknown)


def test_what_is_added_comes_last_as_json(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"\n".join(AWKWARD[:1]))
    added = [{"question": "ä\n", "answer": "x"}, {"question": "half \ud800", "answer": "ä"}]
    found = written(tmp_path / "out.jsonl", source_of(data), added=added).read_bytes().splitlines()
    assert found[1] == '{"question": "ä\\n", "answer": "x"}'.encode()
    assert [json.loads(line) for line in found[1:]] == added


@given(
    st.lists(
        st.builds(
            lambda question, answer, more, ascii_: json.dumps(
                {"question": question, "answer": f"a{answer}"} | more, ensure_ascii=ascii_
            ),
            *[st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))] * 2,
            st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), st.integers(), max_size=2),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    st.data(),
)
@settings(deadline=None, max_examples=40)
def test_any_json_lines_stay_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ending: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "data.jsonl").write_bytes(ending.join(text.encode() for text in texts))
    source = source_of(folder / "data.jsonl", input_column="question", output_column="answer")
    rows = [row.raw for row in source.rows()]
    chosen = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    kept = written(folder / "kept.jsonl", source, sorted(chosen)).read_bytes()
    others = written(folder / "others.jsonl", source, sorted(set(range(len(rows))) - chosen)).read_bytes()
    assert kept == b"".join(rows[n] + b"\n" for n in sorted(chosen))
    assert len(kept) + len(others) == sum(len(row) + 1 for row in rows)


# Between formats


ROWS = [
    {"question": "q1", "answer": 'a, "b"\r\n;\tc', "n": 1, "tags": ["x"], "who": {"age": None}, "yes": True},
    {"question": "q2", "answer": "é", "n": 2.5, "tags": [], "who": {"age": 7, "name": "N"}},
    {"question": "q3", "answer": "z", "n": None, "tags": None, "who": None, "yes": False},
]


def full(row: Mapping[str, Any], columns: Sequence[str] = ("question", "answer", "n", "tags", "who", "yes")) -> Any:
    """The row as a table has it: what it lacks is null."""
    found = {column: row.get(column) for column in columns}
    return found | ({"who": {"age": None, "name": None} | found["who"]} if found["who"] else {})


def loaded(path: Path) -> Any:
    """The Arrow table that a Parquet file or a folder of `datasets` holds."""
    if path.is_dir():
        import datasets

        return datasets.load_from_disk(str(path)).with_format("arrow")[:]
    from pyarrow import parquet

    return parquet.read_table(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize("output", ["out.parquet", "out"])
def test_json_becomes_columns_value_for_value(tmp_path: Path, suffix: str, output: str) -> None:
    data = tmp_path / f"data{suffix}"
    data.write_bytes(lines_of(*ROWS) if suffix == ".jsonl" else json.dumps(ROWS).encode())
    source = source_of(data)
    kept = loaded(written(tmp_path / output, source, [0, 2]))
    others = loaded(written(tmp_path / f"other-{output}", source, [1]))
    assert kept.to_pylist() == [full(ROWS[0]), full(ROWS[2])]
    assert others.to_pylist() == [full(ROWS[1])]
    assert kept.schema.equals(others.schema)
    assert kept.schema.field("n").type == pyarrow.float64()
    assert set(kept.schema.names[:2]) == {"question", "answer"}


@pytest.mark.parametrize("output", ["out.jsonl", "out.json", "out.csv", "out.tsv"])
def test_texts_come_back_when_read_again(tmp_path: Path, output: str) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"first": ROWS[0], "second": ROWS[1], "third": ROWS[2]}), encoding="utf-8")
    source = source_of(data)
    again = source_of(written(tmp_path / output, source, [0, 1]))
    assert [(row.id, row.input, row.output) for row in again.rows()] == [
        (row.id, row.input, row.output) for row in list(source.rows())[:2]
    ]


def test_a_table_of_text_stays_text_with_its_columns_in_place(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(b'zip,question,answer\r\n007,"a\rb",1.50\r\n,"x ""y"", z",true\r\n')
    source = source_of(data)
    with written(tmp_path / "out.csv", source).open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["question", "answer", "zip"],
            ["a\rb", "1.50", "007"],
            ['x "y", z', "true", ""],
        ]
    table = loaded(written(tmp_path / "out.parquet", source))
    assert table.schema.types == [pyarrow.string()] * 3
    assert table.column("answer").to_pylist() == ["1.50", "true"]


def test_a_cell_that_is_no_text_is_json(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(lines_of(ROWS[0], ROWS[2]))
    with written(tmp_path / "out.tsv", source_of(data)).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    assert rows[0] == ["question", "answer", "n", "tags", "who", "yes"]
    assert rows[1][2:] == ["1", '["x"]', '{"age": null}', "true"]
    assert rows[2][2:] == ["", "", "", "false"]


def test_a_json_list_holds_each_row_as_it_was(awkward: Path, tmp_path: Path) -> None:
    found = written(tmp_path / "out.json", source_of(awkward), [1, 3]).read_bytes()
    assert found == b"[\n" + AWKWARD[1] + b",\n" + AWKWARD[3] + b"\n]\n"
    assert written(tmp_path / "none.json", source_of(awkward), []).read_bytes() == b"[]\n"


def test_not_a_number_stays_one(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b'{"question": "q", "answer": "a", "n": NaN}\n{"question": "q", "answer": "a", "n": null}')
    found = loaded(written(tmp_path / "out.parquet", source_of(data))).column("n").to_pylist()
    assert math.isnan(found[0]) and found[1] is None


@pytest.mark.parametrize("output", ["out.parquet", "out"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((1, "1"), (True, 1), (1.5, True), ([1], 1), ([1.5, True], [2.5]), ({"a": 1}, {"a": "1"}), (2**53 + 1, 0.5)),
        *((2**70, 1), ("\ud800", "a"), ([[1], "x"], None)),
    ],
)
def test_values_of_different_types_are_told_by_column_alone(
    tmp_path: Path, output: str, one: object, other: object
) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"question": CANARY, "answer": CANARY, "odd": value} for value in (one, other)]
    data.write_bytes("\n".join(map(json.dumps, rows)).encode())
    with pytest.raises(DataError) as told:
        written(tmp_path / output, source_of(data))
    assert "'odd'" in told.value.problem and "--format jsonl" in told.value.mend
    assert CANARY not in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl"]


def test_half_a_character_fits_no_table_of_text(awkward: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="half a character"):
        written(tmp_path / "out.csv", source_of(awkward))
    assert not (tmp_path / "out.csv").exists()


# Columns that have types


def typed(n_rows: int = 3) -> Any:
    """A table of what JSON lacks."""
    day = dates.date(2024, 2, 29)
    at = dates.datetime(2024, 2, 29, 12, 30, 1, 234567)
    columns = {
        "question": pyarrow.array([f"q{n}" for n in range(n_rows)]),
        "answer": pyarrow.array([f"a{n}" for n in range(n_rows)], pyarrow.large_string()),
        "day": pyarrow.array([day, None, day] * (n_rows // 3), pyarrow.date32()),
        "at": pyarrow.array([at, at, None] * (n_rows // 3), pyarrow.timestamp("us", "UTC")),
        "bytes": pyarrow.array([b"\xff\x00", b"", None] * (n_rows // 3)),
        "price": pyarrow.array([Decimal("1.50"), None, Decimal("-0.01")] * (n_rows // 3), pyarrow.decimal128(9, 2)),
        "kind": pyarrow.array(["x", "y", "x"] * (n_rows // 3)).dictionary_encode(),
        "small": pyarrow.array([1, None, -128] * (n_rows // 3), pyarrow.int8()),
        "real": pyarrow.array([math.inf, None, 0.1] * (n_rows // 3), pyarrow.float32()),
        "deep": pyarrow.array([[{"a": [1, None]}], [], None] * (n_rows // 3)),
    }
    return pyarrow.table(columns, metadata={"made by": "a test"})


def parquet_file(path: Path, table: Any) -> Path:
    from pyarrow import parquet

    parquet.write_table(table, path, row_group_size=2)
    return path


def saved_folder(path: Path, table: Any) -> Path:
    import datasets

    datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(str(path))
    return path


def test_parquet_keeps_every_type_and_value(tmp_path: Path) -> None:
    table = loaded(parquet_file(tmp_path / "data.parquet", typed()))
    source = source_of(tmp_path / "data.parquet")
    found = loaded(written(tmp_path / "out.parquet", source, [0, 2]))
    assert found.schema.equals(table.schema, check_metadata=True) and found.schema.equals(typed().schema)
    assert found.equals(table.take([0, 2]))
    empty = loaded(written(tmp_path / "none.parquet", source, []))
    assert empty.schema.equals(table.schema) and len(empty) == 0


def test_many_rows_stay_in_place_over_batches_and_groups(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = typed(3000)
    source = source_of(parquet_file(tmp_path / "data.parquet", table))
    chosen = [*range(0, 1000, 7), 1999, 2000, 2001, 2999]
    out = written(tmp_path / "out.parquet", source, chosen)
    assert loaded(out).equals(table.take(chosen))
    assert parquet.ParquetFile(out).num_row_groups == 1
    assert loaded(written(tmp_path / "out", source, chosen)).to_pylist() == table.take(chosen).to_pylist()


@pytest.mark.parametrize("saves", [parquet_file, saved_folder])
@pytest.mark.parametrize("output", ["out.parquet", "out"])
def test_columns_go_between_parquet_and_datasets(
    tmp_path: Path, saves: Callable[[Path, Any], Path], output: str
) -> None:
    table = typed()
    data = saves(tmp_path / ("data.parquet" if saves is parquet_file else "data"), table)
    found = loaded(written(tmp_path / output, source_of(data), [1, 2]))
    assert found.to_pylist() == table.take([1, 2]).to_pylist()
    lost = {"kind"} if output == "out" or saves is saved_folder else set()
    assert [field.name for field in table.schema if found.schema.field(field.name).type != field.type] == list(lost)


@pytest.mark.parametrize("kind", ["Image", "Audio"])
@pytest.mark.parametrize("saves", [parquet_file, saved_folder])
def test_no_file_that_the_data_name_is_read(tmp_path: Path, saves: Callable[[Path, Any], Path], kind: str) -> None:
    """The library `datasets` would copy the files that a column of images or sounds names into its own."""
    from pyarrow import parquet

    (tmp_path / "secret").write_text(CANARY)
    paths = [str(tmp_path / "secret"), str(tmp_path / "nowhere"), "http://127.0.0.1:9/beacon"]
    text = pyarrow.string()
    pictures = pyarrow.array(
        [{"bytes": None, "path": path} for path in paths],
        pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)]),
    )
    table = pyarrow.table({"question": ["a", "b", "c"], "answer": ["x", "y", "z"], "picture": pictures})
    data = saves(tmp_path / ("data.parquet" if saves is parquet_file else "data"), table)
    value = {"dtype": "string", "_type": "Value"}
    features = {"question": value, "answer": value, "picture": {"_type": kind}}
    if saves is parquet_file:
        notes = json.dumps({"info": {"features": features}})
        saves(data, table.replace_schema_metadata({"huggingface": notes, "made by": "a test"}))
    else:
        info = json.loads((data / "dataset_info.json").read_bytes())
        (data / "dataset_info.json").write_text(json.dumps(info | {"features": features}))
    source = source_of(data)
    out = written(tmp_path / "out", source)
    assert loaded(out).column("picture").to_pylist() == pictures.to_pylist()
    assert CANARY.encode() not in b"".join(part.read_bytes() for part in out.iterdir())
    assert kind not in (out / "dataset_info.json").read_text()
    schema = parquet.read_schema(written(tmp_path / "out.parquet", source))
    assert b"huggingface" not in (schema.metadata or {})
    assert saves is saved_folder or schema.metadata[b"made by"] == b"a test"


def test_a_split_and_its_values_are_kept(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "y": datasets.ClassLabel(names=["n"]),
        }
    )
    rows = {"question": ["a", "b"], "answer": ["c", "d"], "y": [0, 0]}
    parts = {"train": datasets.Dataset.from_dict(rows, features=features), "test": datasets.Dataset.from_dict(rows)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "data"))
    out = written(tmp_path / "out", source_of(tmp_path / "data", split="train"), [1])
    found = datasets.load_from_disk(str(out))
    assert found[:] == {"question": ["b"], "answer": ["d"], "y": [0]}
    assert (
        written(tmp_path / "again", source_of(tmp_path / "data", split="train"), [1]) / "state.json"
    ).read_bytes() == (out / "state.json").read_bytes()


def test_an_empty_folder_of_datasets_can_be_loaded(tmp_path: Path) -> None:
    import datasets

    source = source_of(parquet_file(tmp_path / "data.parquet", typed()))
    found = datasets.load_from_disk(str(written(tmp_path / "none", source, [])))
    assert (len(found), found.column_names) == (0, typed().schema.names)


def test_rows_that_were_refused_shift_none(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["a", "b", "c"], "answer": ["x", "", "z"], "day": [dates.date(2024, 1, 1)] * 3})
    source = source_of(parquet_file(tmp_path / "data.parquet", table))
    assert len(list(source.rows())) == 2
    assert loaded(written(tmp_path / "out.parquet", source, [1])).to_pylist() == table.take([2]).to_pylist()


def test_added_rows_take_the_columns_of_the_data(tmp_path: Path) -> None:
    source = source_of(parquet_file(tmp_path / "data.parquet", typed()))
    found = loaded(written(tmp_path / "out.parquet", source, [2], [{"question": "new", "answer": "one"}]))
    assert found.schema.equals(typed().schema)
    assert found.to_pylist()[1] == dict.fromkeys(typed().schema.names) | {"question": "new", "answer": "one"}
    for added, told in [({"other": 1}, "'other' that the data lack"), ({"day": CANARY}, "'day' that is no date32")]:
        with pytest.raises(DataError, match=told) as error:
            written(tmp_path / "bad.parquet", source, [2], [added])
        assert CANARY not in str(error.value)


@pytest.fixture
def deep_calls() -> Iterator[None]:
    """Calls may go deeper than Python lets them: torch raises that limit, and what is refused may not hang on it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("output", ["out.parquet", "out"])
@pytest.mark.parametrize(("depth", "held"), [(48, True), (49, False), (150, False), (500, False)])
@pytest.mark.parametrize("wrap", [lambda value: {"a": value}, lambda value: [value]])
def test_values_nested_too_deeply_to_be_read_again_are_not_written(
    tmp_path: Path, output: str, depth: int, held: bool, wrap: Callable[[Any], Any], deep_calls: None
) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = wrap(deep)
    data = tmp_path / "data.jsonl"
    data.write_bytes(lines_of({"question": "q", "answer": "a", "deep": deep}))
    if held:
        written(tmp_path / output, source_of(data))
        (again,) = read(tmp_path / output, recognise(tmp_path / output))
        assert isinstance(again, Sample) and json.loads(again.raw)["deep"] == deep
        return
    with pytest.raises(DataError, match="a value nested too deeply in column 'deep'") as caught:
        written(tmp_path / output, source_of(data))
    assert "cannot be written as" in caught.value.problem and not (tmp_path / output).exists()


@pytest.mark.parametrize("values", [(1, "x"), (2**70, 1)])
def test_a_column_that_looks_like_text_is_told_by_its_number(tmp_path: Path, values: tuple[Any, Any]) -> None:
    name = f"My {CANARY} since Monday"
    data = tmp_path / "data.jsonl"
    data.write_bytes(lines_of(*({"question": "q", "answer": "a", name: value} for value in values)))
    with pytest.raises(DataError, match="in column 3") as told:
        written(tmp_path / "out.parquet", source_of(data))
    assert CANARY not in str(told.value)


def test_names_within_a_column_are_not_told(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["a"], "answer": ["b"], "who": [{CANARY: 1}]})
    source = source_of(parquet_file(tmp_path / "data.parquet", table))
    for added, column in [({"who": "x"}, "'who' that is no struct"), ({f"My {CANARY}!": 1}, "column 1 that the data")]:
        with pytest.raises(DataError, match=column) as told:
            written(tmp_path / "out.parquet", source, [0], [added])
        assert CANARY not in str(told.value)


@pytest.mark.parametrize("saves", [parquet_file, saved_folder])
def test_the_original_must_be_there_as_it_was(tmp_path: Path, saves: Callable[[Path, Any], Path]) -> None:
    data = saves(tmp_path / ("data.parquet" if saves is parquet_file else "data"), typed())
    source = source_of(data)
    moved = data.rename(tmp_path / f"moved{data.suffix}")
    with pytest.raises(DataError, match="no longer there") as told:
        written(tmp_path / "out.parquet", source)
    assert "--data" in told.value.mend
    found = Source(source.rows, source.layout, moved, source.content)
    assert len(loaded(written(tmp_path / "out.parquet", found))) == 3
    changed = saves(tmp_path / f"changed{data.suffix}", typed().slice(1))
    with pytest.raises(DataError, match="its content differs"):
        written(tmp_path / "out.parquet", Source(source.rows, source.layout, changed, source.content))


def test_what_datasets_cannot_hold_is_told(tmp_path: Path) -> None:
    pairs = pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    table = pyarrow.table({"question": ["a"], "answer": ["b"], "pairs": pairs})
    source = source_of(parquet_file(tmp_path / "data.parquet", table))
    with pytest.raises(DataError, match="cannot be written as datasets"):
        written(tmp_path / "out", source)
    assert loaded(written(tmp_path / "out.parquet", source)).equals(table)


def test_nothing_is_cached_elsewhere(tmp_path: Path) -> None:
    data = parquet_file(tmp_path / "data.parquet", typed())
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from test_writers import source_of, written\n"
        "place = Path(sys.argv[2])\n"
        "written(place / 'out', source_of(place / 'data.parquet'))\n"
        "written(place / 'again', source_of(place / 'out'))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(home)}
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(data.parent)]
    subprocess.run(arguments, check=True, env=environment, cwd=Path(__file__).parents[1])
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "data.parquet", "home", "out"]


# Names


@pytest.mark.parametrize(
    ("name", "named", "kind"),
    [
        *(("a.jsonl", None, "jsonl"), ("a.NDJSON", None, "jsonl"), ("a.json", None, "json"), ("a.csv", None, "csv")),
        *(("a.tsv", None, "tsv"), ("a.b.parquet", None, "parquet"), ("a", None, "datasets"), ("a", "jsonl", "jsonl")),
    ],
)
def test_a_name_tells_the_format(name: str, named: str | None, kind: str) -> None:
    assert format_of(Path(name), named) == kind
    assert kind in FORMATS


@pytest.mark.parametrize("name", ["a.gz", "a.jsonl.gz", "a.txt", "a.v2"])
def test_an_unknown_suffix_is_told(name: str) -> None:
    with pytest.raises(DataError, match="suffix that is not known") as told:
        format_of(Path(name))
    assert ".parquet" in told.value.mend and "--format" in told.value.mend


# Whole or not at all


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet", "out"])
def test_files_are_for_their_owner_alone_and_leave_nothing_beside(awkward: Path, tmp_path: Path, output: str) -> None:
    awkward.write_bytes(lines_of(*ROWS))
    place = tmp_path / "place"
    place.mkdir()
    (place / output).touch() if "." in output else (place / output).mkdir()
    old_mask = os.umask(0)
    try:
        out = written(place / output, source_of(awkward))
        written(place / output, source_of(awkward), [0])
    finally:
        os.umask(old_mask)
    assert [path.name for path in place.iterdir()] == [output]
    assert modes(place) == {0o600}
    assert not out.is_dir() or stat.S_IMODE(out.stat().st_mode) == 0o700


@pytest.mark.parametrize("output", ["out.jsonl", "out.json", "out.csv", "out.parquet", "out"])
@pytest.mark.parametrize("breaking", [RuntimeError("broken"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_what_breaks_off_leaves_the_old_file_whole(
    awkward: Path, tmp_path: Path, output: str, breaking: BaseException
) -> None:
    awkward.write_bytes(lines_of(*ROWS))
    source = source_of(awkward)
    out = written(tmp_path / output, source)
    before = content_digest(out)

    def rows() -> Any:
        yield from list(source.rows())[:2]
        raise breaking

    broken = Source(rows, source.layout, source.data, source.content)
    expected = DataError if isinstance(breaking, OSError) else type(breaking)
    with pytest.raises(expected) as told, placed(out, format_of(out), [awkward]) as place:
        write(place, broken, np.ones(3, dtype=bool))
    assert content_digest(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data.jsonl", output])
    if isinstance(breaking, OSError):
        assert str(told.value).startswith(f"{out} cannot be written: No space left.")


def test_a_kill_in_the_middle_leaves_no_half_file(awkward: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from goalcover_local.outputs import placed\n"
        "with placed(Path(sys.argv[1]), 'jsonl') as place:\n"
        "    place.path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [sys.executable, "-c", code, str(awkward), str(Path(__file__).parents[1])]
    assert subprocess.run(arguments).returncode == -9
    assert awkward.read_bytes().startswith(b"\xef\xbb\xbf{")
    [left] = [path for path in tmp_path.iterdir() if path != awkward]
    assert left.name.startswith(".data.jsonl.") and stat.S_IMODE(left.stat().st_mode) == 0o600


def test_a_link_is_followed_and_stays(awkward: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "deep" / "real.jsonl")
    written(tmp_path / "link.jsonl", source_of(awkward), [0])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "deep" / "real.jsonl").read_bytes() == AWKWARD[0] + b"\n"


def test_nothing_else_is_replaced(awkward: Path, tmp_path: Path) -> None:
    source = source_of(awkward)
    (tmp_path / "link.jsonl").symlink_to(awkward)
    (tmp_path / "hard.jsonl").hardlink_to(awkward)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe.jsonl")
    before = awkward.read_bytes()
    for name, told in [
        ("data.jsonl", "is the data of this run"),
        ("folder/../data.jsonl", "is the data of this run"),
        ("link.jsonl", "is the data of this run"),
        ("hard.jsonl", "is the data of this run"),
        ("run.sqlite", "named like a file of a run"),
        ("folder", "no folder that `datasets` saved"),
        ("file", "no folder that `datasets` saved"),
        ("pipe.jsonl", "is no file"),
        ("nowhere/out.jsonl", "No such file"),
    ]:
        with pytest.raises(DataError, match=told):
            written(tmp_path / name, source, kind=None if "sqlite" not in name else "jsonl")
    with pytest.raises(DataError, match="is no file"):
        written(tmp_path / "folder", source, kind="jsonl")
    assert awkward.read_bytes() == before
    assert (tmp_path / "folder" / "note.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_nothing_is_written_into_the_data(tmp_path: Path) -> None:
    data = saved_folder(tmp_path / "data", typed())
    for output in (data, data / "out.jsonl"):
        with pytest.raises(DataError, match="a part of them"):
            written(output, source_of(data))


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    records = [{"id": "é", "n": None}, {"id": "caf\udce9"}]
    with placed(tmp_path / "out.jsonl", "jsonl") as place:
        write_records(place, iter(records))
    lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    assert lines[0] == '{"id": "é", "n": null}'.encode() and lines[2] == b""
    assert [json.loads(line) for line in lines[:2]] == records
