"""`goalcover export`: what it writes, and what it never writes over."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from command import Goalcover
from judged import Values, judged_run

from goalcover_local.store import Run

VALUES: dict[str, Values] = {"a0": [0.9, 0.1], "a1": [0.2, None]}
LINES = b'{"question": "q", "answer": "a0"}\n{"question": "q", "answer": "a1"}\n'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_bytes(LINES)
    return path


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return judged_run(tmp_path / "run", data, VALUES)


def test_the_file_holds_what_stdout_gets_for_its_owner_alone(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    said = goalcover("export", run, "-o", "out.jsonl")
    assert (said.out, said.err) == ("", "4 judgements written.\n")
    assert (tmp_path / "out.jsonl").read_text() == goalcover("export", run).out
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 4


def test_the_run_and_the_data_are_never_overwritten(
    goalcover: Goalcover, run: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.jsonl").symlink_to(run / "run.sqlite")
    (tmp_path / "linked.jsonl").symlink_to(data)
    before = (run / "run.sqlite").read_bytes()
    for name, told in [
        (run / "run.sqlite", "is named like a file of a run."),
        ("link.jsonl", "is named like a file of a run."),
        (data, "is the data of this run"),
        ("linked.jsonl", "is the data of this run"),
        (".", "is no file."),
        ("nowhere/out.jsonl", "cannot be written: No such file or directory."),
    ]:
        assert told in goalcover.refused("export", run, "-o", name)
    assert (run / "run.sqlite").read_bytes() == before
    assert data.read_bytes() == LINES


def test_what_breaks_off_leaves_the_old_file_whole(
    goalcover: Goalcover, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> object:
        yield {"row": 0, "subgoal": "causes"}
        raise OSError(28, "No space left on device")

    (tmp_path / "out.jsonl").write_text("old")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Run, "export", breaks)
    assert "No space left on device" in goalcover.refused("export", run, "-o", "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_that_is_not_utf_8_is_written_and_escaped(goalcover: Goalcover, tmp_path: Path) -> None:
    data = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    data.write_bytes(LINES)
    run = judged_run(tmp_path / "run", data, VALUES)
    goalcover("export", run, "-o", "out.jsonl")
    for text in ((tmp_path / "out.jsonl").read_text(encoding="utf-8"), goalcover("export", run).out):
        assert {json.loads(line)["source"] for line in text.splitlines()} == {"caf\udce9.jsonl"}


def test_control_characters_cannot_steer_a_terminal(goalcover: Goalcover, tmp_path: Path) -> None:
    data = tmp_path / "a\x9b31m\x7f.jsonl"
    data.write_bytes(LINES)
    said = goalcover("export", judged_run(tmp_path / "run", data, VALUES))
    assert not {"\x9b", "\x7f"} & set(said.out)
    assert {json.loads(line)["source"] for line in said.out.splitlines()} == {data.name}
