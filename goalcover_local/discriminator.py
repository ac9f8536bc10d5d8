"""A discriminator: what samples that a model wrote are worth, in three respects and against each other.

Grades are calibrated: the model's probabilities of the six anchors, less its bias, become evidence, and a monotone map
fitted on our own graded samples (`grammars/quality/reference.jsonl`) turns evidence into the anchors' scale. Groups are
ranked in one prompt, in as many orders as they have members, so that no place is favoured (RULER, OpenPipe 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from . import scales
from .asking import Asker
from .questions import read_lines, reference_cases
from .resources import shipped
from .terms import ANCHORS, QUALITIES, SUPPORT_AT, Sample, Subgoal, digest_of

GROUP = 4
"""Samples that are ranked in one prompt."""

FIT = 0.5
"""The least Spearman correlation of grades with those of our graded samples at which a model is fit to grade."""

_FLAT = 1e-9
_TOKENS = 60
_PLACES = "abcd"


def group_sizes(n: int) -> list[int]:
    """With how many each of `n` samples is ranked, itself counted, (n,): four, or as many as are left at the end."""
    return [min(GROUP, n - place // GROUP * GROUP) for place in range(n)]


class Discriminator:
    """A model that grades and ranks samples written for a subgoal. What it fails to answer is None."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self._asks = {
            line["respect"]: line["asks"] for line in read_lines(shipped("grammars") / "quality" / "respects.jsonl")
        }

    @cached_property
    def scale(self) -> scales.Scale | None:
        """The map from evidence to grades, with its agreement on our graded samples; None if it cannot grade at all.

        That is where it failed on most of them, or says the same of all.
        """
        cases = reference_cases("quality")
        graded = np.array([float(case["answer"]["score"]) for case in cases])
        found = self._evidence([case["fields"] for case in cases])
        share = float((graded >= SUPPORT_AT).mean())
        try:
            scale = scales.fit(found, graded.tolist(), digest_of(cases), supporting_share=share)
        except ValueError:
            return None
        return scale if np.ptp(scale.evidence) > _FLAT else None

    @property
    def agreement(self) -> float:
        """Spearman's correlation of its grades of our graded samples with ours, in [-1, 1]; 0 if it cannot grade."""
        return self.scale.agreement if self.scale else 0.0

    @property
    def fit(self) -> bool:
        """Whether its grades of our graded samples go with ours."""
        return self.agreement >= FIT

    def quality(self, subgoal: Subgoal, samples: Sequence[Sample]) -> list[Mapping[str, float | None]]:
        """The grade of each sample in each of `QUALITIES`, in [0, 1]; all None if it cannot grade."""
        if not samples:
            return []
        if self.scale is None:
            return [dict.fromkeys(QUALITIES) for _ in samples]
        texts = [self._texts(subgoal, sample, respect) for sample in samples for respect in QUALITIES]
        grades = self.scale.apply(self._evidence(texts)).reshape(len(samples), len(QUALITIES))
        return [
            {name: None if np.isnan(grade) else float(grade) for name, grade in zip(QUALITIES, row, strict=True)}
            for row in grades
        ]

    def criticism(self, flawed: Sequence[tuple[Subgoal, Sample, str]]) -> list[str]:
        """What is wrong with each sample in a respect, and what would mend it; empty where the model failed."""
        texts = [self._texts(*each) for each in flawed]
        answers = self.asker.write("criticism", texts, max_tokens=_TOKENS)
        return [str((answer.fields or {}).get("criticism", "")) for answer in answers]

    def ranks(self, subgoal: Subgoal, samples: Sequence[Sample], seed: int = 0) -> list[float | None]:
        """How likely each sample is the best of its group, from 0 to 1: groups of up to four, in the order given.

        Each group is shown in an order drawn by `seed` and in all its rotations, and the probabilities are averaged. A
        sample that has no group to stand in has no rank. Chance is one in the size of its group (`group_sizes`).
        """
        ranks: list[float | None] = [None] * len(samples)
        draw = np.random.default_rng(seed)
        asked: list[tuple[tuple[int, ...], Mapping[str, str]]] = []
        for start in range(0, len(samples), GROUP):
            members = (start + draw.permutation(len(samples[start : start + GROUP]))).tolist()
            if len(members) > 1:
                orders = [(*members[turn:], *members[:turn]) for turn in range(len(members))]
                asked += [(order, _group(subgoal, [samples[place] for place in order])) for order in orders]
        rows = self.asker.probabilities("ranking", [texts for _, texts in asked])
        for place in {place for order, _ in asked for place in order}:
            shares = [
                None if row is None else float(row[order.index(place)] / row[: len(order)].sum())
                for (order, _), row in zip(asked, rows, strict=True)
                if place in order
            ]
            told = [share for share in shares if share is not None]
            ranks[place] = sum(told) / len(told) if len(told) == len(shares) else None
        return ranks

    def _evidence(self, texts: Sequence[Mapping[str, str]]) -> np.ndarray:
        """Log-odds of the anchors, the model's bias taken off, (n_texts,); NaN where it failed."""
        decided = self.asker.decide("quality", texts)
        rows = [np.full(len(ANCHORS), np.nan) if row is None else np.array([*row.values()]) for row in decided]
        return scales.log_odds(np.array(rows).reshape(-1, len(ANCHORS)))

    def _texts(self, subgoal: Subgoal, sample: Sample, respect: str) -> dict[str, str]:
        shown = {"input": sample.input.strip(), "output": sample.output.strip(), "respect": self._asks[respect]}
        return {"name": subgoal.name, "description": subgoal.description, **shown}


def _group(subgoal: Subgoal, samples: Sequence[Sample]) -> dict[str, str]:
    shown = [f"Input: {sample.input.strip()}\nOutput: {sample.output.strip()}" for sample in samples]
    texts = dict(zip(_PLACES, [*shown, *["(none)"] * (GROUP - len(shown))], strict=True))
    return {"name": subgoal.name, "description": subgoal.description, **texts}
