"""A judge: an engine and the question it is asked. It scores pairs of sample and subgoal, and explains scores."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from . import __version__, canary
from .answers import JsonForm, level_values
from .cards import Card
from .engines import opening
from .engines.base import Engine, Prompt
from .engines.loading import Kind
from .errors import EngineError, QuestionError
from .questions import Order, Question, load_question
from .terms import ANCHORS, Explanation, Judgement, Sample, Subgoal, digest_of
from .weights import refuse_swapped, verify

Decode = Literal["choice", "grammar"]
Pair = tuple[Sample, Subgoal]

SAMPLES_PER_BATCH = {"cpu": 16, "cuda": 64, "server": 64}
"""Samples judged between two commits, by device; part of what makes a resumed run equal to an unbroken one."""

EXPLANATION_TOKENS = 80
"""The longest explanation; the guide closes the answer in time."""

_SUBJECT_TOKENS = 24

_SLACK = 64
"""Tokens kept free for the answer's frame and for tokens that merge differently once a text is cut."""


@dataclass(frozen=True)
class Batch:
    """What one batch brought: records to store together, and what it cost.

    `truncations` maps sample digests to the tokens left out. `n_disagree` counts decoded answers whose anchor is not
    the most probable one (only where whole answers are decoded under the grammar).
    """

    judgements: tuple[Judgement, ...]
    explanations: tuple[Explanation, ...] = ()
    truncations: Mapping[str, int] = field(default_factory=dict)
    n_tokens: int = 0
    n_disagree: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Judge:
    """An engine, the question of alignment, and how its answers are decoded."""

    engine: Engine
    question: Question
    decode: Decode = "choice"
    explanation_tokens: int = EXPLANATION_TOKENS

    @property
    def order(self) -> Order:
        """Whether the score comes before what explains it."""
        return self.question.order

    @cached_property
    def samples_per_batch(self) -> int:
        """How many samples are judged between two commits: more where more run at once."""
        return SAMPLES_PER_BATCH.get(self.engine.describe()["device"], 16)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Everything that can change a judgement: weights, precision, versions, prompt, examples, grammar, decoding."""
        return {
            **self.engine.describe(),
            "question": self.question.name,
            "question_digest": self.question.digest,
            "order": self.order,
            "decode": self.decode,
            "explanation_tokens": self.explanation_tokens,
            "context": self.engine.context,
            "samples_per_batch": self.samples_per_batch,
            "goalcover": __version__,
        }

    @cached_property
    def digest(self) -> str:
        """Digest of the identity; with sample and subgoal it is a judgement's key."""
        return digest_of(dict(self.identity))

    def judge(self, pairs: Sequence[Pair]) -> Batch:
        """One batch: a judgement for every pair, in order; a failed one says why. Sample outermost shares the most."""
        started = time.perf_counter()
        fitted, truncations = self._fitted(pairs)
        texts = [_texts(sample, subgoal) for sample, subgoal in fitted]
        decoded, n_tokens = self._decoded(texts) if self._decodes else ([None] * len(pairs), 0)
        known = [
            {"explanation": answer["explanation"]} if answer and self.order == "reason-first" else {}
            for answer in decoded
        ]
        choices = self.engine.choose(
            [self.question.prompt(text, given, asking="score") for text, given in zip(texts, known, strict=True)],
            self.question.form.levels,
        )
        anchored = choices.probabilities @ self._anchoring
        judgements: list[Judgement] = []
        explanations: list[Explanation] = []
        n_disagree = 0
        for (sample, subgoal), answer, row, level, failure in zip(
            pairs, decoded, anchored, choices.probabilities, choices.failures, strict=True
        ):
            if self._decodes and answer is None:
                failure = failure or "no valid answer was decoded"
            probabilities = None if failure else tuple(float(p) for p in row)
            judgement = Judgement(sample.digest, subgoal.digest, probabilities, failure)
            judgements.append(judgement)
            if answer and not failure:
                n_disagree += str(answer["score"]) != self.question.form.levels[int(np.argmax(level))]
                explanations.append(self._explanation(sample, subgoal, answer))
        seconds = time.perf_counter() - started
        return Batch(
            tuple(judgements), tuple(explanations), truncations, n_tokens + choices.n_tokens, n_disagree, seconds
        )

    def explain(self, scored: Sequence[tuple[Sample, Subgoal, float]]) -> Batch:
        """Explanations of scores already given, each one's whole answer legal. What could not be written is absent.

        A judge that reasons first cannot explain a given score: its answer is decoded again.
        """
        started = time.perf_counter()
        fitted, _ = self._fitted([(sample, subgoal) for sample, subgoal, _ in scored])
        if self.order == "reason-first":
            decoded, n_tokens = self._decoded([_texts(sample, subgoal) for sample, subgoal in fitted])
            told = [
                self._explanation(sample, subgoal, answer)
                for (sample, subgoal, _), answer in zip(scored, decoded, strict=True)
                if answer
            ]
            return Batch((), tuple(told), n_tokens=n_tokens, seconds=time.perf_counter() - started)
        subjects, n_before = self._subjects([sample for sample, _ in fitted])
        prompts = [
            self._begun(self.question.prompt(_texts(sample, subgoal), {"score": score}, asking="explanation"), subject)
            for (sample, subgoal), subject, (_, _, score) in zip(fitted, subjects, scored, strict=True)
        ]
        completions = self.engine.generate(
            prompts, self.question.grammar(asking="explanation"), max_tokens=self.explanation_tokens
        )
        explanations = []
        for (sample, subgoal, _), prompt, completion in zip(scored, prompts, completions, strict=True):
            answer = None if completion.failure else self.question.read(prompt.prefill + completion.text)
            if answer:
                explanations.append(self._explanation(sample, subgoal, answer))
        n_tokens = n_before + sum(completion.n_tokens for completion in completions)
        return Batch((), tuple(explanations), n_tokens=n_tokens, seconds=time.perf_counter() - started)

    def _subjects(self, samples: Sequence[Sample]) -> tuple[list[str], int]:
        """What each sample is about, as the model says without a word of any capability, and the tokens it took.

        Empty where it failed.

        An explanation that begins with it speaks of the sample: a small model's own beginning speaks of the capability.
        """
        if not isinstance(self.question.form, JsonForm):
            return [""] * len(samples), 0
        question = load_question("subject", single_turn=self.question.single_turn)
        distinct = {(sample.input, sample.output): sample for sample in samples}
        prompts = [
            question.prompt({"input": sample.input.strip(), "output": sample.output.strip()}, asking="subject")
            for sample in distinct.values()
        ]
        completions = self.engine.generate(prompts, question.grammar(asking="subject"), max_tokens=_SUBJECT_TOKENS)
        told = {}
        for key, prompt, completion in zip(distinct, prompts, completions, strict=True):
            answer = None if completion.failure else question.read(prompt.prefill + completion.text)
            told[key] = str(answer["subject"]) if answer else ""
        n_tokens = sum(completion.n_tokens for completion in completions)
        return [told[sample.input, sample.output] for sample in samples], n_tokens

    def _begun(self, prompt: Prompt, subject: str) -> Prompt:
        """The prompt with an explanation begun by what the sample is about."""
        if not subject:
            return prompt
        return replace(prompt, prefill=f"{prompt.prefill}It is about {json.dumps(subject, ensure_ascii=False)[1:-1]}")

    def tokens(self, samples: Sequence[Sample], subgoals: Sequence[Subgoal]) -> tuple[int, int]:
        """How many tokens these pairs have as whole prompts, and how many are left once shared parts count once."""
        bare = Sample("", "", "")
        prompts = [self.question.prompt(_texts(sample, subgoals[0]), asking="score") for sample in samples]
        whole = self.engine.count_tokens(prompts)
        branches = self.engine.count_tokens(
            [self.question.prompt(_texts(bare, subgoal), asking="score") for subgoal in subgoals]
        )
        trunk = self.engine.count_tokens([replace(prompts[0], messages=prompts[0].shared, prefill="")])[0]
        sent = sum(n * len(subgoals) + sum(branches) - branches[0] * len(subgoals) for n in whole)
        unique = trunk + sum(n - branches[0] + sum(branches) - trunk * len(subgoals) for n in whole)
        return sent, unique

    @cached_property
    def _anchoring(self) -> np.ndarray:
        """How the probabilities of the question's levels become those of the six anchors, (n_levels, 6).

        Six evenly spaced levels are the anchors. Any others are shared between the two anchors that they lie between,
        so that the expectation stays what it is.
        """
        values = level_values(self.question.form)
        columns = np.eye(len(ANCHORS))
        return np.column_stack([np.interp(values, ANCHORS, column) for column in columns])

    @property
    def _decodes(self) -> bool:
        return self.decode == "grammar" or self.order == "reason-first"

    def _decoded(self, texts: Sequence[Mapping[str, str]]) -> tuple[list[Mapping[str, Any] | None], int]:
        """Whole answers decoded under the grammar (None: none that the guide accepts), and the tokens they took."""
        first = self.question.fields[0]
        begun = self.question.form.begun({}, first)
        completions = self.engine.generate(
            [replace(self.question.prompt(text), prefill=begun) for text in texts],
            self.question.grammar(asking=first),
            max_tokens=self.explanation_tokens + 24,
        )
        answers = [None if c.failure else self.question.read(begun + c.text) for c in completions]
        return answers, sum(c.n_tokens for c in completions)

    def _explanation(self, sample: Sample, subgoal: Subgoal, answer: Mapping[str, Any]) -> Explanation:
        return Explanation(sample.digest, subgoal.digest, answer["explanation"], self.question.written(answer))

    def _fitted(self, pairs: Sequence[Pair]) -> tuple[list[Pair], dict[str, int]]:
        """The pairs with samples that exceed the context cut in their middle, and the tokens left out by digest."""
        left_out: dict[str, int] = {}
        cut: dict[str, Sample] = {}
        if not pairs:
            return [], left_out
        bare = Sample("", "", "")
        subgoals = {subgoal.digest: subgoal for _, subgoal in pairs}.values()
        # A whole answer's prompt shows whole examples, so it is the longest that this judge asks.
        prompts = [
            self.question.prompt(_texts(bare, subgoal), asking=a) for subgoal in subgoals for a in ("score", None)
        ]
        room = self.engine.context - self.explanation_tokens - _SLACK - max(self.engine.count_tokens(prompts))
        if room < _SLACK:
            raise EngineError(
                "The question and its examples leave no room for a sample in the judge's context.",
                "Use a judge with a longer context, or shorter subgoal descriptions.",
            )
        for sample in {sample.digest: sample for sample, _ in pairs}.values():
            # No tokenizer makes more tokens than there are bytes, so most samples need no count.
            unfenced = self.question.unfenced(sample.input), self.question.unfenced(sample.output)
            if len("".join(unfenced).encode("utf-8", "replace")) > room:
                cut[sample.digest], n_tokens = self._shortened(sample, *unfenced, pairs[0][1], room)
                if n_tokens:
                    left_out[sample.digest] = n_tokens
        return [(cut.get(sample.digest, sample), subgoal) for sample, subgoal in pairs], left_out

    def _shortened(self, sample: Sample, input: str, output: str, subgoal: Subgoal, room: int) -> tuple[Sample, int]:
        """The sample in at most `room` tokens: the input keeps at most half of it, the output what is left."""
        short_input, cut_input = self.engine.shorten(input, room // 2)
        bare = replace(sample, input="", output="")
        with_input, without = self.engine.count_tokens(
            [
                self.question.prompt(_texts(part, subgoal), asking="score")
                for part in (replace(bare, input=short_input), bare)
            ]
        )
        short_output, cut_output = self.engine.shorten(output, room - (with_input - without))
        return replace(sample, input=short_input, output=short_output), cut_input + cut_output


def _texts(sample: Sample, subgoal: Subgoal) -> dict[str, str]:
    return {
        "input": sample.input.strip(),
        "output": sample.output.strip(),
        "name": subgoal.name.strip(),
        "description": subgoal.description.strip(),
    }


def open_engine(
    card: Card,
    *,
    engine: Kind | Literal["auto"] = "auto",
    url: str = "",
    devices: Sequence[str] = (),
    threads: int | None = None,
    full: bool = False,
) -> Engine:
    """The engine that answers for a card's verified weights, on one device or on a process for each of several.

    Without devices: the first GPU if there is one, else the CPU. With `full` every byte of the weights is read again,
    whatever was verified before. Raises ModelError for weights that are absent or altered, were it while they were
    loaded, EngineError if the model cannot be loaded.
    """
    weights = verify(card, full)
    opened = opening.open_engine(
        opening.suited(devices) if engine == "auto" else engine,
        url=url,
        devices=devices,
        threads=threads,
        precision=card.precision,
        settings=card.engine_options,
        directory=weights.directory,
        context=card.context,
        identity={"card": card.name, "weights": weights.digest, "chat": digest_of(asdict(card.chat))},
        template_options=dict(card.chat.template_options),
        markers=tuple(card.chat.markers),
        system_role=card.chat.system_role,
        opening=card.chat.opening,
    )
    try:
        refuse_swapped(weights)
    except BaseException:
        opened.close()
        raise
    return opened


def open_judge(
    card: Card,
    *,
    question: str | None = None,
    order: Order | None = None,
    decode: Decode = "choice",
    engine: Kind | Literal["auto"] = "auto",
    url: str = "",
    devices: Sequence[str] = (),
    threads: int | None = None,
    full: bool = False,
    opened: Engine | None = None,
) -> Judge:
    """The judge of alignment that a card describes; question and order default to what the card prefers.

    `opened` is this card's engine, if it was opened and proved before. Raises QuestionError for an unknown question,
    ModelError and EngineError as `open_engine`, and EngineError if the engine does not do what it must (see `canary`).
    """
    name = question or card.question
    if order is None and name == card.question:
        order = card.order
    asked = load_question(name, order=order, single_turn=card.chat.single_turn)
    if len(asked.form.levels) < 2:
        raise QuestionError(f"The question {name} gives no score.", "Choose one that does, such as `alignment`.")
    if opened is None:
        opened = open_engine(card, engine=engine, url=url, devices=devices, threads=threads, full=full)
        try:
            canary.check(opened, asked)
        except BaseException:
            opened.close()
            raise
    return Judge(opened, asked, decode, card.explanation_tokens)
