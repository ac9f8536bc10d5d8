"""Agreement: equal to scikit-learn, SciPy and Krippendorff's own examples, and silent where there is no answer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from goalcover_local.stats import spearman
from goalcover_local.studies.agreement import (
    about_labels,
    agreement,
    alpha,
    anchors,
    auc,
    bias,
    bootstrap,
    disputed,
    fit,
    kappa,
)

NAN = float("nan")
_ = NAN
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
)
"""Four observers, twelve units: Krippendorff 2011, section E."""

pytestmark = pytest.mark.filterwarnings("error")
values = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(2)), elements=st.floats(0, 1) | st.just(NAN))


def raters(n: int = 40, noise: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two raters of n rows and 3 subgoals, the second the first with noise, both with holes."""
    random = np.random.default_rng(seed)
    first = random.random((n, 3))
    second = np.clip(first + random.normal(0, noise, first.shape), 0, 1)
    first[0, 0] = second[1, 1] = second[2] = NAN
    return first, second


def equal(one: Any, other: Any) -> bool:
    """Whether two records are equal, NaN being equal to NaN."""
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(equal(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, tuple):
        return all(map(equal, one, other))
    return bool(one == other) or (math.isnan(one) and math.isnan(other))


def test_the_nearest_anchor() -> None:
    found = anchors(np.array([[0, 0.09, 0.11, 0.5999], [0.95, 1, NAN, 0.2]]))
    assert found.tolist() == [[0, 0, 1, 3], [5, 5, -1, 1]]


def test_alpha_is_krippendorffs() -> None:
    assert alpha(KRIPPENDORFF) == pytest.approx(0.849, abs=5e-4)


def test_alpha_by_hand() -> None:
    """Two units, (0, 0) and (0, 1): observed 2·1/4 = 0.5, expected 6/12 = 0.5."""
    assert alpha(np.array([[0, 0], [0, 1.0]])) == pytest.approx(0)
    assert alpha(np.array([[0, 1], [0, 1.0]])) == pytest.approx(1)
    assert alpha(np.array([[0, 1], [1, 0.0]])) == pytest.approx(-0.5)


@given(arrays(np.float64, (3, 6), elements=st.sampled_from([0, 0.2, 0.4, 0.6, 0.8, 1, NAN])))
def test_alpha_is_what_its_definition_says(units: np.ndarray) -> None:
    lists = [[value for value in unit if not math.isnan(value)] for unit in units.T]
    pairable = [unit for unit in lists if len(unit) > 1]
    everything = [value for unit in pairable for value in unit]
    n = len(everything)
    observed = sum((a - b) ** 2 / (len(unit) - 1) for unit in pairable for a in unit for b in unit) / max(n, 1)
    expected = sum((a - b) ** 2 for a in everything for b in everything) / max(n * (n - 1), 1)
    assert alpha(units) == pytest.approx(1 - observed / expected if expected else NAN, nan_ok=True)


@given(values, values)
def test_kappa_is_scikit_learns(first: np.ndarray, second: np.ndarray) -> None:
    size = min(len(first), len(second))
    one, other = (anchors(each[:size]).ravel() for each in (first, second))
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    found = kappa(first[:size], second[:size])
    if len(one) < 2 or len({*one, *other}) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(cohen_kappa_score(one, other, labels=range(6), weights="quadratic"))


def test_agreement_of_two_raters() -> None:
    first, second = raters()
    found = agreement(first, second)
    both = ~(np.isnan(first) | np.isnan(second))
    apart = np.abs(anchors(first[both]) - anchors(second[both]))
    assert found.n == both.sum() == found.kappa.n == 40 * 3 - 5
    assert found.kappa.value == pytest.approx(kappa(first, second))
    assert found.kappa.low < found.kappa.value < found.kappa.high
    assert found.spearman == pytest.approx(spearmanr(first[both], second[both]).statistic)
    assert (found.exact, found.within_one) == pytest.approx(((apart == 0).mean(), (apart < 2).mean()))
    assert found.difference == pytest.approx((first - second)[both].mean())


def test_raters_change_places() -> None:
    first, second = raters()
    one, other = agreement(first, second), agreement(second, first)
    assert one.kappa.value == pytest.approx(other.kappa.value) and one.difference == pytest.approx(-other.difference)


def test_the_order_of_rows_and_of_subgoals_is_irrelevant() -> None:
    first, second = raters()
    turned = agreement(first[::-1, ::-1], second[::-1, ::-1])
    found = agreement(first, second)
    assert (turned.kappa.value, turned.spearman) == pytest.approx((found.kappa.value, found.spearman))
    assert alpha(np.stack([first, second])) == pytest.approx(alpha(np.stack([second, first])[:, ::-1]))


def test_intervals_draw_rows_and_not_pairs() -> None:
    """The same pairs as many columns of few rows say less than as many rows."""
    random = np.random.default_rng(1)
    first = random.random((300, 1))
    second = np.clip(first + random.normal(0, 0.3, first.shape), 0, 1)
    repeated = [np.repeat(each[:10], 30, axis=1) for each in (first, second)]
    narrow, wide = agreement(first, second).kappa, agreement(*repeated).kappa
    assert narrow.n == wide.n == 300
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_bootstrap_interval_is_that_of_the_mean() -> None:
    sample = np.random.default_rng(2).normal(5, 2, 400)
    found = bootstrap(lambda rows: float(sample[rows].mean()), np.arange(400), 400, seed=0)
    half = 1.96 * sample.std() / 20
    assert (found.low, found.high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.05)
    assert found == bootstrap(lambda rows: float(sample[rows].mean()), np.arange(400), 400, seed=0)


def test_bias_at_each_anchor() -> None:
    found = bias(np.array([[0.5, 0.3], [0.9, NAN]]), np.array([[0.0, 0.2], [1.0, 0.5]]))
    assert found.counts == (1, 1, 0, 0, 0, 1)
    assert found.means == pytest.approx((0.5, 0.1, NAN, NAN, NAN, -0.1), nan_ok=True)


@given(values.filter(lambda found: len(found) > 1), st.integers(0, 9))
@settings(max_examples=50)
def test_auc_is_scikit_learns(said: np.ndarray, seed: int) -> None:
    labels = np.random.default_rng(seed).choice([0, 0.4, 0.6, 1, NAN], said.shape)
    areas = []
    for column, label in zip(said.T, labels.T, strict=True):
        both = ~(np.isnan(column) | np.isnan(label))
        if 0 < (label[both] >= 0.6).sum() < both.sum():
            areas.append(roc_auc_score(label[both] >= 0.6, column[both]))
    assert auc(said, labels) == pytest.approx(np.mean(areas) if areas else NAN, nan_ok=True)


def test_fit_to_labels_beside_a_constant() -> None:
    said, labels = raters(60)
    labels = np.round(labels * 5) / 5
    found, about = fit(said, labels), about_labels(labels)
    both = ~(np.isnan(said) | np.isnan(labels))
    assert found.error.value == pytest.approx(np.abs(said - labels)[both].mean())
    assert found.support.value == pytest.approx(((said >= 0.6) == (labels >= 0.6 - 1e-9))[both].mean())
    given_labels = labels[~np.isnan(labels)]
    rate = (given_labels >= 0.6 - 1e-9).mean()
    assert (about.n, about.mean) == (len(given_labels), pytest.approx(given_labels.mean()))
    assert about.base_rate.value == pytest.approx(rate)
    means = np.nanmean(labels, axis=0)
    assert about.constant.error.value == pytest.approx(np.nanmean(np.abs(labels - means)))
    assert about.constant.auc.value == 0.5
    assert found.auc.value > 0.9 and found.error.high < about.constant.error.low
    for each in (found.error, found.auc, found.kappa, found.support, about.base_rate):
        assert each.low < each.value < each.high
    assert fit(said, labels) == found and fit(said, labels, seed=1) != found


def test_the_constant_knows_each_subgoal_and_never_a_row() -> None:
    """Of the first subgoal three of four rows are support, of the second one of four: by hand."""
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0.0]])
    about = about_labels(labels)
    assert (about.mean, about.base_rate.value) == (0.5, 0.5)
    assert about.constant.error.value == pytest.approx(2 * 0.25 * 0.75)
    assert about.constant.support.value == pytest.approx(0.75) and about.constant.auc.value == 0.5
    assert about.constant.kappa.value == pytest.approx(kappa(np.tile([0.75, 0.25], (4, 1)), labels))
    assert about.constant.kappa.value > 0.3
    alike = about_labels(np.array([[1, NAN], [1, NAN], [0, NAN]]))
    assert (alike.constant.n, alike.constant.kappa.value) == (3, 0)
    assert alike.constant.error.value == pytest.approx(4 / 9)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.full((1, 1), 0.4), np.full((1, 1), 0.6)),
        (np.full((1, 1), 0.4), np.full((1, 1), 0.4)),
        (np.full((4, 2), 0.4), np.full((4, 2), 0.4)),
        (np.full((4, 2), 1.0), np.full((4, 2), 1.0)),
        (np.full((4, 2), NAN), np.full((4, 2), 0.4)),
        (np.zeros((0, 2)), np.zeros((0, 2))),
    ],
)
def test_where_there_is_no_answer_it_is_nan(first: np.ndarray, second: np.ndarray) -> None:
    found = agreement(first, second)
    assert math.isnan(found.kappa.value) and math.isnan(found.kappa.low) and math.isnan(found.spearman)
    one = fit(first, second)
    assert math.isnan(one.auc.value) and math.isnan(one.kappa.value)
    assert math.isnan(about_labels(second).constant.auc.value)


def test_a_constant_rater() -> None:
    first, _ = raters()
    constant = np.full(first.shape, 0.4)
    found = agreement(first, constant)
    assert found.kappa.value == 0 and math.isnan(found.spearman)
    assert math.isnan(spearman(constant, first)) and math.isnan(alpha(np.stack([constant, constant])))


@given(values, values)
@settings(max_examples=5, deadline=None)
def test_nothing_warns_whatever_comes(first: np.ndarray, second: np.ndarray) -> None:
    size = min(len(first), len(second))
    one, other = first[:size], second[:size]
    assert equal(agreement(one, other), agreement(one, other))
    assert equal(fit(one, other), fit(one, other)) and equal(bias(one, other), bias(one, other))
    assert about_labels(one).n == (~np.isnan(one)).sum()


def test_the_most_disputed_come_first() -> None:
    table = np.array([[[0.1, 0.5], [0.0, 0.2], [NAN, 0.9]], [[0.4, 0.5], [1.0, NAN], [NAN, 0.6]]])
    pairs, spreads = disputed(table, 10)
    assert pairs.tolist() == [[1, 0], [0, 0], [2, 1]] and spreads == pytest.approx([1, 0.3, 0.3])
    assert disputed(table, 1)[0].tolist() == [[1, 0]]
    assert len(disputed(table[:1], 10)[0]) == 0
