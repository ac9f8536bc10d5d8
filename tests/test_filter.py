"""Which rows are kept, and why: rules, thresholds, weights, strata, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.errors import DataError
from goalcover_local.phases.filter import Criteria, Rule, Selection, parse_rule, select

IDS = ("treatment", "causes", "outlook")
NAN = float("nan")


def chosen(rows: list[list[float]], rule: str, **more: object) -> Selection:
    """The fate of these rows, each with a value for every one of the ids, as far as they go."""
    values = np.array(rows, dtype=float)
    return select(values, IDS[: values.shape[1]], Criteria(parse_rule(rule), **more))  # type: ignore[arg-type]


# Rules


@pytest.mark.parametrize(
    ("text", "rule", "written"),
    [
        ("mean >= 0.6", Rule("mean", 0.6), "mean >= 0.6"),
        ("any>=.6", Rule("any", 0.6), "any >= 0.6"),
        ("  MAX  ≥ 1 ", Rule("max", 1.0), "max >= 1"),
        ("all\t>=\n0", Rule("all", 0.0), "all >= 0"),
        ("top 50%", Rule("mean", 50.0, top=True), "top 50%"),
        ("top12.5 %  by  mean", Rule("mean", 12.5, top=True), "top 12.5%"),
        ("top 100% by max", Rule("max", 100.0, top=True), "top 100% by max"),
    ],
)
def test_a_rule_is_read_and_written(text: str, rule: Rule, written: str) -> None:
    assert (parse_rule(text), str(rule)) == (rule, written)
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        *("", "mean", "mean > 0.6", "mean >= 60", "min >= 0.6", "mean >= -0.1", "mean >= 0.6 and more", "mean >= nan"),
        *("top 0%", "top 101%", "top 50", "top 50% by all", "any >= 0.6.1", "any >= ٠"),
    ],
)
def test_what_is_no_rule_is_told_with_examples(text: str) -> None:
    with pytest.raises(DataError, match="is no rule") as told:
        parse_rule(text)
    assert "'any >= 0.6'" in told.value.mend and "'top 50%'" in told.value.mend


# Each rule


@pytest.mark.parametrize(
    ("rule", "row", "kept", "reason"),
    [
        ("mean >= 0.6", [0.9, 0.54], True, "mean 0.72 >= 0.6"),
        ("mean >= 0.6", [0.9, 0.2], False, "mean 0.55 < 0.6"),
        ("max >= 0.6", [0.2, 0.1], False, "max 0.20 < 0.6 (best: treatment)"),
        ("any >= 0.6", [0.2, 0.8], True, "any 0.80 >= 0.6 (best: causes)"),
        ("all >= 0.6", [0.8, 0.6], True, "all 0.60 >= 0.6 (lowest: causes)"),
        ("all >= 0.6", [0.2, 0.8], False, "all 0.20 < 0.6 (lowest: treatment)"),
        ("mean >= 0.6", [0.6, 0.5998], False, "mean 0.5999 < 0.6"),
        ("mean >= 0.6", [0.6 - 1e-12, 0.6 - 1e-12], True, "mean 0.60 >= 0.6"),
        ("any >= 0.6", [0.6 - 1e-12, 0.0], True, "any 0.60 >= 0.6 (best: treatment)"),
        ("any >= 0", [0.0, 0.0], True, "any 0.00 >= 0 (best: treatment)"),
    ],
)
def test_a_rule_keeps_with_a_reason_in_numbers(rule: str, row: list[float], kept: bool, reason: str) -> None:
    found = chosen([row], rule)
    assert (found.kept.tolist(), found.reasons) == ([kept], [reason])


@pytest.mark.parametrize(
    ("rule", "row", "kept", "reason"),
    [
        ("mean >= 0.6", [0.8, NAN], True, "mean 0.80 >= 0.6 (not yet judged, or failed: 1 of 2)"),
        ("any >= 0.6", [NAN, 0.7], True, "any 0.70 >= 0.6 (best: causes) (not yet judged, or failed: 1 of 2)"),
        ("max >= 0", [NAN, NAN], False, "not yet judged, or failed: 2 of 2"),
        ("all >= 0", [NAN, NAN], False, "not yet judged, or failed: 2 of 2"),
        ("mean >= 0", [NAN, NAN], False, "not yet judged, or failed: 2 of 2"),
        ("top 100%", [NAN, NAN], False, "not yet judged, or failed: 2 of 2"),
        ("all >= 0.6", [0.8, NAN], False, "not judged for all (not yet judged, or failed: 1 of 2)"),
        ("all >= 0.6", [0.2, NAN], False, "all 0.20 < 0.6 (lowest: treatment) (not yet judged, or failed: 1 of 2)"),
    ],
)
def test_what_is_missing_is_missing_and_never_0(rule: str, row: list[float], kept: bool, reason: str) -> None:
    found = chosen([row], rule)
    assert (found.kept.tolist(), found.reasons) == ([kept], [reason])


def test_a_row_that_was_not_drawn_says_so() -> None:
    found = select(np.array([[0.9], [NAN]]), ["treatment"], Criteria(Rule("any", 0.6)), np.array([True, False]))
    assert found.reasons[1] == "not drawn by the assessment (--limit)"
    assert found.kept.tolist() == [True, False]


def test_no_rows_are_no_trouble() -> None:
    for rule in ("any >= 0.6", "all >= 0.6", "mean >= 0.6", "top 50%"):
        found = select(np.empty((0, 2)), IDS[:2], Criteria(parse_rule(rule), at_least=3))
        assert (found.kept.shape, found.reasons) == ((0,), [])


# Thresholds


@pytest.mark.parametrize(
    ("rule", "row", "kept", "reason"),
    [
        ("any >= 0.6", [0.7, 0.5], False, "any 0.50 < 0.6 (best: causes)"),
        ("any >= 0.6", [0.9, 0.7], True, "any 0.90 >= 0.8 (best: treatment)"),
        ("all >= 0.6", [0.7, 0.65], False, "all 0.70 < 0.8 (lowest: treatment)"),
        ("mean >= 0.6", [0.7, 0.9], False, "mean 0.80 >= 0.6, but treatment 0.70 < 0.8"),
        ("mean >= 0.6", [0.8, 0.5], True, "mean 0.65 >= 0.6"),
        ("mean >= 0.6", [NAN, 0.9], False, "mean 0.90 >= 0.6, but treatment was not judged, 0.8 is asked"),
    ],
)
def test_a_threshold_stands_for_the_rules_value_or_beside_a_mean(
    rule: str, row: list[float], kept: bool, reason: str
) -> None:
    found = chosen([row], rule, thresholds={"treatment": 0.8})
    assert found.kept.tolist() == [kept]
    assert found.reasons[0].removesuffix(" (not yet judged, or failed: 1 of 2)") == reason


def test_a_threshold_by_a_top_leaves_rows_out_and_puts_no_others_in() -> None:
    found = chosen([[0.9, 0.9], [0.1, 1.0], [0.8, 0.1]], "top 60%", thresholds={"treatment": 0.5})
    assert found.kept.tolist() == [True, False, False]
    assert found.reasons[1] == "rank 2 of 3 by mean 0.55, top 60% are 2, but treatment 0.10 < 0.5"
    assert found.reasons[2] == "rank 3 of 3 by mean 0.45, top 60% are 2"


# Weights


def test_weights_count_in_the_mean_of_what_is_there() -> None:
    rows = [[0.9, 0.3], [NAN, 0.3], [0.9, NAN]]
    found = chosen(rows, "mean >= 0.6", weights={"treatment": 3})
    assert found.kept.tolist() == [True, False, True]
    assert found.reasons[0] == "mean 0.75 >= 0.6"


def test_a_weight_of_0_leaves_a_subgoal_out() -> None:
    found = chosen([[0.9, 0.0], [NAN, 1.0]], "mean >= 0.9", weights={"causes": 0})
    assert found.kept.tolist() == [True, False]
    assert found.reasons[1] == "not judged for any subgoal that has a weight (not yet judged, or failed: 1 of 2)"
    ranked = chosen([[0.9, 0.0], [NAN, 1.0]], "top 100%", weights={"causes": 0})
    assert ranked.kept.tolist() == [True, False]


@pytest.mark.parametrize(
    ("rule", "more", "told"),
    [
        ("mean >= 0.6", {"weights": {"cause": 1}}, "There is no subgoal 'cause'. Choose among treatment, causes."),
        ("mean >= 0.6", {"thresholds": {"x": 1}}, "There is no subgoal 'x'. Choose among treatment, causes."),
        ("mean >= 0.6", {"stratify": True}, "--stratify goes with a top share only, such as --keep 'top 50%'"),
        ("any >= 0.6", {"weights": {"causes": 2}}, "--weight goes with a mean only"),
        ("top 50% by max", {"weights": {"causes": 2}}, "--weight goes with a mean only"),
        ("mean >= 0.6", {"weights": {"causes": 0, "treatment": 0}}, "all are 0"),
        ("mean >= 0.6", {"weights": {"causes": -1}}, "below 0"),
        ("mean >= 0.6", {"weights": {"causes": float("inf")}}, "a weight above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(rule: str, more: dict[str, object], told: str) -> None:
    with pytest.raises(DataError) as error:
        chosen([[0.5, 0.5]], rule, **more)
    assert told in str(error.value)


# The top


def test_ties_in_a_top_go_by_the_order_of_rows() -> None:
    found = chosen([[0.5], [0.7], [0.5], [0.5]], "top 50%")
    assert found.kept.tolist() == [True, True, False, False]
    assert found.reasons[2] == "rank 3 of 4 by mean 0.50, top 50% are 2"


def test_a_top_by_max_ranks_by_the_best_subgoal() -> None:
    rows = [[0.5, 0.5], [0.9, 0.0]]
    assert chosen(rows, "top 50%").kept.tolist() == [True, False]
    assert chosen(rows, "top 50% by max").kept.tolist() == [False, True]
    assert chosen(rows, "top 50% by max").reasons[1] == "rank 1 of 2 by max 0.90, top 50% are 1"


def test_strata_keep_a_rare_subgoal() -> None:
    rows = [[0.9, 0.1]] * 6 + [[0.1, 0.3], [0.1, 0.2]]
    assert not chosen(rows, "top 50%").kept[6:].any()
    found = chosen(rows, "top 50%", stratify=True)
    assert found.kept.tolist() == [True] * 3 + [False] * 3 + [True, False]
    assert found.reasons[6] == "rank 1 of 2 where causes is best by mean 0.20, top 50% are 1"


# At least


def test_at_least_keeps_the_best_that_support_a_subgoal() -> None:
    rows = [[0.0, 0.6], [0.0, 0.9], [0.0, 0.59], [0.0, 0.9]]
    found = chosen(rows, "mean >= 0.6", at_least=2)
    assert found.kept.tolist() == [False, True, False, True]
    assert found.reasons[3] == "kept for causes: row 2 of 3 that support it"
    assert found.reasons[0] == "mean 0.30 < 0.6"
    assert chosen(rows, "mean >= 0.6", at_least=9).kept.tolist() == [True, True, False, True]


def test_a_row_that_the_rule_keeps_keeps_its_reason() -> None:
    assert chosen([[0.9, 0.7]], "mean >= 0.6", at_least=1).reasons == ["mean 0.80 >= 0.6"]


# Whatever the values

cells = st.one_of(st.just(NAN), st.floats(0, 1), st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]))
tables = st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=12).map(lambda rows: np.array(rows, dtype=float))
thresholds = st.dictionaries(st.sampled_from(IDS), st.floats(0, 1))
by_value = st.sampled_from(["mean", "max", "any", "all"])


@given(tables, by_value, st.floats(0, 1), st.floats(0, 1), thresholds, st.integers(0, 3))
def test_a_lower_value_never_loses_a_row(
    values: np.ndarray, measure: str, one: float, other: float, limits: dict[str, float], at_least: int
) -> None:
    low, high = (
        select(values, IDS, Criteria(Rule(measure, bound), limits, at_least=at_least)).kept  # type: ignore[arg-type]
        for bound in sorted((one, other))
    )
    assert not (high & ~low).any()


@given(tables, st.sampled_from(["any >= 0.5", "all >= 0.5", "mean >= 0.5", "top 50%"]), thresholds, st.floats(0, 1))
def test_a_lower_threshold_never_loses_a_row(
    values: np.ndarray, rule: str, limits: dict[str, float], factor: float
) -> None:
    lower = {identity: bound * factor for identity, bound in limits.items()}
    high, low = (select(values, IDS, Criteria(parse_rule(rule), given_)).kept for given_ in (limits, lower))
    assert not (high & ~low).any()


@given(tables, by_value, st.floats(0, 1), thresholds)
def test_equal_rows_have_equal_fates(values: np.ndarray, measure: str, bound: float, limits: dict[str, float]) -> None:
    twice = np.concatenate([values, values[::-1]])
    found = select(twice, IDS, Criteria(Rule(measure, bound), limits))  # type: ignore[arg-type]
    assert found.kept.tolist() == found.kept[::-1].tolist()
    assert found.reasons == found.reasons[::-1]


@given(tables, st.sampled_from(["mean >= 0.5", "top 40%"]), st.sampled_from([0.001, 0.5, 7.0, 1e6]))
def test_weights_count_by_their_ratios(values: np.ndarray, rule: str, factor: float) -> None:
    weights = {"treatment": 2.0, "causes": 0.0, "outlook": 0.3}
    values = values.round(4)
    scaled = {identity: factor * weight for identity, weight in weights.items()}
    one, other = (select(values, IDS, Criteria(parse_rule(rule), weights=w)) for w in (weights, scaled))
    assert one.kept.tolist() == other.kept.tolist()


@given(tables, st.sampled_from(["all >= 1", "mean >= 1", "top 1%"]), thresholds, st.integers(0, 6))
def test_at_least_so_many_support_each_subgoal(
    values: np.ndarray, rule: str, limits: dict[str, float], at_least: int
) -> None:
    kept = select(values, IDS, Criteria(parse_rule(rule), limits, at_least=at_least)).kept
    supporting = values >= 0.6 - 1e-9
    for column in range(len(IDS)):
        there, held = supporting[:, column].sum(), (supporting[:, column] & kept).sum()
        assert held >= min(at_least, there)


@given(tables, st.sampled_from([1, 10, 33.3, 50, 66, 100]), st.booleans(), st.sampled_from(["mean", "max"]))
def test_a_top_has_its_share_and_no_better_row_outside(
    values: np.ndarray, percent: float, stratify: bool, measure: str
) -> None:
    rule = Rule(measure, percent, top=True)  # type: ignore[arg-type]
    kept = select(values, IDS, Criteria(rule, stratify=stratify)).kept
    judged = ~np.isnan(values).all(axis=1)
    assert not kept[~judged].any()
    filled = np.where(np.isnan(values), -1, values)
    strata = filled.argmax(axis=1) if stratify else np.zeros(len(values), dtype=int)
    with np.errstate(invalid="ignore"):
        means = np.where(np.isnan(values), 0, values).sum(axis=1) / (~np.isnan(values)).sum(axis=1)
    numbers = means if measure == "mean" else filled.max(axis=1)
    for stratum in set(strata[judged].tolist()):
        rows = judged & (strata == stratum)
        n = rows.sum()
        assert kept[rows].sum() == -int(-n * percent // 100)
        inside, outside = numbers[rows & kept], numbers[rows & ~kept]
        assert not len(outside) or inside.min() >= outside.max() - 2e-9


@given(tables, by_value, st.floats(0, 1))
def test_a_missing_value_is_not_as_a_0(values: np.ndarray, measure: str, bound: float) -> None:
    """By a mean or the best, a row with values missing has the fate of one that never had those columns."""
    kept = select(values, IDS, Criteria(Rule(measure, bound))).kept  # type: ignore[arg-type]
    for row, was_kept in zip(values, kept, strict=True):
        there = row[~np.isnan(row)]
        number = {"mean": np.mean, "all": np.min}.get(measure, np.max)
        whole = len(there) == len(row) if measure == "all" else len(there) > 0
        if whole and abs(number(there) - bound) > 1e-8:
            assert was_kept == (number(there) >= bound)
        elif not whole:
            assert not was_kept
