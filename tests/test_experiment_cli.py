"""`goalcover experiment` from data to tables: a policy of a few kilobytes is trained, judges go by rules."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from command import Goalcover
from trained import letters, one_thread, response_in, write_reward
from writer import Writer, sentence

from goalcover_local import beside, pulling
from goalcover_local.cli import train
from goalcover_local.cli.dividing import DIVIDED
from goalcover_local.cli.experimenting import ENDED
from goalcover_local.cli.results import latest
from goalcover_local.cli.stages import STAGE, flags
from goalcover_local.cli.synthesize import _synthesize_run
from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.finetune import evaluate
from goalcover_local.finetune.policy import Policy
from goalcover_local.finetune.rewarding import Reward
from goalcover_local.finetune.rubric import LEVELS
from goalcover_local.phases.assess import assess
from goalcover_local.store import Run

CANARY = "Zwiebelkuchen4711"
CARD = """
name = "{name}"
title = "Tiny"
roles = ["judge", "policy"]
parameters = "20K"
licence = "Apache-2.0"
provenance = "Random numbers."
context = 2048
precision = "float32"
value = "expectation"
[source]
kind = "directory"
"""
GOAL = """\
goal = "Answer questions about ropes and bread"

[[subgoals]]
id = "ropes"
name = "Knots and ropes"
description = "Explains how to tie knots and join ropes."
target_share = 0.3

[[subgoals]]
id = "bread"
name = "Baking bread"
description = "Explains how dough for bread is made, proved and baked."
target_share = 0.6
"""
STUDY = """\
title = "Ropes and bread"
goal = "goal.toml"
reward = "letters"
policy = "tiny-policy"
judge = "tiny-judge"
evaluation_judge = "tiny-other"
alignment_judge = "tiny-judge"

[data]
group = "place"
train = 12
validation = 2
test = 6

[synthetic]
per_gap = 4

[training]
steps = 2
prompts_per_step = 2
responses_per_prompt = 2
max_tokens = 8
learning_rate = 1e-2
"""
ROWS = ["base", "original", "goal-aligned", "synthetic", "synthetic-original", "synthetic-goal-aligned"]
RUN = ("experiment", "rft", "study.toml", "rows.jsonl", "--run", "run")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One thread for all of this."""
    with one_thread():
        yield


class Judge(Writer):
    """Grades a response by its share of small letters, the other one by its signs; other questions as a writer does."""

    def __init__(self, card: str) -> None:
        super().__init__(card)
        self.graded_texts: list[str] = []
        self.fails_on = ""

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Probabilities of 1 and 5 whose mean is the rule's grade."""
        if tuple(answers) != LEVELS:
            return super().choose(prompts, answers)
        rows = np.full((len(prompts), len(answers)), np.nan)
        failures: list[str | None] = []
        for row, prompt in zip(rows, prompts, strict=True):
            text = prompt.messages[-1].content
            self.graded_texts.append(text)
            failures.append("scripted failure" if self.fails_on and self.fails_on in text else None)
            if not failures[-1]:
                share = (letters(response_in(prompt)) - 1) / 4
                share = 1 - share if self.card == "tiny-other" else share
                row[:] = [1 - share, 0, 0, 0, share]
        return Choices(rows, tuple(failures), len(prompts))


@pytest.fixture
def judges(
    goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_weights: Path
) -> dict[str, Judge]:
    """The judges by card; cards, study, goal, reward and rows are in the folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("GOALCOVER_HOME", str(home))
    (home / "cards").mkdir(parents=True)
    engines = {}
    for name in ("tiny-policy", "tiny-judge", "tiny-other"):
        (home / "cards" / f"{name}.toml").write_text(CARD.format(name=name), "utf-8")
        pulling.add(tiny_weights, name)
        engines[name] = Judge(name)
    for place in ("asking", "judges"):
        monkeypatch.setattr(f"goalcover_local.{place}.open_engine", lambda card, **_: engines[card.name])
    monkeypatch.setattr(evaluate, "RESAMPLES", 199)
    write_reward(tmp_path / "letters")
    (tmp_path / "goal.toml").write_text(GOAL, "utf-8")
    (tmp_path / "study.toml").write_text(STUDY, "utf-8")
    write_rows(tmp_path / "rows.jsonl", rows())
    return engines


def rows(n: int = 30) -> list[dict[str, Any]]:
    """Rows of which two in three are about ropes and one about nothing, three to a place; none is about bread."""
    found = []
    for k in range(n):
        asked = f"Which knots join ropes at the {sentence(k, n=5)} {CANARY}?"
        said = f"Tie both ropes. {sentence('rope', k)}"
        if k % 3 == 2:
            asked, said = f"Where is the {sentence('else', k, n=6)}?", f"In the street. {sentence('street', k)}"
        found.append({"id": f"r{k}", "place": f"p{k // 3}", "question": asked, "answer": said})
    return found


def write_rows(path: Path, found: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def silent(*texts: str) -> None:
    """Fails if a sample's text is told."""
    for text in texts:
        assert CANARY not in text and "Tie both ropes" not in text and "In the street" not in text


def told(run: str = "run") -> dict[str, Any]:
    """What the run's experiment.json holds."""
    found: dict[str, Any] = json.loads(
        (Path(run) / "experiment.json").read_text("utf-8"),
        parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
    )
    return found


def events(kind: str, run: str = "run") -> list[dict[str, Any]]:
    with Run.open(run, write=False) as opened:
        assert opened.verify_events() == []
        return [json.loads(event.details) for event in opened.events() if event.kind == kind]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the run that others are held against, once a test has made it."""
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def unbroken(goalcover: Goalcover, judges: dict[str, Judge], whole: Path) -> Iterator[Path]:
    """The folder of what an unbroken experiment printed; a copy of its run is in the folder `run`."""
    if not whole.exists():
        said = goalcover(*RUN)
        shutil.copytree("run", whole)
        (whole.parent / "out").write_text(said.out, "utf-8")
        (whole.parent / "err").write_text(said.err, "utf-8")
    else:
        shutil.copytree(whole, "run")
    for judge in judges.values():
        judge.forget()
        judge.graded_texts.clear()
    yield whole.parent


def test_from_data_to_tables(unbroken: Path) -> None:
    out, err = (unbroken / "out").read_text("utf-8"), (unbroken / "err").read_text("utf-8")
    found = told()
    assert found["sizes"] == {
        "original": 12, "goal-aligned": 8, "synthetic": 4, "synthetic-original": 16, "synthetic-goal-aligned": 12,
    }  # fmt: skip
    assert (found["not_trained"], found["n_test"], found["n_test_seen"]) == ({}, 6, 0)
    assert [each["name"] for each in found["trainings"]] == ROWS[1:]
    assert found["settings"]["steps"] == 2 and found["settings"]["responses_at_once"] == 2
    assert [each["judge"] for each in found["evaluations"]] == ["tiny-other", "tiny-judge"]
    assert [each["rewarded"] for each in found["evaluations"]] == [False, True]
    for each in found["evaluations"]:
        assert [row["policy"] for row in each["rows"]] == ROWS
        assert all(row["n"] == 6 and row["score"]["low"] <= row["score"]["value"] for row in each["rows"])
        pairs = {(one["part"], one["policy"], one["against"]) for one in each["comparisons"]}
        assert len(pairs) == 3 * 2 * 5 and ("judged", "base", "original") in pairs
        assert [(row["subgoal"], row["n"]) for row in each["subgoals"]] == [
            ("ropes", 4), ("bread", 0), ("none of them", 2),
        ]  # fmt: skip
        assert each["subgoals"][0]["rows"]["original"]["difference"] is None
        assert any("Each dataset was trained on once" in sentence for sentence in each["reading"])
    text = Path("run/experiment.md").read_text("utf-8")
    assert out == text
    for part in (
        "## Table 3",
        "| synthetic + goal-aligned | 12 |",
        "## Table 4",
        "## Table 5",
        "went through its rows",
    ):
        assert part in text
    for name in ("experiment-scores.svg", "experiment-subgoals.svg"):
        ElementTree.fromstring((Path("run") / name).read_text("utf-8"))
    assert "Kept: experiment.json, experiment.md and figures in run." in err
    with Run.open("run", write=False) as run:
        assert beside.files(run).others == (), "what was concluded is known to hold no text"
    silent(err, text, json.dumps(found), Path("run/experiment-subgoals.svg").read_text("utf-8"))
    with Run.open("run", write=False) as run:
        silent(*(event.details for event in run.events()))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path("run").glob("experiment*")}
    assert set(modes.values()) == {0o600} and len(modes) == 4


def test_the_data_are_divided_byte_for_byte_and_by_groups(unbroken: Path) -> None:
    original = Path("rows.jsonl").read_bytes().splitlines()
    parts = {part: Path(f"run/data/{part}.jsonl").read_bytes().splitlines() for part in ("train", "validation", "test")}
    assert {part: len(lines) for part, lines in parts.items()} == {"train": 12, "validation": 2, "test": 6}
    assert all(line in original for lines in parts.values() for line in lines)
    places = {part: {json.loads(line)["place"] for line in lines} for part, lines in parts.items()}
    assert not places["train"] & places["test"] and not places["validation"] & (places["train"] | places["test"])
    assert stat.S_IMODE(Path("run/data").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path("run/data").iterdir()} == {0o600}


def test_every_stage_is_shown_as_it_would_be_typed(unbroken: Path, goalcover: Goalcover) -> None:
    err = (unbroken / "err").read_text("utf-8")
    shown = [line.removeprefix("$ goalcover ") for line in err.splitlines() if line.startswith("$ ")]
    assert [line.split()[0] for line in shown] == [
        "assess",
        "analyze",
        "synthesize",
        "mix",
        *["train"] * 5,
        *["evaluate"] * 2,
    ]
    assert shown[0] == "assess goal.toml run/data/train.jsonl --run run --judge tiny-judge"
    assert shown[2] == "synthesize run -n 4 --holdout run/data/test.jsonl"
    assert shown[4].startswith(
        "train run/mix/original.jsonl --run run --name original --reward letters --policy tiny-policy"
    )
    assert "--steps 2 --prompts-per-step 2 --responses 2 --max-tokens 8" in shown[4]
    scores = {each["policy"]: each["score"]["value"] for each in told()["evaluations"][1]["rows"]}
    typed = goalcover(*shown[-1].split(), "--json")
    assert {each["policy"]: each["score"]["value"] for each in json.loads(typed.out)["policies"]} == pytest.approx(
        scores
    )


def test_what_has_ended_is_not_done_again(unbroken: Path, goalcover: Goalcover, judges: dict[str, Judge]) -> None:
    before = Path("run/experiment.json").read_bytes()
    said = goalcover(*RUN, "--json")
    assert said.err.count("done before.") == 1 + 4 + 5 + 1 and "$ goalcover" not in said.err
    assert said.out.encode() == before == Path("run/experiment.json").read_bytes()
    assert not any(judge.asked or judge.graded_texts for judge in judges.values())


class Killed(KeyboardInterrupt):
    """The end of an experiment in its middle."""


def test_stopped_and_killed_anywhere_it_comes_to_the_same(
    unbroken: Path, goalcover: Goalcover, judges: dict[str, Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = told()
    shutil.rmtree("run")

    def kill(*_: object, **__: object) -> None:
        raise Killed

    def killed_at(call: int, method: Callable[..., Any]) -> Callable[..., Any]:
        calls = iter(range(1000))
        return lambda *given, **options: kill() if next(calls) == call else method(*given, **options)

    said = goalcover(*RUN, "--max-hours", 1e-9, code=130)
    assert "Stopped by --max-hours" in said.err and said.out == ""
    stages: list[list[str]] = []
    for place, method, call in (
        ("goalcover_local.phases.assess.assess", assess, 0),
        ("goalcover_local.cli.synthesize._synthesize_run", _synthesize_run, 0),
        ("goalcover_local.finetune.rewarding.Reward.__call__", Reward.__call__, 3),
        ("goalcover_local.finetune.policy.Policy.respond", Policy.respond, 3),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, killed_at(call, method))
            said = goalcover(*RUN, "--max-hours", 1, code=130)
        assert "Interrupted" in said.err and not Path("run/experiment.json").exists()
        assert not stages or all(f"{stage}: done before." in said.err for stage in stages[-1])
        stages.append([each["stage"] for each in events(STAGE)])
    steps = ["assess", "analyze", "synthesize", "mix", *(f"train {row}" for row in ROWS[1:])]
    assert stages == [steps[:n] for n in (0, 2, 5, 9)]
    goalcover(*RUN)
    assert told() == expected


def test_without_a_synthetic_sample_its_rows_are_told_and_not_trained(
    goalcover: Goalcover, judges: dict[str, Judge]
) -> None:
    judges["tiny-judge"].graded = lambda _: 0.0
    said = goalcover(*RUN, "--steps", 1, "--json")
    found = json.loads(said.out)
    assert set(found["not_trained"]) == set(ROWS[3:])
    assert set(found["not_trained"].values()) == {"no rows: no synthetic sample was kept"}
    assert [each["name"] for each in found["trainings"]] == ROWS[1:3]
    assert [row["policy"] for row in found["evaluations"][0]["rows"]] == ROWS[:3]
    text = Path("run/experiment.md").read_text("utf-8")
    assert "- synthetic + original: not trained, no rows: no synthetic sample was kept." in text
    assert "| synthetic | 0 |" in text


def test_datasets_made_elsewhere_some_rows_and_two_seeds(
    unbroken: Path, goalcover: Goalcover, judges: dict[str, Judge]
) -> None:
    mixed = Path("elsewhere")
    shutil.copytree("run/mix", mixed)
    shutil.copy("run/data/test.jsonl", "test.jsonl")
    (mixed / "synthetic.jsonl").write_text("", "utf-8")
    (mixed / "synthetic-original.jsonl").unlink()
    write_rows(mixed / "synthetic-goal-aligned.jsonl", records(mixed / "goal-aligned.jsonl")[:1])
    how = ("experiment", "rft", "study.toml", "--mixed", mixed, "--test", "test.jsonl", "--run", "mine", "--steps", 1)
    goalcover(*how, "--rows", "original")
    assert list(told("mine")["not_trained"].values()) == ["left out by --rows"] * 4
    said = goalcover(*how, "--seeds", 2)
    assert "train original: done before." in said.err and "assess" not in said.err
    found = told("mine")
    assert found["not_trained"] == {
        "synthetic": "no rows",
        "synthetic-original": "no such file in the folder",
        "synthetic-goal-aligned": "1 rows, fewer than the 2 prompts of a step",
    }
    assert found["sizes"]["synthetic-original"] is None and found["seeds"] == [0, 1]
    names = ["original", "original-seed2", "goal-aligned", "goal-aligned-seed2"]
    assert sorted(each["name"] for each in found["trainings"]) == sorted(names)
    row = found["evaluations"][0]["rows"][1]
    assert row["policy"] == "original" and len(row["seeds"]) == 2 and row["spread"] is not None
    assert row["score"]["value"] == pytest.approx(np.mean(row["seeds"]), abs=1e-5)
    assert any("from training to training" in sentence for sentence in found["evaluations"][0]["reading"])


def test_failed_grades_are_missing_told_and_asked_again_when_wanted(
    unbroken: Path, goalcover: Goalcover, judges: dict[str, Judge]
) -> None:
    Path("study.toml").write_text(STUDY.replace("tiny-other", "tiny-judge"), "utf-8")
    with Run.open("run", write=True) as run, run._transaction() as database:
        database.execute("DELETE FROM answers")
    judges["tiny-judge"].fails_on = "street"
    goalcover(*RUN, code=3)
    found = told()["evaluations"]
    assert len(found) == 1 and found[0]["n_failed"] == 2 * len(ROWS)
    assert all((row["n"], row["n_failed"]) == (4, 2) for row in found[0]["rows"])
    assert (
        "12 grades failed and are left out; a missing grade is never the lowest."
        in Path("run/experiment.md").read_text()
    )
    judges["tiny-judge"].fails_on = ""
    goalcover(*RUN, code=3)
    goalcover(*RUN, "--retry-failed")
    assert told()["evaluations"][0]["n_failed"] == 0


def test_other_data_need_another_run(unbroken: Path, goalcover: Goalcover) -> None:
    write_rows(Path("rows.jsonl"), rows()[1:])
    said = goalcover.refused(*RUN)
    assert "was begun with other data" in said
    assert len(events(DIVIDED)) == 1 and len(events(ENDED)) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("study.toml", "--run", "run"), "Give DATA, or --mixed with --test"),
        (("study.toml", "rows.jsonl", "--mixed", "letters", "--run", "run"), "Give DATA, or --mixed with --test"),
        (
            ("study.toml", "--mixed", "letters", "--test", "rows.jsonl", "--run", "run", "--dry-run"),
            "--dry-run is of DATA",
        ),
        (("study.toml", "rows.jsonl", "--rows", "base", "--run", "run"), "base"),
    ],
)
def test_a_wrong_call_is_a_usage_error(
    goalcover: Goalcover, judges: dict[str, Judge], arguments: tuple[str, ...], words: str
) -> None:
    assert words in goalcover("experiment", "rft", *arguments, code=2).err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("train = 12", "train = 120", "30 rows that fit the study, too few: it lacks 99 for train"),
        ('group = "place"', 'group = "town"', "no column 'town'"),
        ('policy = "tiny-policy"', 'policy = "nobody"', "nobody"),
        ("steps = 2", "stepps = 2", "unknown key"),
        ("[data]", '[data]\ninput = ["query"]', "query"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(
    goalcover: Goalcover, judges: dict[str, Judge], before: str, after: str, words: str
) -> None:
    Path("study.toml").write_text(STUDY.replace(before, after), "utf-8")
    said = goalcover.refused(*RUN)
    assert words in said
    silent(said)


def test_settings_are_handed_on_as_options_a_nought_included() -> None:
    settings = {"kl": 0.0, "steps": 100, "warmup": 0, "checkpointing": True, "shuffled": False, "precision": ""}
    assert flags(train.command, {**settings, "unknown": 1, "max_tokens": None}) == ["--kl", "0.0", "--checkpointing"]


def test_a_folder_without_datasets_is_refused(goalcover: Goalcover, judges: dict[str, Judge]) -> None:
    said = goalcover.refused(
        "experiment", "rft", "study.toml", "--mixed", "letters", "--test", "rows.jsonl", "--run", "run"
    )
    assert "letters holds no dataset." in said


def test_a_dry_run_times_the_policy_and_writes_nothing(goalcover: Goalcover, judges: dict[str, Judge]) -> None:
    said = goalcover(*RUN, "--dry-run", "--json")
    found = json.loads(said.out)
    assert found["sizes"] == {
        part: {"asked": n, "there": n} for part, n in (("train", 12), ("validation", 2), ("test", 6))
    }
    assert (found["judgements"], found["trainings"], found["steps"], found["responses"]) == (18 * 2, 5, 10, 40)
    assert (found["test_responses"], found["test_grades"]) == (36, 36 * 2 * 2)
    assert found["seconds_per_step"] > 0 and found["prompt_tokens"]["longest"] > 10
    assert (found["missing_weights"], found["lacking"]) == ([], {})
    assert "Memory: " in said.err and not Path("run").exists()
    silent(said.err)


def test_a_dry_run_takes_the_time_of_trainings_that_the_run_holds(unbroken: Path, goalcover: Goalcover) -> None:
    said = goalcover(*RUN, "--dry-run", "--json")
    assert json.loads(said.out)["seconds_per_step"] > 0 and "Timing" not in said.err


def test_a_dry_run_of_the_papers_own_study_without_any_of_its_weights(goalcover: Goalcover, tmp_path: Path) -> None:
    reports = [{"report": f"{CANARY} " + sentence(k, n=60), "summary": sentence("sum", k)} for k in range(40)]
    write_rows(tmp_path / "reports.jsonl", reports)
    how = ("experiment", "rft", "financial", "reports.jsonl", "--run", "run", "--dry-run")
    said = goalcover(*how)
    silent(said.out, said.err)
    for policy in ("qwen3-14b", "llama-3.1-8b-instruct", "gemma-2-9b-it", "gpt-oss-20b"):
        assert f"Policy {policy}:" in said.err and policy in said.out.split("missing weights")[1]
    assert said.err.count("Memory: policy weights") == 4 and said.err.count("Not timed") == 4
    assert "train 0 of 9216, validation 0 of 256, test 40 of 256" in said.out and "9216 for train" in said.out
    assert "not counted" in said.out and "not timed" in said.out and not Path("run").exists()
    found = json.loads(goalcover(*how, "--json").out)
    assert found["lacking"] == {"train": 9216, "validation": 256, "test": 216}
    assert (found["trainings"], found["seconds_per_step"], found["prompt_tokens"]) == (5, None, None)
    assert found["steps"] == 5 * 288 and found["responses"] == 5 * 288 * 256


def test_the_end_is_on_record(unbroken: Path) -> None:
    with Run.open("run", write=False) as run:
        found = latest(run, ENDED) or {}
    assert found["n_failed"] == 0 and set(found["means"]) == set(ROWS)
    assert found["sizes"] == told()["sizes"]
