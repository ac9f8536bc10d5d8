"""`goalcover evaluate` as users run it: random policies of a few kilobytes, judges that go by rules, no text told."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from analyst import Analyst
from command import GOAL, Goalcover
from trained import letters, response_in, write_reward

from goalcover_local import pulling
from goalcover_local.cards import load_card
from goalcover_local.cli.belonging import NONE
from goalcover_local.cli.evaluate import ENDED
from goalcover_local.cli.results import latest
from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.finetune import evaluate, responding
from goalcover_local.finetune.checkpoints import policy_files
from goalcover_local.finetune.policy import Policy, Written
from goalcover_local.finetune.rubric import LEVELS, load_rubric
from goalcover_local.store import Run
from goalcover_local.terms import Sample
from goalcover_local.trainings import Trainings
from goalcover_local.weights import verify

CANARY = "Zwiebelkuchen4711"
CARD = """
name = "{name}"
title = "Tiny"
roles = ["judge", "policy"]
parameters = "20k"
licence = "Apache-2.0"
provenance = "Random numbers."
context = 2048
precision = "float32"
[source]
kind = "directory"
"""
KINDS: Sequence[Any] = ("ropes", ["ropes", "bread"], "bread", None)
TEXTS = (
    ("Which knots join ropes {}?", "Tie knots in both ropes {} times."),
    ("Do ropes help baking bread {}?", "Knots of dough, tie ropes of bread, bake {} times."),
    ("How is bread baked {}?", "The dough for bread is proved and baked {} minutes."),
    ("Where is the station {}?", "In street {}, on the left."),
)
N = 8
SECRET = f"Where is the loo, {CANARY}?"
EVALUATE = ("evaluate", "run", "test.jsonl", "--seed", 3)


class Judge(Analyst):
    """Grades a response by its share of small letters, and fails where the word in `fails_on` stands."""

    def __init__(self, card: str) -> None:
        super().__init__(card)
        self.graded: list[str] = []

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Probabilities of 1 and 5 whose mean is the rule's grade; other questions as the analyst answers them."""
        if tuple(answers) != LEVELS:
            return super().choose(prompts, answers)
        self.before(prompts)
        rows = np.full((len(prompts), len(answers)), np.nan)
        failures: list[str | None] = []
        for row, prompt in zip(rows, prompts, strict=True):
            text = prompt.messages[-1].content
            self.graded.append(text)
            fails = bool(self.fails_on) and self.fails_on in text
            failures.append("scripted failure" if fails else None)
            if not fails:
                share = (letters(response_in(prompt)) - 1) / 4
                row[:] = [1 - share, 0, 0, 0, share]
        return Choices(rows, tuple(failures), len(prompts))


@pytest.fixture(scope="module")
def adapters(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of random weights on the tiny model, as a training leaves them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found = {}
    for seed, name in enumerate(("original", "aligned")):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(tiny_weights, local_files_only=True)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(base, config)
        with torch.no_grad():
            for parameter in (each for key, each in model.named_parameters() if "lora_B" in key):
                parameter.normal_(0, 0.3)
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
    return found


@pytest.fixture
def judges(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_weights: Path) -> dict[str, Any]:
    """The judges by card, each opened once; cards, the reward and the rows are in the folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("GOALCOVER_HOME", str(home))
    (home / "cards").mkdir(parents=True)
    engines = {}
    for name in ("tiny-policy", "other-judge"):
        (home / "cards" / f"{name}.toml").write_text(CARD.format(name=name), "utf-8")
        pulling.add(tiny_weights, name)
        engines[name] = Judge(name)
    for place in ("asking", "judges"):
        monkeypatch.setattr(f"goalcover_local.{place}.open_engine", lambda card, **_: engines[card.name])
    monkeypatch.setattr(evaluate, "RESAMPLES", 199)
    monkeypatch.setattr(responding, "AT_ONCE", {"cpu": 3})
    monkeypatch.setattr(responding, "SAMPLES_PER_BATCH", {"cpu": 5})
    write_reward(tmp_path / "letters")
    write_rows(tmp_path / "test.jsonl", rows())
    return engines


def rows(n: int = N) -> list[dict[str, Any]]:
    """Rows on ropes, on ropes and bread, on bread, on neither; the first stands twice, one is nobody's business."""
    made = [
        {
            "id": f"r{k}",
            "kind": KINDS[k % 4],
            "question": TEXTS[k % 4][0].format(k),
            "answer": TEXTS[k % 4][1].format(k),
        }
        for k in range(n)
    ]
    made[3]["question"] = SECRET
    return [*made, {**made[0], "id": "again", "kind": "knots"}]


def write_rows(path: Path, found: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")


def settings(**others: Any) -> dict[str, Any]:
    """What a training was begun with."""
    told: dict[str, Any] = {
        "policy": {"card": "tiny-policy", "weights": verify(load_card("tiny-policy")).digest},
        "judge": {"card": "tiny-policy", "reward": "letters"},
        "reward_name": "./letters",
        "reward": load_rubric("./letters").digest,
        "settings": {"max_tokens": 10, "precision": ""},
        "rows": [],
    }
    for key, value in others.items():
        told[key] = {**told[key], **value} if isinstance(value, dict) else value
    return told


def train(name: str, adapter: Path, *, ended: bool = True, **others: Any) -> Path:
    """The folder of a training in the run, as `goalcover train` leaves it."""
    with Run.open("run", write=True, create=True) as run:
        trainings = Trainings(run)
        trainings.begin(name, settings(**others))
        place = trainings.make_folder(name) / "adapter"
        place.mkdir()
        for file in adapter.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        if ended:
            trainings.finish(name, {"files": policy_files(place)})
    return place


@pytest.fixture
def trained(judges: dict[str, Judge], adapters: dict[str, Path]) -> dict[str, Judge]:
    """The judges, once the run holds two trainings."""
    for name, adapter in adapters.items():
        train(name, adapter)
    return judges


def silent(*texts: str) -> None:
    """Fails if a sample's text is told."""
    for text in texts:
        assert CANARY not in text and "Tie knots" not in text and "station" not in text


def by_policy(found: dict[str, Any]) -> dict[str, Any]:
    return {each["policy"]: each for each in found["policies"]}


def told_responses(path: str = "responses.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


# All of it


def test_a_whole_evaluation(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    files = ("--responses", "responses.jsonl", "--figure", "means.svg", "--json")
    said = goalcover(*EVALUATE, "--subgoal-column", "kind", *files)
    found = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    silent(said.out, said.err, Path("means.svg").read_text("utf-8"))
    assert "1 of 9 rows are equal to others, and count once." in said.err
    assert "2 of 8 rows belong to no subgoal, by column kind." in said.err
    assert "The judge is the one that gave the rewards to original, aligned: see --judge for another." in said.err
    assert stat.S_IMODE(Path("responses.jsonl").stat().st_mode) == 0o600
    ElementTree.fromstring(Path("means.svg").read_text("utf-8"))

    names = ["base", "original", "aligned"]
    assert [each["policy"] for each in found["policies"]] == names
    facts = {"reward": "./letters", "judge_card": "tiny-policy", "max_tokens": 10, "n_samples": N, "n_failed": 0}
    assert found == found | facts | {"rewarded": names[1:], "failures": {}, "run": "run"}
    lines = told_responses()
    assert [(line["id"], line["policy"]) for line in lines] == [(f"r{k}", name) for k in range(N) for name in names]
    assert lines[9]["line"] == 4 and lines[9]["source"] == "test.jsonl"
    assert all(line["score"] == pytest.approx(0.8 * line["judged"] + 0.2 * (1 + 4 * line["checked"])) for line in lines)

    scores = {
        name: np.array([line["score"] for line in lines if line["policy"] == name], dtype=float) for name in names
    }
    assert len({tuple(each) for each in scores.values()}) == 3, "the adapters change what is written"
    for name, told in by_policy(found).items():
        own = [line for line in lines if line["policy"] == name]
        assert told["score"]["value"] == pytest.approx(scores[name].mean(), abs=1e-5)
        assert told["score"]["low"] <= told["score"]["value"] <= told["score"]["high"]
        assert (told["n"], told["n_failed"], told["score"]["n"]) == (N, 0, N)
        assert told["judged"]["value"] == pytest.approx(np.mean([line["judged"] for line in own]), abs=1e-5)
        assert told["checks"]["length"]["value"] == pytest.approx(np.mean([line["checked"] for line in own]), abs=1e-5)
        assert set(told["dimensions"]) == {"letters", "signs"}
        assert told["words"] == pytest.approx(np.mean([len(line["response"].split()) for line in own]), abs=1e-5)
        assert told["cut_off"] == pytest.approx(np.mean([not line["finished"] for line in own]), abs=1e-5)

    assert [(each["part"], each["policy"]) for each in found["comparisons"]] == [
        (part, name) for part in ("score", "judged", "checked") for name in names[1:]
    ]
    chances = [each["p"] if each["p"] is not None else np.nan for each in found["comparisons"]]
    adjusted = [each["p_holm"] if each["p_holm"] is not None else np.nan for each in found["comparisons"]]
    assert adjusted == pytest.approx(evaluate.holm(chances), abs=1e-5, nan_ok=True), "all parts are one family"
    for told in found["comparisons"][:2]:
        apart = scores[told["policy"]] - scores["base"]
        assert told["against"] == "base" and told["n"] == N
        assert told["difference"]["value"] == pytest.approx(apart.mean(), abs=1e-5)
        assert told["wins"] == pytest.approx((apart > 1e-9).mean() + (np.abs(apart) <= 1e-9).mean() / 2, abs=1e-5)
        assert told["p"] is None or told["p_holm"] >= told["p"] - 1e-9

    assert found["belonging"] == {"by": "column kind", "n_none": 2, "n_failed": 0}
    assert [(each["subgoal"], each["n"]) for each in found["subgoals"]] == [
        ("bread", 4), ("knots", 1), ("ropes", 4), (NONE, 2),
    ]  # fmt: skip
    bread = found["subgoals"][0]["policies"]
    own = np.array([1, 2, 5, 6])
    assert bread["aligned"]["score"]["value"] == pytest.approx(scores["aligned"][own].mean(), abs=1e-5)
    apart = (scores["aligned"] - scores["base"])[own].mean()
    assert bread["aligned"]["difference"]["value"] == pytest.approx(apart, abs=1e-5)
    assert bread["base"]["difference"] is None


def test_what_is_on_record_is_digests_and_counts(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    found = json.loads(goalcover(*EVALUATE, "--json").out)
    with Run.open("run", write=False) as run:
        told = latest(run, ENDED) or {}
        assert run.verify_events() == []
        silent(*(event.details for event in run.events()))
    assert told["policies"] == {each["policy"]: each["digest"] for each in found["policies"]}
    assert told["means"] == {each["policy"]: each["score"]["value"] for each in found["policies"]}
    assert (told["judge"], told["data"], told["n_samples"]) == (found["judge"], found["data"], N)
    assert len(set(told["policies"].values())) == 3 and told["reward_digest"] == found["reward_digest"]


def test_a_base_alone_in_a_new_run(goalcover: Goalcover, judges: dict[str, Judge]) -> None:
    options = ("--policy", "tiny-policy", "--reward", "./letters", "--judge", "other-judge")
    said = goalcover(*EVALUATE, *options)
    assert "base" in said.out and "difference" not in said.out and "judge other-judge" in said.out
    assert "gave the rewards" not in said.err
    assert judges["other-judge"].graded and not judges["tiny-policy"].graded
    found = json.loads(goalcover(*EVALUATE, *options, "--json").out)
    assert (found["max_tokens"], found["comparisons"], found["subgoals"]) == (8, [], [])
    assert stat.S_IMODE(Path("run").stat().st_mode) == 0o700


def test_the_tables(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    said = goalcover(*EVALUATE, "--subgoal-column", "kind")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["base", "original", "aligned"]
    assert sum("original − base" in line for line in lines) == 4, "each part, and the header of the subgoals"
    assert any(line.lstrip().startswith(NONE) for line in lines)
    assert "not what another training could." in said.out
    assert " tests of this table, all parts together." in said.out


def test_the_policies_named_and_what_they_are_compared_with(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    found = json.loads(goalcover(*EVALUATE, "--name", "aligned", "--against", "original", "--json").out)
    assert [each["policy"] for each in found["policies"]] == ["original", "aligned"]
    assert {(each["policy"], each["against"]) for each in found["comparisons"]} == {("aligned", "original")}
    alone = json.loads(goalcover(*EVALUATE, "--name", "aligned", "--json").out)
    assert alone["comparisons"] == [] and alone["policies"] == [by_policy(found)["aligned"]]


def test_another_judge_than_the_one_that_rewarded(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    said = goalcover(*EVALUATE, "--judge", "other-judge", "--json")
    assert json.loads(said.out)["rewarded"] == [] and "gave the rewards" not in said.err
    assert not trained["tiny-policy"].graded


def test_test_rows_that_were_trained_on_are_told(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    digests = sorted(Sample("", row["question"], row["answer"]).digest[:16] for row in rows()[:3])
    with Run.open("run", write=True) as run:
        adapter = run.folder / "policies" / "original" / "adapter"
    train("leaky", adapter, rows=[*digests, "0" * 16])
    said = goalcover(*EVALUATE, "--name", "leaky", "--name", "aligned")
    assert "Warning: 3 of 8 test rows were in the training of leaky" in said.err
    assert "training of aligned" not in said.err


def test_rows_are_left_out_by_length_and_drawn(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    found = json.loads(goalcover(*EVALUATE, "--limit", 4, "--name", "base", "--json").out)
    assert found["n_samples"] in (3, 4) and found["limit"] == 4
    made = rows()
    made[5]["answer"] = f"{CANARY} " * 60
    write_rows(Path("test.jsonl"), made)
    said = goalcover(*EVALUATE, "--max-prompt-tokens", 300, "--name", "base", "--json")
    assert "Left out: 1 of 8 rows with longer prompts (test.jsonl:6)." in said.err
    assert json.loads(said.out)["n_samples"] == N - 1
    silent(said.err)


# Nothing is asked twice


class Killed(KeyboardInterrupt):
    """The end of an evaluation in its middle."""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[int]]:
    """The sizes of the batches that policies write from now on; killed before the one that is `at`."""
    respond = Policy.respond

    def watch(at: int | None = None) -> list[int]:
        sizes: list[int] = []

        def noted(self: Policy, texts: Sequence[str], **options: Any) -> list[Written]:
            if len(sizes) == at:
                raise Killed
            sizes.append(len(texts))
            return respond(self, texts, **options)

        monkeypatch.setattr(Policy, "respond", noted)
        return sizes

    return watch


@pytest.mark.parametrize("temperature", [0, 1])
def test_killed_and_resumed_it_is_as_if_unbroken(
    goalcover: Goalcover,
    trained: dict[str, Judge],
    written: Callable[..., list[int]],
    temperature: int,
) -> None:
    judge, evaluation = trained["tiny-policy"], (*EVALUATE, "--temperature", temperature)
    first = written(at=4)
    assert "Interrupted" in goalcover(*evaluation, code=130).err
    assert first == [3, 3, 2, 3]
    second = written(at=None)

    def kill(prompts: Sequence[Prompt]) -> None:
        if len(judge.graded) >= 20:
            raise Killed

    judge.before = kill
    goalcover(*evaluation, code=130)
    assert second == [3, 2, 3, 3, 2], "what was written is not written again"
    assert len(judge.graded) == 20
    judge.before = len
    third = written(at=None)
    resumed = json.loads(goalcover(*evaluation, "--json").out)
    assert third == [] and len(judge.graded) == len(set(judge.graded)), "and no grade is asked for twice"

    Path("run").rename("resumed")
    for name in ("original", "aligned"):
        train(name, Path("resumed/policies") / name / "adapter")
    assert json.loads(goalcover(*evaluation, "--json").out) == resumed
    again = len(judge.graded)
    assert json.loads(goalcover(*evaluation, "--json").out) == resumed and len(judge.graded) == again


def test_it_stops_in_time_and_goes_on(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    base = (*EVALUATE, "--name", "base", "--json")
    for _ in range(3):
        said = goalcover(*base, "--max-hours", 1e-9, code=130)
        assert said.out == "" and "Stopped by --max-hours. The same command goes on from here." in said.err
    assert json.loads(goalcover(*base, "--max-hours", 1e-9).out)["n_failed"] == 0, "what is left is one batch"


# What is missing


def test_a_failed_grade_is_missing_and_never_the_lowest(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    judge = trained["tiny-policy"]
    judge.fails_on = "station"
    said = goalcover(*EVALUATE, "--responses", "responses.jsonl", "--json", code=3)
    found = json.loads(said.out)
    assert "3 grades failed and are left out (scripted failure: 3); --retry-failed asks again." in said.err
    for each in found["policies"]:
        scores = [line["score"] for line in told_responses() if line["policy"] == each["policy"]]
        assert scores.count(None) == 1 and (each["n"], each["n_failed"]) == (N - 1, 1)
        known = [score for score in scores if score is not None]
        assert each["score"]["value"] == pytest.approx(np.mean(known), abs=1e-5)
        assert each["checked"]["n"] == N, "a program's part is there all the same"
    assert all(each["n"] == N - 1 for each in found["comparisons"] if each["part"] != "checked")

    judge.fails_on = ""
    asked = len(judge.graded)
    assert json.loads(goalcover(*EVALUATE, "--json", code=3).out) == found and len(judge.graded) == asked
    mended = json.loads(goalcover(*EVALUATE, "--retry-failed", "--json").out)
    assert mended["n_failed"] == 0 and {each["n"] for each in mended["policies"]} == {N}
    assert len(judge.graded) == asked + 3 * 2, "two dimensions of each of three responses"


def test_a_judge_that_always_fails_gives_no_number(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    trained["tiny-policy"].fails_on = "response"
    said = goalcover(*EVALUATE, "--subgoal-column", "kind", "--figure", "means.svg", "--json", code=3)
    found = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {each["score"] and each["score"]["value"] for each in found["policies"]} == {None}
    assert {each["part"] for each in found["comparisons"]} == {"checked"}
    assert "–" in goalcover(*EVALUATE, code=3).out


# What rows belong to


def test_rows_belong_to_the_subgoals_that_a_judge_says(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    Path("goal.toml").write_text(GOAL, "utf-8")
    judge = trained["other-judge"]
    options = ("--goal", "goal.toml", "--alignment-judge", "other-judge", "--name", "base", "--json")
    said = goalcover(*EVALUATE, *options)
    found = json.loads(said.out)
    silent(said.out, said.err)
    assert found["belonging"]["by"] == load_card("other-judge").value == "corrected"
    sizes = {each["subgoal"]: each["n"] for each in found["subgoals"]}
    assert sizes["ropes"] >= 2 and sizes["bread"] >= 2 and sizes[NONE] == found["belonging"]["n_none"] >= 2
    assert f"{sizes[NONE]} of 8 rows belong to no subgoal, by corrected." in said.err
    asked = judge.times("score")
    assert asked and json.loads(goalcover(*EVALUATE, *options).out) == found
    assert judge.times("score") == asked, "judged once"


def test_a_judgement_of_belonging_that_fails_is_neither_yes_nor_no(
    goalcover: Goalcover, trained: dict[str, Judge]
) -> None:
    Path("goal.toml").write_text(GOAL, "utf-8")
    judge = trained["other-judge"]
    judge.fails_on = "station"
    options = ("--goal", "goal.toml", "--alignment-judge", "other-judge", "--name", "base", "--json")
    said = goalcover(*EVALUATE, *options, code=3)
    found = json.loads(said.out)["belonging"]
    assert found["n_failed"] == 2 and "2 judgements of what rows belong to failed" in said.err
    judge.fails_on = ""
    mended = json.loads(goalcover(*EVALUATE, *options, "--retry-failed").out)["belonging"]
    assert (mended["n_failed"], mended["n_none"]) == (0, found["n_none"] + 1)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("answer", "holds no name of a subgoal in test.jsonl:4"),
        ("nested", "holds no name of a subgoal in test.jsonl:2"),
        ("id", "holds 150 different values"),
        ("nowhere", "The data have no column 'nowhere'"),
    ],
)
def test_a_column_of_texts_is_refused_without_telling_them(
    goalcover: Goalcover, trained: dict[str, Judge], column: str, problem: str
) -> None:
    made = rows(149)
    made[3]["answer"] = f"{CANARY} " * 9
    made[1]["nested"] = {"a": CANARY}
    write_rows(Path("test.jsonl"), made)
    said = goalcover.refused(*EVALUATE, "--subgoal-column", column)
    assert problem in said
    silent(said)
    assert not trained["tiny-policy"].graded


# What is refused


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--name", "nobody"), "holds no training 'nobody'"),
        (("--name", "begun"), "The training begun has not ended."),
        (("--against", "begun"), "The training begun has not ended."),
        (("--policy", "no-such-card"), "There is no card named 'no-such-card'."),
        (("--judge", "no-such-card"), "There is no card named 'no-such-card'."),
        (("--reward", "no-such-reward"), "There is no reward 'no-such-reward'."),
        (("--responses", "test.jsonl"), "is the data of this run"),
        (("--figure", "nowhere/means.svg"), "cannot be written"),
        (("--figure", "means.xyz"), "End it with .svg."),
        (("--figure", "means"), "End it with .svg."),
        (("--responses", "responses.txt"), "End it with .jsonl or .ndjson."),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    goalcover: Goalcover,
    trained: dict[str, Judge],
    adapters: dict[str, Path],
    written: Callable[..., list[int]],
    options: tuple[str, ...],
    problem: str,
) -> None:
    train("begun", adapters["original"], ended=False)
    sizes = written()
    assert problem in goalcover.refused(*EVALUATE, *options)
    assert sizes == []


def test_a_training_that_has_not_ended_is_left_out_unless_named(
    goalcover: Goalcover, trained: dict[str, Judge], adapters: dict[str, Path]
) -> None:
    train("begun", adapters["original"], ended=False)
    found = json.loads(goalcover(*EVALUATE, "--json").out)
    assert [each["policy"] for each in found["policies"]] == ["base", "original", "aligned"]


def test_an_adapter_that_was_altered_is_not_loaded(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    file = Path("run/policies/original/adapter/adapter_model.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    said = goalcover.refused(*EVALUATE, "--name", "original")
    assert "The files of the policy original are not those that its training wrote." in said


def test_a_run_without_trainings_needs_a_card(goalcover: Goalcover, judges: dict[str, Judge]) -> None:
    goalcover.refused(*EVALUATE)
    assert not Path("run").exists(), "nothing is begun by mistake"
    Run.open("run", write=True, create=True).close()
    assert "holds no training" in goalcover.refused(*EVALUATE)
    said = goalcover(*EVALUATE, "--policy", "tiny-policy", code=2)
    assert "Missing option '--reward'" in said.err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--policy", "tiny-policy"), 2),
        (("--policy", "no-such-card", "--reward", "./letters"), 1),
        (("--policy", "tiny-policy", "--reward", "./nowhere"), 1),
        (("--policy", "tiny-policy", "--reward", "./letters", "--judge", "no-such-card"), 1),
        (("--policy", "tiny-policy", "--reward", "./letters", "--against", "original"), 1),
    ],
)
def test_an_evaluation_that_cannot_be_begins_no_run(
    goalcover: Goalcover, judges: dict[str, Judge], options: tuple[str, ...], code: int
) -> None:
    said = goalcover(*EVALUATE, *options, code=code)
    assert "Error: " in said.err and not Path("run").exists()


def test_a_reward_is_the_same_wherever_its_folder_lay(
    goalcover: Goalcover, trained: dict[str, Judge], adapters: dict[str, Path]
) -> None:
    train("later", adapters["original"], reward_name="./moved")
    Path("letters").rename("moved")
    found = json.loads(goalcover(*EVALUATE, "--json").out)
    assert (found["reward"], found["max_tokens"]) == ("./moved", 10) and "later" in by_policy(found)


@pytest.mark.parametrize(
    ("others", "option"),
    [
        ({"policy": {"card": "other-judge"}}, "--policy"),
        ({"judge": {"card": "other-judge"}}, "--judge"),
        ({"reward_name": "lay-summary", "reward": "0" * 64}, "--reward"),
    ],
)
def test_what_trainings_do_not_share_is_to_be_named(
    goalcover: Goalcover, trained: dict[str, Judge], adapters: dict[str, Path], others: dict[str, Any], option: str
) -> None:
    train("other", adapters["original"], **others)
    said = goalcover.refused(*EVALUATE)
    assert "The trainings differ in their" in said and f"Name one with {option}." in said
    assert goalcover(*EVALUATE, "--name", "base", "--name", "original").out


def test_two_ways_to_belong_are_one_too_many(goalcover: Goalcover, trained: dict[str, Judge]) -> None:
    assert "not both" in goalcover(*EVALUATE, "--goal", "goal.toml", "--subgoal-column", "kind", code=2).err
    assert "needs a --goal" in goalcover(*EVALUATE, "--alignment-judge", "other-judge", code=2).err
