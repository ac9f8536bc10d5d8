"""The scale of a judge: what makes a value of 0.6 mean the same whoever judges.

A small judge has biases: some samples get high scores for whatever they are asked about, some subgoals for whatever
sample, and its expectations huddle in the middle. Both biases are measured on ground of ours: *reference subgoals* that
hardly any sample supports are asked of every sample, *reference samples* that support hardly any subgoal are asked
about every subgoal. What a pair has beyond both means is its evidence (double centring). A monotone map then
turns evidence into the anchors' scale; it is fitted once per judge on *reference pairs* of ours with known anchors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from .cards import models_home
from .questions import read_lines
from .resources import shipped
from .stats import supports
from .terms import ANCHORS, Sample, Subgoal, digest_of

_FLOOR = 1e-6
"""Probabilities below this are taken for it: what lies deeper is rounding, not judgement."""


N_REFERENCE_SAMPLES = 12
"""How many reference samples measure a subgoal's bias."""

SUPPORTING_SHARE = 0.08
"""The share of supporting pairs for which a scale is fitted, chosen on labelled rows (docs/decisions/0003-scale.md)."""


@dataclass(frozen=True, slots=True)
class ReferencePair:
    """A sample and a subgoal of ours with the anchor that a careful reader gives them."""

    sample: Sample
    subgoal: Subgoal
    anchor: float


@dataclass(frozen=True, slots=True)
class Scale:
    """A monotone map from evidence to the anchors' scale: linear between its knots, flat beyond them.

    `reference` digests what it was fitted on; `agreement` is Spearman's correlation of evidence and anchors there.
    """

    evidence: tuple[float, ...]
    anchors: tuple[float, ...]
    reference: str
    agreement: float

    def apply(self, evidence: np.ndarray) -> np.ndarray:
        """Corrected values in [0, 1], of evidence of any shape; NaN stays NaN."""
        return np.where(np.isnan(evidence), np.nan, np.interp(np.nan_to_num(evidence), self.evidence, self.anchors))

    def record(self) -> dict[str, Any]:
        """The scale as plain values, for JSON."""
        return {
            "evidence": list(self.evidence),
            "anchors": list(self.anchors),
            "reference": self.reference,
            "agreement": self.agreement,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Scale:
        """The scale that `record` wrote."""
        return cls(tuple(record["evidence"]), tuple(record["anchors"]), record["reference"], record["agreement"])


def reference_subgoals(folder: Path | None = None) -> list[Subgoal]:
    """The capabilities, far from any likely goal, that measure a sample's bias (`unrelated.jsonl`)."""
    lines = read_lines((folder or shipped("grammars")) / "alignment" / "unrelated.jsonl")
    return [Subgoal(f"reference-{n}", line["name"], line["description"]) for n, line in enumerate(lines, start=1)]


def reference_pairs(folder: Path | None = None) -> list[ReferencePair]:
    """The pairs with known anchors, sample by sample (`grammars/alignment/reference.jsonl`)."""
    lines = read_lines((folder or shipped("grammars")) / "alignment" / "reference.jsonl")
    return [
        ReferencePair(
            Sample(f"reference-{n}", line["input"], line["output"], "reference.jsonl", n),
            Subgoal(f"reference-pair-{n}", line["name"], line["description"]),
            line["score"],
        )
        for n, line in enumerate(lines, start=1)
    ]


def reference_digest() -> str:
    """Digest of what a scale rests on: reference pairs, samples and subgoals, and the share for which it is fitted."""
    return digest_of(
        [
            str(SUPPORTING_SHARE),
            [subgoal.digest for subgoal in reference_subgoals()],
            [sample.digest for sample in reference_samples()],
            [[pair.sample.digest, pair.subgoal.digest, pair.anchor] for pair in reference_pairs()],
        ]
    )


def reference_samples(folder: Path | None = None) -> list[Sample]:
    """The samples that measure a subgoal's bias: of each domain of the reference pairs the shortest, in their order."""
    shortest: dict[str, Sample] = {}
    lines = read_lines((folder or shipped("grammars")) / "alignment" / "reference.jsonl")
    for n, line in enumerate(lines, start=1):
        sample = Sample(f"reference-{n}", line["input"], line["output"], "reference.jsonl", n)
        known = shortest.get(line["domain"])
        if known is None or len(sample.input + sample.output) < len(known.input + known.output):
            shortest[line["domain"]] = sample
    return sorted(shortest.values(), key=lambda sample: len(sample.input + sample.output))[:N_REFERENCE_SAMPLES]


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """How strongly anchor probabilities of shape (…, 6) lean to the high anchors, shape (…), in nats.

    The log-probabilities weighted by their anchors' distance from the middle: unlike the expectation's log-odds it
    also hears a judge that is sure of one anchor and only whispers the others.
    """
    weights = np.asarray(ANCHORS) - np.mean(ANCHORS)
    result: np.ndarray = np.log(np.clip(probabilities, _FLOOR, 1.0)) @ weights
    return result


def evidence(probabilities: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Log-odds less the sample's bias, shape (n_samples, n_subgoals), in nats.

    `probabilities` has shape (n_samples, n_subgoals, 6), `reference` (n_samples, n_reference_subgoals, 6). The bias is
    the mean over the reference subgoals that are not missing; where all are, the evidence is missing.
    """
    result: np.ndarray = log_odds(probabilities) - _mean(log_odds(reference), axis=1)[:, None]
    return result


def subgoal_bias(found: np.ndarray) -> np.ndarray:
    """The bias of each subgoal, (n_subgoals,): its mean evidence on reference samples, (n_samples, n_subgoals)."""
    return _mean(found, axis=0)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not missing; NaN where all is."""
    counts = (~np.isnan(values)).sum(axis=axis)
    return np.where(counts > 0, np.nansum(values, axis=axis) / np.maximum(counts, 1), np.nan)


def fit(
    found: Sequence[float] | np.ndarray,
    anchors: Sequence[float],
    reference: str,
    *,
    supporting_share: float = SUPPORTING_SHARE,
) -> Scale:
    """The scale on which as many reference pairs reach each anchor as truly do: equipercentile linking.

    Pairs are weighted so that the share of those that support their subgoal is as in data with many; a scale that
    predicted anchors one by one would shrink a weak judge's values to the middle, and no row would ever reach 0.6.
    Missing evidence (NaN) is left out; evidence that is the same for all agrees with nothing (0). Raises ValueError if
    fewer than 20 pairs are left, or all are of one kind.
    Source: Kolen and Brennan, Test Equating, Scaling, and Linking (2014), chapter 2.
    """
    x, y = np.asarray(found, dtype=float), np.asarray(anchors, dtype=float)
    x, y = x[~np.isnan(x)], y[~np.isnan(x)]
    supporting = supports(y)
    if len(x) < 20 or supporting.all() or not supporting.any():
        raise ValueError("a scale needs at least 20 judged reference pairs, some of which support their subgoal")
    weights = np.where(supporting, supporting_share / supporting.sum(), (1 - supporting_share) / (~supporting).sum())
    falling = np.argsort(-x, kind="stable")
    reached = np.cumsum(weights[falling])
    knots: list[tuple[float, float]] = [(float(x.min()), ANCHORS[0])]
    for anchor in ANCHORS[1:]:
        share = weights[y >= anchor - 1e-9].sum()
        if share > 0:
            knots.append((float(np.interp(share, reached, x[falling])), anchor))
    rho = float(spearmanr(x, y).statistic) if np.ptp(x) > 0 else 0.0
    return Scale(tuple(e for e, _ in knots), tuple(a for _, a in knots), reference, rho)


def find_scale(judge: str) -> Scale | None:
    """The scale kept for this judge's digest, if it was fitted on today's reference pairs."""
    try:
        scale = Scale.from_record(json.loads(_path(judge).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return scale if scale.reference == reference_digest() else None


def keep_scale(judge: str, scale: Scale) -> None:
    """Nothing; keeps the scale for later runs of the same judge."""
    path = _path(judge)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(scale.record()), encoding="utf-8")
    draft.replace(path)


def _path(judge: str) -> Path:
    return models_home() / "scales" / f"{judge}.json"
