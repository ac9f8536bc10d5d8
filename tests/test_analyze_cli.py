"""`analyze`, `recommend`, `run` and `status` as users run them: hostile, interrupted anywhere, and told plainly."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from analyst import Analyst
from command import Goalcover, checked_show, rows

from goalcover_local import chain
from goalcover_local.cli.results import ANALYZED, STARTED, latest
from goalcover_local.engines.base import Prompt
from goalcover_local.store import Run
from goalcover_local.terms import Explanation

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
target_share = {bread}

[[subgoals]]
id = "stars"
name = "Naming stars"
description = "Names constellations, planets, comets and their orbits."
target_share = {stars}
"""
TEXTS = (
    ("Which knots join ropes {}?", "Tie knots in both ropes {} times."),
    ("How is bread baked {}?", "The dough for bread is made, proved and baked {} minutes."),
    ("Where is the station {}?", f"In street {{}}, on the left: {CANARY}."),
    ("Where is the harbour {}?", f"In street {{}}, on the right: {CANARY}."),
)
WORK = ("score", "subject", "alignment", "missing-capability", "recommendation")
"""What is asked for a run; the rest is asked to prove a model."""
ASSESS = ("goal.toml", "data.jsonl", "--run")


def many(n: int) -> list[tuple[str, str]]:
    """Different rows: a quarter on ropes, a quarter on bread, none on stars."""
    return [(question.format(k), answer.format(k)) for k in range(n) for question, answer in [TEXTS[k % 4]]]


@pytest.fixture
def analyst(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Analyst:
    """The engine of every model that the command opens; a goal and 20 rows are in the folder."""
    engine = Analyst()
    monkeypatch.setattr("goalcover_local.judges.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.asking.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: None)
    goal(tmp_path / "goal.toml")
    rows(tmp_path / "data.jsonl", *many(20))
    return engine


def goal(path: Path, *, bread: float = 0.7, stars: float = 0.4) -> Path:
    """A goal file of these target shares, which decide on the verdicts."""
    path.write_text(GOAL.format(bread=bread, stars=stars), encoding="utf-8")
    return path


def asked(engine: Analyst) -> int:
    """How many answers were asked for that a run needs."""
    return sum(engine.times(name) for name in WORK)


def results(goalcover: Goalcover, run: str) -> tuple[str, Any, Any]:
    """What a run amounts to: its export, gaps and recommendations, the folder's name aside."""
    told = [json.loads(goalcover(command, run, "--json").out) for command in ("analyze", "recommend")]
    return goalcover("export", run).out, told[0]["gaps"], told[1]["recommendations"]


def explained(run: str, *texts: str) -> None:
    """Nothing; puts these explanations of what the first rows lack of bread and stars."""
    with Run.open(run, write=True) as opened:
        [judge] = opened.judges()
        digests = [row.digest for row in opened.rows()]
        for subgoal in opened.goal().subgoals[1:]:
            told = [Explanation(each, subgoal.digest, text, "{}") for each, text in zip(digests, texts, strict=False)]
            opened.append_explanations(judge, told)


# In one go


def test_run_assesses_analyzes_and_recommends(goalcover: Goalcover, analyst: Analyst) -> None:
    said = goalcover("run", *ASSESS, "run")
    for shown in ("rows that say so", "Wholly absent: no row reaches support, of 20 (target 40%)", "Issue: ", "Fix: "):
        assert shown in said.out
    assert "5 of 20 rows reach support (target 70%)" in said.out
    assert CANARY not in said.err and CANARY.lower() not in said.err
    shown = json.loads(goalcover("run", *ASSESS, "run", "--json").out)
    assert [gap["subgoal"] for gap in shown["gaps"]] == ["bread", "stars"]
    assert [each["subgoal"] for each in shown["recommendations"]] == ["bread", "stars"]
    assert shown["gaps"] == json.loads(goalcover("analyze", "run", "--json").out)["gaps"]
    assert shown["recommendations"] == json.loads(goalcover("recommend", "run", "--json").out)["recommendations"]
    coverage = {name: value for name, value in shown.items() if name not in ("gaps", "recommendations")}
    assert (
        checked_show(json.dumps(coverage))["subgoals"]
        == checked_show(goalcover("show", "run", "--json").out)["subgoals"]
    )


def test_run_twice_equals_once_and_asks_nothing_again(goalcover: Goalcover, analyst: Analyst) -> None:
    once = goalcover("run", *ASSESS, "once", "--json").out
    n_asked = asked(analyst)
    assert goalcover("run", *ASSESS, "once", "--json").out == once
    assert asked(analyst) == n_asked
    first = results(goalcover, "once")
    assert asked(analyst) == n_asked
    goalcover("run", *ASSESS, "twice")
    goalcover("run", *ASSESS, "twice")
    assert results(goalcover, "twice") == first


def test_run_equals_its_three_commands(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("run", *ASSESS, "one")
    goalcover("assess", *ASSESS, "three")
    goalcover("analyze", "three")
    goalcover("recommend", "three")
    assert results(goalcover, "three") == results(goalcover, "one")


def test_explanations_may_be_left_to_the_analysis(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("run", *ASSESS, "low")
    goalcover("assess", *ASSESS, "later", "--explain", "none")
    assert goalcover("status", "later").out.count("explanations      none") == 1
    assert results(goalcover, "later") == results(goalcover, "low")


def test_interrupted_at_any_batch_and_continued_it_equals_an_unbroken_run(
    goalcover: Goalcover, analyst: Analyst
) -> None:
    goalcover("run", *ASSESS, "fitted")  # the model's scale and fitness are measured once
    batches: list[int] = []
    names: list[str] = []

    def noting(prompts: Sequence[Prompt]) -> None:
        batches.append(len(prompts))
        names.append(prompts[0].messages[0].content[:30])

    analyst.before = noting
    before = asked(analyst)
    goalcover("run", *ASSESS, "unbroken")
    n_asked = asked(analyst) - before
    n_batches = len(batches)
    assert len(set(names)) == 4, "judging and explaining, naming subjects, analyzing, recommending"
    expected = results(goalcover, "unbroken")
    for stop in range(n_batches):
        count = 0

        def stopping(prompts: Sequence[Prompt], stop: int = stop) -> None:
            nonlocal count
            count += 1
            if count == stop + 1:
                raise KeyboardInterrupt

        folder = f"stopped-{stop}"
        before, analyst.before = asked(analyst), stopping
        said = goalcover("run", *ASSESS, folder, code=130)
        assert "the same command goes on" in said.err and CANARY not in said.err
        analyst.before = len
        goalcover("run", *ASSESS, folder)
        # An interrupt comes before the batch counts as asked; subjects are of the batch that they begin.
        again = batches[stop - 1] if stop and names[stop - 1].startswith("Name the subject") else 0
        assert asked(analyst) - before == n_asked + again
        assert results(goalcover, folder) == expected, stop
        with Run.open(folder, write=False) as run:
            assert run.verify_events() == []


def test_a_run_that_ran_out_of_time_prints_json_when_asked_for_it(goalcover: Goalcover, analyst: Analyst) -> None:
    rows(Path("data.jsonl"), *many(40))
    said = goalcover("run", *ASSESS, "run", "--max-hours", "1e-9", "--json", code=130)
    assert json.loads(said.out)["run"] == "run"
    assert "goes on from here" in said.err
    again = goalcover("run", *ASSESS, "run", "--json")
    assert json.loads(again.out)["gaps"]


def test_a_model_that_is_not_known_is_refused_before_anything_is_asked(goalcover: Goalcover, analyst: Analyst) -> None:
    assert "nobody" in goalcover.refused("run", *ASSESS, "run", "--analyst", "nobody")
    assert asked(analyst) == 0
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    n_asked = asked(analyst)
    assert "nobody" in goalcover.refused("analyze", "run", "--analyst", "nobody")
    assert asked(analyst) == n_asked


# Analyze


def test_evidence_is_told_with_ids_of_the_data(goalcover: Goalcover, analyst: Analyst) -> None:
    pairs = many(20)
    rows(Path("data.jsonl"), *pairs, *pairs[2:4] * 3)
    gaps = json.loads(goalcover("run", *ASSESS, "run", "--json").out)["gaps"]
    with Run.open("run", write=False) as run:
        ids = {row.id: row for row in run.rows()}
        order = list(ids)
        counted: dict[str, int] = {}
        for row in run.rows():
            counted[row.digest] = counted.get(row.digest, 0) + 1
    assert {gap["subgoal"]: gap["n_judged"] for gap in gaps} == {"bread": 26, "stars": 26}
    for gap in gaps:
        assert gap["n_low"] == gap["n_judged"] - gap["n_support"]
        assert gap["n_explained"] == gap["n_low"] - 6, "a sample is explained once"
        assert gap["missing"] and gap["instead"]
        for each in (*gap["missing"], *gap["instead"]):
            assert each["ids"] == sorted(each["ids"], key=order.index)
            assert each["n_rows"] == sum(counted[ids[identity].digest] for identity in each["ids"])
            assert 1 <= len(each["quotations"]) <= 3
            for quotation in each["quotations"]:
                assert quotation["id"] in each["ids"] and each["name"] in quotation["text"]


def test_no_gap_is_said(goalcover: Goalcover, analyst: Analyst) -> None:
    goal(Path("goal.toml"), bread=0.05, stars=0.001)
    goalcover("assess", *ASSESS, "run")
    assert "No gap: every subgoal is covered or undecided" in goalcover("analyze", "run").out
    assert goalcover("recommend", "run").out == "No gap, so there is nothing to recommend.\n"
    assert json.loads(goalcover("analyze", "run", "--json").out)["gaps"] == []
    assert (analyst.times("missing-capability"), analyst.times("recommendation")) == (0, 0)


def test_of_an_unfinished_assessment_no_gap_is_not_simply_said(goalcover: Goalcover, analyst: Analyst) -> None:
    rows(Path("data.jsonl"), *many(40))
    goalcover("assess", *ASSESS, "run", "--max-hours", "1e-9", code=130)
    said = goalcover("analyze", "run")
    assert "still to be judged" in said.out + said.err


def test_the_papers_rule(goalcover: Goalcover, analyst: Analyst) -> None:
    goal(Path("goal.toml"), bread=0.05, stars=0.001)
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    gaps = json.loads(goalcover("analyze", "run", "--rule", "mean", "--json").out)["gaps"]
    assert [gap["subgoal"] for gap in gaps] == ["ropes", "bread", "stars"], "each mean is below 0.6"
    assert json.loads(goalcover("recommend", "run", "--json").out)["recommendations"]
    assert json.loads(goalcover("analyze", "run", "--rule", "mean", "--tau", "0", "--json").out)["gaps"] == []


def test_a_subgoal_by_name_gap_or_not(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    gaps = json.loads(goalcover("analyze", "run", "--subgoal", "ropes", "--json").out)["gaps"]
    assert [gap["subgoal"] for gap in gaps] == ["ropes"]
    assert analyst.times("alignment") == 15, "its low rows alone were explained"
    both = goalcover("analyze", "run", "--subgoal", "stars", "--subgoal", "bread", "--json").out
    assert [gap["subgoal"] for gap in json.loads(both)["gaps"]] == ["bread", "stars"]


def test_an_unknown_subgoal_is_a_usage_error(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    n_asked = asked(analyst)
    said = goalcover("analyze", "run", "--subgoal", "moons", code=2)
    assert "moons" in said.err and "ropes, bread, stars" in said.err and said.out == ""
    assert asked(analyst) == n_asked
    with Run.open("run", write=False) as run:
        assert latest(run, ANALYZED) is None


def test_without_explaining_the_judge_is_not_asked(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    shown = json.loads(goalcover("analyze", "run", "--no-explain", "--json").out)["gaps"]
    assert analyst.times("alignment") == 0
    assert [(gap["n_low"], gap["n_explained"], gap["missing"]) for gap in shown] == [(15, 0, []), (20, 0, [])]
    said = goalcover("analyze", "run", "--no-explain").out
    assert "Wholly absent: no row reaches support, of 20" in said and "0 explanations read" in said


def test_all_low_rows_on_demand_and_none_is_explained_twice(
    goalcover: Goalcover, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(Path("data.jsonl"), *many(60))
    monkeypatch.setattr("goalcover_local.phases.assess.EXPLAINED_PER_SUBGOAL", 20)
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    some = json.loads(goalcover("analyze", "run", "--json").out)["gaps"]
    assert [gap["n_explained"] for gap in some] == [20, 20]
    assert analyst.times("alignment") == 40
    every = json.loads(goalcover("analyze", "run", "--all-low", "--json").out)["gaps"]
    assert [(gap["n_low"], gap["n_explained"]) for gap in every] == [(45, 45), (60, 60)]
    assert json.loads(goalcover("analyze", "run", "--json").out)["gaps"] == some
    assert analyst.times("alignment") <= 105 + 15, "beyond a batch in flight nothing is written twice"


def test_all_low_rows_are_counted_where_a_sample_of_them_is_read(
    goalcover: Goalcover, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goalcover_local.phases.assess.EXPLAINED_PER_SUBGOAL", 5)
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    gaps = json.loads(goalcover("analyze", "run", "--json").out)["gaps"]
    assert [(gap["n_low"], gap["n_explained"]) for gap in gaps] == [(15, 5), (20, 5)]


def test_another_value_may_be_analyzed_and_is_recommended_upon(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run")
    goalcover("analyze", "run", "--value", "score")
    goalcover("recommend", "run")
    with Run.open("run", write=False) as run:
        told = latest(run, ANALYZED)
        assert told is not None and told["value"] == "score"
        assert [gap.n_judged for gap in run.gaps()] == [20] * len(run.gaps())


# What fails


def test_failed_answers_are_told_and_asked_again(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("run", *ASSESS, "whole")
    goalcover("assess", *ASSESS, "run")
    analyst.fails_on = "constellations"
    said = goalcover("analyze", "run", code=3)
    assert re.search(r"\d+ answers failed: scripted failure\.", said.err) and "asks for it again" in said.err
    assert "Wholly absent" in said.out
    analyst.fails_on = ""
    assert results(goalcover, "run") == results(goalcover, "whole")
    analyst.fails_on = "Naming stars"
    assert json.loads(goalcover("recommend", "run", "--json").out)["recommendations"], "it is remembered"
    goalcover("assess", *ASSESS, "other")
    goalcover("analyze", "other", code=3)
    said = goalcover("recommend", "other", "--json", code=3)
    assert [each["author"] != "" for each in json.loads(said.out)["recommendations"]] == [True, False]
    assert "failed: scripted failure" in said.err


def test_explanations_that_the_judge_could_not_write_are_told(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    analyst.fails_on = "station 2?"
    said = goalcover("analyze", "run", "--json", code=3)
    assert "2 answers failed: the judge wrote no legal explanation." in said.err
    assert [gap["n_explained"] for gap in json.loads(said.out)["gaps"]] == [14, 19]
    analyst.fails_on = ""
    again = json.loads(goalcover("analyze", "run", "--json").out)["gaps"]
    assert [gap["n_explained"] for gap in again] == [15, 20]


def test_a_judgement_that_failed_is_no_row_that_was_not_drawn(goalcover: Goalcover, analyst: Analyst) -> None:
    analyst.fails_on = "station 2?"
    said = goalcover("run", *ASSESS, "run", "--json", code=3)
    told = json.loads(said.out)["recommendations"]
    assert said.err.count("judgements failed") == 1
    assert not any("not drawn" in action["text"] for each in told for action in each["actions"])


def test_rows_that_were_not_drawn_come_first(goalcover: Goalcover, analyst: Analyst) -> None:
    rows(Path("data.jsonl"), *many(60))
    told = json.loads(goalcover("run", *ASSESS, "run", "--limit", 40, "--json").out)["recommendations"]
    for each in told:
        assert each["actions"][0]["remedy"] == "assess" and each["actions"][0]["n_rows"] == 20


def test_a_model_that_is_not_fit_is_told_of_and_not_asked(
    goalcover: Goalcover, analyst: Analyst, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    analyst.unfit = {"overlap"}
    said = goalcover("run", *ASSESS, "run", "--json")
    assert "is not fit to write issue and fix" in said.err
    assert analyst.times("recommendation") == 0
    assert {each["author"] for each in json.loads(said.out)["recommendations"]} == {""}


# In their order


def test_nothing_comes_before_what_it_rests_on(goalcover: Goalcover, analyst: Analyst) -> None:
    for command in ("analyze", "recommend", "status"):
        assert "There is no run in nowhere." in goalcover.refused(command, "nowhere")
    with Run.open("empty", write=True, create=True):
        pass
    for command in ("analyze", "recommend"):
        assert "goalcover" in goalcover.refused(command, "empty")
    goalcover("assess", *ASSESS, "run")
    assert "goalcover analyze run" in goalcover.refused("recommend", "run")


def test_gaps_of_an_earlier_assessment_are_not_recommended_upon(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("run", *ASSESS, "run")
    goal(Path("goal.toml"), bread=0.6)
    goalcover("assess", *ASSESS, "run")
    said = goalcover.refused("recommend", "run")
    assert "are of an earlier assessment" in said and "goalcover analyze run" in said
    told = json.loads(goalcover("status", "run", "--json").out)
    assert told["analyze"] == "of an earlier assessment" and told["next"] == "goalcover analyze run"
    goalcover("analyze", "run")
    goalcover("recommend", "run")


def test_gaps_of_an_assessment_that_went_on_are_not_recommended_upon(goalcover: Goalcover, analyst: Analyst) -> None:
    rows(Path("data.jsonl"), *many(60))
    goalcover("assess", *ASSESS, "run", "--max-hours", "1e-9", code=130)
    goalcover("assess", *ASSESS, "run", "--max-hours", "1e-9", code=130)
    goalcover("analyze", "run")
    with Run.open("run", write=False) as run:
        assert all(gap.n_judged < 60 for gap in run.gaps())
    goalcover("assess", *ASSESS, "run")
    assert json.loads(goalcover("status", "run", "--json").out)["next"] == "goalcover analyze run"
    assert "goalcover analyze run" in goalcover.refused("recommend", "run")


def test_a_new_analysis_takes_the_recommendations_of_the_old_one_away(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("run", *ASSESS, "run")
    goalcover("analyze", "run", "--subgoal", "bread")
    told = json.loads(goalcover("status", "run", "--json").out)
    assert (told["recommend"], told["next"]) == (0, "goalcover recommend run")


def test_what_another_judge_would_write_is_refused(
    goalcover: Goalcover, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    before = analyst.describe()
    monkeypatch.setattr(analyst, "describe", lambda: {**before, "weights": "others", "transformers": "99"})
    said = goalcover.refused("analyze", "run")
    assert "cannot be opened here as it was: weights differ" in said or "transformers" in said
    assert analyst.times("alignment") == 0
    monkeypatch.setattr(analyst, "describe", lambda: before)
    goalcover("analyze", "run")


def test_a_judge_whose_card_is_gone_is_refused_where_it_is_needed(goalcover: Goalcover, analyst: Analyst) -> None:
    """What is counted alone needs no model."""
    before = analyst.describe()
    analyst.describe = lambda: {**before, "card": "gone"}  # type: ignore[method-assign]
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    assert "no card named 'gone'" in goalcover.refused("analyze", "run")
    goalcover("analyze", "run", "--no-explain", "--analyst", "smollm2-135m-instruct")
    told = json.loads(goalcover("recommend", "run", "--plain", "--json").out)["recommendations"]
    assert [each["author"] for each in told] == ["", ""]


def test_plain_asks_no_model(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run")
    goalcover("analyze", "run")
    told = json.loads(goalcover("recommend", "run", "--plain", "--json").out)["recommendations"]
    assert analyst.times("recommendation") == 0
    assert told[1]["issue"].startswith("No row of 20 supports “Naming stars”")
    assert {action["remedy"] for action in told[1]["actions"]} == {"curate", "synthesize"}


# Status


def test_status_names_the_next_command_at_every_stage(goalcover: Goalcover, analyst: Analyst) -> None:
    def stage() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(goalcover("status", "run", "--json").out)
        assert told["audit trail"]["problems"] == [] and told["next"] in goalcover("status", "run").out
        return told

    rows(Path("data.jsonl"), *many(40))
    with Run.open("run", write=True, create=True):
        pass
    assert stage()["next"] == "goalcover assess GOAL DATA --run run"
    goalcover("assess", *ASSESS, "run", "--max-hours", "1e-9", code=130)
    half = stage()
    assert half["next"].startswith("the same goalcover assess again") and half["analyze"] == "none"
    assert half["assess"]["judged"] < half["assess"]["of"] == 120
    assert half["next"].endswith(f": {120 - half['assess']['judged']} pairs are still to be judged")
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    done = stage()
    assert done["next"] == "goalcover analyze run" and done["assess"]["judged"] == 120
    assert done["rows"] == {"used": 40, "different": 40, "refused": 0}
    assert Path(done["data"]) == Path("data.jsonl").absolute() and done["judge"] == "smollm2-135m-instruct"
    assert done["verdicts"]["gap"] == 2 and done["explanations"] == 0
    goalcover("analyze", "run")
    analyzed = stage()
    assert (analyzed["analyze"], analyzed["next"]) == ("gaps: bread, stars", "goalcover recommend run")
    assert analyzed["explanations"] == 70
    goalcover("recommend", "run")
    recommended = stage()
    assert recommended["next"].startswith("goalcover synthesize run") and recommended["recommend"] == 2
    goal(Path("goal.toml"), bread=0.05, stars=0.001)
    goalcover("run", *ASSESS, "run")
    assert stage()["analyze"] == "no gap"
    assert stage()["next"] == "judge more rows: stars are undecided; or goalcover filter run -o aligned.jsonl"


def test_status_tells_failed_judgements_and_a_broken_trail(goalcover: Goalcover, analyst: Analyst) -> None:
    analyst.fails_on = "station 2?"
    goalcover("assess", *ASSESS, "run", code=3)
    told = json.loads(goalcover("status", "run", "--json").out)
    assert told["assess"] == {"judged": 57, "failed": 3, "of": 60}
    assert "--retry-failed: 3 judgements failed" in told["next"]
    with Run.open("run", write=True) as run, run._transaction() as database:
        database.execute("UPDATE events SET who = 'nobody' WHERE seq = 1")
    assert "BROKEN: Event 1 was altered" in goalcover("status", "run").out


def test_status_of_a_run_whose_record_was_emptied_says_that_the_trail_is_broken(
    goalcover: Goalcover, analyst: Analyst
) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    with Run.open("run", write=True) as run, run._transaction() as database:
        database.execute("UPDATE events SET details = '{}' WHERE seq = 2")
    assert "BROKEN: Event 2 was altered" in goalcover("status", "run").out


def test_status_prints_no_escape_that_stands_in_a_path(goalcover: Goalcover, analyst: Analyst) -> None:
    data = Path("data.jsonl").rename("da\x1b]0;title\x07ta.jsonl")
    goalcover("assess", "goal.toml", data, "--run", "run", "--explain", "none")
    assert not {"\x1b", "\x07"} & {*goalcover("status", "run").out}


def test_a_command_that_status_names_can_be_copied(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "my run")
    told = json.loads(goalcover("status", "my run", "--json").out)
    assert shlex.split(told["next"])[:3] == ["goalcover", "analyze", "my run"]


def test_status_changes_nothing(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("run", *ASSESS, "run")
    before = Path("run", "run.sqlite").read_bytes()
    goalcover("status", "run")
    assert Path("run", "run.sqlite").read_bytes() == before


# Texts


HOSTILE = (
    "\x1b[31mlacks dough\x1b]0;title\x07 \x9b2J\x00",
    "</remarks>\nCapability: lacks dough\u2028and more",
    "lacks dough " + "x" * 100_000,
    "",
    "パン生地 lacks dough",
    "عجين lacks dough",
    "[bold red]lacks dough[/] {name} %s ${remarks}",
)


def test_hostile_explanations_break_nothing_and_reach_no_terminal(goalcover: Goalcover, analyst: Analyst) -> None:
    data = [json.dumps({"id": f"id\x1b[2J\x9b{n}", "question": q, "answer": a}) for n, (q, a) in enumerate(many(20))]
    Path("data.jsonl").write_text("\n".join(data), encoding="utf-8")
    goalcover("assess", *ASSESS, "run", "--explain", "none", "--id-column", "id")
    explained("run", *(HOSTILE[n % len(HOSTILE)] for n in range(20)))
    analyst.written["recommendation"] = lambda texts: {"issue": f"No {texts['missing']}.", "fix": "Do.", "sources": ""}
    for command in (["analyze", "run", "--no-explain"], ["recommend", "run"], ["status", "run"]):
        said = goalcover(*command)
        assert not {"\x1b", "\x07", "\x9b", "\x00"} & {*said.out, *said.err}
        assert "dough" not in said.err and max(map(len, said.out.splitlines())) < 1000
    for command in (["analyze", "run", "--no-explain", "--json"], ["recommend", "run", "--json"]):
        said = goalcover(*command)
        assert json.loads(said.out) and not {"\x1b", "\x07", "\x00"} & {*said.out, *said.err}
    with Run.open("run", write=False) as run:
        assert [each.name for gap in run.gaps() for each in gap.missing] == ["dough", "dough"]


def test_halves_of_surrogates_break_nothing(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    explained("run", *["lacks dough \ud800"] * 20)
    assert "lacks dough" in goalcover("analyze", "run", "--no-explain").out
    [first, _] = json.loads(goalcover("analyze", "run", "--no-explain", "--json").out)["gaps"]
    assert first["missing"][0]["name"] == "dough" and first["n_explained"] == 15


def test_brackets_in_an_explanation_are_text(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("assess", *ASSESS, "run", "--explain", "none")
    explained("run", *["[bold]lacks dough[/bold] :smile:"] * 20)
    assert "[bold]lacks dough[/bold] :smile:" in goalcover("analyze", "run", "--no-explain").out


def test_the_chain_of_events_holds_no_text(goalcover: Goalcover, analyst: Analyst) -> None:
    goalcover("run", *ASSESS, "run", "--rule", "mean")
    with Run.open("run", write=False) as run:
        events = run.events()
        gaps = run.gaps()
        assert run.verify_events() == []
    assert {STARTED, ANALYZED} < {event.kind for event in events}
    said = "".join(event.details + event.kind + event.command for event in events).lower()
    texts = [
        CANARY,
        "constellations",
        "Baking bread",
        "Tells of",
        *(each.name for gap in gaps for each in gap.missing if each.name not in ("ropes", "bread", "stars")),
    ]
    assert not [text for text in texts if text.lower() in said]
    details = json.loads(next(event for event in events if event.kind == ANALYZED).details)
    assert details["gaps"] == ["ropes", "bread", "stars"] and details["n_failed"] == 0 and details["rule"] == "mean"
    assert all(len(str(value)) <= chain.LONGEST_DETAIL for value in details.values())


def test_no_sample_text_on_stderr(goalcover: Goalcover, analyst: Analyst) -> None:
    analyst.written["missing-capability"] = lambda _: {"missing": "station", "instead": f"{CANARY} station"}
    analyst.fails_on = "station 2?"
    said = [goalcover("run", *ASSESS, "run", code=3), goalcover("analyze", "run"), goalcover("recommend", "run")]
    analyst.before = lambda _: (_ for _ in ()).throw(RuntimeError(CANARY))
    said.append(goalcover("run", *ASSESS, "broken", code=1))
    for each in said:
        assert CANARY not in each.err and "station" not in each.err


# Damage


@pytest.mark.parametrize("when", ["put_gaps", "event"])
def test_an_analysis_that_dies_while_it_is_stored_leaves_no_half_of_it(
    goalcover: Goalcover, analyst: Analyst, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What is stored as gaps and what the chain says of them are of one analysis, or recommend says so."""
    goalcover("run", *ASSESS, "run")

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, when, dies)
        goalcover("analyze", "run", "--value", "score", "--subgoal", "ropes", code=130)
    with Run.open("run", write=False) as run:
        told, gaps = latest(run, ANALYZED), [gap.subgoal for gap in run.gaps()]
    assert told is not None
    if told["gaps"] != gaps:
        assert "goalcover analyze run" in goalcover.refused("recommend", "run")
