"""Puts questions to a model: rendered, answered under their grammar, validated, and remembered.

A question whose first field is a choice is *decided*: each permitted value gets a probability. What a model favours
whatever it is asked is measured on the question's reference cases, whose right answers are known, and taken off
(batch calibration, Zhou et al. 2023); the same cases tell how fit the model is to decide it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import __version__, canary
from .answers import JsonForm
from .cards import Card, models_home
from .engines.base import Engine
from .engines.loading import Kind
from .errors import GoalCoverError
from .files import replace_file
from .judges import open_engine
from .questions import Question, load_question, reference_cases
from .terms import digest_of

Texts = Mapping[str, str]
Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows that so many answers to a question are on their way; what it gives is called as they come."""

_BATCH = 32
"""Prompts between two moments at which answers are remembered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote: its fields, legal under the question's grammar, or why there are none."""

    fields: Mapping[str, Any] | None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Fitness:
    """How a model does on a question's reference cases.

    `bias` is what it favours, as mean log-probabilities of the choices, (n_choices,). `accuracy` is the mean over the
    right answers of the share that it decides well, each case by the bias of the others, in [0, 1].
    """

    bias: tuple[float, ...]
    accuracy: float
    n_cases: int

    @property
    def fit(self) -> bool:
        """Whether it lies nearer to always right than to chance."""
        return self.accuracy >= (1 + 1 / len(self.bias)) / 2


@contextmanager
def _unwatched(what: str, n: int) -> Iterator[Callable[[int], None]]:
    yield lambda n: None


class Asker:
    """A model that answers questions and does not forget: what was answered once is not asked again.

    `memory` holds its answers by digest; `keep` is called whenever some were added, so that whoever owns it can store
    it. Answers to reference cases, which are the same for every goal, are kept in the folder `home` if there is one.
    `failures` counts why answers are missing.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        single_turn: bool = False,
        memory: MutableMapping[str, Any] | None = None,
        home: Path | None = None,
        keep: Callable[[], None] = lambda: None,
        watch: Watch = _unwatched,
    ) -> None:
        self.engine = engine
        self.failures: Counter[str] = Counter()
        self._single_turn = single_turn
        self._memory = {} if memory is None else memory
        self._home = home
        self._keep, self._watch = keep, watch
        self._questions: dict[str, Question] = {}
        self._fitness: dict[str, Fitness] = {}

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Everything but the question that can change an answer: weights, precision, versions, chat, device."""
        context = self.engine.context
        return {**self.engine.describe(), "context": context, "batch": _BATCH, "goalcover": __version__}

    @cached_property
    def digest(self) -> str:
        """Digest of the identity."""
        return digest_of(dict(self.identity))

    def question(self, name: str) -> Question:
        """The question of that name, in the manner of this model."""
        if name not in self._questions:
            self._questions[name] = load_question(name, single_turn=self._single_turn)
        return self._questions[name]

    def adapt(self, question: Question) -> None:
        """Nothing; this question is asked from now on under its name: with other examples, or in another form."""
        self._questions[question.name] = question

    def write(
        self,
        name: str,
        texts: Sequence[Texts],
        *,
        max_tokens: int,
        known: Mapping[str, Any] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        batch: int = _BATCH,
    ) -> list[Answer]:
        """One answer for each of the texts, the `known` leading fields given; failures say why there is none.

        `batch` is how many are written between two moments at which they are remembered. What is sampled (a temperature
        above 0) is written anew for each of several equal texts, and always in a whole batch, since an answer's place
        in it draws its lot: what failed fails again, and an interruption changes nothing.
        """
        question = self.question(name)
        asking = question.fields[len(known or {})]
        manner = {"known": dict(known or {}), "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        if batch != _BATCH:
            manner["batch"] = batch
        keys = [digest_of([self.digest, question.digest, dict(text), manner]) for text in texts]
        if temperature:
            met: Counter[str] = Counter()
            for place, key in enumerate(keys):
                keys[place] = digest_of([key, met[key]]) if met[key] else key
                met[key] += 1
        given: dict[str, Answer] = {}
        for keys_now, texts_now in self._batches(question, keys, texts, self._memory, batch, whole=temperature > 0):
            prompts = [question.prompt(text, known, asking=asking, whole=True) for text in texts_now]
            completions = self.engine.generate(
                prompts, question.grammar(asking=asking), max_tokens=max_tokens, temperature=temperature, seed=seed
            )
            for key, prompt, completion in zip(keys_now, prompts, completions, strict=True):
                if key in self._memory:
                    continue
                fields = None if completion.failure else question.read(prompt.prefill + completion.text)
                given[key] = Answer(fields, None if fields else completion.failure or "no legal answer")
                if fields:
                    self._memory[key] = dict(fields)
            self._keep()
        self.failures.update(answer.failure for answer in given.values() if answer.failure)
        return [given.get(key) or Answer(self._memory[key]) for key in keys]

    def decide(self, name: str, texts: Sequence[Texts]) -> list[Mapping[str, float] | None]:
        """For each of the texts the probability of every choice, its bias taken off; None where the model failed."""
        bias = np.array(self.fitness(name).bias)
        logs = self._logs(name, texts, self._memory)
        choices = self.choices(name)
        decided: list[Mapping[str, float] | None] = []
        for row in logs:
            weights = None if row is None else np.exp((row - bias) - (row - bias).max())
            decided.append(
                None if weights is None else dict(zip(choices, (weights / weights.sum()).tolist(), strict=True))
            )
        return decided

    def probabilities(self, name: str, texts: Sequence[Texts]) -> list[np.ndarray | None]:
        """For each of the texts the model's own probability of every choice, (n_choices,); None where it failed."""
        logs = self._logs(name, texts, self._memory)
        return [None if row is None else np.exp(row) / np.exp(row).sum() for row in logs]

    def fitness(self, name: str) -> Fitness:
        """How fit this model is to decide a question, and what it favours."""
        if name not in self._fitness:
            question, cases = self.question(name), reference_cases(name)
            choices = self.choices(name)
            right = [choices.index(str(case["answer"][question.fields[0]])) for case in cases]
            rows = self._logs(name, [case["fields"] for case in cases], self._references)
            known = [(row, place) for row, place in zip(rows, right, strict=True) if row is not None]
            self._fitness[name] = _fitness(
                np.array([r for r, _ in known]), np.array([p for _, p in known]), len(choices)
            )
        return self._fitness[name]

    @cached_property
    def _references(self) -> dict[str, Any]:
        """The answers to reference cases that were kept for this model."""
        try:
            return dict(json.loads(self._references_file.read_text(encoding="utf-8"))) if self._home else {}
        except (OSError, ValueError, TypeError):
            return {}

    @property
    def _references_file(self) -> Path:
        return (self._home or Path()) / f"{self.digest}.json"

    def _keep_references(self) -> None:
        """Nothing; keeps the answers to reference cases. Where that cannot be done, they are asked again next time."""
        if self._home is None:
            return
        with suppress(OSError, GoalCoverError):
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._references_file, json.dumps(self._references))

    def choices(self, name: str) -> tuple[str, ...]:
        """The values that a question's first field may hold."""
        question = self.question(name)
        assert isinstance(question.form, JsonForm)
        return tuple(str(value) for value in question.form.schema["properties"][question.fields[0]]["enum"])

    def _logs(self, name: str, texts: Sequence[Texts], memory: MutableMapping[str, Any]) -> list[np.ndarray | None]:
        """Log-probabilities of the choices, (n_choices,) for each text: their mean over the ways of asking it."""
        question = self.question(name)
        assert isinstance(question.form, JsonForm)
        answers = question.form.choices(question.fields[0])
        asked = [way for text in texts for way in ways(text)]
        keys = [digest_of([self.digest, question.digest, dict(text)]) for text in asked]
        keep = self._keep_references if memory is self._references else self._keep
        memory.update((key, self._references[key]) for key in keys if key not in memory and key in self._references)
        for keys_now, texts_now in self._batches(question, keys, asked, memory):
            prompts = [question.prompt(text, asking=question.fields[0]) for text in texts_now]
            chosen = self.engine.choose(prompts, answers)
            for key, row, failure in zip(keys_now, chosen.probabilities, chosen.failures, strict=True):
                if failure is None:
                    memory[key] = np.log(np.maximum(row, 1e-12)).tolist()
                elif memory is self._memory:
                    self.failures[failure] += 1
            keep()
        each = iter(memory.get(key) for key in keys)
        rows: list[list[Any]] = [[next(each) for _ in ways(text)] for text in texts]
        return [None if None in row else np.array(row).mean(axis=0) for row in rows]

    def _batches(
        self,
        question: Question,
        keys: Sequence[str],
        texts: Sequence[Texts],
        memory: Mapping[str, Any],
        size: int = _BATCH,
        whole: bool = False,
    ) -> Iterator[tuple[list[str], list[Texts]]]:
        """What is not remembered yet, a batch at a time; with `whole`, every batch of all in which something is not."""
        asked = list(dict(zip(keys, texts, strict=True)).items())
        waiting = asked if whole else [pair for pair in asked if pair[0] not in memory]
        batches = [waiting[start : start + size] for start in range(0, len(waiting), size)]
        batches = [batch for batch in batches if any(key not in memory for key, _ in batch)]
        if not batches:
            return
        with self._watch(question.name, sum(map(len, batches))) as came:
            for batch in batches:
                yield [key for key, _ in batch], [text for _, text in batch]
                came(len(batch))


def ways(texts: Texts) -> list[Texts]:
    """The ways in which a matter can be asked: two things compared, in both orders; anything else, as it is."""
    if set(texts) == {"first", "second"}:
        return [texts, {"first": texts["second"], "second": texts["first"]}]
    return [texts]


def _fitness(logs: np.ndarray, right: np.ndarray, n_choices: int) -> Fitness:
    """From the reference cases' log-probabilities, (n_cases, n_choices), and the places of their right answers."""

    def bias(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        by_choice = [rows[places == place].mean(axis=0) for place in range(n_choices) if (places == place).any()]
        return np.asarray(np.array(by_choice).mean(axis=0))

    if len(logs) < 2 * n_choices or len(set(right.tolist())) < n_choices:
        return Fitness((0.0,) * n_choices, 0.0, len(logs))
    others = [np.arange(len(logs)) != case for case in range(len(logs))]
    # Rounded, lest the last bits of the others' mean tell a model that always says the same which case was left out.
    fair = [np.round(logs[k] - bias(logs[o], right[o]), 9) for k, o in enumerate(others)]
    well = np.array([row.argmax() == place for row, place in zip(fair, right, strict=True)])
    accuracy = np.mean([well[right == place].mean() for place in range(n_choices)])
    return Fitness(tuple(bias(logs, right).tolist()), float(accuracy), len(logs))


def open_asker(
    card: Card,
    *,
    engine: Kind | Literal["auto"] = "auto",
    url: str = "",
    devices: Sequence[str] = (),
    threads: int | None = None,
    full: bool = False,
    opened: Engine | None = None,
    **owned: Any,
) -> Asker:
    """An asker of the model that a card describes; `owned` are the Asker's memory, keep and watch.

    `opened` is this card's engine, if it was opened and proved before. Raises as `judges.open_engine` does, and
    EngineError if the engine does not do what it must (see `canary`).
    """
    proved = opened is not None
    opened = opened or open_engine(card, engine=engine, url=url, devices=devices, threads=threads, full=full)
    asker = Asker(opened, single_turn=card.chat.single_turn, home=models_home() / "references", **owned)
    if not proved:
        try:
            canary.check(opened, asker.question("refinement"))
        except BaseException:
            opened.close()
            raise
    return asker
