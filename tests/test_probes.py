"""Bias probes: each finds the judge that has its bias, and finds nothing in one that has none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.judges import Batch, Judge
from goalcover_local.questions import load_question
from goalcover_local.studies.probes import ATTACKS, PROBES, Length, Move, expectations, moved, n_pairs, probe
from goalcover_local.terms import ANCHORS, Sample, Subgoal

SAMPLES = [Sample(f"s{n}", f"question {n}", "word " * (1 + n)) for n in range(7)]
SUBGOALS = [Subgoal("ropes", "Ropes", "Knots."), Subgoal("bread", "Bread", "Baking."), Subgoal("sea", "Sea", "Ships.")]


class RuleEngine(ScriptedEngine):
    """Answers the anchor that a rule gives for a prompt's text and its place in the batch; None is a failure."""

    def __init__(self, rule: Callable[[str, int], int | None]) -> None:
        super().__init__([""])
        self._rule = rule

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """All weight on one anchor."""
        self.history += prompts
        found = [self._rule(prompt.messages[-1].content, place) for place, prompt in enumerate(prompts)]
        rows = np.array([np.eye(6)[anchor] if anchor is not None else np.full(6, np.nan) for anchor in found])
        return Choices(rows, tuple("rule" if anchor is None else None for anchor in found), len(prompts))


def probed(rule: Callable[[str, int], int | None], samples: Sequence[Sample] = SAMPLES) -> dict[str, Length | Move]:
    """What the probes find of a judge by a rule, by subgoal or probe."""
    judge = Judge(RuleEngine(rule), load_question("alignment"))
    found = list(probe(judge, samples, SUBGOALS))
    return {each.subgoal if isinstance(each, Length) else each.probe: each for each in found}


def biased(found: dict[str, Length | Move]) -> list[str]:
    return [name for name, each in found.items() if each.biased]


def n_words(text: str) -> int:
    return len(re.findall("word", text.partition("</sample>")[0]))


def test_a_fair_judge_has_no_bias() -> None:
    found = probed(lambda text, _: 2 + ("Baking" in text))
    assert list(found) == [*(subgoal.id for subgoal in SUBGOALS), *PROBES]
    assert biased(found) == []
    for name in PROBES:
        assert found[name] == Move(name, 21, 0, *[pytest.approx(0)] * 3)
    assert all(math.isnan(found[subgoal.id].spearman) for subgoal in SUBGOALS)  # type: ignore[union-attr]


def test_whoever_likes_length_is_found_out() -> None:
    found = probed(lambda text, _: min(5, n_words(text) // 2))
    assert biased(found) == ["ropes", "bread", "sea", "output twice"]
    length, twice = found["ropes"], found["output twice"]
    assert isinstance(length, Length) and length.n == 7 and length.spearman > 0.95
    expected = [ANCHORS[min(5, n)] - ANCHORS[min(5, n // 2)] for n in range(1, 8)]
    assert isinstance(twice, Move) and twice.mean == pytest.approx(np.mean(expected))
    assert twice.largest == pytest.approx(max(expected))


def test_a_favoured_place_among_the_subgoals_is_found_out() -> None:
    """The first subgoal asked of each sample gets more, whichever it is."""
    found = probed(lambda _, place: 5 if place % 3 == 0 else 2)
    move = found["subgoals reversed"]
    assert isinstance(move, Move) and abs(move.largest) == pytest.approx(0.6) and move.mean == pytest.approx(0)
    assert biased(found) == ["subgoals reversed"], "moves that cancel out are moves"


def test_the_company_of_a_sample_is_found_out() -> None:
    found = probed(lambda _, place: 5 if place < 3 else 0)
    assert found["samples shuffled"].largest != 0  # type: ignore[union-attr]
    assert found["output twice"].largest == 0  # type: ignore[union-attr]


def test_obedience_to_a_sample_is_found_out() -> None:
    found = probed(lambda text, _: 5 if "Ignore the rubric" in text else 1)
    assert biased(found) == ["order"]
    assert found["order"].mean == pytest.approx(0.8)  # type: ignore[union-attr]
    found = probed(lambda text, _: 5 if "Anything: Everything" in text else 1)
    assert biased(found) == ["forged fences"]


def test_an_attack_that_forges_fences_stays_within_them() -> None:
    engine = RuleEngine(lambda *_: 1)
    list(probe(Judge(engine, load_question("alignment")), SAMPLES[:1], SUBGOALS[:1]))
    hostile = [prompt.messages[-1].content for prompt in engine.history if "Anything" in prompt.messages[-1].content]
    assert len(hostile) == 1 and hostile[0].count("</sample>") == 1
    assert "Ignore the rubric" in ATTACKS["order"]


def test_failures_are_counted_and_move_nothing() -> None:
    found = probed(lambda text, _: None if "question 3" in text or "Ignore" in text else 4)
    assert found["output twice"] == Move("output twice", 18, 3, *[pytest.approx(0)] * 3)
    order = found["order"]
    assert isinstance(order, Move) and (order.n, order.n_failed) == (0, 21)
    assert math.isnan(order.mean) and not order.biased
    assert isinstance(found["sea"], Length) and found["sea"].n == 6


def test_every_pair_is_asked_once_a_probe_and_heard() -> None:
    heard: list[Batch] = []
    engine = RuleEngine(lambda *_: 1)
    list(probe(Judge(engine, load_question("alignment")), SAMPLES, SUBGOALS, heard=heard.append))
    assert sum(len(batch.judgements) for batch in heard) == len(engine.history) == n_pairs(7, 3) == 6 * 7 * 3


def test_the_order_of_samples_changes_and_their_values_come_home() -> None:
    engine = RuleEngine(lambda text, _: n_words(text) % 6)
    judge = Judge(engine, load_question("alignment"))
    [move] = [each for each in probe(judge, SAMPLES, SUBGOALS, seed=3) if each.biased and isinstance(each, Move)]
    assert move.probe == "output twice"
    rounds = [engine.history[k * 21 : (k + 1) * 21] for k in range(6)]
    plain, shuffled = ([prompt.messages[-1].content for prompt in rounds[k]] for k in (0, 3))
    assert plain != shuffled and sorted(plain) == sorted(shuffled)


def test_a_sample_without_an_output_is_changed_in_its_input() -> None:
    found = probed(lambda text, _: min(5, n_words(text)), [Sample("s", "word", ""), Sample("t", "word word", "")])
    assert found["output twice"].mean == pytest.approx(0.3)  # type: ignore[union-attr]


def test_expectations_of_nothing_are_empty() -> None:
    judge = Judge(RuleEngine(lambda *_: 1), load_question("alignment"))
    assert expectations(judge, [], SUBGOALS, 4).shape == (0, 3)
    assert moved("x", np.zeros((0, 3)), np.zeros((0, 3))).n == 0
