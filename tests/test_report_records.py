"""A validation's record, exact to six digits, and each removal's outcome: what it says of the judge, and what not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from validated import IDS, cell_by_hand, mix, record, removal_by_hand, small, values

from goalcover_local.report import records
from goalcover_local.report.records import judgement, outcomes
from goalcover_local.studies.corruption import corrupt

# The record


def test_the_record_is_what_was_found() -> None:
    found = mix("natural", None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["mix"], found["seed"], found["n_rows"]) == ("natural", None, 10)
    assert list(found["measures"]) == ["alignment", "graded support", "support"]
    first, second = found["measures"]["alignment"]["removals"]
    assert first == first | {
        "removal": "Heart rows",
        "target": "hearts",
        "kind": "removal",
        "n_removed": 4,
        "retention": 0.6,
        "most_affected": True,
    }
    assert (second["kind"], second["n_removed"], second["retention"]) == ("natural gap", 2, 0.8)
    told = {each["subgoal"]: each for each in first["subgoals"]}
    assert list(told) == list(IDS) and [each["target"] for each in told.values()] == [False, True, False]
    assert told["hearts"] == told["hearts"] | {
        "original": 0.44,
        "after": 0.2,
        "absolute": -0.24,
        "relative": -0.545455,
    }
    assert told["plain"] == told["plain"] | {"original": 0.6, "after": 0.6, "relative": 0.0, "p": 1.0}
    # Of 210 ways to remove four of ten rows one takes all that teach hearts.
    assert told["hearts"]["p"] == pytest.approx(1 / 210, abs=0.006)
    apart = found["measures"]["alignment"]["separation"]
    assert (apart["n"], apart["n_most_affected"]) == (1, 1)
    assert apart["target"] == 0.545455
    assert apart["others"] == pytest.approx((0.0 + (0.32 - 2 / 6) / 0.32) / 2, abs=1e-6)
    assert apart["d"] is None and apart["p"] is None, "one removal has no spread"
    assert found["measures"]["alignment"]["natural_gaps"]["n"] == 1
    lost = {each["subgoal"]: each for each in found["measures"]["graded support"]["removals"][0]["subgoals"]}
    assert (lost["hearts"]["original"], lost["hearts"]["after"], lost["hearts"]["relative"]) == (0.4, 0.0, -1.0)


@pytest.mark.parametrize(
    ("value", "told"),
    [(float("nan"), None), (1 / 3, 0.333333), (1 / 10001, 9.999e-05), (1.5e-9, 1.5e-09), (1.85e-16, 0.0)],
)
def test_numbers_keep_six_digits_however_small(value: float, told: float | None) -> None:
    assert records.number(value) == told


# Outcomes


def drawn(name: str, each: dict[str, Any], n_rows: int = 200) -> dict[str, Any]:
    return {"mix": name, "seed": None, "n_rows": n_rows, "measures": {"alignment": {"removals": [each]}}}


def mixes(each: dict[str, Any], *strategic: bool, n_rows: int = 200) -> list[dict[str, Any]]:
    """The natural mix with a removal, and strategic samples in which its target is flagged or not."""
    among = [drawn("strategic", {**each, "flagged": flagged, "n_removed": 40}) for flagged in strategic]
    return [drawn("natural", each, n_rows), *among]


def hearts(original: float | None = 0.44, relative: float | None = -0.5, p: float | None = 0.0005) -> dict[str, Any]:
    return cell_by_hand("hearts", original, 0.2, -0.2, relative, -0.6, -0.4, p, target=True)


PLAIN = cell_by_hand("plain", 0.6, 0.6, 0.0, 0.0, 0.0, 0.0, 1.0)
UNSEEN = {"flagged": False}
OUTCOMES: list[tuple[str, list[dict[str, Any]], str]] = [
    (
        "noticed",
        mixes(removal_by_hand(hearts(), PLAIN), True),
        "Heart rows: its removal lowers hearts by more than chance",
    ),
    (
        "noticed",
        mixes(removal_by_hand(hearts(), PLAIN), False, False),
        "Heart rows: its removal lowers hearts by more than chance",
    ),
    (
        "noticed among many only",
        mixes(removal_by_hand(hearts(p=0.4), PLAIN, **UNSEEN), True, True, False),
        "NOTICED ONLY AMONG MANY: Heart rows.",
    ),
    ("not noticed", mixes(removal_by_hand(hearts(p=0.4), PLAIN, **UNSEEN), True, False), "NOT NOTICED: Heart rows."),
    ("not noticed", mixes(removal_by_hand(hearts(p=0.4), PLAIN, **UNSEEN)), "NOT NOTICED: Heart rows."),
    (
        "not told apart",
        mixes(removal_by_hand(hearts(), PLAIN, most_affected=False), True),
        "NOT TOLD APART: Heart rows.",
    ),
    (
        "too little to lose",
        mixes(removal_by_hand(hearts(0.0123, None), PLAIN, most_affected=False), True),
        "TOO LITTLE TO LOSE: Heart rows. hearts falls by more than chance, but has 0.012 to lose",
    ),
    (
        "not tested",
        mixes(removal_by_hand(hearts(p=0.05), PLAIN, n_removed=1, **UNSEEN), True, n_rows=20),
        "NOT TESTED: Heart rows. It takes 1 of the 20 rows judged",
    ),
    (
        "not tested",
        mixes(removal_by_hand(hearts(None, None, None), PLAIN, n_removed=0, **UNSEEN), True),
        "NOT TESTED: Heart rows. It takes 0 of the 200 rows judged",
    ),
    (
        "control passed",
        mixes(removal_by_hand(hearts(p=0.4), PLAIN, kind="control", **UNSEEN), True),
        "Control passed: Heart rows, rows taken at random, lowers hearts no more than chance.",
    ),
    ("control flagged", mixes(removal_by_hand(hearts(), PLAIN, kind="control"), False), "CONTROL FLAGGED: Heart rows."),
]


@pytest.mark.parametrize(("outcome", "found", "sentence"), OUTCOMES)
def test_each_removal_has_its_outcome(outcome: str, found: list[dict[str, Any]], sentence: str) -> None:
    [told] = outcomes(found)
    assert (told["removal"], told["outcome"]) == ("Heart rows", outcome)
    assert told["sentence"].startswith(sentence) and told["sentence"].endswith(".")
    assert "{" not in told["sentence"] and "None" not in told["sentence"]


@pytest.mark.parametrize(
    ("n_removed", "n_rows", "outcome"),
    [
        (1, 100, "not tested"),
        (1, 101, "not noticed"),
        (100, 101, "not noticed"),
        (2, 14, "not tested"),
        (2, 15, "not noticed"),
        (13, 15, "not noticed"),
        (3, 9, "not tested"),
        (4, 9, "not noticed"),
        (500_000, 1_000_000, "not noticed"),
    ],
)
def test_what_no_drop_could_be_told_of_is_not_held_against_the_judge(n_removed: int, n_rows: int, outcome: str) -> None:
    each = removal_by_hand(hearts(p=0.01), PLAIN, n_removed=n_removed, **UNSEEN)
    assert outcomes(mixes(each, n_rows=n_rows))[0]["outcome"] == outcome


def test_one_row_of_ten_is_not_tested_however_far_its_target_falls() -> None:
    removed = np.array([np.arange(10) == 4])
    given = values()
    given[0, 2] = 0.2
    found = corrupt(given, removed, IDS, [2], names=["The only one"], n_draws=2000, n_replicates=100)
    [told] = outcomes([records.mix_record("natural", None, {"alignment": found})])
    assert found.effects[0].most_affected and not found.effects[0].flagged
    assert told["outcome"] == "not tested"


def test_one_mix_alone_is_judged_by_itself() -> None:
    each = removal_by_hand(hearts(p=0.4), PLAIN, **UNSEEN)
    assert outcomes([drawn("strategic", each)])[0]["outcome"] == "not noticed"
    assert outcomes([drawn("natural", each)])[0]["outcome"] == "not noticed"
    assert [each["outcome"] for each in record()["outcomes"]] == ["noticed", "not tested"], "2 of 10 rows are too few"


def test_the_natural_mix_decides_what_to_believe() -> None:
    found = small()
    assert judgement(found["outcomes"], 2) == [records.SEES]
    unseen = removal_by_hand(hearts(p=0.4), PLAIN, **UNSEEN)
    assert judgement(outcomes(mixes(unseen, False)), 2) == [
        "NOT NOTICED: Heart rows. Its removal does not lower hearts by more than chance: do not trust this judge's "
        "coverage of hearts on these data."
    ]


# What they say together


def told(*found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [each for one in found for each in outcomes(one)]


NOTICED = mixes(removal_by_hand(hearts(), PLAIN), True)
CONTROL = mixes(removal_by_hand(hearts(p=0.4), PLAIN, kind="control", removal="Null", **UNSEEN), False)
PASSED = "Control passed: Null, rows taken at random, lowers hearts no more than chance."


def test_of_one_subgoal_nothing_tells_whether_others_would_have_stayed() -> None:
    assert judgement(told(NOTICED), 2) == [records.SEES]
    assert judgement(told(NOTICED), 1) == [records.SEES_ONE]
    alone = mixes(removal_by_hand(hearts()), True)
    assert judgement(told(alone), 1) == [records.SEES_ONE]


def test_controls_alone_say_nothing_of_what_the_judge_sees() -> None:
    assert judgement(told(CONTROL), 2) == [records.ONLY_CONTROLS, PASSED]
    assert judgement(told(CONTROL), 1) == [records.ONLY_CONTROLS, PASSED]
    assert judgement(told(NOTICED, CONTROL), 2) == [records.SEES, PASSED]


@pytest.mark.parametrize(("outcome", "found", "sentence"), OUTCOMES)
def test_whatever_goes_wrong_nothing_says_that_the_judge_sees(
    outcome: str, found: list[dict[str, Any]], sentence: str
) -> None:
    said = judgement(told(found, NOTICED, CONTROL), 2)
    if outcome in ("noticed", "control passed"):
        assert records.SEES in said
    else:
        assert said[0].startswith(sentence) and said[1:] == [PASSED]
