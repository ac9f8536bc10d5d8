"""Subgoals proposed, checked and repaired: what is lost, what is made up, and what a repair may never do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from clarifier import Clarifier
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.asking import Asker
from goalcover_local.engines.base import Completion, Grammar, Prompt
from goalcover_local.errors import EngineError
from goalcover_local.phases.decompose import (
    FEWEST,
    MOST,
    Checked,
    check,
    described,
    key,
    listed,
    propose,
    repair,
    replaced,
    sentences,
    violations,
)
from goalcover_local.terms import Finding, Subgoal


def subgoal(name: str, description: str = "") -> Subgoal:
    return Subgoal(name.lower().replace(" ", "-"), name, description or f"All about {name}.")


def subgoals(*names: str) -> tuple[Subgoal, ...]:
    return tuple(subgoal(name) for name in names)


def outcomes(checked: Checked) -> dict[tuple[str, ...], str]:
    """The outcome of each finding, by the ids or the sentence that it is about."""
    return {found.subgoals or (found.statement,): found.outcome for found in checked.findings}


class Seeded(Clarifier):
    """Proposes the names that are listed for each seed in turn; an empty list is a failure."""

    def __init__(self, *proposals: Sequence[str]) -> None:
        super().__init__()
        self.proposals = proposals
        self.seeds: list[tuple[int, float]] = []

    def generate(
        self, prompts: Sequence[Prompt], grammar: Grammar, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Completion]:
        name = self._understood(prompts[0])[0] if prompts else ""
        if name != "subgoals":
            return super().generate(prompts, grammar, max_tokens=max_tokens, temperature=temperature, seed=seed)
        self.seeds.append((seed, temperature))
        names = self.proposals[min(seed, len(self.proposals) - 1)]
        self.written["subgoals"] = lambda _: {"names": list(names)}
        if names:
            return super().generate(prompts, grammar, max_tokens=max_tokens, temperature=temperature, seed=seed)
        return [Completion("", 0, "scripted failure")]


def names_of(engine: Clarifier, goal: str = "Help doctors", statements: Sequence[str] = ("It knows hearts.",)) -> Any:
    return [each.name for each in propose(Asker(engine), goal, statements)]


# Sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" \n\n ", ()),
        ("One.", ("One.",)),
        ("One. Two! Three? Four", ("One.", "Two!", "Three?", "Four")),
        ("One.\nTwo\r\n\n  Three.  ", ("One.", "Two", "Three.")),
        (
            "It costs 3.5 euros. Überall gilt das. Énfin. „So“ ist es.",
            ("It costs 3.5 euros.", "Überall gilt das.", "Énfin.", "„So“ ist es."),
        ),
        ("It is v. good, e.g. here. (Or not.) “Yes.”", ("It is v. good, e.g. here.", "(Or not.) “Yes.”")),
        ("No space.Here", ("No space.Here",)),
        ("用户是医生。它回答问题。", ("用户是医生。它回答问题。",)),
        ("Ask Dr. Smith. He knows.", ("Ask Dr. Smith.", "He knows.")),
        ("Warfarin, e.g. Coumadin. Of J. R. Doe.", ("Warfarin, e.g. Coumadin.", "Of J. R. Doe.")),
    ],
)
def test_sentences_end_before_capitals_and_at_line_ends(text: str, expected: tuple[str, ...]) -> None:
    assert sentences(text) == expected


@settings(max_examples=30)
@given(text=st.lists(st.sampled_from([*'aBÜ.!?\n\r \t\u2028\x85\x1c„("“é日', "Dr.", "e.g. "])).map("".join))
def test_no_word_is_lost_between_sentences(text: str) -> None:
    found = sentences(text)
    assert " ".join(found).split() == text.split()
    assert all(sentence == sentence.strip() and sentence for sentence in found)
    assert sentences("\n".join(found)) == found


# Proposals


def test_a_proposal_is_described_and_has_ids() -> None:
    found = propose(Asker(Clarifier()), "Help doctors", ["It knows heart disease, drugs and imaging."])
    assert found == (
        Subgoal("heart-disease", "Heart disease", "All about Heart disease.", "The input speaks of Heart disease."),
        Subgoal("drugs", "Drugs", "All about Drugs.", "The input speaks of Drugs."),
        Subgoal("imaging", "Imaging", "All about Imaging.", "The input speaks of Imaging."),
    )


def test_a_goal_without_a_specification_is_its_own() -> None:
    engine = Clarifier()
    propose(Asker(engine), "Help doctors", [])
    [texts] = [texts for name, texts in engine.asked if name == "subgoals"]
    assert texts["specification"] == "Help doctors"


def test_names_alike_but_for_case_and_space_are_one() -> None:
    assert names_of(
        Seeded(["drugs", "Drugs.", " DRUGS ", "- imaging", "\u00a0Heart\u3000disease\u2003", "imaging"])
    ) == [
        "Drugs",
        "Imaging",
        "Heart disease",
    ]


def test_more_than_ten_cannot_be_asked_for_but_a_persons_own_list_is_kept() -> None:
    assert len(names_of(Seeded([f"Thing {n}" for n in range(10)]))) == MOST
    assert len(listed([", ".join(f"Thing {n}" for n in range(14))])) == 14


def test_echoes_of_the_examples_are_left_out_unless_they_were_asked_for() -> None:
    proposal = ["Paintings", "opening hours", "Drugs", "Imaging", "Hearts"]
    assert names_of(Seeded(proposal)) == ["Drugs", "Imaging", "Hearts"]
    asked = "It knows paintings and drugs."
    assert names_of(Seeded(proposal), statements=[asked]) == ["Paintings", "Drugs", "Imaging", "Hearts"]
    assert names_of(Seeded(proposal), goal="Tell the Opening Hours")[0] == "Opening hours"


def test_a_proposal_of_fewer_than_three_is_asked_again_with_other_seeds() -> None:
    engine = Seeded(["Drugs", "drugs", "DRUGS"], ["Drugs", "Imaging", "imaging"], ["A", "B", "C"])
    assert names_of(engine) == ["A", "B", "C"]
    assert [seed for seed, _ in engine.seeds] == [0, 1, 2]
    assert engine.seeds[0][1] == 0 and all(temperature > 0 for _, temperature in engine.seeds[1:])


def test_the_largest_of_small_proposals_stands() -> None:
    engine = Seeded(["Drugs", "drugs", "DRUGS"], ["Hearts", "Imaging", "imaging"], ["Skin", "skin", "SKIN"])
    assert names_of(engine) == ["Hearts", "Imaging"]
    assert len(engine.seeds) == FEWEST


def test_a_good_first_proposal_is_not_asked_again() -> None:
    engine = Seeded(["A", "B", "C"], ["D", "E", "F"])
    assert names_of(engine) == ["A", "B", "C"] and len(engine.seeds) == 1


def test_a_failure_is_asked_again_and_failures_alone_are_told() -> None:
    assert names_of(Seeded([], ["A", "B", "C"])) == ["A", "B", "C"]
    engine = Seeded([])
    asker = Asker(engine)
    with pytest.raises(EngineError, match="could not propose subgoals: scripted failure"):
        propose(asker, "Help", [])
    assert sum(asker.failures.values()) == len(engine.seeds) == 3


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ([], []),
        ([""], []),
        (["drugs, imaging and ECG"], ["Drugs", "Imaging", "ECG"]),
        (["drugs; imaging, and ECG & lungs."], ["Drugs", "Imaging", "ECG", "Lungs"]),
        (
            ["Herz und Lunge", "coeur et poumon", "corazón y pulmón"],
            ["Herz", "Lunge", "Coeur", "Poumon", "Corazón", "Pulmón"],
        ),
        (["drugs, DRUGS", "Drugs"], ["Drugs"]),
        (["sandy beaches, handles"], ["Sandy beaches", "Handles"]),
        (["用药、影像，心脏；肺"], ["用药", "影像", "心脏", "肺"]),
    ],
)
def test_what_a_person_listed_becomes_subgoals(texts: list[str], names: list[str]) -> None:
    found = listed(texts)
    assert [each.name for each in found] == names
    assert all(each.description == each.name for each in found)
    assert len({each.id for each in found}) == len(names)


def test_only_what_has_no_description_is_described() -> None:
    engine = Clarifier()
    mine = (Subgoal("a", "A", "Mine.", "Seen."), Subgoal("b", "B", "", "My own.", 0.2), Subgoal("c", "C", ""))
    found = described(Asker(engine), "Help", mine)
    assert found[0] == mine[0]
    assert found[1] == Subgoal("b", "B", "All about B.", "My own.", 0.2)
    assert found[2] == Subgoal("c", "C", "All about C.", "The input speaks of C.")
    assert [texts["name"] for _, texts in engine.asked] == ["B", "C"]


@pytest.mark.parametrize("fails", [True, False])
def test_a_description_that_fails_or_is_blank_gives_way_to_the_name(fails: bool) -> None:
    engine = Clarifier()
    engine.fails_on = "B" if fails else ""
    engine.written["description"] = lambda _: {"description": "  ", "evidence": "The input  "}
    evidence = "" if fails else "The input"
    assert described(Asker(engine), "Help", [Subgoal("b", "B", "")]) == (Subgoal("b", "B", "B", evidence),)


def test_a_description_is_one_line() -> None:
    """Else it would break the lists in which later questions show it."""
    engine = Clarifier()
    engine.written["description"] = lambda _: {
        "description": " One\nand\ttwo. ",
        "evidence": "The input \u2028- twice.",
    }
    [found] = described(Asker(engine), "Help", [Subgoal("b", "B", "")])
    assert (found.description, found.evidence) == ("One and two.", "The input - twice.")


# Checks

SPECIFICATION = ("It knows drugs, hearts and kidneys.", "It knows that doctors use it.")


def test_each_constraint_is_checked_and_what_is_violated_is_named() -> None:
    found = check(Asker(Clarifier()), "Help", SPECIFICATION, subgoals("Drugs and imaging", "Drugs", "Hearts"))
    ids = ("drugs-and-imaging", "drugs", "hearts")
    assert outcomes(found) == {
        (ids[0],): "violated",
        (ids[1],): "holds",
        (ids[2],): "holds",
        (ids[0], ids[1]): "violated",
        (ids[0], ids[2]): "holds",
        (ids[1], ids[2]): "holds",
        (SPECIFICATION[0],): "violated",
    }
    assert [each.note for each in violations(found.findings)] == ["Drugs, Imaging", "They share a word.", "kidneys"]
    assert all((each.probability or 0) >= 0.5 for each in found.findings if each.outcome == "holds")
    assert all((each.probability or 1) < 0.5 for each in found.findings if each.outcome == "violated")
    assert found.fitness == {"atomicity": 1, "disjointness": 1, "coverage": 1}


def test_a_sound_set_holds_throughout() -> None:
    found = check(Asker(Clarifier()), "Help", SPECIFICATION, subgoals("Drugs", "Hearts", "Kidneys"))
    assert {each.outcome for each in found.findings} == {"holds"} and len(found.findings) == 7


@pytest.mark.parametrize(
    ("question", "constraint"),
    [("atomicity", "atomicity"), ("overlap", "disjointness"), ("uncovered", "coverage")],
)
def test_what_the_judge_is_not_fit_to_tell_is_undecided_throughout(question: str, constraint: str) -> None:
    engine = Clarifier(unfit=[question])
    found = check(Asker(engine), "Help", SPECIFICATION, subgoals("Drugs and imaging", "Drugs", "Hearts"))
    for each in found.findings:
        assert (each.outcome == "undecided") == (each.constraint == constraint)
        assert each.note == "" or each.outcome == "violated"
    assert found.fitness[constraint] == 0.5
    assert not [name for name, texts in engine.asked if name == "repair"]


def test_a_judge_that_cannot_tell_what_sentences_tell_covers_them_all() -> None:
    found = check(Asker(Clarifier(unfit=["completeness"])), "Help", SPECIFICATION, subgoals("Drugs"))
    assert [each.statement for each in found.findings if each.constraint == "coverage"] == list(SPECIFICATION)


def test_a_check_that_fails_is_undecided_and_no_violation() -> None:
    engine = Clarifier()
    asker = Asker(engine)
    for name in ("completeness", "atomicity", "overlap", "uncovered"):
        asker.fitness(name)
    engine.fails_on = "Hearts"
    found = check(asker, "Help", SPECIFICATION, subgoals("Drugs", "Hearts", "Kidneys"))
    undecided = {each.subgoals for each in found.findings if each.outcome == "undecided"}
    assert undecided == {("hearts",), ("drugs", "hearts"), ("hearts", "kidneys"), ()}
    assert all(each.probability is None for each in found.findings if each.outcome == "undecided")
    assert violations(found.findings) == [] and sum(asker.failures.values()) == 6


def test_an_empty_set_has_no_findings_and_one_subgoal_no_pairs() -> None:
    asker = Asker(Clarifier())
    assert check(asker, "Help", SPECIFICATION, ()).findings == ()
    alone = check(asker, "Help", SPECIFICATION, subgoals("Drugs"))
    assert [each.constraint for each in alone.findings] == ["atomicity", "coverage"]


def test_without_a_specification_the_goal_is_to_be_covered() -> None:
    found = check(Asker(Clarifier()), "It knows hearts and lungs.", (), subgoals("Hearts"))
    assert found.findings[-1] == replace(found.findings[-1], statement="It knows hearts and lungs.", note="lungs")


def test_a_note_has_no_space_around_it() -> None:
    """Else a goal file, which trims its texts, would not read back as it was written."""
    engine = Clarifier()
    engine.written["overlap"] = lambda _: {"relation": "overlapping", "because": " they  do\u00a0"}
    engine.written["atomicity"] = lambda _: {"kind": "several", "parts": ["\u3000 drugs ", ".", "imaging.\u00a0"]}
    found = check(Asker(engine), "Help", (), subgoals("Drugs and imaging", "Drugs"))
    assert [each.note for each in violations(found.findings)] == ["Drugs, Imaging", "they do"]


# Keys


def test_a_key_follows_texts_and_neither_ids_nor_order() -> None:
    first, second = subgoals("Drugs", "Hearts")
    renamed = replace(second, id="other", target_share=0.5)
    assert key(Finding("disjointness", ("drugs", "hearts")), [first, second]) == key(
        Finding("disjointness", ("other", "drugs"), probability=0.1, note="x", outcome="violated"), [renamed, first]
    )


@pytest.mark.parametrize("changed", ["name", "description", "evidence"])
def test_a_key_changes_with_what_it_speaks_of(changed: str) -> None:
    first, second = subgoals("Drugs", "Hearts")
    other = replace(second, **{changed: "Otherwise."})
    pair = Finding("disjointness", ("drugs", "hearts"))
    assert key(pair, [first, second]) != key(pair, [first, other])
    assert key(Finding("atomicity", ("drugs",)), [first, second]) == key(
        Finding("atomicity", ("drugs",)), [first, other]
    )


def test_keys_tell_constraints_and_sentences_apart() -> None:
    found = [
        Finding("atomicity", ("drugs",)),
        Finding("disjointness", ("drugs",)),
        Finding("coverage", (), "One."),
        Finding("coverage", (), "Two."),
    ]
    assert len({key(each, subgoals("Drugs")) for each in found}) == 4


# Repairs


def repaired(
    engine: Clarifier, statements: Sequence[str], before: Sequence[Subgoal], **kept: Any
) -> list[tuple[tuple[Subgoal, ...], Checked, Any, str]]:
    asker = Asker(engine)
    checked = check(asker, "Help", statements, before)
    return list(repair(asker, "Help", statements, before, checked, **kept))


def test_a_compound_is_split_in_its_place() -> None:
    [(after, checked, attempt, _)] = repaired(Clarifier(), (), subgoals("Hearts", "Drugs and imaging", "Lungs"))
    assert [each.id for each in after] == ["hearts", "drugs", "imaging", "lungs"]
    assert all(each.description for each in after) and not violations(checked.findings)
    assert (attempt.constraint, attempt.before, attempt.after) == (
        "atomicity",
        ("drugs-and-imaging",),
        ("drugs", "imaging"),
    )
    assert attempt.kept


def test_two_that_overlap_become_one_that_keeps_its_text() -> None:
    before = (subgoal("Heart disease", "Mine."), subgoal("Lungs"), subgoal("Heart surgery"))
    [(after, checked, attempt, _)] = repaired(Clarifier(), (), before)
    assert after == before[:2] and not violations(checked.findings)
    assert (attempt.before, attempt.after, attempt.kept) == (
        ("heart-disease", "heart-surgery"),
        ("heart-disease",),
        True,
    )


def test_what_is_missing_is_added_at_the_end() -> None:
    statements = ["It knows hearts, lungs and kidneys."]
    [(after, checked, attempt, _)] = repaired(Clarifier(), statements, subgoals("Hearts", "Lungs"))
    assert [each.name for each in after] == ["Hearts", "Lungs", "Kidneys"] and not violations(checked.findings)
    assert (attempt.constraint, attempt.before, attempt.after, attempt.kept) == ("coverage", (), ("kidneys",), True)


@pytest.mark.parametrize("answer", [[], ["drugs AND imaging"], [" . "]], ids=["failure", "the same", "nothing"])
def test_where_nothing_new_is_proposed_the_attempt_is_recorded_and_the_set_stands(answer: list[str]) -> None:
    engine = Clarifier()
    engine.written["repair"] = lambda _: {"names": answer or ["x"]}
    if not answer:
        engine.fails_on = "Problem: "
    before = subgoals("Hearts", "Drugs and imaging")
    [(after, _, attempt, _)] = repaired(engine, (), before)
    assert after == before and (attempt.after, attempt.kept) == ((), False)


def test_an_attempt_that_helps_nothing_is_not_kept() -> None:
    engine = Clarifier()
    engine.written["repair"] = lambda _: {"names": ["Lungs and skin", "Eyes and ears"]}
    before = subgoals("Hearts", "Drugs and imaging")
    [(after, checked, attempt, _)] = repaired(engine, (), before)
    assert after == before and len(violations(checked.findings)) == 1
    assert attempt.after == ("lungs-and-skin", "eyes-and-ears") and not attempt.kept


def test_a_set_that_the_judge_fails_to_check_is_no_better() -> None:
    """A violation is not mended by making it undecidable."""
    engine = Clarifier()
    asker = Asker(engine)
    before = subgoals("Hearts", "Drugs and imaging")
    checked = check(asker, "Help", (), before)
    engine.written["repair"] = lambda _: {"names": ["Volcano"]}
    engine.fails_on = "Volcano"
    [(after, _, attempt, _)] = repair(asker, "Help", (), before, checked)
    assert after == before and not attempt.kept


def test_what_was_tried_is_not_tried_again() -> None:
    before = subgoals("Hearts", "Drugs and imaging")
    [(_, _, _, name)] = repaired(Clarifier(), (), before)
    assert name == key(Finding("atomicity", ("drugs-and-imaging",)), before)
    assert repaired(Clarifier(), (), before, tried={name}) == []


def test_an_accepted_violation_neither_counts_nor_is_mended() -> None:
    """It stands before and after an attempt, and must not make the set look no better for it."""
    before = subgoals("Drugs and imaging", "Heart disease", "Heart surgery")
    let_be = key(Finding("disjointness", ("heart-disease", "heart-surgery")), before)
    [(after, _, attempt, _)] = repaired(Clarifier(), (), before, accepted={let_be})
    assert attempt.kept and [each.id for each in after] == ["drugs", "imaging", "heart-disease", "heart-surgery"]


def test_a_full_set_is_not_grown_for_a_sentence() -> None:
    before = subgoals(*(f"Th{n}" for n in range(MOST)))
    [(after, _, attempt, _)] = repaired(Clarifier(), ["It knows kidneys."], before)
    assert after == before and not attempt.kept


POOL = ["heart", "lungs", "drugs", "kidneys", "skin"]
NAMES = st.lists(st.sampled_from(POOL), min_size=1, max_size=3).map(" and ".join)
STATEMENTS = st.lists(
    st.lists(st.sampled_from(POOL), min_size=1, max_size=3).map(lambda things: f"It knows {' and '.join(things)}."),
    max_size=2,
    unique=True,
)
PROPOSALS = st.lists(NAMES, min_size=1, max_size=4)


@settings(deadline=None, max_examples=30)
@given(
    names=st.lists(NAMES, min_size=1, max_size=5, unique=True),
    statements=STATEMENTS,
    proposals=st.none() | st.lists(PROPOSALS, min_size=1, max_size=6),
)
def test_no_repair_makes_a_set_worse_and_repairing_ends(
    names: list[str], statements: list[str], proposals: list[list[str]] | None
) -> None:
    """Whatever the model proposes: sensible splits, or anything at all."""
    engine = Clarifier()
    if proposals:
        drawn = iter(proposals * 100)
        engine.written["repair"] = lambda _: {"names": next(drawn)}
    asker = Asker(engine)
    before = subgoals(*names)
    checked = check(asker, "Help", statements, before)
    standing = len(violations(checked.findings))
    current, seen = before, set[str]()
    for after, found, attempt, name in repair(asker, "Help", statements, before, checked):
        assert name not in seen
        seen.add(name)
        now = len(violations(found.findings))
        assert (now < standing) if attempt.kept else (now == standing and after == current)
        assert found == check(asker, "Help", statements, after)
        assert len({each.id for each in after}) == len({each.digest for each in after}) == len(after) >= 1
        assert len(after) <= max(MOST, len(current))
        standing, current = now, after
    left = check(asker, "Help", statements, current)
    assert {key(each, current) for each in violations(left.findings)} <= seen


# Replacing


@settings(deadline=None, max_examples=30)
@given(
    names=st.lists(st.sampled_from(["A", "B", "C", "D", "E", "a b", "A-B"]), max_size=5, unique=True),
    data=st.data(),
)
def test_the_others_stay_as_they_are_and_the_new_ones_stand_together(names: list[str], data: st.DataObject) -> None:
    before = tuple(Subgoal(f"s{n}", name, f"Mine {n}.") for n, name in enumerate(names))
    gone = data.draw(st.sets(st.sampled_from([each.id for each in before]))) if before else set[str]()
    new = data.draw(st.lists(st.sampled_from(["A", "b", "s1", "S-1", "s1.", "New", "A B", "a-b"]), max_size=4))
    after = replaced(Asker(Clarifier()), "Help", before, sorted(gone), new)
    rest = [each for each in before if each.id not in gone]
    assert [each for each in after if each in rest] == rest
    assert len({each.id for each in after}) == len(after)
    folded = [each.name.casefold() for each in after]
    for name in new:
        assert folded.count(name.strip(".").casefold()) >= 1
    for each in before:
        if each.id in gone and each.name.casefold() in {name.strip(".").casefold() for name in new}:
            twins = [other for other in before if other.name.casefold() == each.name.casefold()]
            assert any(twin in after for twin in twins)
    fresh = [place for place, each in enumerate(after) if each not in rest]
    assert fresh == list(range(fresh[0], fresh[0] + len(fresh))) if fresh else True
    if fresh and gone:
        assert list(after[: fresh[0]]) == list(before[: fresh[0]])


def test_a_new_name_does_not_take_the_id_of_one_that_stays() -> None:
    before = (Subgoal("drugs", "Foo", "Mine."), subgoal("Hearts"))
    after = replaced(Asker(Clarifier()), "Help", before, ["drugs"], ["Drugs", "Foo"])
    assert [(each.id, each.name) for each in after] == [("drugs-2", "Drugs"), ("drugs", "Foo"), ("hearts", "Hearts")]
    assert after[1] is before[0]


def test_a_name_that_stands_already_is_not_added_twice() -> None:
    before = subgoals("Hearts", "Drugs and hearts")
    after = replaced(Asker(Clarifier()), "Help", before, ["drugs-and-hearts"], ["Drugs", "hearts"])
    assert [each.name for each in after] == ["Hearts", "Drugs"] and after[0] is before[0]


def test_checking_is_the_same_twice_and_asks_nothing_the_second_time() -> None:
    engine = Clarifier()
    asker = Asker(engine)
    asked: Mapping[str, Any] = {"goal": "Help", "statements": SPECIFICATION}
    first = check(asker, subgoals=subgoals("Drugs and imaging", "Drugs"), **asked)
    before = len(engine.history)
    assert check(asker, subgoals=subgoals("Drugs and imaging", "Drugs"), **asked) == first
    assert len(engine.history) == before
