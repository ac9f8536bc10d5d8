"""Grammars as automata: what may come next, whether an answer is complete, and how to finish in time (Outlines)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import QuestionError
from .base import Grammar

_END = 256
"""The end of an answer, in the vocabulary of single bytes."""


def build_index(grammar: Grammar, vocabulary: Any) -> Any:
    """The grammar's automaton over an `outlines_core.Vocabulary`. Raises QuestionError if it cannot be compiled."""
    from outlines_core import Index

    try:
        return Index(grammar.regex, vocabulary)
    except (ValueError, TypeError) as error:
        raise QuestionError(
            f"The answer's grammar cannot be compiled ({error}).",
            "Simplify the question's answer.schema.json or answer.regex: Outlines knows no look-around and no \\b.",
        ) from error


@lru_cache(maxsize=64)
def _byte_index(grammar: Grammar) -> Any:
    from outlines_core import Vocabulary

    return build_index(grammar, Vocabulary(_END, {bytes([byte]): [byte] for byte in range(256)}))


def legal(answer: str, grammar: Grammar, *, complete: bool = True) -> bool:
    """Whether Outlines' guide accepts the answer, replayed byte by byte: as a whole, or else as a beginning.

    Independent of any model's tokenizer, so it also checks what an engine's own guide let through.
    """
    from outlines_core import Guide

    try:
        text = answer.encode("utf-8")
    except UnicodeEncodeError:
        return False
    guide = Guide(_byte_index(grammar))
    try:
        for byte in text:
            guide.advance(byte, return_tokens=False)
    except ValueError:
        return False
    return bool(not complete or guide.is_finished())


@lru_cache(maxsize=64)
def least_bytes(grammar: Grammar) -> int:
    """The length of the shortest answer in bytes: in tokens it is at most as long."""
    ways = Ways(_byte_index(grammar), _END)
    return ways.needed(ways.start)


class Ways:
    """An index with its distances: what may be written from each state, and what leaves time to complete the answer."""

    def __init__(self, index: Any, end: int) -> None:
        self.start: int = index.get_initial_state()
        self._end = end
        self._next: dict[int, dict[int, int]] = index.get_transitions()
        self._needed = dict.fromkeys(index.get_final_states(), 0)
        self._moves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        backwards: dict[int, set[int]] = {}
        for state, moves in self._next.items():
            for target in set(moves.values()):
                backwards.setdefault(target, set()).add(state)
        frontier = list(self._needed)
        while frontier:
            reached = []
            for target in frontier:
                for state in backwards.get(target, ()):
                    if state not in self._needed:
                        self._needed[state] = self._needed[target] + 1
                        reached.append(state)
            frontier = reached

    def needed(self, state: int) -> int:
        """The least number of tokens that complete an answer from this state, its end not counted."""
        return self._needed[state]

    def complete(self, state: int) -> bool:
        """Whether an answer that has come here is complete and nothing can follow."""
        return self._needed[state] == 0 and set(self._next.get(state, ())) <= {self._end}

    def after(self, state: int, token: int) -> int | None:
        """The state that a permitted token leads to; None if it ends the answer."""
        return None if token == self._end else self._next[state][token]

    def follows(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens are the beginning of an answer, whatever its length."""
        state: int | None = self.start
        for token in tokens:
            state = self._next.get(state, {}).get(token) if state is not None else None
        return state is not None

    def in_time(self, tokens: Sequence[int], budget: int) -> tuple[int, int]:
        """How many of these tokens leave time to complete the answer within the budget, and the state after them."""
        state = self.start
        for n_kept, token in enumerate(tokens):
            after = self._next.get(state, {}).get(token)
            if after is None or self._needed.get(after, budget) >= budget - n_kept:
                return n_kept, state
            state = after
        return len(tokens), state

    def permitted(self, state: int, remaining: int) -> np.ndarray:
        """The tokens that may come next and leave time to complete the answer within `remaining` tokens in all."""
        if state not in self._moves:
            tokens = np.fromiter(self._next[state], dtype=np.int64)
            needed = np.array([self._needed.get(self._next[state][token], 1 << 30) for token in tokens.tolist()])
            needed[tokens == self._end] = -1
            self._moves[state] = tokens, needed
        tokens, needed = self._moves[state]
        return tokens if needed.max() < remaining else tokens[needed < remaining]
