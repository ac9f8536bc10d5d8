"""What every engine promises, whoever it is: one suite over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny
from serving import needs_vllm, served

from goalcover_local.engines import loading, opening
from goalcover_local.engines.base import Engine, Grammar, Message, Prompt
from goalcover_local.engines.guide import legal
from goalcover_local.engines.pool import Pool
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.engines.vllm_settings import NO_CHATS
from goalcover_local.errors import EngineError
from goalcover_local.terms import ANCHOR_TEXTS
from goalcover_local.weights import Weights

CONTEXT = 600
SHORT = tiny.prompts()[:3]
LONG = tiny.prompt(tiny.Sample("long", "word " * 2 * CONTEXT, ""), tiny.SUBGOALS[0])
OPEN = [tiny.prompt(sample, tiny.SUBGOALS[0], asking=None) for sample in tiny.SAMPLES]
GRAMMAR = tiny.QUESTION.grammar()
SAID = '{"score": 0.8, "explanation": "so it is"}'
WEIGHTS = [3.0, 1, 1, 2, 10, 5]
FREE = r"[^\n]*\}"


@dataclass
class Subject:
    """An engine under contract; the scripted one needs a script for each verb."""

    chooser: Engine
    writer: Engine

    @cached_property
    def least(self) -> int:
        """The smallest budget in which an answer can be completed."""
        for budget in range(1, 60):
            try:
                if self.writer.generate(OPEN[:1], GRAMMAR, max_tokens=budget)[0].failure is None:
                    return budget
            except EngineError:
                continue
        raise AssertionError("no answer fits into 60 tokens")


@pytest.fixture(scope="module")
def server(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a `vllm serve` of the embedded judge in float32, with a context of 600 tokens."""
    log = tmp_path_factory.mktemp("served") / "log"
    with served(weights.directory, log, context=600, precision="float32") as url:
        yield url


@pytest.fixture(scope="module", params=["scripted", "tiny", "transformers", "pool", "vllm", "server"])
def subject(request: pytest.FixtureRequest, tiny_weights: Path) -> Iterator[Subject]:
    if request.param == "scripted":
        yield Subject(ScriptedEngine([WEIGHTS], context=CONTEXT), ScriptedEngine([SAID], context=CONTEXT))
        return
    from transformers import AutoTokenizer

    from goalcover_local.engines.tokens import PromptTokenizer
    from goalcover_local.engines.transformers_engine import TransformersEngine

    engine: Engine
    if request.param == "tiny":
        engine = TransformersEngine.load(tiny_weights, context=CONTEXT, precision="float32", threads=1)
    elif request.param == "transformers":
        directory = request.getfixturevalue("weights").directory
        prompts = PromptTokenizer(AutoTokenizer.from_pretrained(directory))
        engine = TransformersEngine(request.getfixturevalue("engine").model, prompts, context=CONTEXT)
    else:
        directory = request.getfixturevalue("weights").directory
        options = {"directory": directory, "context": CONTEXT, "precision": "float32", "threads": 1}
        if request.param == "pool":
            engine = Pool("transformers", ["cpu", "cpu"], options)
        elif request.param == "vllm":
            needs_vllm()
            engine = loading.load("vllm", device="cpu", **options)
        else:
            url = request.getfixturevalue("server")
            engine = opening.open_engine("server", url=url, settings={}, directory=directory, context=CONTEXT)
    yield Subject(engine, engine)
    engine.close()


def test_a_server_renders_no_conversation(server: str) -> None:
    """The model's chat template is a stranger's program, and vLLM would not bound it."""
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    answer = httpx.post(f"{server}/v1/chat/completions", json=asked, timeout=60)
    assert answer.status_code >= 400 and NO_CHATS in answer.text


def chosen(engine: Engine, prompts: list[Prompt]) -> np.ndarray:
    """The probabilities of prompts that do not fail."""
    choices = engine.choose(prompts, ANCHOR_TEXTS)
    assert choices.failures == (None,) * len(prompts)
    return choices.probabilities


def same(subject: Subject, first: np.ndarray, second: np.ndarray) -> None:
    """Nothing; fails unless they are the same bits. A server's requests share steps as they happen to arrive: there,
    unless they are the same but for rounding."""
    if subject.chooser.describe()["engine"] == "server":
        np.testing.assert_allclose(first, second, atol=1e-5)
    else:
        assert np.array_equal(first, second)


def test_probabilities_have_a_row_for_each_prompt_and_sum_to_1(subject: Subject) -> None:
    found = chosen(subject.chooser, SHORT)
    assert found.shape == (len(SHORT), len(ANCHOR_TEXTS))
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)


def test_the_same_call_gives_the_same_bits(subject: Subject) -> None:
    same(subject, chosen(subject.chooser, SHORT), chosen(subject.chooser, SHORT))
    first, second = (subject.writer.generate(OPEN[:2], Grammar(FREE), max_tokens=6) for _ in range(2))
    assert first == second and not first[0].failure


def test_neither_order_nor_company_changes_a_probability(subject: Subject) -> None:
    whole = chosen(subject.chooser, SHORT)
    alone = np.concatenate([chosen(subject.chooser, [prompt]) for prompt in SHORT])
    backwards = chosen(subject.chooser, SHORT[::-1])[::-1]
    unshared = chosen(subject.chooser, [Prompt(prompt.messages, prompt.prefill) for prompt in SHORT])
    for other in (alone, backwards, unshared):
        np.testing.assert_allclose(other, whole, atol=1e-4)


def test_the_order_of_answers_is_that_of_the_columns(subject: Subject) -> None:
    if isinstance(subject.chooser, ScriptedEngine):  # a script does not look at the answers: its columns are as written
        np.testing.assert_allclose(chosen(subject.chooser, SHORT), np.array([WEIGHTS] * 3) / sum(WEIGHTS))
        return
    backwards = subject.chooser.choose(SHORT, ANCHOR_TEXTS[::-1]).probabilities[:, ::-1]
    np.testing.assert_allclose(backwards, chosen(subject.chooser, SHORT), atol=1e-4)


def test_a_prompt_over_the_context_fails_alone_and_says_why(subject: Subject) -> None:
    choices = subject.chooser.choose([SHORT[0], LONG, SHORT[1]], ANCHOR_TEXTS)
    assert [bool(failure) for failure in choices.failures] == [False, True, False]
    assert np.isnan(choices.probabilities[1]).all()
    np.testing.assert_allclose(choices.probabilities[[0, 2]], chosen(subject.chooser, SHORT[:2]), atol=1e-4)
    long = Prompt(LONG.messages)
    completions = subject.writer.generate([OPEN[0], long], GRAMMAR, max_tokens=20)
    assert [bool(completion.failure) for completion in completions] == [False, True]
    assert (completions[1].text, completions[0].text == "") == ("", False)


def test_only_failures_is_no_error(subject: Subject) -> None:
    choices = subject.chooser.choose([LONG, LONG], ANCHOR_TEXTS)
    assert all(choices.failures) and choices.probabilities.shape == (2, 6)
    assert np.isnan(choices.probabilities).all()


def test_an_empty_batch_gets_an_empty_answer(subject: Subject) -> None:
    choices = subject.chooser.choose([], ANCHOR_TEXTS)
    assert (choices.probabilities.shape, choices.failures, choices.n_tokens) == ((0, 6), (), 0)
    assert subject.writer.generate([], GRAMMAR, max_tokens=40) == []
    assert subject.chooser.count_tokens([]) == []


@pytest.mark.parametrize("more", [0, 5])
def test_answers_are_legal_and_within_even_a_tight_budget(subject: Subject, more: int) -> None:
    budget = subject.least + more
    completions = subject.writer.generate(OPEN[:2], GRAMMAR, max_tokens=budget)
    assert len(completions) == 2
    for completion in completions:
        assert completion.failure is None
        assert legal(completion.text, GRAMMAR), completion.text
        assert 0 < completion.n_tokens <= budget


def test_a_budget_that_no_answer_fits_is_an_error_and_leaves_the_engine_well(subject: Subject) -> None:
    before = chosen(subject.chooser, SHORT)
    with pytest.raises(EngineError, match="No answer fits"):
        subject.writer.generate(OPEN, GRAMMAR, max_tokens=0)
    same(subject, chosen(subject.chooser, SHORT), before)


@pytest.mark.parametrize("text", ["word " * 900, "naïve 日本 😀 " * 200, "x" * 3000, " \n" * 1500 + "end"])
def test_a_long_text_is_cut_to_its_budget_with_a_mark(subject: Subject, text: str) -> None:
    def tokens(of: str) -> int:
        with_it, without = subject.chooser.count_tokens([Prompt((Message("user", t),)) for t in (of, "")])
        return with_it - without

    cut, n_left_out = subject.chooser.shorten(text, 50)
    if tokens(text) <= 50:
        assert (cut, n_left_out) == (text, 0)
    else:
        assert tokens(cut) <= 50 and n_left_out > 0 and "[…" in cut


def test_a_text_within_its_budget_stays_as_it_is(subject: Subject) -> None:
    assert subject.chooser.shorten("A few words.", 50) == ("A few words.", 0)


def test_it_tells_what_it_is(subject: Subject) -> None:
    told = subject.chooser.describe()
    assert {"engine", "precision", "device"} <= set(told)
    assert all(isinstance(value, str) for value in told.values())
    assert subject.chooser.describe() == told
    assert subject.chooser.context == CONTEXT


def test_a_grammar_of_another_question_binds_too(subject: Subject) -> None:
    if isinstance(subject.writer, ScriptedEngine):
        completion = ScriptedEngine(["maybe"]).generate(OPEN[:1], Grammar("(yes|no)"), max_tokens=4)[0]
        assert completion.failure
    else:
        completion = subject.writer.generate(OPEN[:1], Grammar("(yes|no)"), max_tokens=4)[0]
        assert completion.text in ("yes", "no")


def test_every_row_draws_for_itself(subject: Subject) -> None:
    drawn = subject.writer.generate([OPEN[0]] * 2, Grammar(FREE), max_tokens=6, temperature=2.0, seed=1)
    if not isinstance(subject.writer, ScriptedEngine):
        assert drawn[0].text != drawn[1].text
    assert drawn == subject.writer.generate([OPEN[0]] * 2, Grammar(FREE), max_tokens=6, temperature=2.0, seed=1)


def test_closing_twice_is_closing_once(subject: Subject) -> None:
    """The last test of each engine: it is closed here, and once more when the fixture ends."""
    if isinstance(subject.chooser, Pool):
        subject.chooser._workers[1][0].kill()
        with pytest.raises(EngineError, match="device 2 has ended"):
            subject.chooser.choose(SHORT, ANCHOR_TEXTS)
    subject.chooser.close()
    subject.chooser.close()
