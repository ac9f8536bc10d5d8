"""Studies of fine-tuning: their files, how data are divided, what grades come to, and how it is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.cards import load_card
from goalcover_local.cli.mix import _FILES
from goalcover_local.errors import DataError, GoalError
from goalcover_local.finetune import evaluate
from goalcover_local.finetune.rubric import load_rubric
from goalcover_local.goal_files.reading import find_goal, read_goal
from goalcover_local.report import downstream as report
from goalcover_local.studies.downstream import DATASETS, ROWS, Data, divide, find_study, read_study
from goalcover_local.studies.outcome import Grades, Outcome, cautions, differences, outcome, told_apart
from goalcover_local.terms import Sample

STUDY = """\
title = "Reports"
goal = "financial"
reward = "financial-summary"
policy = "qwen3-14b"
judge = "prometheus-7b-v2.0"
alignment_judge = "smollm2-135m-instruct"

[data]
train = 8
test = 4
"""


def written(folder: Path, text: str = STUDY) -> Path:
    path = folder / "study.toml"
    path.write_text(text, "utf-8")
    return path


def sample(number: int, group: object = None, n_words: int = 4) -> Sample:
    text = " ".join([f"w{number}", *["word"] * (n_words - 2)])
    raw = json.dumps({"q": text, "a": "yes", "group": group}).encode()
    return Sample(f"s{number}", text, "yes", "rows.jsonl", number, raw)


# Files


@pytest.mark.parametrize("name", ["lay", "financial"])
def test_the_studies_that_ship_name_what_ships(name: str) -> None:
    study = read_study(find_study(name))
    assert (study.name, study.ships) == (name, True)
    assert read_goal(find_goal(study.goal)).subgoals and load_rubric(study.reward).dimensions
    for card in (*study.cards, *study.policies):
        assert load_card(card)
    assert "policy" in load_card(study.policy).roles


def test_the_financial_study_is_the_papers() -> None:
    study = read_study(find_study("financial"))
    assert study.data.sizes == {"train": 9216, "validation": 256, "test": 256}
    assert (study.policy, study.reward, study.goal) == ("qwen3-14b", "financial-summary", "financial")
    assert set(study.policies) == {"llama-3.1-8b-instruct", "gemma-2-9b-it", "gpt-oss-20b"}
    assert study.data.max_prompt_tokens + study.training["max_tokens"] == 8192
    for name in (study.policy, *study.policies):
        assert load_card(name).context >= 8192


def test_a_study_of_ones_own_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(find_goal("medical").read_text("utf-8"), "utf-8")
    study = read_study(written(tmp_path, STUDY.replace('"financial"', '"own.toml"')))
    assert study.goal == str(tmp_path / "own.toml") and not study.ships
    assert study.judges == ("prometheus-7b-v2.0",) and study.seeds == (0,) and study.training == {}
    assert [study.training_name("original", seed) for seed in study.seeds] == ["original"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("title", "titel", "unknown key"),
        ("train = 8", 'train = "8"', "data.train"),
        ("train = 8", "train = 1", "2 or more"),
        ("train = 8", "train = 8\nleast_words = 9\nmost_words = 8", "most_words is below"),
        ("train = 8", "train = 8\nseed = -1", "below 0"),
        ("[data]", "seeds = []\n[data]", "seeds are different"),
        ("[data]", "seeds = [1, 1]\n[data]", "seeds are different"),
        ("[data]", "[training]\nsteps = 2\nseed = 1\n[data]", "seeds = [0]"),
        ("[data]", "[training]\nrewards = 2\n[data]", "unknown key"),
        ("[data]", "[training]\nresponses_at_once = 3\n[data]", "must divide"),
        ("[data]", "[filter]\nkeep = 'some'\n[data]", "study.toml"),
        ("[data]", "[synthetic]\nper_gap = -1\n[data]", "per_gap"),
        ('"financial"', '"nowhere"', "nowhere"),
        ('"financial-summary"', '"nothing"', "There is no reward 'nothing'"),
        ('"Reports"', '"two\\nlines"', "one line"),
        ("[data]", "[data", "not valid TOML"),
    ],
)
def test_what_is_amiss_is_named_with_its_place(tmp_path: Path, before: str, after: str, words: str) -> None:
    with pytest.raises(GoalError) as refused:
        read_study(written(tmp_path, STUDY.replace(before, after, 1)))
    assert words in str(refused.value) and "study.toml" in str(refused.value) and refused.value.mend


def test_responses_at_once_need_not_be_stated_to_fit(tmp_path: Path) -> None:
    text = STUDY.replace("[data]", "[training]\nprompts_per_step = 1\nresponses_per_prompt = 6\n[data]")
    assert read_study(written(tmp_path, text)).training == {"prompts_per_step": 1, "responses_per_prompt": 6}


def test_an_unknown_study_is_refused_with_those_there_are() -> None:
    with pytest.raises(GoalError, match="named 'finance'") as refused:
        find_study("finance")
    assert "financial" in refused.value.mend
    with pytest.raises(GoalError) as refused:
        find_study("xyz")
    assert "financial, lay" in refused.value.mend


def test_rows_are_called_as_mix_calls_its_files() -> None:
    assert DATASETS == _FILES and list(ROWS) == ["base", *DATASETS]


# Division


@given(
    groups=st.lists(st.integers(0, 12), max_size=60),
    sizes=st.tuples(*[st.integers(2, 12)] * 2, st.integers(0, 5)),
    seed=st.integers(0, 3),
)
def test_parts_share_no_group_and_no_sample(groups: Sequence[int], sizes: tuple[int, int, int], seed: int) -> None:
    samples = [sample(number % 50, f"g{group}") for number, group in enumerate(groups)]
    data = Data(sizes[0], sizes[1], sizes[2], group="group", seed=seed)
    found = divide(samples, data, [True] * len(samples))
    taken = [(part, each) for part, rows in found.parts.items() for each in rows]
    digests = [each.digest for _, each in taken]
    assert len(set(digests)) == len(digests)
    of = {part: {json.loads(each.raw)["group"] for each in rows} for part, rows in found.parts.items()}
    assert not of["train"] & of["test"] and not of["train"] & of["validation"] and not of["validation"] & of["test"]
    assert len(taken) + found.n_double + found.n_unfit + found.n_spare == len(samples)
    assert found.lacking(data) == {
        part: size - len(found.parts[part]) for part, size in data.sizes.items() if size > len(found.parts[part])
    }
    assert found == divide(samples, data, [True] * len(samples))
    for rows in found.parts.values():
        assert [each.line for each in rows] == sorted(each.line for each in rows)


def test_test_rows_stay_whatever_is_trained_on() -> None:
    samples = [sample(number) for number in range(40)]
    small, large = (divide(samples, Data(train, 6), [True] * 40) for train in (4, 30))
    assert small.parts["test"] == large.parts["test"]
    assert small.parts["test"] != divide(samples, Data(4, 6, seed=1), [True] * 40).parts["test"]


def test_rows_that_are_too_short_or_too_long_are_left_out() -> None:
    samples = [sample(number, n_words=number) for number in range(3, 23)]
    fits = [number != 10 for number in range(3, 23)]
    found = divide(samples, Data(5, 2, least_words=5, most_words=12), fits)
    taken = {each.line for rows in found.parts.values() for each in rows}
    assert taken == {5, 6, 7, 8, 9, 11, 12} and found.n_unfit == 13


def test_rows_without_a_group_are_each_their_own() -> None:
    samples = [sample(number, group) for number, group in enumerate([None, "", "A", "a", None, "b"])]
    found = divide(samples, Data(4, 2, group="group"), [True] * 6)
    assert sum(map(len, found.parts.values())) + found.n_spare == 6
    [of_a] = {
        part for part, rows in found.parts.items() for each in rows if json.loads(each.raw)["group"] in ("A", "a")
    }
    assert of_a in ("train", "test"), "the case of a group's name does not matter"


def test_a_group_that_no_row_has_is_refused() -> None:
    with pytest.raises(DataError, match="no column 'town'"):
        divide([sample(1)], Data(2, 2, group="town"), [True])


# Outcome


def grades(mean: float, n: int = 40, seeds: int = 1, missing: int = 0) -> Grades:
    random = np.random.default_rng(int(mean * 100))
    score = np.clip(mean + random.normal(0, 0.2, (seeds, n)), 1, 5)
    score[:, :missing] = nan
    return Grades(score, score, np.full((seeds, n), 0.5), np.full((seeds, n), 20.0) + np.arange(n))


def reading(found: Outcome) -> list[str]:
    return [*differences(found, ROWS), *cautions(found, ROWS)]


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "RESAMPLES", 499)


MEMBERS = np.array([[True, number < 5] for number in range(40)])


def test_rows_are_compared_with_original_and_with_untuned(few_draws: None) -> None:
    given = {"base": grades(2.5), "original": grades(3.0), "goal-aligned": grades(3.01)}
    found = outcome(given, ("original", "base"), MEMBERS, ["all", "few"])
    assert list(found.comparisons) == [
        (part, other) for other in ("original", "base") for part in ("score", "judged", "checked")
    ]
    assert [each.policy for each in found.comparisons["score", "original"]] == ["base", "goal-aligned"]
    assert told_apart(found.comparisons["score", "original"]) == [True, False]
    assert told_apart(found.comparisons["checked", "base"]) == [False, False], "all alike: nothing to tell"
    assert list(found.subgoal_rows) == ["original", "base", "goal-aligned"]
    assert found.subgoals[1].n == 5 and found.subgoals[0].differences[0] is None
    said = " ".join(reading(found))
    assert "In the score these differ from original by more than chance (adjusted p < 0.05): untuned by -0.49" in said
    assert "Not told apart: goal-aligned." in said and "tell next to nothing: few (5)." in said
    assert "Each dataset was trained on once" in said


def test_the_level_is_that_of_the_intervals_beside_it(few_draws: None) -> None:
    given = {"base": grades(2.5), "original": grades(3.0)}
    [found] = outcome(given, ("original",), MEMBERS, ["all", "few"]).comparisons["score", "original"]
    assert [told_apart([replace(found, p=p)]) for p in (0.03, 0.06)] == [[True], [False]]


def test_seeds_are_averaged_sample_by_sample_and_their_spread_is_told(few_draws: None) -> None:
    given = {"base": grades(2.5), "original": grades(3.0, seeds=3)}
    found = outcome(given, ("original", "base"), MEMBERS, ["all", "few"])
    own = given["original"].score
    assert found.standings[1].score.value == pytest.approx(own.mean())
    assert found.spread["original"] == pytest.approx(own.mean(axis=1).std(ddof=1)) and np.isnan(found.spread["base"])
    assert list(found.seeds["original"]) == pytest.approx(own.mean(axis=1))
    said = " ".join(reading(found))
    assert "from training to training: original 0.0" in said and "trained on once" not in said


def test_without_a_row_to_compare_with_nothing_is_compared(few_draws: None) -> None:
    found = outcome({"synthetic": grades(3.0)}, ("original", "base"), MEMBERS[:, :0], [])
    assert found.comparisons == {} and found.subgoals == [] and len(found.standings) == 1
    assert reading(found)[-1].startswith("Each dataset was trained on once")


# How it is told


FACTS = {
    "title": "Ropes <b> & *bread*",
    "goal": "ropes",
    "reward": "letters",
    "policy": "tiny",
    "judge": "other",
    "alignment_judge": "other",
    "settings": {
        "steps": 4, "prompts_per_step": 3, "responses_per_prompt": 2, "max_tokens": 8, "iterations": 1, "loss": "grpo",
        "tuning": "lora", "learning_rate": 1e-5, "kl": 0.04,
    },
    "seeds": [0],
    "sizes": {"original": 24, "goal-aligned": 6, "synthetic": 0, "synthetic-original": None},
    "not_trained": {"synthetic": "no rows: no synthetic sample was kept"},
    "trainings": [
        {"name": row, "row": row, "seed": 0, "n_rows": n, "first": {"score": 2.0}, "last": {"score": None}}
        for row, n in (("original", 24), ("goal-aligned", 6))
    ],
    "n_ends": 1,
    "n_test": 40,
    "n_test_seen": 0,
    "belonging": {"by": "expectation", "n_none": 3, "n_failed": 2},
}  # fmt: skip


def test_the_tables_say_what_was_done_and_what_is_missing(few_draws: None) -> None:
    given = {"base": grades(2.5, missing=2), "original": grades(3.0), "goal-aligned": grades(3.4)}
    found = outcome(given, ("original", "base"), MEMBERS, ["all", "few"])
    unfit = report.markdown(FACTS, [report.Evaluation("other", "ab" * 32, True, 0.2, {}, found)])
    assert "alike: 0.20 (Spearman): it is not fit to grade." in unfit
    own = report.Evaluation("other", "ab" * 32, True, 0.61, {"no answer": 2}, found)
    foreign = report.Evaluation("judge", "cd" * 32, False, nan, {}, found)
    text = report.markdown(FACTS, [foreign, own])
    assert text.startswith("# Ropes \\<b\\> \\& \\*bread\\*\n")
    for part in (
        "- synthetic: not trained, no rows: no synthetic sample was kept.",
        "each training was asked 12 prompts. Times that it went through its rows: original 0.5, goal-aligned 2.0.",
        "| original | 24 |",
        "| synthetic | 0 |",
        "| synthetic + original | – |",
        "| reward, first 1 steps | reward, last 1 steps |",
        "| original | 24 | 0 | 2.000 | – |",
        "40 test rows, the same for every row of the tables, none of them in a training.",
        "## Table 4 by other, which gave the rewards",
        "- 2 grades failed and are left out; a missing grade is never the lowest.",
        "- other and we grade the reward's reference cases alike: 0.61 (Spearman).",
        "- 3 of 40 test rows belong to no subgoal.",
        "goal-aligned − original",
        "judged (95% interval)",
        "![Scores](experiment-scores.svg)",
    ):
        assert part in text, part
    assert set(report.figures(foreign)) == {report.SCORES_FIGURE, report.SUBGOALS_FIGURE}
    told = json.loads(json.dumps(report.record(FACTS, [foreign, own]), allow_nan=False))
    assert told["evaluations"][0]["agreement"] is None and told["evaluations"][1]["n_failed"] == 2
    rows = told["evaluations"][1]["rows"]
    assert rows[0]["n_failed"] == 2 and rows[0]["spread"] is None and rows[0]["checked"]["value"] == 0.5
    assert [each["p_holm"] >= each["p"] for each in told["evaluations"][0]["comparisons"] if each["p"] is not None]
