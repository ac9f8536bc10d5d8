"""`goalcover ablate` as users run it: one part left out or changed at a time, by engines that go by rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyst import Analyst
from command import ANSWERS, GOAL, Goalcover, checked_show
from sklearn.metrics import roc_auc_score

from goalcover_local.cli.ablate import ABLATED
from goalcover_local.cli.results import latest, values_of
from goalcover_local.engines.base import Choices, Completion, Grammar, Prompt
from goalcover_local.engines.guide import legal
from goalcover_local.goal_files.reading import read_goal
from goalcover_local.store import Run
from goalcover_local.studies import removals
from goalcover_local.terms import ANCHOR_TEXTS

CANARY = "Zwiebelkuchen4711"
STUDY = """\
goal = "goal.toml"
answers = "answers.toml"

[[removals]]
name = "Rope rows"
target = "ropes"
fields = ["question"]
terms = ["ropes"]

[[removals]]
name = "Bread rows"
target = "bread"
fields = ["question"]
terms = ["bread"]
"""
TOPICS = """\
[[exchanges]]
aspect = "topics"
answer = "joining ropes, dough"
"""
TEXTS = (
    ("Which knots join ropes {}?", "Tie knots in both ropes {} times."),
    ("How is bread baked {}?", "The dough for bread is made, proved and baked {} minutes."),
    (f"Where, {CANARY}, is the station {{}}?", "In street {}, on the left."),
    ("Where is the harbour {}?", "In street {}, on the right."),
)
N = 40
ABLATE = ("ablate", "study.toml", "data.jsonl", "--run", "run", "--draws", 200)


class Ablated(Analyst):
    """An analyst that says the same of everything without examples, and can be asked to reason first."""

    def describe(self) -> Mapping[str, str]:
        return {**super().describe(), "weights": f"ablated {self.unfit}"}

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        found = super().choose(prompts, answers)
        if tuple(answers) == ANCHOR_TEXTS:
            for row, prompt in zip(found.probabilities, prompts, strict=True):
                if len(prompt.messages) <= 2 and not np.isnan(row).any():
                    row[:] = 1 / len(row)
        return found

    def generate(
        self, prompts: Sequence[Prompt], grammar: Grammar, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Completion]:
        if len(prompts[0].messages) > 1 and prompts[0].prefill.startswith('{"explanation": '):
            self.before(prompts)
            text = next(
                answer[cut:] for answer in ANSWERS for cut in range(len(answer)) if legal(answer[cut:], grammar)
            )
            return [Completion(text, 5) for _ in prompts]
        return super().generate(prompts, grammar, max_tokens=max_tokens, temperature=temperature, seed=seed)


@pytest.fixture
def analyst(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ablated:
    """The engine of every model that the command opens; study, goal, answers and rows are in the folder."""
    engine = Ablated()
    monkeypatch.setattr("goalcover_local.judges.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.asking.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: None)
    (tmp_path / "goal.toml").write_text(GOAL, encoding="utf-8")
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "answers.toml").write_text(TOPICS, encoding="utf-8")
    rows = [dict(zip(("question", "answer"), (t.format(k) for t in TEXTS[k % 4]), strict=True)) for k in range(N)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    engine.written["subgoals"] = lambda _: {"names": ["Joining ropes", "Dough for bread", "Anything else"]}
    return engine


def ablated(goalcover: Goalcover, *options: object, code: int = 0) -> list[dict[str, Any]]:
    """The lines of the table as JSON."""
    said = goalcover(*ABLATE, *options, "--json", code=code)
    assert CANARY not in said.out + said.err
    found: list[dict[str, Any]] = json.loads(said.out)["variants"]
    return found


def n_asked(folder: str = "run") -> int:
    with Run.open(folder, write=False) as run:
        return run.n_asked()


# What is left out or changed


def test_nothing_to_leave_out_is_a_usage_error(goalcover: Goalcover, analyst: Ablated) -> None:
    said = goalcover(*ABLATE, code=2)
    assert "--without, --order or --score" in said.err and not Path("run").exists()


def test_the_table(goalcover: Goalcover, analyst: Ablated) -> None:
    said = goalcover(*ABLATE, "--without", "examples", "--score", "anchor")
    rows, header, *lines = [line.strip() for line in said.out.splitlines() if line.strip()]
    assert rows == f"{N} rows"
    assert "told apart" in header and "p < 0.01" in header
    told = [line for line in lines if line.startswith(("as it is", "score: anchor", "without examples"))]
    assert [line.split("  ")[0] for line in told] == ["as it is", "score: anchor", "without examples"]
    assert "1.000" in told[0] and "2 of 2" in told[0]
    assert "0.500" in told[2] and "0 of 2" in told[2]
    assert "Audit: " in said.err and CANARY not in said.out + said.err


@pytest.mark.parametrize(
    ("options", "name", "same_judge"),
    [
        (("--score", "anchor"), "score: anchor", True),
        (("--score", "expectation"), "score: expectation", True),
        (("--without", "examples"), "without examples", False),
        (("--without", "explanation"), "without explanation", True),
        (("--order", "score-first"), "score-first", True),
        (("--order", "reason-first"), "reason-first", False),
    ],
)
def test_each_change_of_the_judge(
    goalcover: Goalcover, analyst: Ablated, options: tuple[str, str], name: str, same_judge: bool
) -> None:
    usual, changed = ablated(goalcover, *options)
    assert (usual["variant"], changed["variant"]) == ("as it is", name)
    assert (changed["judge"] == usual["judge"]) is same_judge
    assert (changed["goal"], changed["subgoals"]) == (usual["goal"], ["ropes", "bread"])
    assert changed["targets"] == ["ropes", "bread"]
    assert (usual["value"], changed["value"]) == ("expectation", "score" if name == "score: anchor" else "expectation")
    assert usual["n_most_affected"] == usual["n_flagged"] == usual["n_removals"] == 2
    assert changed["n_flagged"] == (0 if name == "without examples" else 2)
    assert usual["n_failed"] == changed["n_failed"] == 0


def test_what_a_line_says_is_what_the_values_say(goalcover: Goalcover, analyst: Ablated) -> None:
    usual, by_score = ablated(goalcover, "--score", "anchor")
    goal = read_goal("goal.toml")
    masks = np.arange(N) % 4 == np.array([[0], [1]])
    with Run.open("run", write=False) as run:
        _, _, found = values_of(run, goal, usual["judge"], run.row_samples())
    for line, name in ((usual, "expectation"), (by_score, "score")):
        values = found[name]
        own = [roc_auc_score(mask, values[:, k]) for k, mask in enumerate(masks)]
        others = [roc_auc_score(mask, values[:, 1 - k]) for k, mask in enumerate(masks)]
        lost = [1 - values[~mask, k].mean() / values[:, k].mean() for k, mask in enumerate(masks)]
        assert line["apart_target"] == pytest.approx(np.mean(own), abs=1e-6)
        assert line["apart_others"] == pytest.approx(np.mean(others), abs=1e-6)
        assert line["target"] == pytest.approx(np.mean(lost), abs=1e-6)


def test_an_option_given_twice_is_one_line(goalcover: Goalcover, analyst: Ablated) -> None:
    options = ("--score", "anchor", "--without", "checks", "--order", "score-first")
    assert len(ablated(goalcover, *options, *options)) == 5


# Decomposed anew


@pytest.mark.parametrize("step", ["questions", "refinement", "checks"])
def test_a_step_left_out_stands_beside_all_steps(goalcover: Goalcover, analyst: Ablated, step: str) -> None:
    said = goalcover(*ABLATE, "--without", step, "--json")
    lines = json.loads(said.out)["variants"]
    assert [line["variant"] for line in lines] == [
        "as it is",
        "decomposed with all steps",
        f"decomposed without {step}",
    ]
    for line in lines[1:]:
        assert len(line["subgoals"]) == 3 and line["goal"] != lines[0]["goal"]
        assert line["targets"] == ["joining-ropes", "dough-for-bread"] and line["judge"] == lines[0]["judge"]
        assert f"{line['variant']}: Rope rows is for joining-ropes." in said.err


def test_without_checks_and_with_them_are_different_goals(goalcover: Goalcover, analyst: Ablated) -> None:
    analyst.written["subgoals"] = lambda _: {"names": ["Ropes and harbours", "Dough for bread", "Stations"]}
    _, whole, without = ablated(goalcover, "--without", "checks")
    assert without["subgoals"] == ["ropes-and-harbours", "dough-for-bread", "stations"]
    assert whole["subgoals"] == ["ropes", "harbours", "dough-for-bread", "stations"]


def test_every_step_by_itself_beside_all_steps_once(goalcover: Goalcover, analyst: Ablated) -> None:
    lines = ablated(goalcover, "--without", "checks", "--without", "questions")
    assert [line["variant"] for line in lines] == [
        "as it is",
        "decomposed with all steps",
        "decomposed without checks",
        "decomposed without questions",
    ]


def test_a_decomposition_that_is_the_studys_asks_nothing_anew(goalcover: Goalcover, analyst: Ablated) -> None:
    analyst.compound = "both"
    analyst.written["subgoals"] = lambda _: {"names": ["Knots and ropes", "Baking bread", "Stations"]}
    tables = "".join(
        f'\n[[subgoals]]\nid = "{name}"\nname = "{called}"\ndescription = "All about {called}."\n'
        f'evidence = "The input speaks of {called}."\n'
        for name, called in (("ropes", "Knots and ropes"), ("bread", "Baking bread"), ("stations", "Stations"))
    )
    Path("goal.toml").write_text('goal = "Answer questions"\n' + tables, encoding="utf-8")
    usual, whole, without = ablated(goalcover, "--without", "checks")
    assert whole["goal"] == without["goal"] and whole["targets"] == ["knots-and-ropes", "baking-bread"]
    names = ("target", "others", "apart_target", "apart_others", "n_flagged")
    assert [whole[name] for name in names] == [without[name] for name in names] == [usual[name] for name in names]
    assert n_asked() == N * 3


def test_a_goal_that_falls_to_less_than_two_subgoals_is_refused_before_anything_is_judged(
    goalcover: Goalcover, analyst: Ablated
) -> None:
    analyst.unfit = {"completeness", "atomicity", "overlap", "uncovered"}
    Path("answers.toml").write_text('[[exchanges]]\naspect = "topics"\nanswer = "ropes"\n', encoding="utf-8")
    refused = goalcover.refused(*ABLATE, "--without", "checks")
    assert "Decomposed with all steps, the goal has one subgoal, and two are needed." in refused
    assert "None" not in refused and n_asked() == 0
    refused = goalcover.refused(*ABLATE, "--without", "questions")
    assert "--judge" in refused


def test_answers_that_failed_in_a_decomposition_are_told(goalcover: Goalcover, analyst: Ablated) -> None:
    analyst.fails_on = "Stations"
    analyst.written["subgoals"] = lambda _: {"names": ["Joining ropes", "Dough for bread", "Stations"]}
    said = goalcover(*ABLATE, "--without", "checks", "--json", code=3)
    assert "answers failed: scripted failure." in said.err and "The same command asks for it again." in said.err
    assert [line["n_failed"] for line in json.loads(said.out)["variants"]] == [0, 0, 0]


# The run


def test_the_same_command_again_asks_nothing_and_says_the_same(goalcover: Goalcover, analyst: Ablated) -> None:
    options = ("--without", "examples", "--without", "questions", "--without", "checks", "--order", "reason-first")
    first = goalcover(*ABLATE, *options)
    before, told = n_asked(), len(analyst.asked)
    again = goalcover(*ABLATE, *options)
    assert n_asked() == before and len(analyst.asked) == told, "neither judge nor asker was asked again"
    assert again.out == first.out


def test_a_validation_in_the_same_folder_is_left_as_it_is(goalcover: Goalcover, analyst: Ablated) -> None:
    goalcover("validate", "study.toml", "data.jsonl", "--run", "run", "--draws", 200, "--value", "expectation")
    before, shown = n_asked(), checked_show(goalcover("show", "run", "--json").out)
    ablated(goalcover, "--score", "anchor")
    assert n_asked() == before, "the validation's judgements serve"
    ablated(goalcover, "--without", "checks", "--without", "examples")
    after = checked_show(goalcover("show", "run", "--json").out)
    changing = ("n_asked", "n_stored", "device_seconds")
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in shown.items() if k not in changing
    }
    with Run.open("run", write=False) as run:
        assert run.goal().digest == read_goal("goal.toml").digest and run.verify_events() == []


def test_stopped_within_a_decomposed_variant_the_runs_goal_is_still_its_own(
    goalcover: Goalcover, analyst: Ablated
) -> None:
    goalcover("validate", "study.toml", "data.jsonl", "--run", "run", "--draws", 200, "--value", "expectation")
    shown = json.loads(goalcover("show", "run", "--json").out)["subgoals"]

    def stop(prompts: Sequence[Prompt]) -> None:
        if "Dough for bread" in prompts[-1].messages[-1].content + prompts[1].messages[-1].content:
            raise KeyboardInterrupt

    whole = goalcover(*ABLATE[:-3], "whole", *ABLATE[-2:], "--without", "checks").out
    analyst.before = stop
    with Run.open("run", write=True) as run, Run.open("whole", write=False) as other:
        run.remember(dict(other.memory()))  # so that it stops while judging
    before = n_asked()
    goalcover(*ABLATE, "--without", "checks", code=130)
    assert n_asked() > before
    assert json.loads(goalcover("show", "run", "--json").out)["subgoals"] == shown
    analyst.before = len
    assert goalcover(*ABLATE, "--without", "checks").out == whole


def test_a_goal_edited_since_the_assessment_does_not_take_its_place(goalcover: Goalcover, analyst: Ablated) -> None:
    goalcover("assess", "goal.toml", "data.jsonl", "--run", "run", "--value", "expectation", "--explain", "none")
    Path("goal.toml").write_text(GOAL.replace("Explains how to tie", "Shows how to tie"), encoding="utf-8")
    ablated(goalcover, "--score", "anchor")
    assert "NOT FINISHED" not in goalcover("show", "run").out


def test_a_folder_of_ablations_alone_says_that_nothing_was_assessed(goalcover: Goalcover, analyst: Ablated) -> None:
    lines = ablated(goalcover, "--without", "examples", "--seed", 4)
    assert "Nothing was assessed in run." in goalcover.refused("show", "run")
    goalcover("status", "run")
    with Run.open("run", write=False) as run:
        told = latest(run, ABLATED) or {}
    assert told == {
        "goal": read_goal("goal.toml").digest,
        "judges": [line["judge"] for line in lines],
        "seed": 4,
        "n_rows": N,
    }
    agreed = goalcover("agree", "run", "--value", "expectation").out
    assert lines[0]["judge"][:8] in agreed and lines[1]["judge"][:8] in agreed


def test_out_of_time_it_goes_on_to_the_same(goalcover: Goalcover, analyst: Ablated) -> None:
    options = ("--without", "examples", "--without", "checks")
    whole = goalcover(*ABLATE[:-3], "whole", *ABLATE[-2:], *options).out
    asked = 0
    for _ in range(6):  # three batches for each of three variants; the last of one is followed by the next one's first
        said = goalcover(*ABLATE, *options, "--max-hours", "1e-9", code=130)
        assert "Stopped by --max-hours. The same command goes on from here." in said.err and said.out == ""
        assert n_asked() > asked, "every call gets on"
        asked = n_asked()
    assert goalcover(*ABLATE, *options, "--max-hours", "1e-9").out == whole
    assert n_asked() == n_asked("whole")


def test_interrupted_it_goes_on_to_the_same(goalcover: Goalcover, analyst: Ablated) -> None:
    options = ("--without", "examples", "--without", "refinement")
    batches: list[Sequence[Prompt]] = []
    analyst.before = batches.append
    whole = goalcover(*ABLATE[:-3], "whole", *ABLATE[-2:], *options).out
    for stop in (0, len(batches) // 2, len(batches) - 1):
        folder = f"stopped-{stop}"

        def before(_: Sequence[Prompt], left: Iterator[int] = iter(range(stop))) -> None:  # noqa: B008
            if next(left, None) is None:
                raise KeyboardInterrupt

        analyst.before = before
        said = goalcover(*ABLATE[:-3], folder, *ABLATE[-2:], *options, code=130)
        assert said.out == ""
        analyst.before = len
        assert goalcover(*ABLATE[:-3], folder, *ABLATE[-2:], *options).out == whole


# What fails or is not there


def test_a_variant_that_fails_everywhere_has_dashes(goalcover: Goalcover, analyst: Ablated) -> None:
    def failing(prompts: Sequence[Prompt]) -> None:
        analyst.fails_on = "Input" if len(prompts[0].messages) <= 2 else ""

    analyst.before = failing
    said = goalcover(*ABLATE, "--without", "examples", code=3)
    line = next(line.strip() for line in said.out.splitlines() if "without examples" in line)
    assert line.split()[2:7] == ["expectation", "–", "–", "–", "–"] and "0 of 2" in line
    assert f"{2 * N} judgements failed and are left out; --retry-failed asks again." in said.err
    usual, bare = ablated(goalcover, "--without", "examples", code=3)
    assert (bare["target"], bare["others"], bare["apart_target"], bare["n_failed"]) == (None, None, None, 2 * N)
    assert usual["n_failed"] == 0 and usual["target"] > 0
    analyst.before = len
    analyst.fails_on = ""
    _, bare = ablated(goalcover, "--without", "examples", "--retry-failed")
    assert bare["n_failed"] == 0 and bare["apart_target"] == 0.5


def test_failures_that_two_lines_share_are_counted_and_asked_once(goalcover: Goalcover, analyst: Ablated) -> None:
    analyst.fails_on = "harbour"
    said = goalcover(*ABLATE, "--score", "anchor", "--score", "expectation", "--json", code=3)
    lines = json.loads(said.out)["variants"]
    assert [line["n_failed"] for line in lines] == [20] * 3
    assert "20 judgements failed" in said.err
    before = n_asked()
    goalcover(*ABLATE, "--score", "anchor", "--score", "expectation", "--retry-failed", code=3)
    assert n_asked() == before + 20


def test_a_removal_without_its_column_does_not_shift_the_targets(goalcover: Goalcover, analyst: Ablated) -> None:
    texts = ["The bill costs $ 5 in health care.", "On roads.", "A budget.", "On medical aid.", "On ships.", "Names."]
    bills = [{"title": f"Bill {k}", "summary": text, "bill_id": str(k)} for k, text in enumerate(texts * 3)]
    Path("bills.jsonl").write_text("".join(json.dumps(each) + "\n" for each in bills), encoding="utf-8")
    study = removals.read_study(removals.find_study("legal"))
    shifted = removals.Study(
        study.name, study.goal, study.removals[::-1], study.input, study.output, study.exchanges, study.ships
    )
    assert shifted.removals[0].absent(bills), "the first is left out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("goalcover_local.studies.removals.read_study", lambda _: shifted)
        said = goalcover("ablate", "legal", "bills.jsonl", "--score", "anchor", "--draws", 100, "--json")
    assert "Left out: " in said.err
    targets = json.loads(said.out)["variants"][0]["targets"]
    assert targets == ["healthcare-terminology", "monetary-preservation"], "in the order of what is left"


def test_a_study_of_natural_gaps_alone_uses_all_of_them(goalcover: Goalcover, analyst: Ablated) -> None:
    Path("study.toml").write_text(STUDY.replace("terms", "keep = 0.2\nterms"), encoding="utf-8")
    usual, _ = ablated(goalcover, "--score", "anchor")
    assert (usual["n_removals"], usual["targets"]) == (2, ["ropes", "bread"])


def test_a_goal_of_one_subgoal_has_no_others_to_tell_of(goalcover: Goalcover, analyst: Ablated) -> None:
    Path("goal.toml").write_text(GOAL.partition('\n[[subgoals]]\nid = "bread"')[0], encoding="utf-8")
    Path("study.toml").write_text(STUDY.partition('\n[[removals]]\nname = "Bread')[0], encoding="utf-8")
    usual, _ = ablated(goalcover, "--score", "anchor")
    assert usual["apart_target"] == 1.0 and usual["apart_others"] is None and usual["others"] is None


def test_help_has_an_example(goalcover: Goalcover) -> None:
    assert "goalcover ablate medical" in goalcover("ablate", "--help").out
