"""Coverage: verdicts from judgements, rows counted as often as they stand, and nothing made of what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.calibration import Calibration, HumanLabels
from goalcover_local.coverage import LEAST_RANDOM_LABELS, combined, coverage, values
from goalcover_local.scales import Scale
from goalcover_local.terms import ANCHORS, Coverage, Goal, Subgoal, Value

NAN = float("nan")
GOAL = Goal("A goal.", subgoals=(Subgoal("one", "One", "First.", target_share=0.2),))
SCALE = Scale((-3.0, 3.0), (0.0, 1.0), "reference", 0.8)


def covered(
    scores: list[float], *, value: Value = "score", goal: Goal = GOAL, failed: list[bool] | None = None, **rule: object
) -> Coverage:
    column = np.array(scores, dtype=float)[:, None]
    lost = np.isnan(column) if failed is None else np.array(failed)[:, None]
    found = coverage(goal, {value: column}, lost, value=value, **rule)  # type: ignore[arg-type]
    assert len(found) == 1
    return found[0]


def judged(*scores: float) -> np.ndarray:
    """Probabilities of a judge that is nearly sure of each score, shape (n, 6); NaN gives a missing one."""
    rows = [
        [NAN] * 6 if np.isnan(score) else [0.95 if anchor == score else 0.01 for anchor in ANCHORS] for score in scores
    ]
    return np.array(rows)


@pytest.mark.parametrize(
    ("n_support", "n", "verdict"), [(0, 50, "gap"), (40, 50, "covered"), (10, 50, "undecided"), (1, 2, "undecided")]
)
def test_the_verdict_compares_support_to_the_target_share(n_support: int, n: int, verdict: str) -> None:
    found = covered([0.8] * n_support + [0.0] * (n - n_support))
    assert (found.verdict, found.n_support, found.n_judged, found.n_failed) == (verdict, n_support, n, 0)
    assert found.support.value == pytest.approx(n_support / n)


def test_a_sparse_but_sufficient_subgoal_is_covered_although_its_mean_is_low() -> None:
    found = covered([1.0] * 40 + [0.0] * 60)
    assert (found.verdict, found.below_tau) == ("covered", True)
    assert found.alignment["score"].value == pytest.approx(0.4)


@pytest.mark.parametrize(("scores", "verdict"), [([0.8, 0.2, 0.2], "gap"), ([0.8, 0.6, 0.4], "covered")])
def test_the_papers_rule_asks_for_the_mean(scores: list[float], verdict: str) -> None:
    found = covered(scores, rule="mean")
    assert (found.verdict, found.below_tau) == (verdict, verdict == "gap")


def test_tau_moves_the_papers_rule_and_nothing_else() -> None:
    assert covered([0.4] * 30, rule="mean", tau=0.3).verdict == "covered"
    assert covered([0.4] * 30, rule="mean").verdict == "gap"
    assert covered([0.4] * 30, tau=0.3).verdict == "gap"
    assert not covered([0.4] * 30, tau=0.3).below_tau


def test_a_mean_at_tau_is_not_below_it() -> None:
    assert not covered([0.25, 0.75], tau=0.5).below_tau


def test_missing_is_never_0() -> None:
    found = covered([0.8, NAN, NAN, NAN])
    assert found.alignment["score"].value == 0.8
    assert (found.support.value, found.n_judged, found.n_failed) == (1.0, 1, 3)
    assert found.shares[0] == 0 and found.shares[4] == 1


def test_what_was_never_asked_is_not_a_failure() -> None:
    found = covered([0.8, NAN, NAN], failed=[False, True, False])
    assert (found.n_judged, found.n_failed) == (1, 1)


@pytest.mark.parametrize("rule", ["support", "mean"])
def test_all_missing_is_undecided(rule: str) -> None:
    found = covered([NAN] * 50, rule=rule)
    assert (found.verdict, found.n_judged, found.n_failed, found.below_tau) == ("undecided", 0, 50, False)
    assert np.isnan(found.support.value) and np.isnan(found.alignment["score"].value)


@pytest.mark.parametrize("rule", ["support", "mean"])
def test_no_rows_are_undecided(rule: str) -> None:
    assert covered([], rule=rule).verdict == "undecided"


def test_rows_count_as_often_as_they_stand() -> None:
    once, thrice = covered([0.8, 0.0]), covered([0.8, 0.8, 0.8, 0.0])
    assert (once.support.value, thrice.support.value) == (0.5, 0.75)
    assert (once.n_judged, thrice.n_judged) == (2, 4)
    assert thrice.alignment["score"].value == pytest.approx(0.6)


@given(scores=st.lists(st.sampled_from([*ANCHORS, NAN]), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_the_order_of_rows_is_of_no_account(scores: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(scores).tolist()
    one, other = covered(scores), covered(shuffled)
    assert (one.verdict, one.n_support, one.n_judged) == (other.verdict, other.n_support, other.n_judged)
    np.testing.assert_allclose(one.shares, other.shares)


def test_every_subgoal_has_its_own_column_and_target() -> None:
    goal = Goal("A goal.", subgoals=(Subgoal("a", "A", "", target_share=0.9), Subgoal("b", "B", "", target_share=0.1)))
    column = np.array([[1.0, 1.0]] * 10 + [[0.0, 0.0]] * 10)
    found = coverage(goal, {"score": column}, np.zeros((20, 2), dtype=bool), value="score")
    assert [(c.subgoal.id, c.verdict) for c in found] == [("a", "gap"), ("b", "covered")]


def test_every_value_that_exists_is_reported_and_one_is_chosen() -> None:
    arrays = {"score": np.array([[0.0]] * 30), "expectation": np.array([[0.9]] * 30)}
    failed = np.zeros((30, 1), dtype=bool)
    by_score = coverage(GOAL, arrays, failed, value="score")[0]
    by_expectation = coverage(GOAL, arrays, failed, value="expectation")[0]
    assert by_score.alignment == by_expectation.alignment
    assert set(by_score.alignment) == {"score", "expectation"}
    assert (by_score.verdict, by_expectation.verdict) == ("gap", "covered")


def test_values_are_score_expectation_and_with_a_scale_corrected() -> None:
    probabilities, reference = judged(1.0, 0.0, NAN)[:, None], np.stack([judged(0.0, 0.0, 0.0)] * 3, axis=1)
    unbiased = np.zeros(1)
    assert set(values(probabilities, reference, unbiased, None)) == {"score", "expectation"}
    found = values(probabilities, reference, unbiased, SCALE)
    assert set(found) == {"score", "expectation", "corrected"}
    for array in found.values():
        assert array.shape == (3, 1)
        assert np.isnan(array[2]) and not np.isnan(array[:2]).any()
        assert array[0] > array[1]


def test_a_subgoals_own_bias_is_taken_off_its_column() -> None:
    probabilities, reference = np.stack([judged(0.4, 0.6)] * 2, axis=1), np.stack([judged(0.4, 0.4)] * 3, axis=1)
    found = values(probabilities, reference, np.array([0.0, 0.5]), SCALE)
    assert (found["corrected"][:, 1] < found["corrected"][:, 0]).all()
    assert (found["expectation"][:, 1] == found["expectation"][:, 0]).all()


def test_without_any_reference_a_sample_has_no_corrected_value() -> None:
    probabilities = judged(1.0, 1.0)[:, None]
    reference = np.stack([judged(0.0, NAN), judged(NAN, NAN)], axis=1)
    corrected = values(probabilities, reference, np.zeros(1), SCALE)["corrected"][:, 0]
    assert np.isnan(corrected).tolist() == [False, True]
    no_bias_known = values(probabilities, reference, np.full(1, NAN), SCALE)
    assert np.isnan(no_bias_known["corrected"]).all() and not np.isnan(no_bias_known["score"]).any()


# Calibrated values and people's labels

STEEP = Calibration((0.2, 0.8), (0.0, 1.0), "j", "g", "expectation", 40, 0.8, 0.1, 0.3)


def labelled(n: int, n_labels: int, *, random: bool = True, label: float = 1.0) -> HumanLabels:
    """The labels of the first rows of one subgoal, all alike; maps that did not see them say the same."""
    said = np.full((n, 1), NAN)
    said[:n_labels] = label
    return HumanLabels(said, np.full((n, 1), random), said.copy())


def by_labels(column: np.ndarray, labels: HumanLabels | None, **more: object) -> Coverage:
    failed = np.zeros(column.shape, dtype=bool)
    found = coverage(GOAL, {"calibrated": column}, failed, value="calibrated", labels=labels, **more)  # type: ignore[arg-type]
    return found[0]


def test_a_calibration_adds_its_value_where_its_source_is() -> None:
    probabilities, reference = judged(1.0, NAN)[:, None], judged(0.0, 0.0)[:, None]
    found = values(probabilities, reference, np.zeros(1), None, STEEP)
    np.testing.assert_array_equal(found["calibrated"], STEEP.apply(found["expectation"]))
    assert np.isnan(found["calibrated"]).tolist() == [[False], [True]]
    of_corrected = Calibration((0.2, 0.8), (0.0, 1.0), "j", "g", "corrected", 40, 0.8, 0.1, 0.3)
    assert set(values(probabilities, reference, np.zeros(1), None, of_corrected)) == {"score", "expectation"}


def test_the_verdict_follows_the_labels_and_the_count_the_judge() -> None:
    """The judge sees support nowhere, but of 30 rows drawn at random people find it in every second."""
    column = np.zeros((300, 1))
    labels = labelled(300, 30)
    labels.values[:30:2] = 0.0
    labels.blind[:30] = 0.0
    found = by_labels(column, labels)
    assert (found.n_support, found.n_judged, found.verdict) == (0, 300, "covered")
    assert found.support.value == pytest.approx(0.5) and found.support.low > 0.2
    assert by_labels(column, None).verdict == "gap"
    assert by_labels(column, labels, rule="mean").verdict == "gap"


def test_labels_count_for_the_calibrated_value_alone() -> None:
    column = np.zeros((300, 1))
    found = coverage(GOAL, {"score": column, "calibrated": column}, column > 1, value="score", labels=labelled(300, 30))
    assert (found[0].support.value, found[0].verdict) == (0.0, "gap")


@pytest.mark.parametrize(
    "labels",
    [labelled(300, LEAST_RANDOM_LABELS - 1), labelled(300, 100, random=False)],
    ids=["too few", "none drawn at random"],
)
def test_an_interval_needs_random_labels(labels: HumanLabels) -> None:
    column = np.zeros((300, 1))
    assert by_labels(column, labels) == by_labels(column, None)
    assert by_labels(column, labelled(300, LEAST_RANDOM_LABELS)).support.value == 1.0


def test_a_judge_that_knows_narrows_the_interval() -> None:
    """Calibrated values that never reach 0.6 still tell of the labels."""
    truth = (np.arange(600) % 4 == 0).astype(float)[:, None]
    there = np.arange(600)[:, None] < 60
    knows, guesses = (
        by_labels(said, HumanLabels(np.where(there, truth, NAN), np.ones((600, 1), dtype=bool), said))
        for said in (0.5 * truth, np.full((600, 1), 0.1))
    )
    assert knows.n_support == 0
    assert knows.support.value == pytest.approx(0.25, abs=0.01)
    assert knows.support.high - knows.support.low < 0.9 * (guesses.support.high - guesses.support.low)


def test_labelled_rows_are_taken_as_maps_saw_them_that_did_not_see_their_labels() -> None:
    """Where the map has learnt its labels by heart and is worth nothing elsewhere, the interval is not narrower."""
    random = np.random.default_rng(0)
    truth, noise = (random.random((400, 1)) < 0.5).astype(float), random.random((400, 1))
    there = np.arange(400)[:, None] < 80
    by_heart = np.where(there, truth, noise)
    found, flattered = (
        by_labels(by_heart, HumanLabels(np.where(there, truth, NAN), np.ones((400, 1), dtype=bool), blind)).support
        for blind in (noise, by_heart)
    )
    assert found.high - found.low > 1.1 * (flattered.high - flattered.low)


# Panels


def test_a_panel_is_the_mean_or_median_of_those_that_answered() -> None:
    panel = [{"score": np.array([[a], [b]])} for a, b in ((0.0, NAN), (0.2, NAN), (1.0, NAN))]
    assert combined(panel, "mean")["score"][0, 0] == pytest.approx(0.4)
    assert combined(panel, "median")["score"][0, 0] == pytest.approx(0.2)
    assert np.isnan(combined(panel, "mean")["score"][1, 0])
    panel[0]["score"][1, 0] = 0.7
    assert combined(panel, "mean")["score"][1, 0] == 0.7


def test_a_panel_has_the_values_that_all_its_judges_have() -> None:
    one, other = {"score": np.zeros((1, 1)), "corrected": np.zeros((1, 1))}, {"score": np.ones((1, 1))}
    assert set(combined([one, other], "mean")) == set(combined([other, one], "median")) == {"score"}


@pytest.mark.filterwarnings("error")
def test_a_panel_of_which_none_answered_warns_of_nothing() -> None:
    assert np.isnan(combined([{"score": np.full((2, 2), NAN)}] * 2, "median")["score"]).all()
