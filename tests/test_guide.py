"""Nothing but legal answers: whatever tokens a model prefers, what is let through is JSON with one of six anchors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from goalcover_local.engines.base import Grammar
from goalcover_local.engines.guide import Ways, build_index, legal
from goalcover_local.engines.tokens import bytes_vocabulary
from goalcover_local.engines.transformers_engine import _Writer
from goalcover_local.errors import QuestionError
from goalcover_local.questions import ORDERS, Question, load_question, read_lines
from goalcover_local.resources import shipped
from goalcover_local.terms import ANCHOR_TEXTS, ANCHORS
from goalcover_local.weights import Weights

SCORE_FIRST = load_question("alignment").grammar()
REASON_FIRST = load_question("alignment", order="reason-first").grammar()
TROUBLE = [
    '"',
    "\\",
    "}",
    "{",
    "\n",
    "\x00",
    "\x7f",
    "\u2028",
    "�",
    "é",
    "日",
    "😀",
    "0.8",
    ", ",
    '"}',
    '\\"',
    "/",
    " ",
]
"""What breaks out of strings, or out of bad grammars."""


class Tongue:
    """A tokenizer, and the automata of both orders over its tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.size = len(tokenizer)
        self.specials = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        vocabulary = bytes_vocabulary(tokenizer)
        self.ways = {
            grammar: Ways(build_index(grammar, vocabulary), tokenizer.eos_token_id)
            for grammar in (SCORE_FIRST, REASON_FIRST)
        }

    def least(self, grammar: Grammar) -> int:
        """The smallest number of tokens that complete an answer."""
        return self.ways[grammar].needed(self.ways[grammar].start)

    def write(self, grammar: Grammar, wishes: list[list[int]], n_most: int, temperature: float = 0.0) -> list[int]:
        """The tokens that are let through of a model that wishes for these, step by step, best first."""
        writer = _Writer(self.ways[grammar], n_most, temperature, 0)
        for step in range(n_most + 1):
            logits = np.zeros(self.size, dtype=np.float32)
            for rank, token in enumerate(wishes[step % len(wishes)]):
                logits[token % self.size] = 50.0 - rank
            if writer.next(logits) is None:
                return writer.tokens
        raise AssertionError("an answer was not complete within its budget")


@pytest.fixture(scope="module")
def small() -> Tongue:
    return Tongue(tiny.tokenizer())


@pytest.fixture(scope="module")
def large(weights: Weights) -> Tongue:
    from transformers import AutoTokenizer

    return Tongue(AutoTokenizer.from_pretrained(weights.directory))


def check(tongue: Tongue, grammar: Grammar, tokens: list[int], n_most: int) -> None:
    """Fails unless these tokens are one complete answer: by the guide, by JSON, and by the rubric."""
    text = tongue.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    assert len(tokens) <= n_most
    assert not tongue.specials & set(tokens)
    assert legal(text, grammar), text
    answer = json.loads(text)
    assert list(answer) == (["score", "explanation"] if grammar == SCORE_FIRST else ["explanation", "score"])
    assert type(answer["score"]) is float and answer["score"] in ANCHORS
    assert isinstance(answer["explanation"], str)


@settings(max_examples=150, deadline=None)
@given(
    grammar=st.sampled_from([SCORE_FIRST, REASON_FIRST]),
    wishes=st.lists(st.lists(st.integers(0, 399), max_size=8), min_size=1, max_size=20),
    spare=st.integers(0, 30),
    temperature=st.sampled_from([0.0, 0.7, 5.0]),
)
def test_whatever_a_model_wishes_only_answers_come_through(
    small: Tongue, grammar: Grammar, wishes: list[list[int]], spare: int, temperature: float
) -> None:
    n_most = small.least(grammar) + spare
    check(small, grammar, small.write(grammar, wishes, n_most, temperature), n_most)


@settings(max_examples=150, deadline=None)
@given(
    grammar=st.sampled_from([SCORE_FIRST, REASON_FIRST]),
    troubles=st.lists(st.lists(st.sampled_from(TROUBLE), min_size=1, max_size=4), min_size=1, max_size=12),
    spare=st.integers(0, 40),
)
@example(grammar=SCORE_FIRST, troubles=[["\\"]], spare=40)
@example(grammar=REASON_FIRST, troubles=[["\\", '"']], spare=1)
@example(grammar=SCORE_FIRST, troubles=[["😀"]], spare=3)
def test_a_model_that_tries_to_break_out_stays_inside(
    small: Tongue, grammar: Grammar, troubles: list[list[str]], spare: int
) -> None:
    wishes = [[token for text in texts for token in small.tokenizer.encode(text)] for texts in troubles]
    n_most = small.least(grammar) + spare
    check(small, grammar, small.write(grammar, wishes, n_most), n_most)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    grammar=st.sampled_from([SCORE_FIRST, REASON_FIRST]),
    troubles=st.lists(st.lists(st.sampled_from([*TROUBLE, "<|im_end|>"]), min_size=1), min_size=1, max_size=8),
    others=st.lists(st.integers(0, 49_151), max_size=8),
    spare=st.integers(0, 10),
)
def test_a_model_with_a_large_vocabulary_stays_inside_too(
    large: Tongue, grammar: Grammar, troubles: list[list[str]], others: list[int], spare: int
) -> None:
    wishes = [[token for text in texts for token in large.tokenizer.encode(text)] for texts in troubles] + [others]
    n_most = large.least(grammar) + spare
    check(large, grammar, large.write(grammar, wishes, n_most), n_most)


def test_half_a_character_is_finished_or_never_begun(small: Tongue) -> None:
    """Its first byte is let through only if the others can follow within the budget."""
    first_byte = small.tokenizer.encode("😀")[0]
    least = small.least(SCORE_FIRST)
    begun = []
    for spare in (0, 1, 2, 10, 20, 40):
        tokens = small.write(SCORE_FIRST, [[first_byte]], least + spare)
        check(small, SCORE_FIRST, tokens, least + spare)
        begun.append(first_byte in tokens)
    assert any(begun) and not any(begun[:3])


@settings(max_examples=300)
@given(raw=st.binary(max_size=60), order=st.sampled_from(ORDERS))
def test_bytes_that_happen_to_be_an_answer_are_one(raw: bytes, order: str) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    assert not legal(text, SCORE_FIRST) and not legal(text, REASON_FIRST)


PIECES = st.lists(st.sampled_from([*TROUBLE, *"abc", "\\n", "\\u0041", '{"score": ', '"explanation": "']), max_size=6)


@settings(max_examples=400)
@given(score=st.sampled_from([*ANCHOR_TEXTS, "0.5", "1", '"0.8"', "-0.0", "0.80", "1e0", "NaN"]), pieces=PIECES)
def test_what_the_guide_accepts_is_json_and_what_is_not_json_is_refused(score: str, pieces: list[str]) -> None:
    text = f'{{"score": {score}, "explanation": "{"".join(pieces)}"}}'
    question = load_question("alignment")
    answer = question.read(text)
    try:
        parsed = json.loads(text, object_pairs_hook=list)
    except ValueError:
        assert answer is None
        return
    if answer is not None:
        assert score in ANCHOR_TEXTS
        assert [field for field, _ in parsed] == ["score", "explanation"]
        assert question.read(question.written(answer)) == answer


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40))
def test_any_plain_text_can_be_an_explanation(text: str) -> None:
    for order in ORDERS:
        question = load_question("alignment", order=order)
        written = question.written({"score": 0.6, "explanation": text})
        assert question.read(written) == {"score": 0.6, "explanation": text}


@settings(max_examples=200)
@given(data=st.data(), pieces=PIECES)
def test_every_beginning_of_an_answer_is_a_beginning_and_nothing_may_follow_it(
    data: st.DataObject, pieces: list[str]
) -> None:
    text = json.dumps({"score": 0.2, "explanation": "".join(pieces).replace("\x00", "").replace("\x7f", "")})
    if not legal(text, SCORE_FIRST):
        return
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    assert legal(cut, SCORE_FIRST, complete=False)
    assert not legal(cut, SCORE_FIRST)
    for more in ("}", " ", "\n", "x"):
        assert not legal(text + more, SCORE_FIRST, complete=False)


def test_text_that_cannot_be_encoded_is_not_legal() -> None:
    assert not legal('{"score": 0.8, "explanation": "\ud83d"}', SCORE_FIRST)


@pytest.mark.parametrize("regex", ["(", "(?=a)b", "[z-a]"])
def test_a_grammar_that_cannot_be_compiled_is_an_error(regex: str) -> None:
    with pytest.raises(QuestionError, match="cannot be compiled"):
        legal("a", Grammar(regex))


@pytest.mark.parametrize("regex", ["ab(c|defg)", "[a-z]{2,5}", "a+", "(no|now)?", "é{1,3}x"])
def test_every_way_leads_to_the_end_within_its_budget(small: Tongue, regex: str) -> None:
    """From every state, every permitted token keeps the pace; at the last moment only the shortest way is left."""
    index = build_index(Grammar(regex), bytes_vocabulary(small.tokenizer))
    ways = Ways(index, small.tokenizer.eos_token_id)
    assert ways.start == index.get_initial_state()
    for state in index.get_transitions():
        for remaining in range(ways.needed(state), ways.needed(state) + 4):
            permitted = ways.permitted(state, remaining)
            assert len(permitted)
            for token in permitted.tolist():
                after = ways.after(state, token)
                if after is None:
                    assert state in index.get_final_states()
                else:
                    assert ways.needed(after) <= remaining - 1


@settings(max_examples=100, deadline=None)
@given(
    regex=st.sampled_from(["[a-z]{2,5}", "a+", "(no|now)", "(yes|no|maybe)?", "é{1,3}", "[^x]*x"]),
    wishes=st.lists(st.lists(st.integers(0, 399), max_size=4), min_size=1, max_size=10),
    spare=st.integers(0, 6),
)
def test_answers_of_open_length_end_when_the_model_ends_them_or_the_budget_does(
    small: Tongue, regex: str, wishes: list[list[int]], spare: int
) -> None:
    grammar = Grammar(regex)
    small.ways[grammar] = Ways(build_index(grammar, bytes_vocabulary(small.tokenizer)), small.tokenizer.eos_token_id)
    n_most = small.least(grammar) + spare
    tokens = small.write(grammar, wishes, n_most)
    assert len(tokens) <= n_most and not small.specials & set(tokens)
    assert legal(small.tokenizer.decode(tokens, clean_up_tokenization_spaces=False), grammar)


def folders() -> Iterator[Path]:
    """The folder of every question that ships."""
    yield from sorted(folder for folder in shipped("grammars").iterdir() if folder.is_dir())


def cases() -> Iterator[Any]:
    """Every case of every question, in the order it is for."""
    for folder in folders():
        for number, case in enumerate(read_lines(folder / "cases.jsonl"), start=1):
            order = case.get("order", "score-first")
            yield pytest.param(folder.name, order, case["answer"], case["legal"], id=f"{folder.name}-{number}")


@pytest.mark.parametrize(("name", "order", "answer", "is_legal"), list(cases()))
def test_every_question_accepts_and_rejects_its_cases(name: str, order: Any, answer: str, is_legal: bool) -> None:
    question = load_question(name, order=order)
    assert legal(answer, question.grammar()) == is_legal
    assert (question.read(answer) is not None) == is_legal


def questions() -> Iterator[Question]:
    """Every question in each of the orders that it has."""
    for folder in folders():
        first = load_question(folder.name)
        yield first
        for order in ORDERS:
            if order != first.order and (folder / f"answer.{order}.schema.json").exists():
                yield load_question(folder.name, order=order)


@pytest.mark.parametrize("question", list(questions()), ids=lambda question: f"{question.name}-{question.fields[0]}")
def test_every_question_has_cases_of_both_kinds_and_legal_examples(question: Question) -> None:
    order = "reason-first" if question.fields[0] == "explanation" else "score-first"
    kinds = {
        case["legal"]
        for case in read_lines(shipped("grammars") / question.name / "cases.jsonl")
        if case.get("order", "score-first") == order
    }
    assert kinds == {True, False}
    for shown in question.examples:
        assert question.read(question.written(shown["answer"])) == shown["answer"]
