"""A panel of judges from end to end: two cards by rules, one model in memory at a time, stopped, resumed, and used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyst import Analyst
from command import GOAL as SUBGOALS
from command import Goalcover, checked_show, many, rows
from writer import OTHER_CARD, Writer, aligned
from writer import opened as writers

from goalcover_local import cards
from goalcover_local.cards import DEFAULT_CARD, Card
from goalcover_local.cli.results import STARTED, latest, results
from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.scales import reference_samples, reference_subgoals
from goalcover_local.store import Run
from goalcover_local.terms import ANCHOR_TEXTS, ANCHORS

N = 24
GOAL = f"{SUBGOALS}target_share = 0.3\n"
"""Bread should be in three of ten rows."""
SECOND = "qwen2.5-7b-instruct"
PANEL = ("--judge", DEFAULT_CARD, "--judge", SECOND)
ASSESS = ("goal.toml", "data.jsonl", "--run", "run", *PANEL)
BY_EXPECTATION = (*ASSESS, "--value", "expectation")
CALIBRATED = ("calibrate", "run", "--labels", "labels.csv")


class Member(Analyst):
    """An analyst that notes in `log` when it is opened and closed; a strict one scores an anchor lower."""

    def __init__(self, card: str, log: list[tuple[str, str]], *, strict: bool = False) -> None:
        super().__init__(card)
        self.log, self.strict = log, strict

    def describe(self) -> Mapping[str, str]:
        return {**super().describe(), "weights": "strict" if self.strict else "lenient"}

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        found = super().choose(prompts, answers)
        if tuple(answers) != ANCHOR_TEXTS or not self.strict:
            return found
        lower = np.column_stack(
            [
                found.probabilities[:, :2].sum(axis=1),
                found.probabilities[:, 2:],
                np.where(np.isnan(found.probabilities[:, 0]), np.nan, 0),
            ]
        )
        return replace(found, probabilities=lower)

    def close(self) -> None:
        self.log.append(("closed", self.card))


class Panel(dict[str, Member]):
    """The judges by card, and what was opened and closed, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        super().__init__({DEFAULT_CARD: Member(DEFAULT_CARD, self.log), SECOND: Member(SECOND, self.log, strict=True)})

    def open(self, card: Card, *_: object, **__: object) -> Member:
        self.log.append(("opened", card.name))
        return self[card.name]

    @property
    def most_at_once(self) -> int:
        """How many were open at a time, at most; fails if one was not closed."""
        found, n = 0, 0
        for what, _ in self.log:
            n += 1 if what == "opened" else -1
            found = max(found, n)
        assert n == 0, self.log
        return found


@pytest.fixture
def panel(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Panel:
    """The judges that every command opens; goal and rows are in the folder."""
    found = Panel()
    for module in ("judges", "asking"):
        monkeypatch.setattr(f"goalcover_local.{module}.open_engine", found.open)
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: None)
    (tmp_path / "goal.toml").write_text(GOAL, encoding="utf-8")
    rows(tmp_path / "data.jsonl", *many(N))
    return found


def without_bread() -> None:
    """Nothing; the rows tell of ropes and stations alone."""
    rows(Path("data.jsonl"), *(pair for place, pair in enumerate(many(N)) if place % 3 != 1))


def label(run: Path, *columns: str) -> None:
    """Nothing; writes labels.csv, which says of each row whether its question names one of the subgoals' words."""
    with Run.open(run, write=False) as held:
        lines = [
            f"{row.id},{name},{'yes' if word in row.input else 'no'},random"
            for row in held.rows()
            for name, word in zip(("ropes", "bread"), columns, strict=True)
        ]
    Path("labels.csv").write_text("\n".join(["id,subgoal,label,drawn", *lines]) + "\n", encoding="utf-8")


def exported(goalcover: Goalcover, folder: str = "run") -> list[dict[str, Any]]:
    return [json.loads(line) for line in goalcover("export", folder).out.splitlines()]


def n_asked(folder: str = "run") -> int:
    with Run.open(folder, write=False) as run:
        return run.n_asked()


# Assessed


def test_each_judge_is_opened_and_closed_once_and_never_beside_the_other(goalcover: Goalcover, panel: Panel) -> None:
    goalcover("assess", *BY_EXPECTATION)
    names = [("opened", DEFAULT_CARD), ("closed", DEFAULT_CARD), ("opened", SECOND), ("closed", SECOND)]
    assert panel.log == names, "no gap is to be explained"
    assert n_asked() == 2 * 2 * N
    panel.log.clear()
    goalcover("assess", *BY_EXPECTATION)
    assert panel.log == names and n_asked() == 2 * 2 * N


def test_the_first_explains_what_the_panel_scored_low(goalcover: Goalcover, panel: Panel) -> None:
    without_bread()
    shown = checked_show(goalcover("assess", *BY_EXPECTATION, "--json").out)
    assert [each["verdict"] for each in shown["subgoals"]] == ["covered", "gap"]
    assert [card for what, card in panel.log if what == "opened"] == [DEFAULT_CARD, SECOND, DEFAULT_CARD]
    assert panel.most_at_once == 1
    first, second = (member["judge"] for member in shown["panel"])
    told = [record for record in exported(goalcover) if record["subgoal"] == "bread"]
    assert all(record["explanation"] for record in told if record["judge"] == first)
    assert not any(record["explanation"] for record in told if record["judge"] == second)
    with Run.open("run", write=False) as run:
        found = results(run)
        between = [each for each in found.values["score"].flat if not any(abs(each - a) < 1e-6 for a in ANCHORS)]
    assert between, "the panel's scores lie between anchors, and are explained all the same"


def test_the_values_are_the_panels_and_each_judges_stand_in_the_export(goalcover: Goalcover, panel: Panel) -> None:
    said = goalcover("assess", *BY_EXPECTATION)
    assert "panel of 2, mean: " in said.out and "Each judge by itself:" in said.out
    shown = checked_show(goalcover("show", "run", "--json").out)
    judges = [member["judge"] for member in shown["panel"]]
    assert [member["card"] for member in shown["panel"]] == [DEFAULT_CARD, SECOND]
    records = exported(goalcover)
    assert [record["judge"] for record in records] == [judges[0]] * 2 * N + [judges[1]] * 2 * N
    by_judge = [[r["expectation"] for r in records if r["judge"] == judge] for judge in judges]
    assert all(strict < lenient for lenient, strict in zip(*by_judge, strict=True))
    with Run.open("run", write=False) as run:
        found = results(run)
        values = found.values["expectation"][np.argsort(found.positions)]
    assert values.ravel().tolist() == pytest.approx(np.mean(by_judge, axis=0).tolist())


@pytest.mark.parametrize("aggregate", ["mean", "median"])
def test_the_aggregate_is_told_and_used(goalcover: Goalcover, panel: Panel, aggregate: str) -> None:
    panel[OTHER_CARD] = Member(OTHER_CARD, panel.log)
    panel[OTHER_CARD].fails_on = "station"
    said = goalcover(
        "assess", *BY_EXPECTATION, "--judge", OTHER_CARD, "--aggregate", aggregate, "--explain", "none", code=3
    )
    assert f"panel of 3, {aggregate}: " in said.out
    with Run.open("run", write=False) as run:
        found = results(run)
        told = latest(run, STARTED) or {}
        each = [
            run.probabilities(judge, [s.digest for s in found.goal.subgoals], run.row_samples(found.positions))
            for judge in found.panel
        ]
    assert (told["aggregate"], len(told["panel"])) == (aggregate, 3)
    values = np.stack([judged.probabilities @ np.array(ANCHORS) for judged in each])
    reduce = np.nanmean if aggregate == "mean" else np.nanmedian
    assert found.values["expectation"].ravel().tolist() == pytest.approx(reduce(values, axis=0).ravel().tolist())
    assert [covered.n_failed for covered in found.coverage] == [0, 0], "two judges answered"
    assert "16 judgements failed" in said.err


@pytest.mark.parametrize(("preferred", "value"), [("expectation", "expectation"), ("corrected", "corrected")])
def test_judges_that_prefer_different_values_are_taken_by_the_expectation(
    goalcover: Goalcover, panel: Panel, monkeypatch: pytest.MonkeyPatch, preferred: str, value: str
) -> None:
    load = cards.load_card

    def loaded(name: str) -> Card:
        card = load(name)
        return replace(card, value=preferred) if name == SECOND else replace(card, value="corrected")  # type: ignore[arg-type]

    monkeypatch.setattr("goalcover_local.cards.load_card", loaded)
    goalcover("assess", *ASSESS)
    shown = checked_show(goalcover("show", "run", "--json").out)
    assert shown["value"] == value
    assert ("corrected" in shown["subgoals"][0]["alignment"]) is (value == "corrected")
    n_subgoals = 2 + (len(reference_subgoals()) if value == "corrected" else 0)
    n_samples = N + (len(reference_samples()) if value == "corrected" else 0)
    assert n_asked() == 2 * n_subgoals * n_samples
    assert all(("corrected" in record) is (value == "corrected") for record in exported(goalcover))


def test_the_same_judge_twice_is_one_judge(goalcover: Goalcover, panel: Panel) -> None:
    goalcover("assess", *ASSESS[:4], *PANEL[:2], *PANEL[:2], "--value", "expectation")
    assert checked_show(goalcover("show", "run", "--json").out)["panel"] == []
    assert panel.log == [("opened", DEFAULT_CARD), ("closed", DEFAULT_CARD)]


def test_a_dry_run_tells_of_each(goalcover: Goalcover, panel: Panel) -> None:
    said = goalcover("assess", *BY_EXPECTATION, "--dry-run")
    assert said.out.count("measured rate") == said.out.count("tokens once shared") == 2
    assert said.out.index(f"judge                {DEFAULT_CARD}") < said.out.index(f"judge                {SECOND}")
    assert not Path("run").exists()
    assert panel.most_at_once == 1


# Stopped


@pytest.mark.parametrize("member", [DEFAULT_CARD, SECOND])
def test_stopped_in_one_judge_only_what_is_missing_is_asked(goalcover: Goalcover, panel: Panel, member: str) -> None:
    without_bread()
    rows(Path("data.jsonl"), *many(3 * 16))
    goalcover("assess", *[*BY_EXPECTATION[:3], "whole", *BY_EXPECTATION[4:]])
    n_before, left = [n_asked("whole"), 0], iter(range(2))

    def before(prompts: Sequence[Prompt]) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    panel[member].before = before
    goalcover("assess", *BY_EXPECTATION, code=130)
    assert panel.most_at_once == 1, "what was open is closed"
    n_before[1] = n_asked()
    with Run.open("run", write=False) as run:
        lost = run.n_asked() - run.n_stored()
        first = 3 * 16 * 2 if member == SECOND else 0
        assert run.n_stored() == first + 2 * 16 * 2
    assert lost == 16 * 2, "the batch that it was stopped in"
    panel[member].before = len
    goalcover("assess", *BY_EXPECTATION)
    assert n_asked() == n_before[0] + lost
    assert exported(goalcover) == exported(goalcover, "whole")
    changing = ("run", "n_asked", "device_seconds")
    shown = [json.loads(goalcover("show", folder, "--json").out) for folder in ("run", "whole")]
    for each in shown:
        for name in changing:
            del each[name]
    assert shown[0] == shown[1]


def test_out_of_time_between_judges_it_can_be_resumed(goalcover: Goalcover, panel: Panel) -> None:
    for _ in range(2):  # two batches of each judge; the first's last is followed by the second's first
        said = goalcover("assess", *BY_EXPECTATION, "--max-hours", "1e-9", code=130)
        assert "Stopped by --max-hours" in said.err and panel.most_at_once == 1
    goalcover("assess", *BY_EXPECTATION, "--max-hours", "1e-9")
    assert n_asked() == 2 * 2 * N
    assert len(checked_show(goalcover("show", "run", "--json").out)["panel"]) == 2


# Made use of


@pytest.mark.parametrize("explain", ["low", "none", "all"])
def test_in_one_go_no_two_models_are_in_memory(goalcover: Goalcover, panel: Panel, explain: str) -> None:
    without_bread()
    told = json.loads(goalcover("run", *BY_EXPECTATION, "--explain", explain, "--json").out)
    assert panel.most_at_once == 1
    assert [gap["subgoal"] for gap in told["gaps"]] == ["bread"] and len(told["panel"]) == 2
    assert [each["subgoal"] for each in told["recommendations"]] == ["bread"]
    assert (told["gaps"][0]["n_explained"] > 0) is (explain != "none")


def test_phase_by_phase_it_is_the_same(goalcover: Goalcover, panel: Panel) -> None:
    without_bread()
    whole = json.loads(goalcover("run", *[*BY_EXPECTATION[:3], "whole", *BY_EXPECTATION[4:]], "--json").out)
    goalcover("assess", *BY_EXPECTATION, "--explain", "none")
    gaps = json.loads(goalcover("analyze", "run", "--json").out)["gaps"]
    assert gaps == whole["gaps"] and gaps[0]["n_explained"] == gaps[0]["n_low"]
    mended = json.loads(goalcover("recommend", "run", "--json").out)["recommendations"]
    assert mended == whole["recommendations"]
    assert panel.most_at_once == 1


def test_low_rows_on_which_the_first_judge_failed_are_explained(goalcover: Goalcover, panel: Panel) -> None:
    without_bread()
    panel[DEFAULT_CARD].fails_on = "station"
    goalcover("assess", *BY_EXPECTATION, "--explain", "none", code=3)
    panel[DEFAULT_CARD].fails_on = ""
    [gap] = json.loads(goalcover("analyze", "run", "--json").out)["gaps"]
    assert gap["n_explained"] == gap["n_low"] == 16


def test_the_panels_rows_are_filtered(goalcover: Goalcover, panel: Panel) -> None:
    goalcover("assess", *BY_EXPECTATION)
    told = json.loads(goalcover("filter", "run", "-o", "kept.jsonl", "--json").out)
    with Run.open("run", write=False) as run:
        found = results(run)
        kept = (found.values["expectation"] >= 0.6 - 1e-9).any(axis=1).sum()
    assert 0 < told["n_kept"] == kept < N


# Written for


@pytest.fixture
def gaps(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Writer]:
    """Two writers that judged rows about ropes and stations by the corrected value; bread is a gap."""
    pair = {card: Writer(card) for card in (DEFAULT_CARD, OTHER_CARD)}
    pair[OTHER_CARD].aligned = lambda texts: max(0.0, aligned(texts) - 0.4)
    writers(monkeypatch, *pair.values())
    (tmp_path / "goal.toml").write_text(GOAL, encoding="utf-8")
    rows(tmp_path / "data.jsonl", *(pair for place, pair in enumerate(many(60)) if place % 3 != 1))
    return pair


def assess(goalcover: Goalcover, value: str, *judges: str) -> None:
    named = [part for judge in judges for part in ("--judge", judge)]
    goalcover("assess", "goal.toml", "data.jsonl", "--run", "run", "--value", value, *named)


def synthesized(goalcover: Goalcover) -> tuple[list[dict[str, Any]], str]:
    said = goalcover("synthesize", "run", "-n", 2, "--json")
    found: list[dict[str, Any]] = json.loads(said.out)["candidates"]
    return found, said.err


def test_of_a_panel_the_first_judges_what_is_written(goalcover: Goalcover, gaps: dict[str, Writer]) -> None:
    assess(goalcover, "expectation", DEFAULT_CARD, OTHER_CARD)
    goalcover("analyze", "run")
    for writer in gaps.values():
        writer.forget()
    found, told = synthesized(goalcover)
    assert f"Of the panel {DEFAULT_CARD} alone, which is its first, judges what is written." in told
    assert sum(each["fate"] == "kept" for each in found) == 2 and gaps[DEFAULT_CARD].of("alignment")
    assert not gaps[OTHER_CARD].asked


def test_a_panels_calibrated_values_are_refused_plainly(goalcover: Goalcover, gaps: dict[str, Writer]) -> None:
    assess(goalcover, "expectation", DEFAULT_CARD, OTHER_CARD)
    label(Path("run"), "ropes", "bread")
    goalcover(*CALIBRATED)
    goalcover("analyze", "run", "--value", "calibrated", "--subgoal", "bread")
    for writer in gaps.values():
        writer.forget()
    refused = goalcover.refused("synthesize", "run", "-n", 2)
    assert "by a panel's calibrated values" in refused and "goalcover analyze run --value expectation" in refused
    assert not any(writer.asked for writer in gaps.values())
    goalcover("analyze", "run", "--value", "expectation")
    assert synthesized(goalcover)[0]


def test_values_calibrated_from_corrected_ones_need_the_references(
    goalcover: Goalcover, gaps: dict[str, Writer]
) -> None:
    assess(goalcover, "corrected", DEFAULT_CARD)
    label(Path("run"), "ropes", "station")  # of bread there is none, so that some other label keeps the map from one
    goalcover(*CALIBRATED, "--from", "corrected")
    goalcover("analyze", "run", "--value", "calibrated", "--subgoal", "bread")
    found, _ = synthesized(goalcover)
    assert found and all(each["alignment"] is not None for each in found if each["fate"] != "refused")
