"""Ablations: a decomposition with one step left out, the rubric alone, and how well values tell removed rows apart."""

from __future__ import annotations

import numpy as np
import pytest
from clarifier import Clarifier
from sklearn.metrics import roc_auc_score

from goalcover_local.asking import Asker
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.judges import Judge
from goalcover_local.questions import load_question
from goalcover_local.resampling import told_apart
from goalcover_local.studies.ablation import PARTS, decomposed, nearest, without_examples
from goalcover_local.terms import STEPS, Exchange, Sample, Step, Subgoal

ANSWERS = {
    "topics": "knots, splices, sails",
    "users": "sailors use it",
    "inputs": "it is given a question",
    "outputs": "answers are short",
}
EXCHANGES = tuple(Exchange("", answer, aspect) for aspect, answer in ANSWERS.items())


# Decomposed anew


def names(step: Step | None, clarifier: Clarifier | None = None) -> list[str]:
    goal = decomposed("Help sailors", EXCHANGES, Asker(clarifier or Clarifier()), "sailor", step)
    return [subgoal.name for subgoal in goal.subgoals]


def test_with_all_steps_the_answers_make_the_subgoals() -> None:
    asker = Asker(Clarifier())
    goal = decomposed("Help sailors", EXCHANGES, asker, "sailor")
    assert [subgoal.name for subgoal in goal.subgoals] == ["Knots", "Splices", "Sails"]
    assert goal.without == () and goal.checks is not None and goal.checks.judge == "sailor"
    assert {exchange.aspect: exchange.answer for exchange in goal.exchanges if exchange.answer} == ANSWERS
    assert goal.specification.splitlines()[0] == "It knows knots, splices, sails."


@pytest.mark.parametrize("step", STEPS)
def test_the_step_left_out_is_on_record(step: Step) -> None:
    assert decomposed("Help sailors", EXCHANGES, Asker(Clarifier()), "sailor", step).without == (step,)


def test_without_questions_nobody_is_asked_and_only_the_goal_is_known() -> None:
    clarifier = Clarifier()
    goal = decomposed("Help sailors", EXCHANGES, Asker(clarifier), "sailor", "questions")
    assert goal.exchanges == () and goal.specification == ""
    assert "clarifying-question" not in {name for name, _ in clarifier.asked}
    proposed = [texts["specification"] for name, texts in clarifier.asked if name == "subgoals"]
    assert set(proposed) == {"Help sailors"}


def test_without_refinement_question_and_answer_stand_as_they_are() -> None:
    clarifier = Clarifier()
    goal = decomposed("Help sailors", EXCHANGES, Asker(clarifier), "sailor", "refinement")
    assert "knots, splices, sails." in goal.specification and "It knows" not in goal.specification
    assert "refinement" not in {name for name, _ in clarifier.asked}


def test_without_checks_a_compound_stays_one() -> None:
    def clarifier() -> Clarifier:
        engine = Clarifier()
        engine.written["subgoals"] = lambda _: {"names": ["Knots and splices", "Sail trim", "Anchors"]}
        return engine

    assert names("checks", clarifier()) == ["Knots and splices", "Sail trim", "Anchors"]
    assert names(None, clarifier()) == ["Knots", "Splices", "Sail trim", "Anchors"]
    assert decomposed("Help sailors", EXCHANGES, Asker(clarifier()), "sailor", "checks").checks is None


def test_what_the_study_does_not_answer_is_skipped() -> None:
    goal = decomposed("Help sailors", EXCHANGES[:1], Asker(Clarifier()), "sailor")
    assert [subgoal.name for subgoal in goal.subgoals] == ["Knots", "Splices", "Sails"]
    assert [exchange.answer for exchange in goal.exchanges if exchange.answer] == ["knots, splices, sails"]
    assert len(goal.exchanges) > 1


def test_the_same_questions_are_not_asked_again_with_another_step_left_out() -> None:
    memory: dict[str, object] = {}

    def asked(step: Step | None) -> list[str]:
        clarifier = Clarifier()
        decomposed("Help sailors", EXCHANGES, Asker(clarifier, memory=memory), "sailor", step)
        return [name for name, _ in clarifier.asked]

    assert {"clarifying-question", "refinement", "subgoals", "atomicity"} <= set(asked(None))
    again = set(asked("checks"))
    assert not again & {"clarifying-question", "refinement", "subgoals", "description"}
    assert "subgoals" in asked("refinement"), "another specification is another question"
    assert asked("refinement").count("subgoals") == 0


# Other parts


def test_every_part_is_a_step_or_of_the_prompt() -> None:
    assert PARTS == ("questions", "refinement", "checks", "examples", "explanation")


def test_without_examples_the_judge_is_another_asked_by_the_rubric_alone() -> None:
    engine = ScriptedEngine([[1, 1, 1, 1, 1, 1]])
    judge = Judge(engine, load_question("alignment"))
    bare = without_examples(judge)
    assert bare.digest != judge.digest and bare.engine is engine
    judge.judge([(Sample("", "Which knot?", "A bowline."), Subgoal("knots", "Knots", "Tying knots."))])
    bare.judge([(Sample("", "Which knot?", "A bowline."), Subgoal("knots", "Knots", "Tying knots."))])
    shown, alone = engine.history[-2:]
    assert len(alone.messages) < len(shown.messages) and alone.messages[-1] == shown.messages[-1]


def test_the_nearest_subgoal_shares_most_words_and_is_the_first_of_equals() -> None:
    target = Subgoal("ropes", "Knots and ropes", "Tying knots and joining ropes.")
    others = (
        Subgoal("a", "Baking bread", "How dough is proved."),
        Subgoal("b", "Knots", "Tie a knot, join a rope."),
        Subgoal("c", "Knots", "Tie a knot, join a rope."),
    )
    assert nearest(target, others) == 1
    assert nearest(target, others[:1] * 2) == 0
    assert nearest(target, (*others, target)) == 3


# Told apart


@pytest.mark.parametrize("seed", range(5))
def test_told_apart_is_the_area_under_the_curve(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.random((80, 3)) * 5) / 5
    values[random.random((80, 3)) < 0.1] = np.nan
    removed = random.random(80) < 0.3
    for column, found in enumerate(told_apart(values, removed)):
        there = ~np.isnan(values[:, column])
        assert found == pytest.approx(roc_auc_score(removed[there], values[there, column]))


def test_told_apart_at_its_ends_and_of_nothing() -> None:
    removed = np.array([True, True, False, False])
    values = np.array([[1.0, 0.0, 0.5, np.nan, np.nan], [0.9, 0.1, 0.5, np.nan, 1.0]] + [[0.2, 0.8, 0.5, 0.3, 0.1]] * 2)
    assert told_apart(values, removed).tolist() == pytest.approx([1, 0, 0.5, np.nan, 1], nan_ok=True)
    assert np.isnan(told_apart(values, ~np.zeros(4, dtype=bool))).all()
