"""What an engine is: two verbs that answer batches, and the records they exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Role = Literal["system", "user", "assistant"]

SEED_STEP = 1_000_003
"""How far apart the seeds of neighbouring rows lie, so that a batch may be drawn in parts."""

TOO_LONG = "longer than the model's context"
"""Why a prompt fails whose answer would not fit."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation and the beginning of its answer, templated and tokenised once, as one string.

    `prefill` is the part of the answer that is given. `shared` are the leading messages that every prompt of the
    same question begins with; the last of them may stop in the middle of a message. It is a hint for the engine, which
    computes that part once: leaving it out changes the cost, never the answer.
    """

    messages: tuple[Message, ...]
    prefill: str = ""
    shared: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Grammar:
    """The answers permitted, as a regular expression over the answer's text after the prefill."""

    regex: str


@dataclass(frozen=True, slots=True)
class Choices:
    """What `choose` answers.

    `probabilities` has shape (n_prompts, n_answers), each row summing to 1, or all NaN where `failures` says why.
    `n_tokens` is how many tokens went through the model for it.
    """

    probabilities: np.ndarray
    failures: tuple[str | None, ...]
    n_tokens: int


def renormalised(logs: np.ndarray, failures: Sequence[str | None], n_tokens: int) -> Choices:
    """Choices from the answers' log-probabilities, (n_prompts, n_answers): one renormalisation over the answers."""
    probabilities = np.full(logs.shape, np.nan)
    told = list(failures)
    for row, failure in enumerate(failures):
        if failure is None:
            weights = np.exp(logs[row] - logs[row].max())
            if np.isfinite(weights).all():
                probabilities[row] = weights / weights.sum()
            else:
                told[row] = "the model's probabilities are not finite"
    return Choices(probabilities, tuple(told), n_tokens)


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated answer, without its prefill. `failure` says why there is none."""

    text: str
    n_tokens: int
    failure: str | None = None


class Engine(Protocol):
    """A model that answers batches: same length and order out as in, no state that a caller can see."""

    context: int
    """How many tokens a prompt and its answer may take together."""

    def describe(self) -> Mapping[str, str]:
        """What identifies this engine in a judge's digest: name, versions, weights, precision, device kind."""
        ...

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """The number of tokens of each prompt, template and prefill included, exact."""
        ...

    def shorten(self, text: str, n_tokens: int) -> tuple[str, int]:
        """The text cut in its middle to at most `n_tokens`, with a mark, and how many tokens were left out."""
        ...

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """The probability of each permitted answer, renormalised over `answers`: shape (n_prompts, n_answers).

        An answer's probability is that of its canonical token path after the prefill.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        grammar: Grammar,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """One answer for each prompt, complete under the grammar and within `max_tokens`, or a failure.

        The temperature is from 0 (the most probable token) to 2.
        """
        ...

    def report(self) -> Mapping[str, str]:
        """What the engine has to say of its work so far, by name, such as how much its cache served. No text."""
        ...

    def close(self) -> None:
        """Nothing; frees the model and its processes."""
        ...
