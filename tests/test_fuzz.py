"""`scripts/fuzz` reads what it mutates, comes out the same for a seed, and tells every way to fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from goalcover_local.errors import DataError

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz"
sys.path.insert(0, str(SCRIPT.parent))
kinds, mutations, workers = (import_module(f"fuzzing.{name}") for name in ("kinds", "mutations", "workers"))


def test_a_few_hundred_mutations_are_read_or_refused(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--count", "270", "--seed", "8", "--failures", tmp_path / "failures"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    last, totals = ran.stdout.splitlines()[-1], ran.stdout.splitlines()[-2].split()
    assert last.startswith("270 cases of seed 8 in ") and last.endswith(" s: 0 failures.")
    assert totals[:2] == ["all", "270"] and int(totals[2]) > 40 and int(totals[3]) > 40
    assert not (tmp_path / "failures").exists()


@pytest.mark.parametrize(("seed", "number"), [(0, 549), (0, 844), (1, 6309)])
def test_cases_that_once_crashed_are_refused(tmp_path: Path, seed: int, number: int) -> None:
    """A Parquet file of which pyarrow ended the process; a number of 5,000 digits; a column whose name is no UTF-8."""
    command = [sys.executable, SCRIPT, "--seed", str(seed), "--only", str(number), "--failures", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout


def test_one_kind_alone_has_the_cases_that_it_has_among_all(tmp_path: Path) -> None:
    """And the checkout that the script lies in is what it reads with, whichever package is installed or on the path."""
    (tmp_path / "goalcover_local").mkdir()
    (tmp_path / "goalcover_local" / "__init__.py").write_text("raise SystemExit('another checkout')", "utf-8")
    command = [
        sys.executable,
        SCRIPT,
        "--count",
        "20",
        "--kind",
        "card",
        "--kind",
        "goal",
        "--failures",
        tmp_path / "f",
    ]
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = {line[:16].strip(): line[16:].split()[0] for line in ran.stdout.splitlines()[1:-1]}
    assert {name: n for name, n in counts.items() if n != "0"} == {"goal": "10", "card": "10", "all": "20"}
    wrong = subprocess.run([*command, "--kind", "nothing"], capture_output=True, text=True, check=False, env=variables)
    assert wrong.returncode == 2 and "is not one of 'safetensors'" in wrong.stderr


def test_every_valid_file_is_accepted_unmutated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    refused = []
    every = kinds.kinds_of(None, tmp_path / "home")
    assert tuple(kind.name for kind in every) == kinds.NAMES
    for kind in every:
        for number, seed in enumerate(kind.seeds):
            place = tmp_path / f"{kind.name} {number}" / "case"
            place.mkdir(parents=True)
            if workers.read_case(kind, place, kind.wrap(seed))[0] != "accepted":
                refused.append((kind.name, number))
    assert [name for name, _ in refused] == ["subgoals"], "a goal file is no list of subgoals"


def test_a_case_is_a_function_of_seed_and_number() -> None:
    files = [mutations.Kind("text", [b"one two three four", b"[1, 2, 3]"], lambda place, content: None)]
    contents = [mutations.made(files, 1, number)[1] for number in range(80)]
    assert contents == [mutations.made(files, 1, number)[1] for number in range(80)]
    assert contents != [mutations.made(files, 2, number)[1] for number in range(80)]
    assert len(set(contents)) > 60


def refuses(place: Path, content: bytes) -> None:
    raise DataError("It is no data.")


def surprises(place: Path, content: bytes) -> None:
    raise KeyError("unforeseen")


def dies(place: Path, content: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def turns(place: Path, content: bytes) -> None:
    while True:
        pass


def waits(place: Path, content: bytes) -> None:
    time.sleep(60)


def swells(place: Path, content: bytes) -> None:
    bytearray(1 << 31)


@pytest.mark.parametrize(
    ("read", "outcome", "seen"),
    [
        (lambda place, content: None, "accepted", None),
        (refuses, "refused", None),
        (surprises, "unforeseen", "KeyError at test_fuzz.py"),
        (dies, "crash", "SIGKILL"),
        (turns, "hang", "above 1 s"),
        (waits, "hang", "waits"),
        (swells, "memory", "MemoryError"),
    ],
)
def test_every_way_to_end_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Path, bytes], Any],
    outcome: str,
    seen: str | None,
) -> None:
    monkeypatch.setattr(workers, "SECONDS", 1)
    monkeypatch.setattr(workers, "PATIENCE", 2 if read is waits else 60)
    files = [mutations.Kind("bad", [b"abc"], read), mutations.Kind("good", [b"abc"], lambda place, content: None)]
    tally = workers.fuzz(files, range(4), 0, tmp_path, jobs=2)
    assert tally.counts["bad", outcome] == 2
    assert tally.counts["good", "accepted"] == 2, "a worker that died is replaced"
    assert len(tally.failures) == (2 if seen else 0)
    assert all(seen in failure[3] for failure in tally.failures if seen)
    assert f"{'all':16}{4:>8}" in workers.table(tally, files)
