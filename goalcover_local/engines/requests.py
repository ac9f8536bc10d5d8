"""An engine over anything that takes token ids and answers requests: vLLM in this process, or a server on loopback.

The verbs are told in requests of three kinds, and batches never mix them:

    choose      walks along the answers' paths, which at every place ask for the log-probabilities of what may follow
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
from .guide import Ways, least_bytes, legal
from .tokens import PromptTokenizer

Tokens = Sequence[int]
MOST_PERMITTED = 1024
"""How many tokens vLLM's newer model runner lets a request permit."""

Logs = Mapping[int, float]
"""Log-probabilities of tokens at one place, by token."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How tokens are drawn: greedily at temperature 0, else by each row's own seed."""

    max_tokens: int
    temperature: float = 0.0
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Walk:
    """Places to look from: after `row`, and after each of the `steps` that are then taken one by one.

    `wanted[k]` are the tokens whose log-probability is asked for at the k-th place; there is one place more than steps.
    """

    row: Tokens
    steps: Tokens
    wanted: Sequence[Tokens]

    @property
    def tokens(self) -> tuple[int, ...]:
        """All the tokens that are asked for anywhere, ascending."""
        return tuple(sorted({token for tokens in self.wanted for token in tokens}))


class Backend(Protocol):
    """What answers the requests. Every method keeps the order of its rows; errors are EngineErrors without text."""

    def prepare(self, trunk: Tokens, rows: Sequence[Tokens]) -> int:
        """How many tokens went through the model to make ready for these rows, which share the trunk."""
        ...

    def follow(self, walks: Sequence[Walk]) -> tuple[list[list[Logs]], int]:
        """For each walk what was seen at its places, no grammar applied, and how many tokens were computed.

        A walk may end early, at a place where the model could not be led on; it sees its first place at least.
        """
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
        logs = np.zeros((len(prompts), len(answers)))
        walks: list[Walk] = []
        asked: list[tuple[int, list[list[int]], range]] = []
        for number, prompt in enumerate(prompts):
            common, paths = self._prompts.answer_paths(prompt, answers)
            if len(common) + max(map(len, paths)) > self.context:
                failures[number] = TOO_LONG
                continue
            start = len(walks)
            walks += _walks(common.tolist(), [path.tolist() for path in paths])
            asked.append((number, [path.tolist() for path in paths], range(start, len(walks))))
        if not walks:
            return renormalised(logs, failures, 0)
        n_tokens = self.backend.prepare(self._prompts.shared_ids(prompts[0]).tolist(), [walk.row for walk in walks])
        found, n_computed = self._followed(walks)
        for number, tokens_of, own in asked:
            seen = {place: logs_there for k in own for place, logs_there in found[k].items()}
            before = tuple(walks[own[0]].row)
            for column, path in enumerate(tokens_of):
                logs[number, column] = sum(seen[(*before, *path[:k])][token] for k, token in enumerate(path))
        return renormalised(logs, failures, n_tokens + n_computed)

    def _followed(self, walks: Sequence[Walk]) -> tuple[list[dict[tuple[int, ...], Logs]], int]:
        """For each walk what was seen, by the tokens up to the place, and how many tokens were computed.

        Where a walk ended early, its other places are asked for one by one.
        """
        seen, n_tokens = self.backend.follow(walks)
        found = [{(*w.row, *w.steps[:k]): logs for k, logs in enumerate(s)} for w, s in zip(walks, seen, strict=True)]
        left = [
            (number, Walk((*walk.row, *walk.steps[:k]), (), (walk.wanted[k],)))
            for number, walk in enumerate(walks)
            for k in range(len(seen[number]), len(walk.wanted))
        ]
        if left:
            again, n_more = self.backend.follow([walk for _, walk in left])
            n_tokens += n_more
            for (number, walk), logs in zip(left, again, strict=True):
                found[number][tuple(walk.row)] = logs[0]
        return found, n_tokens

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
        if least_bytes(grammar) > max_tokens:
            ways = self._prompts.ways(grammar)
            if ways.needed(ways.start) > max_tokens:
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
            full = [number for number in kept if len(answers[number]) >= max_tokens]
            cut_off = [number for number in full if not legal(self._prompts.said(answers[number]), grammar)]
            if cut_off:
                self._end({n: answers[n] for n in cut_off}, rows, seeds, grammar, draw)
        completions = []
        for number in range(len(rows)):
            tokens = answers.get(number, [])
            text = self._prompts.said(tokens)
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
        ways = self._prompts.ways(grammar)
        states: dict[int, int] = {}
        for number, tokens in answers.items():
            if not ways.follows(tokens):
                continue  # the grammar did not bind, and mending the answer would hide it
            n_kept, states[number] = ways.in_time(tokens, draw.max_tokens)
            del tokens[n_kept:]
        for step in range(1, draw.max_tokens + 1):
            going = list(states)
            if not going:
                return
            permitted = [_few(ways, states[n], draw.max_tokens - len(answers[n])) for n in going]
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


def _few(ways: Ways, state: int, remaining: int) -> list[int]:
    """The tokens that may come next in time; of very many only those that bring the end nearer (vLLM takes 1,024)."""
    permitted = ways.permitted(state, remaining)
    if len(permitted) > MOST_PERMITTED:
        permitted = ways.permitted(state, min(remaining, ways.needed(state)))
    found: list[int] = permitted.tolist()
    return found


def _walks(common: Tokens, paths: Sequence[Tokens]) -> list[Walk]:
    """Walks that pass every place from which one of the paths goes on, each place once; the first begins at the start.

    From each place a walk goes on to the next one that is not a path's end, along the first path that has one; what
    branches off is a walk of its own. The anchors "0.0" … "1.0" are two walks: to "0" and "0.", and from "1" to "1.".
    """
    wanted: dict[tuple[int, ...], list[int]] = {}
    for path in paths:
        for k, token in enumerate(path):
            tokens = wanted.setdefault(tuple(path[:k]), [])
            if token not in tokens:
                tokens.append(token)
    walks: list[Walk] = []
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        place = start = waiting.pop(0)
        passed = [place]
        while onward := [(*place, token) for token in wanted[place] if (*place, token) in wanted]:
            place = onward[0]
            passed.append(place)
            waiting += onward[1:]
        walks.append(Walk((*common, *start), place[len(start) :], [wanted[there] for there in passed]))
    return walks
