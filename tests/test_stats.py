"""Numbers from arrays: missing is never a number, and intervals behave at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from goalcover_local import stats
from goalcover_local.terms import ANCHORS, Estimate, Judgement

NAN = float("nan")
UNIT = st.floats(0, 1)
VALUES = st.lists(UNIT | st.just(NAN), max_size=30).map(np.array)
WEIGHTS = st.lists(st.floats(0.001, 1), min_size=6, max_size=6)


def test_the_score_is_the_most_probable_anchor_and_the_lowest_of_equals() -> None:
    found = stats.scores(np.array([[0, 0, 0, 0.2, 0.5, 0.3], [0.3, 0.1, 0.1, 0.1, 0.1, 0.3], [NAN] * 6]))
    assert found[:2].tolist() == [0.8, 0.0]
    assert np.isnan(found[2])


def test_the_expectation_is_the_mean_of_the_anchors() -> None:
    found = stats.expectations(np.array([[0, 0, 0, 0, 0, 1], [0.5, 0, 0, 0, 0, 0.5], [NAN] * 6]))
    assert found[:2].tolist() == [1.0, 0.5]
    assert np.isnan(found[2])


@given(weights=WEIGHTS)
def test_arrays_and_records_agree(weights: list[float]) -> None:
    probabilities = np.array(weights) / sum(weights)
    judgement = Judgement("s", "g", tuple(probabilities.tolist()))
    assert stats.scores(probabilities) == judgement.score
    assert stats.expectations(probabilities) == pytest.approx(judgement.expectation)


def test_shapes_of_any_depth_are_kept() -> None:
    assert stats.scores(np.full((4, 3, 6), 1 / 6)).shape == (4, 3)
    assert stats.expectations(np.full((4, 3, 6), 1 / 6)).shape == (4, 3)


def test_shares_at_the_anchors() -> None:
    shares = stats.anchor_shares(np.array([0.0, 0.05, 0.19, 1.0, NAN]))
    assert shares.tolist() == [0.5, 0.25, 0, 0, 0, 0.25]
    assert np.isnan(stats.anchor_shares(np.array([NAN]))).all()
    assert stats.anchor_shares(np.array(ANCHORS)).tolist() == [1 / 6] * 6


@given(values=VALUES)
def test_shares_sum_to_1_unless_all_is_missing(values: np.ndarray) -> None:
    shares = stats.anchor_shares(values)
    assert shares.shape == (6,)
    assert np.isnan(shares).all() if np.isnan(values).all() else shares.sum() == pytest.approx(1)


@given(values=VALUES)
def test_a_mean_lies_in_its_interval_and_missing_values_do_not_count(values: np.ndarray) -> None:
    estimate = stats.mean_interval(values)
    there = values[~np.isnan(values)]
    assert estimate.n == len(there)
    assert 0 <= estimate.low <= estimate.high <= 1
    if len(there):
        assert estimate.value == pytest.approx(there.mean())
        assert estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9
        assert estimate == stats.mean_interval(there)
    else:
        assert np.isnan(estimate.value) and (estimate.low, estimate.high) == (0, 1)


def test_students_interval_of_a_known_case() -> None:
    """Four values of mean 0.5 and standard deviation 0.2: 0.5 ± 3.182 · 0.2 / 2."""
    values = 0.5 + 0.2 * np.array([-1, -1, 1, 1]) * np.sqrt(3 / 4)
    estimate = stats.mean_interval(values)
    assert (estimate.low, estimate.high) == (pytest.approx(0.1818, abs=1e-4), pytest.approx(0.8182, abs=1e-4))


def test_one_value_says_nothing_about_its_spread() -> None:
    assert stats.mean_interval(np.array([0.4, NAN])) == Estimate(0.4, 0.0, 1.0, 1)


def test_wilsons_interval_of_known_cases() -> None:
    """0 of 10 reaches up to z² / (n + z²) = 27.8%; 5 of 10 is symmetric about a half."""
    none = stats.share_interval(0, 10)
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(0.2775, abs=1e-4))
    half = stats.share_interval(5, 10)
    assert half.low + half.high == pytest.approx(1)
    assert half.low == pytest.approx(0.2366, abs=1e-4)
    assert np.isnan(stats.share_interval(0, 0).value)
    assert (stats.share_interval(0, 0).low, stats.share_interval(0, 0).high) == (0, 1)


@given(n=st.integers(1, 500), data=st.data())
def test_a_share_lies_in_its_interval_and_more_rows_narrow_it(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    share, more = stats.share_interval(hits, n), stats.share_interval(4 * hits, 4 * n)
    assert share.low - 1e-12 <= share.value <= share.high + 1e-12
    assert more.high - more.low < share.high - share.low


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 2,000 draws of 60 rows at a true share of 0.1, Wilson's interval holds it in about 95%."""
    draws = np.random.default_rng(5).binomial(60, 0.1, size=2000)
    held = [(e := stats.share_interval(int(hits), 60)).low <= 0.1 <= e.high for hits in draws]
    assert 0.93 <= np.mean(held) <= 0.985


def test_support_counts_what_reaches_the_mark_and_forgives_rounding() -> None:
    hits, share = stats.support(np.array([0.6, 0.2 * 3, 0.59999999999, 0.5999, 1.0, NAN]))
    assert (hits, share.n) == (4, 5)
    assert share.value == pytest.approx(0.8)


def test_the_verdict_asks_where_the_whole_interval_lies() -> None:
    share = Estimate(0.1, 0.06, 0.15, 100)
    assert stats.verdict(share, 0.2) == "gap"
    assert stats.verdict(share, 0.05) == "covered"
    assert stats.verdict(share, 0.1) == "undecided"
    assert stats.verdict(share, 0.15) == stats.verdict(share, 0.06) == "undecided"


def test_no_row_decides_nothing() -> None:
    assert stats.verdict(stats.support(np.array([NAN, NAN]))[1], 0.05) == "undecided"


# Prediction-powered estimates

NOBODY = np.empty(0)
JUDGES = {
    "perfect": lambda random, labels: labels,
    "good": lambda random, labels: 1 / (1 + np.exp(1.5 - 3 * labels - random.normal(size=len(labels)))),
    "biased": lambda random, labels: np.clip(0.35 + 0.5 * labels + 0.15 * random.normal(size=len(labels)), 0, 1),
    "inverted": lambda random, labels: np.clip(0.7 - 0.4 * labels + 0.15 * random.normal(size=len(labels)), 0, 1),
    "useless": lambda random, labels: random.random(len(labels)),
}
"""Judges by what they say of rows with these labels."""


def powered(judge: str, share: float, n: int, n_others: int, seed: int) -> tuple[Estimate, Estimate]:
    """The estimate of a share by labels and judge, and by the labels alone, from rows drawn at random."""
    random = np.random.default_rng(seed)
    labels = (random.random(n + n_others) < share).astype(float)
    said = JUDGES[judge](random, labels)
    alone = stats.prediction_powered(NOBODY, said[:n], labels[:n])
    return stats.prediction_powered(said[n:], said[:n], labels[:n]), alone


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(("n", "share"), [(20, 0.02), (26, 0.02), (50, 0.1), (100, 0.5), (200, 0.9)])
def test_the_powered_interval_holds_whatever_the_judge(judge: str, n: int, share: float) -> None:
    found = [powered(judge, share, n, 400, seed)[0] for seed in range(250)]
    assert np.mean([each.low <= share <= each.high for each in found]) >= 0.93


def test_a_good_judge_narrows_the_interval_and_a_useless_one_costs_nothing() -> None:
    for judge, least, most in (("perfect", 0.2, 0.6), ("good", 0.4, 0.8), ("useless", 0.95, 1.02), ("inverted", 1, 1)):
        pairs = [powered(judge, 0.3, 100, 2000, seed) for seed in range(40)]
        ratio = np.mean([(each.high - each.low) / (alone.high - alone.low) for each, alone in pairs])
        assert least - 1e-9 <= ratio <= most + 1e-9, (judge, ratio)


def test_the_estimate_is_not_drawn_to_a_judge_that_is_wrong() -> None:
    """This judge's own mean is 0.5 where a tenth of the rows have the label."""
    found = [powered("biased", 0.1, 60, 1000, seed)[0].value for seed in range(100)]
    assert np.mean(found) == pytest.approx(0.1, abs=0.02)


@given(n=st.integers(2, 60), data=st.data())
def test_without_other_rows_it_is_the_exact_interval_of_the_labels(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    labels = np.array([1.0] * hits + [0.0] * (n - hits))
    found = stats.prediction_powered(NOBODY, np.linspace(0, 1, n), labels)
    exact = distributions.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert (found.value, found.n) == (pytest.approx(hits / n), n)
    assert (found.low, found.high) == (pytest.approx(exact.low, abs=1e-9), pytest.approx(exact.high, abs=1e-9))


@given(
    pairs=st.lists(st.tuples(UNIT | st.just(NAN), UNIT | st.just(NAN)), max_size=30),
    judged=VALUES,
    seed=st.integers(0, 9),
)
def test_it_lies_in_its_interval_which_is_never_a_point(
    pairs: list[tuple[float, float]], judged: np.ndarray, seed: int
) -> None:
    said, labels = np.array(pairs, dtype=float).reshape(-1, 2).T
    found = stats.prediction_powered(judged, said, labels)
    assert 0 <= found.low < found.high <= 1
    assert found.high - found.low > 0.01
    there = ~(np.isnan(said) | np.isnan(labels))
    assert found.n == there.sum() + (~np.isnan(judged)).sum()
    if there.any():
        assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    else:
        assert np.isnan(found.value) and (found.low, found.high) == (0, 1)
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = stats.prediction_powered(judged[::-1], said[order], labels[order])
    assert (shuffled.low, shuffled.high) == (pytest.approx(found.low, abs=1e-6), pytest.approx(found.high, abs=1e-6))


def test_the_weight_of_the_judge_is_that_of_the_source() -> None:
    """By hand: labels 1 1 0 0 judged 0.8 0.6 0.4 0.2, a covariance of 0.1; others' mean is higher by 0.25."""
    said, labels, others = np.array([0.8, 0.6, 0.4, 0.2]), np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 1, 0] * 10)
    weight = 0.1 / np.concatenate([said, others]).var() / (1 + 4 / 40)
    assert 0.4 < weight < 0.6
    assert stats.prediction_powered(others, said, labels).value == pytest.approx(0.5 + weight * 0.25)
