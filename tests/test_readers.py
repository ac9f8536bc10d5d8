"""Dataset files: every layout and format, every bad input, and no text of a row in any message."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.errors import DataError
from goalcover_local.formats import FORMATS
from goalcover_local.readers import Layout, read, recognise
from goalcover_local.terms import Refusal, Sample, canonical_json

ASKED = {"question": "Which dose?", "answer": "Ten milligrams."}
OTHER = {"question": "Which heart?", "answer": "The left one."}
CANARY = "CANARYPATIENT"


def lines(file: Path, *rows: object) -> Path:
    """A JSONL file: bytes stand as they are, other values are dumped."""
    file.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return file


def everything(file: Path, **options: Any) -> tuple[list[Sample], list[Refusal]]:
    """What the reader yields for the layout it recognises."""
    found = list(read(file, recognise(file, **options)))
    return [row for row in found if isinstance(row, Sample)], [row for row in found if isinstance(row, Refusal)]


def only(file: Path, **options: Any) -> Sample:
    samples, refusals = everything(file, **options)
    assert (len(samples), refusals) == (1, [])
    return samples[0]


def reasons(file: Path, *rows: object, **options: Any) -> list[str]:
    """Why rows that follow a good one are refused."""
    samples, refusals = everything(lines(file, ASKED, *rows), **options)
    assert [sample.line for sample in samples] == [1]
    assert [refusal.line for refusal in refusals] == list(range(2, len(rows) + 2))
    return [refusal.reason for refusal in refusals]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


# Layouts


@pytest.mark.parametrize(
    ("row", "name", "given", "wanted"),
    [
        ({"instruction": "Sort.", "input": "3 1", "output": "1 3"}, "Alpaca", "Sort.\n\n3 1", "1 3"),
        ({"instruction": "Sort.", "input": "", "output": "1 3"}, "Alpaca", "Sort.", "1 3"),
        ({"instruction": "Sort.", "output": "1 3"}, "Alpaca", "Sort.", "1 3"),
        ({"prompt": "a", "completion": "b"}, "prompt-completion", "a", "b"),
        ({"prompt": "a", "response": "b"}, "prompt-response", "a", "b"),
        ({"question": "a", "answer": "b", "text": "c"}, "question-answer", "a", "b"),
        ({"Question": "a", "Answer": "b"}, "question-answer", "a", "b"),
        ({"Answer": "x", "answer": "b", "ANSWER": "y", "question": "a"}, "question-answer", "a", "b"),
        ({"input": "a", "output": "b"}, "input-output", "a", "b"),
        ({"text": "b", "meta": {}}, "text only", "", "b"),
    ],
)
def test_a_known_layout_is_recognised(data: Path, row: dict[str, Any], name: str, given: str, wanted: str) -> None:
    sample = only(lines(data, row))
    assert (sample.input, sample.output) == (given, wanted)
    assert (sample.id, sample.source, sample.line) == ("data:1", "data.jsonl", 1)
    assert recognise(data).name == name


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("turns", "given", "wanted"),
    [
        ([turn("user", "a"), turn("assistant", "b")], "a", "b"),
        ([turn("system", "s"), turn("user", "a"), turn("assistant", "b")], "system: s\nuser: a", "b"),
        ([turn("system", " "), turn("user", "a"), turn("assistant", "b")], "a", "b"),
        ([turn("assistant", "b")], "", "b"),
        (
            [
                turn("user", "a"),
                turn("assistant", "b"),
                turn("user", "c"),
                turn("assistant", "d"),
                turn("user", "e"),
            ],
            "user: a\nassistant: b\nuser: c",
            "d",
        ),
        ([turn("user", [{"type": "text", "text": "a"}]), turn("assistant", ["b", "c"])], "a", "b\nc"),
    ],
)
def test_the_last_assistant_turn_is_the_output(data: Path, turns: list[Any], given: str, wanted: str) -> None:
    sample = only(lines(data, {"prompt": "x", "messages": turns}))
    assert (sample.input, sample.output) == (given, wanted)


def test_sharegpt_speakers_become_roles(data: Path) -> None:
    said = [("system", "s"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]
    row = {"conversations": [{"from": who, "value": what} for who, what in said]}
    sample = only(lines(data, row))
    assert (sample.input, sample.output) == ("system: s\nuser: a\nassistant: b\nuser: c", "d")
    assert recognise(data).name == "ShareGPT conversations"


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ("text", "column 'messages' is not a list of turns"),
        (None, "column 'messages' is not a list of turns"),
        ([], "has no assistant turn"),
        ([turn("user", "a")], "has no assistant turn"),
        ([turn("user", "a"), turn("assistant", " ")], "the last assistant turn is empty"),
        ([turn("user", "a"), turn("assistant", None)], "the last assistant turn is empty"),
        (["hello"], "turn 1 of 'messages' is not an object"),
        ([{"content": "a"}], "turn 1 of 'messages' has no role"),
        (
            [turn("user", [{"type": "image"}]), turn("assistant", "b")],
            "turn 1 of 'messages' holds nested values",
        ),
    ],
)
def test_a_conversation_without_a_usable_output_is_refused(data: Path, turns: Any, reason: str) -> None:
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    samples, refusals = everything(lines(data, good, {"messages": turns}, {"other": 1}))
    assert len(samples) == 1
    assert reason in refusals[0].reason
    assert refusals[1].reason == "has no column 'messages'"


def test_named_columns_go_before_what_would_be_recognised(data: Path) -> None:
    row = {"title": "T", "text": "long", "parts": ["x", None, 2], "summary": "S", "empty": None}
    lines(data, row)
    options: dict[str, Any] = {"input_column": "title, parts", "output_column": ["summary"]}
    sample = only(data, **options)
    assert (sample.input, sample.output) == ("T\n\nx\n2", "S")
    assert recognise(data, **options).input == ("title", "parts")
    assert recognise(data).name == "text only"
    assert only(data, input_column=("title", "empty", "text")).input == "T\n\nlong"
    assert only(data, input_column="title").output == ""
    assert (only(data, output_column="title").input, only(data, output_column="title").output) == ("", "T")


def test_a_template_places_columns_and_nothing_else(data: Path) -> None:
    lines(data, {"title": "{x}", "n": 3, "summary": "S", "none": None})
    sample = only(data, template=r"{{{title}}}: {n}\n{none}{title}", output_column="summary")
    assert (sample.input, sample.output) == ("{{x}}: 3\n{x}", "S")
    for template in ("plain", "", "{", "}", "{}", "{title!r}", "{title:>9}"):
        with pytest.raises(DataError, match="template cannot be used"):
            recognise(data, template=template)
    for template in ("{title.__class__}", "{title[0]}"):
        with pytest.raises(DataError, match="has no column"):
            recognise(data, template=template)
    with pytest.raises(DataError, match="Both a template and an input column"):
        recognise(data, template="{title}", input_column="title")


def test_a_template_of_empty_columns_is_no_input(data: Path) -> None:
    lines(data, {"a": "x", "b": "y"}, {"a": " ", "b": "y"})
    samples, _ = everything(data, template="About {a}", output_column="b")
    assert [sample.input for sample in samples] == ["About x", ""]
    assert [refusal.line for refusal in everything(data, template="About {a}")[1]] == [2]


def test_a_layout_describes_itself_in_a_sentence(data: Path) -> None:
    said = recognise(lines(data, {"id": 1, **ASKED})).describe()
    assert said == "question-answer (jsonl): input from 'question', output from 'answer'; ids from column 'id'."
    assert "a template of 'question', output from nothing" in recognise(data, template="{question}").describe()
    assert "last assistant turn of 'messages'" in Layout("chat messages", turns="messages").describe()
    assert "datasets, split 'train'" in Layout("x", ("a",), format="datasets", split="train").describe()


# Ids and duplicates


def test_ids_come_from_the_column_that_has_them(data: Path) -> None:
    lines(data, {"id": 7, "key": "k", **ASKED}, {"id": None, "key": "l", **OTHER})
    assert [sample.id for sample in everything(data)[0]] == ["7", "data:2"]
    assert [sample.id for sample in everything(data, id_column="key")[0]] == ["k", "l"]


def test_an_id_that_stands_twice_is_refused_and_equal_texts_are_kept(data: Path) -> None:
    rows = [{"id": id, **ASKED} for id in ("a", "b", "a", 1, "1")]
    samples, refusals = everything(lines(data, *rows))
    assert [sample.id for sample in samples] == ["a", "b", "1"]
    assert len({sample.digest for sample in samples}) == 1
    assert refusals == [
        Refusal("data.jsonl", 3, "duplicate id 'a', first on line 1"),
        Refusal("data.jsonl", 5, "duplicate id '1', first on line 4"),
    ]
    assert len(everything(lines(data, ASKED, ASKED, ASKED))[0]) == 3


def test_files_that_share_seen_share_no_id(data: Path, tmp_path: Path) -> None:
    lines(data, {"id": "a", **ASKED})
    more = lines(tmp_path / "more.jsonl", {"id": "a", **OTHER})
    seen: dict[str, tuple[str, int]] = {}
    assert len([row for row in read(data, recognise(data), seen=seen) if isinstance(row, Sample)]) == 1
    assert list(read(more, recognise(more), seen=seen)) == [
        Refusal("more.jsonl", 1, "duplicate id 'a', first on line 1 of data.jsonl")
    ]


# Rows that are refused


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"question": "a", "answer":', "malformed JSON at column 28"),
        (b"plain text", "malformed JSON at column 1"),
        (b'{"question": "a\0", "answer": "b"}', "malformed JSON at column 16"),
        (b'{"question": "a", "answer": "b"} {}', "malformed JSON at column 34"),
        pytest.param(b"[" * 100_000, "JSON nested too deeply, or a number too long", id="deep"),
        pytest.param(b'{"n": %s}' % (b"1" * 5000), "JSON nested too deeply, or a number too long", id="long"),
        ([ASKED], "not a JSON object"),
        ("text", "not a JSON object"),
        (None, "not a JSON object"),
        ({"question": "a"}, "has no column 'answer'"),
        ({"answer": "b"}, "has no column 'question'"),
        ({"question": "a", "answer": None}, "'answer' is empty"),
        ({"question": "a", "answer": " \n\t"}, "'answer' is empty"),
        (b'{"question": "a", "answer": NaN}', "'answer' is empty"),
        ({"question": "a", "answer": []}, "'answer' is empty"),
        ({"question": {"a": 1}, "answer": "b"}, "column 'question' holds nested values, not text"),
        ({"question": "a", "answer": [["b"]]}, "column 'answer' holds nested values, not text"),
        ({"question": "a", "answer": [{"b": 1}]}, "column 'answer' holds nested values, not text"),
        ({"question": "a\0", "answer": "b"}, "column 'question' holds a NUL character"),
        ({"question": "a", "answer": "\ud83d"}, "column 'answer' holds half a surrogate pair"),
        ({"question": "a", "answer": "b", "id": "x" * 201}, "the id is longer than 200 characters"),
        ({"question": "a", "answer": "b", "id": {"x": 1}}, "column 'id' holds nested values, not text"),
        ('{"question": "caf\xe9", "answer": "b"}'.encode("latin-1"), "not valid UTF-8 at byte 18"),
    ],
)
def test_a_bad_row_is_refused_by_line_and_the_others_are_used(data: Path, row: object, reason: str) -> None:
    assert reasons(data, row, {"id": 1, "question": " "}) == [reason, "has no column 'answer'"]


def test_a_line_that_is_too_long_is_passed_without_being_held(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl.gz"
    row = json.dumps(ASKED).encode() + b"\n"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(row)
        for _ in range(100):
            stream.write(b" " * 1_000_000)
        stream.write(b"\n" + row)
    tracemalloc.start()
    samples, refusals = everything(file)
    assert tracemalloc.get_traced_memory()[1] < 70_000_000
    tracemalloc.stop()
    assert [sample.line for sample in samples] == [1, 3]
    assert refusals == [Refusal("data.jsonl.gz", 2, "longer than 16777216 bytes")]


@pytest.mark.parametrize("place", ["", "question,answer\n"])
def test_a_table_with_a_line_that_is_too_long_is_refused(tmp_path: Path, place: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text(place + "a," * 9_000_000, "utf-8")
    with pytest.raises(DataError, match=f"line {1 + bool(place)}: longer than 16777216"):
        everything(file)


def test_a_row_that_needs_no_repair_is_used(data: Path) -> None:
    rows = [
        {"question": True, "answer": 1.5},
        {"question": None, "answer": ["a", 2, False]},
        {"question": "<|im_start|>system {x} ```", "answer": "</s>"},
        {"question": "😀 \u2028 é", "answer": "x" * 2_000_000},
    ]
    samples, refusals = everything(lines(data, *rows, b"", b"  \r"))
    assert refusals == []
    assert [(sample.input, sample.output) for sample in samples[:3]] == [
        ("true", "1.5"),
        ("", "a\n2\nfalse"),
        ("<|im_start|>system {x} ```", "</s>"),
    ]
    assert (samples[3].input, len(samples[3].output)) == ("😀 \u2028 é", 2_000_000)


def test_a_mark_at_the_start_and_carriage_returns_are_accepted(data: Path) -> None:
    line = json.dumps(ASKED).encode()
    data.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    samples, refusals = everything(data)
    assert [(sample.line, sample.raw) for sample in samples] == [(1, line + b"\r"), (3, line)]
    assert refusals == []


def test_a_file_in_which_no_row_is_usable_yields_refusals_only(data: Path) -> None:
    samples, refusals = everything(lines(data, {"question": "", "answer": ""}, {"question": "a", "answer": " "}))
    assert (samples, len(refusals)) == ([], 2)


# Files that are refused


def complaint(file: Path, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        everything(file, **options)
    assert file.name in caught.value.problem
    assert caught.value.mend
    return caught.value


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.json", "absent.csv", "absent.parquet", "absent.csv.gz"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    assert "No such file" in complaint(tmp_path / name).problem


def test_a_file_without_permission_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    lines(data, ASKED)
    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in complaint(data).problem


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n \n"),
        ("a.json", b""),
        ("a.json", b" [ ] "),
        ("a.json", b"{}"),
        ("a.csv", b""),
        ("a.csv", b"question,answer\n"),
        ("a.jsonl.gz", gzip.compress(b"")),
    ],
)
def test_an_empty_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert "holds no rows" in complaint(file).problem
    with pytest.raises(DataError, match="holds no rows"):
        list(read(file, Layout("question-answer", ("question",), ("answer",), format=name.split(".")[1])))


@pytest.mark.parametrize(
    ("name", "content", "problem", "mend"),
    [
        (
            "a.jsonl",
            json.dumps(ASKED).encode("utf-16"),
            "probably UTF-16",
            "iconv -f UTF-16 -t UTF-8 a.jsonl >",
        ),
        ("a.json", json.dumps([ASKED]).encode("utf-16-be"), "probably UTF-16", "a.utf8.json"),
        (
            "a.csv",
            b"question,answer\n" + "é,é\n".encode("latin-1") * 9,
            "probably Latin-1",
            "iconv -f LATIN1",
        ),
        ("a.csv", "frågå,answer\na,b\n".encode("latin-1"), "probably Latin-1", "a.csv > a.utf8.csv"),
        ("a b.json", '[{"text": "é"}]'.encode("latin-1"), "probably Latin-1", "'a b.json' > 'a b.utf8.json'"),
        ("a.jsonl", '{"text": "é"}\n'.encode("latin-1") * 2 + b'{"text": "e"}\n', "Latin-1", "iconv"),
        ("a.jsonl", b"[\n1]\n", "no row that can be read among its first 2; line 1: malformed", "--format"),
        ("a.json", b'{"question": "a", "answer": "b"}', "line 1: not a JSON object", "jsonl"),
        ("a.json", b'[{"text": "a"}', "malformed JSON after row 1", "list of objects"),
        ("a.json", b'[{"text": "a"} {"text": "b"}]', "malformed JSON after row 1", "list of objects"),
        ("a.json", b'[{"text": "a"}] x', "malformed JSON after row 1", "list of objects"),
        ("a.json", b'[{"text": 1.}]', "malformed JSON after row 0", "list of objects"),
        ("a.json", b'{"x" {"text": "b"}}', "malformed JSON after row 0", "list of objects"),
        pytest.param("a.json", b"[" * 100_000, "malformed JSON after row 0", "list of objects", id="deep"),
        ("a.json", b"7", "malformed JSON after row 0", "list of objects"),
        ("a.csv", b'"question,answer\na,b\n', "malformed quotes in its header", "first line"),
        ("a.csv", b"text,text\na,b\n", "columns 1 and 2 have the same name", "own name"),
        ("a.parquet", b"PAR1 no", "not a whole Parquet file", "--format"),
        ("a.jsonl.gz", b"no archive", "cannot be read: it is damaged", "whole"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 999)[:-9], "cannot be read: it is damaged", "whole"),
        ("a.xlsx", b"PK", "suffix that is not known", "jsonl, json, csv, tsv, parquet, datasets"),
        ("a.jsonl", b'{"a": 1, "b": 2}', "its columns are a, b", "--input-column"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_mend(
    tmp_path: Path, name: str, content: bytes, problem: str, mend: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    error = complaint(file)
    assert problem in error.problem
    assert mend in error.mend


def test_a_folder_is_refused_unless_datasets_saved_it(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    assert "is a folder" in complaint(folder).problem
    (folder / "state.json").write_text("{}")
    assert "cannot be read as a folder saved by `datasets`" in complaint(folder).problem


def test_an_absent_column_is_named_with_the_nearest_that_is_there(data: Path) -> None:
    lines(data, {"QUESTION": "a", "LONG_ANSWER": "b"})
    error = complaint(data, input_column="question", output_column="LONG_ANSWER")
    assert "no column 'question': its columns are QUESTION, LONG_ANSWER" in error.problem
    assert error.mend == "Did you mean 'QUESTION'?"
    assert "no column 'zzz'" in complaint(data, input_column="QUESTION", id_column="zzz").problem
    assert "no column 'zzz'" in complaint(data, template="{zzz}").problem
    lines(data, {f"column{place}": 1 for place in range(30)})
    assert "column19 and 10 more" in complaint(data).problem
    lines(data, {"": 0, "Unnamed: 0": 0, "réponse": "x"})
    assert complaint(data, output_column="Reponse").mend == "Did you mean 'réponse'?"
    lines(data, {"My aunt": 0, "answers": "x"})
    assert "2 columns are not shown" in complaint(data, output_column="answer").problem
    assert "answers" not in str(complaint(data, output_column="answer"))


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_first_row_that_may_be_no_header_is_not_shown(tmp_path: Path, suffix: str, mark: str) -> None:
    table = tmp_path / f"rows.{suffix}"
    table.write_text(f"Smith{mark}Diabetes\nJones{mark}Asthma\n", "utf-8")
    for options in ({}, {"input_column": "smyth", "output_column": "disease"}):
        said = str(complaint(table, **options))
        assert "names of its 2 columns are not shown, as the first line may be no header but a row" in said
        assert "Smith" not in said and "Diabetes" not in said
    table.write_text(f"frage{mark}antwort\na{mark}b\n", "utf-8")
    error = complaint(table, input_column="fragge", output_column="antwort")
    assert "its columns are frage, antwort" in error.problem and error.mend == "Did you mean 'frage'?"
    table.write_text(f"Question{mark}reply\na{mark}b\n", "utf-8")
    assert "its columns are Question, reply" in complaint(table).problem


def test_a_column_that_is_in_some_rows_only_is_refused_where_it_is_missing(data: Path) -> None:
    samples, refusals = everything(lines(data, {"a": "x"}, {"b": "y"}), output_column="b")
    assert [sample.line for sample in samples] == [2]
    assert refusals == [Refusal("data.jsonl", 1, "has no column 'b'")]


def test_options_that_do_not_fit_are_refused(data: Path) -> None:
    lines(data, ASKED)
    assert "has no splits" in complaint(data, split="train").problem
    with pytest.raises(DataError, match=r"no format 'xml'.*jsonl, json"):
        recognise(data, format="xml")


# Formats


def test_every_format_has_a_reader_that_gives_the_same_samples(tmp_path: Path) -> None:
    rows = [{"id": f"r{place}", "question": f'q{place}, "é"\n', "answer": f"a{place}"} for place in range(150)]
    for kind in FORMATS:
        file = tmp_path / f"rows.{kind}"
        WRITERS[kind](file, rows)
        layout = recognise(file, format="datasets" if kind == "datasets" else None)
        assert (layout.format, layout.name, layout.id_column) == (kind, "question-answer", "id")
        samples = [row for row in read(file, layout) if isinstance(row, Sample)]
        found = [{"id": each.id, "question": each.input, "answer": each.output} for each in samples]
        assert found == rows
        if kind not in ("csv", "tsv"):
            assert [sample.line for sample in samples] == list(range(1, 151))
        if kind != "jsonl":
            assert [sample.raw for sample in samples] == [canonical_json(row).encode() for row in rows]


def write_separated(delimiter: str) -> Callable[[Path, list[dict[str, Any]]], None]:
    def write(file: Path, rows: list[dict[str, Any]]) -> None:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)

    return write


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def write_table(folder: Path, table: Any) -> None:
    """The table as a folder that `datasets` saved, though that has no such columns."""
    import pyarrow

    folder.mkdir()
    with pyarrow.ipc.new_stream(folder / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "rows.arrow"}]}')


def write_folder(folder: Path, rows: list[dict[str, Any]]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(folder))


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "jsonl": lambda file, rows: lines(file, *rows),
    "json": lambda file, rows: file.write_text(json.dumps(rows, indent=1)),
    "csv": write_separated(","),
    "tsv": write_separated("\t"),
    "parquet": write_parquet,
    "datasets": write_folder,
}


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.ndjson", "rows.json"])
def test_lines_of_objects_are_read_under_other_names(tmp_path: Path, name: str) -> None:
    content = lines(tmp_path / "plain", ASKED, OTHER).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    samples, _ = everything(tmp_path / name)
    assert [(sample.id, sample.input) for sample in samples] == [
        ("rows:1", ASKED["question"]),
        ("rows:2", OTHER["question"]),
    ]


def test_the_format_named_overrules_the_suffix(tmp_path: Path) -> None:
    assert only(lines(tmp_path / "rows.txt", ASKED), format="jsonl").output == ASKED["answer"]


def test_the_keys_of_a_json_object_are_ids(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"17": ASKED, "18": {"id": "own", **OTHER}, "19": 3}))
    samples, refusals = everything(file)
    assert [sample.id for sample in samples] == ["17", "own"]
    assert samples[0].raw == canonical_json({"id": "17", **ASKED}).encode()
    assert refusals == [Refusal("rows.json", 3, "not a JSON object")]
    file.write_text(json.dumps({"17": ASKED})[:-1] + ', "17": ' + json.dumps(OTHER) + "}")
    assert everything(file)[1] == [Refusal("rows.json", 2, "duplicate id '17', first on line 1")]


def test_bad_text_in_a_json_file_costs_its_row_only(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    good = json.dumps(ASKED).encode()
    file.write_bytes(b"[" + good + b', {"question": "caf\xe9"}, {"question": "\\ud800"}, ' + good + b"]")
    samples, refusals = everything(file)
    assert [sample.line for sample in samples] == [1, 4]
    assert [refusal.reason for refusal in refusals] == ["not valid UTF-8", "holds half a surrogate pair"]


def test_a_csv_record_is_numbered_by_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(
        b'\xef\xbb\xbf\nquestion, answer\r\n"a\nb\nc",d\n\ne\nf,g\nh,caf\xe9\ni,\nj,k,l\n"m"x,n\n' + b'o,p\n"q,r\ns,t\n'
    )
    samples, refusals = everything(file)
    assert [(sample.line, sample.input) for sample in samples] == [(3, "a\nb\nc"), (8, "f"), (13, "o")]
    assert [(refusal.line, refusal.reason) for refusal in refusals] == [
        (7, "1 fields where the header has 2"),
        (9, "not valid UTF-8"),
        (10, "'answer' is empty"),
        (11, "3 fields where the header has 2"),
        (12, "malformed quotes in lines 12 to 12"),
        (14, "malformed quotes in lines 14 to 15"),
    ]


def test_a_csv_may_be_separated_by_semicolons_and_hold_long_fields(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("question;answer\na, b;" + "x" * 2_000_000 + "\n")
    sample = only(file)
    assert (sample.input, len(sample.output)) == ("a, b", 2_000_000)


def test_cells_of_other_types_are_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    rows = [
        {"a": 1.5, "b": "x", "day": date(2026, 1, 2), "image": b"\xff\0", "list": ["m", "n"]},
        {"a": float("nan"), "b": "y", "day": None, "image": None, "list": None},
    ]
    write_parquet(file, rows)
    samples, _ = everything(file, input_column="a,day,list", output_column="b")
    assert [sample.input for sample in samples] == ["1.5\n\n2026-01-02\n\nm\nn", ""]
    assert json.loads(samples[0].raw)["image"] == {"base64": "/wA="}
    assert json.loads(samples[1].raw)["a"] is None
    assert "nested values" in everything(file, output_column="image")[1][0].reason


def test_a_parquet_text_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    cells = [b"a", b"b", b"caf\xe9", b"d", b"e"]
    offsets = pyarrow.array([0, 1, 2, 6, 7, 8], pyarrow.int32()).buffers()[1]
    column = pyarrow.StringArray.from_buffers(5, offsets, pyarrow.py_buffer(b"".join(cells)))
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "rows.parquet")
    samples, refusals = everything(tmp_path / "rows.parquet")
    assert [sample.output for sample in samples] == ["a", "b", "d", "e"]
    assert refusals == [Refusal("rows.parquet", 3, "not valid UTF-8")]


def odd_columns() -> dict[str, Any]:
    """Columns of which some values have no place in Python, as rows 2, or 1 and 2 of three."""
    import pyarrow

    far = pyarrow.array([1, 2**62, 2], pyarrow.timestamp("s"))
    nowhere = pyarrow.array([1, 2, None], pyarrow.timestamp("s", tz="No/Where"))
    parts = [pyarrow.array([1, 2, 3])] * 2
    twice = pyarrow.StructArray.from_arrays(parts, ["x", "x"], mask=pyarrow.array([False, False, True]))
    return {"far": far, "nowhere": nowhere, "twice": twice}


@pytest.mark.parametrize(("column", "refused"), [("far", [2]), ("nowhere", [1, 2]), ("twice", [1, 2])])
def test_an_arrow_value_that_has_no_place_in_python_costs_its_row_only(
    tmp_path: Path, column: str, refused: list[int]
) -> None:
    import pyarrow

    texts = ["a", "b", "c"]
    table = pyarrow.table({"question": texts, "answer": texts, "more": odd_columns()[column]})
    write_table(tmp_path / "data", table)
    samples, refusals = everything(tmp_path / "data")
    assert refusals == [Refusal("data", line, "holds a value that cannot be read") for line in refused]
    assert [sample.line for sample in samples] == [line for line in (1, 2, 3) if line not in refused]


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_columns_of_the_same_name_are_refused_by_their_places(tmp_path: Path, kind: str) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = [pyarrow.array([text]) for text in ("a", "b", "c")]
    table = pyarrow.Table.from_arrays(columns, names=["question", "Zwiebel", "Zwiebel"])
    file = tmp_path / f"data.{kind}"
    parquet.write_table(table, file) if kind == "parquet" else write_table(file, table)
    with pytest.raises(DataError) as caught:
        everything(file)
    assert caught.value.problem == f"{file}: columns 2 and 3 have the same name."
    assert "Zwiebel" not in str(caught.value)


def test_a_folder_of_several_splits_needs_one_named(tmp_path: Path) -> None:
    import datasets

    train, test = (datasets.Dataset.from_list([row]) for row in (ASKED, OTHER))
    several, one = tmp_path / "several", tmp_path / "one"
    datasets.DatasetDict(train=train, test=test).save_to_disk(str(several))
    datasets.DatasetDict(train=train).save_to_disk(str(one))
    train.save_to_disk(str(tmp_path / "none"))
    sample = only(several, split="test")
    assert (sample.id, sample.source, sample.output) == ("several:1", "several", OTHER["answer"])
    assert only(one).output == ASKED["answer"]
    error = complaint(several)
    assert ("several splits" in error.problem, "train, test" in error.mend) == (True, True)
    assert "no split 'dev'" in complaint(several, split="dev").problem
    assert "has no splits" in complaint(tmp_path / "none", split="train").problem


# Properties


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(
    rows=st.lists(
        st.tuples(
            st.fixed_dictionaries(
                {"question": TEXTS, "answer": TEXTS.filter(str.strip)},
                optional={"extra": st.floats() | TEXTS},
            ),
            st.booleans(),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_jsonl_of_questions_and_answers_is_read_exactly(
    rows: list[tuple[dict[str, Any], bool, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    expected, content, line = [], b"", 0
    for row, escaped, blanks in rows:
        raw = json.dumps(row, ensure_ascii=escaped).encode()
        content += b"\n" * blanks + raw + b"\n"
        line += blanks + 1
        question = row["question"] if row["question"].strip() else ""
        expected.append(Sample(f"round_trip:{line}", question, row["answer"], file.name, line, raw))
    file.write_bytes(content)
    assert everything(file) == (expected, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(
    values=st.lists(st.fixed_dictionaries({"text": TEXTS.filter(str.strip), "more": JSON}), min_size=1, max_size=6),
    indent=st.sampled_from([None, 0, 3]),
    keyed=st.booleans(),
    padding=st.integers(0, 200),
)
def test_any_json_file_is_read_as_the_standard_library_reads_it(
    values: list[dict[str, Any]],
    indent: int | None,
    keyed: bool,
    padding: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Blanks before the rows push them over the edge of the piece that is read at once."""
    file = tmp_path_factory.getbasetemp() / "streamed.json"
    whole = {f"k{place}": value for place, value in enumerate(values)} if keyed else values
    file.write_text(" " * ((1 << 16) - padding) + json.dumps(whole, indent=indent), encoding="utf-8")
    samples, refusals = everything(file)
    assert refusals == []
    rows = [{"id": f"k{place}"} | value if keyed else value for place, value in enumerate(values)]
    assert [sample.raw for sample in samples] == [canonical_json(row).encode() for row in rows]


@pytest.mark.parametrize("padding", range(8))
def test_a_number_is_not_cut_where_a_piece_of_a_json_file_ends(tmp_path: Path, padding: int) -> None:
    file = tmp_path / "rows.json"
    file.write_text(" " * padding + '[{"text": "a"},' + "1.25e-3," * 9000 + "2]")
    samples, refusals = everything(file)
    assert [sample.line for sample in samples] == [1]
    assert [refusal.line for refusal in refusals] == list(range(2, 9003))


def bad_files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files with the canary in every row that is refused, in names of columns, and in whole bad files."""
    text = f"{CANARY} has pain"
    rows: list[object] = [
        ASKED,
        f'{{"question": "{text}'.encode(),
        f'{{"question": "{text}" "{CANARY}": 1}}'.encode(),
        f'{{"question": "\\x{text}", "answer": "b"}}'.encode(),
        f'{{"question": "{text} \xe9", "answer": "b"}}'.encode("latin-1"),
        text,
        [text],
        {text: text},
        {"question": {text: text}, "answer": text},
        {"question": text, "answer": None},
        {"question": f"{text}\0", "answer": text},
        {"question": f"{text}\ud800", "answer": text},
        {"question": text, "answer": text, "id": CANARY * 20},
    ]
    yield lines(folder / "rows.jsonl", *rows), {}
    chats = [
        [],
        [text],
        [{text: text}],
        [{"role": text, "content": text}],
        [turn("user", {text: text})],
        text,
    ]
    chats += [[turn("user", text), turn("assistant", "")], [turn("assistant", [[text]])], {text: text}]
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    yield lines(folder / "chat.jsonl", good, *({"messages": chat} for chat in chats)), {}
    table = folder / "rows.csv"
    table.write_text(f'question,answer\na,b\n{text}\n{text},{text},{text}\n"{text}"{text},b\n{text},\n"{text},b\n')
    yield table, {}
    table = folder / "rows.json"
    table.write_text(json.dumps([ASKED, text, [text], {text: text}, {"question": text, "answer": "\ud800"}]))
    yield table, {}
    for place, content in enumerate(
        [
            f"{text},{text} or not?\na,b\n",
            f'"{text}\n',
            f"{text} of the left arm,{text} of the left arm\n",
            f"no,{text} of the left arm since Monday\nno,b\n",
            f"{CANARY},Diabetes\nJones,Asthma\n",
        ]
    ):
        file = folder / f"header{place}.csv"
        file.write_text(content)
        yield file, {}
        yield file, {"input_column": "question"}
    for place, content in enumerate([f"[{{{text}", f'{{"{text}": "{text}"}}', f'[["{text}"]]', text]):
        for suffix in ("json", "jsonl", "parquet", "jsonl.gz"):
            file = folder / f"whole{place}.{suffix}"
            file.write_text(content)
            yield file, {}


def test_no_message_holds_text_of_a_row(tmp_path: Path) -> None:
    refused, failed = 0, 0
    for file, options in bad_files(tmp_path):
        try:
            _, refusals = everything(file, **options)
        except DataError as error:
            failed += 1
            said = [str(error), repr(error), repr(error.args), repr(error.__cause__), error.mend]
        else:
            refused += len(refusals)
            said = [repr(refusal) for refusal in refusals]
        assert CANARY.lower() not in " ".join(said).lower(), file.name
    assert (refused, failed) == (12 + 9 + 5 + 4, 26)


# Cost


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_long_file_is_never_held_whole(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"rows.{kind}"
    WRITERS[kind](file, [{"question": f"{place} " + "q" * 1000, "answer": "a" * 1000} for place in range(3000)])
    layout = recognise(file)
    tracemalloc.start()
    try:
        assert sum(isinstance(row, Sample) for row in read(file, layout)) == 3000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.stat().st_size > 6_000_000
    assert peak < 1_500_000


def test_importing_the_readers_loads_nothing_heavy() -> None:
    code = "import sys, goalcover_local.readers; print({'pyarrow', 'datasets', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Real data


@pytest.mark.parametrize(
    ("path", "options", "n_samples", "n_refused", "first"),
    [
        (
            "pubmedqa/ori_pqal.json",
            {"input_column": "QUESTION", "output_column": "LONG_ANSWER"},
            1000,
            0,
            "21645374",
        ),
        ("pubmedqa/ori_pqal.json", {"template": "{CONTEXTS}\n{QUESTION}"}, 1000, 0, "21645374"),
        ("medquad/medquad.jsonl", {}, 3000, 0, "medquad:1"),
        (
            "congress_bills/bills.jsonl",
            {"input_column": "title", "output_column": "summary", "id_column": "bill_id"},
            600,
            0,
            "119-hr-897",
        ),
        ("codealpaca/code_alpaca_2k.json", {}, 2015, 2, "code_alpaca_2k:1"),
    ],
)
def test_real_data_is_read(path: str, options: dict[str, Any], n_samples: int, n_refused: int, first: str) -> None:
    folder = os.environ.get("GOALCOVER_DATA")
    if not folder:
        pytest.skip("GOALCOVER_DATA names no folder of real data")
    samples, refusals = everything(Path(folder) / path, **options)
    assert (len(samples), len(refusals)) == (n_samples, n_refused)
    assert samples[0].id == first
    assert len({sample.id for sample in samples}) == n_samples
    assert all(sample.input.strip() and sample.raw for sample in samples)
