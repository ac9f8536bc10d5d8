"""`goalcover validate` as users run it: one assessment, many removals, runs of what is left, and no sample's text."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from analyst import Analyst
from command import Goalcover
from validated import cell_by_hand, removal_by_hand

from goalcover_local import beside
from goalcover_local.cards import DEFAULT_CARD
from goalcover_local.cli.results import STARTED, latest, results
from goalcover_local.cli.table import print_table
from goalcover_local.cli.validate import VALIDATED
from goalcover_local.engines.base import Prompt
from goalcover_local.errors import GoalCoverError
from goalcover_local.report.validation import HEADER, rows
from goalcover_local.resampling import drawn
from goalcover_local.store import Run
from goalcover_local.studies.removals import find_study, read_study

CANARY = "Zwiebelkuchen4711"
GOAL = """\
goal = "Answer questions about ropes, bread and stars"

[[subgoals]]
id = "ropes"
name = "Knots and ropes"
description = "Explains how to tie knots and join ropes."

[[subgoals]]
id = "bread"
name = "Baking bread"
description = "Explains how dough for bread is made, proved and baked."

[[subgoals]]
id = "stars"
name = "Naming stars"
description = "Names constellations, planets, comets and their orbits."
"""
STUDY = """\
goal = "goal.toml"
input = ["question"]
output = ["answer"]

[[removals]]
name = "Rope | rows"
target = "ropes"
fields = ["question", "answer"]
terms = ["ropes"]

[[removals]]
name = "Bread rows"
target = "bread"
column = "kind"
values = ["bread"]

[[removals]]
name = "Ropes thinned"
target = "ropes"
fields = ["answer"]
terms = ["knots"]
keep = 0.2
"""
TEXTS = (
    ("ropes", "Which knots join ropes {}, asks {canary} too?", "Tie knots in both ropes {} times."),
    ("bread", "How is bread baked {}?", "The dough for bread is made, proved and baked {} minutes."),
    ("other", "Where, {canary}, is the station {}?", "In street {}, on the left: {canary}."),
    ("other", "Where is the harbour {}?", "In street {}, on the right."),
)
N = 60
VALIDATE = ("validate", "study.toml", "data.jsonl", "--run", "run", "--draws", 500)
RUNS = ("without-rope-rows", "without-bread-rows", "without-ropes-thinned")


def lines(n: int) -> list[bytes]:
    """Rows as nobody would write them anew: a quarter on ropes, a quarter on bread, some twice."""
    found = []
    for k in range(n):
        kind, question, answer = TEXTS[k % 4]
        texts = [text.format(k // 8, canary=CANARY) for text in (question, answer)]
        row = {"kind": kind, "answer": texts[1], "question": texts[0], "note": "\u00e9"}
        found.append(b"  " * (k % 2) + json.dumps(row, separators=(",", ": ")).encode() + b"\r" * (k % 3 == 0))
    return found


@pytest.fixture
def analyst(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Analyst:
    """The engine of every model that the command opens; study, goal and rows are in the folder."""
    engine = Analyst()
    monkeypatch.setattr("goalcover_local.judges.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.asking.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: None)
    (tmp_path / "goal.toml").write_text(GOAL, encoding="utf-8")
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(lines(N)))
    return engine


def kinds(n: int = N) -> np.ndarray:
    return np.array([TEXTS[k % 4][0] for k in range(n)])


def held(folder: str) -> tuple[list[bytes], int]:
    """A run's rows as they stood in the data, and how many pairs it asked."""
    with Run.open(folder, write=False) as run:
        return [row.raw for row in run.rows()], run.n_asked()


def silent(*texts: str) -> None:
    """Fails if a sample's text is told."""
    for text in texts:
        assert CANARY.lower() not in text.lower()


# All of it


def test_a_whole_validation(goalcover: Goalcover, analyst: Analyst, tmp_path: Path) -> None:
    said = goalcover(*VALIDATE, "--recommend", "--json")
    record = json.loads(said.out)
    kept = {name: tmp_path / "run" / f"validation.{name}" for name in ("json", "md", "svg")}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept.values())
    assert json.loads(kept["json"].read_text(encoding="utf-8")) == record
    silent(said.out, said.err, *(path.read_text(encoding="utf-8") for path in kept.values()))
    assert "Rope | rows: 15 of 60 rows, for ropes." in said.err
    assert "Ropes thinned: 12 of 60 rows, for ropes." in said.err
    assert "60 rows to judge: natural mix 60, 1 strategic sample of 60." in said.err
    assert "a strategic sample is the whole data: one is as good as several." in said.err
    assert f"(digest {record['judge'][:12]})" in kept["md"].read_text(encoding="utf-8")
    ElementTree.fromstring(kept["svg"].read_text(encoding="utf-8"))

    with Run.open("run", write=False) as run:
        found = results(run)
        told = latest(run, VALIDATED) or {}
        assert run.verify_events() == []
    names = {"study": "study", "goal": found.goal.digest, "judge": found.judge, "panel": [], "card": DEFAULT_CARD}
    counts = {"n_seeds": 1, "n_draws": 500, "n_rows": N, "n_pairs": 3 * N, "n_failed": 0}
    assert record == record | names | counts | {
        "value": found.value,
        "seed": 0,
        "subgoals": ["ropes", "bread", "stars"],
    }
    assert [(each["removal"], each["outcome"]) for each in record["outcomes"]] == [
        (name, "noticed") for name in ("Rope | rows", "Bread rows", "Ropes thinned")
    ]
    assert told["n_rows"] == N and told["judge"] == found.judge
    assert [(mix["mix"], mix["seed"], mix["n_rows"]) for mix in record["mixes"]] == [
        ("natural", None, N),
        ("strategic", 0, N),
    ]
    natural = record["mixes"][0]["measures"]
    assert set(natural) >= {"alignment", "graded support", "support", "alignment by score"}
    assert set(record["mixes"][1]["measures"]) == set(natural)
    masks = [kinds() == "ropes", kinds() == "bread"]
    for removal, mask, target in zip(natural["alignment"]["removals"], masks, (0, 1), strict=False):
        assert (removal["n_removed"], removal["retention"]) == (15, 0.75)
        assert removal["flagged"] and removal["most_affected"]
        for column, cell in enumerate(removal["subgoals"]):
            values = found.values[found.value][np.argsort(found.positions), column]
            assert cell["target"] is (column == target)
            assert cell["original"] == pytest.approx(values.mean(), abs=1e-6)
            assert cell["after"] == pytest.approx(values[~mask].mean(), abs=1e-6)
    by_score = natural["alignment by score"]["removals"][0]["subgoals"][0]
    assert by_score["original"] == pytest.approx(found.values["score"][:, 0].mean(), abs=1e-6)
    thinned = natural["alignment"]["removals"][2]
    assert thinned["kind"] == "natural gap" and thinned["n_removed"] == 12
    assert natural["alignment"]["separation"]["n"] == 2 and natural["alignment"]["natural_gaps"]["n"] == 1


def test_what_is_left_is_a_run_of_the_rows_kept_byte_for_byte(goalcover: Goalcover, analyst: Analyst) -> None:
    record = json.loads(goalcover(*VALIDATE, "--recommend", "--json").out)
    raw = Path("data.jsonl").read_bytes().split(b"\n")
    for name, kind, told in zip(RUNS, ("ropes", "bread", "ropes"), record["mended"], strict=True):
        folder = f"run/{name}"
        rows, n_asked = held(folder)
        assert n_asked == 0, "what was judged is not asked again"
        removed = Counter(raw) - Counter(rows)
        assert Counter(rows) + removed == Counter(raw)
        assert set(removed) <= {line for line, each in zip(raw, kinds(), strict=True) if each == kind}
        order = iter(raw)
        assert all(row in order for row in rows), "in the order of the data"
        assert (told["run"], told["target"]) == (folder, kind)
        assert told["issue"] and told["fix"] and told["verdict"] in ("gap", "covered", "undecided")
        shown = json.loads(goalcover("show", folder, "--json").out)
        assert (shown["n_samples"], shown["n_asked"]) == (len(rows), 0)
        means = {each["id"]: each["alignment"][record["value"]] for each in shown["subgoals"]}
        place = RUNS.index(name)
        cells = record["mixes"][0]["measures"]["alignment"]["removals"][place]["subgoals"]
        assert means == {cell["subgoal"]: pytest.approx(cell["after"], abs=1e-6) for cell in cells}
        assert json.loads(goalcover("analyze", folder, "--json", "--subgoal", kind).out)["gaps"]
    assert held("run/without-rope-rows")[0] == [
        line for line, kind in zip(raw, kinds(), strict=True) if kind != "ropes"
    ]


def test_the_same_command_again_asks_nothing_and_writes_the_same(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover(*VALIDATE, "--recommend")
    written = {path: path.read_bytes() for path in Path("run").glob("validation.*")}
    n_asked, n_model = held("run")[1], len(analyst.asked)
    goalcover(*VALIDATE, "--recommend")
    assert len(written) == 3 and written == {path: path.read_bytes() for path in Path("run").glob("validation.*")}
    assert held("run")[1] == n_asked
    assert len(analyst.asked) == n_model, "neither judge nor analyst was asked again"


def test_another_validation_of_the_same_rows_asks_nothing(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover(*VALIDATE, "--recommend")
    n_asked = held("run")[1]
    before = held("run/without-ropes-thinned")[0]
    told = json.loads(goalcover(*VALIDATE, "--recommend", "--seed", 7, "--json").out)["mended"]
    assert held("run")[1] == n_asked
    assert [each["run"] for each in told[:2]] == [f"run/{name}" for name in RUNS[:2]], "the same rows are left"
    assert told[2]["run"].startswith("run/without-ropes-thinned-")
    rows = held(told[2]["run"])[0]
    assert len(rows) == N - 12 and rows != before == held("run/without-ropes-thinned")[0]


def test_the_table_is_printed(goalcover: Goalcover, analyst: Analyst) -> None:
    said = goalcover(*VALIDATE, "--recommend")
    silent(said.out, said.err)
    for told in (
        "Natural mix, 60 rows, value ",
        "Strategic sample, seed 0, 60 rows",
        "ropes *",
        "Rope | rows: 15 of 60 rows taken, 75.0% kept",
        "removals: the target falls by more than chance (p < 0.01) in 2 of 2, and the most of all subgoals in 2 of 2",
        "natural gaps: ",
        "Rope | rows, ropes: ",
        "  Issue: ",
    ):
        assert told in said.out
    assert "this judge sees these capabilities in these data." in said.out
    assert "Targets over" not in said.out, "one sample is no range"
    markdown = Path("run/validation.md").read_text(encoding="utf-8")
    assert "| Rope \\| rows: 15 of 60 rows taken, 75.0% kept |" in markdown and "| - ropes \\* |" in markdown


def test_what_a_model_wrote_does_not_steer_the_terminal(
    goalcover: Goalcover, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"removal": "Rope", "target": "ropes", "verdict": "gap", "issue": "a\x1b[2Jb\x07", "fix": "c\u202ed\x9b"}
    monkeypatch.setattr("goalcover_local.cli.corrupted.mended", lambda *_: (told, 0))
    said = goalcover(*VALIDATE, "--recommend")
    assert said.out.count("  Issue: ab\n") == said.out.count("  Fix: cd\n") == 3
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(said.out)


@pytest.mark.parametrize("name", ["medical", "legal", "code"])
def test_the_tables_of_studies_that_ship_fit_120_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(find_study(name))

    def removals(low: float, high: float) -> list[dict[str, Any]]:
        return [
            removal_by_hand(
                *(
                    cell_by_hand(each.id, 0.5, 0.1, -0.4, low, low, high, 0.0001, target=each.id == taken.target)
                    for each in study.goal.subgoals
                ),
                removal=taken.name,
                n_removed=12_345,
            )
            for taken in study.removals
        ]

    measures = {"alignment": {"removals": removals(-0.523, -0.123)}, "graded support": {"removals": removals(-1, -1)}}
    lines = rows({"n_rows": 100_000, "measures": measures})
    print_table(HEADER, lines, right=(1, 2, 3, 4, 5))
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 120
    for taken in study.removals:
        assert f" {taken.name}: 12345 of 100000 rows taken, 60.0% kept" in printed
    assert len(printed) == len(lines) + 4


def test_a_heading_runs_on_over_the_table_and_keeps_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    heading = "A heading much longer than all of the table, which no column is made wider for, and which is not cut off"
    print_table(("name", "n"), [("a", "1"), (heading, ""), ("b", "22"), ("心臓", "")], right=(1,))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "",
        " name    n",
        " ─────────",
        " a       1",
        f" {heading}",
        " b      22",
        " 心臓",
        "",
    ]


def test_tables_and_record_are_there_if_the_figure_fails(
    goalcover: Goalcover, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> str:
        raise GoalCoverError("No figure.", "Draw it by hand.")

    monkeypatch.setattr("goalcover_local.report.validation.figure", broken)
    assert "No figure." in goalcover.refused(*VALIDATE)
    assert sorted(path.name for path in Path("run").glob("validation.*")) == ["validation.json", "validation.md"]


def test_a_study_of_controls_says_nothing_of_the_judge(goalcover: Goalcover, analyst: Analyst) -> None:
    study = STUDY.split("[[removals]]")[0] + '[[removals]]\nname = "Null"\ntarget = "stars"\nrandom = 0.2\n'
    Path("study.toml").write_text(study, encoding="utf-8")
    said = goalcover(*VALIDATE)
    assert "Only rows taken at random were removed: this says nothing of what the judge sees." in said.out
    assert "Control passed: Null, rows taken at random, lowers stars no more than chance." in said.out
    assert "this judge sees" not in said.out


def test_a_goal_of_one_subgoal_can_be_validated(goalcover: Goalcover, analyst: Analyst) -> None:
    Path("goal.toml").write_text("\n[[subgoals]]".join(GOAL.split("\n[[subgoals]]")[:2]), encoding="utf-8")
    Path("study.toml").write_text("[[removals]]".join(STUDY.split("[[removals]]")[:2]), encoding="utf-8")
    said = goalcover(*VALIDATE)
    assert "There is one subgoal, so nothing tells whether others would have stayed." in said.out
    ElementTree.fromstring(Path("run/validation.svg").read_text(encoding="utf-8"))
    with Run.open("run", write=False) as run:
        assert {path.name for path in beside.files(run).others} == {"validation.json", "validation.md"}


def test_ids_that_are_of_no_row_are_told(goalcover: Goalcover, analyst: Analyst) -> None:
    study = STUDY.replace('column = "kind"\nvalues = ["bread"]', 'ids = "ids.txt"')
    Path("study.toml").write_text(study, encoding="utf-8")
    Path("ids.txt").write_text("data:2\ndata:6\ndata:1000\n", encoding="utf-8")
    said = goalcover(*VALIDATE)
    assert "Bread rows: 2 of 60 rows, for bread.\nBread rows: 1 of 3 ids are of no row.\n" in said.err
    assert said.err.count("ids are of no row") == 1


def test_a_removal_that_is_not_noticed_is_said(goalcover: Goalcover, analyst: Analyst) -> None:
    study = STUDY.split("[[removals]]")[0] + '[[removals]]\nname = "Null"\ntarget = "stars"\nlongest = 0.2\n'
    Path("study.toml").write_text(study, encoding="utf-8")
    said = goalcover(*VALIDATE)
    assert "NOT NOTICED: Null." in said.out and "do not trust this judge's coverage of stars" in said.out


# Strategic samples


def test_five_strategic_samples_are_drawn_where_less_than_half_of_the_rows_match(
    goalcover: Goalcover, analyst: Analyst
) -> None:
    more = [json.dumps({"kind": "other", "question": f"Where is market {k}?", "answer": "There."}) for k in range(20)]
    Path("data.jsonl").write_bytes(b"\n".join([*lines(N), *map(str.encode, more)]))
    said = goalcover(*VALIDATE)
    assert "80 rows to judge: natural mix 80, 5 strategic samples of 60." in said.err
    assert "one is as good as several" not in said.err
    assert "Targets over 5 strategic samples: mean change, least to greatest" in said.out
    record = json.loads(Path("run/validation.json").read_text(encoding="utf-8"))
    assert [(mix["mix"], mix["seed"], mix["n_rows"]) for mix in record["mixes"]] == [
        ("natural", None, 80),
        *(("strategic", seed, 60) for seed in range(5)),
    ]
    assert set(record["mixes"][1]["measures"]) == set(record["mixes"][0]["measures"])
    assert all(set(mix["measures"]) == {"alignment", "graded support"} for mix in record["mixes"][2:])
    assert "## Over 5 strategic samples" in Path("run/validation.md").read_text(encoding="utf-8")


def test_rows_judges_strategic_samples_alone(goalcover: Goalcover, analyst: Analyst) -> None:
    record = json.loads(goalcover(*VALIDATE, "--rows", 24, "--json").out)
    assert [(mix["mix"], mix["n_rows"]) for mix in record["mixes"]] == [("natural", 12), ("strategic", 24)]
    assert (record["n_seeds"], record["n_rows"]) == (1, 24)
    with Run.open("run", write=False) as run:
        rows = (latest(run, STARTED) or {})["rows"]
        assert results(run).positions.tolist() == rows == sorted(rows)
    base = set(drawn(N, 0)[:12].tolist())
    assert base <= set(rows) and len(rows) == 24
    assert all(kinds()[row] in ("ropes", "bread") for row in set(rows) - base)
    assert record["mixes"][1]["shortfalls"] == {}


def test_more_seeds_judge_what_is_missing_and_no_pair_again(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover(*VALIDATE, "--rows", 24)
    first = held("run")[1]
    said = goalcover(*VALIDATE, "--rows", 24, "--seeds", 3, "--json")
    record = json.loads(said.out)
    assert [(mix["mix"], mix["seed"]) for mix in record["mixes"]] == [
        ("natural", None),
        *(("strategic", seed) for seed in range(3)),
    ]
    union = set[int]()
    for seed in range(3):
        union |= set(drawn(N, seed)[:12].tolist())
    assert record["mixes"][0]["n_rows"] == len(union), "the natural mix is of all that was drawn from all rows"
    with Run.open("run", write=False) as run:
        positions = np.array((latest(run, STARTED) or {})["rows"])
        n_pairs = len(run.distinct(positions)) * 3
        assert run.n_stored() >= n_pairs
    second = held("run")[1]
    goalcover(*VALIDATE, "--rows", 24, "--seeds", 3)
    assert first < second == held("run")[1]


def test_more_rows_than_there_are_is_all_of_them(goalcover: Goalcover, analyst: Analyst) -> None:
    said = goalcover(*VALIDATE, "--rows", 1000, "--json")
    assert json.loads(said.out)["n_rows"] == N


def test_a_shortfall_is_said(goalcover: Goalcover, analyst: Analyst) -> None:
    study = STUDY.replace('values = ["bread"]', 'values = ["rare"]')
    Path("study.toml").write_text(study, encoding="utf-8")
    text = Path("data.jsonl").read_bytes().replace(b'"kind": "other"', b'"kind": "rare"', 2)
    Path("data.jsonl").write_bytes(text)
    said = goalcover(*VALIDATE, "--rows", 40, "--json")
    lacking = json.loads(said.out)["mixes"][1]["shortfalls"]
    assert 8 <= lacking["Bread rows"] <= 10
    assert f"the strategic sample has {lacking['Bread rows']} rows fewer than it should of Bread rows." in said.err


def test_a_random_removal_does_not_empty_the_sample_it_is_compared_on(goalcover: Goalcover, analyst: Analyst) -> None:
    study = STUDY + '\n[[removals]]\nname = "Null"\ntarget = "stars"\nrandom = 0.1\n'
    Path("study.toml").write_text(study, encoding="utf-8")
    record = json.loads(goalcover(*VALIDATE, "--rows", 12, "--json").out)
    null = record["mixes"][0]["measures"]["alignment"]["removals"][-1]
    assert record["mixes"][0]["n_rows"] == 6 and null["n_removed"] < 4


# Nothing is judged


def test_a_dry_run_tells_all_and_stores_nothing(goalcover: Goalcover, analyst: Analyst, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = goalcover("validate", "study.toml", "data.jsonl", "--rows", 24, "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    assert "Bread rows: 15 of 60 rows, for bread." in said.err
    assert "24 rows to judge: natural mix 12, 1 strategic sample of 24." in said.err
    assert "different samples x 3 subgoals" in said.out and "tokens once shared" in said.out
    silent(said.out, said.err)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("validate", "ropes", "data.jsonl"), "There is no study named 'ropes'"),
        (("validate", "medcial", "data.jsonl"), "Did you mean 'medical'"),
        (("validate", "study.toml", "none.jsonl"), "none.jsonl"),
        (("validate", "none.toml", "data.jsonl"), "none.toml cannot be read"),
        (("validate", "goal.toml", "data.jsonl"), "goal.toml is a goal, not a study"),
        (("assess", "study.toml", "data.jsonl", "--run", "run"), "study.toml is a study, not a goal"),
        (("validate", "legal", "data.jsonl"), "'Monetary bills' reads title, summary, which no row has"),
        (("validate", "medical", "data.jsonl"), "which no row has"),
        (("validate", "study.toml", "data.jsonl", "--judge", "nobody"), "nobody"),
    ],
)
def test_what_cannot_be_validated_is_refused_and_nothing_is_asked(
    goalcover: Goalcover, analyst: Analyst, arguments: tuple[str, ...], told: str
) -> None:
    said = goalcover.refused(*arguments)
    assert told in said
    silent(said)
    assert analyst.asked == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('terms = ["ropes"]', 'terms = ["anchor"]'), "'Rope | rows' takes no row of the data"),
        (('values = ["bread"]', 'values = ["bread", "ropes", "other"]'), "'Bread rows' takes every row of the data"),
        (("keep = 0.2", "keep = 0.99"), "'Ropes thinned' takes no row of the data"),
        (("keep = 0.2", "keep = 1"), "keep is 1: nothing would be removed"),
        (('column = "kind"', 'column = "sort"'), "'Bread rows' reads sort, which no row has"),
        (('values = ["bread"]', "shares = {bread = 0.5, cake = 0.5}"), "No row has the label 'cake'"),
    ],
)
def test_a_removal_must_take_some_rows_and_leave_some(
    goalcover: Goalcover, analyst: Analyst, change: tuple[str, str], told: str
) -> None:
    Path("study.toml").write_text(STUDY.replace(*change), encoding="utf-8")
    said = goalcover.refused(*VALIDATE)
    assert told in said
    silent(said)
    assert analyst.asked == []


@pytest.mark.parametrize(
    "option", [("--rows", "3"), ("--seeds", "0"), ("--draws", "50"), ("--seed", "-1"), ("--value", "anchor")]
)
def test_usage_is_2(goalcover: Goalcover, analyst: Analyst, option: tuple[str, str]) -> None:
    said = goalcover(*VALIDATE, *option, code=2)
    assert f"Invalid value for '{option[0]}'" in said.err and not Path("run").exists()


def test_a_study_that_ships_reads_data_of_its_columns(goalcover: Goalcover, analyst: Analyst) -> None:
    texts = ["The bill costs $ 5 in health care.", "On roads.", "A budget.", "On medical aid.", "On ships.", "Names."]
    bills = [{"title": f"Bill {k}", "summary": text, "bill_id": str(k)} for k, text in enumerate(texts * 3)]
    Path("bills.jsonl").write_text("".join(json.dumps(each) + "\n" for each in bills), encoding="utf-8")
    said = goalcover("validate", "legal", "bills.jsonl", "--json", "--draws", 100)
    assert "Left out: Policy area Health thinned to a fifth: the data have no column policy_area." in said.err
    assert "Monetary bills: 6 of 18 rows" in said.err and "Healthcare bills: 6 of 18 rows" in said.err
    record = json.loads(said.out)
    assert [each["removal"] for each in record["mixes"][0]["measures"]["alignment"]["removals"]] == [
        "Monetary bills",
        "Healthcare bills",
    ]
    assert Path("runs/validate-legal/validation.json").exists()


def test_a_study_may_name_its_input_alone(goalcover: Goalcover, analyst: Analyst) -> None:
    Path("study.toml").write_text(STUDY.replace('output = ["answer"]\n', ""), encoding="utf-8")
    goalcover(*VALIDATE)
    with Run.open("run", write=False) as run:
        assert not any(row.output for row in run.rows())
    goalcover("validate", "study.toml", "data.jsonl", "--run", "both", "--output-column", "note", "--draws", 100)
    with Run.open("both", write=False) as run:
        assert {row.output for row in run.rows()} == {"\u00e9"}, "options go before the study"


# Judges that fail, stop, or are several


def test_failures_are_left_out_and_told(goalcover: Goalcover, analyst: Analyst) -> None:
    analyst.fails_on = "harbour"
    said = goalcover(*VALIDATE, "--recommend", "--json", code=3)
    assert "judgements failed and are left out; --retry-failed asks again." in said.err
    record = json.loads(said.out)
    assert (record["n_failed"], record["n_pairs"]) == (45, 180)
    assert "45 of 180 judgements failed and are left out." in Path("run/validation.md").read_text(encoding="utf-8")
    with Run.open("run", write=False) as run:
        values = results(run).values[record["value"]]
        assert np.isnan(values).any(axis=1).sum() == 15
    cell = record["mixes"][0]["measures"]["alignment"]["removals"][0]["subgoals"][0]
    assert cell["original"] == pytest.approx(np.nanmean(values[:, 0]), abs=1e-6)
    with Run.open("run/without-rope-rows", write=False) as left:
        assert {each.failure for each in left.failures(record["judge"])} == {"scripted failure"}
    analyst.fails_on = ""
    goalcover(*VALIDATE, "--retry-failed")


def test_interrupted_anywhere_it_goes_on_to_the_same(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("validate", "study.toml", "data.jsonl", "--run", "fitted", "--draws", 100, "--recommend")
    batches: list[Sequence[Prompt]] = []
    analyst.before = batches.append
    goalcover("validate", "study.toml", "data.jsonl", "--run", "whole", "--draws", 100, "--recommend")
    whole = Path("whole/validation.json").read_text(encoding="utf-8")
    assert len(batches) > 5
    for stop in (1, len(batches) // 2, len(batches) - 2):

        def before(_: Sequence[Prompt], left: Iterator[int] = iter(range(stop))) -> None:  # noqa: B008
            if next(left, None) is None:
                raise KeyboardInterrupt

        analyst.before = before
        again = ("validate", "study.toml", "data.jsonl", "--run", f"stopped-{stop}", "--draws", 100, "--recommend")
        said = goalcover(*again, code=130)
        silent(said.out, said.err)
        analyst.before = len
        goalcover(*again)
        found = Path(f"stopped-{stop}/validation.json").read_text(encoding="utf-8")
        assert found.replace(f"stopped-{stop}", "whole") == whole


def test_out_of_time_it_can_be_resumed(goalcover: Goalcover, analyst: Analyst) -> None:
    Path("data.jsonl").write_bytes(b"\n".join(lines(160)))
    said = goalcover(*VALIDATE, "--max-hours", "1e-9", code=130)
    assert "Stopped by --max-hours. The same command goes on from here." in said.err and said.out == ""
    assert not Path("run/validation.json").exists()
    goalcover(*VALIDATE)
    assert Path("run/validation.json").exists()


def test_a_panel_of_two_judges(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, analyst: Analyst) -> None:
    other = Analyst("qwen2.5-7b-instruct")
    engines = {DEFAULT_CARD: analyst, "qwen2.5-7b-instruct": other}
    for module in ("judges", "asking"):
        monkeypatch.setattr(f"goalcover_local.{module}.open_engine", lambda card, *_, **__: engines[card.name])
    other.fails_on = "dough"
    judges = ("--judge", DEFAULT_CARD, "--judge", "qwen2.5-7b-instruct", "--value", "expectation")
    said = goalcover(*VALIDATE, *judges, "--recommend", "--json", code=3)
    silent(said.out, said.err)
    record = json.loads(said.out)
    assert (record["n_failed"], record["n_pairs"]) == (45, 360), "15 rows on dough, of one of the two"
    assert record["card"] == f"{DEFAULT_CARD}, qwen2.5-7b-instruct" and len(record["panel"]) == 2
    with Run.open("run", write=False) as run, Run.open("run/without-bread-rows", write=False) as left:
        assert list(run.judges()) == list(left.judges()) == record["panel"]
        for judge in record["panel"]:
            assert 0 < left.n_stored(judge) < run.n_stored(judge)
        assert results(left).panel == tuple(record["panel"])
        values = results(run).values["expectation"]
    assert record["mixes"][0]["measures"]["alignment"]["removals"][0]["subgoals"][1]["original"] == pytest.approx(
        values[:, 1].mean(), abs=1e-6
    )
    n_asked = held("run")[1]
    goalcover(*VALIDATE, *judges, "--recommend", code=3)
    assert held("run")[1] == n_asked


def test_one_value_is_as_good_as_another(goalcover: Goalcover, analyst: Analyst) -> None:
    by_score = json.loads(goalcover(*VALIDATE, "--value", "score", "--json").out)
    assert by_score["value"] == "score"
    n_asked = held("run")[1]
    by_expectation = json.loads(goalcover(*VALIDATE, "--value", "expectation", "--json").out)
    assert held("run")[1] == n_asked
    told = by_expectation["mixes"][0]["measures"]
    assert told["alignment by score"]["removals"] == by_score["mixes"][0]["measures"]["alignment"]["removals"]
    assert "has no calibrated values" in goalcover.refused(*VALIDATE, "--value", "calibrated")


def test_calibrated_values_are_validated_and_what_is_left_is_mended(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover(*VALIDATE)
    with Run.open("run", write=False) as run:
        rows = list(run.rows())
    labels = ["id,subgoal,label,drawn"]
    for row, kind in zip(rows, kinds(), strict=True):
        labels += [f"{row.id},{name},{'yes' if kind == name else 'no'},random" for name in ("ropes", "bread", "stars")]
    Path("labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    goalcover("calibrate", "run", "--labels", "labels.csv")
    record = json.loads(goalcover(*VALIDATE, "--value", "calibrated", "--recommend", "--json").out)
    assert record["value"] == "calibrated" and len(record["mended"]) == 3


def test_help_has_an_example(goalcover: Goalcover) -> None:
    said = goalcover("validate", "--help")
    assert "goalcover validate medical" in said.out
