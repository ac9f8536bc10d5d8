"""Judges the reference pairs and fits a judge's scale on them: once per judge, before its first assessment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..judges import Batch, Judge, Pair
from ..scales import (
    Scale,
    evidence,
    fit,
    reference_digest,
    reference_pairs,
    reference_samples,
    reference_subgoals,
    subgoal_bias,
)
from ..terms import Sample, Subgoal

_PAIRS_PER_BATCH = 96


def pairs_to_judge() -> list[Pair]:
    """Every pair that a scale needs, sample by sample: the reference pairs, and what measures both biases."""
    wanted: dict[str, tuple[Sample, dict[str, Subgoal]]] = {}
    pairs = reference_pairs()
    for pair in pairs:
        wanted.setdefault(pair.sample.digest, (pair.sample, {}))[1][pair.subgoal.digest] = pair.subgoal
    for sample in reference_samples():
        wanted[sample.digest][1].update({pair.subgoal.digest: pair.subgoal for pair in pairs})
    return [(sample, subgoal) for sample, own in wanted.values() for subgoal in (*own.values(), *reference_subgoals())]


def judge_references(judge: Judge) -> Iterator[Batch]:
    """Judgements of the pairs that a scale needs, a batch at a time."""
    pairs = pairs_to_judge()
    for start in range(0, len(pairs), _PAIRS_PER_BATCH):
        yield judge.judge(pairs[start : start + _PAIRS_PER_BATCH])


def scale_from(batches: Sequence[Batch]) -> Scale:
    """The scale that fits these judgements of the reference pairs."""
    found = {(j.sample, j.subgoal): j.probabilities or (np.nan,) * 6 for batch in batches for j in batch.judgements}
    pairs, aliens = reference_pairs(), reference_subgoals()
    own = np.array([[found[pair.sample.digest, pair.subgoal.digest]] for pair in pairs])
    alien = np.array([[found[pair.sample.digest, subgoal.digest] for subgoal in aliens] for pair in pairs])
    subgoals = list(dict.fromkeys(pair.subgoal.digest for pair in pairs))
    samples = [sample.digest for sample in reference_samples()]
    ground = evidence(
        np.array([[found[sample, subgoal] for subgoal in subgoals] for sample in samples]),
        np.array([[found[sample, subgoal.digest] for subgoal in aliens] for sample in samples]),
    )
    paired = {(pair.sample.digest, pair.subgoal.digest) for pair in pairs}
    known = np.array([[(sample, subgoal) in paired for subgoal in subgoals] for sample in samples])
    bias = dict(zip(subgoals, subgoal_bias(np.where(known, np.nan, ground)), strict=True))
    corrected = evidence(own, alien)[:, 0] - np.array([bias[pair.subgoal.digest] for pair in pairs])
    return fit(corrected.tolist(), [pair.anchor for pair in pairs], reference_digest())
