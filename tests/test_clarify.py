"""Clarification from a goal to a checked set: whose turn it is, what a move changes, and what nobody may lose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from clarifier import Clarifier
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.asking import Asker
from goalcover_local.goal_files.reading import parse_goal
from goalcover_local.goal_files.writing import written
from goalcover_local.phases import clarify
from goalcover_local.phases.clarify import (
    PER_ROUND,
    Draft,
    Steps,
    accepted,
    advance,
    answered,
    aspects,
    begin,
    clarified,
    edited,
    enough,
    open_aspects,
    renewed,
    reopened,
    repaired_again,
    respecified,
    settled,
)
from goalcover_local.terms import Exchange, Finding, Goal, Subgoal

ANSWERS: Mapping[str, str] = {
    "topics": "heart disease, heart surgery, drugs, imaging",
    "users": "doctors use it",
    "inputs": "it is given a question",
    "outputs": "short answers",
    "limits": "never a diagnosis",
    "quality": "good sources",
}


def worked(draft: Draft, asker: Asker) -> Draft:
    """The draft when the model has done its work."""
    *_, last = draft, *advance(draft, asker)
    return last


def answering(draft: Draft, asker: Asker, answers: Mapping[str, str] = ANSWERS) -> Draft:
    """The draft with every question answered, worked on until it waits to be settled."""
    draft = worked(draft, asker)
    while draft.stage == "answering":
        draft = worked(answered(draft, answers.get(draft.inquiries[0].aspect, "")), asker)
    return draft


def draft_of(*names: str, statements: Sequence[str] = (), **changes: Any) -> Draft:
    """A draft with somebody's own set of subgoals, all else as given."""
    subgoals = [Subgoal(name.lower().replace(" ", "-"), name, f"All about {name}.") for name in names]
    return replace(begin("Help doctors.", subgoals=subgoals), statements=tuple(statements), **changes)


# Stages


def stages(steps: Steps, asker: Asker) -> Iterator[str]:
    """The stages of a clarification, each as it is entered, settled as it stands."""
    draft = begin("Help doctors.", steps)
    while draft.stage != "done":
        yield draft.stage
        if draft.stage == "answering":
            draft = answered(draft, ANSWERS[draft.inquiries[0].aspect])
        elif draft.stage == "settling":
            draft = settled(draft)
        else:
            draft = next(iter(advance(draft, asker)))


@pytest.mark.parametrize(("questions", "refinement", "checks"), list(product([True, False], repeat=3)))
def test_stages_follow_in_order_for_every_choice_of_steps(questions: bool, refinement: bool, checks: bool) -> None:
    engine = Clarifier()
    entered = " ".join(stages(Steps(questions, refinement, checks), Asker(engine)))
    asking = "(asking( answering){1,3} refining ){2,4}asking " if questions else ""
    checking = "checking( repairing)* " if checks else ""
    assert re.fullmatch(f"{asking}proposing {checking}settling", entered)
    asked = {name for name, _ in engine.asked}
    assert ("refinement" in asked) == (questions and refinement)
    assert ("clarifying-question" in asked) == questions
    assert ("overlap" in asked) == checks


def test_a_goals_further_sentences_begin_its_specification() -> None:
    draft = begin("Help doctors. It knows drugs.\nAnswers are short.")
    assert (draft.goal, draft.statements) == ("Help doctors.", ("It knows drugs.", "Answers are short."))


def test_ones_own_set_is_neither_asked_about_nor_repaired() -> None:
    asker = Asker(Clarifier())
    draft = worked(begin("Help.", subgoals=[Subgoal("a-b", "A and B", ""), Subgoal("c", "C", "Mine.")]), asker)
    assert draft.stage == "settling" and len(draft.violations) == 1 and draft.repairs == ()
    assert [each.description for each in draft.subgoals] == ["All about A and B.", "Mine."]


def test_whatever_the_answers_say_the_loop_ends() -> None:
    """Answers that tell the model nothing are asked for once more, and never a third time."""
    asker = Asker(Clarifier())
    draft = worked(begin("Help."), asker)
    rounds = 0
    while draft.stage == "answering":
        draft, rounds = worked(answered(draft, "something"), asker), rounds + 1
    by_aspect = [exchange.aspect for exchange in draft.exchanges]
    assert rounds == len(by_aspect) and max(map(by_aspect.count, by_aspect)) == 2


# What is asked


def names_of(draft: Draft, engine: Clarifier) -> list[str]:
    return [aspect.name for aspect in open_aspects(draft, Asker(engine))]


ALL = ["topics", "users", "inputs", "outputs", "limits", "quality"]


def test_the_aspects_are_these_and_a_bare_goal_leaves_all_open() -> None:
    assert [aspect.name for aspect in aspects()] == ALL == names_of(begin("Help."), Clarifier())


def test_what_the_specification_tells_is_not_asked() -> None:
    draft = replace(begin("Help."), statements=("Nurses use it.", "It never guesses."))
    assert names_of(draft, Clarifier()) == ["topics", "inputs", "outputs", "quality"]


def test_a_skipped_aspect_is_asked_once_and_an_unheard_one_twice() -> None:
    draft = begin("Help.")
    skipped = replace(draft, exchanges=(Exchange("Which?", "", "topics"),))
    assert "topics" not in names_of(skipped, Clarifier())
    unheard = replace(draft, statements=("It never guesses.",), exchanges=(Exchange("Which?", "Hm.", "topics"),))
    assert "topics" in names_of(unheard, Clarifier())
    twice = replace(unheard, exchanges=unheard.exchanges * 2)
    assert "topics" not in names_of(twice, Clarifier())


def test_a_model_that_cannot_tell_asks_everything_once() -> None:
    engine = Clarifier(unfit=["completeness"])
    draft = replace(begin("Help."), statements=("Nurses use it.",))
    assert names_of(draft, engine) == ALL
    once = replace(draft, exchanges=tuple(Exchange("?", "x", name) for name in ALL))
    assert names_of(once, engine) == []


def test_a_model_that_fails_to_tell_asks() -> None:
    engine = Clarifier()
    asker = Asker(engine)
    asker.fitness("completeness")
    engine.fails_on = "Nurses"
    assert len(open_aspects(replace(begin("Help."), statements=("Nurses use it.",)), asker)) == 6


def test_few_questions_are_asked_at_a_time_and_with_suggestions() -> None:
    draft = worked(begin("Help."), Asker(Clarifier()))
    assert [inquiry.aspect for inquiry in draft.inquiries] == ALL[:PER_ROUND]
    asks = aspects()[0].asks
    assert draft.inquiries[0].question == f"Please, {asks}?"


def test_an_unfit_model_asks_in_plain_words_and_writes_nothing() -> None:
    engine = Clarifier(unfit=["completeness"])
    draft = answering(begin("Help."), Asker(engine))
    assert [exchange.question for exchange in draft.exchanges] == [aspect.question for aspect in aspects()]
    assert [each.name for each in draft.subgoals][:2] == ["Heart disease", "Heart surgery"] or draft.repairs
    assert {name for name, _ in engine.asked}.isdisjoint({"clarifying-question", "refinement", "subgoals"})
    assert draft.statements[0] == f"{aspects()[0].question} {ANSWERS['topics']}."


@pytest.mark.parametrize(
    "question", ["Tell me.", "", "Please, which?", "please,  WHICH?"], ids=["no question", "empty", "same", "alike"]
)
def test_a_question_that_is_none_or_was_asked_gives_way_to_a_plain_one(question: str) -> None:
    engine = Clarifier()
    engine.written["clarifying-question"] = lambda _: {"question": question, "suggestions": ["a", "b", "c"]}
    draft = replace(begin("Help."), exchanges=(Exchange("Please, which?", "", "quality"),))
    draft = worked(draft, Asker(engine))
    assert [inquiry.question for inquiry in draft.inquiries] == [aspect.question for aspect in aspects()[:3]]
    assert draft.inquiries[1].suggestions == aspects()[1].suggestions


def test_suggestions_that_are_none_are_not_offered() -> None:
    engine = Clarifier()
    texts = {"question": "Who uses it?", "suggestions": ["Who uses it", " Nurses ", "Doctors?"]}
    engine.written["clarifying-question"] = lambda _: texts
    draft = worked(begin("Help."), Asker(engine))
    assert draft.inquiries[0].suggestions == ("Nurses",)
    assert draft.inquiries[1].question == aspects()[1].question


def test_a_failed_question_gives_way_to_a_plain_one() -> None:
    engine = Clarifier()
    engine.fails_on = "Ask: "
    draft = worked(begin("Help."), Asker(engine))
    assert [inquiry.question for inquiry in draft.inquiries] == [aspect.question for aspect in aspects()[:3]]


# What is written (Eq. 4)


def refined(answer: str, statement: str | None = None, **changes: Any) -> Draft:
    """A draft after one answer, of which the model writes that statement."""
    engine = Clarifier()
    if statement is not None:
        engine.written["refinement"] = lambda _: {"statement": statement}
    draft = replace(begin("Help.", Steps(**changes)), exchanges=(Exchange("Which?", answer, "topics"),))
    return next(iter(advance(draft, Asker(engine))))


@pytest.mark.parametrize("statement", ["It knows surgery.", "", "  ", "Knows the heart.", "It knows hearts, surgery."])
def test_a_statement_that_loses_words_of_the_answer_is_not_taken(statement: str) -> None:
    draft = refined("hearts, surgery, 24 drugs", statement)
    assert draft.statements == ("Which? hearts, surgery, 24 drugs.",) == (draft.exchanges[0].statement,)


@pytest.mark.parametrize(
    ("statement", "taken"),
    [
        ("It knows hearts, surgery and 24 drugs", "It knows hearts, surgery and 24 drugs."),
        (" It KNOWS heart,\u00a0surgeries and 24  drug! ", None),
        ("Surgery and hearts, and 24 drugs?", "Surgery and hearts, and 24 drugs?"),
    ],
)
def test_a_statement_with_the_answers_words_is_taken(statement: str, taken: str | None) -> None:
    found = refined("hearts, surgery, 24 drugs", statement).statements
    assert found == ((taken,) if taken else ("Which? hearts, surgery, 24 drugs.",))


def test_without_refinement_answers_stand_as_they_are() -> None:
    assert refined("hearts", "It knows hearts.", refinement=False).statements == ("Which? hearts.",)


def test_a_statement_is_added_once_and_the_others_stay() -> None:
    engine = Clarifier()
    exchanges = (
        Exchange("Which?", "drugs", "topics"),
        Exchange("Which?", "", "users"),
        Exchange("So?", "drugs", "limits"),
    )
    draft = replace(begin("Help. It is big."), exchanges=exchanges)
    draft = next(iter(advance(draft, Asker(engine))))
    assert draft.statements == ("It is big.", "It knows drugs.")
    assert [each.statement for each in draft.exchanges] == ["It knows drugs.", "", "It knows drugs."]
    assert draft.stage == "asking"


# Moves


def test_an_answer_is_trimmed_and_an_empty_one_skips() -> None:
    draft = worked(begin("Help."), Asker(Clarifier()))
    question = draft.inquiries[0]
    one = answered(draft, "  drugs \n and  imaging ")
    assert one.exchanges == (Exchange(question.question, "drugs and imaging", "topics", question.suggestions),)
    assert one.inquiries == draft.inquiries[1:]
    assert answered(draft, " \n").exchanges[0].answer == ""


def test_everything_skipped_proposes_from_the_goal() -> None:
    draft = answering(begin("It knows drugs, hearts and imaging."), Asker(Clarifier()), {})
    assert draft.statements == () and all(not exchange.answer for exchange in draft.exchanges)
    assert draft.stage == "settling" and [each.name for each in draft.subgoals] == ["Drugs", "Hearts", "Imaging"]


def test_enough_keeps_what_was_answered_and_asks_no_more() -> None:
    engine = Clarifier()
    asker = Asker(engine)
    draft = enough(answered(worked(begin("Help."), asker), ANSWERS["topics"]))
    draft = worked(draft, asker)
    assert draft.stage == "settling" and len(draft.exchanges) == 1
    assert draft.statements == (f"It knows {ANSWERS['topics']}.",)


def test_a_rewritten_specification_is_checked_again() -> None:
    asker = Asker(Clarifier())
    draft = worked(draft_of("Drugs", statements=["It knows drugs."]), asker)
    assert draft.violations == []
    again = respecified(draft, ["It knows drugs and imaging."])
    assert again.stage == "checking"
    assert [each.statement for each in worked(again, asker).violations] == ["It knows drugs and imaging."]


def test_an_edited_set_is_described_checked_and_not_repaired() -> None:
    asker = Asker(Clarifier())
    draft = worked(draft_of("Drugs", repairing=True), asker)
    draft = edited(draft, [*draft.subgoals, Subgoal("x", "Eyes and ears", "")])
    assert draft.stage == "proposing"
    draft = worked(draft, asker)
    assert draft.stage == "settling" and [each.subgoals for each in draft.violations] == [("x",)]
    assert draft.subgoals[1].description == "All about Eyes and ears."


def test_repairing_again_tries_each_violation_once_more() -> None:
    engine = Clarifier()
    engine.written["repair"] = lambda _: {"names": ["Eyes and ears"]}
    asker = Asker(engine)
    draft = worked(repaired_again(worked(draft_of("Eyes and ears", "Drugs"), asker)), asker)
    assert draft.stage == "settling" and len(draft.repairs) == 1 and not draft.repairs[0].kept
    engine.written.clear()
    fresh = Asker(engine)
    draft = worked(repaired_again(draft), fresh)
    assert [each.name for each in draft.subgoals] == ["Eyes", "Ears", "Drugs"]
    assert draft.violations == [] and [each.kept for each in draft.repairs] == [False, True]


# Accepting


OVERLAPPING = ("Heart disease", "Heart surgery", "Drugs")


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_violation_is_accepted_for_a_reason_only(reason: str) -> None:
    draft = worked(draft_of(*OVERLAPPING), Asker(Clarifier()))
    with pytest.raises(ValueError, match="reason"):
        accepted(draft, draft.violations[0], reason)


def test_what_was_accepted_stays_so_while_its_texts_do() -> None:
    asker = Asker(Clarifier())
    draft = worked(draft_of(*OVERLAPPING), asker)
    draft = accepted(draft, draft.violations[0], " They  differ. ")
    [found] = [each for each in draft.findings or () if each.outcome == "accepted"]
    assert (found.subgoals, found.reason) == (("heart-disease", "heart-surgery"), "They differ.")
    assert draft.violations == [] and draft.stage == "settling"
    more = worked(edited(draft, (Subgoal("new", "Lungs", "x"), *draft.subgoals[::-1])), asker)
    assert more.violations == [] and [e.reason for e in more.findings or () if e.reason] == ["They differ."]
    renamed = [replace(each, id=f"{each.id}-2", target_share=0.2) for each in draft.subgoals]
    assert worked(edited(draft, renamed), asker).violations == []
    other = [replace(draft.subgoals[0], description="Otherwise."), *draft.subgoals[1:]]
    lapsed = worked(edited(draft, other), asker)
    assert [each.subgoals for each in lapsed.violations] == [("heart-disease", "heart-surgery")]
    assert not any(each.reason for each in lapsed.findings or ())
    assert worked(edited(lapsed, draft.subgoals), asker).violations == []


def test_an_accepted_sentence_lapses_when_it_is_rewritten() -> None:
    asker = Asker(Clarifier())
    draft = worked(draft_of("Drugs", statements=["It knows drugs and imaging."]), asker)
    draft = accepted(draft, draft.violations[0], "Later.")
    assert worked(respecified(draft, ["It knows drugs and imaging."]), asker).violations == []
    assert len(worked(respecified(draft, ["It knows drugs and scans."]), asker).violations) == 1


def test_a_repair_goes_round_what_was_accepted() -> None:
    """The violation that a person let be is not mended, and does not keep another from being mended."""
    asker = Asker(Clarifier())
    draft = worked(draft_of(*OVERLAPPING, "Eyes and ears"), asker)
    overlap = next(each for each in draft.violations if each.constraint == "disjointness")
    draft = worked(repaired_again(accepted(draft, overlap, "They differ.")), asker)
    assert [each.name for each in draft.subgoals] == [*OVERLAPPING, "Eyes", "Ears"]
    assert draft.violations == [] and len(draft.repairs) == 1
    assert sum(each.outcome == "accepted" for each in draft.findings or ()) == 1


# The goal


def goal_of(draft: Draft, asker: Asker, onto: Goal | None = None) -> Goal:
    return clarified(settled(draft), "judge", asker, onto)


def test_a_clarified_goal_is_read_back_as_it_is() -> None:
    asker = Asker(Clarifier())
    draft = answering(begin("Help doctors."), asker)
    goal = goal_of(draft, asker)
    assert parse_goal(written(goal), "goal.toml") == goal
    assert goal.text == "Help doctors." and len(goal.exchanges) == 6 and goal.checks is not None
    assert goal.specification.splitlines() == list(draft.statements)
    assert goal.checks.subgoals == goal.decomposition
    assert [each.kept for each in goal.checks.repairs] == [False, True]
    assert [each.id for each in goal.subgoals][:4] == ["heart-disease", "heart-surgery", "drugs", "imaging"]


NASTY = st.text(st.sampled_from([*"aZ.é\"'\\#日\u00a0\u3000\u2003\n\t\b ;*–"]), max_size=8)


@settings(deadline=None, max_examples=20)
@given(texts=st.lists(NASTY, min_size=6, max_size=6), name=st.sampled_from(["One thing", "A and B"]))
def test_whatever_the_model_writes_the_goal_is_read_back_as_it_is(texts: list[str], name: str) -> None:
    """Else its checks would be stale as soon as they are read."""
    engine = Clarifier()
    legal = re.sub(r'["\\\x00-\x1f]', "", texts[5])
    engine.written |= {
        "clarifying-question": lambda _: {"question": f"{texts[0]}?", "suggestions": texts[:3]},
        "refinement": lambda asked: {"statement": f"{texts[0]} {asked['answer']}{texts[1]}"},
        "subgoals": lambda _: {"names": [f"{texts[2]}{name}{texts[3]}", "Drugs", f"drugs {texts[3]}"]},
        "description": lambda _: {"description": texts[4], "evidence": f"The input {legal}"},
        "overlap": lambda _: {"relation": "overlapping", "because": texts[3]},
        "atomicity": lambda _: {"kind": "several", "parts": texts[:2]},
        "uncovered": lambda _: {"covered": "no", "missing": texts[5]},
        "repair": lambda _: {"names": texts[4:]},
    }
    asker = Asker(engine)
    goal = goal_of(answering(begin("Help doctors."), asker), asker)
    back = parse_goal(written(goal), "goal.toml")
    assert back == goal and back.checks and back.checks.subgoals == back.decomposition
    again = worked(reopened(back), asker)
    assert goal_of(again, asker, back).specification == goal.specification
    assert again.statements == tuple(goal.specification.splitlines())


def test_without_checks_the_goal_has_none() -> None:
    asker = Asker(Clarifier())
    assert goal_of(answering(begin("Help doctors.", Steps(checks=False)), asker), asker).checks is None


def test_what_still_violates_stands_in_the_goal() -> None:
    asker = Asker(Clarifier())
    goal = goal_of(worked(draft_of(*OVERLAPPING), asker), asker)
    assert goal.checks and [each.outcome for each in goal.checks.findings].count("violated") == 1


def test_the_checks_name_who_made_them() -> None:
    class Other(Clarifier):
        def describe(self) -> Mapping[str, str]:
            return {**super().describe(), "weights": "others"}

    digests = set()
    for asker in Asker(Clarifier()), Asker(Other()), Asker(Clarifier(), single_turn=True):
        checks = clarified(worked(draft_of("Drugs"), asker), "judge", asker).checks
        assert checks and checks.judge == "judge"
        digests.add(checks.digest)
    assert len(digests) == 3


def checked_goal() -> Goal:
    """A goal whose overlap was accepted and whose compound was not."""
    asker = Asker(Clarifier())
    draft = answering(begin("Help doctors. It is given letters."), asker)
    names = [
        Subgoal("h1", "Heart disease", "d1"),
        Subgoal("h2", "Heart surgery", "d2"),
        Subgoal("x", "Eyes and ears", "d"),
    ]
    draft = worked(edited(draft, names), asker)
    overlap = next(each for each in draft.violations if each.constraint == "disjointness")
    return replace(goal_of(accepted(draft, overlap, "They differ."), asker), tau=0.4)


def test_a_reopened_goal_is_checked_again_and_what_was_accepted_stays_so() -> None:
    goal = parse_goal(written(checked_goal()), "goal.toml")
    asker = Asker(Clarifier())
    draft = reopened(goal)
    assert draft.stage == "checking" and draft.exchanges == goal.exchanges
    draft = worked(draft, asker)
    assert draft.stage == "settling"
    again = goal_of(draft, asker, goal)
    assert again == replace(goal, checks=again.checks) and again.checks and goal.checks
    assert again.checks.findings == goal.checks.findings
    assert [each.reason for each in again.checks.findings if each.outcome == "accepted"] == ["They differ."]


def test_an_accepted_sentence_of_several_stays_accepted_when_the_goal_is_reopened() -> None:
    """A question and its answer, joined where the model's sentence was not taken, stay one statement."""
    engine = Clarifier(unfit=["completeness"])
    asker = Asker(engine)
    draft = answering(begin("Help doctors. It is big."), asker, {"topics": "Drugs. Hearts", "users": "Nurses"})
    assert len(draft.statements) == 3 and "? Drugs. Hearts." in draft.statements[1]
    draft = replace(draft, findings=(Finding("coverage", (), draft.statements[1], 0.2, "violated"),))
    goal = parse_goal(written(goal_of(accepted(draft, draft.violations[0], "Later."), asker)), "goal.toml")
    again = reopened(goal)
    assert again.statements == draft.statements
    [name] = again.accepted
    assert name in accepted(draft, draft.violations[0], "Later.").accepted


def test_a_specification_that_nobody_touched_keeps_its_lines() -> None:
    goal = replace(checked_goal(), specification="It knows drugs. It is given letters.\n\n  And more. ", exchanges=())
    asker = Asker(Clarifier())
    draft = worked(reopened(goal), asker)
    assert len(draft.statements) == 3
    assert goal_of(draft, asker, goal).specification == goal.specification
    other = respecified(draft, draft.statements[:2])
    assert goal_of(other, asker, goal).specification == "It knows drugs.\nIt is given letters."


def test_checking_a_goal_again_does_not_write_its_answers_into_the_specification() -> None:
    """Goal files of before, or written by hand, do not say which sentence an answer became."""
    goal = replace(checked_goal(), exchanges=(Exchange("Which?", "drugs and hearts"),))
    engine = Clarifier()
    draft = worked(reopened(goal), Asker(engine))
    assert draft.stage == "settling" and goal_of(draft, Asker(engine), goal).specification == goal.specification
    assert "refinement" not in {name for name, _ in engine.asked}


def test_two_clarifications_are_equal() -> None:
    goals = []
    for _ in range(2):
        asker = Asker(Clarifier())
        goals.append(goal_of(answering(begin("Help doctors."), asker), asker))
    assert goals[0] == goals[1]


def test_a_model_that_fails_at_everything_ends_with_what_the_person_said() -> None:
    engine = Clarifier()
    engine.fails_on = ":"
    asker = Asker(engine)
    draft = answering(begin("Help doctors."), asker)
    assert draft.stage == "settling" and [each.name for each in draft.subgoals][:1] == ["Heart disease"]
    assert {each.outcome for each in draft.findings or ()} == {"undecided"}
    goal = goal_of(draft, asker)
    assert parse_goal(written(goal), "goal.toml") == goal


def test_the_stages_that_wait_for_a_person_have_no_work() -> None:
    assert set(clarify._WORK) == {"refining", "asking", "proposing", "checking", "repairing"}


@pytest.mark.parametrize(
    ("answer", "statement", "kept"),
    [
        ("no", "It gives doses of drugs.", False),
        ("it must never advise doses under 12", "It must advise doses under 12.", False),
        ("at most 200 words", "The summary has at most 20 words.", False),
        ("AI", "It knows cooking.", False),
        ("中文", "It knows cooking.", False),
        ("hyperkalaemia and hypothermia", "It knows hyperthyroidism and hypothyroidism.", False),
        ("the", "It is the one.", False),
        ("cardiology, drug information", "It covers cardiology and drug information.", True),
        ("no legal advice", "It gives no legal advice.", True),
    ],
)
def test_a_statement_that_turns_an_answer_round_is_not_taken(answer: str, statement: str, kept: bool) -> None:
    engine = Clarifier()
    engine.written["refinement"] = lambda _: {"statement": statement}
    draft = replace(begin("Help."), exchanges=(Exchange("Which?", answer, "topics"),))
    after = next(advance(draft, Asker(engine)))
    assert (after.statements == (statement,)) is kept
    assert kept or answer in after.statements[0]


def test_an_acceptance_of_what_is_missing_covers_nothing_else() -> None:
    asker = Asker(Clarifier())
    draft = replace(draft_of("Knots", "Sails"), statements=("It knows knots, sails and whales.",))
    draft = worked(replace(draft, repairing=False), asker)
    [missing] = draft.violations
    draft = accepted(draft, missing, "Whales come next year.")
    assert draft.violations == []
    draft = worked(edited(draft, draft_of("Bread").subgoals), asker)
    assert [each.constraint for each in draft.violations] == ["coverage"]


def test_what_another_judge_found_is_checked_again() -> None:
    unfit, able = Asker(Clarifier(unfit=("overlap",))), Asker(Clarifier())
    draft = worked(draft_of("Heart disease", "Heart surgery"), unfit)
    assert renewed(draft, unfit) is draft
    able.engine.context += 1
    again = worked(renewed(draft, able), able)
    assert again.judged != draft.judged and draft.violations == [] and len(again.violations) == 1


def test_a_target_share_outlives_a_repair() -> None:
    asker = Asker(Clarifier())
    compound = replace(draft_of("Eyes and ears").subgoals[0], target_share=0.3)
    draft = worked(repaired_again(begin("Help doctors.", subgoals=[compound])), asker)
    assert [each.target_share for each in draft.subgoals] == [0.3, 0.3]


def test_what_runs_on_is_no_suggestion() -> None:
    engine = Clarifier()
    long = "It should be clear and " * 20
    engine.written["clarifying-question"] = lambda asked: {
        "question": f"Please, {asked['aspect']}?",
        "suggestions": ["Short", long, "short"],
    }
    draft = next(advance(begin("Help."), Asker(engine)))
    assert {inquiry.suggestions for inquiry in draft.inquiries} == {("Short", "short")}
