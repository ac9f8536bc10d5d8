"""scripts/rehearse_kills: its commands are this checkout's, with a ledger of their own, and every audit is counted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import bundled
import pytest
from click.testing import CliRunner


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    return bundled.script("rehearse_kills")


def test_a_phase_that_does_not_exist_is_refused(kills: ModuleType, tmp_path: Path) -> None:
    told = CliRunner().invoke(kills.main, ["--work", str(tmp_path / "work"), "--phase", "nosuch"])
    assert told.exit_code == 2 and "'clarify', 'assess'" in told.output
    assert not (tmp_path / "work").exists()


class Process:
    """Stands for a command that ended; knows how it was started."""

    def __init__(self, code: int, started: list[tuple[list[str], dict[str, Any]]]) -> None:
        self.returncode, self._started = code, started

    def __call__(self, command: list[str], **how: Any) -> Process:
        self._started.append((command, how))
        return self

    def communicate(self) -> tuple[str, str]:
        return "what was found", ""


@pytest.mark.parametrize(
    ("code", "killed", "problems", "unsealed"),
    [(0, True, 0, 0), (3, True, 0, 1), (1, True, 1, 0), (0, False, 0, 0), (3, False, 1, 1), (1, False, 1, 0)],
)
def test_a_run_may_be_unsealed_after_a_kill_and_whole_at_the_end(
    kills: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: int,
    killed: bool,
    problems: int,
    unsealed: int,
) -> None:
    started: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(subprocess, "Popen", Process(code, started))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.sqlite").touch()
    tally = kills.Tally()
    kills.verify(tmp_path, tally, (kills.WHOLE, kills.UNSEALED) if killed else (kills.WHOLE,))
    assert (len(tally.problems), tally.unsealed) == (problems, unsealed)
    assert all("what was found" in problem for problem in tally.problems)
    [(command, how)] = started
    assert command[-4:] == ["audit", "verify", str(tmp_path / "run"), "--ledger"]
    assert how["env"]["GOALCOVER_STATE"] == str(tmp_path / "state")
    assert how["env"]["PYTHONPATH"].split(os.pathsep)[0] == str(bundled.SCRIPTS.parent)


def test_its_commands_are_this_checkouts_wherever_it_is_started(
    kills: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "goalcover_local").mkdir()
    (tmp_path / "goalcover_local" / "__init__.py").write_text("raise SystemExit('another checkout')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert kills.finished(tmp_path / "work", "--version") > 0
