"""Rewards as data: a question folder with a `reward.toml` that states the task, what is judged, and what is computed.

    prompt.md, answer.schema.json, examples.jsonl   as in every question folder; see `questions`
    reward.toml       title, [task], [[dimensions]], [[checks]]
    reference.jsonl   responses that we graded (optional): {"fields": {placeholder: text}, "answer": {"score": 1 to 5}}
    others.jsonl      other sources, if a dimension has a contrast: {"input": text, "output": text}

The prompt's placeholders are `input`, `output`, `response` and `dimension`, of which `output` may be left out. A
reference case names its dimension, or repeats what the dimension asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from ..answers import SCORE
from ..bounded import toml_of
from ..cards import validated
from ..errors import ModelError, QuestionError
from ..questions import Question, load_question, one_line, placed_lines, read_text
from ..resources import shipped
from ..terms import digest_of
from .checks import KINDS, is_findable

FILE = "reward.toml"
LEVELS = ("1", "2", "3", "4", "5")

_STRICT = {"extra": "forbid"}
_SAMPLE = {"input", "output"}
_HOLDS = {
    FILE: "a title, [task], [[dimensions]] and [[checks]]",
    "others.jsonl": 'two or more sources, {"input": text, "output": text} a line',
    "reference.jsonl": '{"fields": {"input", "output", "response", "dimension"}, "answer": {"score": 1 to 5}} a line',
}
"""What the files of a reward hold, in a few words."""


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

    def __post_init__(self) -> None:
        if not self.asks.strip() or "${" in self.asks:
            raise ValueError("asks is what the judge is asked of a response, a text without placeholders")
        if not 0 <= self.weight < float("inf"):
            raise ValueError("weights are numbers from 0 up, and a dimension of weight 0 is shown alone")


@dataclass(frozen=True, slots=True)
class Check:
    """One property of a response that a program computes, from 0 to 1; `checks.KINDS` tells what each kind takes."""

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
        kind, check = KINDS[self.kind], f"the check {self.name!r} of kind {self.kind}"
        given = {key for key in ("least", "most", "terms") if getattr(self, key)}
        if unknown := ", ".join(sorted(given.difference(kind.takes))):
            takes = f"{' and '.join(kind.takes)}, not" if kind.takes else "none of"
            raise ValueError(f"{check} takes {takes} {unknown}")
        if kind.needs and not given.intersection(kind.needs):
            raise ValueError(f"{check} needs {' or '.join(kind.needs)}")
        if self.least < 0 or self.most < 0 or (self.most and self.most < self.least):
            raise ValueError(f"least and most of {check} are numbers from 0 up, most not below least")
        if not all(map(is_findable, self.terms)):
            raise ValueError(f"{check} has a term without a word")
        if self.terms and self.least > len(self.terms):
            raise ValueError(f"{check} wants more terms than it has: its least is at most {len(self.terms)}")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weights are numbers, and that of {check} is above 0")


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
        if len(names) != len(set(names)) or not all(name and name == one_line(name) for name in names):
            raise ValueError("dimensions and checks need a name each, on one line, no two alike")
        if len({(each.asks, each.contrast) for each in self.dimensions}) < len(self.dimensions):
            raise ValueError("two dimensions ask the same, both with or both without contrast")
        if not any(dimension.weight for dimension in self.dimensions):
            raise ValueError("a reward counts at least one dimension")


@dataclass(frozen=True, slots=True)
class Case:
    """A response that we graded: the sample's two texts, the response, what was asked of it, and our grade, 1 to 5."""

    input: str
    output: str
    response: str
    asks: str
    score: int


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
    cases: tuple[Case, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of all that decides a reward: task, question, dimensions, checks and weights; not of our cases."""
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
    folder = _folder(name)
    question = load_question(folder.name, single_turn=single_turn, folder=folder.parent)
    _check(question, folder)
    stated = _stated(folder / FILE)
    others = _others(folder, question) if any(dimension.contrast for dimension in stated.dimensions) else ()
    return Rubric(
        question.name,
        stated.title,
        stated.task,
        stated.dimensions,
        stated.checks,
        question,
        folder,
        others,
        _cases(folder / "reference.jsonl", stated.dimensions),
    )


def rewards() -> list[str]:
    """The names of the rewards that ship."""
    return sorted(path.parent.name for path in shipped("grammars").glob(f"*/{FILE}"))


def _folder(name: str) -> Path:
    """Where the reward of that name lies. Raises QuestionError if there is none."""
    own = Path(name)
    folder = own if own.name != name or (own / FILE).is_file() else shipped("grammars") / name
    if not (folder / FILE).is_file():
        if name and own.is_dir():
            raise QuestionError(f"There is no {FILE} in {name!r}.", f"Put a file there that holds {_HOLDS[FILE]}.")
        raise QuestionError(f"There is no reward {name!r}.", f"There are {', '.join(rewards())}; or give a folder.")
    return folder.resolve()


def _stated(path: Path) -> _File:
    """What `reward.toml` states. Raises QuestionError, naming the key, if it is not what a reward needs."""
    try:
        return validated(_File, toml_of(read_text(path, _HOLDS[FILE])), path)
    except ValueError as error:
        raise QuestionError(f"{path} cannot be read as TOML: {error}.", "Correct it there.") from error
    except ModelError as error:
        raise QuestionError(
            error.problem, "Correct it; docs/guide.md has a whole one under `Write a reward of your own`."
        ) from error


def _others(folder: Path, question: Question) -> tuple[tuple[str, str], ...]:
    """The sources that responses are also held against. Raises QuestionError if a judge cannot tell two apart."""
    path = folder / "others.jsonl"
    found = []
    for place, line in placed_lines(path, _HOLDS[path.name]):
        texts = _texts(line, place, ("input", "output"))
        if not (texts["input"] + texts["output"]).strip():
            raise QuestionError(f"{place}: a source without a word.", "Write one, or leave the line out.")
        found.append((texts["input"], texts["output"]))
    if len({source if "output" in question.placeholders else source[0] for source in found}) < 2:
        raise QuestionError(f"{path} holds fewer than two different sources.", f"A contrast needs {_HOLDS[path.name]}.")
    return tuple(dict.fromkeys(found))


def _cases(path: Path, dimensions: Sequence[Dimension]) -> tuple[Case, ...]:
    """The responses that we graded, none if there is no such file. Raises QuestionError if one grades nothing here."""
    asked = {each.name: each.asks for each in dimensions} | {each.asks.strip(): each.asks for each in dimensions}
    cases = []
    for place, line in placed_lines(path, _HOLDS[path.name]) if path.exists() else ():
        fields, answer = line.get("fields"), line.get("answer")
        if not isinstance(fields, dict) or not isinstance(answer, dict):
            raise QuestionError(f"{place}: no `fields` or no `answer`.", f"Write {_HOLDS[path.name]}.")
        texts = _texts(fields, place, ("input", "output", "response", "dimension"))
        asks: str | None = asked.get(texts["dimension"].strip())
        score: Any = answer.get(SCORE)
        if asks is None:
            names = ", ".join(each.name for each in dimensions)
            raise QuestionError(f"{place}: its dimension is none of {names}.", "Name one, or repeat what one asks.")
        if isinstance(score, bool) or score not in (1, 2, 3, 4, 5):
            raise QuestionError(f"{place}: its score is no grade.", "Write 1, 2, 3, 4 or 5, without quotes.")
        cases.append(Case(texts["input"], texts["output"], texts["response"], asks, int(score)))
    return tuple(cases)


def _texts(held: Mapping[str, Any], place: str, keys: Sequence[str]) -> Mapping[str, str]:
    """The texts under these keys, of which `output` may be left out. Raises QuestionError if they are not there."""
    listed = f"{', '.join(keys[:-1])} and {keys[-1]}"
    if missing := [key for key in keys if key not in held and key != "output"]:
        raise QuestionError(f"{place}: no {' and no '.join(missing)}.", f"Write {listed}.")
    if set(held).difference(keys):
        raise QuestionError(f"{place}: keys other than {listed}.", "Take them out, or correct their names.")
    if not all(isinstance(text, str) for text in held.values()):
        raise QuestionError(f"{place}: {listed} are not all texts.", "Write each as a text in quotes.")
    return {"output": "", **held}


def _check(question: Question, folder: Path) -> None:
    """Nothing; raises QuestionError if the question cannot grade responses from 1 to 5."""
    placeholders = set(question.placeholders)
    if placeholders - {"output"} != {"input", "response", "dimension"}:
        raise QuestionError(
            f"{folder / 'prompt.md'} has the placeholders {', '.join(sorted(placeholders))}.",
            "A reward's has ${input}, ${output} if it needs it, ${response} and ${dimension}.",
        )
    if not re.search(r"<([a-z][a-z-]*)>\s*\$\{response\}\s*</\1>", "".join(question.parts)):
        raise QuestionError(
            f"{folder / 'prompt.md'} has no fence around ${{response}}.",
            "Write <response>, ${response} and </response> on a line each: no response can then pass for the question.",
        )
    if question.form.levels != LEVELS or question.fields[0] != SCORE:
        raise QuestionError(
            f"The answers in {folder} do not begin with a grade from 1 to 5.",
            'Let the first property of answer.schema.json be "score": {"enum": [1, 2, 3, 4, 5]}.',
        )
