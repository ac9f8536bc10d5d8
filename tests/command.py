"""The `goalcover` command within the test's own process, and a judge that compares words instead of running a model."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from goalcover_local.cli import main
from goalcover_local.engines.base import Choices, Completion, Grammar, Prompt
from goalcover_local.engines.guide import legal
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.terms import ANCHOR_TEXTS, ANCHORS

GOAL = """\
goal = "Answer questions about ropes and bread"

[[subgoals]]
id = "ropes"
name = "Knots and ropes"
description = "Explains how to tie knots and join ropes."

[[subgoals]]
id = "bread"
name = "Baking bread"
description = "Explains how dough for bread is made, proved and baked."
"""
ANSWERS = (
    'So it is."}',
    '0.8, "explanation": "So it is."}',
    'So it is.", "score": 0.8}',
    '{"score": 0.8, "explanation": "So it is."}',
    '{"explanation": "So it is.", "score": 0.8}',
)
"""A legal answer for each way in which one may have been begun."""


class WordsEngine(ScriptedEngine):
    """Leans the higher, the more words sample and subgoal share. `before` sees each batch of prompts first.

    It fails on every prompt whose sample contains the word in `fails_on`.
    """

    def __init__(self) -> None:
        super().__init__([""])
        self.before: Callable[[Sequence[Prompt]], object] = len
        self.fails_on = ""

    @property
    def samples(self) -> list[str]:
        """The text around each sample that was asked about, in the order of asking."""
        return [prompt.messages[-1].content.partition("</sample>")[0] for prompt in self.history]

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Weights that fall off on both sides of an anchor; among answers that are no anchors, the first."""
        if tuple(answers) != ANCHOR_TEXTS:
            return Choices(np.eye(len(answers))[[0] * len(prompts)], (None,) * len(prompts), len(prompts))
        self.before(prompts)
        rows, failures = np.full((len(prompts), len(answers)), np.nan), []
        for row, prompt in zip(rows, prompts, strict=True):
            self.history.append(prompt)
            sample, _, asked = prompt.messages[-1].content.partition("</sample>")
            fails = bool(self.fails_on) and self.fails_on in sample
            failures.append("scripted failure" if fails else None)
            if not fails:
                shared = set(re.findall(r"\w{4,}", sample.lower())) & set(re.findall(r"\w{4,}", asked.lower()))
                weights = np.exp(-np.abs(np.arange(len(answers)) - min(5, len(shared))) - len(sample) % 7 / 7)
                row[:] = weights / weights.sum()
        return Choices(rows, tuple(failures), len(prompts))

    def generate(
        self, prompts: Sequence[Prompt], grammar: Grammar, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Completion]:
        """The same legal answer to all."""
        text = next(answer for answer in ANSWERS if legal(answer, grammar))
        return [Completion(text, 5, None) for _ in prompts]


class Said(NamedTuple):
    """What a command wrote."""

    out: str
    err: str


class Goalcover:
    """Runs the command as its executable does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.setattr("goalcover_local.offline.shut", lambda: None)
        monkeypatch.setattr("goalcover_local.privacy.begin", lambda **_: None)

    def __call__(self, *arguments: object, code: int = 0) -> Said:
        """What it wrote; it must leave with that code and without a traceback."""
        self._monkeypatch.setattr(sys, "argv", ["goalcover", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.run()
        said = Said(*self._capsys.readouterr())
        assert left.value.code == code, said
        assert "Traceback" not in said.out + said.err
        return said

    def refused(self, *arguments: object) -> str:
        """What stands on stderr of a command that ends with an error: a sentence on what is wrong, one on its mend."""
        said = self(*arguments, code=1)
        assert said.out == ""
        lines = said.err.splitlines()
        [start] = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
        assert len(lines) == start + 2, "two lines: the problem and its mend"
        assert lines[start].endswith(".") and len(lines[-1]) > 10
        return said.err


def rows(path: Path, *pairs: tuple[str, str]) -> Path:
    """That file, holding these questions and answers as JSON Lines."""
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in pairs]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def many(n: int) -> list[tuple[str, str]]:
    """Different rows, in turn about ropes, about bread, and about neither."""
    texts = [
        ("Which knots join ropes {}?", "Tie knots in both ropes {} times."),
        ("How is bread baked {}?", "The dough for bread is proved and baked {} minutes."),
        ("Where is the station {}?", "In street {}, on the left."),
    ]
    return [(texts[k % 3][0].format(k), texts[k % 3][1].format(k)) for k in range(n)]


def checked_show(text: str) -> dict[str, Any]:
    """What `show --json` printed, held to docs/show.schema.json by the few keywords that this schema uses."""
    schema = json.loads((Path(__file__).parents[1] / "docs" / "show.schema.json").read_text(encoding="utf-8"))
    shown: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    _hold(shown, schema, "")
    assert all(len(subgoal["shares"]) == len(ANCHORS) for subgoal in shown["subgoals"])
    return shown


_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


def _hold(value: Any, schema: dict[str, Any], where: str) -> None:
    """Fails where a value breaks the schema, or where the schema has a keyword that is not known here."""
    keywords = {*"type required additionalProperties properties items enum pattern description title".split()}
    keywords |= {*"$schema minimum maximum exclusiveMinimum minItems maxItems".split()}
    assert set(schema) <= keywords, where
    kinds = schema.get("type", [])
    if kinds:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        assert any(isinstance(value, _KINDS[kind]) for kind in kinds), where
        assert not isinstance(value, bool) or "boolean" in kinds, where
    if "enum" in schema:
        assert value in schema["enum"], where
    if isinstance(value, str) and "pattern" in schema:
        assert re.search(schema["pattern"], value), where
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert schema.get("minimum", -np.inf) <= value <= schema.get("maximum", np.inf), where
        assert value > schema.get("exclusiveMinimum", -np.inf), where
    if isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), where
        for place, part in enumerate(value):
            _hold(part, schema.get("items", {}), f"{where}/{place}")
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), where
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for key, part in value.items():
            assert key in known or others is not False, f"{where}/{key}"
            _hold(part, known.get(key, others if isinstance(others, dict) else {}), f"{where}/{key}")
