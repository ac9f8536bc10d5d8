"""Judges the reference pairs and fits a judge's scale on them: once per judge, before its first assessment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..judges import Batch, Judge
from ..scales import Scale, evidence, fit, reference_digest, reference_pairs, reference_subgoals
from ..terms import Sample, Subgoal

_SAMPLES_PER_BATCH = 8


def n_reference_samples() -> int:
    """How many different samples the reference pairs hold."""
    return len({pair.sample.digest for pair in reference_pairs()})


def judge_references(judge: Judge) -> Iterator[tuple[int, Batch]]:
    """Judgements of the reference pairs and, for each reference sample, of the reference subgoals; a batch at a time."""
    subgoals_of: dict[str, tuple[Sample, list[Subgoal]]] = {}
    for pair in reference_pairs():
        subgoals_of.setdefault(pair.sample.digest, (pair.sample, []))[1].append(pair.subgoal)
    samples = list(subgoals_of.values())
    for start in range(0, len(samples), _SAMPLES_PER_BATCH):
        part = samples[start : start + _SAMPLES_PER_BATCH]
        pairs = [(sample, subgoal) for sample, own in part for subgoal in (*own, *reference_subgoals())]
        yield len(part), judge.judge(pairs)


def scale_from(batches: Sequence[Batch]) -> Scale:
    """The scale that fits these judgements of the reference pairs."""
    found = {
        (judgement.sample, judgement.subgoal): judgement.probabilities or (np.nan,) * 6
        for batch in batches
        for judgement in batch.judgements
    }
    pairs, moods = reference_pairs(), reference_subgoals()
    own = np.array([[found[pair.sample.digest, pair.subgoal.digest]] for pair in pairs])
    reference = np.array([[found[pair.sample.digest, subgoal.digest] for subgoal in moods] for pair in pairs])
    return fit(evidence(own, reference)[:, 0].tolist(), [pair.anchor for pair in pairs], reference_digest())
