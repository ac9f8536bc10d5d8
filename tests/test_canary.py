"""What a judge must prove before it judges, and the trials that say how far it may be trusted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from command import WordsEngine

from goalcover_local import canary, trials
from goalcover_local.canary import THINKING
from goalcover_local.cards import DEFAULT_CARD, load_card
from goalcover_local.engines.base import Choices, Completion, Grammar, Prompt
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.errors import EngineError
from goalcover_local.judges import Judge, open_judge
from goalcover_local.questions import load_question
from goalcover_local.trials import Repetition

LEGAL = {
    "alignment": '{"score": 0.2, "explanation": "Waves."}',
    "prometheus": "It is a poem. [RESULT] 0",
    "prometheus-native": "It is a poem. [RESULT] 1",
}


class Candidate(ScriptedEngine):
    """Says that text, whatever the grammar, and begins its answers with some probability by thinking aloud."""

    def __init__(self, said: str, thinking: Mapping[str, float] | None = None, *, failure: str | None = None) -> None:
        super().__init__([said])
        self.failure = failure
        self.closed = 0
        self._thinking = thinking or {}

    def generate(self, prompts: Sequence[Prompt], grammar: Grammar, **options: Any) -> list[Completion]:
        return [Completion(str(self._next(prompt)), 7, self.failure) for prompt in prompts]

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        self.history += prompts
        ordinary = (1 - sum(self._thinking.values())) / sum(answer not in THINKING for answer in answers)
        row = [self._thinking.get(answer, 0.0) if answer in THINKING else ordinary for answer in answers]
        return Choices(np.array([row] * len(prompts)), (None,) * len(prompts), len(prompts))

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("name", LEGAL)
def test_an_engine_that_behaves_may_judge(name: str) -> None:
    engine = Candidate(LEGAL[name], {THINKING[0]: 0.1})
    question = load_question(name)
    canary.check(engine, question)
    assert canary.binds(engine, question) == 7
    assert canary.answers_at_once(engine, question) == pytest.approx(0.9)


def test_the_grammar_is_tried_against_prose_and_thinking_at_an_answers_very_beginning() -> None:
    engine, question = Candidate(LEGAL["alignment"]), load_question("alignment")
    canary.check(engine, question)
    begging, asking = engine.history
    assert [message.role for message in begging.messages] == ["user"]
    assert "poem" in begging.messages[0].content and not begging.shared
    assert asking.shared == question.prompt(dict.fromkeys(("input", "output", "name", "description"), "")).shared
    assert (begging.prefill, asking.prefill) == ("", "")


BROKEN = [
    "The waves roll in, the waves roll out.",
    "",
    '{"score": 0.2, "explanation": "Waves',
    "It is a poem. [RESULT]",
]


@pytest.mark.parametrize("said", BROKEN)
@pytest.mark.parametrize("name", LEGAL)
def test_prose_where_an_answer_was_asked_for_shows_that_the_grammar_does_not_bind(name: str, said: str) -> None:
    with pytest.raises(EngineError, match="broke out of its grammar") as caught:
        canary.check(Candidate(said), load_question(name))
    assert "--engine transformers" in caught.value.mend
    assert not said or said not in str(caught.value)


@pytest.mark.parametrize("said", ["", LEGAL["alignment"]])
def test_an_engine_that_fails_to_answer_may_not_judge(said: str) -> None:
    with pytest.raises(EngineError, match="broke out of its grammar"):
        canary.check(Candidate(said, failure="the answer left its grammar"), load_question("alignment"))


@pytest.mark.parametrize("thinking", [*({mark: 0.9} for mark in THINKING), dict.fromkeys(THINKING[:2], 0.4)])
@pytest.mark.parametrize("name", LEGAL)
def test_a_judge_that_would_rather_think_aloud_may_not_judge(name: str, thinking: Mapping[str, float]) -> None:
    with pytest.raises(EngineError, match="thinking aloud") as caught:
        canary.check(Candidate(LEGAL[name], thinking), load_question(name))
    assert "enable_thinking = false" in caught.value.mend


def judge_opened(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """The embedded judge as it is opened where its card's weights give that engine."""
    monkeypatch.setattr("goalcover_local.judges.open_engine", lambda *_, **__: engine)
    return open_judge(load_card(DEFAULT_CARD))


def test_a_judge_that_proves_itself_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Candidate(LEGAL["alignment"])
    assert judge_opened(engine, monkeypatch).engine is engine
    assert len(engine.history) == 2 and not engine.closed


@pytest.mark.parametrize(
    ("said", "thinking", "failure"),
    [("Prose.", {}, None), (LEGAL["alignment"], {THINKING[0]: 0.9}, None), ("", {}, "no answer")],
)
def test_an_engine_that_fails_its_canary_is_closed(
    said: str, thinking: Mapping[str, float], failure: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Candidate(said, thinking, failure=failure)
    with pytest.raises(EngineError):
        judge_opened(engine, monkeypatch)
    assert engine.closed == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError("The server went away."), MemoryError])
def test_an_engine_is_closed_whatever_ends_its_canary(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error

    engine = Candidate(LEGAL["alignment"])
    monkeypatch.setattr(engine, "choose", fails)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        judge_opened(engine, monkeypatch)
    assert engine.closed == 1


Answer = Callable[[str, int], Sequence[float] | None]


class Company(ScriptedEngine):
    """Answers by a function of a prompt's text and of how many are asked together; None is a failure."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.sizes: dict[str, list[int]] = {}
        self._answer = answer

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        rows, failures = np.full((len(prompts), len(answers)), np.nan), []
        for row, prompt in zip(rows, prompts, strict=True):
            self.history.append(prompt)
            text = prompt.messages[-1].content
            self.sizes.setdefault(text, []).append(len(prompts))
            weights = self._answer(text, len(prompts))
            failures.append("scripted failure" if weights is None else None)
            if weights is not None:
                row[:] = np.array(weights, dtype=float) / sum(weights)
        return Choices(rows, tuple(failures), len(prompts))

    @property
    def changed_company(self) -> list[str]:
        """The texts that were asked once among many and once among few."""
        return [text for text, (first, second) in self.sizes.items() if among_many(first) != among_many(second)]


def among_many(size: int) -> bool:
    """Whether that is a large batch."""
    return size > 30


def drawn(text: str) -> list[float]:
    """Weights that hang on the text alone."""
    return np.random.default_rng(zlib.crc32(text.encode())).random(6).tolist()


def repeated(answer: Answer, **options: int) -> tuple[Repetition, Company]:
    """What the trial says of an engine that answers so, and the engine."""
    engine = Company(answer)
    return trials.repeated(Judge(engine, load_question("alignment")), **options), engine


@pytest.mark.parametrize("options", [{}, {"seed": 7}, {"n_pairs": 30}, {"n_pairs": 1}])
def test_a_judge_that_says_the_same_whatever_the_company_repeats_itself(options: dict[str, int]) -> None:
    """Each pair is compared with itself, although the second time the order is another."""
    n_pairs = options.get("n_pairs", trials.PAIRS_REPEATED)
    repetition, engine = repeated(lambda text, _: drawn(text), **options)
    assert repetition == Repetition(n_pairs, 0, 0.0, 0)
    assert len(engine.sizes) == n_pairs, "no pair twice in one judging"
    first, second = engine.history[:n_pairs], engine.history[n_pairs:]
    assert sorted(map(repr, first)) == sorted(map(repr, second))
    assert n_pairs == 1 or first != second


def test_scores_that_hang_on_the_company_are_counted() -> None:
    repetition, engine = repeated(lambda _, size: [0, 9, 1, 0, 0, 0] if among_many(size) else [0, 0, 0, 1, 9, 0])
    assert len(engine.changed_company) > 50
    assert repetition == Repetition(100, len(engine.changed_company), pytest.approx(0.78 - 0.22), 0)


@pytest.mark.parametrize("upwards", [True, False])
def test_a_move_that_changes_no_score_is_a_move_all_the_same(upwards: bool) -> None:
    repetition, _ = repeated(lambda _, size: [0, 0, 1, 9, 0, 0] if among_many(size) == upwards else [0, 0, 0, 9, 1, 0])
    assert repetition == Repetition(100, 0, pytest.approx(0.62 - 0.58), 0)


def test_pairs_that_fail_in_either_judging_are_counted_and_left_out_of_the_rest() -> None:
    def answer(text: str, size: int) -> Sequence[float] | None:
        fails = zlib.crc32(text.encode()) % 3
        if (fails == 0 and among_many(size)) or (fails == 1 and not among_many(size)):
            return None
        return [0, 9, 1, 0, 0, 0] if among_many(size) else [0, 0, 0, 1, 9, 0]

    repetition, engine = repeated(answer)
    n_failed = sum(any(answer(text, size) is None for size in sizes) for text, sizes in engine.sizes.items())
    n_changed = sum(zlib.crc32(text.encode()) % 3 == 2 for text in engine.changed_company)
    assert 0 < n_changed < n_failed < 100
    assert repetition == Repetition(100, n_changed, pytest.approx(0.78 - 0.22), n_failed)


@pytest.mark.filterwarnings("error")
def test_a_judge_that_always_fails_is_no_crash() -> None:
    assert repeated(lambda *_: None)[0] == Repetition(100, 0, 0.0, 100)


def test_a_judge_that_compares_words_tells_a_clear_case() -> None:
    engine = WordsEngine()
    fitting, alien = trials.tells_a_clear_case(Judge(engine, load_question("alignment")))
    assert 0 <= alien < fitting <= 1
    texts = [prompt.messages[-1].content for prompt in engine.history]
    assert ["knots" in text.partition("</sample>")[2] for text in texts] == [True, False]


def clear_case(*script: Any) -> tuple[float, float]:
    """What the trial says of a judge that weighs the anchors so."""
    return trials.tells_a_clear_case(Judge(ScriptedEngine(script), load_question("alignment")))


HIGH, LOW = [0, 0, 0, 0, 5, 5], [5, 5, 0, 0, 0, 0]


def test_the_expectations_of_a_clear_case_are_told_in_their_order() -> None:
    assert clear_case(HIGH, LOW) == pytest.approx((0.9, 0.1))
    assert clear_case([0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0]) == pytest.approx((0.5, 0.4)), "a small lead is one"


@pytest.mark.parametrize(
    ("script", "said"), [((LOW, HIGH), "0.10, an alien one 0.90"), ((HIGH,), "0.90, an alien one 0.90")]
)
def test_a_judge_that_confuses_a_clear_case_is_found_out(script: Sequence[Any], said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        clear_case(*script)
    assert "stronger judge" in caught.value.mend


@pytest.mark.parametrize("script", [("", LOW), (HIGH, ""), ("",)])
def test_a_clear_case_that_fails_is_an_error_that_says_why(script: Sequence[Any]) -> None:
    with pytest.raises(EngineError, match="The judge failed: scripted failure"):
        clear_case(*script)
