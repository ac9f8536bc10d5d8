"""A panel of judges: its values are those of all, each judge's verdicts stand beside, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Goalcover, checked_show
from judged import GOAL, SUBGOALS, Values, judged_run, probabilities

from goalcover_local.cli.results import ANALYZED, STARTED, analyzed, latest, results
from goalcover_local.errors import StoreError
from goalcover_local.store import Run
from goalcover_local.terms import Judgement

FIRST: dict[str, Values] = {"a0": [0.9, 0.1], "a1": [0.2, None], "a2": [0.4, None], "a3": [1.0, 0.0]}
SECOND: dict[str, Values] = {"a0": [0.5, 0.3], "a1": [0.6, 0.7], "a2": [None, None], "a3": [1.0, 0.0]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that a panel of two assessed, its mean."""
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"question": "q", "answer": answer}) + "\n" for answer in FIRST))
    judged_run(tmp_path / "run", path, FIRST)
    with Run.open(tmp_path / "run", write=True) as opened:
        judge = opened.put_judge({"card": "second"})
        digests = {row.output: row.digest for row in opened.rows()}
        opened.append(
            judge,
            [
                Judgement(digests[answer], subgoal.digest, *said(value))
                for answer, found in SECOND.items()
                for subgoal, value in zip(SUBGOALS, found, strict=True)
            ],
            truncations=[(digests["a0"], 3)],
        )
        first = next(iter(opened.judges()))
        opened.append(first, [], truncations=[(digests["a0"], 5), (digests["a1"], 5)])
    assessed(tmp_path / "run", panel=[first, judge], aggregate="mean")
    return tmp_path / "run"


def said(value: float | None) -> tuple[tuple[float, ...] | None, str | None]:
    return (None, "too long") if value is None else (probabilities(value), None)


def assessed(folder: Path, **more: Any) -> None:
    """Nothing; begins another assessment like the last, but for these settings; None takes one away."""
    with Run.open(folder, write=True) as opened:
        told: Mapping[str, Any] = {**(latest(opened, STARTED) or {}), **more}
        opened.event(STARTED, {name: value for name, value in told.items() if value is not None}, "test")


def values_of(folder: Path) -> list[list[Any]]:
    """The run's values by row in the order of the data."""
    with Run.open(folder, write=False) as opened:
        found = results(opened)
        rows = found.values["expectation"][np.argsort(found.positions)].tolist()
        return [[None if value != value else pytest.approx(value) for value in row] for row in rows]


def test_the_values_are_the_means_of_those_that_answered(run: Path) -> None:
    assert values_of(run) == [[0.7, 0.2], [0.4, 0.7], [0.4, None], [1.0, 0.0]]


def test_the_median_of_three(run: Path) -> None:
    with Run.open(run, write=True) as opened:
        third = opened.put_judge({"card": "third"})
        panel = list(opened.judges())
        one = next(row.digest for row in opened.rows() if row.output == "a0")
        opened.append(third, [Judgement(one, SUBGOALS[0].digest, probabilities(0.0))])
    assessed(run, panel=panel, aggregate="median")
    assert third in panel and values_of(run)[0] == [0.5, 0.2]


def test_a_pair_failed_if_every_judge_failed_on_it(run: Path) -> None:
    with Run.open(run, write=False) as opened:
        found = results(opened)
    assert [covered.n_failed for covered in found.coverage] == [0, 1]
    assert [[covered.n_failed for covered in member.coverage] for member in found.members] == [[0, 2], [1, 1]]
    assert [covered.n_support for covered in found.coverage] == [2, 1]
    assert (found.panel[0], len(found.panel), found.aggregate) == (found.judge, 2, "mean")
    assert (found.n_truncated, found.agreement) == (2, None)


def test_each_judge_is_shown_beside_the_panel(goalcover: Goalcover, run: Path) -> None:
    shown = goalcover("show", run).out
    with Run.open(run, write=False) as opened:
        first, second = opened.judges()
    assert "panel of 2, mean: by hand (" in shown and f"digest {first[:12]}), second (" in shown
    below = shown.split("Each judge by itself:")[1]
    assert f"by hand {first[:8]}" in below and f"second {second[:8]}" in below
    assert "covered (2 of 4)" in below and "covered (2 of 3)" in below and "undecided (0 of 2)" in below
    told = checked_show(goalcover("show", run, "--json").out)
    assert [(member["judge"], member["card"]) for member in told["panel"]] == [(first, "by hand"), (second, "second")]
    assert [each["support"]["n"] for each in told["panel"][0]["subgoals"]] == [2, 0]
    assert [each["support"]["n"] for each in told["panel"][1]["subgoals"]] == [2, 1]


def test_one_judge_is_no_panel(goalcover: Goalcover, run: Path) -> None:
    assessed(run, panel=None, aggregate=None)
    assert values_of(run)[:2] == [[0.9, 0.1], [0.2, None]]
    assert "by itself" not in goalcover("show", run).out
    assert checked_show(goalcover("show", run, "--json").out)["panel"] == []
    records = [json.loads(line) for line in goalcover("export", run).out.splitlines()]
    assert len(records) == 8 and not any("judge" in record for record in records)


def test_every_judges_judgements_are_exported(goalcover: Goalcover, run: Path) -> None:
    records = [json.loads(line) for line in goalcover("export", run).out.splitlines()]
    with Run.open(run, write=False) as opened:
        judges = list(opened.judges())
    assert [record["judge"] for record in records] == [judges[0]] * 8 + [judges[1]] * 8
    assert [record["expectation"] for record in records if record["subgoal"] == "treatment"] == pytest.approx(
        [0.9, 0.2, 0.4, 1.0, 0.5, 0.6, None, 1.0]
    )


def test_every_judges_failures_are_listed(goalcover: Goalcover, run: Path) -> None:
    reasons = [line.split("  ")[-1] for line in goalcover("show", run, "--failures").out.splitlines()]
    assert reasons == ["token limit"] * 2 + ["too long"] * 2


def test_the_rows_that_an_assessment_names_are_its_rows(goalcover: Goalcover, run: Path) -> None:
    assessed(run, rows=[3, 0])
    with Run.open(run, write=False) as opened:
        found = results(opened)
    assert found.positions.tolist() == [3, 0]
    assert found.values["expectation"][:, 0].tolist() == pytest.approx([1.0, 0.7])
    assert checked_show(goalcover("show", run, "--json").out)["n_samples"] == 2
    assert {json.loads(line)["row"] for line in goalcover("export", run).out.splitlines()} == {0, 3}


def test_filter_goes_by_the_panel(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    goalcover("filter", run, "-o", "aligned.jsonl")
    kept = [json.loads(line)["answer"] for line in (tmp_path / "aligned.jsonl").read_text().splitlines()]
    assert kept == ["a0", "a1", "a3"]


@pytest.mark.parametrize(
    "other", [{"aggregate": "median"}, {"panel": None, "aggregate": None}, {"rows": [0, 1]}], ids=str
)
def test_gaps_of_another_panel_or_of_other_rows_are_stale(run: Path, other: dict[str, Any]) -> None:
    with Run.open(run, write=True) as opened:
        told = latest(opened, STARTED) or {}
        found = results(opened)
        n_judged = sum(covered.n_judged for covered in found.coverage)
        names = ("judge", "goal", "data", "seed", "limit", "tau", "value")
        details = {name: told[name] for name in names} | {"rule": "support", "gaps": [], "n_judged": n_judged}
        opened.event(ANALYZED, details, "test")
        assert analyzed(opened).panel == found.panel
    assessed(run)
    with Run.open(run, write=False) as opened:
        assert analyzed(opened).goal == GOAL
    assessed(run, **other)
    with Run.open(run, write=False) as opened, pytest.raises(StoreError, match="of an earlier assessment"):
        analyzed(opened)
