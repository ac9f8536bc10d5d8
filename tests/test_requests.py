"""Answers told in requests: every place of every path is looked at once, and a walk that is led astray is mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.canary import binds
from goalcover_local.engines.base import Grammar
from goalcover_local.engines.requests import Draw, Logs, RequestEngine, Tokens, Walk, _few, _walks
from goalcover_local.engines.tokens import PromptTokenizer
from goalcover_local.errors import EngineError
from goalcover_local.terms import ANCHOR_TEXTS

PATHS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8)


class Oracle:
    """A backend whose log-probabilities follow from the tokens alone. It can be led along `leads` steps of a walk."""

    def __init__(self, leads: int = 100) -> None:
        self.leads = leads
        self.n_walks: list[int] = []
        self.says = ""
        self.permitted: list[Tokens] = []

    def log(self, before: Tokens, token: int) -> float:
        return -float(np.random.default_rng([*before[-6:], token]).random()) * 3

    def prepare(self, trunk: Tokens, rows: Sequence[Tokens]) -> int:
        return 0

    def follow(self, walks: Sequence[Walk]) -> tuple[list[list[Logs]], int]:
        self.n_walks.append(len(walks))
        seen = []
        for walk in walks:
            places = [(*walk.row, *walk.steps[:k]) for k in range(min(self.leads, len(walk.steps)) + 1)]
            seen.append([{token: self.log(place, token) for token in walk.tokens} for place in places])
        return seen, len(walks)

    def write(self, rows: Sequence[Tokens], grammar: Grammar, draw: Draw) -> list[list[int]]:
        return [tiny.tokenizer().encode(self.says)[: draw.max_tokens] for _ in rows]

    def pick(self, rows: Sequence[Tokens], permitted: Sequence[Tokens], draw: Draw) -> list[int]:
        self.permitted += permitted
        return [tokens[0] for tokens in permitted]

    def describe(self) -> Mapping[str, str]:
        return {"engine": "oracle", "device": "none"}

    def report(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        """Nothing."""


@given(PATHS)
def test_walks_pass_every_place_once_and_ask_for_all_that_follows_there(paths: list[list[int]]) -> None:
    walks = _walks([9, 9], paths)
    asked = [(*w.row, *w.steps[:k]) for w in walks for k in range(len(w.wanted))]
    assert len(asked) == len(set(asked))
    follow: dict[tuple[int, ...], set[int]] = {}
    for path in paths:
        for k, token in enumerate(path):
            follow.setdefault((9, 9, *path[:k]), set()).add(token)
    told = {(*w.row, *w.steps[:k]): set(w.wanted[k]) for w in walks for k in range(len(w.wanted))}
    assert told == follow
    assert walks[0].row == (9, 9)


def test_the_anchors_of_three_tokens_take_two_walks() -> None:
    zero, one, point = 1, 2, 3
    paths = [[zero, point, 10 + k] for k in range(5)] + [[one, point, 10]]
    assert [(tuple(w.row), tuple(w.steps)) for w in _walks([7], paths)] == [((7,), (zero, point)), ((7, one), (point,))]


@pytest.mark.parametrize("leads", [0, 1, 100])
def test_a_walk_that_is_led_astray_is_mended_and_changes_no_probability(leads: int) -> None:
    prompts = PromptTokenizer(tiny.tokenizer())
    oracle = Oracle(leads)
    engine = RequestEngine(oracle, prompts, context=2000)
    found = engine.choose(tiny.prompts(), ANCHOR_TEXTS).probabilities
    for prompt, row in zip(tiny.prompts(), found, strict=True):
        common, paths = prompts.answer_paths(prompt, ANCHOR_TEXTS)
        logs = [
            sum(oracle.log((*common.tolist(), *path[:k].tolist()), int(token)) for k, token in enumerate(path))
            for path in paths
        ]
        np.testing.assert_allclose(row, np.exp(logs) / np.exp(logs).sum(), atol=1e-12)
    longest = max(len(walk.steps) for walk in _walks([], [path.tolist() for path in paths]))
    assert len(oracle.n_walks) == (2 if leads < longest else 1), "only what is left is asked again"


@pytest.mark.parametrize("max_tokens", [20, 30, 40])
def test_an_answer_that_its_budget_cut_off_is_ended_in_time(max_tokens: int) -> None:
    oracle = Oracle()
    oracle.says = '{"score": 0.8, "explanation": "it is the sample of ' + "a capability " * 20
    engine = RequestEngine(oracle, PromptTokenizer(tiny.tokenizer()), context=2000)
    (completion,) = engine.generate(tiny.prompts()[:1], tiny.QUESTION.grammar(), max_tokens=max_tokens)
    assert completion.failure is None and completion.n_tokens <= max_tokens
    assert tiny.QUESTION.read(completion.text), completion.text
    assert oracle.permitted, "the end was picked token by token"


def test_an_answer_that_left_its_grammar_is_not_mended() -> None:
    """Mending it would hide that the grammar did not bind."""
    oracle = Oracle()
    oracle.says = "The sea, the sea, it is the sea, " * 20
    engine = RequestEngine(oracle, PromptTokenizer(tiny.tokenizer()), context=2000)
    (completion,) = engine.generate(tiny.prompts()[:1], tiny.QUESTION.grammar(), max_tokens=40)
    assert completion.failure and not oracle.permitted
    with pytest.raises(EngineError, match="broke out of its grammar"):
        binds(engine, tiny.QUESTION)


def test_of_very_many_permitted_tokens_only_those_are_asked_for_that_bring_the_end_nearer() -> None:
    class Many:
        def needed(self, state: int) -> int:
            return 2

        def permitted(self, state: int, remaining: int) -> np.ndarray:
            return np.arange(5000 if remaining > 2 else 3)

    assert _few(Many(), 0, 9) == [0, 1, 2]  # type: ignore[arg-type]
