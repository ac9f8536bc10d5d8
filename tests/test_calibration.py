"""Calibration: a map that is scikit-learn's, worth what unseen labels say, and refused where nothing can be learnt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression

from goalcover_local.calibration import LEAST_AGREEMENT, LEAST_LABELS, Calibration, Fitted, fit
from goalcover_local.errors import DataError

NAN = float("nan")


def people(n: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A judge's values, yes-or-no labels that they tell of as well as the noise lets them, and a sample for each."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.4).astype(float)
    values = np.clip(0.4 + 0.2 * labels + noise * random.normal(size=n), 0, 1)
    return values, labels, np.arange(n)


def fitted(
    values: np.ndarray,
    labels: np.ndarray,
    samples: np.ndarray,
    subgoals: np.ndarray | None = None,
    **more: float,
) -> Fitted:
    """The fit, of one subgoal if none are told."""
    asked = np.zeros(len(values), dtype=np.int64) if subgoals is None else subgoals
    return fit(values, labels, samples, asked, judge="a" * 64, goal="b" * 64, **more)  # type: ignore[arg-type]


def of_two_subgoals(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of a subgoal that most rows support and of one that few do, with samples and subgoals."""
    subgoals = np.tile([0, 1], n)
    labels = (np.random.default_rng(seed).random(2 * n) < np.where(subgoals == 0, 0.9, 0.1)).astype(float)
    return labels, np.repeat(np.arange(n), 2), subgoals


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), noise=st.floats(0.01, 0.5))
def test_the_knots_are_the_map_of_scikit_learn(seed: int, noise: float) -> None:
    values, labels, samples = people(60, noise=noise, seed=seed)
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, labels)
    asked = np.linspace(0, 1, 101)
    ours = fitted(values, labels, samples).calibration.apply(asked)
    np.testing.assert_allclose(ours, theirs.predict(asked), atol=1e-9)
    assert (np.diff(ours) >= 0).all() and ours.min() >= 0 and ours.max() <= 1


def test_a_good_judge_agrees_and_a_useless_one_is_for_diagnosis_only() -> None:
    good = fitted(*people(200, noise=0.08)).calibration
    assert good.agreement > 0.7 and good.error < good.constant_error / 2 and not good.diagnostic_only
    values, labels, samples = people(200, noise=0.08)
    useless = fitted(np.random.default_rng(1).random(200), labels, samples).calibration
    assert useless.agreement < 0.2 and useless.diagnostic_only
    inverted = fitted(1 - values, labels, samples).calibration
    assert inverted.diagnostic_only


def test_a_judge_that_never_looks_at_the_row_is_for_diagnosis_only() -> None:
    """It knows how common support of each subgoal is, and so agrees with people over all pairs together."""
    labels, samples, subgoals = of_two_subgoals()
    constant = np.where(subgoals == 0, 0.7, 0.3)
    found = fitted(constant, labels, samples, subgoals)
    assert spearmanr(found.blind, labels).statistic > LEAST_AGREEMENT
    assert found.calibration.agreement < 0.1 and found.calibration.diagnostic_only
    assert found.calibration.error == pytest.approx(found.calibration.constant_error)
    noisy = np.clip(constant + 0.05 * np.random.default_rng(1).normal(size=len(labels)), 0, 1)
    told = fitted(noisy, labels, samples, subgoals).calibration
    assert told.agreement < 0.2 and told.diagnostic_only


def test_a_judge_that_is_inverted_within_subgoals_is_for_diagnosis_only() -> None:
    labels, samples, subgoals = of_two_subgoals()
    inverted = np.where(subgoals == 0, 0.7, 0.3) - 0.1 * labels
    found = fitted(inverted, labels, samples, subgoals)
    assert spearmanr(found.blind, labels).statistic > LEAST_AGREEMENT, "over all pairs together it seems to agree"
    assert found.calibration.agreement < 0 and found.calibration.diagnostic_only


def test_a_judge_that_looks_at_the_row_is_believed() -> None:
    labels, samples, subgoals = of_two_subgoals()
    noise = np.random.default_rng(1).normal(size=len(labels))
    good = np.clip(np.where(subgoals == 0, 0.5, 0.4) + 0.2 * labels + 0.05 * noise, 0, 1)
    told = fitted(good, labels, samples, subgoals).calibration
    assert told.agreement > 0.7 and told.error < told.constant_error / 2 and not told.diagnostic_only


def test_agreement_is_the_mean_within_subgoals_weighted_by_labels() -> None:
    """The third subgoal has labels of one kind alone: it counts in the errors, and nowhere else."""
    labels, samples, subgoals = of_two_subgoals(40)
    keep = (subgoals == 0) | (samples < 20)
    labels, samples, subgoals = labels[keep], samples[keep], subgoals[keep]
    labels, samples = np.append(labels, np.ones(10)), np.append(samples, np.arange(10))
    subgoals = np.append(subgoals, np.full(10, 2))
    values = np.clip(0.4 + 0.2 * labels + 0.2 * np.random.default_rng(2).normal(size=len(labels)), 0, 1)
    found = fitted(values, labels, samples, subgoals)
    first, second = (spearmanr(found.blind[subgoals == n], labels[subgoals == n]).statistic for n in (0, 1))
    assert found.calibration.agreement == pytest.approx((40 * first + 20 * second) / 60)
    assert abs(first - second) > 0.01, "so that the weights matter"
    assert found.calibration.error == pytest.approx(np.abs(found.blind - labels).mean())


def test_where_no_subgoal_has_labels_that_differ_nobody_can_tell() -> None:
    _, samples, subgoals = of_two_subgoals(30)
    told = fitted(subgoals * 0.4 + 0.2, subgoals.astype(float), samples, subgoals).calibration
    assert np.isnan(told.agreement) and told.diagnostic_only
    assert told.record()["agreement"] is None
    again = Calibration.from_record(json.loads(json.dumps(told.record(), allow_nan=False)))
    assert np.isnan(again.agreement) and again.diagnostic_only and again.at == told.at


def test_a_subgoal_whose_labels_a_map_never_saw_is_held_against_the_mean_of_all() -> None:
    """Two samples, each predicted by the other; labels of the second subgoal are of the second sample alone."""
    values, labels, _ = people(40, noise=0.1)
    samples, subgoals = np.repeat([0, 1], 20), np.repeat([0, 0, 0, 1], 10)
    first, second = labels[:20].mean(), labels[20:30].mean()
    by_hand = np.abs(np.r_[labels[:20] - second, labels[20:] - first]).mean()
    assert first != second
    assert fitted(values, labels, samples, subgoals).calibration.constant_error == pytest.approx(by_hand)


def test_the_floor_is_the_users() -> None:
    given = people(200, noise=0.2)
    agreement = fitted(*given).calibration.agreement
    assert 0.2 < agreement < 0.6
    assert not fitted(*given, floor=agreement - 0.01).calibration.diagnostic_only
    assert fitted(*given, floor=agreement + 0.01).calibration.diagnostic_only


def test_a_map_no_better_than_the_mean_is_for_diagnosis_only_whatever_its_ranks() -> None:
    told = Calibration(
        (0.0, 1.0), (0.0, 1.0), "j", "g", "expectation", 50, agreement=0.9, error=0.3, constant_error=0.3
    )
    assert told.diagnostic_only


def test_labels_do_not_see_themselves() -> None:
    """Of noise, the map itself would predict far better than maps that never saw the label."""
    values, labels, samples = people(60, noise=3.0, seed=4)
    found = fitted(values, labels, samples)
    seen = np.abs(found.calibration.apply(values) - labels).mean()
    assert found.calibration.error == pytest.approx(np.abs(found.blind - labels).mean())
    assert found.calibration.error > seen + 0.02


def test_labels_of_one_sample_are_in_one_fold() -> None:
    """Each sample stands four times with one value and label of its own: apart, each would give away the others."""
    random = np.random.default_rng(3)
    values, labels = np.repeat(random.random(30), 4), np.repeat((random.random(30) < 0.5).astype(float), 4)
    together = fitted(values, labels, np.repeat(np.arange(30), 4)).calibration
    apart = fitted(values, labels, np.arange(120)).calibration
    assert together.error > apart.error + 0.02


def test_equal_input_gives_equal_output_and_missing_values_are_left_out() -> None:
    values, labels, samples = people(50, noise=0.1)
    once, again = fitted(values, labels, samples), fitted(values, labels, samples)
    assert once.calibration == again.calibration and (once.blind == again.blind).all()
    more = fitted(np.append(values, NAN), np.append(labels, 1.0), np.append(samples, 99))
    assert more.calibration == once.calibration and np.isnan(more.blind[-1])


def test_missing_stays_missing_and_what_lies_beyond_is_flat() -> None:
    told = Calibration((0.2, 0.6), (0.1, 0.9), "j", "g", "corrected", 20, 0.5, 0.1, 0.2)
    found = told.apply(np.array([[0.0, 0.4], [0.8, NAN]]))
    assert found[0].tolist() == pytest.approx([0.1, 0.5])
    assert found[1, 0] == pytest.approx(0.9) and np.isnan(found[1, 1])


def test_a_record_comes_back_through_json() -> None:
    told = fitted(*people(40, noise=0.1), floor=0.3).calibration
    assert Calibration.from_record(json.loads(json.dumps({**told.record(), "labels": []}))) == told


@pytest.mark.parametrize(
    ("n", "labels", "samples", "told"),
    [
        (LEAST_LABELS - 1, None, None, "There are 19 labels"),
        (40, 1.0, None, "All 40 labels are alike"),
        (40, None, 7, "All labels are of one sample"),
    ],
)
def test_labels_of_which_nothing_can_be_learnt_are_refused(
    n: int, labels: float | None, samples: int | None, told: str
) -> None:
    values, said, who = people(n, noise=0.1)
    said = said if labels is None else np.full(n, labels)
    with pytest.raises(DataError, match=told) as refused:
        fitted(values, said, who if samples is None else np.full(n, samples))
    assert refused.value.mend


def test_few_samples_are_fewer_folds() -> None:
    values, labels, _ = people(40, noise=0.05)
    assert fitted(values, labels, np.arange(40) % 2).calibration.n_labels == 40
