"""The scale of a judge: what makes a value of 0.6 mean the same whoever judges.

A small judge has moods: some samples get high scores for whatever they are asked about, and its expectations huddle in
the middle. The mood is measured by *reference subgoals* that hardly any sample supports, asked beside the user's own; a
sample's evidence for a subgoal is its log-odds less their mean. A monotone map then turns evidence into the anchors'
scale. It is fitted once per judge on *reference pairs*, samples and subgoals of ours with known anchors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from .cards import models_home
from .questions import read_lines
from .resources import shipped
from .terms import ANCHORS, Sample, Subgoal, digest_of

_FLOOR = 1e-6
"""Probabilities below this are taken for it: what lies deeper is rounding, not judgement."""


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
    """The capabilities, far from any likely goal, that measure a sample's mood (`grammars/alignment/unrelated.jsonl`)."""
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
    """Digest of the reference pairs and subgoals that a scale rests on."""
    return digest_of(
        [
            [subgoal.digest for subgoal in reference_subgoals()],
            [[pair.sample.digest, pair.subgoal.digest, pair.anchor] for pair in reference_pairs()],
        ]
    )


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """How strongly anchor probabilities of shape (…, 6) lean to the high anchors, shape (…), in nats.

    The log-probabilities weighted by their anchors' distance from the middle: unlike the expectation's log-odds it
    also hears a judge that is sure of one anchor and only whispers the others.
    """
    weights = np.asarray(ANCHORS) - np.mean(ANCHORS)
    result: np.ndarray = np.log(np.clip(probabilities, _FLOOR, 1.0)) @ weights
    return result


def evidence(probabilities: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Log-odds less the sample's mood, shape (n_samples, n_subgoals).

    `probabilities` has shape (n_samples, n_subgoals, 6), `reference` (n_samples, n_reference_subgoals, 6). The mood is
    the mean over the reference subgoals that are not missing; where all are, the evidence is missing.
    """
    present = ~np.isnan(reference).any(axis=-1)
    totals = np.where(present, np.nan_to_num(log_odds(reference)), 0.0).sum(axis=1)
    counts = present.sum(axis=1)
    mood = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    result: np.ndarray = log_odds(probabilities) - mood[:, None]
    return result


def fit(found: Sequence[float], anchors: Sequence[float], reference: str) -> Scale:
    """The scale that fits evidence to known anchors best, monotone: isotonic regression, its steps joined by lines.

    Missing evidence (NaN) is left out. Raises ValueError if fewer than 20 pairs are left.
    """
    from scipy.stats import spearmanr

    x, y = np.asarray(found, dtype=float), np.asarray(anchors, dtype=float)
    x, y = x[~np.isnan(x)], y[~np.isnan(x)]
    if len(x) < 20:
        raise ValueError("a scale needs at least 20 judged reference pairs")
    order = np.argsort(x, kind="stable")
    fitted = isotonic_regression(y[order]).x
    knots_x, knots_y = [], []
    for level in np.unique(fitted):
        at = x[order][fitted == level]
        knots_x.append(float(at.mean()))
        knots_y.append(float(level))
    return Scale(tuple(knots_x), tuple(knots_y), reference, float(spearmanr(x, y).statistic))


def find_scale(judge: str) -> Scale | None:
    """The scale kept for this judge's digest, if it was fitted on today's reference pairs."""
    try:
        scale = Scale.from_record(json.loads(_path(judge).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
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
