"""Controlled corruption: exact before and after in any order; strategic samples; and whether it tells the truth."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from goalcover_local.resampling import by_chance, cohens_d, drawn, interval
from goalcover_local.stats import graded_support
from goalcover_local.studies.corruption import (
    ALPHA,
    LEAST_BASE,
    MEASURES,
    Cell,
    Corruption,
    Effect,
    corrupt,
    measured,
    separation,
    strategic,
)
from goalcover_local.studies.removals import Labelled, Pattern, Random, Removal, Row
from goalcover_local.terms import Sample

NAN = float("nan")
IDS = ("plain", "hearts", "drugs")


def some_values(n: int, m: int = 3, seed: int = 0, missing: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.random((n, m))
    values[random.random((n, m)) < missing] = np.nan
    return values


def corrupted(values: np.ndarray, removed: np.ndarray, *targets: int, **more: Any) -> Corruption:
    """What these removals did, drawn few times; without targets each removal's is the second subgoal."""
    given = {"names": [f"removal {k}" for k in range(len(removed))], "n_draws": 200, "n_replicates": 100, **more}
    return corrupt(values, removed, IDS[: values.shape[1]], targets or (1,) * len(removed), **given)


def cell(subgoal: str, relative: float, *, target: bool = False, p: float = 0.5) -> Cell:
    return Cell(subgoal, target, 0.5, 0.5 + relative / 2, relative / 2, relative, 0.0, 0.0, p)


# Before and after


@given(
    st.integers(2, 80), st.integers(0, 10**6), st.floats(0.05, 0.9), st.sampled_from([0.0, 0.2]), st.integers(0, 10**6)
)
def test_kept_and_removed_are_all_rows_whatever_their_order(
    n: int, seed: int, share: float, missing: float, shuffle: int
) -> None:
    values = some_values(n, seed=seed, missing=missing)
    removed = np.random.default_rng(seed + 1).random((2, n)) < share
    found = corrupted(values, removed, n_draws=10, n_replicates=5)
    order = np.random.default_rng(shuffle).permutation(n)
    shuffled = corrupted(values[order], removed[:, order], n_draws=10, n_replicates=5)
    for k, effect in enumerate(found.effects):
        kept = values[~removed[k]]
        assert len(kept) + effect.n_removed == effect.n_rows == n
        assert effect.retention == 1 - removed[k].sum() / n
        for column, told in enumerate(effect.cells):
            assert told.original == pytest.approx(mean(values[:, column]), abs=1e-12, nan_ok=True)
            assert told.after == pytest.approx(mean(kept[:, column]), abs=1e-12, nan_ok=True)
            gone = values[removed[k], column]
            parts = [part[~np.isnan(part)] for part in (kept[:, column], gone)]
            if all(map(len, parts)):
                n_kept, n_gone = map(len, parts)
                both = (told.after * n_kept + mean(gone) * n_gone) / (n_kept + n_gone)
                assert both == pytest.approx(told.original, abs=1e-12)
            other = shuffled.effects[k].cells[column]
            for name in ("original", "after", "absolute", "relative"):
                assert getattr(other, name) == pytest.approx(getattr(told, name), abs=1e-12, nan_ok=True)


def mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else NAN


def test_a_cell_says_what_its_parts_say() -> None:
    values = some_values(60, seed=4)
    removed = np.arange(60) % 4 == 0
    [effect] = corrupted(values, removed[None], n_draws=999, n_replicates=2000, seed=3).effects
    p = by_chance(values, removed, n_draws=999, seed=3)
    for column, told in enumerate(effect.cells):
        assert (told.subgoal, told.target) == (IDS[column], column == 1)
        assert told.absolute == pytest.approx(told.after - told.original)
        assert told.relative == pytest.approx(told.absolute / told.original)
        assert told.low < told.relative < told.high
        assert told.p == p[column]
    assert effect.target is effect.cells[1]


def test_order_changes_chance_by_no_more_than_chance() -> None:
    values, removed = some_values(60, seed=8), np.arange(60) % 4 == 0
    order = np.random.default_rng(1).permutation(60)
    one, other = (
        corrupted(values[rows], removed[None, rows], n_draws=5000).effects[0] for rows in (np.arange(60), order)
    )
    for told, again in zip(one.cells, other.cells, strict=True):
        assert again.p == pytest.approx(told.p, abs=0.04)


def test_a_relative_change_of_next_to_nothing_is_not_stated() -> None:
    values = np.zeros((100, 3))
    values[:10] = [0.199, 0.201, 0.21]
    removed = np.arange(100) < 10
    [effect] = corrupted(values, removed[None], 2).effects
    nothing, least, more = effect.cells
    assert nothing.original < LEAST_BASE < least.original < more.original
    assert least.relative == -1.0
    assert isnan(nothing.relative) and nothing.absolute == pytest.approx(-0.0199)
    assert nothing.low < nothing.absolute < nothing.high < 0, "the interval is that of the absolute change"
    assert more.relative == -1.0 == pytest.approx(more.low)
    assert not effect.most_affected, "another had little to say, and lost all of it"


def test_another_that_had_next_to_nothing_and_keeps_it_does_not_count() -> None:
    values = np.zeros((100, 2))
    values[:10, 1], values[50, 0] = 0.21, 0.5
    [effect] = corrupted(values, (np.arange(100) < 10)[None], 1).effects
    assert isnan(effect.cells[0].relative) and effect.most_affected


def test_rows_that_hold_one_sample_are_no_evidence_of_their_own() -> None:
    """Copies are removed together: taken one by one, a removal at random would be flagged too often."""
    random = np.random.default_rng(5)
    samples = np.repeat(np.arange(60), 10)
    flagged = {"rows": 0, "samples": 0}
    for _ in range(100):
        values = np.repeat(random.random(60), 10)[:, None]
        removed = np.isin(samples, random.permutation(60)[:6])[None]
        for name, keys in (("rows", None), ("samples", samples)):
            found = corrupt(values, removed, ["a"], [0], names=["x"], samples=keys, n_draws=500, n_replicates=20)
            flagged[name] += found.effects[0].flagged
    assert flagged["samples"] <= 5 < flagged["rows"]


def test_the_bootstrap_draws_samples_with_all_their_rows() -> None:
    random = np.random.default_rng(6)
    values = random.random(40)[:, None]
    copies, removed = np.repeat(values, 5, axis=0), np.repeat(np.arange(40) < 10, 5)[None]
    wide, narrow = (
        corrupt(copies, removed, ["a"], [0], names=["x"], samples=keys, n_draws=100).effects[0].cells[0]
        for keys in (np.repeat(np.arange(40), 5), None)
    )
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_a_subgoal_without_judgements_is_missing() -> None:
    values = some_values(40)
    values[:, 0] = np.nan
    found = corrupted(values, (np.arange(40) < 9)[None])
    told = found.effects[0].cells[0]
    assert all(map(isnan, (told.original, told.after, told.absolute, told.relative, told.low, told.high, told.p)))
    assert found.separation().n == 1, "others are those that there are"


def test_measures_are_of_values() -> None:
    values = np.array([[0.0, 0.4, 0.59], [0.6, 0.8, NAN]])
    np.testing.assert_array_equal(measured(values, "alignment"), values)
    np.testing.assert_array_equal(measured(values, "support"), [[0, 0, 0], [1, 1, NAN]])
    np.testing.assert_array_equal(measured(values, "graded support"), graded_support(values))
    assert measured(np.array([[0.1 + 0.5, 0.3 * 2]]), "support").tolist() == [[1, 1]], "rounding takes no support"
    assert MEASURES == ("alignment", "graded support", "support")


def test_the_seed_fixes_all() -> None:
    values, removed = some_values(50), (np.arange(50) < 12)[None]
    first, again, other = (corrupted(values, removed, seed=seed) for seed in (0, 0, 1))
    assert first.effects == again.effects != other.effects
    np.testing.assert_array_equal(first.losses[0].target_draws, again.losses[0].target_draws)


# What is said of a removal


def effect(*cells: Cell) -> Effect:
    return Effect("x", "removal", 100, 10, cells)


@pytest.mark.parametrize(
    ("target", "others", "most"),
    [
        (-0.2, [-0.1, 0.3], True),
        (-0.2, [-0.2, 0.0], True),
        (-0.2, [-0.21, 0.0], False),
        (0.1, [0.2, 0.3], False),
        (0.0, [0.0, 0.1], False),
        (-1e-16, [0.0, 0.1], False),
        (NAN, [-0.1, 0.0], False),
        (-0.1, [NAN, NAN], True),
        (NAN, [NAN, NAN], False),
    ],
)
def test_the_target_is_most_affected_if_it_lost_most(target: float, others: list[float], most: bool) -> None:
    cells = [cell("a", others[0]), cell("b", target, target=True), cell("c", others[1])]
    assert effect(*cells).most_affected is most


@pytest.mark.parametrize(
    ("p", "flagged"), [(0.0001, True), (ALPHA - 1e-9, True), (ALPHA, False), (0.5, False), (NAN, False)]
)
def test_a_removal_is_flagged_if_chance_hardly_does_as_much(p: float, flagged: bool) -> None:
    assert effect(cell("a", -0.1, p=0.001), cell("b", -0.1, target=True, p=p)).flagged is flagged


# Targets against others


def test_separation_is_of_the_cells() -> None:
    values = some_values(90, seed=2)
    removed = np.stack([np.arange(90) % 3 == k for k in range(3)] + [np.arange(90) < 20])
    found = corrupted(values, removed, 0, 1, 2, 1, kinds=["removal", "removal", "removal", "natural gap"])
    told = found.separation()
    cells = [effect.cells for effect in found.effects if effect.kind == "removal"]
    target = [-each.relative for row in cells for each in row if each.target]
    others = [-np.mean([each.relative for each in row if not each.target]) for row in cells]
    assert told.n == 3
    assert told.target == pytest.approx(np.mean(target)) and told.others == pytest.approx(np.mean(others))
    assert told.paired.d == pytest.approx(cohens_d(np.array(target), np.array(others)))
    assert told.paired.p == pytest.approx(reference.ttest_rel(target, others).pvalue)
    assert told.paired.p_ranks == pytest.approx(reference.wilcoxon(target, others).pvalue)
    assert told.n_most_affected == sum(effect.most_affected for effect in found.effects[:3])
    assert told.n_flagged == sum(effect.flagged for effect in found.effects[:3])
    draws = np.mean([loss.target_draws for loss in found.losses[:3]], axis=0)
    assert told.target_interval == interval(draws) and told.target_interval[0] < told.target_interval[1]
    assert told.others_interval[0] < told.others < told.others_interval[1]
    assert told.d_interval[0] < told.d_interval[1]
    natural = found.separation("natural gap")
    assert natural.n == 1 and natural.target == pytest.approx(-found.effects[3].target.relative)
    assert isnan(natural.paired.d) and isnan(natural.paired.p)


def test_removals_of_several_studies_stand_together() -> None:
    one = corrupted(some_values(60, seed=1), (np.arange(60) < 20)[None], n_replicates=100)
    two = corrupted(some_values(40, m=2, seed=2), (np.arange(40) < 9)[None], n_replicates=60)
    told = separation([*one.effects, *two.effects], [*one.losses, *two.losses])
    assert told.n == 2
    assert told.target == pytest.approx(-np.mean([one.effects[0].target.relative, two.effects[0].target.relative]))


def test_a_target_with_too_little_to_lose_is_not_counted() -> None:
    values = some_values(60)
    values[:, 1] = 0.001
    found = corrupted(values, np.stack([np.arange(60) < 20, np.arange(60) > 40]), 1, 2).separation()
    assert found.n == 1
    alone = corrupted(values, (np.arange(60) < 20)[None], 1).separation()
    assert alone.n == 0 and isnan(alone.target) and isnan(alone.d_interval[0])


def test_a_goal_of_one_subgoal_has_no_others() -> None:
    found = corrupted(some_values(60, m=1), (np.arange(60) < 20)[None], 0)
    assert found.separation().n == 0 and not isnan(found.effects[0].target.relative)


# Strategic samples


@given(
    st.integers(1, 150),
    st.integers(0, 3),
    st.floats(0, 1),
    st.integers(1, 200),
    st.integers(0, 1000),
    st.integers(0, 99),
)
def test_a_strategic_sample_is_half_base_and_half_patterns(
    n: int, k: int, share: float, size: int, seed: int, shuffle: int
) -> None:
    matched = np.random.default_rng(shuffle).random((k, n)) < share
    positions, base, shortfalls = strategic(matched, size, seed)
    size = min(size, n)
    assert len(positions) == size == len(set(positions.tolist()))
    assert set(positions.tolist()) <= set(range(n))
    assert base.tolist() == drawn(n, seed)[: len(base)].tolist() and set(base.tolist()) <= set(positions.tolist())
    assert len(base) == (size if k == 0 else (size + 1) // 2)
    half = size - len(base)
    quotas = [half // k + (number < half % k) for number in range(k)]
    free = set(range(n)) - set(base.tolist())
    lacking = 0
    for number, quota in enumerate(quotas):
        matching = free & set(np.flatnonzero(matched[number]).tolist())
        taken = [each for each in drawn(n, seed).tolist() if each in matching][:quota]
        assert shortfalls[number] == max(0, quota - int(matched[number, positions].sum()))
        assert set(taken) <= set(positions.tolist())
        free -= set(taken)
        lacking += quota - len(taken)
    rest = set(positions.tolist()) - set(base.tolist())
    if not lacking and k:
        assert all(matched[:, each].any() for each in rest)
        assert len(rest) == half
    again = strategic(matched, size, seed)[0]
    assert positions.tolist() == again.tolist()


def test_a_strategic_sample_is_shuffled() -> None:
    matched = np.arange(400)[None] >= 300
    positions, base, shortfalls = strategic(matched, 100, 7)
    assert shortfalls.tolist() == [0]
    assert set(positions.tolist()) - set(base.tolist()) <= set(range(300, 400))
    places = np.flatnonzero(np.isin(positions, base))
    assert 15 < (places < 50).sum() < 35, "the base is not all at one end"
    assert sorted(positions.tolist()) != positions.tolist()


# The promise: at alpha 0.01, by a judge of AUC 0.9, a class of a tenth of 600 rows


def world(seed: int) -> tuple[list[Sample], list[Row], np.ndarray]:
    """Rows of which a tenth has the label, and what a judge of AUC 0.9 makes of them for three subgoals."""
    random = np.random.default_rng([seed, 1])
    labels = np.arange(600) % 10 == 0
    random.shuffle(labels)
    evidence = random.normal(size=(600, 3)) + 0.5 * random.normal(size=(600, 1)) - 1.5
    spread = np.sqrt(1.25)
    evidence[labels, 1] += reference.norm.ppf(0.9) * np.sqrt(2) * spread
    values = np.round(5 / (1 + np.exp(-evidence)), 1) / 5
    read = [Sample(f"data:{n}", f"text {n}", "") for n in range(600)]
    rows: list[Row] = [{"area": "heart" if label else "other", "text": f"text {n}"} for n, label in enumerate(labels)]
    return read, rows, values


def flagged(removal: Removal, seed: int) -> bool:
    read, rows, values = world(seed)
    mask = removal.removed(read, rows, seed)
    found = corrupted(values, mask[None], n_draws=1000, n_replicates=2, seed=seed)
    assert found.effects[0].n_removed == 60
    return found.effects[0].flagged


def test_the_judge_of_the_promise_has_its_auc() -> None:
    told = []
    for seed in range(20):
        _, rows, values = world(seed)
        own = np.array([row["area"] == "heart" for row in rows])
        told.append(reference.mannwhitneyu(values[own, 1], values[~own, 1]).statistic / (60 * 540))
    assert np.mean(told) == pytest.approx(0.9, abs=0.01)


def test_a_planted_null_is_flagged_in_at_most_5_of_100_seeds() -> None:
    null = Removal("null", "hearts", Random(0.1))
    assert sum(flagged(null, seed) for seed in range(100)) <= 5


def test_a_planted_gap_is_flagged_in_at_least_95_of_100_seeds() -> None:
    gap = Removal("gap", "hearts", Labelled("area", ("heart",)))
    assert sum(flagged(gap, seed) for seed in range(100)) >= 95


def test_a_pattern_that_says_nothing_of_the_subgoal_is_a_null() -> None:
    read, rows, values = world(0)
    mask = Pattern(r"\b\d*7\b", ("text",)).chosen(read, rows, 0)
    assert mask.sum() == 60
    assert not corrupted(values, mask[None], n_draws=1000).effects[0].flagged
