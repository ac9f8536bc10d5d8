"""Small things for tests of fine-tuning: a reward of one's own, judges that go by rules, tiny policies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goalcover_local.cards import Card, Source
from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.finetune.policy import Policy, load_policy
from goalcover_local.finetune.reward import Grade, Grader, Response
from goalcover_local.finetune.rubric import load_rubric
from goalcover_local.terms import Sample
from goalcover_local.weights import Weights

QUESTION = """\
<!-- shared -->
Grade the response from 1 to 5.
<!-- per sample -->
<source>
${input}
${output}
</source>
<!-- per response -->
<response>
${response}
</response>
<!-- per dimension -->
${dimension}
"""
REWARD = '''\
title = "Letters"

[task]
prompt = """
Say ${input} as ${output}."""
max_tokens = 8

[[dimensions]]
name = "letters"
weight = 3
asks = "Letters: is it written in letters?"

[[dimensions]]
name = "signs"
weight = 1
asks = "Signs: is it written without signs?"

[[checks]]
name = "length"
kind = "words"
weight = 1
least = 1
most = 4
'''
SCORED = {
    "type": "object",
    "properties": {"score": {"enum": [1, 2, 3, 4, 5]}},
    "required": ["score"],
    "additionalProperties": False,
}
SAMPLES = tuple(Sample(name, f"the {name}", f"a {name}") for name in ("knot", "loaf", "wheel", "lamp", "river"))
CARD = Card(
    "tiny-policy", "Tiny", ("policy",), "20k", "Apache-2.0", "random", 600, Source("directory"), precision="float32"
)


def write_reward(
    folder: Path,
    reward: str = REWARD,
    question: str = QUESTION,
    *,
    schema: Mapping[str, Any] = SCORED,
    examples: Sequence[Mapping[str, Any]] = (),
    reference: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """The folder, holding a reward."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reward.toml").write_text(reward, "utf-8")
    (folder / "prompt.md").write_text(question, "utf-8")
    (folder / "answer.schema.json").write_text(json.dumps(schema), "utf-8")
    for name, rows in (("examples", examples), ("reference", reference)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def response_in(prompt: Prompt) -> str:
    """The response that a judge is asked about."""
    return prompt.messages[-1].content.partition("<response>\n")[2].partition("\n</response>")[0]


def letters(response: str) -> float:
    """The grade that the share of small letters among a response's signs is worth, in [1, 5]."""
    return 1 + 4 * sum("a" <= sign <= "z" for sign in response) / max(1, len(response))


class RuleEngine(ScriptedEngine):
    """A judge that grades a response by a rule, and fails on every one that `fails` picks."""

    def __init__(
        self,
        rule: Callable[[str], float] = letters,
        *,
        fails: Callable[[str], bool] = lambda _: False,
        context: int = 4096,
    ) -> None:
        super().__init__(context=context)
        self.rule, self.fails = rule, fails

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Probabilities of 1 to 5 whose mean is the rule's grade: shape (n_prompts, 5)."""
        self.history += prompts
        rows = np.full((len(prompts), len(answers)), np.nan)
        failures: list[str | None] = []
        for row, prompt in zip(rows, prompts, strict=True):
            response = response_in(prompt)
            failures.append("scripted failure" if self.fails(response) else None)
            if not self.fails(response):
                share = (self.rule(response) - 1) / 4
                row[:] = [1 - share, 0, 0, 0, share]
        return Choices(rows, tuple(failures), len(prompts))


@dataclass(frozen=True)
class Remembering(Grader):
    """A grader that remembers, in `seen`, what each call was given and gave."""

    seen: list[tuple[list[Response], list[Grade]]] = field(default_factory=list, compare=False)

    def grade(self, responses: Sequence[Response]) -> list[Grade]:
        """The grade of each response."""
        grades = super().grade(responses)
        self.seen.append((list(responses), grades))
        return grades


def grader(folder: Path, engine: RuleEngine | None = None) -> Remembering:
    """A grader by the reward in a folder, which is written if it is not there."""
    if not folder.exists():
        write_reward(folder)
    return Remembering(engine or RuleEngine(), load_rubric(str(folder)))


def policy(weights: Path, *, card: Card = CARD, trained: Path | None = None, **options: Any) -> Policy:
    """The policy in a folder of weights, loaded as a card's is."""
    with pytest.MonkeyPatch.context() as patch:
        verified = Weights(weights, "tiny", {})
        patch.setattr("goalcover_local.finetune.policy.verify", lambda *_: verified)
        return load_policy(card, trained=trained, **options)


@contextmanager
def one_thread() -> Iterator[None]:
    """A context in which torch computes on one thread: models this small wait for others longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Notes:
    """A watch that keeps what it is told; told of step `killed_at` it raises `Killed`, and at `due_at` it is due."""

    def __init__(self, *, killed_at: int = 0, due_at: int = 0) -> None:
        self.steps: dict[int, dict[str, float | None]] = {}
        self.checkpoints: dict[int, dict[str, str]] = {}
        self._killed_at, self._due_at = killed_at, due_at
        self._n_asked = 0

    def stepped(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Kept."""
        self.steps[step] = dict(metrics)
        if step == self._killed_at:
            raise Killed

    def saved(self, step: int, files: Mapping[str, str]) -> None:
        """Kept."""
        self.checkpoints[step] = dict(files)

    def due(self) -> bool:
        """Whether it has been asked as often as it was told to."""
        self._n_asked += 1
        return self._n_asked == self._due_at


class Killed(BaseException):
    """The end of a training in its middle."""
