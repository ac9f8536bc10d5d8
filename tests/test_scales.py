"""A judge's scale: monotone, kept under its digest, and deaf to a sample's mood."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local import scales
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.judges import Batch, Judge
from goalcover_local.phases import calibrate
from goalcover_local.scales import Scale, evidence, find_scale, fit, keep_scale, log_odds
from goalcover_local.terms import ANCHORS, Judgement

NAN = float("nan")
JUDGE = "ab" * 32
ROWS = st.lists(st.floats(0.01, 1), min_size=6, max_size=6)
PAIRS = st.lists(st.tuples(st.floats(-8, 8) | st.just(NAN), st.sampled_from(ANCHORS)), min_size=60, max_size=90).filter(
    lambda pairs: 2 < sum(anchor >= 0.6 for e, anchor in pairs if e == e) < sum(e == e for e, _ in pairs) - 2 > 20
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path))
    return tmp_path


def rows(*weights: list[float]) -> np.ndarray:
    """Probabilities, each row summing to 1."""
    array = np.array(weights, dtype=float)
    normal: np.ndarray = array / array.sum(axis=-1, keepdims=True)
    return normal


def tilted(probabilities: np.ndarray, by: float) -> np.ndarray:
    """What a mood does: every row's odds leaned towards the high anchors (or the low ones)."""
    leaned: np.ndarray = probabilities * np.exp(by * np.asarray(ANCHORS))
    return leaned / leaned.sum(axis=-1, keepdims=True)


@given(pairs=PAIRS)
def test_a_fitted_scale_is_monotone_and_stays_within_0_and_1(pairs: list[tuple[float, float]]) -> None:
    scale = fit([e for e, _ in pairs], [a for _, a in pairs], "reference")
    values = scale.apply(np.linspace(-12, 12, 500))
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values) >= 0).all()
    assert list(scale.evidence) == sorted(scale.evidence)
    assert list(scale.anchors) == sorted(scale.anchors)


@given(pairs=PAIRS)
def test_missing_evidence_is_left_out_of_a_fit(pairs: list[tuple[float, float]]) -> None:
    there = [(e, a) for e, a in pairs if e == e]
    with_missing = fit([e for e, _ in pairs], [a for _, a in pairs], "reference").record()
    without = fit([e for e, _ in there], [a for _, a in there], "reference").record()
    assert json.dumps(with_missing) == json.dumps(without)


@given(shape=st.sampled_from([(0,), (3,), (2, 4), (2, 3, 4)]), seed=st.integers(0, 99))
def test_missing_evidence_has_no_value_whatever_the_shape(shape: tuple[int, ...], seed: int) -> None:
    draw = np.random.default_rng(seed)
    found = draw.normal(size=shape)
    found[draw.random(shape) < 0.4] = NAN
    values = Scale((-1.0, 1.0), (0.0, 1.0), "", 1.0).apply(found)
    assert values.shape == shape
    assert np.array_equal(np.isnan(values), np.isnan(found))


def test_a_judge_that_sorts_perfectly_keeps_both_kinds_apart() -> None:
    anchors = [anchor for anchor in ANCHORS for _ in range(10)]
    found = [4 * anchor + 0.01 * n for n, anchor in enumerate(anchors)]
    scale = fit(found, anchors, "reference")
    values = scale.apply(np.array(found))
    supporting = np.array(anchors) >= 0.6
    assert (values[supporting] >= 0.6 - 1e-9).all()
    assert (values[~supporting] < 0.6).all()
    assert scale.agreement > 0.95


def test_a_judge_that_sorts_upside_down_is_told_so() -> None:
    anchors = [anchor for anchor in ANCHORS for _ in range(10)]
    assert fit([-anchor for anchor in anchors], anchors, "reference").agreement < -0.95


def test_too_few_pairs_are_no_ground_for_a_scale() -> None:
    found = [0.1 * n for n in range(19)] + [NAN] * 30
    with pytest.raises(ValueError, match="20"):
        fit(found, [0.0, 1.0] * 24 + [0.0], "reference")


@given(own=ROWS, alien=ROWS)
def test_evidence_leans_as_the_judge_does(own: list[float], alien: list[float]) -> None:
    reference = rows(alien)[None]
    low, high = (evidence(tilted(rows(own), by)[None], reference)[0, 0] for by in (-1.0, 1.0))
    assert low < high


@given(own=st.lists(ROWS, min_size=1, max_size=3), alien=st.lists(ROWS, min_size=1, max_size=3), by=st.floats(-4, 4))
def test_a_mood_that_lifts_everything_alike_changes_nothing(
    own: list[list[float]], alien: list[list[float]], by: float
) -> None:
    """The probabilities stay above the floor here, so the constant that a mood adds goes exactly."""
    before = evidence(rows(*own)[None], rows(*alien)[None])
    after = evidence(tilted(rows(*own), by)[None], tilted(rows(*alien), by)[None])
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_each_samples_mood_is_its_own() -> None:
    own, alien = rows([1, 1, 2, 3, 2, 1]), rows([3, 2, 1, 1, 1, 1], [2, 2, 2, 1, 1, 1])
    moods = (-2.0, 0.0, 3.0)
    found = evidence(np.stack([tilted(own, by) for by in moods]), np.stack([tilted(alien, by) for by in moods]))
    assert found.shape == (3, 1)
    np.testing.assert_allclose(found, np.full((3, 1), found[1, 0]), atol=1e-9)


def test_a_missing_reference_subgoal_is_left_out_and_all_missing_is_missing() -> None:
    own, alien = rows([1, 1, 2, 3, 2, 1])[None], rows([3, 2, 1, 1, 1, 1])[None]
    hole = np.full((1, 1, 6), NAN)
    assert evidence(own, np.concatenate([alien, hole], axis=1)) == pytest.approx(evidence(own, alien))
    assert np.isnan(evidence(own, hole)).all()
    assert np.isnan(evidence(hole, alien)).all()


def test_a_judge_that_is_quite_sure_still_has_finite_evidence() -> None:
    sure = np.array([[[0.0, 0, 0, 0, 0, 1]], [[1.0, 0, 0, 0, 0, 0]]])
    found = evidence(sure, sure[::-1])
    assert np.isfinite(found).all() and found[0, 0] > found[1, 0]
    assert np.isfinite(log_odds(sure)).all()


def test_a_kept_scale_is_found_again(home: Path) -> None:
    scale = Scale((-1.5, 0.25), (0.2, 0.9), scales.reference_digest(), 0.75)
    assert find_scale(JUDGE) is None
    keep_scale(JUDGE, scale)
    assert find_scale(JUDGE) == scale
    assert find_scale("cd" * 32) is None
    assert Scale.from_record(json.loads(json.dumps(scale.record()))) == scale
    folder = home / "scales"
    assert [file.name for file in folder.iterdir()] == [f"{JUDGE}.json"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_kept_scale_is_replaced(home: Path) -> None:
    for agreement in (0.1, 0.2):
        keep_scale(JUDGE, Scale((0.0, 1.0), (0.0, 1.0), scales.reference_digest(), agreement))
    kept = find_scale(JUDGE)
    assert kept is not None and kept.agreement == 0.2


def test_a_scale_fitted_on_other_reference_pairs_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_scale(JUDGE, Scale((0.0, 1.0), (0.0, 1.0), scales.reference_digest(), 0.5))
    pairs = scales.reference_pairs()
    monkeypatch.setattr(scales, "reference_pairs", lambda folder=None: pairs[:-1])
    assert find_scale(JUDGE) is None


def test_the_reference_digest_hears_every_pair_and_subgoal(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, subgoals = scales.reference_pairs(), scales.reference_subgoals()
    digests = {scales.reference_digest()}
    monkeypatch.setattr(scales, "reference_subgoals", lambda folder=None: subgoals[1:])
    digests.add(scales.reference_digest())
    first = scales.ReferencePair(pairs[0].sample, pairs[0].subgoal, 0.4 if pairs[0].anchor != 0.4 else 0.2)
    monkeypatch.setattr(scales, "reference_pairs", lambda folder=None: [first, *pairs[1:]])
    digests.add(scales.reference_digest())
    assert len(digests) == 3


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"null", b"{}", b'{"evidence": 5, "anchors": [], "reference": ""}', b"\xff\xfe"]
)
def test_a_corrupt_file_is_as_good_as_none(home: Path, content: bytes) -> None:
    (home / "scales").mkdir()
    (home / "scales" / f"{JUDGE}.json").write_bytes(content)
    assert find_scale(JUDGE) is None


def test_our_reference_pairs_are_what_the_issue_asks_for() -> None:
    pairs = scales.reference_pairs()
    lines = scales.read_lines(scales.shipped("grammars") / "alignment" / "reference.jsonl")
    assert len(pairs) >= 120
    assert len({line["domain"] for line in lines}) >= 8
    assert {pair.anchor for pair in pairs} == set(ANCHORS)
    assert len({(pair.sample.digest, pair.subgoal.digest) for pair in pairs}) == len(pairs)
    assert len({subgoal.digest for subgoal in scales.reference_subgoals()}) == len(scales.reference_subgoals())


def judgements(pair_lean: float = 4.0) -> dict[tuple[str, str], Judgement]:
    """What a judge says that follows the anchors, with a bias for each sample and for each subgoal.

    A pair that is no reference pair leans nowhere: its sample hardly supports its subgoal.
    """
    anchors = {(pair.sample.digest, pair.subgoal.digest): pair.anchor for pair in scales.reference_pairs()}
    found = {}
    for sample, subgoal in calibrate.pairs_to_judge():
        key = sample.digest, subgoal.digest
        biases = int(key[0][:2], 16) / 100 + int(key[1][:2], 16) / 100
        probabilities = tilted(rows([1] * 6), pair_lean * anchors.get(key, 0.0) + biases)[0]
        found[key] = Judgement(*key, tuple(float(p) for p in probabilities))
    return found


def scale_of(found: Mapping[tuple[str, str], Judgement]) -> Scale:
    """The scale fitted from these judgements, in two batches."""
    every = tuple(found.values())
    return calibrate.scale_from([Batch(every[:100]), Batch(every[100:])])


def test_a_scale_is_fitted_from_judgements_of_the_reference_pairs_and_hears_no_bias() -> None:
    scale = scale_of(judgements())
    assert scale.agreement > 0.95
    assert scale.reference == scales.reference_digest()
    unbiased = log_odds(np.stack([tilted(rows([1] * 6), 4.0 * anchor)[0] for anchor in ANCHORS]))
    np.testing.assert_allclose(scale.apply(unbiased), ANCHORS, atol=0.05)
    assert scale_of(judgements(pair_lean=-4.0)).agreement < -0.95


def test_failed_reference_judgements_are_missing_and_not_0() -> None:
    found = judgements()
    pairs = [pair for pair in scales.reference_pairs() if pair.anchor == 1.0][::3]
    for pair in pairs:
        key = pair.sample.digest, pair.subgoal.digest
        found[key] = Judgement(*key, None, "no answer")
    assert scale_of(found).agreement == pytest.approx(scale_of(judgements()).agreement, abs=0.01)


def test_every_pair_that_a_scale_needs_is_judged_once_sample_by_sample() -> None:
    pairs = calibrate.pairs_to_judge()
    keys = [(sample.digest, subgoal.digest) for sample, subgoal in pairs]
    assert len(set(keys)) == len(keys)
    assert {(p.sample.digest, p.subgoal.digest) for p in scales.reference_pairs()} <= set(keys)
    in_order = [sample for sample, _ in groupby(sample for sample, _ in keys)]
    assert len(in_order) == len(set(in_order)), "what a sample shares is computed once"


def test_the_judge_is_asked_for_just_these_pairs() -> None:
    judge = Judge(ScriptedEngine([[1, 1, 1, 2, 10, 5]], context=100_000), tiny.QUESTION)
    found = [(j.sample, j.subgoal) for batch in calibrate.judge_references(judge) for j in batch.judgements]
    assert found == [(sample.digest, subgoal.digest) for sample, subgoal in calibrate.pairs_to_judge()]


def test_a_subgoals_bias_is_the_mean_of_what_is_there() -> None:
    found = np.array([[1.0, NAN, NAN], [3.0, 4.0, NAN]])
    assert scales.subgoal_bias(found)[:2].tolist() == [2.0, 4.0]
    assert np.isnan(scales.subgoal_bias(found)[2])
