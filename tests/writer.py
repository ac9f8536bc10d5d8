"""A model for synthesis that goes by rules instead of running: it judges, explains, writes, grades, ranks, refines."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from string import Template
from typing import Any

import numpy as np
import pytest

from goalcover_local.cards import Card
from goalcover_local.engines.base import SEED_STEP, Choices, Completion, Grammar, Prompt
from goalcover_local.engines.guide import legal
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.questions import Question, load_question, reference_cases
from goalcover_local.terms import ANCHOR_TEXTS, ANCHORS

Texts = Mapping[str, str]

CARD = "smollm2-135m-instruct"
OTHER_CARD = "qwen2.5-coder-1.5b-instruct"

GOAL = """\
goal = "Answer questions about ropes and bread"

[[subgoals]]
id = "ropes"
name = "Knots and ropes"
description = "Explains how to tie knots and join ropes."
target_share = 0.3

[[subgoals]]
id = "bread"
name = "Baking bread"
description = "Explains how dough for bread is made, proved and baked."
target_share = 0.3
"""
"""A goal of two subgoals, of each of which three rows in ten are wanted."""

PLACES = ('"A"', '"B"', '"C"', '"D"')
FLAWS = {"Correctness": "wrong", "Completeness": "unfinished", "Faithfulness": "astray"}
"""The word in an output by which a respect is graded 0.0."""

NOUNS = """acorn basket candle dolphin engine feather garden hammer island jacket kettle ladder magnet needle orchard
pepper quarry ribbon saddle tunnel umbrella velvet whistle yogurt zipper anchor button cactus desert ember falcon goblet
harbor igloo jigsaw kernel lantern meadow nugget oyster""".split()


def words(text: str) -> set[str]:
    """The words of at least four letters, in small letters."""
    return set(re.findall(r"\w{4,}", text.lower()))


def sentence(*seeds: object, n: int = 16) -> str:
    """Different words for different seeds, always the same for the same."""
    return " ".join(random.Random(repr(seeds)).choices(NOUNS, k=n)).capitalize() + "."


class Writer(ScriptedEngine):
    """Answers the questions of assessment, analysis and synthesis by rules; on what it fails is up to `fails`.

    `asked` holds what it was asked, as pairs of question and texts; `prompts` how, beside it; `manners` the temperature
    and seed of each batch that it wrote, with the question's name. `before` and `after` see each batch on its way.
    """

    def __init__(self, card: str = CARD, kind: str = "writer") -> None:
        super().__init__([""])
        self.card, self.kind = card, kind
        self.asked: list[tuple[str, Texts]] = []
        self.prompts: list[Prompt] = []
        self.batches: list[int] = []
        self.manners: list[tuple[str, float, int]] = []
        self.before: Callable[[int], object] = int
        self.after: Callable[[int], object] = int
        self.fails: Callable[[str, Texts], bool] = lambda name, texts: False
        self.aligned: Callable[[Texts], float] = aligned
        self.graded: Callable[[Texts], float] = graded
        self.best: Callable[[Texts], str] = best
        self.named: Callable[[Texts, int], Sequence[str]] = named
        self.sampled: Callable[[Texts, Sequence[str], int], Mapping[str, str]] = sampled
        self.revised: Callable[[Texts, Sequence[str]], Mapping[str, str]] = revised

    def describe(self) -> Mapping[str, str]:
        """Its card and kind: another of either is another model."""
        return {"engine": self.kind, "device": "none", "precision": "none", "weights": "none", "card": self.card}

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Nearly all on one anchor or place; among other answers, the first."""
        rows = np.full((len(prompts), len(answers)), 0.02 / max(1, len(answers) - 1))
        if tuple(answers) not in (ANCHOR_TEXTS, PLACES):
            rows[:, 0] = 0.98
            return Choices(rows, (None,) * len(prompts), len(prompts))
        failures: list[str | None] = []
        with self._batch(prompts) as understood:
            for row, (name, texts) in zip(rows, understood, strict=True):
                failures.append("scripted failure" if self.fails(name, texts) else None)
                chosen = json.dumps(self.best(texts)) if name == "ranking" else self._anchor(name, texts)
                row[tuple(answers).index(chosen)] = 0.98
                if failures[-1]:
                    row[:] = np.nan
        return Choices(rows, tuple(failures), len(prompts))

    def generate(
        self, prompts: Sequence[Prompt], grammar: Grammar, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Completion]:
        """What the rules write after what the prompt has begun; a failure where it is not legal."""
        if len(prompts[0].messages) == 1:
            return [Completion(next(text for text in OTHER if legal(text, grammar)), 5) for _ in prompts]
        completions = []
        with self._batch(prompts) as understood:
            self.manners.append((understood[0][0], temperature, seed))
            for row, (prompt, (name, texts)) in enumerate(zip(prompts, understood, strict=True)):
                columns = columns_of(prompt, grammar)
                text = json.dumps(self._written(name, texts, columns, seed + row * SEED_STEP), ensure_ascii=False)
                if "score" in prompt.prefill:  # which is given, as may be how the explanation begins
                    text = prompt.prefill + json.dumps(json.loads(text)["explanation"], ensure_ascii=False)[1:] + "}"
                rest = text[len(prompt.prefill) :]
                well = text.startswith(prompt.prefill) and legal(rest, grammar) and not self.fails(name, texts)
                completions.append(Completion(rest if well else "", 5, None if well else "scripted failure"))
        return completions

    def forget(self) -> None:
        """Nothing; it was asked nothing yet."""
        self.asked.clear()
        self.prompts.clear()
        self.batches.clear()
        self.manners.clear()

    def of(self, name: str) -> list[Texts]:
        """What it was asked under this name."""
        return [texts for asked, texts in self.asked if asked == name]

    def prompts_of(self, name: str) -> list[Prompt]:
        """The whole prompts that it was asked under this name."""
        return [prompt for prompt, (asked, _) in zip(self.prompts, self.asked, strict=True) if asked == name]

    def _batch(self, prompts: Sequence[Prompt]) -> _Batch:
        return _Batch(self, prompts)

    def _anchor(self, name: str, texts: Texts) -> str:
        value = self.aligned(texts) if name == "alignment" else self.graded(texts)
        return ANCHOR_TEXTS[ANCHORS.index(value)]

    def _written(self, name: str, texts: Texts, columns: Sequence[str], seed: int) -> Mapping[str, Any]:
        match name:
            case "subject":
                return {"subject": "ropes"}
            case "alignment":
                way = ("how an oven is heated", "how dough is proved")[len(texts["input"]) % 2]
                return {"explanation": f" and does not tell {way}."}
            case "missing-capability":
                ways = re.findall(r"how an oven is heated|how dough is proved", texts["remarks"])
                return {"missing": (ways or ["everything"])[0], "instead": "ropes"}
            case "topics":
                return {"topics": list(self.named(texts, seed))}
            case "criticism":
                return {"criticism": f"It is {next((w for w in FLAWS.values() if w in texts['output']), 'thin')}."}
            case "sample":
                return self.sampled(texts, columns, seed)
            case "revision":
                return self.revised(texts, columns)
        raise AssertionError(name)


class _Batch:
    """One batch on its way: understood, remembered, and seen before and after."""

    def __init__(self, engine: Writer, prompts: Sequence[Prompt]) -> None:
        self._engine, self._prompts = engine, prompts

    def __enter__(self) -> list[tuple[str, Texts]]:
        engine = self._engine
        engine.before(len(engine.batches))
        understood = [_understood(prompt) for prompt in self._prompts]
        engine.batches.append(len(understood))
        engine.asked += understood
        engine.prompts += self._prompts
        return understood

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._engine.after(len(self._engine.batches))


def _understood(prompt: Prompt) -> tuple[str, Texts]:
    """Which question a prompt asks, and about what."""
    for name, question in QUESTIONS.items():
        if prompt.messages[0].content == question.shared:
            pattern = Template(re.sub(r"\\\$\\\{(\w+)\\\}", r"${\1}", re.escape("".join(question.parts))))
            expression = pattern.substitute({each: f"(?P<{each}>.*)" for each in question.placeholders})
            found = re.fullmatch(expression, prompt.messages[-1].content, re.DOTALL)
            assert found is not None, prompt.messages[-1].content
            return name, found.groupdict()
    raise AssertionError("a question that it does not know")


def columns_of(prompt: Prompt, grammar: Grammar) -> list[str]:
    """The names that the grammar wants: the one that the answer begins with, and those after it."""
    first = re.findall(r'"((?:[^"\\]|\\.)+)": "?$', prompt.prefill)
    others = re.findall(r'", "((?:[^"\\]|\\.)+?)": ', grammar.regex)
    return [*first, *(re.sub(r"\\(.)", r"\1", name) for name in others)]


def aligned(texts: Texts) -> float:
    """An anchor for each word that sample and subgoal share."""
    shared = words(texts["input"] + " " + texts["output"]) & words(texts["name"] + " " + texts["description"])
    return ANCHORS[min(5, 2 * len(shared))]


def graded(texts: Texts) -> float:
    """The right grade of a reference case; of anything else 0.0 if it has the respect's flaw."""
    for case in reference_cases("quality"):
        if all(texts[name] == text for name, text in case["fields"].items()):
            return float(case["answer"]["score"])
    return 0.0 if FLAWS[texts["respect"].partition(":")[0]] in texts["output"] else 1.0


def best(texts: Texts) -> str:
    """The place of the first text without a flaw, `A` if there is none."""
    flawless = [place for place in "abcd" if not words(texts[place]) & {*FLAWS.values(), "none"}]
    return (flawless or ["a"])[0].upper()


def named(texts: Texts, seed: int) -> list[str]:
    """Eight topics, whatever they are for, and others for each of thirty-two seeds in a row."""
    return [f"{noun} {NOUNS[8 + seed % 32]}" for noun in NOUNS[:8]]


def sampled(texts: Texts, columns: Sequence[str], seed: int) -> Mapping[str, str]:
    """Different texts for each topic, focus and seed; the last has the capability's own words."""
    subject = re.sub(r"[^\w ]", "", texts["topic"])
    about = {column: f"{subject}? {sentence(column, texts, seed)}" for column in columns}
    return {**about, columns[-1]: f"{texts['name']} {texts['description']} {sentence(texts, seed)}"}


def revised(texts: Texts, columns: Sequence[str]) -> Mapping[str, str]:
    """The draft without its flaws, and without what no grammar permits."""
    draft = json.loads(texts["draft"])
    mended = re.compile("|".join(FLAWS.values()))
    return {column: mended.sub("mended", re.sub(r"[\x00-\x1f\x7f-\x9f]", "", draft[column])) for column in columns}


def opened(monkeypatch: pytest.MonkeyPatch, *engines: Writer) -> Writer:
    """The first of these engines, now what every command opens: each by its card."""

    def open_engine(card: Card, **_: object) -> Writer:
        return next(engine for engine in engines if engine.card == card.name)

    for place in ("judges", "asking"):
        monkeypatch.setattr(f"goalcover_local.{place}.open_engine", open_engine)
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: None)
    return engines[0]


QUESTIONS: Mapping[str, Question] = {
    name: load_question(name)
    for name in (
        *("alignment", "subject", "missing-capability", "topics", "sample"),
        *("quality", "ranking", "criticism", "revision"),
    )
}
OTHER = ('{"statement": "The sea."}', '{"score": 0.0, "explanation": "The sea."}')
"""What it says when it is asked for a poem."""
