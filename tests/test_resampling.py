"""Permutation, bootstrap, effect sizes and paired tests, each held against another's: enumeration, SciPy, a formula."""

from __future__ import annotations

from itertools import combinations
from math import comb, isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from goalcover_local.resampling import by_chance, changes, cohens_d, drawn, interval, paired, replicates

NAN = float("nan")


def some_values(n: int, m: int, seed: int = 0, missing: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.random((n, m))
    values[random.random((n, m)) < missing] = np.nan
    return values


def mask(n: int, *places: int) -> np.ndarray:
    found = np.zeros(n, dtype=bool)
    found[list(places)] = True
    return found


# What is drawn


@given(st.integers(0, 200), st.integers(0, 2**32), st.integers(0, 200))
def test_a_smaller_draw_is_the_beginning_of_a_larger_one(n: int, seed: int, limit: int) -> None:
    whole = drawn(n, seed)
    assert sorted(whole.tolist()) == list(range(n))
    assert drawn(n, seed, limit).tolist() == whole[:limit].tolist()
    assert drawn(n, seed).tolist() == whole.tolist()


def test_a_draw_is_the_same_for_ever_and_another_for_another_seed() -> None:
    assert drawn(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert len({tuple(drawn(8, seed)) for seed in range(20)}) == 20


# Means before and after


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3]))
def test_changes_are_the_means_of_what_is_kept(seed: int, missing: float) -> None:
    values = some_values(30, 3, seed, missing)
    removed = np.random.default_rng(seed + 1).random((4, 30)) < 0.3
    before, after = changes(values, removed)
    assert before.shape == after.shape == (4, 3)
    for k, row in enumerate(removed):
        assert before[k] == pytest.approx(np.nanmean(values, axis=0), abs=1e-12)
        assert after[k] == pytest.approx(np.nanmean(values[~row], axis=0), abs=1e-12)


def test_a_mean_over_nothing_is_missing() -> None:
    values = np.array([[1.0, NAN, 0.5], [0.0, NAN, NAN]])
    before, after = changes(values, np.array([[True, False], [True, True]]))
    np.testing.assert_array_equal(before, [[0.5, NAN, 0.5]] * 2)
    np.testing.assert_array_equal(after, [[0.0, NAN, NAN], [NAN] * 3])


# By chance


def exactly(values: np.ndarray, removed: np.ndarray) -> float:
    """The share of all removals of as many rows that lower a column's mean at least as much."""
    size, after = int(removed.sum()), values[~removed].mean()
    hits = sum(
        values[~mask(len(values), *places)].mean() <= after + 1e-12 for places in combinations(range(len(values)), size)
    )
    return float(hits / comb(len(values), size))


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8])
def test_chance_is_that_of_all_removals_of_as_many_rows(size: int) -> None:
    values = np.round(some_values(9, 3, seed=size), 1)
    removed = mask(9, *range(size))
    n_draws = 20_000
    found = by_chance(values, removed, n_draws=n_draws)
    for column, p in zip(values.T, found, strict=True):
        exact = exactly(column, removed)
        assert p == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / n_draws) + 1 / n_draws)


def test_chance_is_scipys_permutation_test() -> None:
    values, removed = some_values(40, 1, seed=3), mask(40, *range(12))
    values[removed] += 0.25
    told = reference.permutation_test(
        (values[~removed, 0], values[removed, 0]),
        lambda kept, gone, axis: kept.mean(axis=axis) - gone.mean(axis=axis),
        permutation_type="independent",
        alternative="less",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    assert 0.01 < told.pvalue < 0.5
    assert by_chance(values, removed, n_draws=20_000)[0] == pytest.approx(told.pvalue, abs=0.01)


def test_chance_is_uniform_where_nothing_is_the_matter() -> None:
    random = np.random.default_rng(5)
    found = [
        by_chance(random.random((30, 4)), random.permutation(30) < 9, n_draws=199, seed=seed) for seed in range(100)
    ]
    assert reference.kstest(np.concatenate(found), "uniform").pvalue > 0.01
    assert 0.02 < (np.concatenate(found) <= 0.05).mean() < 0.09


def test_chance_is_never_nothing_and_equal_rows_fall_by_chance() -> None:
    values = np.array([[1.0, 0.5]] * 20 + [[0.0, 0.5]] * 80)
    found = by_chance(values, mask(100, *range(20)), n_draws=999)
    assert found.tolist() == [1 / 1000, 1.0]
    assert by_chance(values, mask(100, *range(20, 100)), n_draws=999)[0] == 1.0


def test_missing_values_are_no_part_of_chance() -> None:
    values = some_values(30, 3, seed=1)
    removed = mask(30, *range(10))
    values[5:8, 1] = np.nan
    values[12:20, 1] = np.nan
    values[:, 2] = np.where(removed, np.nan, values[:, 2])
    found = by_chance(values, removed, n_draws=2000, seed=4)
    there = ~np.isnan(values[:, 1])
    assert found[1] == by_chance(values[there][:, [1]], removed[there], n_draws=2000, seed=4)[0]
    assert isnan(found[2]), "nothing was removed"
    assert np.isnan(by_chance(values, np.ones(30, dtype=bool))).all(), "nothing was kept"
    assert np.isnan(by_chance(values, np.zeros(30, dtype=bool))).all(), "nothing was removed"
    assert np.isnan(by_chance(np.full((4, 2), np.nan), mask(4, 0))).all()


def test_chance_does_not_hang_on_what_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, removed = some_values(50, 2, missing=0.1), mask(50, *range(15))
    found = by_chance(values, removed, n_draws=500), replicates(values, removed[None], n_draws=50)
    monkeypatch.setattr("goalcover_local.resampling._AT_ONCE", 333)
    np.testing.assert_array_equal(by_chance(values, removed, n_draws=500), found[0])
    np.testing.assert_array_equal(replicates(values, removed[None], n_draws=50), found[1])


# Drawn again


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    values, removed = some_values(120, 2, seed=2), mask(120, *range(30))
    before, after = replicates(values, removed[None], n_draws=4000, seed=1)
    assert before.shape == after.shape == (4000, 1, 2)
    for column in (0, 1):

        def change(rows: np.ndarray, column: int = column) -> float:
            return float(values[rows[~removed[rows]], column].mean() - values[rows, column].mean())

        told = reference.bootstrap(
            (np.arange(120),),
            change,
            vectorized=False,
            method="percentile",
            n_resamples=4000,
            rng=np.random.default_rng(0),
        ).confidence_interval
        width = told.high - told.low
        assert interval((after - before)[:, 0, column]) == pytest.approx(tuple(told), abs=0.08 * width)


def test_replicates_leave_out_what_is_missing() -> None:
    values = np.array([[0.5, NAN], [0.5, NAN], [NAN, NAN], [0.9, NAN]])
    before, after = replicates(values, np.array([mask(4, 3), mask(4)]), n_draws=300)
    assert np.nanmax(after[:, 0, 0]) == np.nanmin(after[:, 0, 0]) == 0.5
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert np.isnan(before[..., 1]).all() and np.isnan(after[..., 1]).all()


def test_an_interval_passes_over_what_is_no_number() -> None:
    draws = np.arange(1001, dtype=float)
    assert interval(draws) == pytest.approx((25.0, 975.0))
    assert interval(np.append(draws, [NAN, np.inf])) == pytest.approx((25.0, 975.0))
    assert all(map(isnan, interval(np.array([NAN, NAN]))))


# Effect sizes and paired tests


def test_cohens_d_is_the_difference_by_the_pooled_deviation() -> None:
    first, second = np.array([3.0, 5.0, 7.0]), np.array([1.0, 2.0, 3.0, 6.0])
    # Lakens 2013, equation 1: variances 4 and 14/3, weighted by 2 and 3 degrees of freedom of 5.
    assert cohens_d(first, second) == pytest.approx((5 - 3) / sqrt((2 * 4 + 3 * 14 / 3) / 5))
    assert cohens_d(second, first) == -cohens_d(first, second)
    assert cohens_d(first + 10, second + 10) == pytest.approx(cohens_d(first, second))


@pytest.mark.parametrize(
    ("first", "second"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([0.1] * 3, [0.3] * 3), ([], [])]
)
def test_cohens_d_is_missing_without_a_spread(first: list[float], second: list[float]) -> None:
    assert isnan(cohens_d(np.array(first), np.array(second)))


def test_cohens_d_is_of_each_column() -> None:
    first, second = some_values(5, 4, seed=1), some_values(7, 4, seed=2)
    first[2, 3] = NAN
    found = cohens_d(first, second)
    assert found.shape == (4,) and isnan(found[3])
    assert found[:3].tolist() == [cohens_d(first[:, k], second[:, k]) for k in range(3)]


def test_paired_tests_are_scipys() -> None:
    first, second = some_values(12, 2, seed=7).T
    found = paired(first + 0.2, second)
    apart = first + 0.2 - second
    assert found.n == 12 and found.difference == pytest.approx(apart.mean())
    assert found.p == pytest.approx(reference.ttest_rel(first + 0.2, second).pvalue)
    assert found.p_ranks == pytest.approx(reference.wilcoxon(first + 0.2, second).pvalue)
    assert found.d == pytest.approx(cohens_d(first + 0.2, second))
    # Lakens 2013, equation 6: d_z is t by the root of n.
    assert found.d_paired == pytest.approx(reference.ttest_rel(first + 0.2, second).statistic / sqrt(12))


def test_pairs_with_a_missing_one_are_left_out() -> None:
    first, second = np.array([0.5, 0.9, NAN, 0.4]), np.array([0.1, 0.7, 0.2, NAN])
    assert paired(first, second) == paired(first[:2], second[:2])
    assert paired(first, second).n == 2


@pytest.mark.parametrize(
    ("first", "second", "n"), [([], [], 0), ([0.4], [0.1], 1), ([0.3, 0.5], [0.1, 0.3], 2), ([0.2] * 3, [0.2] * 3, 3)]
)
def test_paired_tests_say_nothing_without_a_spread(first: list[float], second: list[float], n: int) -> None:
    found = paired(np.array(first), np.array(second))
    assert found.n == n
    assert isnan(found.p) and isnan(found.p_ranks) and isnan(found.d_paired)
    assert found.difference == pytest.approx(np.mean(np.subtract(first, second)) if n else NAN, nan_ok=True)
