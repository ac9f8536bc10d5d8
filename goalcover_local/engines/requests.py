"""An engine over anything that takes token ids and answers requests: vLLM in this process, or a server on loopback.

The verbs are told in requests of three kinds, and batches never mix them:

    choose      for every node of every answer's path, the log-probabilities of the tokens that may follow it there
    generate    one request a prompt, under the grammar; an answer that its budget cut off goes back to where it could
                still end in time, and is ended token by token among those that leave time for it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import EngineError
from .base import SEED_STEP, TOO_LONG, Choices, Completion, Grammar, Prompt, renormalised
from .guide import Ways, build_index, least_bytes, legal
from .tokens import PromptTokenizer, bytes_vocabulary

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Draw:
    """How tokens are drawn: greedily at temperature 0, else by each row's own seed."""

    max_tokens: int
    temperature: float = 0.0
    seeds: tuple[int, ...] = ()


class Backend(Protocol):
    """What answers the requests. Every method keeps the order of its rows; errors are EngineErrors without text."""

    def prepare(self, trunk: Tokens, rows: Sequence[Tokens]) -> int:
        """How many tokens went through the model to make ready for these rows, which share the trunk."""
        ...

    def next_logs(self, rows: Sequence[Tokens], wanted: Sequence[Tokens]) -> tuple[list[list[float]], int]:
        """The log-probability of each wanted token after its row, no grammar applied, and how many were computed."""
        ...

    def write(self, rows: Sequence[Tokens], grammar: Grammar, draw: Draw) -> list[list[int]]:
        """The tokens written after each row under the grammar, its end token left out."""
        ...

    def pick(self, rows: Sequence[Tokens], permitted: Sequence[Tokens], draw: Draw) -> list[int]:
        """The one token written after each row, of those permitted there."""
        ...

    def describe(self) -> Mapping[str, str]:
        """What identifies the backend in a judge's digest."""
        ...

    def report(self) -> Mapping[str, str]:
        """What it has to say of the work so far, such as how much its cache served."""
        ...

    def close(self) -> None:
        """Nothing; frees the model and its processes."""
        ...


class RequestEngine:
    """The two verbs on a backend that answers requests."""

    def __init__(
        self, backend: Backend, prompts: PromptTokenizer, *, context: int, identity: Mapping[str, str] | None = None
    ) -> None:
        self.context = context
        self.backend = backend
        self._prompts = prompts
        self._identity = dict(identity or {})
        self._guides: dict[Grammar, Ways] = {}

    def describe(self) -> Mapping[str, str]:
        """The identity it was given, and the backend's."""
        return {**self._identity, **self.backend.describe()}

    def report(self) -> Mapping[str, str]:
        """What the backend has to say of the work so far."""
        return self.backend.report()

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """The number of tokens of each prompt, template and prefill included, exact."""
        return [len(self._prompts.ids(self._prompts.text(prompt))) for prompt in prompts]

    def shorten(self, text: str, n_tokens: int) -> tuple[str, int]:
        """The text cut in its middle to at most `n_tokens`, with a mark, and how many tokens were left out."""
        return self._prompts.shorten(text, n_tokens)

    def close(self) -> None:
        """Nothing; frees the model and its processes."""
        self.backend.close()

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Probability of each answer's canonical token path, renormalised: shape (n_prompts, n_answers)."""
        failures: list[str | None] = [None] * len(prompts)
        rows: list[list[int]] = []
        wanted: list[list[int]] = []
        steps: list[tuple[int, int, int, int]] = []
        for number, prompt in enumerate(prompts):
            common, paths = self._prompts.answer_paths(prompt, answers)
            if len(common) + max(map(len, paths)) > self.context:
                failures[number] = TOO_LONG
                continue
            nodes: dict[tuple[int, ...], int] = {}
            for column, path in enumerate(path.tolist() for path in paths):
                for length, token in enumerate(path):
                    before = tuple(path[:length])
                    if before not in nodes:
                        nodes[before] = len(rows)
                        rows.append([*common.tolist(), *before])
                        wanted.append([])
                    node = nodes[before]
                    if token not in wanted[node]:
                        wanted[node].append(token)
                    steps.append((number, column, node, wanted[node].index(token)))
        logs = np.zeros((len(prompts), len(answers)))
        n_tokens = 0
        if rows:
            n_tokens = self.backend.prepare(self._prompts.shared_ids(prompts[0]).tolist(), rows)
            found, n_computed = self.backend.next_logs(rows, wanted)
            n_tokens += n_computed
            for number, column, node, place in steps:
                logs[number, column] += found[node][place]
        return renormalised(logs, failures, n_tokens)

    def generate(
        self,
        prompts: Sequence[Prompt],
        grammar: Grammar,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """One answer for each prompt, complete under the grammar and within `max_tokens`, or a failure."""
        if least_bytes(grammar) > max_tokens and self._ways(grammar).needed(self._ways(grammar).start) > max_tokens:
            raise EngineError(f"No answer fits into {max_tokens} tokens.", "Allow more tokens for it.")
        rows = [self._prompts.ids(self._prompts.text(prompt)) for prompt in prompts]
        kept = [number for number, row in enumerate(rows) if len(row) + max_tokens <= self.context]
        answers: dict[int, list[int]] = {}
        if kept:
            asked = [rows[number] for number in kept]
            self.backend.prepare(self._prompts.shared_ids(prompts[kept[0]]).tolist(), asked)
            seeds = {number: seed + number * SEED_STEP for number in kept}
            draw = Draw(max_tokens, temperature, tuple(seeds.values()))
            answers = dict(zip(kept, self.backend.write(asked, grammar, draw), strict=True))
            cut_off = [n for n in kept if len(answers[n]) >= max_tokens and not legal(self._said(answers[n]), grammar)]
            if cut_off:
                self._end({n: answers[n] for n in cut_off}, rows, seeds, grammar, draw)
        completions = []
        for number in range(len(rows)):
            tokens = answers.get(number, [])
            text = self._said(tokens)
            if number not in answers:
                completions.append(Completion("", 0, TOO_LONG))
            elif legal(text, grammar):
                completions.append(Completion(text, len(tokens)))
            else:
                completions.append(Completion("", len(tokens), "the answer left its grammar"))
        return completions

    def _end(
        self,
        answers: Mapping[int, list[int]],
        rows: Sequence[Tokens],
        seeds: Mapping[int, int],
        grammar: Grammar,
        draw: Draw,
    ) -> None:
        """Nothing; cuts these answers back to where they could still end in time, and ends them there."""
        ways = self._ways(grammar)
        states: dict[int, int] = {}
        for number, tokens in answers.items():
            n_kept, states[number] = ways.in_time(tokens, draw.max_tokens)
            del tokens[n_kept:]
        for step in range(1, draw.max_tokens + 1):
            going = list(states)
            if not going:
                return
            permitted = [ways.permitted(states[n], draw.max_tokens - len(answers[n])).tolist() for n in going]
            picked = self.backend.pick(
                [[*rows[n], *answers[n]] for n in going],
                permitted,
                Draw(1, draw.temperature, tuple(seeds[n] + step for n in going)),
            )
            for number, token in zip(going, picked, strict=True):
                after = ways.after(states[number], token)
                if after is not None:
                    answers[number].append(token)
                if after is None or ways.complete(after):
                    del states[number]
                else:
                    states[number] = after

    def _said(self, tokens: Tokens) -> str:
        text: str = self._prompts.tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _ways(self, grammar: Grammar) -> Ways:
        if grammar not in self._guides:
            tokenizer = self._prompts.tokenizer
            self._guides[grammar] = Ways(build_index(grammar, bytes_vocabulary(tokenizer)), tokenizer.eos_token_id)
        return self._guides[grammar]
