"""Recommendations: every number is true by arithmetic, and where no model writes there are plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from analyst import Analyst
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from goalcover_local.asking import Asker
from goalcover_local.cli.terminal import counted
from goalcover_local.phases.recommend import NAMED, Surroundings, issue, missing_rows, recommend
from goalcover_local.stats import rows_to_share, share_interval, verdict
from goalcover_local.terms import Action, Coverage, Estimate, Gap, MissingCapability, Recommendation, Subgoal

TARGETS = st.floats(0.001, 0.999)
NEAR = ("aa", "bb", "cc")


def capability(name: str) -> MissingCapability:
    return MissingCapability(name, ("aa",), 1, (("aa", name),))


def gap(n_judged: int, n_support: int, *missing: str, instead: tuple[str, ...] = ()) -> Gap:
    low = n_judged - n_support
    return Gap("bread", n_judged, n_support, low, low, tuple(map(capability, missing)), tuple(map(capability, instead)))


def covered(n_judged: int, n_support: int, target: float = 0.05) -> Coverage:
    subgoal = Subgoal("bread", "Baking bread", "How bread is baked.", target_share=target)
    support = Estimate(n_support / max(1, n_judged), 0.0, 0.1, n_judged)
    return Coverage(subgoal, {}, (), support, n_support, n_judged, 0, True, "gap")


def one(
    found: Gap, around: Surroundings, *, target: float = 0.05, asker: Asker | None = None, author: str = ""
) -> Recommendation:
    [written] = recommend(asker, author, [(found, covered(found.n_judged, found.n_support, target), around)])
    return written


def plainly(n_judged: int, n_support: int, n_idle: int = 0, *, target: float = 0.05) -> dict[str, Action]:
    """The actions where every row was judged, by remedy."""
    around = Surroundings(n_judged, n_judged, n_idle, ())
    return {action.remedy: action for action in one(gap(n_judged, n_support), around, target=target).actions}


# How many rows are missing


@settings(deadline=None)
@given(n=st.integers(1, 10**6), data=st.data(), target=TARGETS)
def test_so_many_rows_reach_the_target_and_one_less_does_not(n: int, data: st.DataObject, target: float) -> None:
    hits = data.draw(st.integers(0, n))
    missing = rows_to_share(hits, n, target)
    assert (hits + missing) / (n + missing) >= target - 1e-9
    assert missing == 0 or (hits + missing - 1) / (n + missing - 1) < target + 1e-9
    assert missing == 0 or hits / n < target


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 5000), data=st.data(), target=st.floats(0.001, 0.98))
def test_so_many_rows_make_it_sure_and_one_less_does_not(n: int, data: st.DataObject, target: float) -> None:
    hits = data.draw(st.integers(0, n))
    sure = rows_to_share(hits, n, target, surely=True)
    assert verdict(share_interval(hits + sure, n + sure), target) == "covered"
    assert sure == 0 or verdict(share_interval(hits + sure - 1, n + sure - 1), target) != "covered"
    assert n == 0 or sure >= rows_to_share(hits, n, target)


@pytest.mark.parametrize(
    ("hits", "n", "target", "missing"),
    [(0, 100, 0.05, 6), (0, 4, 0.2, 1), (0, 95, 0.05, 5), (0, 96, 0.05, 6), (5, 100, 0.05, 0), (0, 1, 0.5, 1)],
)
def test_cases_counted_by_hand(hits: int, n: int, target: float, missing: int) -> None:
    assert rows_to_share(hits, n, target) == missing


@settings(deadline=None)
@given(n_rows=st.integers(1, 10**5), data=st.data(), target=TARGETS)
def test_of_a_dataset_judged_in_part_the_share_stands_for_the_whole(
    n_rows: int, data: st.DataObject, target: float
) -> None:
    n_judged = data.draw(st.integers(1, n_rows))
    n_support = data.draw(st.integers(0, n_judged))
    around = Surroundings(n_rows, n_judged, 0, ())
    missing = missing_rows(gap(n_judged, n_support), covered(n_judged, n_support, target), around)
    hits = n_support / n_judged * n_rows
    assert (hits + missing + 1) / (n_rows + missing) >= target - 1e-9
    assert missing == 0 or (hits + missing - 2) / (n_rows + missing - 1) < target + 1e-9


# Actions


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), data=st.data(), target=st.floats(0.01, 0.9))
@example(n=100, data=None, target=0.05)
def test_the_numbers_of_the_actions_are_true(n: int, data: st.DataObject | None, target: float) -> None:
    hits = data.draw(st.integers(0, n)) if data else 2
    idle = data.draw(st.integers(0, n - hits)) if data else 40
    assume(verdict(share_interval(hits, n), target) == "gap")
    actions = plainly(n, hits, idle, target=target)
    assert "assess" not in actions
    assert actions["curate"].n_rows == actions["synthesize"].n_rows == rows_to_share(hits, n, target) > 0
    assert actions["curate"].text.startswith(f"Collect {counted(actions['curate'].n_rows, 'row')} or more")
    assert f"target share of {100 * target:g}%" in actions["curate"].text
    [sure] = map(int, re.findall(r"about (\d+) make", actions["synthesize"].text))
    assert verdict(share_interval(hits + sure, n + sure), target) == "covered"
    assert verdict(share_interval(hits + sure - 1, n + sure - 1), target) != "covered"
    assert ("filter" in actions) == (idle > 0 and hits > 0)
    if "filter" in actions:
        before, after = map(float, re.findall(r"([\d.]+)%", actions["filter"].text))
        assert actions["filter"].n_rows == idle
        assert before == pytest.approx(100 * hits / n, abs=0.051)
        assert after == pytest.approx(100 * hits / (n - idle), abs=0.051)


def test_most_certain_comes_first() -> None:
    around = Surroundings(1000, 200, 50, NEAR)
    written = one(gap(200, 2, "sourdough"), around)
    assert [action.remedy for action in written.actions] == ["assess", "curate", "synthesize", "filter"]
    assert written.actions[0].n_rows == 800 and "800 rows" in written.actions[0].text
    assert written.n_missing == written.actions[1].n_rows == rows_to_share(10, 1000, 0.05) == 43
    assert written.near == NEAR and "come near (3)" in written.actions[1].text


def test_of_a_dataset_judged_in_part_what_makes_it_sure_is_told_for_the_whole() -> None:
    found = gap(200, 2)
    actions = {each.remedy: each for each in one(found, Surroundings(1000, 200, 0, ())).actions}
    [sure] = map(int, re.findall(r"about (\d+) make", actions["synthesize"].text))
    assert sure == 5 * rows_to_share(2, 200, 0.05, surely=True) > actions["synthesize"].n_rows == 43


def test_rows_whose_judgement_failed_were_drawn_all_the_same() -> None:
    remedies = [[each.remedy for each in one(gap(97, 2), Surroundings(n, 100, 0, ())).actions] for n in (100, 101)]
    assert remedies == [["curate", "synthesize"], ["assess", "curate", "synthesize"]]


def test_where_the_mean_alone_is_low_nothing_need_be_added() -> None:
    """As the paper's rule has it: of ten subgoals that compete no mean is high."""
    actions = plainly(200, 50, 30, target=0.05)
    assert set(actions) == {"curate", "filter"} and actions["curate"].n_rows == 0
    assert actions["curate"].text.startswith("Nothing need be added for the target share of 5%: 25.0% support it.")


def test_leaving_rows_out_makes_nothing_of_nothing() -> None:
    assert set(plainly(100, 0, 100)) == {"curate", "synthesize"}


def test_nothing_judged_is_not_called_absent() -> None:
    written = one(gap(0, 0), Surroundings(10, 0, 0, ()))
    assert "No row of 0" not in written.issue


# Words


def test_without_a_model_the_words_are_set() -> None:
    found = gap(200, 0, "sourdough", "proving", instead=("cakes",))
    written = one(found, Surroundings(200, 200, 0, ()))
    assert written.issue == "No row of 200 supports “Baking bread”; low rows are about cakes."
    assert written.fix == "Add examples of “Baking bread”, above all of: sourdough; proving."
    assert written.author == "" and written.subgoal == "bread"
    assert "on sourdough; proving, to reach" in written.actions[0].text
    some = gap(200, 3)
    assert issue(some, covered(200, 3)) == "3 of 200 rows support “Baking bread”."
    assert one(some, Surroundings(200, 200, 0, ())).fix == "Add examples of “Baking bread”."


def test_at_most_four_capabilities_are_named() -> None:
    names = [f"thing{n}" for n in range(8)]
    written = one(gap(50, 0, *names), Surroundings(50, 50, 0, ()))
    assert sum(name in written.fix for name in names) == NAMED
    assert sum(name in written.actions[0].text for name in names) == NAMED


def test_a_model_writes_issue_fix_and_sources() -> None:
    asker = Asker(Analyst())
    found = gap(200, 0, "sourdough", instead=("cakes",))
    written = one(found, Surroundings(200, 200, 0, ()), asker=asker, author="clever")
    assert written.issue == "There is hardly anything on Baking bread." and written.author == "clever"
    assert written.fix == "Add samples on sourdough."
    assert "Where they are usually found: Libraries." in written.actions[0].text
    assert written.n_missing == one(found, Surroundings(200, 200, 0, ())).n_missing


def answering(answer: Mapping[str, Any]) -> Asker:
    """An asker of a model that writes this whatever it is asked to recommend."""
    model = Analyst()
    model.written["recommendation"] = lambda _: answer
    return Asker(model)


EXAMPLE = Asker(Analyst()).question("recommendation").examples[0]["answer"]


@pytest.mark.parametrize(
    "answer",
    [
        {"issue": "", "fix": "Add.", "sources": "Books."},
        {"issue": "No bread.", "fix": " ", "sources": "Books."},
        EXAMPLE,
        {**EXAMPLE, "issue": "No bread."},
        {"issue": "Only 12 rows.", "fix": "Add some.", "sources": "Books."},
        {"issue": "No bread.", "fix": "Add 5 % more.", "sources": "Books."},
        {"issue": "No bread.", "fix": "Add some.", "sources": "The 40 best books."},
    ],
    ids=["no issue", "no fix", "an example", "an example's fix", "a count", "a share", "a number among sources"],
)
def test_what_is_empty_parroted_or_a_number_of_its_own_is_not_taken(answer: Mapping[str, str]) -> None:
    around = Surroundings(200, 200, 0, ())
    assert one(gap(200, 0), around, asker=answering(answer), author="parrot") == one(gap(200, 0), around)


def test_no_number_is_a_models_own() -> None:
    """Numbers are counted: one that a model makes up would stand beside them."""
    answer = {"issue": "Only 777 rows.", "fix": "Add 12345 rows.", "sources": "Books."}
    written = one(gap(200, 0), Surroundings(200, 200, 0, ()), asker=answering(answer), author="clever")
    assert not {"777", "12345"} & set(re.findall(r"\d+", written.issue + written.fix))


def test_where_a_model_fails_the_words_are_set_and_it_is_counted() -> None:
    model = Analyst()
    model.fails_on = "bread"
    asker = Asker(model)
    around = Surroundings(200, 200, 0, ())
    assert one(gap(200, 0), around, asker=asker, author="broken") == one(gap(200, 0), around)
    assert asker.failures == {"scripted failure": 1}


def test_recommendations_stand_in_the_order_of_the_gaps() -> None:
    around = Surroundings(200, 200, 0, ())
    gaps = []
    for name in ("ropes", "bread", "stars"):
        subgoal = Subgoal(name, name.title(), "…", target_share=0.05)
        share = Estimate(0, 0, 0.01, 200)
        gaps.append((Gap(name, 200, 0, 9, 9), Coverage(subgoal, {}, (), share, 0, 200, 0, True, "gap"), around))
    model = Analyst()
    model.fails_on = "Bread"
    written = recommend(Asker(model), "clever", gaps)
    assert [each.subgoal for each in written] == ["ropes", "bread", "stars"]
    assert [each.author for each in written] == ["clever", "", "clever"]
    assert [name in each.issue for name, each in zip(("Ropes", "Bread", "Stars"), written, strict=True)] == [True] * 3
    assert recommend(None, "", []) == []


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40))
def test_whatever_a_model_writes_stays_on_one_line(text: str) -> None:
    answer = {"issue": text, "fix": f"Do {text}", "sources": text}
    written = one(gap(200, 0, "sourdough"), Surroundings(200, 200, 0, ()), asker=answering(answer), author="free")
    for told in (written.issue, written.fix, *(action.text for action in written.actions)):
        assert told and len(told.splitlines()) == 1
