"""What policies write and how it is graded is remembered: killed anywhere, it comes to the same, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from trained import RuleEngine, grader, policy, write_reward

from goalcover_local.errors import EngineError
from goalcover_local.finetune import responding
from goalcover_local.finetune.policy import Policy, Written
from goalcover_local.finetune.responding import Plan, due, grade, grades, latest, n_ungraded, plan, write
from goalcover_local.finetune.reward import Response
from goalcover_local.finetune.rubric import Rubric, load_rubric
from goalcover_local.store import Run
from goalcover_local.terms import Sample

SAMPLES = tuple(Sample(name, f"the {name}", f"a {name}") for name in ("knot", "loaf", "wheel", "lamp", "river"))
AGAIN = Sample("again", "the knot", "a knot")
BATCH = 2


@pytest.fixture(scope="module")
def rubric(tmp_path_factory: pytest.TempPathFactory) -> Rubric:
    return load_rubric(str(write_reward(tmp_path_factory.mktemp("rewards") / "letters")))


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Policy:
    return policy(tiny_weights)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responding, "AT_ONCE", {"cpu": BATCH})
    monkeypatch.setattr(responding, "SAMPLES_PER_BATCH", {"cpu": BATCH})


@pytest.fixture
def asked(model: Policy, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every batch that the policy was given."""
    batches: list[list[str]] = []
    respond = Policy.respond

    def noted(self: Policy, texts: Sequence[str], **options: Any) -> list[Written]:
        batches.append(list(texts))
        return respond(self, texts, **options)

    monkeypatch.setattr(Policy, "respond", noted)
    return batches


def planned(model: Policy, rubric: Rubric, samples: Sequence[Sample] = SAMPLES, **options: Any) -> Plan:
    return plan(model, rubric, samples, max_tokens=8, **options)


def all_written(model: Policy, made: Plan, memory: dict[str, Any]) -> list[Written]:
    assert sum(write(model, made, memory)) == made.n_missing({})
    return made.written(memory)


# What is written


def test_batches_are_those_of_the_plan_and_nothing_is_written_twice(
    model: Policy, rubric: Rubric, asked: list[list[str]]
) -> None:
    made, memory = planned(model, rubric), dict[str, Any]()
    assert made.n_missing(memory) == 5
    assert list(write(model, made, memory)) == [2, 2, 1]
    prompts = [rubric.prompt(sample.input, sample.output) for sample in SAMPLES]
    assert asked == [prompts[:2], prompts[2:4], prompts[4:]]
    assert made.n_missing(memory) == 0 and list(write(model, made, memory)) == []
    found = made.written(memory)
    assert [each.n_tokens <= 8 for each in found] == [True] * 5 and len({each.text for each in found}) > 1
    assert found[:2] == model.respond(prompts[:2], max_tokens=8)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_killed_after_any_batch_it_comes_to_the_same(model: Policy, rubric: Rubric, temperature: float) -> None:
    made = planned(model, rubric, temperature=temperature, seed=3)
    unbroken = all_written(model, made, {})
    for kill in (0, 1, 2):
        memory: dict[str, Any] = {}
        batches = write(model, made, memory)
        for _ in range(kill):
            next(batches)
        stored = json.loads(json.dumps(memory))
        list(write(model, made, stored))
        assert made.written(stored) == unbroken


def test_what_was_written_is_still_there_in_another_process(model: Policy, rubric: Rubric, tmp_path: Path) -> None:
    made = planned(model, rubric)
    with Run.open(tmp_path / "run", write=True, create=True) as run:
        memory = run.memory()
        for _, _ in zip(range(2), write(model, made, memory), strict=False):
            memory.keep()
    with Run.open(tmp_path / "run", write=False) as run:
        held = run.memory()
    assert made.n_missing(held) == 1 and set(held) == set(made.keys[: 2 * BATCH])
    assert [held[key] for key in held] == [memory[key] for key in held]


def test_a_batch_of_which_one_is_missing_is_written_whole_and_the_others_stay(
    model: Policy, rubric: Rubric, asked: list[list[str]]
) -> None:
    made, memory = planned(model, rubric, temperature=1.0), dict[str, Any]()
    unbroken = all_written(model, made, memory)
    del memory[made.keys[0]]
    memory[made.keys[1]] = {"text": "as it was", "n_tokens": 3, "finished": True}
    asked.clear()
    assert made.n_missing(memory) == BATCH and list(write(model, made, memory)) == [BATCH]
    assert len(asked) == 1 and len(asked[0]) == BATCH
    assert made.written(memory)[0] == unbroken[0]
    assert made.written(memory)[1] == Written("as it was", 3, True)


def test_equal_samples_are_written_about_once_unless_drawn(
    model: Policy, rubric: Rubric, asked: list[list[str]]
) -> None:
    twice = (*SAMPLES[:1], AGAIN)
    made = planned(model, rubric, twice)
    first, second = all_written(model, made, {})
    assert first == second and [len(batch) for batch in asked] == [1]
    drawn = planned(model, rubric, (*SAMPLES, AGAIN), temperature=1.5)
    assert len(set(drawn.keys)) == 6
    found = all_written(model, drawn, {})
    assert found[0] != found[-1], "a draw of its own"


def test_batches_are_drawn_apart(model: Policy, rubric: Rubric) -> None:
    same = tuple(Sample(str(n), "the knot", "a knot") for n in range(4))
    found = all_written(model, planned(model, rubric, same, temperature=1.5), {})
    assert found[0] != found[2] and found[1] != found[3], "the second batch is no copy of the first"


def test_what_decides_a_response_is_in_its_key(model: Policy, rubric: Rubric, tiny_weights: Path) -> None:
    keys = [
        planned(model, rubric).keys[0],
        planned(model, rubric, temperature=1.0).keys[0],
        planned(model, rubric, temperature=1.0, seed=1).keys[0],
        plan(model, rubric, SAMPLES, max_tokens=9).keys[0],
        planned(Policy(model.model, model.prompts, card=model.card, weights="other"), rubric).keys[0],
        planned(Policy(model.model, model.prompts, card=model.card, weights="tiny", adapter="a"), rubric).keys[0],
    ]
    assert len(set(keys)) == len(keys)
    assert planned(policy(tiny_weights), rubric).keys == planned(model, rubric).keys


def test_what_does_not_fit_is_told_before_anything_is_written(model: Policy, rubric: Rubric) -> None:
    long = Sample("long", "Zwiebelkuchen " * 400, "a cake")
    with pytest.raises(EngineError, match="exceed the context of 600 of tiny-policy") as refused:
        planned(model, rubric, [*SAMPLES, long])
    assert "Zwiebelkuchen" not in str(refused.value)


# How it is graded


def responses(*texts: str) -> list[Response]:
    return [Response(sample.input, sample.output, text) for sample, text in zip(SAMPLES, texts, strict=False)]


def test_grades_are_the_graders_and_asked_for_once(tmp_path: Path) -> None:
    judge = grader(tmp_path / "letters")
    given = responses("abc", "a1", "123", "x y", "abc")
    memory: dict[str, Any] = {}
    assert n_ungraded(judge, given, memory) == 5
    assert list(grade(judge, given, memory)) == [(2, 0), (2, 0), (1, 0)]
    found = grades(judge, given, json.loads(json.dumps(memory)))
    assert found == grader(tmp_path / "letters").grade(given)
    assert found[0].score == pytest.approx(5.0) and found[2].judged == pytest.approx(1.0)
    assert list(grade(judge, given, memory)) == [] and len(judge.seen) == 3


def test_equal_responses_to_equal_samples_are_graded_once(tmp_path: Path) -> None:
    judge = grader(tmp_path / "letters")
    given = [*responses("abc"), *responses("abc"), *responses("abd"), Response("the loaf", "a loaf", "abc")]
    memory: dict[str, Any] = {}
    list(grade(judge, given, memory))
    assert sum(len(asked) for asked, _ in judge.seen) == 3
    assert grades(judge, given, memory)[0] == grades(judge, given, memory)[1]


def test_a_failed_grade_is_missing_and_asked_again_only_if_told(tmp_path: Path) -> None:
    engine = RuleEngine(fails=lambda response: "bad" in response)
    judge = grader(tmp_path / "letters", engine)
    given = responses("good", "bad", "fine")
    memory: dict[str, Any] = {}
    assert list(grade(judge, given, memory)) == [(2, 1), (1, 0)]
    first = grades(judge, given, memory)
    assert [each.score is None for each in first] == [False, True, False]
    assert first[1].judged is None and first[1].failure == "scripted failure"
    assert first[1].checked == 1.0, "what a program computes is there still"
    assert n_ungraded(judge, given, memory) == 0

    before = dict(memory)
    assert list(grade(judge, given, memory, retry_failed=True)) == [(1, 1)], "it fails again"
    engine.fails = lambda _: False
    assert list(grade(judge, given, memory, retry_failed=True)) == [(1, 0)]
    assert {key: memory[key] for key in before} == before, "what was remembered is never replaced"
    found = grades(judge, given, memory)
    assert found[1].score is not None and found[1].failure is None
    assert (found[0], found[2]) == (first[0], first[2])
    assert n_ungraded(judge, given, memory, retry_failed=True) == 0


def test_a_grade_asked_again_is_still_there_in_another_process(tmp_path: Path) -> None:
    engine = RuleEngine(fails=lambda response: "bad" in response)
    judge, given = grader(tmp_path / "letters", engine), responses("good", "bad")
    with Run.open(tmp_path / "run", write=True, create=True) as run:
        memory = run.memory()
        list(grade(judge, given, memory))
        memory.keep()
    engine.fails = lambda _: False
    with Run.open(tmp_path / "run", write=True) as run:
        memory = run.memory()
        assert list(grade(judge, given, memory, retry_failed=True)) == [(1, 0)]
        memory.keep()
    with Run.open(tmp_path / "run", write=False) as run:
        assert all(each.score is not None for each in grades(judge, given, run.memory()))


def test_checks_are_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, given = grader(tmp_path / "letters"), responses("abc")
    memory: dict[str, Any] = {}
    list(grade(judge, given, memory))
    [before] = grades(judge, given, memory)
    monkeypatch.setattr("goalcover_local.finetune.reward.check", lambda *_, **__: 0.25)
    [after] = grades(judge, given, memory)
    assert (before.checked, after.checked) == (1.0, 0.25)
    assert after.judged == before.judged and len(judge.seen) == 1


def test_another_reward_or_judge_grades_by_itself(tmp_path: Path) -> None:
    judge, given = grader(tmp_path / "letters"), responses("abc")
    memory: dict[str, Any] = {}
    list(grade(judge, given, memory))
    rewards = (tmp_path / "letters" / "reward.toml").read_text("utf-8")
    write_reward(tmp_path / "others", rewards.replace("weight = 3", "weight = 2"))
    assert n_ungraded(grader(tmp_path / "others"), given, memory) == 1
    assert n_ungraded(grader(tmp_path / "letters", RuleEngine(context=999)), given, memory) == 1


def test_attempts_stand_in_their_order() -> None:
    memory: dict[str, Any] = {}
    assert due("key", memory) == "key" and latest("key", memory) == "key"
    memory["key"] = {"failure": "once"}
    assert due("key", memory) is None
    second = due("key", memory, retry_failed=True)
    assert second not in (None, "key")
    memory[str(second)] = {"failure": None}
    assert latest("key", memory) == second and due("key", memory, retry_failed=True) is None
