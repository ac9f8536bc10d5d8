"""Study files of fine-tuning: on which datasets which policy is trained and evaluated, and how the data are divided.

The rows that are compared are those of the paper's section 6: a policy that was not trained, and one for each dataset.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cards import validated
from ..errors import DataError, GoalCoverError, GoalError
from ..finetune.grpo import Settings
from ..finetune.rubric import FILE, load_rubric
from ..goal_files.reading import find_goal, read_goal
from ..goal_files.tables import table_of, text_of
from ..phases.filter import parse_rule
from ..resampling import drawn
from ..resources import shipped
from ..terms import UNTUNED, Sample

ORIGINAL = "original"
ROWS: Mapping[str, str] = {
    UNTUNED: "untuned",
    ORIGINAL: "original",
    "goal-aligned": "goal-aligned",
    "synthetic": "synthetic",
    "synthetic-original": "synthetic + original",
    "synthetic-goal-aligned": "synthetic + goal-aligned",
}
"""The paper's rows (Table 4), each by the name of its dataset, as `goalcover mix` calls it, with its title."""

DATASETS = tuple(name for name in ROWS if name != UNTUNED)
PARTS = ("train", "validation", "test")

_FOLDER = "rft"
_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Data:
    """How many rows are drawn for each part, from which of the data, and which of them stay together.

    Rows that agree in the column `group` are in one part. `least_words` and `most_words` bound input and output
    together, `max_prompt_tokens` what the policy is asked; 0 does not. `input` and `output` are columns.
    """

    train: int
    test: int
    validation: int = 0
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    group: str = ""
    least_words: int = 0
    most_words: int = 0
    max_prompt_tokens: int = 0
    seed: int = 0
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if min(self.train, self.test) < 2:
            raise ValueError("train and test are numbers of rows, 2 or more")
        if min(self.validation, self.least_words, self.most_words, self.max_prompt_tokens, self.seed) < 0:
            raise ValueError("no number is below 0")
        if self.most_words and self.most_words < self.least_words:
            raise ValueError("most_words is below least_words")

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many rows each part is to have."""
        return {part: int(getattr(self, part)) for part in PARTS}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are goal-aligned, as `goalcover filter --keep` takes it."""

    keep: str = "any >= 0.6"
    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Synthetic:
    """How many samples are to be kept for each gap, 0 for as many as it lacks, and the card of what writes them."""

    per_gap: int = 0
    generator: str = ""
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.per_gap < 0:
            raise ValueError("per_gap is a number of samples")


@dataclass(frozen=True)
class _Training(Settings):
    """`Settings`, of which a file may state no others."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class _File:
    """What a study file states."""

    title: str
    goal: str
    reward: str
    policy: str
    judge: str
    alignment_judge: str
    data: Data
    evaluation_judge: str = ""
    policies: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    filter: Filter = Filter()
    synthetic: Synthetic = Synthetic()
    training: _Training = field(default_factory=_Training)
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not self.title.strip() or not self.title.isprintable():
            raise ValueError("the title is one line")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds are different numbers from 0 up, one at least")


@dataclass(frozen=True)
class Study:
    """What is trained and evaluated, on which data, by which models; models are names of cards.

    `goal` and `reward` are names of what ships, or paths. `judge` rewards, `evaluation_judge` grades (the same if
    empty), `alignment_judge` says which subgoals a row serves. `policies` are others to train in runs of their own.
    `training` holds the settings that the file states, by the names of `grpo.Settings`.
    """

    name: str
    title: str
    goal: str
    reward: str
    policy: str
    judge: str
    alignment_judge: str
    evaluation_judge: str
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    data: Data
    filter: Filter
    synthetic: Synthetic
    training: Mapping[str, Any]
    ships: bool = False

    @property
    def judges(self) -> tuple[str, ...]:
        """The judges that grade the test responses, the one that counts first."""
        return tuple(dict.fromkeys(filter(None, (self.evaluation_judge, self.judge))))

    @property
    def cards(self) -> tuple[str, ...]:
        """Every model that the study needs, further policies aside."""
        return tuple(
            dict.fromkeys(filter(None, (self.policy, *self.judges, self.alignment_judge, self.synthetic.generator)))
        )

    def training_name(self, row: str, seed: int) -> str:
        """What the training of a row with one of the seeds is called: the row's name, and from the second its place."""
        place = self.seeds.index(seed) + 1
        return row if place == 1 else f"{row}-seed{place}"


@dataclass(frozen=True)
class Division:
    """The parts of the data, each in the data's order, and how many rows are in none of them.

    `n_double` rows hold a sample that another has, `n_unfit` are too short or too long, `n_spare` were not drawn.
    """

    parts: Mapping[str, Sequence[Sample]]
    n_double: int
    n_unfit: int
    n_spare: int

    def lacking(self, data: Data) -> dict[str, int]:
        """How many rows the parts lack, those that lack any."""
        lacks = {part: size - len(self.parts[part]) for part, size in data.sizes.items()}
        return {part: n for part, n in lacks.items() if n}


def find_study(name: str) -> Path:
    """The study file of that path, or the one that ships under that name. Raises GoalError if there is neither."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    known = {each.stem: each for each in sorted((shipped("studies") / _FOLDER).glob("*.toml"))}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    mend = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}; or give a path to a study file."
    raise GoalError(f"There is no study of fine-tuning named {name!r}.", mend)


def read_study(path: Path) -> Study:
    """The study that a file states; goal and reward are names of what ships, or lie beside the file.

    Raises GoalError, naming file and key, for anything that is missing, unknown or does not fit.
    """
    raw = table_of(text_of(path), str(path)).values
    training = raw.get("training", {})
    if isinstance(training, dict):
        if "seed" in training:
            raise GoalError(f"{path}: `training.seed` is not for here.", "State seeds = [0] at the top of the file.")
        filled = {"responses_at_once": training.get("responses_per_prompt", Settings.responses_per_prompt), **training}
        raw = {**raw, "training": filled}
    try:
        stated = validated(_File, raw, path)
        parse_rule(stated.filter.keep)
        goal, reward = _goal(path, stated.goal), _reward(path, stated.reward)
    except GoalCoverError as error:
        raise GoalError(_placed(error.problem, path), error.mend) from error
    return Study(
        path.stem,
        stated.title,
        goal,
        reward,
        stated.policy,
        stated.judge,
        stated.alignment_judge,
        stated.evaluation_judge,
        stated.policies,
        stated.seeds,
        stated.data,
        stated.filter,
        stated.synthetic,
        training,
        path.parent == shipped("studies") / _FOLDER,
    )


def _placed(problem: str, path: Path) -> str:
    return problem if problem.startswith(str(path)) else f"{path}: {problem}"


def _goal(path: Path, named: str) -> str:
    """The goal's name, or its path where it lies beside the study. Raises GoalError if it cannot be used."""
    goal = str(path.parent / named) if (path.parent / named).is_file() else named
    if not read_goal(find_goal(goal)).subgoals:
        raise GoalError(f"The goal {named} has no subgoals.", "Run `goalcover clarify` on it first.")
    return goal


def _reward(path: Path, named: str) -> str:
    """The reward's name, or its folder where it lies beside the study. Raises QuestionError if it cannot be used."""
    reward = str(path.parent / named) if (path.parent / named / FILE).is_file() else named
    load_rubric(reward)
    return reward


def divide(samples: Sequence[Sample], data: Data, fits: Sequence[bool]) -> Division:
    """The samples in the parts that `data` states, those of one group in one part; `fits` says which are not too long.

    Groups are drawn by the seed: the test rows first, so that other sizes of the training rows leave them as they are.
    Of equal samples the first counts. A part may lack rows. Raises DataError if no row has the column of the group.
    """
    first: dict[str, int] = {}
    for place, sample in enumerate(samples):
        first.setdefault(sample.digest, place)
    fitting = [place for place in first.values() if fits[place] and _within(samples[place], data)]
    groups: dict[str, list[int]] = {}
    for place, name in zip(fitting, _groups([samples[place] for place in fitting], data.group), strict=True):
        groups.setdefault(name, []).append(place)
    members = list(groups.values())
    order = iter([members[number] for number in drawn(len(members), data.seed)])
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for part in ("test", "validation", "train"):
        while len(parts[part]) < data.sizes[part] and (group := next(order, None)) is not None:
            parts[part] += group[: data.sizes[part] - len(parts[part])]
    return Division(
        {part: [samples[place] for place in sorted(places)] for part, places in parts.items()},
        n_double=len(samples) - len(first),
        n_unfit=len(first) - len(fitting),
        n_spare=len(fitting) - sum(map(len, parts.values())),
    )


def _within(sample: Sample, data: Data) -> bool:
    n_words = len(sample.input.split()) + len(sample.output.split())
    return data.least_words <= n_words and (not data.most_words or n_words <= data.most_words)


def _groups(samples: Sequence[Sample], column: str) -> list[str]:
    """The group of each sample: what stands in its column, whatever the case; its own where nothing stands there."""
    if not column:
        return [sample.digest for sample in samples]
    rows = [json.loads(sample.raw) for sample in samples]
    if rows and not any(column in row for row in rows):
        raise DataError(
            f"The data have no column {column!r}, by which the study keeps rows together.",
            "Name one that they have as `group` under [data] in a study file of your own, or leave it out.",
        )
    names = [json.dumps(row.get(column), sort_keys=True).casefold() for row in rows]
    return [sample.digest if name in ("null", '""') else name for sample, name in zip(samples, names, strict=True)]
