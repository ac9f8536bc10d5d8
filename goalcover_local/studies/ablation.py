"""Ablations: what each part of the method is worth, told by leaving it out (paper, section 7.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ..asking import Asker
from ..grouping import stems
from ..judges import Judge
from ..phases.clarify import Steps, advance, answered, begin, clarified
from ..terms import STEPS, Exchange, Goal, Step, Subgoal

Part = Literal["questions", "refinement", "checks", "examples", "explanation"]
"""What can be left out: a step of the elicitation, the worked examples of the prompt, the explanation after a score."""

PARTS: tuple[Part, ...] = (*STEPS, "examples", "explanation")


def without_examples(judge: Judge) -> Judge:
    """The same judge, asked by the rubric alone."""
    return replace(judge, question=judge.question.without_examples())


def decomposed(goal: str, exchanges: Sequence[Exchange], asker: Asker, card: str, left_out: Step | None = None) -> Goal:
    """The goal that a model's decomposition gives, by answers given beforehand, without one step or with all."""
    steps = Steps(**{step: step != left_out for step in STEPS})
    answers: Mapping[str, str] = {exchange.aspect: exchange.answer for exchange in exchanges}
    waiting = dict(answers)
    draft = begin(goal, steps)
    while draft.stage != "settling":
        for step in advance(draft, asker):
            draft = step
        if draft.stage == "answering":
            draft = answered(draft, waiting.pop(draft.inquiries[0].aspect, ""))
        elif draft.stage == "done":
            break
    return clarified(draft, card, asker)


def nearest(target: Subgoal, subgoals: Sequence[Subgoal]) -> int:
    """The place of the subgoal that shares most words with the target, by their stems; the first of equals."""
    wanted = set(stems(f"{target.name} {target.description}"))

    def shared(subgoal: Subgoal) -> float:
        own = set(stems(f"{subgoal.name} {subgoal.description}"))
        return len(wanted & own) / max(1, len(wanted | own))

    return max(range(len(subgoals)), key=lambda place: (shared(subgoals[place]), -place))
