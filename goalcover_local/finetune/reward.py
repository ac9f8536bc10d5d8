"""Grades of responses: a judge's expectation from 1 to 5 in each dimension of a rubric, and what a program computes.

The same code rewards a policy in training and grades it in an evaluation (paper, section 6.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..engines.base import Engine, Prompt
from ..stats import spearman
from ..terms import digest_of
from .checks import check
from .rubric import LEVELS, Rubric

FIT = 0.5
"""The least Spearman correlation of its grades with ours at which a judge is fit to reward in a dimension."""

_SLACK = 64
"""Tokens kept free for the answer and for tokens that merge differently once a text is cut."""

_NO_ROOM = "no room for the response and its source in the judge's context"


class Response(NamedTuple):
    """What a policy wrote about a sample: the sample's two texts, and the policy's."""

    input: str
    output: str
    text: str

    @property
    def source(self) -> str:
        """The sample's texts together."""
        return f"{self.input}\n{self.output}".strip()


@dataclass(frozen=True, slots=True)
class Grade:
    """What a response is worth.

    `dimensions` maps each judged dimension to its grade in [1, 5], None where the judge failed; `checks` each computed
    one to a number in [0, 1]. `judged` is the weighted mean of the dimensions, in [1, 5], `checked` that of the checks,
    in [0, 1], None if there are none. `score` is the weighted sum of all, in [1, 5], where a check c counts as 1 + 4c;
    None if a dimension that counts is missing: a failed judgement is no grade at all, never the lowest.
    """

    dimensions: Mapping[str, float | None]
    checks: Mapping[str, float]
    judged: float | None
    checked: float | None
    score: float | None
    failure: str | None = None


def graded(
    rubric: Rubric, dimensions: Mapping[str, float | None], checks: Mapping[str, float], failure: str | None = None
) -> Grade:
    """The grade that these parts come to under the rubric's weights."""
    counted = [dimension for dimension in rubric.dimensions if dimension.weight]
    told = [grade for dimension in counted if (grade := dimensions[dimension.name]) is not None]
    whole = len(told) == len(counted)
    judged = float(np.average(told, weights=[each.weight for each in counted])) if whole else None
    computed = [checks[each.name] for each in rubric.checks]
    checked = float(np.average(computed, weights=[each.weight for each in rubric.checks])) if computed else None
    share = rubric.judged_share
    score = None if judged is None else share * judged + (1 - share) * (1 + 4 * (checked or 0.0))
    return Grade(dict(dimensions), dict(checks), judged, checked, score, failure)


@dataclass(frozen=True)
class Grader:
    """An engine that grades responses by a rubric."""

    engine: Engine
    rubric: Rubric

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Everything that can change a grade: weights, precision, versions, question, dimensions, checks."""
        return {
            **self.engine.describe(),
            "reward": self.rubric.name,
            "reward_digest": self.rubric.digest,
            "context": self.engine.context,
            "goalcover": __version__,
        }

    @cached_property
    def digest(self) -> str:
        """Digest of the identity."""
        return digest_of(dict(self.identity))

    def grade(self, responses: Sequence[Response]) -> list[Grade]:
        """The grade of each response, in their order. Responses to one sample that stand together share its cost."""
        if not responses:
            return []
        asked = list(dict.fromkeys(dimension.asks for dimension in self.rubric.dimensions))
        contrasted = [asks for asks in asked if any(d.contrast and d.asks == asks for d in self.rubric.dimensions)]
        own, failures = self._expected(responses, asked)
        other, others_failures = self._expected(list(map(self._elsewhere, responses)), contrasted)
        grades = []
        for number, response in enumerate(responses):
            told = {}
            for dimension in self.rubric.dimensions:
                grade = own[number, asked.index(dimension.asks)]
                if dimension.contrast:
                    grade = 3 + (grade - other[number, contrasted.index(dimension.asks)]) / 2
                told[dimension.name] = None if np.isnan(grade) else float(grade)
            failure = failures[number] or others_failures[number]
            grades.append(graded(self.rubric, told, self.checks(response), failure))
        return grades

    def _expected(self, responses: Sequence[Response], asked: Sequence[str]) -> tuple[np.ndarray, list[str | None]]:
        """The expected grade of each response in each respect, (n_responses, n_asked), and why any is missing."""
        found = np.full((len(responses), len(asked)), np.nan)
        failures: list[str | None] = [None] * len(responses)
        if not asked:
            return found, failures
        fitted = [self._fitted(each) for each in responses]
        there = [number for number, each in enumerate(fitted) if each is not None]
        prompts = [self._prompt(each, asks) for each in fitted if each is not None for asks in asked]
        choices = self.engine.choose(prompts, LEVELS)
        found[there] = _expected(choices.probabilities).reshape(len(there), len(asked))
        for place, number in enumerate(there):
            told = choices.failures[place * len(asked) : (place + 1) * len(asked)]
            failures[number] = next(filter(None, told), None)
        for number in set(range(len(responses))) - set(there):
            failures[number] = _NO_ROOM
        return found, failures

    def _elsewhere(self, response: Response) -> Response:
        """The same text as a response to another source: always the same one for the same sample."""
        others = [other for other in self.rubric.others if other != (response.input, response.output)]
        if not others:
            return response
        input, output = others[int(digest_of([response.input, response.output])[:8], 16) % len(others)]
        return response._replace(input=input, output=output)

    @cached_property
    def agreements(self) -> Mapping[str, float]:
        """How its grades in each dimension that counts go with ours, on the reward's reference cases, by name.

        Spearman's correlation, in [-1, 1]; NaN where there are fewer than two cases, or all are graded alike. Graded as
        in training, contrast and all.
        """
        cases = self.rubric.cases
        texts = [Response(case.input, case.output, case.response) for case in cases]
        known = dict.fromkeys(texts)
        grades = dict(zip(known, self.grade(list(known)), strict=True))
        found = {}
        for dimension in (each for each in self.rubric.dimensions if each.weight):
            pairs = [
                (grade, case.score)
                for text, case in zip(texts, cases, strict=True)
                if case.asks == dimension.asks and (grade := grades[text].dimensions[dimension.name]) is not None
            ]
            grade_column, score_column = np.array(pairs, dtype=float).reshape(-1, 2).T
            found[dimension.name] = spearman(grade_column, score_column)
        return found

    @property
    def agreement(self) -> float:
        """The least of its agreements, in [-1, 1]: a judge is as fit as where it is worst. NaN if none is known."""
        known = [agreement for agreement in self.agreements.values() if agreement == agreement]
        return min(known, default=float("nan"))

    def checks(self, response: Response) -> dict[str, float]:
        """What programs compute of a response, by name, each in [0, 1]."""
        return {
            each.name: check(
                each.kind, response.text, response.source, least=each.least, most=each.most, terms=each.terms
            )
            for each in self.rubric.checks
        }

    def _prompt(self, response: Response, asks: str) -> Prompt:
        texts = {
            "input": response.input.strip(),
            "output": response.output.strip(),
            "response": response.text.strip(),
            "dimension": asks,
        }
        return self.rubric.question.prompt(texts, asking="score")

    def _fitted(self, response: Response) -> Response | None:
        """The response, its source cut in the middle if it exceeds the judge's context; None if not even that fits."""
        longest = max(self.rubric.dimensions, key=lambda dimension: len(dimension.asks.encode())).asks
        whole = self._prompt(response, longest)
        # No tokenizer makes more tokens than there are bytes, so most responses need no count.
        n_bytes = sum(len(message.content.encode("utf-8", "replace")) for message in whole.messages)
        if n_bytes + _SLACK <= self.engine.context or self._tokens(whole) + _SLACK <= self.engine.context:
            return response
        frame = self._tokens(self._prompt(response._replace(input="", output=""), longest))
        room = self.engine.context - 2 * _SLACK - frame
        if room < _SLACK:
            return None
        output, _ = self.engine.shorten(response.output, room // 2)
        used = self._tokens(self._prompt(response._replace(input="", output=output), longest)) - frame
        input, _ = self.engine.shorten(response.input, room - used)
        return response._replace(input=input, output=output)

    def _tokens(self, prompt: Prompt) -> int:
        return self.engine.count_tokens([prompt])[0]


def _expected(probabilities: np.ndarray) -> np.ndarray:
    """The mean grade, (n,), under probabilities of the levels, (n, 5); NaN where there are none."""
    expected: np.ndarray = probabilities @ np.arange(1, len(LEVELS) + 1)
    return expected
