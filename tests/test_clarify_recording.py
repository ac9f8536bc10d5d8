"""The medical goal, clarified by a person's keystrokes with a judge that is fit for it: docs/clarify.cast recorded it.

It needs the weights of Qwen2.5-Coder-1.5B and some minutes. GOALCOVER_RECORD=FILE writes the recording anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from terminal import ENTER, Terminal

from goalcover_local.cards import load_card
from goalcover_local.errors import ModelError
from goalcover_local.goal_files.reading import read_goal
from goalcover_local.weights import verify

JUDGE = "qwen2.5-coder-1.5b-instruct"
GOAL = "Build a medical QA system for clinical decision support"
CAST = Path(__file__).parents[1] / "docs" / "clarify.cast"
ANSWERS = (
    "cardiology, drug information, and drawing conclusions from clinical studies",
    "1,2",
    "a question and the abstract of a study",
    "yes, no or maybe, with the reasoning",
    "it warns of dangerous drug interactions and leaves diagnoses to physicians",
    "it agrees with the evidence of the study",
)
REASON = "A clinician asks for them apart."


def has_weights() -> bool:
    try:
        verify(load_card(JUDGE))
    except ModelError:
        return False
    return True


needs_judge = pytest.mark.skipif(not has_weights(), reason=f"needs the weights of {JUDGE}")


def typed(terminal: Terminal, text: str) -> None:
    """Nothing; types a line as a person does, key by key."""
    for key in text:
        terminal.type(key)
        time.sleep(0.03)
    time.sleep(0.3)
    terminal.type(ENTER)


@needs_judge
def test_the_medical_goal_is_clarified_by_a_persons_keystrokes(tmp_path: Path) -> None:
    executable = Path(sys.executable).with_name("goalcover")
    words = ("clarify", GOAL, "--judge", JUDGE, "-o", "goal.toml")
    terminal = Terminal((str(executable), *words), folder=tmp_path, environment={**os.environ, "PS1": "$ "})
    try:
        for number, answer in enumerate(ANSWERS):
            terminal.wait_for("\n> ", seconds=400)
            if number == 3:
                typed(terminal, "/back")
                terminal.wait_for("\n> ")
                typed(terminal, ANSWERS[2])
                terminal.wait_for("\n> ", seconds=400)
            typed(terminal, answer)
        shown = terminal.wait_for("What next? (done, help) > ", seconds=900)
        while re.search(r"^ +1  \S", shown.rpartition("sentences are covered.")[2], re.MULTILINE):
            typed(terminal, f"accept 1 {REASON}")
            shown = terminal.wait_for("What next? (done, help) > ", seconds=400)
        typed(terminal, "done")
        assert terminal.end() == 0
    finally:
        terminal.close()
    goal = read_goal(tmp_path / "goal.toml")
    assert [exchange.answer for exchange in goal.exchanges][2:6] == list(ANSWERS[2:])
    assert 3 <= len(goal.subgoals) <= 10 and goal.checks is not None
    assert {finding.outcome for finding in goal.checks.findings} <= {"holds", "accepted"}
    assert min(goal.checks.fitness.values()) >= 0.75
    assert "cardiology" in {subgoal.id for subgoal in goal.subgoals}
    if wanted := os.environ.get("GOALCOVER_RECORD"):
        Path(wanted).write_text(terminal.recording(f'goalcover clarify "{GOAL}"'), encoding="utf-8")
        shutil.copy(tmp_path / "goal.toml", Path(wanted).with_suffix(".toml"))


def test_the_recording_shows_the_whole_session() -> None:
    head, *events = [json.loads(line) for line in CAST.read_text(encoding="utf-8").splitlines()]
    assert head["version"] == 2 and GOAL in head["title"]
    assert all(at >= before for (before, *_), (at, *_) in pairwise(events))
    shown = "".join(text for _, kind, text in events if kind == "o")
    for part in ("Specification", "/back", *ANSWERS[2:], "pairs are apart", "What next?", "goal.toml: "):
        assert part in shown, part


def test_the_goal_of_the_recording_is_valid() -> None:
    goal = read_goal(CAST.with_suffix(".toml"))
    assert goal.text == GOAL and goal.checks is not None and goal.checks.subgoals == goal.decomposition
