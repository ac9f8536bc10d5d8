"""Standings, comparisons and their intervals: held against SciPy, by simulation, and by what must be so of any data."""

from __future__ import annotations

from itertools import combinations
from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from goalcover_local.finetune import evaluate
from goalcover_local.finetune.evaluate import (
    by_subgoal,
    compare,
    estimate,
    holm,
    length_correlation,
    over_seeds,
    seed_spread,
    stand,
)
from goalcover_local.resampling import paired
from goalcover_local.terms import Estimate

NAN = float("nan")


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "RESAMPLES", 1999)


def grades(n: int, seed: int = 0, missing: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = 1 + 4 * random.beta(5, 2, n)
    values[random.random(n) < missing] = np.nan
    return values


def ends(found: Estimate) -> tuple[float, float]:
    return found.low, found.high


def nothing(found: Estimate) -> bool:
    return isnan(found.value) and isnan(found.low) and isnan(found.high)


# Estimates


def test_an_estimate_of_many_is_scipys_bootstrap() -> None:
    values = grades(400)
    told = reference.bootstrap((values,), np.mean, rng=np.random.default_rng(7)).confidence_interval
    found = estimate(values)
    assert found.value == pytest.approx(values.mean()) and found.n == 400
    assert ends(found) == pytest.approx(tuple(told), abs=0.1 * (told.high - told.low))


def test_an_estimate_of_few_normal_values_is_as_wide_as_students() -> None:
    values = reference.norm.ppf((np.arange(8) + 0.5) / 8)
    width = 2 * reference.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    found = [estimate(values, seed) for seed in range(4)]
    assert np.mean([each.high - each.low for each in found]) == pytest.approx(width, rel=0.04)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("n", [9, 40])
@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_say(n: int, skewed: bool) -> None:
    random = np.random.default_rng(n)
    n_trials, truth = 500, (1 + 4 * 5 / 7 if skewed else 3.5)
    hits = 0
    for trial in range(n_trials):
        values = 1 + 4 * random.beta(5, 2, n) if skewed else random.normal(3.5, 0.6, n)
        found = estimate(values, seed=trial)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / n_trials <= 0.98


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1, 5), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_an_interval_holds_its_mean_and_stays_within_the_values(values: list[float], seed: int) -> None:
    found = estimate(np.array(values), seed)
    assert min(values) - 1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= max(values) + 1e-9


def test_an_estimate_is_the_same_each_time_and_by_its_seed() -> None:
    values = grades(30)
    assert estimate(values, 3) == estimate(values, 3)
    assert ends(estimate(values, 3)) != ends(estimate(values, 4))


def test_an_estimate_does_not_hang_on_what_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimate(grades(30))
    monkeypatch.setattr(evaluate, "_AT_ONCE", 30 * 1000)
    assert estimate(grades(30)) == found


def test_missing_values_are_no_part_of_an_estimate() -> None:
    values = grades(20)
    assert estimate(np.insert(values, [0, 7, 20], NAN)) == estimate(values)


def test_few_values_have_no_interval_and_none_have_no_mean() -> None:
    one = estimate(np.array([NAN, 3.25]))
    assert (one.value, one.n) == (3.25, 1) and isnan(one.low) and isnan(one.high)
    assert nothing(estimate(np.array([NAN]))) and estimate(np.array([])).n == 0
    assert estimate(np.full(8, 3.0)) == Estimate(3.0, 3.0, 3.0, 8)


# Standings


def test_a_standing_counts_what_failed_and_takes_each_part_by_itself() -> None:
    scores, judged = np.array([3.0, NAN, 4.0, 5.0]), np.array([2.0, NAN, 4.0, 4.5])
    checked, lengths = np.array([0.5, 1.0, 1.0, 0.5]), np.array([10.0, 50.0, 30.0, 30.0])
    found = stand("original", scores, judged, checked, lengths, seed=5)
    assert (found.policy, found.n, found.n_failed, found.length) == ("original", 3, 1, 30.0)
    assert found.score == estimate(scores, 5) and found.judged == estimate(judged, 5)
    assert found.checked == estimate(checked, 5) and found.checked.n == 4, "what failed to be judged is checked still"


@pytest.mark.parametrize("checked", [None, np.full(3, NAN)])
def test_a_rubric_without_checks_has_none(checked: np.ndarray | None) -> None:
    assert stand("base", grades(3), grades(3), checked, np.ones(3)).checked is None


def test_a_policy_of_which_all_failed_has_no_score() -> None:
    empty = np.full(4, NAN)
    found = stand("base", empty, empty, None, empty)
    assert (found.n, found.n_failed) == (0, 4)
    assert nothing(found.score) and nothing(found.judged) and isnan(found.length)


# Comparisons


def test_a_comparison_is_that_of_pairs() -> None:
    base = grades(300, seed=1)
    scores = base + np.random.default_rng(2).normal(0.1, 0.2, 300)
    found = compare("aligned", scores, "base", base)
    told = reference.bootstrap(
        (scores, base),
        lambda one, other, axis: (one - other).mean(axis=axis),
        paired=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ends(found.difference) == pytest.approx(tuple(told), abs=0.1 * (told.high - told.low))
    assert found.p == pytest.approx(reference.ttest_rel(scores, base).pvalue)
    assert found.p_ranks == pytest.approx(reference.wilcoxon(scores, base).pvalue)
    assert found.d == paired(scores, base).d
    assert (found.policy, found.against, found.n) == ("aligned", "base", 300)
    unpaired = estimate(scores).high - estimate(scores).low
    assert found.difference.high - found.difference.low < unpaired / 2, "what pairs share is no part of the difference"


def test_wins_count_ties_by_half() -> None:
    base = np.array([3.0, 3.0, 3.0, 3.0, NAN, 3.0])
    scores = np.array([4.0, 3.5, 3.0 + 1e-10, 2.0, 5.0, NAN])
    found = compare("original", scores, "base", base)
    assert (found.n, found.wins, found.ties) == (4, 0.625, 0.25)
    assert found.difference.n == 4 and found.difference.value == pytest.approx(0.125)


def test_a_tie_has_no_rank() -> None:
    random = np.random.default_rng(0)
    base, gain = np.full(12, 3.0), random.normal(0.2, 0.3, 12)
    gain[:3] = 0.0
    dust = np.where(gain == 0, 1e-11, 0.0)
    found = compare("original", base + gain + dust, "base", base)
    assert found.ties == 0.25
    assert found.p_ranks == compare("original", base + gain, "base", base).p_ranks


def test_equal_policies_win_half_and_are_not_tested() -> None:
    scores = grades(9)
    found = compare("original", scores, "base", scores)
    assert (found.wins, found.ties) == (0.5, 1.0)
    assert found.difference == Estimate(0.0, 0.0, 0.0, 9)
    assert isnan(found.p) and isnan(found.p_ranks)


def test_without_a_pair_nothing_is_said() -> None:
    found = compare("original", np.array([NAN, 3.0]), "base", np.array([3.0, NAN]))
    assert found.n == 0 and nothing(found.difference)
    assert all(map(isnan, (found.p, found.p_ranks, found.d, found.wins, found.ties)))


@pytest.mark.usefixtures("few_draws")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2]))
def test_the_other_way_round_a_comparison_is_its_opposite(seed: int, missing: float) -> None:
    one, other = grades(25, seed, missing), np.round(grades(25, seed + 1, missing), 1)
    there, back = compare("a", one, "b", other), compare("b", other, "a", one)
    assert there.wins + back.wins == pytest.approx(1)
    assert there.ties == back.ties and there.n == back.n
    assert there.difference.value == pytest.approx(-back.difference.value)
    width = there.difference.high - there.difference.low
    assert ends(there.difference) == pytest.approx((-back.difference.high, -back.difference.low), abs=0.15 * width)
    assert (there.p, there.p_ranks, there.d) == pytest.approx((back.p, back.p_ranks, -back.d))


# By subgoal


def test_subgoals_have_the_samples_that_are_theirs() -> None:
    scores = np.stack([grades(20, seed, missing=0.1) for seed in range(3)])
    members = np.random.default_rng(0).random((20, 2)) < 0.6
    found = by_subgoal(scores, members, ["A1", "P1"], seed=2)
    assert [row.subgoal for row in found] == ["A1", "P1"]
    for row, rows in zip(found, members.T, strict=True):
        assert row.n == rows.sum()
        assert row.means == tuple(estimate(own[rows], 2) for own in scores)
        assert row.differences[0] is None
        for own, apart in zip(scores[1:], row.differences[1:], strict=True):
            assert apart == compare("", own[rows], "", scores[0][rows], seed=2).difference


def test_a_subgoal_without_samples_stays_with_nothing_known() -> None:
    scores = np.array([[3.0, 4.0, 3.5], [NAN, 4.5, NAN]])
    members = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    first, second, third = by_subgoal(scores, members, ["one", "none", "last"])
    assert (second.n, second.means, second.differences) == (0, (None, None), (None, None))
    assert first.n == 1 and first.means[0] is not None and first.means[0].value == 3.0
    assert first.means[1] is None and first.differences == (None, None), "the second policy failed there"
    assert third.means[1] is None


def test_names_must_fit_the_members() -> None:
    with pytest.raises(ValueError, match="zip"):
        by_subgoal(np.ones((1, 2)), np.ones((2, 2), dtype=bool), ["one"])


# Length, seeds and several comparisons


def test_length_is_correlated_by_ranks() -> None:
    scores, lengths = grades(30, 1), np.random.default_rng(2).integers(20, 90, 30).astype(float)
    assert length_correlation(scores, lengths) == pytest.approx(reference.spearmanr(scores, lengths).statistic)
    assert length_correlation(lengths**3, lengths) == pytest.approx(1)
    assert length_correlation(np.append(scores, NAN), np.append(lengths, 5.0)) == length_correlation(scores, lengths)
    assert isnan(length_correlation(scores, np.full(30, 40.0))) and isnan(length_correlation(np.ones(30), lengths))


def test_seeds_are_averaged_where_they_have_the_sample() -> None:
    scores = np.array([[1.0, 3.0, NAN, 4.0], [2.0, NAN, NAN, 5.0], [6.0, 4.0, NAN, 3.0]])
    np.testing.assert_allclose(over_seeds(scores), [3.0, 3.5, NAN, 4.0])


def test_the_spread_between_seeds_is_of_the_samples_that_all_have() -> None:
    scores = np.array([[1.0, 3.0, NAN], [2.0, 4.0, 5.0], [3.0, 8.0, 1.0]])
    assert seed_spread(scores) == pytest.approx(np.std([2.0, 3.0, 5.5], ddof=1))
    assert isnan(seed_spread(scores[:1])) and isnan(seed_spread(np.array([[NAN, 1.0], [2.0, NAN]])))
    assert seed_spread(np.ones((3, 5))) == 0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == [] and holm([0.03]) == [0.03]
    with_none = holm([0.01, NAN, 0.04])
    assert with_none[::2] == pytest.approx([0.02, 0.04]) and isnan(with_none[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_by_bonferroni(p: list[float]) -> None:
    # Marcus, Peritz and Gabriel 1976: rejected is what is rejected in every set that it belongs to.
    places = range(len(p))
    sets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(places, size)]
    closed = [max(min(1.0, len(s) * min(p[k] for k in s)) for s in sets if place in s) for place in places]
    assert holm(p) == pytest.approx(closed)


def test_holm_lets_chance_through_no_more_often_than_it_says() -> None:
    p = np.random.default_rng(0).random((4000, 5))
    assert np.mean([min(holm(row)) <= 0.05 for row in p]) < 0.06
    assert np.mean(p.min(axis=1) <= 0.05) > 0.2, "which without it happens often"
