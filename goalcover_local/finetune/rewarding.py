"""A grader as a reward in training: what TRL calls, and what the grades of a step come to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..stats import spearman
from ..terms import Sample
from .processes import gathered
from .reward import Grade, Grader, Response


@dataclass
class Tally:
    """What the grades of one step come to, until it is over."""

    grades: list[Grade] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    seconds: float = 0.0
    rows: list[int] = field(default_factory=list)

    def numbers(self) -> dict[str, float | None]:
        """Means over the step's responses, by name; None where no response has the number."""
        found: dict[str, float | None] = {
            "judged": _mean([grade.judged for grade in self.grades]),
            "checked": _mean([grade.checked for grade in self.grades]),
            "failed": _mean([float(grade.score is None) for grade in self.grades]),
            "judge_seconds": self.seconds,
            "length_correlation": _correlation([grade.score for grade in self.grades], self.lengths, self.rows),
        }
        for part in ("dimensions", "checks"):
            names = getattr(self.grades[0], part) if self.grades else ()
            for name in names:
                found[f"{part}/{name}"] = _mean([getattr(grade, part)[name] for grade in self.grades])
        return found


def _mean(numbers: Sequence[float | None]) -> float | None:
    told = [number for number in numbers if number is not None]
    return sum(told) / len(told) if told else None


def _correlation(scores: Sequence[float | None], lengths: Sequence[int], rows: Sequence[int]) -> float | None:
    """Spearman's correlation of scores with lengths, each less its prompt's mean; None if either is constant.

    Within prompts, since only responses to the same one are compared with each other.
    """
    told = [place for place, score in enumerate(scores) if score is not None]
    of = np.array([rows[place] for place in told])
    columns = []
    for values in (scores, lengths):
        column = np.array([values[place] for place in told], dtype=float)
        for row in set(of.tolist()):
            column[of == row] -= column[of == row].mean()
        columns.append(np.round(column, 9))
    correlation = spearman(*columns)
    return None if np.isnan(correlation) else correlation


class Reward:
    """The reward as TRL wants it: numbers for completions; None where the judge failed.

    With a seed to `shuffle` by, the rewards of a prompt's responses change places: nothing is to be learnt from them.
    """

    __name__ = "reward"

    def __init__(self, grader: Grader, samples: Sequence[Sample], shuffle: int | None = None) -> None:
        self._grader = grader
        self._samples = samples
        self._shuffle = shuffle
        self.tally = Tally()
        self.any_graded = False

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], row: Sequence[int], trainer_state: Any, **_: Any
    ) -> list[float | None]:
        started = time.perf_counter()
        asked = [self._samples[number] for number in row]
        responses = [
            Response(sample.input, sample.output, text.strip()) for sample, text in zip(asked, completions, strict=True)
        ]
        grades = self._grader.grade(responses)
        self.any_graded = any(gathered([grade.score is not None for grade in grades]))
        self.tally.grades += grades
        self.tally.rows += row
        self.tally.lengths += [len(response.text.split()) for response in responses]
        self.tally.seconds += time.perf_counter() - started
        rewards = [grade.score for grade in grades]
        return rewards if self._shuffle is None else self._shuffled(rewards, row, trainer_state.global_step)

    def _shuffled(self, rewards: list[float | None], row: Sequence[int], step: int) -> list[float | None]:
        """The rewards of each prompt's responses in another order, drawn by seed and step."""
        draw = np.random.default_rng([self._shuffle or 0, step])
        shuffled = list(rewards)
        for number in dict.fromkeys(row):
            places = [place for place, each in enumerate(row) if each == number]
            for place, source in zip(places, draw.permutation(places).tolist(), strict=True):
                shuffled[place] = rewards[source]
        return shuffled
