"""`goalcover filter` as users run it: files beside each other, a table, and an event; no row lost, none doubled."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from command import Goalcover
from judged import SUBGOALS, Values, judged_run

from goalcover_local.store import Run

CANARY = "Zwiebelkuchen4711"
VALUES: dict[str, Values] = {
    "a0": [0.9, 0.1],
    "a1": [0.2, 0.2],
    "a2": [0.3, 0.7],
    "a3": [None, 0.5],
    "a4": [None, None],
    f"a5 {CANARY}": [0.6, 0.6],
}
LINES = [
    *(json.dumps({"question": f"q{n}", "answer": answer}).encode() for n, answer in enumerate(VALUES)),
    b'  {"answer": "a2", "question":"q2" , "note": "\\u00e9 \\ud83d\\ude00"}\r',
    b'{"question": "no answer"}',
]
KEPT, REJECTED = (0, 2, 5, 6), (1, 3, 4)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(LINES))
    return path


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return judged_run(tmp_path / "run", data, VALUES)


def as_json(goalcover: Goalcover, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(goalcover("filter", *arguments, "--json").out)
    return found


def test_kept_and_rejected_are_all_rows_in_order_byte_for_byte(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    said = goalcover("filter", run, "-o", "aligned.jsonl")
    assert (tmp_path / "aligned.jsonl").read_bytes() == b"".join(LINES[n] + b"\n" for n in KEPT)
    assert (tmp_path / "aligned.rejected.jsonl").read_bytes() == b"".join(LINES[n] + b"\n" for n in REJECTED)
    assert "1 rows of the data were refused" in said.err and "refused data.jsonl:8: " in said.err
    assert "4 of 7 rows kept, 3 rejected; rule: any >= 0.6, value: expectation." in said.out
    assert CANARY not in said.out + said.err
    for name in ("aligned.jsonl", "aligned.rejected.jsonl", "aligned.reasons.jsonl"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert name in said.out


def test_every_row_has_its_reason_and_values(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    goalcover("filter", run, "-o", "aligned.jsonl")
    found = records(tmp_path / "aligned.reasons.jsonl")
    assert [(each["row"], each["line"], each["kept"]) for each in found] == [(n, n + 1, n in KEPT) for n in range(7)]
    assert [each["reason"] for each in found] == [
        "any 0.90 >= 0.6 (best: treatment)",
        "any 0.20 < 0.6 (best: treatment)",
        "any 0.70 >= 0.6 (best: causes)",
        "any 0.50 < 0.6 (best: causes) (not yet judged, or failed: 1 of 2)",
        "not yet judged, or failed: 2 of 2",
        "any 0.60 >= 0.6 (best: treatment)",
        "any 0.70 >= 0.6 (best: causes)",
    ]
    assert found[3] == found[3] | {"id": "data:4", "source": "data.jsonl"}
    assert found[3]["values"]["treatment"] is None
    assert found[3]["values"]["causes"] == pytest.approx(0.5)
    assert CANARY not in (tmp_path / "aligned.reasons.jsonl").read_text(encoding="utf-8")


def test_the_table_compares_all_rows_with_those_kept(goalcover: Goalcover, run: Path) -> None:
    said = goalcover("filter", run, "-o", "aligned.jsonl")
    treatment, causes = (next(line.split() for line in said.out.splitlines() if s.id in line) for s in SUBGOALS)
    assert treatment == "treatment 0.460 0.525 2 of 5 2 of 4".split()
    assert causes == "causes 0.467 0.525 3 of 6 3 of 4".split()
    assert as_json(goalcover, run, "-o", "aligned.jsonl")["subgoals"] == [
        {
            "id": "treatment",
            "alignment": {"before": 0.46, "after": 0.525},
            "support": {"before": 2, "after": 2},
            "n_judged": {"before": 5, "after": 4},
        },
        {
            "id": "causes",
            "alignment": {"before": 0.466667, "after": 0.525},
            "support": {"before": 3, "after": 3},
            "n_judged": {"before": 6, "after": 4},
        },
    ]


def test_json_says_what_help_promises(goalcover: Goalcover, run: Path) -> None:
    found = as_json(goalcover, run, "-o", "aligned.jsonl", "--keep", "top 50%")
    told = " ".join(goalcover("filter", "--help").out.split())
    assert all(name in told for name in (*found, *found["subgoals"][0]))
    files = {"kept": "aligned.jsonl", "rejected": "aligned.rejected.jsonl", "reasons": "aligned.reasons.jsonl"}
    assert found == found | {"run": str(run), "value": "expectation", "rule": "top 50%", "files": files}
    assert found == found | {"n_rows": 7, "n_kept": 3, "n_rejected": 4, "n_refused": 1, "recorded": True}


def test_a_dry_run_writes_nothing(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with Run.open(run, write=False) as opened:
        n_events = len(opened.events())
    said = goalcover("filter", run, "-o", "aligned.jsonl", "--dry-run")
    assert "4 of 7 rows kept" in said.out and "aligned" not in said.out
    found = as_json(goalcover, run, "-o", "aligned.jsonl", "--dry-run")
    assert (found["files"], found["recorded"], found["n_kept"]) == (None, False, 4)
    assert sorted(tmp_path.iterdir()) == before
    with Run.open(run, write=False) as opened:
        assert len(opened.events()) == n_events


def test_the_same_command_again_writes_the_same_files(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    def written() -> list[bytes]:
        goalcover("filter", run, "-o", "aligned.jsonl", "--at-least", 1, "--keep", "top 20%", "--stratify")
        return [path.read_bytes() for path in sorted(tmp_path.glob("aligned*"))]

    first = written()
    assert len(first) == 3 and written() == first


def test_an_unfinished_assessment_is_told(goalcover: Goalcover, data: Path, tmp_path: Path) -> None:
    run = judged_run(tmp_path / "half", data, {answer: VALUES[answer] for answer in ("a0", "a2", "a4")})
    said = goalcover("filter", run, "-o", "aligned.jsonl")
    assert "The assessment is not finished: 6 pairs are still to be judged." in said.err
    assert "treatment 0.500 0.500 1 of 3 1 of 3".split() in [line.split() for line in said.out.splitlines()]
    reasons = [each["reason"] for each in records(tmp_path / "aligned.reasons.jsonl")]
    assert reasons[1] == reasons[4] == "not yet judged, or failed: 2 of 2"


def test_names_cannot_steer_a_terminal(goalcover: Goalcover, run: Path) -> None:
    name = "a\x9b31m\u202e.jsonl"
    assert "\x9b" not in (said := goalcover("filter", run, "-o", name)).out and "\u202e" not in said.out
    said = goalcover("filter", run, "-o", name, "--json")
    assert "\x9b" not in said.out and json.loads(said.out)["files"]["kept"] == name


# What is chosen


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--keep", "all >= 0.6"], [5]),
        (["--keep", "mean >= 0.5"], [0, 2, 3, 5, 6]),
        (["--keep", "mean>=0.5", "--weight", "treatment=0"], [2, 3, 5, 6]),
        (["--threshold", "treatment=0.95", "--threshold", "causes=0.65"], [2, 6]),
        (["--keep", "max >= 1", "--at-least", "1"], [0, 2]),
        (["--keep", "top 40%"], [2, 5, 0]),
        (["--keep", "top 40% by max"], [0, 2, 6]),
        (["--keep", "top 30%"], [0, 5]),
        (["--keep", "top 30%", "--stratify"], [2, 5]),
        (["--value", "score", "--keep", "any >= 1"], []),
    ],
)
def test_options_choose_rows(
    goalcover: Goalcover, run: Path, tmp_path: Path, options: list[str], kept: list[int]
) -> None:
    goalcover("filter", run, "-o", "out.jsonl", *options)
    assert [each["row"] for each in records(tmp_path / "out.reasons.jsonl") if each["kept"]] == sorted(kept)


def test_nothing_kept_is_said(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    said = goalcover("filter", run, "-o", "out.jsonl", "--keep", "all >= 1")
    assert "No row is kept" in said.err
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert "–" in said.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--keep", "mean > 0.6"], "is no rule to keep rows by"),
        (["--threshold", "cause=0.5"], "There is no subgoal 'cause'. Choose among treatment, causes."),
        (["--weight", "x=1", "--keep", "top 5%"], "There is no subgoal 'x'. Choose among treatment, causes."),
        (["--threshold", "causes"], "'causes' is not ID=NUMBER"),
        (["--threshold", "causes=60"], "60 is not from 0 to 1"),
        (["--threshold", "causes=nan"], "nan is not from 0 to 1"),
        (["--weight", "causes=2"], "--weight goes with a mean only, such as --keep 'mean >= 0.6' or --keep 'top 50%'."),
        (["--stratify"], "--stratify goes with a top share only, such as --keep 'top 50%'."),
        (["--at-least", "-1"], "Invalid value for '--at-least'"),
        (["--rejected", "out.jsonl"], "need a file each"),
        (["--rejected", "x/../out.reasons.jsonl"], "need a file each"),
        (["--format", "xml"], "Invalid value for '--format'"),
        (["-o", "/"], "is no name for a file"),
        (["--data", "nowhere.parquet"], "Path 'nowhere.parquet' does not exist"),
    ],
)
def test_usage_is_2_and_writes_nothing(
    goalcover: Goalcover, run: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    said = goalcover("filter", run, "-o", "out.jsonl", *options, code=2)
    assert told in " ".join(said.err.split()) and said.out == ""
    assert list(tmp_path.glob("out*")) == []


def test_rows_that_were_not_drawn_say_so_unless_an_equal_one_was(goalcover: Goalcover, tmp_path: Path) -> None:
    lines = [json.dumps({"question": "q", "answer": f"a{n // 2}"}) for n in range(8)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    with Run.open(judged_run(tmp_path / "limited", tmp_path / "many.jsonl", {}, limit=3), write=False) as opened:
        drawn = {int(position) // 2 for position in opened.draw(0, 3)}
    run = judged_run(tmp_path / "again", tmp_path / "many.jsonl", {f"a{n}": [0.8, 0.1] for n in drawn}, limit=3)
    found = as_json(goalcover, run, "-o", "out.jsonl")
    assert found["n_kept"] == 2 * len(drawn) < 8
    reasons = records(tmp_path / "out.reasons.jsonl")
    assert {each["row"] // 2 for each in reasons if each["reason"].startswith("any 0.80")} == drawn
    assert [each["reason"] for each in reasons if not each["kept"]] == ["not drawn by the assessment (--limit)"] * (
        8 - 2 * len(drawn)
    )


# Files


def test_formats_go_by_name_or_option(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    import datasets
    from pyarrow import parquet

    goalcover("filter", run, "-o", "a.parquet", "--rejected", "b.json", "--reasons", "why.jsonl")
    assert parquet.read_table("a.parquet").column("answer").to_pylist() == ["a0", "a2", f"a5 {CANARY}", "a2"]
    assert [row["answer"] for row in json.loads((tmp_path / "b.json").read_bytes())] == ["a1", "a3", "a4"]
    goalcover("filter", run, "-o", "folder", "--reasons", "why.jsonl")
    assert datasets.load_from_disk("folder.rejected")["answer"][:] == ["a1", "a3", "a4"]
    goalcover("filter", run, "-o", "plain", "--format", "jsonl")
    assert (tmp_path / "plain.rejected").read_bytes() == b"".join(LINES[n] + b"\n" for n in REJECTED)
    assert "suffix that is not known" in goalcover.refused("filter", run, "-o", "out.jsonl.gz")
    assert len(records(tmp_path / "why.jsonl")) == 7


def test_a_columnar_original_is_read_again(goalcover: Goalcover, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"question": ["q"] * 3, "answer": ["a0", "a1", "a2"], "n": pyarrow.array([1, 2, 3], "int8")})
    parquet.write_table(table, tmp_path / "data.parquet")
    run = judged_run(tmp_path / "run", tmp_path / "data.parquet", VALUES)
    goalcover("filter", run, "-o", "out.parquet")
    assert parquet.read_table("out.parquet").equals(table.take([0, 2]))
    (tmp_path / "data.parquet").rename(tmp_path / "moved.parquet")
    said = goalcover.refused("filter", run, "-o", "late.parquet")
    assert "is no longer there" in said and "--data" in said and list(tmp_path.glob("late*")) == []
    goalcover("filter", run, "-o", "late.parquet", "--data", "moved.parquet")
    assert parquet.read_table("late.rejected.parquet").equals(table.take([1]))
    (tmp_path / "data.parquet").write_bytes((tmp_path / "moved.parquet").read_bytes())
    for name in ("moved.parquet", "data.parquet"):
        said = goalcover.refused("filter", run, "-o", name, "--data", "moved.parquet")
        assert f"{name} is the data of this run" in said


def test_the_data_and_the_run_are_never_overwritten(
    goalcover: Goalcover, run: Path, data: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in (data, run / "run.sqlite")}
    assert "is the data of this run" in goalcover.refused("filter", run, "-o", data)
    assert "is the data of this run" in goalcover.refused("filter", run, "-o", "out.jsonl", "--rejected", data)
    assert "like a file of a run" in goalcover.refused("filter", run, "-o", run / "run.sqlite", "--format", "jsonl")
    assert "no folder that `datasets` saved" in goalcover.refused("filter", run, "-o", run)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "run"]


def test_all_files_appear_or_none(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.jsonl"
    odd.write_bytes(b'{"question": "q", "answer": "a0", "n": 1}\n{"question": "q", "answer": "a1", "n": "1"}')
    mixed = judged_run(tmp_path / "mixed", odd, VALUES)
    before = sorted(tmp_path.iterdir())
    said = goalcover.refused("filter", mixed, "-o", "out.jsonl", "--rejected", "others.parquet")
    assert "values of different types in column 'n'" in said
    assert sorted(tmp_path.iterdir()) == before


# The audit trail


def test_the_audit_trail_tells_of_it_without_text(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    from goalcover_local.formats import content_digest

    said = goalcover("filter", run, "-o", "out.jsonl", "--keep", "mean >= 0.5", "--weight", "causes=2")
    with Run.open(run, write=False) as opened:
        assert opened.verify_events() == []
        event = opened.events()[-2]
    told = json.loads(event.details)
    assert f"Audit: {event.seq + 1} events, head " in said.err
    assert (event.kind, event.command) == ("filtered", "goalcover filter")
    assert told == told | {"rule": "mean >= 0.5", "weights": {"causes": 2.0}, "n_rows": 7, "n_refused": 1}
    names = {"kept": "out.jsonl", "rejected": "out.rejected.jsonl", "reasons": "out.reasons.jsonl"}
    assert told["files"] == {kind: content_digest(tmp_path / name) for kind, name in names.items()}


def test_beside_a_writer_it_works_and_says_that_it_is_not_recorded(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    with Run.open(run, write=True):
        said = goalcover("filter", run, "-o", "out.jsonl", "--json")
    assert json.loads(said.out)["recorded"] is False
    assert "Not recorded in the run's audit trail: Process" in said.err
    assert len(records(tmp_path / "out.jsonl")) == len(KEPT)


def test_without_an_assessment_there_is_nothing_to_filter_by(goalcover: Goalcover, tmp_path: Path) -> None:
    assert "There is no run in nowhere" in goalcover.refused("filter", "nowhere", "-o", "out.jsonl")
    Run.open(tmp_path / "empty", write=True, create=True).close()
    assert "Nothing was assessed" in goalcover.refused("filter", "empty", "-o", "out.jsonl")
