"""People's labels: read by file and line, refused without their text, and written for people in a sheet."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.errors import DataError
from goalcover_local.labels import SHEET, Label, has_labels, is_sheet, read_labels, write_sheet
from goalcover_local.outputs import placed

CANARY = "Zwiebelkuchen4711"
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", " =1", "＝1", "'=1", "''-1")


def file(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def sheet(path: Path, *rows: Mapping[str, Any]) -> Path:
    with placed(path, "csv") as place:
        write_sheet(place, rows)
    return path


def cells(path: Path) -> Sequence[Sequence[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def test_a_csv_becomes_labels_with_their_lines(tmp_path: Path) -> None:
    path = file(tmp_path, "note,subgoal,id,label,drawn\nx,a,r1,0.6,random\nx,b,r1,yes,Disagreement\nx,a,r2,No,\n")
    assert read_labels(path) == (
        [
            Label("r1", "a", 0.6, 2, "random"),
            Label("r1", "b", 1.0, 3, "disagreement"),
            Label("r2", "a", 0.0, 4, ""),
        ],
        [],
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.tsv", "id\tsubgoal\tlabel\n7\ta\t0.25\n"),
        ("labels.csv", "id;subgoal;label\n7;a;0,25\n"),
        ("labels.csv", "\ufeffid,subgoal,label\r\n7,a,.25\r\n"),
        ("labels.jsonl", '\n{"id": 7, "subgoal": "a", "label": 0.25}\n'),
    ],
)
def test_formats_that_people_have(tmp_path: Path, name: str, text: str) -> None:
    [label], refusals = read_labels(file(tmp_path, text, name))
    assert (label.row, label.subgoal, label.value, label.drawn, refusals) == ("7", "a", 0.25, "", [])


def test_what_is_not_labelled_yet_is_passed_over(tmp_path: Path) -> None:
    lines = [{"id": "1", "subgoal": "a", "label": None}, {"id": "2", "subgoal": "a", "label": True}]
    found = read_labels(file(tmp_path, "\n".join(map(json.dumps, lines)), "labels.jsonl"))
    assert found == ([Label("2", "a", 1.0, 2)], [])
    assert read_labels(file(tmp_path, "id,subgoal,label\n1,a,\n1,a, \n1,a,1\n")) == ([Label("1", "a", 1.0, 4)], [])


def test_people_may_say_y_and_n(tmp_path: Path) -> None:
    labels, refusals = read_labels(file(tmp_path, "id,subgoal,label\n1,a,y\n2,a,N\n"))
    assert ([label.value for label in labels], refusals) == ([1.0, 0.0], [])


@pytest.mark.parametrize("above", ["1.01", "5", "1,5", " 2 "])
def test_a_label_above_1_is_of_another_scale_and_refuses_the_file(tmp_path: Path, above: str) -> None:
    with pytest.raises(DataError, match="has a label above 1 on line 3") as refused:
        read_labels(file(tmp_path, f'id,subgoal,label\nr1,a,1\nr2,a,"{above}"\n'))
    assert "turn 1 to 5 into" in refused.value.mend


@pytest.mark.parametrize("bad", ["-0.1", "nan", "inf", "maybe", CANARY, "1e400", "60%"])
def test_a_bad_value_is_refused_by_line_and_not_quoted(tmp_path: Path, bad: str) -> None:
    labels, [refusal] = read_labels(file(tmp_path, f"id,subgoal,label\nr1,a,1\nr2,a,{bad}\n"))
    assert [label.row for label in labels] == ["r1"]
    assert (refusal.source, refusal.line) == ("labels.csv", 3)
    assert refusal.reason == "column 'label' must be yes, no or a number from 0 to 1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"subgoal": "a", "label": 1}, "has no column 'id'"),
        ({"id": "r", "label": 1}, "has no column 'subgoal'"),
        ({"id": " ", "subgoal": "a", "label": 1}, "column 'id' is empty"),
        ({"id": [CANARY], "subgoal": "a", "label": 1}, "column 'id' is no text"),
        ({"id": "r", "subgoal": None, "label": 1}, "column 'subgoal' is no text"),
        ({"id": "r", "subgoal": "a", "label": [CANARY]}, "column 'label' must be yes, no or a number"),
        ({"id": "r", "subgoal": "a", "label": 1, "drawn": CANARY}, "column 'drawn' must be random, disagreement or"),
        ({"id": "r", "subgoal": "a", "label": 1, "drawn": [CANARY]}, "column 'drawn' must be random, disagreement or"),
        ({"id": "good", "subgoal": "a", "label": 0}, "the same id and subgoal have a label on line 1"),
    ],
)
def test_a_row_that_is_no_label_says_why(tmp_path: Path, row: Mapping[str, Any], reason: str) -> None:
    lines = [{"id": "good", "subgoal": "a", "label": 1, "drawn": ""}, row]
    labels, [refusal] = read_labels(file(tmp_path, "\n".join(map(json.dumps, lines)), "labels.jsonl"))
    assert [label.value for label in labels] == [1.0]
    assert refusal.line == 2 and refusal.reason.startswith(reason) and CANARY not in refusal.reason


@pytest.mark.parametrize(
    ("name", "raw", "problem"),
    [
        ("labels.csv", b"", "holds no rows"),
        ("labels.csv", b"id,subgoal,label\n", "holds no rows"),
        ("labels.csv", b"id,subgoal\n1,a\n", "has no column 'label'"),
        ("labels.csv", b"row,goal,label\n1,a,1\n", "has no column 'id' and no column 'subgoal'"),
        ("labels.csv", "id,subgoal,label\nr\xe9,a,1\n".encode("latin-1"), "is not UTF-8, probably Latin-1"),
        ("labels.csv", "id,subgoal,label\n1,a,1\n".encode("utf-16"), "is not UTF-8, probably UTF-16"),
        ("labels.xlsx", b"PK", "has a suffix that no file of labels has"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, name: str, raw: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=problem) as error:
        read_labels(tmp_path / name)
    assert error.value.mend


@pytest.mark.parametrize("text", ["", "id,subgoal,label\n"])
def test_an_empty_file_is_told_what_it_lacks(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="holds no rows") as refused:
        read_labels(file(tmp_path, text))
    assert refused.value.mend == "Give a file with at least one label."


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_labels(tmp_path / "absent.csv")


def test_one_line_in_another_encoding_is_refused_alone(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"id,subgoal,label\nr1,a,1\nr\xe9,a,1\nr3,a,0\n")
    labels, [refusal] = read_labels(tmp_path / "labels.csv")
    assert [label.row for label in labels] == ["r1", "r3"] and refusal.line == 3


def test_a_sheet_has_the_columns_for_people_first(tmp_path: Path) -> None:
    row = {"spread": 0.5, "id": "r1", "subgoal": "a", "capability": "A", "input": "Why?", "output": 'Ä,\n"b"'}
    path = sheet(tmp_path / "sheet.csv", row, {**row, "id": "r2", "judge": -0.25})
    header, first, second = cells(path)
    assert header == [*SHEET, "spread", "judge"]
    assert first == ["r1", "a", "A", "Why?", 'Ä,\n"b"', "", "", "0.5", ""]
    assert second[-1] == "-0.25", "numbers stay numbers"
    assert path.read_bytes().startswith(b"\xef\xbb\xbf") and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_of_a_sheet_is_a_formula_and_ids_come_back(tmp_path: Path, text: str) -> None:
    row = {"id": text, "subgoal": "a", "input": text, "output": text, "label": 1, "drawn": "disagreement"}
    path = sheet(tmp_path / "sheet.csv", row)
    written = cells(path)[1]
    assert [written[0], written[3], written[4]] == [f"'{text}"] * 3
    assert read_labels(path) == ([Label(text, "a", 1.0, 2, "disagreement")], [])


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(0, 1)), max_size=8))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, pairs: Sequence[tuple[str, float]]
) -> None:
    known = {identity: value for identity, value in pairs if identity.strip() and "\0" not in identity}
    rows = [{"id": identity, "subgoal": "a", "label": value} for identity, value in known.items()]
    path = sheet(tmp_path_factory.mktemp("sheet") / "sheet.csv", *rows, {"id": "r", "subgoal": "b", "label": 0})
    labels, refusals = read_labels(path)
    assert {label.row: label.value for label in labels[:-1]} == known and refusals == []


def test_an_empty_sheet_has_a_header(tmp_path: Path) -> None:
    assert cells(sheet(tmp_path / "sheet.csv")) == [list(SHEET)]


HEADER = ",".join(SHEET)


@pytest.mark.parametrize(
    "text",
    [
        HEADER,
        f"\ufeff{HEADER},spread\r\n",
        HEADER.replace(",", ";"),
        HEADER.replace(",", "\t"),
        ",".join(f'"{column}"' for column in SHEET),
    ],
)
def test_a_sheet_is_known_by_its_first_columns(tmp_path: Path, text: str) -> None:
    assert is_sheet(file(tmp_path, text))


@pytest.mark.parametrize("text", ["", "id,subgoal,label\n1,a,1\n", f"note,{HEADER}\n", '{"id": 1}\n', "\0\n"])
def test_what_begins_otherwise_is_no_sheet(tmp_path: Path, text: str) -> None:
    assert not is_sheet(file(tmp_path, text))


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(
    ("cell", "filled"), [("", False), (" ", False), ("yes", True), ("0", True), ("maybe", True), ("7", True)]
)
def test_whatever_stands_in_the_labels_column_is_work(tmp_path: Path, cell: str, filled: bool, delimiter: str) -> None:
    lines = [HEADER, "r1,a,A,i,o,,random", f"r2,a,A,i,o,{cell},random"]
    path = file(tmp_path, "\n".join(lines).replace(",", delimiter))
    assert is_sheet(path) and has_labels(path) is filled


@pytest.mark.parametrize("rest", [b"r1,a,A,i,o\n", b"r\xe9,a,A,i,o,,random\n", b'r1,a,A,"i"i,o,,random\n'])
def test_a_row_that_cannot_be_read_may_be_work(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "sheet.csv").write_bytes(HEADER.encode() + b"\n" + rest)
    assert has_labels(tmp_path / "sheet.csv")


def test_a_sheet_just_written_has_no_labels(tmp_path: Path) -> None:
    assert not has_labels(sheet(tmp_path / "empty.csv"))
    path = sheet(tmp_path / "sheet.csv", {"id": "=1", "subgoal": "a", "output": "x" * 200_000})
    assert is_sheet(path) and not has_labels(path)
