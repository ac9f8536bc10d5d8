"""A judge: what an engine answers becomes judgements, and what it fails to answer is missing, never 0."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from goalcover_local.cards import DEFAULT_CARD, load_card
from goalcover_local.engines.base import Completion, Grammar, Prompt
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.errors import EngineError
from goalcover_local.judges import EXPLANATION_TOKENS, Decode, Judge, open_engine, open_judge
from goalcover_local.questions import Order, load_question
from goalcover_local.terms import ANCHOR_TEXTS, Sample, Subgoal
from goalcover_local.weights import Weights

PAIRS = [(sample, subgoal) for sample in tiny.SAMPLES for subgoal in tiny.SUBGOALS]
LEANS = {"0.8": [0, 0, 0, 1, 9, 0], "0.2": [1, 9, 0, 0, 0, 0]}


def answer(score: float, explanation: str = "So it is.", order: Order = "score-first") -> str:
    return load_question("alignment", order=order).written({"score": score, "explanation": explanation})


BEGUN = {"score-first": '{"score": ', "reason-first": '{"explanation": "'}


def rest(whole: str, order: Order = "score-first") -> str:
    """What the engine is left to write of an answer, since its beginning is given."""
    return whole.removeprefix(BEGUN[order])


def judge(*script: Any, order: Order = "score-first", decode: Decode = "choice", context: int = 4096) -> Judge:
    return Judge(ScriptedEngine(script, context=context), load_question("alignment", order=order), decode)


def history(of: Judge) -> list[Prompt]:
    """What the scripted engine of a judge was asked."""
    assert isinstance(of.engine, ScriptedEngine)
    return of.engine.history


BARE = judge([1]).engine.count_tokens(
    [judge([1]).question.prompt(dict.fromkeys(("input", "output", "name", "description"), ""), asking="score")]
)[0]
"""The length of a prompt about nothing."""


def test_every_pair_gets_a_judgement_in_order() -> None:
    batch = judge(*[LEANS["0.8"], LEANS["0.2"]] * 3).judge(PAIRS)
    assert [(j.sample, j.subgoal) for j in batch.judgements] == [(s.digest, g.digest) for s, g in PAIRS]
    assert [j.score for j in batch.judgements] == [0.8, 0.2] * 3
    assert batch.judgements[0].expectation == pytest.approx(0.78)
    assert (batch.explanations, batch.truncations, batch.n_disagree) == ((), {}, 0)
    assert batch.n_tokens > 0 and batch.seconds >= 0


def test_a_failed_judgement_is_missing_and_says_why() -> None:
    batch = judge(LEANS["0.8"], "", LEANS["0.2"]).judge(PAIRS[:3])
    assert [j.failure for j in batch.judgements] == [None, "scripted failure", None]
    failed = batch.judgements[1]
    assert (failed.probabilities, failed.score, failed.expectation) == (None, None, None)


def test_no_pairs_make_an_empty_batch() -> None:
    batch = judge(LEANS["0.8"]).judge([])
    assert (batch.judgements, batch.n_tokens) == ((), 0)


def test_the_answer_is_begun_up_to_the_score() -> None:
    asked = judge(LEANS["0.8"])
    asked.judge(PAIRS[:1])
    (prompt,) = history(asked)
    assert prompt.prefill == '{"score": '
    assert prompt.shared and prompt.messages[-1].content.count("sheet bend") == 1


def test_a_sample_over_the_context_is_cut_with_a_mark_and_counted() -> None:
    """Words are the scripted engine's tokens; the cut prompt fits, so the judgement does not fail."""
    small = judge(LEANS["0.8"], context=BARE + 400)
    long = Sample("long", " ".join(f"in{n}" for n in range(1000)), " ".join(f"out{n}" for n in range(1000)))
    batch = small.judge([(long, tiny.SUBGOALS[0]), (tiny.SAMPLES[0], tiny.SUBGOALS[0])])
    assert [j.failure for j in batch.judgements] == [None, None]
    assert batch.judgements[0].sample == long.digest
    assert set(batch.truncations) == {long.digest}
    text = history(small)[0].messages[-1].content
    assert "in0 " in text and "in999" in text and "out0 " in text and "out999" in text and text.count("[…]") == 2
    assert "in500 " not in text and "out500 " not in text
    n_kept = sum(word.startswith(("in", "out")) and word[-1].isdigit() for word in text.split())
    assert batch.truncations[long.digest] == 2000 - n_kept
    assert "[…]" not in history(small)[1].messages[-1].content


def test_a_short_input_leaves_its_room_to_the_output() -> None:
    small = judge(LEANS["0.8"], context=BARE + 400)
    batch = small.judge([(Sample("s", "one two", " ".join(f"out{n}" for n in range(1000))), tiny.SUBGOALS[0])])
    n_kept = 1000 - batch.truncations[next(iter(batch.truncations))]
    assert n_kept > 0.45 * (400 - EXPLANATION_TOKENS)


def test_the_longest_subgoal_in_tokens_sets_the_room() -> None:
    """Of two descriptions the one with fewer characters may have more tokens."""
    long, dense = Subgoal("a", "A", "x" * 900), Subgoal("b", "B", "y " * 400)
    small = judge(LEANS["0.8"], context=BARE + 800)
    batch = small.judge([(Sample("s", "word " * 1000, "more " * 1000), subgoal) for subgoal in (long, dense)])
    assert [j.failure for j in batch.judgements] == [None, None]


def test_a_context_without_room_for_a_sample_is_an_error() -> None:
    with pytest.raises(EngineError, match="no room"):
        judge(LEANS["0.8"], context=200).judge(PAIRS[:1])


@pytest.mark.parametrize("text", ["</sample> ", "<|im_end|> ", "<sample>", "日本", "\ud83d "])
def test_long_samples_of_nothing_but_trouble_are_cut_and_judged(tiny_weights: Path, text: str) -> None:
    """What is broken up takes more tokens afterwards: the cut is made on the broken text."""
    from goalcover_local.engines.transformers_engine import TransformersEngine

    engine = TransformersEngine.load(tiny_weights, context=2000, precision="float32", threads=1)
    long = Sample("both", text * 2000, text * 2000), Sample("output", "Well?", text * 2000)
    batch = Judge(engine, tiny.QUESTION).judge([(s, tiny.SUBGOALS[0]) for s in long])
    assert [j.failure for j in batch.judgements] == [None, None]
    assert len(batch.truncations) == 2


def test_reason_first_writes_the_explanation_and_then_weighs_the_anchors() -> None:
    whole = answer(0.4, "It says „so“.", "reason-first")
    asked = judge(rest(whole, "reason-first"), LEANS["0.8"], order="reason-first")
    batch = asked.judge(PAIRS[:1])
    opened, weighed = history(asked)
    assert (opened.prefill, weighed.prefill) == ('{"explanation": "', '{"explanation": "It says „so“.", "score": ')
    assert batch.judgements[0].score == 0.8
    assert [(e.text, e.answer) for e in batch.explanations] == [("It says „so“.", whole)]
    assert batch.n_disagree == 1


def test_grammar_decoding_keeps_whole_answers_and_counts_disagreements() -> None:
    """All are decoded, then all are weighed; the probabilities give the score, and a disagreement is counted."""
    answers = [answer(0.8), answer(0.2), answer(0.8)]
    asked = judge(*map(rest, answers), LEANS["0.8"], LEANS["0.8"], LEANS["0.2"], decode="grammar")
    batch = asked.judge(PAIRS[:3])
    assert [prompt.prefill for prompt in history(asked)] == ['{"score": '] * 6
    assert [j.score for j in batch.judgements] == [0.8, 0.8, 0.2]
    assert batch.n_disagree == 2
    assert [e.answer for e in batch.explanations] == answers


@pytest.mark.parametrize(("order", "decode"), [("score-first", "grammar"), ("reason-first", "choice")])
@pytest.mark.parametrize("broken", ["", "The score is 0.8.", '{"score": 0.5, "explanation": ""}', "0.8", 'So"'])
def test_an_answer_that_is_not_legal_is_a_failure(order: Order, decode: Decode, broken: str) -> None:
    whole = rest(answer(0.8, order=order), order)
    asked = judge(whole, broken, LEANS["0.8"], LEANS["0.8"], order=order, decode=decode)
    batch = asked.judge(PAIRS[:2])
    assert [j.failure is None for j in batch.judgements] == [True, False]
    assert batch.judgements[1].probabilities is None
    assert len(batch.explanations) == 1 and batch.n_disagree == 0


class LawlessEngine(ScriptedEngine):
    """Says whatever it likes, and claims that all is well."""

    def generate(self, prompts: Sequence[Prompt], grammar: Grammar, **options: Any) -> list[Completion]:
        return [Completion(str(self._next(prompt)), 3) for prompt in prompts]


@pytest.mark.parametrize("said", ['7, "explanation": ""}', "0.8", '0.8, "explanation": "a\nb"}'])
def test_every_answer_is_replayed_through_the_guide_whatever_the_engine_claims(said: str) -> None:
    asked = Judge(LawlessEngine([said, LEANS["0.8"]]), load_question("alignment"), decode="grammar")
    assert asked.judge(PAIRS[:1]).judgements[0].failure
    scored = [(tiny.SAMPLES[0], tiny.SUBGOALS[0], 0.8)]
    assert Judge(LawlessEngine([said]), load_question("alignment")).explain(scored).explanations == ()


def test_explanations_are_of_the_score_that_was_given() -> None:
    asked = judge('It is."}', "", 'It is not."}')
    scored = [(sample, subgoal, score) for (sample, subgoal), score in zip(PAIRS, (0.8, 0.2, 0.4), strict=False)]
    batch = asked.explain(scored)
    assert [prompt.prefill for prompt in history(asked)] == [
        f'{{"score": {score}, "explanation": "' for score in (0.8, 0.2, 0.4)
    ]
    assert [e.text for e in batch.explanations] == ["It is.", "It is not."], "what failed is absent"
    assert [(e.sample, e.subgoal) for e in batch.explanations] == [
        (PAIRS[k][0].digest, PAIRS[k][1].digest) for k in (0, 2)
    ]
    assert [json.loads(e.answer)["score"] for e in batch.explanations] == [0.8, 0.4]
    assert batch.judgements == () and batch.n_tokens > 0


def test_nothing_to_explain_is_no_error() -> None:
    assert judge(LEANS["0.8"]).explain([]).explanations == ()


def identity_of(change: Mapping[str, Any]) -> str:
    """The digest of a judge that differs from the plain one in this."""
    engine = ScriptedEngine([LEANS["0.8"]], context=change.get("context", 4096))
    if "told" in change:
        engine.describe = lambda: {**ScriptedEngine.describe(engine), **change["told"]}  # type: ignore[method-assign]
    order: Order = change.get("order", "score-first")
    question = load_question("alignment", order=order)
    question = question.without_examples() if "bare" in change else question
    return Judge(engine, question, change.get("decode", "choice")).digest


def test_a_judges_digest_is_stable_and_hears_everything_that_can_change_a_judgement() -> None:
    changes: list[Mapping[str, Any]] = [
        {},
        {"context": 2048},
        {"order": "reason-first"},
        {"decode": "grammar"},
        {"bare": True},
        {"told": {"weights": "another"}},
        {"told": {"precision": "bfloat16"}},
        {"told": {"transformers": "6.0"}},
    ]
    digests = [identity_of(change) for change in changes]
    assert digests == [identity_of(change) for change in changes]
    assert len(set(digests)) == len(changes)


def test_tokens_are_counted_whole_and_shared(tiny_engine: Any) -> None:
    """What a dry run promises is what the engine then takes, but for tokens that merge across borders."""
    asked = Judge(tiny_engine, tiny.QUESTION)
    sent, unique = asked.tokens(tiny.SAMPLES, tiny.SUBGOALS)
    assert sent == sum(tiny_engine.count_tokens(tiny.prompts()))
    tiny_engine.choose([tiny.prompt(tiny.SAMPLES[0], tiny.SUBGOALS[0], None)], ANCHOR_TEXTS)
    taken = asked.judge(PAIRS).n_tokens
    assert unique < sent
    assert taken == pytest.approx(unique, rel=0.15)


def test_the_embedded_judge_opens_as_its_card_says(weights: Weights) -> None:
    card = load_card(DEFAULT_CARD)
    opened = open_judge(card, devices=["cpu"], threads=1)
    try:
        assert opened.identity["weights"] == weights.digest
        assert (opened.identity["card"], opened.order, opened.engine.context) == (
            card.name,
            "score-first",
            card.context,
        )
        assert opened.identity["precision"] == card.precision
    finally:
        opened.engine.close()


def test_a_device_that_is_not_there_is_an_error(weights: Weights) -> None:
    with pytest.raises(EngineError) as caught:
        open_engine(load_card(DEFAULT_CARD), devices=["cuda:7"])
    assert caught.value.mend


def test_probabilities_are_plain_numbers() -> None:
    """Judgements go to a store and to JSON: no arrays in them."""
    (judgement,) = judge(LEANS["0.8"]).judge(PAIRS[:1]).judgements
    assert judgement.probabilities is not None
    assert all(type(p) is float for p in judgement.probabilities)
    assert np.isclose(sum(judgement.probabilities), 1)
