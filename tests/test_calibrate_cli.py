"""`goalcover calibrate` as users run it: a blind sheet, a map on record, and intervals that follow the labels."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Goalcover, checked_show
from judged import SUBGOALS, Values, judged_run

from goalcover_local.cli import calibrations
from goalcover_local.cli.results import STARTED, latest, results
from goalcover_local.store import Run

N = 120
CANARY = "Zwiebelkuchen4711"
TRUTH = {f"a{n} {CANARY}": (n % 4 == 0, n % 3 == 0) for n in range(N)}
"""By its output, whether a row supports each subgoal in people's eyes."""


def judged_as(row: int, truth: tuple[bool, bool]) -> Values:
    """A judge whose values tell people's labels apart and never reach 0.6."""
    return [0.3 + 0.2 * supports + 0.002 * (row % 20) for supports in truth]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"question": "q", "answer": answer}) + "\n" for answer in TRUTH))
    values = {answer: judged_as(row, truth) for row, (answer, truth) in enumerate(TRUTH.items())}
    return judged_run(tmp_path / "run", path, values)


def sheet(goalcover: Goalcover, run: Path, *more: object) -> list[dict[str, str]]:
    """The lines of a sheet that was written."""
    said = goalcover("calibrate", run, "--sheet", "sheet.csv", *more)
    assert said.out == "" and CANARY not in said.err
    with Path("sheet.csv").open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def without_drawn(lines: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """The lines, the first of which do not say how they were drawn."""
    return [line | {"drawn": ""} if number < n else line for number, line in enumerate(lines)]


def filled(lines: list[dict[str, str]], *, drawn: str | None = None, wrong: int = 0) -> Path:
    """A sheet on which people say what is true; with `wrong`, its contrary on every so many lines."""
    column = {subgoal.id: place for place, subgoal in enumerate(SUBGOALS)}
    path = Path("labels.csv")
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        for n, line in enumerate(lines):
            supports = TRUTH[line["output"]][column[line["subgoal"]]] != bool(wrong and n % wrong == 0)
            writer.writerow(line | {"label": "yes" if supports else "no", "drawn": drawn or line["drawn"]})
    return path


def calibrated(goalcover: Goalcover, run: Path, *more: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(goalcover("calibrate", run, "--labels", "labels.csv", *more, "--json").out)
    return found


def test_the_sheet_is_blind_random_and_the_owners_alone(goalcover: Goalcover, run: Path) -> None:
    lines = sheet(goalcover, run, "-n", 30)
    assert list(lines[0]) == ["id", "subgoal", "capability", "input", "output", "label", "drawn"]
    assert len(lines) == 60 and {line["label"] for line in lines} == {""}
    assert {line["drawn"] for line in lines} == {"random"}
    assert [line["subgoal"] for line in lines[:2]] == ["treatment", "causes"]
    ids = [line["id"] for line in lines[::2]]
    assert len(set(ids)) == 30 and ids != sorted(ids, key=lambda identity: int(identity.split(":")[1]))
    assert stat.S_IMODE(Path("sheet.csv").stat().st_mode) == 0o600
    assert sheet(goalcover, run, "-n", 30) == lines
    assert sheet(goalcover, run, "-n", 10) == lines[:20]
    assert sheet(goalcover, run, "-n", 30, "--seed", 1) != lines
    assert len(sheet(goalcover, run, "-n", 999)) == 2 * N


def test_a_sheet_never_takes_the_place_of_the_data(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("".join(f"{cells}\n" for cells in ["question,answer", *(f"q,{answer}" for answer in TRUTH)]))
    before = path.read_bytes()
    values = {answer: judged_as(row, truth) for row, (answer, truth) in enumerate(TRUTH.items())}
    other = judged_run(tmp_path / "other", path, values)
    assert "is no sheet of ours" in goalcover.refused("calibrate", other, "--sheet", "data.csv")
    assert path.read_bytes() == before
    assert "end its name with .csv" in goalcover("calibrate", run, "--sheet", "data.jsonl", code=2).err


@pytest.mark.parametrize("label", ["yes", "0", "maybe", "7"])
def test_a_sheet_never_takes_the_place_of_somebodys_work(goalcover: Goalcover, run: Path, label: str) -> None:
    lines = sheet(goalcover, run, "-n", 5)
    lines[4]["label"] = label
    with Path("sheet.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    before = Path("sheet.csv").read_bytes()
    assert "sheet.csv has labels in it" in goalcover.refused("calibrate", run, "--sheet", "sheet.csv")
    assert Path("sheet.csv").read_bytes() == before
    Path("mine.csv").write_text("id,subgoal,label\n", encoding="utf-8")
    refused = goalcover.refused("calibrate", run, "--sheet", "mine.csv")
    assert "mine.csv is there already, and is no sheet of ours.\nChoose another name." in refused


def test_from_sheet_to_intervals(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run))
    said = goalcover("calibrate", run, "--labels", "labels.csv")
    assert "Calibrated from the expectation on 120 labels" in said.out and "DIAGNOSTIC" not in said.out
    for told in (
        "by the judge",
        "by labels alone",
        "by labels and judge",
        "120 of 120 labels are of rows drawn, or taken as drawn,",
    ):
        assert told in said.out
    assert "Audit: 4 events, head " in said.err and CANARY not in said.out + said.err
    found = calibrated(goalcover, run)
    assert (found["n_random"], found["calibration"]["diagnostic_only"]) == (120, False)
    assert found["calibration"]["agreement"] > 0.8
    assert found["map"][0]["calibrated"] == 0 and found["map"][5] == {"value": 1.0, "calibrated": 1.0}
    for each, share in zip(found["subgoals"], (1 / 4, 1 / 3), strict=True):
        assert each["judge"]["n"] == 0 and each["judge"]["high"] < 0.05
        assert each["support"]["low"] <= share <= each["support"]["high"]
        assert each["support"]["high"] - each["support"]["low"] < each["labels"]["high"] - each["labels"]["low"]
        assert (each["labels"]["n"], each["enough_labels"], each["verdict"]) == (60, True, "covered")


def test_calibrated_is_a_value_like_any_other_from_then_on(goalcover: Goalcover, run: Path) -> None:
    refused = goalcover.refused("show", run, "--value", "calibrated")
    assert "This run has no calibrated values." in refused and "goalcover calibrate" in refused
    assert checked_show(goalcover("show", run, "--json").out)["calibration"] is None
    filled(sheet(goalcover, run))
    found = calibrated(goalcover, run)
    shown = checked_show(goalcover("show", run, "--value", "calibrated", "--json").out)
    assert shown["calibration"] == found["calibration"]
    for each, other in zip(shown["subgoals"], found["subgoals"], strict=True):
        assert {name: each["support"][name] for name in ("share", "low", "high")} == {
            name: other["support"][name] for name in ("share", "low", "high")
        }
        assert each["verdict"] == "covered" and set(each["alignment"]) == {"score", "expectation", "calibrated"}
    by_judge = checked_show(goalcover("show", run, "--json").out)
    assert {each["verdict"] for each in by_judge["subgoals"]} == {"gap"}
    assert "Calibrated from the expectation on 120 labels" in goalcover("show", run).out
    assert (
        "rest on the labels and the judge, means on the judge alone"
        in goalcover("show", run, "--value", "calibrated").out
    )
    records = [json.loads(line) for line in goalcover("export", run).out.splitlines()]
    assert {round(record["calibrated"]) for record in records} == {0, 1}
    goalcover("filter", run, "-o", "aligned.jsonl", "--value", "calibrated")
    kept = {json.loads(line)["answer"] for line in Path("aligned.jsonl").read_text().splitlines()}
    assert kept == {answer for answer, truth in TRUTH.items() if any(truth)}


def test_a_judge_that_people_contradict_is_for_diagnosis_only(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run), wrong=1)
    said = goalcover("calibrate", run, "--labels", "labels.csv")
    assert said.out.startswith("DIAGNOSTIC ONLY: the judge agrees with people's labels at rho = ")
    for value in ("expectation", "score", "calibrated"):
        assert goalcover("show", run, "--value", value).out.startswith("DIAGNOSTIC ONLY: ")
    shown = checked_show(goalcover("show", run, "--json").out)
    assert shown["calibration"]["diagnostic_only"] is True


def test_the_floor_decides(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run), wrong=15)
    assert calibrated(goalcover, run, "--floor", 0.9)["calibration"]["diagnostic_only"]
    assert not calibrated(goalcover, run, "--floor", 0.5)["calibration"]["diagnostic_only"]
    assert "DIAGNOSTIC" not in goalcover("show", run).out, "the latest calibration stands"


def test_labels_of_disputed_rows_serve_the_map_alone(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run), drawn="disagreement")
    found = calibrated(goalcover, run)
    assert (found["calibration"]["n_labels"], found["n_random"]) == (120, 0)
    assert [each["enough_labels"] for each in found["subgoals"]] == [False, False]
    assert "too few labels" in goalcover("calibrate", run, "--labels", "labels.csv").out


def test_labels_that_do_not_say_how_they_were_drawn_are_random_only_if_none_does(
    goalcover: Goalcover, run: Path
) -> None:
    lines = sheet(goalcover, run)
    filled(without_drawn(lines, 120))
    said = goalcover("calibrate", run, "--labels", "labels.csv", "--json")
    assert "labels.csv does not say how its rows were chosen" in said.err
    assert json.loads(said.out)["n_random"] == 120
    filled([*without_drawn(lines, 30), lines[0] | {"id": "of no row", "drawn": ""}])
    said = goalcover("calibrate", run, "--labels", "labels.csv", "--json")
    assert "30 labels of labels.csv do not say how the row was chosen, while others do" in said.err
    assert json.loads(said.out)["n_random"] == 90
    filled(lines)
    assert "how" not in goalcover("calibrate", run, "--labels", "labels.csv", "--json").err


def test_a_judge_that_never_looks_at_the_row_is_for_diagnosis_only(
    goalcover: Goalcover, tmp_path: Path, run: Path
) -> None:
    """It knows that hardly any row supports the first subgoal, and most the second."""
    truth = {answer: (n % 10 == 0, n % 10 != 0) for n, answer in enumerate(TRUTH)}
    blind = judged_run(tmp_path / "blind", tmp_path / "data.jsonl", {answer: [0.2, 0.7] for answer in TRUTH})
    with Path("labels.csv").open("w", encoding="utf-8", newline="") as stream:
        lines = sheet(goalcover, blind)
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        for line in lines:
            writer.writerow(line | {"label": int(truth[line["output"]][line["subgoal"] == "causes"])})
    said = goalcover("calibrate", blind, "--labels", "labels.csv")
    assert said.out.startswith("DIAGNOSTIC ONLY: the judge agrees with people's labels at rho = ")
    assert "within subgoals" in said.out and "always the subgoal's mean" in said.out


def test_where_no_subgoal_has_labels_that_differ_nothing_is_told_of_the_judge(goalcover: Goalcover, run: Path) -> None:
    lines = sheet(goalcover, run)
    with Path("labels.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(line | {"label": "yes" if line["subgoal"] == "causes" else "no"} for line in lines)
    found = calibrated(goalcover, run)["calibration"]
    assert (found["agreement"], found["diagnostic_only"]) == (None, True)
    shown = goalcover("show", run).out
    assert shown.startswith("DIAGNOSTIC ONLY: no subgoal has labels that differ") and "= unknown (floor" in shown


def test_another_judge_or_goal_has_no_calibration(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run))
    calibrated(goalcover, run)
    with Run.open(run, write=True) as opened:
        told = latest(opened, STARTED)
        assert told is not None
        other = opened.put_judge({"card": "other"})
        opened.event(STARTED, {**told, "judge": other}, "test")
        assert results(opened).calibration is None
        opened.event(STARTED, {**told, "panel": [told["judge"], other], "aggregate": "mean"}, "test")
        assert results(opened).calibration is None
        opened.event(STARTED, told, "test")
        assert results(opened).calibration is not None
        assert calibrations.kept(opened, told["judge"], "0" * 64) is None


def test_a_panel_is_calibrated_as_one(goalcover: Goalcover, run: Path) -> None:
    with Run.open(run, write=True) as opened:
        told = latest(opened, STARTED)
        assert told is not None
        panel = [told["judge"], opened.put_judge({"card": "silent"})]
        opened.event(STARTED, {**told, "panel": panel, "aggregate": "median"}, "test")
    filled(sheet(goalcover, run))
    assert calibrated(goalcover, run)["calibration"]["n_labels"] == 120
    shown = checked_show(goalcover("show", run, "--value", "calibrated", "--json").out)
    assert [len(member["subgoals"]) for member in shown["panel"]] == [2, 2]
    with Run.open(run, write=False) as opened:
        assert results(opened, value="calibrated").members[0].value == "expectation"
        assert calibrations.judge_of("x", panel, "median") == calibrations.judge_of("y", panel[::-1], "median")


def test_the_record_holds_numbers_and_digests_and_is_sealed(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run))
    calibrated(goalcover, run)
    with Run.open(run, write=False) as opened:
        event = opened.events()[-2]
        assert (event.kind, opened.verify_events()) == ("calibrated", [])
        found = results(opened)
        held = calibrations.kept(opened, found.judge, found.goal.digest)
    assert held is not None and CANARY not in event.details
    labels = held.of_rows(found.positions, 2)
    rows = list(TRUTH.values())
    for row, position in enumerate(found.positions):
        said = labels.values[row]
        assert np.isnan(said).all() or said.tolist() == [float(each) for each in rows[position]]
    assert (~np.isnan(labels.values)).sum() == labels.random.sum() == 120
    assert held.of_rows(found.positions[:5], 2).values.shape == (5, 2)


@pytest.mark.parametrize("given", [[], ["--labels", "a.csv", "--sheet", "b.csv"]])
def test_it_is_told_what_to_do(goalcover: Goalcover, run: Path, given: list[str]) -> None:
    assert "Give either --sheet FILE" in goalcover("calibrate", run, *given, code=2).err


@pytest.mark.parametrize("idle", [["-n", "60"], ["--seed", "0"]])
def test_an_option_of_the_sheet_is_refused_with_labels(goalcover: Goalcover, run: Path, idle: list[str]) -> None:
    assert "-n and --seed are for a --sheet" in goalcover("calibrate", run, "--labels", "a.csv", *idle, code=2).err


@pytest.mark.parametrize(("n", "told"), [(0, "holds no rows"), (1, "There is 1 label of")])
def test_no_label_and_one(goalcover: Goalcover, run: Path, n: int, told: str) -> None:
    filled([sheet(goalcover, run)[0]])
    path = Path("labels.csv")
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[: n + 1]), encoding="utf-8")
    assert told in goalcover.refused("calibrate", run, "--labels", "labels.csv")


def test_too_few_labels_are_refused_and_nothing_is_kept(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run, "-n", 9))
    assert "There are 18 labels" in goalcover.refused("calibrate", run, "--labels", "labels.csv")
    with Run.open(run, write=False) as opened:
        assert [event.kind for event in opened.events()] == [STARTED]


def test_a_value_that_the_run_lacks_cannot_be_calibrated(goalcover: Goalcover, run: Path) -> None:
    filled(sheet(goalcover, run))
    refused = goalcover.refused("calibrate", run, "--labels", "labels.csv", "--from", "corrected")
    assert "This run has no corrected values." in refused
