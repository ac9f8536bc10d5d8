"""The goals that ship: they read, are found by name, and say enough for a judge to tell their subgoals."""

from __future__ import annotations

import re

import pytest

from goalcover_local.goal_files.reading import find_goal, read_goal, shipped_goals
from goalcover_local.resources import shipped

PRESETS = {
    "medical": ["clinical-reasoning", "cardiology-expertise", "drug-information"],
    "legal": ["legislative-summaries", "monetary-preservation", "healthcare-terminology"],
    "code": ["general-programming", "ml-libraries", "web-frameworks"],
    "financial": ["a1", "a2", "e1", "e2", "e3", "p1", "p2", "p3", "p4", "r1"],
}
"""The paper's frameworks: ids of the subgoals, for the financial one what each id begins with."""

DATA = {"medical": "PubMedQA", "legal": "BillSum", "code": "CodeAlpaca", "financial": "GovReport"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_name_and_holds_the_papers_subgoals(name: str) -> None:
    assert find_goal(name) == shipped("goals") / f"{name}.toml"
    found = [subgoal.id for subgoal in read_goal(find_goal(name)).subgoals]
    assert len(found) == len(PRESETS[name])
    for id, expected in zip(found, PRESETS[name], strict=True):
        assert id == expected or (name == "financial" and id.startswith(f"{expected}-"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_enough_and_not_too_much(name: str) -> None:
    goal = read_goal(find_goal(name))
    sentences = goal.specification.splitlines()
    assert len(sentences) >= 4
    assert all(sentence.endswith(".") and sentence == sentence.strip() for sentence in sentences)
    for subgoal in goal.subgoals:
        assert 40 <= len(subgoal.description) <= 160 and "\n" not in subgoal.description
        assert subgoal.description.endswith(".") and subgoal.evidence.endswith(".")
        assert len(subgoal.name.split()) <= 5


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_the_papers_data_and_says_where_it_is_not_disjoint(name: str) -> None:
    text = find_goal(name).read_text(encoding="utf-8")
    top = " ".join(line.removeprefix("#").strip() for line in text.split("\ngoal = ")[0].splitlines())
    assert DATA[name] in top and "the wording is ours" in top and re.search(r"not (wholly )?disjoint", top)


def test_every_shipped_goal_is_listed_and_no_preset_passes_for_data() -> None:
    listed = (shipped("goals") / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.toml`" in listed for name in shipped_goals())
    assert set(PRESETS) <= set(shipped_goals())
    data = [file.stem for file in shipped("goals").glob("*.jsonl")]
    assert data and not [stem for stem in data for name in PRESETS if stem.startswith(name)]
