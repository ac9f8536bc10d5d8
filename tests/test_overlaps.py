"""Measured overlap: the correlation of two subgoals' values, held against scipy and against what it must never say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

from goalcover_local.overlaps import FEWEST_ROWS, overlaps, rank_correlation

RNG = np.random.default_rng(5)
VALUES = np.round(RNG.random((40, 3)), 2)
VALUES[:, 2] = np.clip(VALUES[:, 0] + 0.1 * RNG.standard_normal(40), 0, 1)


def test_every_pair_is_compared_once_and_as_scipy_does() -> None:
    found = overlaps(["a", "b", "c"], VALUES)
    assert [overlap.subgoals for overlap in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for overlap, (i, j) in zip(found, ((0, 1), (0, 2), (1, 2)), strict=True):
        rho = spearmanr(VALUES[:, i], VALUES[:, j]).statistic
        half = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / 37)
        assert overlap.correlation is not None and overlap.correlation.n == 40
        assert overlap.correlation.value == pytest.approx(rho, abs=1e-12)
        low, high = np.tanh(np.arctanh(rho) - half), np.tanh(np.arctanh(rho) + half)
        assert (overlap.correlation.low, overlap.correlation.high) == pytest.approx((low, high), abs=1e-9)
        first, second = VALUES[:, i] >= 0.6, VALUES[:, j] >= 0.6
        assert (overlap.n_both, overlap.n_either) == ((first & second).sum(), (first | second).sum())


def test_rows_without_a_value_of_either_are_left_out_of_that_pair_alone() -> None:
    holed = VALUES.copy()
    holed[:15, 0] = np.nan
    holed[38:, 1] = np.nan
    found = {overlap.subgoals: overlap for overlap in overlaps(["a", "b", "c"], holed)}
    [ab, bc] = found["a", "b"].correlation, found["b", "c"].correlation
    assert ab is not None and ab.n == 23 and bc is not None and bc.n == 38
    assert ab.value == pytest.approx(spearmanr(VALUES[15:38, 0], VALUES[15:38, 1]).statistic)
    assert found["a", "b"].n_either == (VALUES[15:38, :2] >= 0.6).any(axis=1).sum()


def test_a_value_that_reaches_the_anchor_but_for_rounding_supports() -> None:
    [found] = overlaps(["a", "b"], np.array([[0.1 + 0.5, 3 * 0.2], [0.6 - 1e-12, 0.0], [0.59, 0.59]]))
    assert (found.n_both, found.n_either, found.correlation) == (1, 2, None)


@pytest.mark.parametrize(
    "values",
    [
        np.empty((0, 2)),
        VALUES[: FEWEST_ROWS - 1, :2],
        np.full((20, 2), np.nan),
        np.column_stack([np.full(20, 0.4), VALUES[:20, 0]]),
        np.column_stack([VALUES[:20, 0], np.full(20, 0.0)]),
    ],
    ids=["none", "too few", "missing", "first constant", "second constant"],
)
def test_no_correlation_is_stated_where_there_is_none(values: np.ndarray) -> None:
    [found] = overlaps(["a", "b"], values)
    assert found.correlation is None


def test_as_many_rows_as_needed_are_enough() -> None:
    assert rank_correlation(VALUES[:FEWEST_ROWS, 0], VALUES[:FEWEST_ROWS, 1]) is not None


@pytest.mark.parametrize("ids", [[], ["a"]])
def test_fewer_than_two_subgoals_have_no_pair(ids: list[str]) -> None:
    assert overlaps(ids, VALUES[:, : len(ids)]) == []


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), st.floats(0, 1)), min_size=10, max_size=60)
)
def test_the_interval_holds_the_correlation_and_lies_in_its_range(rows: list[tuple[float, float]]) -> None:
    first, second = np.array(rows).T
    for other in (second, first, -first, 1 - second):
        found = rank_correlation(first, other)
        back = rank_correlation(other, first)
        assert (found is None) == (back is None) == (len(set(first)) == 1 or len(set(other)) == 1)
        if found and back:
            assert -1 <= found.low <= found.value <= found.high <= 1
            assert back.value == pytest.approx(found.value)
            assert found.low < found.high


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_agreement_is_one_with_an_interval_that_holds_it(sign: int) -> None:
    found = rank_correlation(np.arange(20.0), sign * np.arange(20.0) ** 3)
    assert found is not None and found.value == pytest.approx(sign)
    assert -1 <= found.low <= found.value <= found.high <= 1
