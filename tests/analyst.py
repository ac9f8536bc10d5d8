"""A judge and analyst that goes by simple rules instead of running: the whole command line works without a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from clarifier import QUESTIONS, Clarifier
from command import ANSWERS, WordsEngine

from goalcover_local import canary
from goalcover_local.asking import Asker
from goalcover_local.cards import DEFAULT_CARD
from goalcover_local.engines.base import Choices, Completion, Grammar, Prompt
from goalcover_local.engines.guide import legal
from goalcover_local.questions import Question, load_question
from goalcover_local.terms import ANCHOR_TEXTS

ASKED: Mapping[str, Question] = {
    name: load_question(name) for name in ("alignment", "subject", "missing-capability", "recommendation")
}
"""What it understands besides clarification's questions."""


class Analyst(Clarifier):
    """Judges by shared words, explains what it lacks, and names what remarks lack most often.

    Like the clarifier it fails on the word in `fails_on`, `before` sees each batch first, `written` holds other answers
    than the rules' by question, and `asked` what was asked, as pairs of question and texts. `card` names its model.
    """

    def __init__(self, card: str = DEFAULT_CARD) -> None:
        super().__init__()
        self.card = card
        self._judge = WordsEngine()
        self._questions = {**QUESTIONS, **ASKED}

    def describe(self) -> Mapping[str, str]:
        """The card that it stands for."""
        return {**super().describe(), "card": self.card}

    def times(self, name: str) -> int:
        """How often a question was asked."""
        return sum(each == name for each, _ in self.asked)

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Anchors by the words that sample and subgoal share; other choices as the clarifier makes them.

        What proves a model is not noted as asked.
        """
        if tuple(answers) == (*canary.ORDINARY, *canary.THINKING):
            return Choices(np.eye(len(answers))[[0] * len(prompts)], (None,) * len(prompts), len(prompts))
        if tuple(answers) != ANCHOR_TEXTS:
            return super().choose(prompts, answers)
        self.before(prompts)
        self._judge.fails_on = self.fails_on
        self.asked += [("score", {"prompt": prompt.messages[-1].content}) for prompt in prompts]
        return self._judge.choose(prompts, answers)

    def generate(
        self, prompts: Sequence[Prompt], grammar: Grammar, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Completion]:
        """What the rules write; something legal where it is asked to break its grammar."""
        if len(prompts[0].messages) == 1:
            text = next(answer for answer in (*ANSWERS, '{"statement": "The sea."}') if legal(answer, grammar))
            return [Completion(text, 5) for _ in prompts]
        return super().generate(prompts, grammar, max_tokens=max_tokens, temperature=temperature, seed=seed)

    def _written(self, name: str, texts: Mapping[str, str], seed: int) -> Mapping[str, Any]:
        if name in self.written:
            return self.written[name](texts)
        match name:
            case "alignment":
                lacking = re.findall(r"\w{4,}", texts["description"])[1:]
                about = re.findall(r"\w{4,}", texts["input"]) or ["nothing"]
                lacks = lacking[len(texts["input"]) % len(lacking)] if lacking else "everything"
                return {"score": 0.0, "explanation": f"Tells of {about[-1].lower()} and lacks {lacks}."}
            case "subject":
                return {"subject": " ".join(re.findall(r"\w+", texts["input"])[:10]) or "nothing"}
            case "missing-capability":
                told = {"missing": r"lacks (\w+)", "instead": r"Tells of (\w+)"}
                return {field: most_often(re.findall(sought, texts["remarks"])) for field, sought in told.items()}
            case "recommendation":
                return {
                    "issue": f"There is hardly anything on {texts['name']}.",
                    "fix": f"Add samples on {texts['missing']}.",
                    "sources": "Libraries.",
                }
        return super()._written(name, texts, seed)


def most_often(found: Sequence[str]) -> str:
    """The most frequent of these words, the first by the alphabet of equals; of none, a word that has no evidence."""
    counted = Counter(found)
    return min(counted, key=lambda word: (-counted[word], word), default="nothing")


class Told(Asker):
    """An asker of an analyst that writes these answers to `missing-capability`, whatever it is asked."""

    def __init__(self, missing: Sequence[str], instead: Sequence[str] = ("nothing",)) -> None:
        self.model = Analyst()
        self.model.written["missing-capability"] = lambda _: self._next(missing, instead)
        super().__init__(self.model)

    def _next(self, missing: Sequence[str], instead: Sequence[str]) -> Mapping[str, str]:
        place = self.model.times("missing-capability") - 1
        return {"missing": missing[place % len(missing)], "instead": instead[place % len(instead)]}
