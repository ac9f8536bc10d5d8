"""Drafts of outputs: what a killed process leaves is removed by the next, what a living one writes is not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from goalcover_local.outputs import placed

PROGRAM = """
import sys, time
from pathlib import Path
from goalcover_local.outputs import placed
with placed(Path(sys.argv[1]), sys.argv[2]) as place:
    file = place.path / "data-00000.arrow" if place.path.is_dir() else place.path
    file.write_text("Zwiebelkuchen4711")
    print(place.path, flush=True)
    time.sleep(600)
"""


def write(output: Path, kind: str) -> None:
    with placed(output, kind) as place:
        (place.path / "state.json" if kind == "datasets" else place.path).write_text("{}")


def begun(output: Path, kind: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that is in the middle of writing an output, and its draft."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, output, kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().rstrip("\n"))


@pytest.mark.parametrize(("name", "kind"), [("rows.jsonl", "jsonl"), ("rows", "datasets")])
def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(
    tmp_path: Path, name: str, kind: str
) -> None:
    output = tmp_path / name
    living, draft = begun(output, kind)
    killed, left = begun(output, kind)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        others = [tmp_path / f".{name}.mine", tmp_path / ".other.jsonl.abcdefgh.goalcover-draft"]
        for path in others:
            path.write_text("mine")
        (tmp_path / f".{name}.link.goalcover-draft").symlink_to(others[0])
        assert left.exists() and draft.exists()
        for _ in range(2):  # a folder that is replaced is a draft for a moment too
            write(output, kind)
        assert not left.exists() and draft.exists()
        assert all(path.read_text() == "mine" for path in others)
    finally:
        for process in (living, killed):
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    write(output, kind)
    assert {path for path in tmp_path.iterdir() if path not in others and not path.is_symlink()} == {output}


def test_drafts_stay_until_the_next_output_is_whole(tmp_path: Path) -> None:
    """Between two renames a killed process leaves the old folder as a draft, and no other copy of it."""
    output = tmp_path / "rows"
    killed, left = begun(output, "datasets")
    killed.kill()
    killed.wait()
    assert killed.stdout is not None
    killed.stdout.close()
    with pytest.raises(RuntimeError), placed(output, "datasets"):
        raise RuntimeError
    assert left.exists()


def test_where_the_folder_cannot_be_listed_the_output_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    write(tmp_path / "rows.jsonl", "jsonl")
    assert (tmp_path / "rows.jsonl").read_text() == "{}"


def test_where_nothing_can_be_locked_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    draft = tmp_path / ".rows.jsonl.abcdefgh.goalcover-draft"
    draft.write_text("mine")
    monkeypatch.setattr("goalcover_local.outputs.fcntl.flock", refuse)
    write(tmp_path / "rows.jsonl", "jsonl")
    assert draft.exists() and (tmp_path / "rows.jsonl").exists()
