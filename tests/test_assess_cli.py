"""`goalcover assess` as users run it: the executable on the embedded judge, killed, started again, and compared."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from goalcover_local.errors import StoreError
from goalcover_local.resources import shipped
from goalcover_local.scales import reference_samples, reference_subgoals
from goalcover_local.store import Run
from goalcover_local.weights import Weights

pytestmark = [pytest.mark.weights, pytest.mark.usefixtures("weights")]

GOAL = """\
goal = "Answer the questions that patients bring to a family clinic"

[[subgoals]]
id = "pregnancy"
name = "Pregnancy"
description = "Pregnancy, childbirth and caring for a newborn baby."

[[subgoals]]
id = "skin"
name = "Skin problems"
description = "{skin}"
"""
SKIN = "Rashes, eczema, acne, moles and care of the skin."
N_ROWS = 8
N_ASKED_OF_EACH = 2 + len(reference_subgoals())
PAIRS = (len(reference_samples()) + N_ROWS) * N_ASKED_OF_EACH
BATCH = 16 * N_ASKED_OF_EACH
SECONDS = 240


def command(*arguments: object) -> list[str]:
    """The executable with these arguments."""
    return [sys.executable, "-m", "goalcover_local.cli.main", *map(str, arguments)]


def goalcover(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """What the executable did; it must leave with that code."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == code, done.stderr
    return done


def judging(folder: Path, *more: object, goal: str = "goal.toml", data: str = "rows.jsonl") -> list[object]:
    """An assessment of the first rows of the demo by the embedded judge, on one thread."""
    return ["assess", folder.parent / goal, folder.parent / data, "--run", folder, "--threads", 1, *more]


def plain(folder: Path) -> list[object]:
    """The same without explanations."""
    return judging(folder, "--explain", "none")


def counts(folder: Path) -> tuple[int, int]:
    """How many pairs the run has asked and stored; read while another process may be writing."""
    with Run.open(folder, write=False) as run:
        return run.n_asked(), run.n_stored()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a goal of two subgoals and eight rows of the demo's data."""
    folder = tmp_path_factory.mktemp("assess")
    (folder / "goal.toml").write_text(GOAL.format(skin=SKIN), encoding="utf-8")
    (folder / "other.toml").write_text(GOAL.format(skin="Care of the skin."), encoding="utf-8")
    lines = (shipped("goals") / "family-clinic.jsonl").read_text(encoding="utf-8").split("\n")
    (folder / "rows.jsonl").write_text("\n".join(lines[:N_ROWS]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def unbroken(place: Path) -> Path:
    """A run that came to its end at the first attempt."""
    goalcover(*plain(place / "unbroken"))
    return place / "unbroken"


def killed(folder: Path, when: Callable[[int, int], bool]) -> None:
    """Nothing; starts the assessment and kills it with SIGKILL as soon as its counts are such."""
    with subprocess.Popen(command(*plain(folder)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            assert process.poll() is None, "it ended before it could be killed"
            with suppress(StoreError):  # there may be no run yet
                if when(*counts(folder)):
                    break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_killed_twice_and_started_again_it_equals_an_unbroken_run(place: Path, unbroken: Path) -> None:
    folder = place / "killed"
    killed(folder, lambda asked, stored: asked > 0)
    assert counts(folder) == (BATCH, 0)
    killed(folder, lambda asked, stored: asked > BATCH + stored and stored > 0)
    n_asked, n_stored = counts(folder)
    assert n_stored == BATCH and n_asked - n_stored <= 2 * BATCH
    goalcover(*plain(folder))

    n_asked, n_stored = counts(folder)
    assert n_stored == PAIRS == counts(unbroken)[1]
    assert n_asked - n_stored == BATCH + (PAIRS - BATCH), "a kill loses the batch in flight and no more"
    for name in ("unbroken", "killed"):
        goalcover("export", place / name, "-o", place / f"{name}.jsonl")
    assert (place / "killed.jsonl").read_bytes() == (place / "unbroken.jsonl").read_bytes()
    with Run.open(folder, write=False) as run:
        assert run.verify_events() == []
