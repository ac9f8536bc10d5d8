"""A model for clarification that goes by simple rules instead of running: it understands what it is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from string import Template
from typing import Any

import numpy as np

from goalcover_local.answers import JsonForm
from goalcover_local.engines.base import Choices, Completion, Grammar, Prompt
from goalcover_local.engines.guide import legal
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.questions import Question, load_question, reference_cases

NAMES = (
    *("clarifying-question", "completeness", "refinement", "subgoals", "description"),
    *("atomicity", "overlap", "uncovered", "repair"),
)
DECIDED = ("completeness", "atomicity", "overlap", "uncovered")
ASPECT_WORDS = {
    "use": "users",
    "given": "inputs",
    "answers": "outputs",
    "never": "limits",
    "good": "quality",
}
"""Words by which the rules tell what a sentence tells; without one of them it tells of topics."""


def words(text: str) -> set[str]:
    """The words of at least four letters, in small letters and without a plural's s."""
    return {word.rstrip("s") for word in re.findall(r"\w{4,}", text.lower())}


def given(prefill: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a prompt's prefill gives; a text that it begins goes on with the answer's own."""
    if not prefill:
        return {}
    try:
        fields: dict[str, Any] = json.loads(prefill + '"}')
    except ValueError:
        fields = json.loads(prefill + "null}")
    asking, start = fields.popitem()
    return {**fields, asking: f"{start}. {answer[asking]}"} if start else fields


class Clarifier(ScriptedEngine):
    """Answers clarification's questions by rules. It fails on prompts in which the word of `fails_on` stands.

    `unfit` names questions that it answers by always favouring the first choice. `before` sees each batch of prompts.
    `history` holds what was asked, as pairs of question and texts in `asked`.
    """

    def __init__(self, *, unfit: Sequence[str] = ()) -> None:
        super().__init__([""])
        self.unfit = set(unfit)
        self.fails_on = ""
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.before: Callable[[Sequence[Prompt]], object] = len
        self.compound = "and"
        """A subgoal with this word in its name is several."""
        self.written: dict[str, Callable[[Mapping[str, str]], Mapping[str, Any]]] = {}
        """Other answers than the rules', by question."""
        self._questions = QUESTIONS

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Nearly all on the choice that the rules make; of other answers, the first."""
        self.before(prompts)
        rows, failures = np.full((len(prompts), len(answers)), 0.1 / max(1, len(answers) - 1)), []
        for row, prompt in zip(rows, prompts, strict=True):
            self.history.append(prompt)
            name, texts = self._understood(prompt)
            permitted = self._choices(name) if name in DECIDED else ()
            chosen = permitted.index(self._decided(name, texts)) if tuple(answers) == permitted else 0
            row[chosen] = 0.9
            failed = bool(self.fails_on) and self.fails_on in prompt.messages[-1].content
            failures.append("scripted failure" if failed else None)
            if failed:
                row[:] = np.nan
        return Choices(rows, tuple(failures), len(prompts))

    def generate(
        self, prompts: Sequence[Prompt], grammar: Grammar, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Completion]:
        """What the rules write, after what the prompt has begun."""
        self.before(prompts)
        completions = []
        for prompt in prompts:
            self.history.append(prompt)
            name, texts = self._understood(prompt)
            question = self._questions[name or "refinement"]
            answer = dict(self._written(name, texts, seed)) if name else {"statement": "The sea."}
            text = question.written({**answer, **given(prompt.prefill, answer)})
            assert text.startswith(prompt.prefill), (text, prompt.prefill)
            rest = text[len(prompt.prefill) :]
            failed = bool(self.fails_on) and self.fails_on in prompt.messages[-1].content
            assert legal(rest, grammar), rest
            completions.append(Completion("" if failed else rest, 5, "scripted failure" if failed else None))
        return completions

    def _understood(self, prompt: Prompt) -> tuple[str, dict[str, str]]:
        """Which question a prompt asks, and about what; "" for none of clarification's."""
        for name, question in self._questions.items():
            if prompt.messages[0].content == question.shared:
                pattern = Template(re.sub(r"\\\$\\\{(\w+)\\\}", r"${\1}", re.escape("".join(question.parts))))
                expression = pattern.substitute({each: f"(?P<{each}>.*)" for each in question.placeholders})
                found = re.fullmatch(expression, prompt.messages[-1].content, re.DOTALL)
                assert found is not None, prompt.messages[-1].content
                self.asked.append((name, found.groupdict()))
                return name, found.groupdict()
        return "", {}

    def _choices(self, name: str) -> tuple[str, ...]:
        form = self._questions[name].form
        assert isinstance(form, JsonForm)
        return form.choices(self._questions[name].fields[0])

    def _decided(self, name: str, texts: Mapping[str, str]) -> str:
        """The choice, as it is written in JSON."""
        if name in self.unfit:
            return self._choices(name)[0]
        for case in reference_cases(name):
            fields = case["fields"]
            swapped = {"first": fields.get("second"), "second": fields.get("first")}
            if texts in (fields, swapped):
                return json.dumps(next(iter(case["answer"].values())))
        if name == "completeness":
            told = [aspect for word, aspect in ASPECT_WORDS.items() if word in texts["statement"].lower()]
            return json.dumps((*told, "topics")[0])
        if name == "atomicity":
            return '"several"' if f" {self.compound} " in texts["name"].lower() else '"one"'
        if name == "overlap":
            names = [words(texts[key].partition(":")[0]) for key in ("first", "second")]
            return '"overlapping"' if names[0] & names[1] else '"apart"'
        missing = self._missing(texts)
        return '"no"' if missing else '"yes"'

    def _missing(self, texts: Mapping[str, str]) -> list[str]:
        """The listed things of a sentence that stand in no capability's text."""
        things = re.split(r", | and ", texts["statement"].rstrip(".").partition(" knows ")[2])
        return [thing for thing in things if thing and not words(thing) <= words(texts["subgoals"])]

    def _written(self, name: str, texts: Mapping[str, str], seed: int) -> Mapping[str, Any]:
        if name in self.written:
            return self.written[name](texts)
        match name:
            case "clarifying-question":
                about = texts["aspect"]
                return {
                    "question": f"Please, {about}?",
                    "suggestions": [f"{about} {n}" for n in ("one", "two", "three")],
                }
            case "refinement":
                return {"statement": f"It knows {texts['answer']}."}
            case "subgoals":
                topics = texts["specification"].splitlines()[0].rstrip(".").partition(" knows ")[2]
                names = [thing for thing in re.split(r", | and ", topics) if thing] or ["First", "Second", "Third"]
                return {"names": ([*names, "Left over", "Left behind", "Left out"])[: max(3, len(names))]}
            case "description":
                return {
                    "description": f"All about {texts['name']}.",
                    "evidence": f"The input speaks of {texts['name']}.",
                }
            case "atomicity":
                return {"kind": "several", "parts": re.split(r" and ", texts["name"])}
            case "overlap":
                return {"relation": "overlapping", "because": "They share a word."}
            case "uncovered":
                return {"covered": "no", "missing": (self._missing(texts) or [""])[0]}
            case "repair":
                first = texts["subgoals"].removeprefix("- ").partition(":")[0]
                parts = first.split(" and ") if "several" in texts["problem"] else [first]
                return {"names": parts}
        raise AssertionError(name)


QUESTIONS: Mapping[str, Question] = {name: load_question(name) for name in NAMES}
