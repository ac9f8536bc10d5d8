"""Grades: the weighted sum that a rubric states of a judge's expectation and checks, and none for a failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trained
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.finetune.checks import KINDS
from goalcover_local.finetune.reward import FIT, Grade, Grader, Response, graded
from goalcover_local.finetune.rubric import Check, Dimension, Rubric, load_rubric, rewards
from goalcover_local.questions import read_lines
from goalcover_local.resources import shipped

REWARDS = rewards()
REFERENCED = [name for name in REWARDS if (shipped("grammars") / name / "reference.jsonl").exists()]
RESPONSE = Response("the knot", "a knot", "a fine knot")
LONG = " ".join(f"word{number}" for number in range(300))


@pytest.fixture
def rubric(tmp_path: Path) -> Rubric:
    """Letters weigh 3, signs 1, and the length, which is checked, 1."""
    return load_rubric(str(trained.write_reward(tmp_path / "own")))


def of(rubric: Rubric, weights: list[float], check_weights: list[float]) -> Rubric:
    """The rubric with these weights, a dimension d0, d1 … or a check c0, c1 … for each."""
    return replace(
        rubric,
        dimensions=tuple(Dimension(f"d{n}", weight, "Well?") for n, weight in enumerate(weights)),
        checks=tuple(Check(f"c{n}", "words", weight, 1) for n, weight in enumerate(check_weights)),
    )


def grade(rubric: Rubric, dimensions: list[float | None], checks: list[float] | None = None) -> Grade:
    return graded(
        rubric,
        {f"d{n}": value for n, value in enumerate(dimensions)},
        {f"c{n}": value for n, value in enumerate(checks or [])},
    )


def cases(name: str) -> list[dict[str, Any]]:
    return read_lines(load_rubric(name).folder / "reference.jsonl")


# The sum


def test_a_score_by_hand(rubric: Rubric) -> None:
    found = graded(rubric, {"letters": 4.0, "signs": 2.0}, {"length": 0.5})
    assert found.judged == pytest.approx(3.5) and found.checked == 0.5
    assert found.score == pytest.approx((3 * 4 + 1 * 2 + 1 * (1 + 4 * 0.5)) / 5)
    assert found.dimensions == {"letters": 4.0, "signs": 2.0} and found.checks == {"length": 0.5}
    assert found.failure is None


def test_without_checks_the_score_is_what_is_judged(rubric: Rubric) -> None:
    found = grade(of(rubric, [2, 6], []), [1.0, 5.0])
    assert found.score == found.judged == pytest.approx(4.0) and found.checked is None


def test_worst_and_best_are_the_scales_ends(rubric: Rubric) -> None:
    some = of(rubric, [0.45, 0.35], [0.1, 0.06, 0.04])
    assert grade(some, [1, 1], [0, 0, 0]).score == pytest.approx(1)
    assert grade(some, [5, 5], [1, 1, 1]).score == pytest.approx(5)


@pytest.mark.parametrize("dimensions", [[None, 5.0], [5.0, None], [None, None]])
def test_what_is_missing_is_no_score_whatever_the_checks_say(rubric: Rubric, dimensions: list[float | None]) -> None:
    found = grade(of(rubric, [1, 1], [100]), dimensions, [1.0])
    assert found.score is None and found.judged is None
    assert found.checked == 1.0, "what a program tells is known all the same"
    assert list(found.dimensions.values()) == dimensions


GRADES = st.floats(1, 5)
SHARES = st.floats(0, 1)
WEIGHTS = st.floats(1e-3, 1e3)


@st.composite
def parts(draw: st.DrawFn) -> tuple[list[float], list[float], list[float], list[float]]:
    """Weights and grades of dimensions, weights and values of checks."""
    n_dimensions, n_checks = draw(st.integers(1, 4)), draw(st.integers(0, 3))

    def some(kind: st.SearchStrategy[float], n: int) -> list[float]:
        return draw(st.lists(kind, min_size=n, max_size=n))

    return some(WEIGHTS, n_dimensions), some(GRADES, n_dimensions), some(WEIGHTS, n_checks), some(SHARES, n_checks)


SOME = load_rubric("lay-summary")


@given(parts())
def test_a_score_is_the_weighted_mean_of_all_parts_on_one_scale(held: Any) -> None:
    weights, told, check_weights, computed = held
    found = grade(of(SOME, weights, check_weights), told, computed)
    whole = np.average([*told, *(1 + 4 * value for value in computed)], weights=[*weights, *check_weights])
    assert found.score == pytest.approx(whole, abs=1e-9)
    assert found.judged == pytest.approx(np.average(told, weights=weights))
    assert found.score is not None and 1 - 1e-9 <= found.score <= 5 + 1e-9
    assert (found.checked is None) == (not computed)
    if computed:
        assert found.checked == pytest.approx(np.average(computed, weights=check_weights), abs=1e-12)


@given(parts(), st.data())
def test_a_better_part_never_makes_a_worse_score(held: Any, data: st.DataObject) -> None:
    weights, told, check_weights, computed = held
    rubric = of(SOME, weights, check_weights)
    before = grade(rubric, told, computed).score
    place = data.draw(st.integers(0, len(told) + len(computed) - 1))
    if place < len(told):
        better = grade(rubric, [*told[:place], data.draw(st.floats(told[place], 5)), *told[place + 1 :]], computed)
    else:
        n = place - len(told)
        better = grade(rubric, told, [*computed[:n], data.draw(st.floats(computed[n], 1)), *computed[n + 1 :]])
    assert before is not None and better.score is not None and better.score >= before - 1e-9


@given(parts(), st.data())
def test_without_one_dimension_there_is_no_score(held: Any, data: st.DataObject) -> None:
    weights, told, check_weights, computed = held
    missing = data.draw(st.integers(0, len(told) - 1))
    some: list[float | None] = [None if n == missing else value for n, value in enumerate(told)]
    found = grade(of(SOME, weights, check_weights), some, computed)
    assert found.score is None and found.judged is None


@given(parts(), st.floats(0.01, 100))
def test_only_the_proportion_of_weights_counts(held: Any, factor: float) -> None:
    weights, told, check_weights, computed = held
    scaled = of(SOME, [w * factor for w in weights], [w * factor for w in check_weights])
    assert grade(scaled, told, computed).score == pytest.approx(
        grade(of(SOME, weights, check_weights), told, computed).score
    )


# The judge


def test_a_grade_is_the_expectation_over_the_five(rubric: Rubric) -> None:
    engine = ScriptedEngine([[0, 0, 0, 1, 3], [2, 0, 0, 0, 2]])
    [found] = Grader(engine, rubric).grade([RESPONSE])
    assert found.dimensions == pytest.approx({"letters": 4.75, "signs": 3.0})
    assert found.checks == {"length": 1.0} and found.judged == pytest.approx((3 * 4.75 + 3.0) / 4)


def test_a_judge_is_asked_for_a_grade_of_each_dimension_in_the_order_that_shares(rubric: Rubric) -> None:
    engine = trained.RuleEngine()
    responses = [replace_text("one"), replace_text("two")]
    Grader(engine, rubric).grade(responses)
    asked = [prompt.messages[-1].content for prompt in engine.history]
    assert [trained.response_in(prompt) for prompt in engine.history] == ["one", "one", "two", "two"]
    assert ["Letters" in text for text in asked] == [True, False, True, False]
    assert {prompt.prefill for prompt in engine.history} == {'{"score": '}
    for text in asked:
        assert text.index("the knot") < text.index("a knot") < text.index("<response>")


def replace_text(text: str) -> Response:
    return RESPONSE._replace(text=text)


def test_grades_come_in_the_order_of_responses(rubric: Rubric) -> None:
    texts = ["abc", "ABC", "aBC", "abC", "a-b", ""]
    grades = Grader(trained.RuleEngine(), rubric).grade([replace_text(text) for text in texts])
    assert [found.judged for found in grades] == pytest.approx([trained.letters(text) for text in texts])
    alone = [Grader(trained.RuleEngine(), rubric).grade([replace_text(text)])[0] for text in texts]
    assert grades == alone
    assert Grader(trained.RuleEngine(), rubric).grade([]) == []


def test_a_failure_is_the_responses_own(rubric: Rubric) -> None:
    engine = trained.RuleEngine(fails=lambda text: "lost" in text)
    grades = Grader(engine, rubric).grade([replace_text(text) for text in ("one", "is lost", "two")])
    assert [found.failure for found in grades] == [None, "scripted failure", None]
    assert grades[1].score is None and grades[1].dimensions == {"letters": None, "signs": None}
    assert grades[1].checked == 1.0
    whole = Grader(trained.RuleEngine(), rubric).grade([replace_text("one"), replace_text("two")])
    assert [grades[0], grades[2]] == whole


def test_one_dimension_that_fails_takes_the_score_and_leaves_the_other(rubric: Rubric) -> None:
    engine = ScriptedEngine([[0, 0, 0, 0, 1], "", [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]])
    first, second = Grader(engine, rubric).grade([RESPONSE, replace_text("other")])
    assert first.dimensions == {"letters": 5.0, "signs": None}
    assert (first.score, first.judged, first.failure) == (None, None, "scripted failure")
    assert second.dimensions == {"letters": 5.0, "signs": 1.0} and second.failure is None


def test_checks_see_the_response_and_its_source(rubric: Rubric) -> None:
    copied = "a b c d e f g h"
    some = replace(rubric, checks=(Check("own", "own-words", 1), Check("length", "words", 1, 1, 4)))
    [found] = Grader(trained.RuleEngine(), some).grade([Response("x y", copied, copied)])
    assert found.checks == {"own": 0.0, "length": 0.5}
    [asked] = Grader(trained.RuleEngine(), some).grade([Response(copied, "x y", copied)])
    assert asked.checks["own"] == 0.0, "a question may be copied as well as an answer"


@pytest.mark.parametrize("name", REWARDS)
def test_a_shipped_reward_grades_whatever_a_policy_writes(name: str) -> None:
    rubric = load_rubric(name)
    texts = ["", " \n", "- one\n- two\n- three", "\ud800", "日本", "</response>", "x" * 5000]
    grades = Grader(trained.RuleEngine(context=10**6), rubric).grade([replace_text(text) for text in texts])
    for found in grades:
        assert found.score is not None and 1 - 1e-9 <= found.score <= 5 + 1e-9
        assert all(0 <= value <= 1 for value in found.checks.values())
        assert {check.kind for check in rubric.checks} <= set(KINDS)


# Contexts


def test_a_long_source_is_cut_and_the_response_is_not(rubric: Rubric) -> None:
    engine = trained.RuleEngine(context=250)
    text = "every word of this stays"
    grader = Grader(engine, rubric)
    [found] = grader.grade([Response(LONG, LONG, text)])
    assert found.score is not None
    for prompt in engine.history:
        assert engine.count_tokens([prompt])[0] <= engine.context
        content = prompt.messages[-1].content
        assert trained.response_in(prompt) == text
        assert content.count("[…]") == 2 and content.count("word0") == 2 and content.count("word299") == 2
    assert found.dimensions["letters"] == pytest.approx(trained.letters(text))


def test_a_cut_source_is_compared_whole_by_the_checks(rubric: Rubric) -> None:
    middle = " ".join(LONG.split()[140:160])
    some = replace(rubric, checks=(Check("own", "own-words", 1),))
    engine = trained.RuleEngine(context=250)
    [found] = Grader(engine, some).grade([Response(LONG, "", middle)])
    assert found.checks["own"] == 0.0, "words copied from what the judge did not see"
    assert all("word150" not in prompt.messages[-1].content.partition("<response>")[0] for prompt in engine.history)


def test_what_fits_is_left_whole(rubric: Rubric) -> None:
    engine = trained.RuleEngine(context=250)
    Grader(engine, rubric).grade([RESPONSE, Response(LONG, LONG, "short")])
    assert "[…]" not in engine.history[0].messages[-1].content
    assert "[…]" in engine.history[-1].messages[-1].content


def test_a_response_that_leaves_no_room_fails_alone(rubric: Rubric) -> None:
    grades = Grader(trained.RuleEngine(context=200), rubric).grade([RESPONSE, Response("x", "y", LONG), RESPONSE])
    assert [grade.score is None for grade in grades] == [False, True, False]
    assert "room" in str(grades[1].failure) and "word" not in str(grades[1].failure)
    assert grades[1].dimensions == {"letters": None, "signs": None} and grades[0] == grades[2]


def test_a_source_is_cut_alike_whatever_stands_beside_it(rubric: Rubric) -> None:
    engine, alone = trained.RuleEngine(context=250), trained.RuleEngine(context=250)
    long = Response(LONG, LONG, "one")
    Grader(engine, rubric).grade([RESPONSE, long, replace_text("two")])
    Grader(alone, rubric).grade([long])
    assert engine.history[2:4] == alone.history


# Fitness


class Told(ScriptedEngine):
    """Grades reference cases as they are graded by us, by way of a function."""

    def __init__(self, folder: Path, change: Any) -> None:
        super().__init__(context=10**6)
        self._change = change
        self._ours = [(each["fields"], each["answer"]["score"]) for each in read_lines(folder / "reference.jsonl")]

    def choose(self, prompts: Any, answers: Any) -> Choices:
        rows = np.full((len(prompts), 5), np.nan)
        for row, prompt in zip(rows, prompts, strict=True):
            told = self._change(self._score(prompt))
            if told is not None:
                row[:] = np.eye(5)[told - 1]
        failures = [None if np.isfinite(row).all() else "scripted failure" for row in rows]
        return Choices(rows, tuple(failures), len(prompts))

    def _score(self, prompt: Prompt) -> int:
        """Our grade of this response to this source in this respect; 3 of another source, or where we gave none."""
        text, response = prompt.messages[-1].content, trained.response_in(prompt)
        ours = (
            int(score)
            for fields, score in self._ours
            if fields["response"].strip() == response and fields["input"] in text and text.endswith(fields["dimension"])
        )
        return next(ours, 3)


@pytest.mark.parametrize(
    ("change", "found"),
    [(lambda score: score, 1.0), (lambda score: 6 - score, -1.0), (lambda _: 3, None), (lambda _: None, None)],
    ids=["perfect", "inverted", "constant", "failing"],
)
@pytest.mark.parametrize("name", REFERENCED)
def test_agreement_with_our_own_cases(name: str, change: Any, found: float | None) -> None:
    rubric = load_rubric(name)
    agreement = Grader(Told(rubric.folder, change), rubric).agreement
    assert np.isnan(agreement) if found is None else agreement == pytest.approx(found)
    assert found != 1.0 or agreement >= FIT


def test_agreement_leaves_failures_out(tmp_path: Path) -> None:
    asks = "Letters: is it written in letters?"
    fields = [{"input": "x", "output": "y", "response": f"response {n}", "dimension": asks} for n in range(6)]
    scores = [1, 5, 2, 4, 3, 3]
    reference = [{"fields": each, "answer": {"score": n}} for each, n in zip(fields, scores, strict=True)]
    rubric = load_rubric(str(trained.write_reward(tmp_path / "own", reference=reference)))
    found = Grader(Told(rubric.folder, lambda score: None if score == 5 else score), rubric)
    assert found.agreement == pytest.approx(1) and list(found.agreements) == ["letters", "signs"]
    assert np.isnan(found.agreements["signs"]), "of which there are no cases"


def test_agreement_is_that_of_the_worst_dimension(tmp_path: Path) -> None:
    asks = {"Letters: is it written in letters?": 1, "Signs: is it written without signs?": -1}
    reference = [
        {"fields": {"input": "x", "output": "y", "response": f"r{n}", "dimension": each}, "answer": {"score": n}}
        for each in asks
        for n in (1, 2, 4, 5)
    ]
    rubric = load_rubric(str(trained.write_reward(tmp_path / "own", reference=reference)))

    class Half(Told):
        def choose(self, prompts: Any, answers: Any) -> Choices:
            found = super().choose(prompts, answers)
            turned = np.array(["Signs" in prompt.messages[-1].content for prompt in prompts])
            rows = np.where(turned[:, None], found.probabilities[:, ::-1], found.probabilities)
            return Choices(rows, found.failures, found.n_tokens)

    found = Grader(Half(rubric.folder, lambda score: score), rubric)
    assert found.agreements == pytest.approx({"letters": 1.0, "signs": -1.0}) and found.agreement == pytest.approx(-1)


def test_a_case_that_names_its_dimension_counts_in_all_that_ask_the_same(tmp_path: Path) -> None:
    asks = "Letters: is it written in letters?"
    twice = f'\n[[dimensions]]\nname = "shown"\nweight = 1\ncontrast = true\nasks = "{asks}"\n'
    reference = [
        {"fields": {"input": "x", "response": response, "dimension": dimension}, "answer": {"score": score}}
        for response, dimension, score in (("abc", "letters", 5), ("ab1", asks, 4), ("123", "shown", 1))
    ]
    folder = trained.write_reward(tmp_path / "own", trained.REWARD + twice, reference=reference)
    (folder / "others.jsonl").write_text('{"input": "a"}\n{"input": "b"}\n', "utf-8")
    rubric = load_rubric(str(folder))
    assert [case.score for case in rubric.cases] == [5, 4, 1] and {case.asks for case in rubric.cases} == {asks}
    found = Grader(trained.RuleEngine(), rubric).agreements
    assert found["letters"] == pytest.approx(1) and np.isnan(found["signs"]), "which nobody graded"


def test_cases_are_those_that_the_reward_was_loaded_with(tmp_path: Path) -> None:
    fields = {"input": "x", "response": "abc", "dimension": "letters"}
    reference = [{"fields": fields, "answer": {"score": 5}}]
    rubric = load_rubric(str(trained.write_reward(tmp_path / "own", reference=reference)))
    (rubric.folder / "reference.jsonl").write_text("no JSON", "utf-8")
    engine = trained.RuleEngine()
    assert np.isnan(Grader(engine, rubric).agreement) and trained.response_in(engine.history[0]) == "abc"


def test_without_cases_there_is_no_agreement(rubric: Rubric) -> None:
    assert np.isnan(Grader(trained.RuleEngine(), rubric).agreement)
    (rubric.folder / "reference.jsonl").unlink()
    assert np.isnan(Grader(trained.RuleEngine(), rubric).agreement)


@pytest.mark.parametrize("name", REFERENCED)
def test_reference_cases_are_of_the_rewards_own_dimensions_and_no_examples(name: str) -> None:
    rubric = load_rubric(name)
    asked = {case["fields"]["dimension"] for case in cases(name)}
    assert asked == {dimension.asks for dimension in rubric.dimensions}
    shown = [example["fields"] for example in rubric.question.examples]
    assert all(case["fields"] not in shown for case in cases(name)), "the judge would have read the answer"
    assert {example["fields"]["dimension"] for example in rubric.question.examples} <= asked
    assert {case["answer"]["score"] for case in cases(name)} >= {1, 5}


# Identity


def test_a_graders_identity_tells_judge_and_reward(rubric: Rubric) -> None:
    told = Grader(trained.RuleEngine(), rubric)
    assert told.identity["weights"] == "none" and told.identity["reward"] == "own"
    same = Grader(trained.RuleEngine(), rubric)
    assert (told.digest, len(told.digest)) == (same.digest, 64)


def test_a_graders_digest_changes_with_the_rubric_and_the_judge(rubric: Rubric) -> None:
    class Other(trained.RuleEngine):
        def describe(self) -> dict[str, str]:
            return {**super().describe(), "weights": "other"}

    before = Grader(trained.RuleEngine(), rubric).digest
    first, *others = rubric.dimensions
    changed = [
        Grader(trained.RuleEngine(), replace(rubric, dimensions=(replace(first, weight=2), *others))),
        Grader(trained.RuleEngine(), replace(rubric, checks=())),
        Grader(trained.RuleEngine(), replace(rubric, question=replace(rubric.question, shared="Grade."))),
        Grader(trained.RuleEngine(context=250), rubric),
        Grader(Other(), rubric),
    ]
    assert len({before, *(each.digest for each in changed)}) == 1 + len(changed)


# Contrast


class _Sources(ScriptedEngine):
    """A judge that grades 5 where the response names the source, 2 where not, and praise always 4."""

    def choose(self, prompts: Any, answers: Any) -> Choices:
        self.history += prompts
        rows = np.zeros((len(prompts), len(answers)))
        for row, prompt in zip(rows, prompts, strict=True):
            text, response = prompt.messages[-1].content, trained.response_in(prompt)
            source = text.partition("<source>\n")[2].partition("\n")[0]
            row[3 if "well told" in response else 4 if source in response else 1] = 1
        return Choices(rows, (None,) * len(prompts), len(prompts))


def with_contrast(rubric: Rubric, *others: tuple[str, str]) -> Rubric:
    """The rubric, its letters by contrast with these sources, its signs shown alone."""
    first, second = rubric.dimensions
    dimensions = (replace(first, contrast=True), replace(second, weight=0.0, asks=first.asks))
    return replace(rubric, dimensions=dimensions, others=others or (("the moon", "a moon"), ("the sea", "a sea")))


def test_a_contrast_counts_what_is_of_its_own_source_alone(rubric: Rubric) -> None:
    grader = Grader(_Sources(), with_contrast(rubric))
    texts = ("the knot it is", "something else", "it is well told")
    own, nothing, praise = grader.grade([RESPONSE._replace(text=text) for text in texts])
    assert own.dimensions == {"letters": 4.5, "signs": 5.0} and own.judged == 4.5
    assert nothing.dimensions == {"letters": 3.0, "signs": 2.0} and nothing.judged == 3
    assert praise.dimensions == {"letters": 3.0, "signs": 4.0}, "praise of oneself fits every source"


def test_a_response_that_fits_another_source_better_gets_less_than_three(rubric: Rubric) -> None:
    others = ("the moon", "a moon"), ("the moon", "no moon")
    (found,) = Grader(_Sources(), with_contrast(rubric, *others)).grade([RESPONSE._replace(text="the moon")])
    assert found.dimensions["letters"] == 1.5 and found.score is not None


def test_a_sample_is_held_against_the_same_other_source_each_time_and_never_itself(rubric: Rubric) -> None:
    held = with_contrast(rubric, ("the knot", "a knot"), ("the sea", "a sea"))
    for text in ("one", "two"):
        engine = _Sources()
        Grader(engine, held).grade([RESPONSE._replace(text=text)])
        sources = [prompt.messages[-1].content.partition("<source>\n")[2].split("\n")[0] for prompt in engine.history]
        assert sources == ["the knot", "the sea"], "one question, asked of its own source and of the other"


def test_a_contrast_with_a_missing_judgement_is_missing(rubric: Rubric) -> None:
    class Half(_Sources):
        def choose(self, prompts: Any, answers: Any) -> Choices:
            found = super().choose(prompts, answers)
            elsewhere = ["the moon" in p.messages[-1].content or "the sea" in p.messages[-1].content for p in prompts]
            rows = np.where(np.array(elsewhere)[:, None], np.nan, found.probabilities)
            return Choices(rows, tuple("no" if away else None for away in elsewhere), len(prompts))

    (found,) = Grader(Half(), with_contrast(rubric)).grade([RESPONSE])
    assert found.dimensions == {"letters": None, "signs": 2.0}
    assert found.score is None and found.judged is None and found.failure == "no"
