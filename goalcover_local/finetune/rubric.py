"""Rewards as data: a question folder with a `reward.toml` that states the task, what is judged, and what is computed.

    prompt.md, answer.schema.json, examples.jsonl, reference.jsonl   as in every question folder; see `questions`
    reward.toml                                                      [task], [[dimensions]], [[checks]]
    others.jsonl                                                     other sources: {"input": text, "output": text}

The prompt's placeholders are `input`, `output`, `response` and `dimension`, of which `output` may be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ..bounded import toml_of
from ..cards import validated
from ..errors import ModelError, QuestionError
from ..questions import Question, load_question, read_lines, text_of
from ..resources import shipped
from ..terms import digest_of
from .checks import KINDS

FILE = "reward.toml"
LEVELS = ("1", "2", "3", "4", "5")

_STRICT = {"extra": "forbid"}
_SAMPLE = {"input", "output"}


@dataclass(frozen=True, slots=True)
class Dimension:
    """One respect in which a judge grades a response from 1 to 5, and what it is asked there.

    With `contrast` the response is also graded as one to another source, and counts as 3 and half the difference: what
    would do as well for any source, such as praise of itself, gets 3 however highly the judge thinks of it. A
    dimension of weight 0 is graded and shown, and does not count.
    """

    name: str
    weight: float
    asks: str
    contrast: bool = False
    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Check:
    """One property of a response that a program computes, from 0 to 1; `kind` is one of `checks.KINDS`."""

    name: str
    kind: str
    weight: float
    least: int = 0
    most: int = 0
    terms: tuple[str, ...] = ()
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no check {self.kind!r}; there are {', '.join(KINDS)}")
        if self.least < 0 or (self.most and self.most < self.least):
            raise ValueError("least and most are numbers from 0 up, most not below least")


@dataclass(frozen=True, slots=True)
class Task:
    """What a policy is asked to do with a sample, and in how many tokens."""

    prompt: str
    max_tokens: int
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        template = Template(self.prompt)
        if not template.is_valid() or "input" not in template.get_identifiers():
            raise ValueError("the prompt is a text with ${input}, and ${output} if it needs it; write $$ for a $")
        if unknown := set(template.get_identifiers()) - _SAMPLE:
            raise ValueError(f"the prompt may hold ${{input}} and ${{output}}, not {', '.join(sorted(unknown))}")
        if self.max_tokens < 8:
            raise ValueError("max_tokens is a number of tokens, 8 or more")


@dataclass(frozen=True, slots=True)
class _File:
    """What `reward.toml` states."""

    title: str
    task: Task
    dimensions: tuple[Dimension, ...]
    checks: tuple[Check, ...] = ()
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        parts: list[Dimension | Check] = [*self.dimensions, *self.checks]
        names = [part.name for part in parts]
        if not self.dimensions:
            raise ValueError("a reward judges at least one dimension")
        if len(names) != len(set(names)) or not all(names):
            raise ValueError("dimensions and checks need a name each, no two alike")
        if not all(0 <= part.weight < float("inf") for part in parts) or not all(check.weight for check in self.checks):
            raise ValueError("weights are numbers above 0; a dimension's may be 0, and is then shown alone")
        if not any(dimension.weight for dimension in self.dimensions):
            raise ValueError("a reward counts at least one dimension")


@dataclass(frozen=True)
class Rubric:
    """A reward: the task of the policy, and how its responses are graded."""

    name: str
    title: str
    task: Task
    dimensions: tuple[Dimension, ...]
    checks: tuple[Check, ...]
    question: Question
    folder: Path
    others: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """Digest of all that decides a reward: task, question, dimensions, checks and weights."""
        return digest_of(
            {
                "task": [self.task.prompt, self.task.max_tokens],
                "question": self.question.digest,
                "dimensions": [[each.name, each.weight, each.asks, each.contrast] for each in self.dimensions],
                "others": [list(other) for other in self.others],
                "checks": [[c.name, c.kind, c.weight, c.least, c.most, list(c.terms)] for c in self.checks],
            }
        )

    def prompt(self, input: str, output: str) -> str:
        """What the policy is asked about a sample."""
        return Template(self.task.prompt).substitute(input=input.strip(), output=output.strip()).strip()

    @property
    def judged_share(self) -> float:
        """Which part of the score a judge decides, in (0, 1]; the rest is computed."""
        judged = sum(dimension.weight for dimension in self.dimensions)
        return judged / (judged + sum(check.weight for check in self.checks))


def load_rubric(name: str, *, single_turn: bool = False) -> Rubric:
    """The reward in `grammars/NAME`, or in a folder of the user's own if `name` is a path to one.

    Raises QuestionError if there is none, or if a file of it is missing, malformed, or does not fit the others.
    """
    own = Path(name)
    folder = own if own.name != name or (own / FILE).is_file() else shipped("grammars") / name
    if not (folder / FILE).is_file():
        raise QuestionError(f"There is no reward {name!r}.", f"There are {', '.join(rewards())}; or give a folder.")
    folder = folder.resolve()
    question = load_question(folder.name, single_turn=single_turn, folder=folder.parent)
    try:
        stated = validated(_File, toml_of(text_of(folder / FILE)), folder / FILE)
    except (OSError, ValueError) as error:
        raise QuestionError(f"{folder / FILE} cannot be read as TOML: {error}.", "Mend the file.") from error
    except ModelError as error:
        raise QuestionError(error.problem, error.mend) from error
    _check(question)
    others = _others(folder) if any(dimension.contrast for dimension in stated.dimensions) else ()
    return Rubric(question.name, stated.title, stated.task, stated.dimensions, stated.checks, question, folder, others)


def rewards() -> list[str]:
    """The names of the rewards that ship."""
    return sorted(path.parent.name for path in shipped("grammars").glob(f"*/{FILE}"))


def _others(folder: Path) -> tuple[tuple[str, str], ...]:
    """The sources that responses are also held against. Raises QuestionError if there are not two."""
    path = folder / "others.jsonl"
    try:
        found = tuple((str(line["input"]), str(line.get("output", ""))) for line in read_lines(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuestionError(
            f"{path} is not there, or a line of it has no input.", "A reward with a contrast needs other sources there."
        ) from error
    if len(set(found)) < 2:
        raise QuestionError(f"{path} holds {len(set(found))} different sources.", "Give two or more.")
    return tuple(dict.fromkeys(found))


def _check(question: Question) -> None:
    """Nothing; raises QuestionError if the question cannot grade responses from 1 to 5."""
    placeholders = set(question.placeholders)
    if placeholders - {"output"} != {"input", "response", "dimension"}:
        raise QuestionError(
            f"The prompt of {question.name} has the placeholders {', '.join(sorted(placeholders))}.",
            "A reward's has ${input}, ${output} if it needs it, ${response} and ${dimension}.",
        )
    if not re.search(r"<([a-z][a-z-]*)>\s*\$\{response\}\s*</\1>", "".join(question.parts)):
        raise QuestionError(
            f"The prompt of {question.name} has no fence around ${{response}}.",
            "Write <response>, ${response} and </response> on a line each: no response can then pass for the question.",
        )
    if question.form.levels != LEVELS:
        raise QuestionError(f"The answers of {question.name} are not graded from 1 to 5.", "Permit 1, 2, 3, 4 and 5.")
