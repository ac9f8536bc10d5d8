"""Drafts on disk: what was kept is what was there, and a kill at any moment costs at most one batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from clarifier import Clarifier
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.asking import Asker
from goalcover_local.drafts import DraftFile
from goalcover_local.engines.base import Choices, Completion, Grammar, Prompt
from goalcover_local.errors import GoalError
from goalcover_local.phases.clarify import (
    Draft,
    Inquiry,
    Steps,
    accepted,
    advance,
    answered,
    begin,
    clarified,
    edited,
    enough,
    repaired_again,
    settled,
)
from goalcover_local.questions import load_question
from goalcover_local.terms import CONSTRAINTS, Exchange, Finding, Goal, Repair, Subgoal

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
LISTS = st.lists(TEXTS, max_size=2).map(tuple)
SHARES = st.floats(0, 1)
FINDINGS = st.builds(
    Finding,
    st.sampled_from(CONSTRAINTS),
    LISTS,
    TEXTS,
    st.none() | SHARES,
    st.sampled_from(("holds", "violated", "accepted", "undecided")),
    TEXTS,
    TEXTS,
)
DRAFTS = st.builds(
    Draft,
    goal=TEXTS,
    steps=st.builds(Steps, st.booleans(), st.booleans(), st.booleans()),
    statements=LISTS,
    exchanges=st.lists(st.builds(Exchange, TEXTS, TEXTS, TEXTS, LISTS, TEXTS), max_size=2).map(tuple),
    inquiries=st.lists(st.builds(Inquiry, TEXTS, TEXTS, LISTS), max_size=2).map(tuple),
    enough=st.booleans(),
    proposed=st.booleans(),
    subgoals=st.lists(st.builds(Subgoal, TEXTS, TEXTS, TEXTS, TEXTS, SHARES), max_size=2).map(tuple),
    findings=st.none() | st.lists(FINDINGS, max_size=2).map(tuple),
    fitness=st.dictionaries(st.sampled_from(CONSTRAINTS), SHARES),
    repairing=st.booleans(),
    tried=LISTS,
    repairs=st.lists(st.builds(Repair, st.sampled_from(CONSTRAINTS), LISTS, LISTS, st.booleans()), max_size=2).map(
        tuple
    ),
    accepted=st.dictionaries(TEXTS, TEXTS, max_size=2),
    settled=st.booleans(),
)


@settings(deadline=None, max_examples=30)
@given(drafts=st.lists(DRAFTS, min_size=1, max_size=3), value=st.floats(allow_nan=False, allow_infinity=False))
def test_any_draft_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, drafts: list[Draft], value: float
) -> None:
    path = tmp_path_factory.mktemp("d") / "goal.toml.draft"
    file = DraftFile.begin(path, drafts[0], {"judge": "j", "origin": ""})
    for draft in drafts[1:]:
        file.move(draft)
    file.memory["key"] = {"names": ["é", '"'], "logs": [value]}
    file.save()
    back = DraftFile.resume(path)
    assert back.draft == drafts[-1] and back.draft.stage == drafts[-1].stage
    assert back.memory == file.memory and back.options == {"judge": "j", "origin": ""}
    for draft in drafts[-2::-1]:
        assert back.undo() and back.draft == draft
    assert not back.undo()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "d"
    file = DraftFile.begin(path, begin("Help."), {})
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    file.save()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["d"]
    file.remove()
    file.remove()
    assert not path.exists()


HELD = {"version": 1, "options": {}, "history": [{"goal": "Help."}], "memory": {}}


def test_the_least_that_a_file_must_hold(tmp_path: Path) -> None:
    (tmp_path / "d").write_text(json.dumps(HELD))
    assert DraftFile.resume(tmp_path / "d").draft == Draft("Help.")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        "{}",
        b"\xff\xfe",
        json.dumps({**HELD, "history": []}),
        json.dumps({**HELD, "history": {}}),
        json.dumps({**HELD, "history": [{}]}),
        json.dumps({**HELD, "history": [{"goal": 5}]}),
        json.dumps({**HELD, "history": [{"goal": "x", "subgoals": [{"id": "x"}]}]}),
        json.dumps({**HELD, "memory": 5}),
        json.dumps({**HELD, "options": 5}),
        json.dumps({key: value for key, value in HELD.items() if key != "memory"}),
        json.dumps({**HELD, "version": 2}),
        json.dumps(HELD)[:-5],
    ],
)
def test_a_damaged_file_is_an_error_with_a_mend_and_stays(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "d"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    with pytest.raises(GoalError) as caught:
        DraftFile.resume(path)
    assert caught.value.mend and str(path) in caught.value.problem
    assert path.read_bytes() == before


def test_another_version_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "d").write_text(json.dumps({**HELD, "version": 2}))
    with pytest.raises(GoalError, match="another version"):
        DraftFile.resume(tmp_path / "d")


@pytest.mark.parametrize("place", ["absent", "absent/d", "folder", "file/d"])
def test_a_file_that_is_not_there_is_an_error_with_a_mend(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(GoalError) as caught:
        DraftFile.resume(tmp_path / place)
    assert caught.value.mend


def test_a_goal_with_half_a_character_is_an_error_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(GoalError, match="half a character"):
        DraftFile.begin(tmp_path / "d", begin("Help caf\udce9."), {})
    assert list(tmp_path.iterdir()) == []


def test_work_replaces_and_a_move_can_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "d"
    first, second, third = (replace(begin("Help."), statements=(text,)) for text in "abc")
    file = DraftFile.begin(path, begin("Help."), {})
    file.work(first)
    assert not file.undo() and file.draft == first
    file.move(second)
    file.work(third)
    assert DraftFile.resume(path).draft == third
    file.memory["key"] = [1.0]
    assert file.undo() and file.draft == first
    back = DraftFile.resume(path)
    assert back.draft == first and back.memory == {"key": [1.0]} and not back.undo()


# A whole clarification, killed at every moment

ANSWERS = {
    "topics": "heart disease, heart surgery, drugs and imaging",
    "users": "doctors use it",
    "limits": "",
    "outputs": "lists",
}


def moved(draft: Draft) -> Draft:
    """A person's move, which depends on nothing but the draft."""
    if draft.stage == "answering":
        aspect = draft.inquiries[0].aspect
        return answered(draft, ANSWERS[aspect]) if aspect in ANSWERS else enough(draft)
    names = {subgoal.name for subgoal in draft.subgoals}
    if "Eyes and ears" not in names and "Eyes" not in names:
        return edited(draft, (*draft.subgoals, Subgoal("eyes-and-ears", "Eyes and ears", "")))
    overlaps = [found for found in draft.violations if found.constraint == "disjointness"]
    if overlaps:
        return accepted(draft, overlaps[0], "They differ.")
    return repaired_again(draft) if draft.violations and not draft.repairing else settled(draft)


class Counted(Clarifier):
    """Is stopped before its call of number `last`; `heard` are the prompts that it answered, with their seeds."""

    def __init__(self, last: int = 0) -> None:
        super().__init__()
        self.last, self.n_calls = last, 0
        self.heard: list[tuple[Prompt, int]] = []

    def _call(self, prompts: Sequence[Prompt], seed: int) -> None:
        self.n_calls += 1
        if self.n_calls == self.last:
            raise KeyboardInterrupt
        self.heard += [(prompt, seed) for prompt in prompts]

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        self._call(prompts, -1)
        return super().choose(prompts, answers)

    def generate(
        self, prompts: Sequence[Prompt], grammar: Grammar, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Completion]:
        self._call(prompts, seed)
        return super().generate(prompts, grammar, max_tokens=max_tokens, temperature=temperature, seed=seed)


def run(file: DraftFile, engine: Counted, home: Path) -> Goal:
    """The goal at the end of a clarification, from where the file stands."""
    asker = Asker(engine, memory=file.memory, home=home, keep=file.save)
    while True:
        for draft in advance(file.draft, asker):
            file.work(draft)
        if file.draft.stage == "done":
            return clarified(file.draft, "judge", asker)
        file.move(moved(file.draft))


def unbroken(folder: Path) -> tuple[Goal, Counted]:
    engine = Counted()
    goal = run(DraftFile.begin(folder / "d", begin("Help doctors."), {}), engine, folder / "references")
    return goal, engine


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are loaded once, and no disk is waited for: what is killed here is the process."""
    monkeypatch.setattr("goalcover_local.asking.load_question", cache(load_question))
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.usefixtures("swift")
def test_a_clarification_killed_at_any_call_goes_on_to_the_same_goal(tmp_path: Path) -> None:
    """And no answer that was stored is asked for again."""
    goal, whole = unbroken(tmp_path)
    assert goal.checks and {found.outcome for found in goal.checks.findings} >= {"holds", "accepted"}
    assert [attempt.kept for attempt in goal.checks.repairs].count(True) >= 1
    assert len(whole.heard) == len(set(whole.heard))
    assert whole.n_calls > 20
    for number in range(1, whole.n_calls + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        killed, fresh = Counted(number), Counted()
        with pytest.raises(KeyboardInterrupt):
            run(DraftFile.begin(folder / "d", begin("Help doctors."), {}), killed, folder / "references")
        assert run(DraftFile.resume(folder / "d"), fresh, folder / "references") == goal
        assert not set(killed.heard) & set(fresh.heard)
        assert set(killed.heard) | set(fresh.heard) == set(whole.heard)
        assert killed.n_calls + fresh.n_calls == whole.n_calls + 1


@pytest.mark.usefixtures("swift")
def test_a_clarification_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    """Each life answers one call."""
    expected, whole = unbroken(tmp_path)
    (tmp_path / "again").mkdir()
    path, home = tmp_path / "again" / "d", tmp_path / "again" / "references"
    DraftFile.begin(path, begin("Help doctors."), {})
    lives = 0
    goal = None
    while goal is None:
        lives += 1
        with suppress(KeyboardInterrupt):
            goal = run(DraftFile.resume(path), Counted(2), home)
        assert lives <= whole.n_calls
    assert goal == expected and lives == whole.n_calls


@pytest.mark.usefixtures("swift")
def test_every_move_can_be_taken_back_and_made_again(tmp_path: Path) -> None:
    """Back to the first question and forward: the same goal, and nothing is asked of the model twice."""
    goal, _ = unbroken(tmp_path)
    file = DraftFile.resume(tmp_path / "d")
    moves: list[Mapping[str, object]] = []
    while file.undo():
        moves.append({"stage": file.draft.stage})
    assert {each["stage"] for each in moves} == {"answering", "settling"} and len(moves) >= 6
    engine = Counted()
    assert run(file, engine, tmp_path / "references") == goal
    assert engine.heard == []
