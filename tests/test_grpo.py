"""Training moves a policy towards its reward, again so after a kill, and says nothing of what it read or wrote."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
import trained

from goalcover_local.errors import EngineError
from goalcover_local.finetune.checkpoints import digests, keep_policy, sound
from goalcover_local.finetune.grpo import Settings, train
from goalcover_local.finetune.policy import Policy, share_base
from goalcover_local.finetune.reward import Grade, Grader
from goalcover_local.finetune.rewarding import Reward, Tally
from goalcover_local.finetune.rubric import load_rubric
from goalcover_local.terms import Sample

pytest.importorskip("trl", reason="training needs trl")
pytest.importorskip("peft", reason="training needs peft")

SETTINGS = Settings(
    steps=3, prompts_per_step=2, responses_per_prompt=4, responses_at_once=8, max_tokens=8, learning_rate=1e-2
)
TIMES = {"seconds", "judge_seconds", "tokens_per_second"}
PICKLED = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


class Run(NamedTuple):
    """A training that has ended: what was trained, by whom, and what was told."""

    policy: Policy
    grader: trained.Remembering
    notes: trained.Notes
    folder: Path
    last: int

    @property
    def adapter(self) -> Path:
        """The policy that the last checkpoint holds, kept without pickles."""
        place = self.folder.parent / f"{self.folder.name}-policy"
        keep_policy(self.folder / f"checkpoint-{max(self.notes.checkpoints)}", place)
        return place

    def column(self, name: str) -> list[float]:
        """A number at each step that has it."""
        return [found for step in self.notes.steps.values() if (found := step[name]) is not None]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with trained.one_thread():
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("weights"))


class Trainer:
    """Trains policies of one's own in folders of their own."""

    def __init__(self, weights: Path, place: Path) -> None:
        self._weights, self._place, self._n_runs = weights, place, 0

    def __call__(
        self,
        settings: Settings = SETTINGS,
        *,
        engine: trained.RuleEngine | None = None,
        samples: tuple[Sample, ...] = trained.SAMPLES,
        notes: trained.Notes | None = None,
        folder: Path | None = None,
        policy: Policy | None = None,
        save_every: int = 100,
        resume: Path | None = None,
    ) -> Run:
        self._n_runs += 1
        place = folder or self._place / f"run-{self._n_runs}"
        policy = policy or trained.policy(self._weights)
        grader, notes = trained.grader(self._place / "reward", engine), notes or trained.Notes()
        try:
            last = train(policy, grader, samples, settings, place, notes, save_every=save_every, resume=resume)
        except trained.Killed:
            last = -1
        return Run(policy, grader, notes, place, last)


@pytest.fixture
def trainer(weights: Path, tmp_path: Path) -> Trainer:
    return Trainer(weights, tmp_path)


@pytest.fixture(scope="module")
def run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps of an adapter's training, with a checkpoint after the second and the last."""
    return Trainer(weights, tmp_path_factory.mktemp("runs"))(save_every=2)


def tensors(model: Any) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def logits(policy: Policy, text: str = "Say it.") -> Any:
    import torch

    with torch.inference_mode():
        return policy.model.eval()(torch.tensor([policy.ids(text)])).logits[0]


def plain(name: str) -> str:
    """A parameter's name as it is without an adapter."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def moved(before: Policy, after: Policy) -> float:
    """How far the farthest of the base's own weights has moved."""
    ours = {plain(name): each for name, each in tensors(after.model).items() if "lora_" not in name}
    base = tensors(before.model)
    assert ours.keys() == base.keys()
    return max(float((ours[name] - base[name]).abs().max()) for name in base)


# Settings


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="two responses"):
        Settings(responses_per_prompt=1, responses_at_once=1)
    with pytest.raises(ValueError, match="divide"):
        Settings(prompts_per_step=2, responses_per_prompt=4, responses_at_once=3)


def test_a_record_of_settings_is_plain_and_whole() -> None:
    record = json.loads(json.dumps(SETTINGS.record()))
    assert Settings(**record) == SETTINGS
    assert SETTINGS.responses == 8


# What a training leaves


def test_every_step_is_told_with_finite_numbers(run: Run) -> None:
    assert run.last == 3 and list(run.notes.steps) == [1, 2, 3]
    names = set(run.notes.steps[1])
    assert names >= {"score", "spread", "zero_variance", "kl", "entropy", "loss", "gradient", "learning_rate"}
    assert names >= {"judged", "checked", "failed", "tokens", "truncated", "length_correlation", *TIMES}
    assert {name for name in names if "/" in name} == {"dimensions/letters", "dimensions/signs", "checks/length"}
    for metrics in run.notes.steps.values():
        assert set(metrics) == names
        assert all(value is None or math.isfinite(value) for value in metrics.values())
        told = {name for name, value in metrics.items() if value is not None}
        assert told >= names - {"length_correlation"}


def test_rewards_are_not_constant(run: Run) -> None:
    assert all(spread > 0.01 for spread in run.column("spread"))
    assert all(share < 1 for share in run.column("zero_variance"))


def test_the_numbers_told_are_those_of_the_grades(run: Run) -> None:
    assert len(run.grader.seen) == 3
    for (responses, grades), metrics in zip(run.grader.seen, run.notes.steps.values(), strict=True):
        scores = [grade.score for grade in grades if grade.score is not None]
        assert metrics["score"] == pytest.approx(np.mean(scores), abs=1e-5)
        assert metrics["spread"] == pytest.approx(np.std(scores, ddof=1), abs=1e-5)
        assert metrics["judged"] == pytest.approx(np.mean([grade.judged for grade in grades]))
        assert metrics["checked"] == pytest.approx(np.mean([grade.checked for grade in grades]))
        assert metrics["dimensions/letters"] == pytest.approx(np.mean([g.dimensions["letters"] for g in grades]))
        assert metrics["checks/length"] == pytest.approx(np.mean([grade.checks["length"] for grade in grades]))
        assert metrics["failed"] == 0
        assert len(responses) == SETTINGS.responses


def test_each_prompt_is_answered_as_often_as_it_is_said_and_by_its_own_sample(run: Run) -> None:
    known = {(sample.input, sample.output) for sample in trained.SAMPLES}
    for responses, _ in run.grader.seen:
        groups = [responses[:4], responses[4:]]
        assert all(len({(each.input, each.output) for each in group}) == 1 for group in groups)
        asked = {(each.input, each.output) for each in responses}
        assert len(asked) == 2 and asked <= known


def test_all_samples_are_asked_about_before_one_comes_again(trainer: Trainer) -> None:
    found = trainer(replace(SETTINGS, steps=4), samples=trained.SAMPLES[:4])
    asked = [sorted({each.input for each in responses}) for responses, _ in found.grader.seen]
    every = sorted(sample.input for sample in trained.SAMPLES[:4])
    assert sorted(asked[0] + asked[1]) == sorted(asked[2] + asked[3]) == every


def test_fewer_samples_than_prompts_in_a_step_train_all_the_same(trainer: Trainer) -> None:
    found = trainer(samples=trained.SAMPLES[:1])
    assert found.last == 3 and len(found.grader.seen) == 3
    assert all(len(responses) == SETTINGS.responses for responses, _ in found.grader.seen)


def test_the_adapter_moved_and_the_base_did_not(run: Run, weights: Path) -> None:
    adapter = {name: each for name, each in tensors(run.policy.model).items() if "lora_B" in name}
    assert adapter and all(float(each.abs().max()) > 1e-4 for each in adapter.values())
    base = trained.policy(weights)
    assert moved(base, run.policy) == 0
    assert float((logits(run.policy) - logits(base)).abs().max()) > 0.1


def test_the_adapter_loads_again_and_says_the_same(run: Run, weights: Path) -> None:
    import torch

    loaded = trained.policy(weights, trained=run.adapter)
    torch.testing.assert_close(logits(loaded), logits(run.policy))
    assert loaded.respond(["Say it."], max_tokens=8) == run.policy.respond(["Say it."], max_tokens=8)


def test_full_tuning_moves_the_weights_and_they_load_again(trainer: Trainer, weights: Path) -> None:
    import torch

    found = trainer(replace(SETTINGS, tuning="full", learning_rate=1e-3))
    base = trained.policy(weights)
    assert moved(base, found.policy) > 1e-4
    assert not any("lora" in name for name in tensors(found.policy.model))
    loaded = trained.policy(weights, trained=found.adapter)
    torch.testing.assert_close(logits(loaded), logits(found.policy))
    assert all(kl > 0 for kl in found.column("kl")[1:]), "the base is remembered beside the whole model"


def test_a_policy_is_kept_as_safetensors_alone(run: Run) -> None:
    names = {path.name for path in run.adapter.iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}
    config = json.loads((run.adapter / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "tiny-policy" and config["r"] == SETTINGS.rank


def test_checkpoints_are_told_when_they_are_whole(run: Run) -> None:
    assert list(run.notes.checkpoints) == [2, 3]
    for step, files in run.notes.checkpoints.items():
        place = run.folder / f"checkpoint-{step}"
        assert files == digests(place)
        assert {"adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= set(files)
    assert sound(run.folder, run.notes.checkpoints) == (3, run.folder / "checkpoint-3")
    assert not [path for path in run.folder.iterdir() if path.suffix in PICKLED], "pickles lie in checkpoints only"


def test_no_file_holds_a_path_of_this_machine(run: Run, weights: Path) -> None:
    for path in run.folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".md", ".jinja", ".safetensors"):
            assert str(weights).encode() not in path.read_bytes(), path.name


# Learning


def late_and_early(run: Run) -> tuple[float, float]:
    judged = run.column("judged")
    return float(np.mean(judged[-10:])), float(np.mean(judged[:10]))


def test_a_plain_reward_is_learnt_and_its_shuffled_control_is_not(trainer: Trainer) -> None:
    # Over ten seeds the mean of the last ten steps rose by 1.3 to 1.9, the control's by 0.3 at most.
    learning = replace(SETTINGS, steps=30, responses_per_prompt=8, responses_at_once=16, kl=0.0, tuning="full")
    late, early = late_and_early(trainer(learning))
    control_late, control_early = late_and_early(trainer(replace(learning, shuffled=True)))
    assert late > early + 0.8
    assert control_late < control_early + 0.6
    assert late > control_late + 0.8


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "bnpo"])
def test_every_loss_trains(trainer: Trainer, loss: Any) -> None:
    found = trainer(replace(SETTINGS, steps=2, loss=loss))
    assert found.last == 2 and found.column("gradient")[0] > 0


def test_a_divergence_is_told_only_where_it_counts(trainer: Trainer) -> None:
    assert trainer(replace(SETTINGS, steps=2, kl=0.0)).column("kl") == []
    counted = trainer(replace(SETTINGS, steps=2, kl=0.1)).column("kl")
    assert counted[0] == pytest.approx(0, abs=1e-6) and counted[1] > 0


def test_seeds_differ_and_the_same_seed_does_not(trainer: Trainer) -> None:
    short = replace(SETTINGS, steps=2)
    one, same, other = (trainer(replace(short, seed=seed)) for seed in (0, 0, 1))
    assert differing(one.notes, same.notes) == {}
    assert one.column("score") != other.column("score")


# The shuffled control


def rewarded(settings: int | None, scores: list[float | None], row: list[int], step: int) -> list[float | None]:
    """What the reward gives for responses whose scores are these."""

    class Fixed(Grader):
        def grade(self, responses: Any) -> list[Grade]:
            return [Grade({}, {}, score, None, score) for score in scores]

    grader = Fixed(trained.RuleEngine(), RUBRIC)
    state = type("State", (), {"global_step": step})()
    reward = Reward(grader, trained.SAMPLES, settings)
    return reward(["p"] * len(row), ["c"] * len(row), row, state, other="ignored")


RUBRIC = load_rubric("lay-summary")
SCORES: list[float | None] = [1.0, 2.0, 3.0, 4.0, 4.1, None, 4.3, 4.4]
ROW = [3, 3, 3, 3, 0, 0, 0, 0]


def test_without_shuffling_rewards_are_the_scores() -> None:
    assert rewarded(None, SCORES, ROW, 5) == SCORES


def test_shuffling_stays_within_a_prompts_responses_and_keeps_them_all() -> None:
    orders = set()
    for step in range(40):
        found = rewarded(0, SCORES, ROW, step)
        for places in (slice(0, 4), slice(4, 8)):
            assert sorted(found[places], key=str) == sorted(SCORES[places], key=str)
        orders.add(str(found))
        assert rewarded(0, SCORES, ROW, step) == found, "the same again after a kill"
    assert len(orders) > 30
    assert rewarded(1, SCORES, ROW, 0) != rewarded(0, SCORES, ROW, 0)


def test_shuffling_takes_a_reward_to_every_place_alike() -> None:
    places = np.array([rewarded(0, SCORES, ROW, step).index(1.0) for step in range(400)])
    assert np.bincount(places, minlength=4).min() > 60


def test_a_shuffled_training_tells_the_same_scores(trainer: Trainer) -> None:
    short = replace(SETTINGS, steps=1)
    one, control = trainer(short), trainer(replace(short, shuffled=True))
    assert one.notes.steps[1]["score"] == pytest.approx(control.notes.steps[1]["score"])
    assert one.notes.steps[1]["gradient"] != control.notes.steps[1]["gradient"]


def test_a_tally_without_grades_has_no_numbers() -> None:
    found = Tally().numbers()
    assert found["judged"] is None and found["failed"] is None and found["length_correlation"] is None


def test_a_tally_leaves_out_what_is_missing() -> None:
    grades = [
        Grade({"d": 2.0}, {"c": 0.5}, 2.0, 0.5, 2.5),
        Grade({"d": None}, {"c": 1.0}, None, 1.0, None, "failed"),
        Grade({"d": 4.0}, {"c": 0.0}, 4.0, 0.0, 3.5),
    ]
    found = Tally(grades, [10, 99, 20], 1.5, [0, 0, 0]).numbers()
    assert (found["judged"], found["checked"], found["dimensions/d"], found["checks/c"]) == (3.0, 0.5, 3.0, 0.5)
    assert found["failed"] == pytest.approx(1 / 3) and found["judge_seconds"] == 1.5
    assert found["length_correlation"] == pytest.approx(1.0)


# Failed judgements


@pytest.fixture
def advantages(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """What TRL makes of the rewards of each step, filled in as it trains."""
    from trl import GRPOTrainer

    found: list[list[float]] = []
    scored = GRPOTrainer._generate_and_score_completions

    def remembering(self: Any, inputs: Any) -> Any:
        output = scored(self, inputs)
        found.append(output["advantages"].tolist())
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", remembering)
    return found


def centred(scores: list[float | None]) -> list[float]:
    """The advantages of a prompt's responses (Shao et al. 2024), 0 for one without a score."""
    told = [score for score in scores if score is not None]
    mean, spread = np.mean(told), np.std(told, ddof=1)
    return [0.0 if score is None else float((score - mean) / (spread + 1e-4)) for score in scores]


def some(response: str) -> bool:
    return sum(response.encode()) % 3 == 0


def test_failed_judgements_have_no_reward_and_leave_the_others_theirs(
    trainer: Trainer, advantages: list[list[float]]
) -> None:
    settings = replace(SETTINGS, responses_per_prompt=8, responses_at_once=16)
    found = trainer(settings, engine=trained.RuleEngine(fails=some))
    n_failed = []
    for (_, grades), given, metrics in zip(found.grader.seen, advantages, found.notes.steps.values(), strict=True):
        scores = [grade.score for grade in grades]
        n_failed.append(sum(score is None for score in scores))
        assert metrics["failed"] == pytest.approx(n_failed[-1] / 16)
        assert metrics["score"] == pytest.approx(np.mean([score for score in scores if score is not None]), abs=1e-5)
        assert given == pytest.approx(centred(scores[:8]) + centred(scores[8:]), abs=1e-3)
    assert 0 < sum(n_failed) < 48


def test_a_judge_that_fails_for_all_moves_nothing(trainer: Trainer, weights: Path) -> None:
    settings = replace(SETTINGS, tuning="full", kl=0.04)
    found = trainer(settings, engine=trained.RuleEngine(fails=lambda _: True))
    assert found.last == 3 and found.column("failed") == [1.0] * 3
    assert moved(trained.policy(weights), found.policy) == 0
    assert found.column("score") == found.column("judged") == []
    assert found.column("checked") != [], "what a program computes is told all the same"


class FailingLater(trained.RuleEngine):
    """A judge that fails on every response from its second call on."""

    def choose(self, prompts: Any, answers: Any) -> Any:
        self.fails = (lambda _: True) if self.history else (lambda _: False)
        return super().choose(prompts, answers)


def test_a_judge_that_fails_later_moves_nothing_any_more(trainer: Trainer, weights: Path) -> None:
    """What a step learnt is not pushed on by the optimizer's momentum while no response is graded."""
    settings = replace(SETTINGS, tuning="full", kl=0.0)
    once = trainer(replace(settings, steps=1), engine=FailingLater())
    found = trainer(settings, engine=FailingLater())
    assert found.last == 3 and found.column("failed") == [0.0, 1.0, 1.0]
    assert moved(once.policy, found.policy) == 0


def test_equal_rewards_move_nothing_and_are_counted(trainer: Trainer, weights: Path) -> None:
    settings = replace(SETTINGS, tuning="full", kl=0.0)
    found = trainer(settings, engine=trained.RuleEngine(lambda _: 3.0))
    base = trained.policy(weights)
    [checks] = [{grade.checked for _, grades in found.grader.seen for grade in grades}]
    assert checks == {1.0}, "else they would not be equal"
    assert found.column("zero_variance") == [1.0] * 3 and moved(base, found.policy) == 0


# Privacy


CANARIES = tuple(Sample(f"c{n}", f"CANARY-IN-{n} knot", f"CANARY-OUT-{n} loaf", raw=b"CANARY-RAW") for n in range(4))


def test_nothing_of_prompts_or_responses_is_said(
    trainer: Trainer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = trainer(engine=trained.RuleEngine(fails=some), samples=CANARIES)
    assert any(grade.score is None for _, grades in found.grader.seen for grade in grades), "TRL would warn of these"
    said = "".join((*capfd.readouterr(), caplog.text, *(str(each.message) for each in warned)))
    written = {each.text for responses, _ in found.grader.seen for each in responses if len(each.text) >= 6}
    assert len(written) > 10
    assert "CANARY" not in said
    assert not [text for text in written if text in said]


def test_no_file_of_a_training_holds_text(trainer: Trainer) -> None:
    found = trainer(engine=trained.RuleEngine(fails=some), samples=CANARIES, save_every=1)
    files = [path for path in found.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"CANARY" in path.read_bytes()]


SHUT = """
import json, sys
from pathlib import Path
from goalcover_local import offline
offline.switch_offline()
offline.shut()
sys.path.insert(0, {tests!r})
import trained
from goalcover_local.finetune.grpo import train
from test_grpo import CANARIES, SETTINGS, some
place = Path({place!r})
notes, grader = trained.Notes(), trained.grader(place / "reward", trained.RuleEngine(fails=some))
last = train(trained.policy(Path({weights!r})), grader, CANARIES, SETTINGS, place / "run", notes, save_every=2)
print(json.dumps([last, offline.refused, sorted(notes.checkpoints)]))
"""


def test_a_training_goes_on_with_the_network_shut_and_keeps_its_texts_to_itself(weights: Path, tmp_path: Path) -> None:
    """In a process of its own, whose home and temporary files are looked through afterwards."""
    homes = {
        name: str(tmp_path / name) for name in ("HOME", "HF_HOME", "HF_DATASETS_CACHE", "TMPDIR", "XDG_CACHE_HOME")
    }
    for home in homes.values():
        Path(home).mkdir()
    tests = Path(__file__).parent
    program = textwrap.dedent(SHUT).format(tests=str(tests), place=str(tmp_path), weights=str(weights))
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tests.parent,
        env={**os.environ, **homes, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tests.parent)},
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [3, [], [2, 3]]
    assert "CANARY" not in ran.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"CANARY" in path.read_bytes()]


# Resuming


def differing(one: trained.Notes, other: trained.Notes) -> dict[tuple[int, str], tuple[Any, Any]]:
    """The numbers of steps in which two trainings differ, times aside, by step and name."""
    found: dict[tuple[int, str], tuple[Any, Any]] = {}
    for step in one.steps.keys() | other.steps.keys():
        ours, theirs = one.steps.get(step, {}), other.steps.get(step, {})
        for name in (ours.keys() | theirs.keys()) - TIMES:
            a, b = ours.get(name), theirs.get(name)
            if a is None or b is None:
                if a is not b:
                    found[step, name] = a, b
            elif abs(a - b) > 1e-6:
                found[step, name] = a, b
    return found


def resumed(trainer: Trainer, settings: Settings, killed_at: int, save_every: int, **options: Any) -> Run:
    """A training that was killed and gone on with, told as one."""
    first = trainer(settings, notes=trained.Notes(killed_at=killed_at), save_every=save_every, **options)
    assert first.last == -1, "it was to be killed"
    step, place = sound(first.folder, first.notes.checkpoints) or (0, None)
    assert step
    second = trainer(settings, folder=first.folder, resume=place, save_every=save_every, **options)
    before = {number: metrics for number, metrics in first.notes.steps.items() if number <= step}
    second.notes.steps = {**before, **second.notes.steps}
    return second


SIX = replace(SETTINGS, steps=6)
KILLS: dict[str, tuple[Settings, int, int]] = {
    "in the first turn": (replace(SIX, steps=4), 2, 1),
    "in a later turn": (SIX, 5, 4),
    "in the middle of a turn": (SIX, 4, 3),
    "micro-batches": (replace(SIX, responses_at_once=4), 5, 4),
    "single responses": (replace(SIX, responses_at_once=1), 4, 3),
    "two updates": (replace(SIX, iterations=2), 5, 4),
    "two updates, micro-batches": (replace(SIX, iterations=2, responses_at_once=4), 3, 2),
    "two updates, saved between them": (replace(SIX, iterations=2), 5, 3),
    "full": (replace(SIX, tuning="full", learning_rate=1e-3), 5, 4),
    "schedule": (replace(SIX, schedule="linear", warmup=3), 3, 2),
    "shuffled": (replace(SIX, shuffled=True), 5, 4),
}


@pytest.mark.parametrize("case", KILLS)
def test_a_training_that_was_killed_comes_to_what_an_unbroken_one_does(trainer: Trainer, case: str) -> None:
    import torch

    settings, killed_at, save_every = KILLS[case]
    unbroken = trainer(settings, save_every=save_every)
    found = resumed(trainer, settings, killed_at, save_every)
    assert found.last == unbroken.last == settings.steps
    assert list(found.notes.steps) == list(range(1, settings.steps + 1))
    assert differing(unbroken.notes, found.notes) == {}
    torch.testing.assert_close(logits(found.policy), logits(unbroken.policy))


def test_a_judges_failures_are_the_same_after_a_kill(trainer: Trainer) -> None:
    engine = trained.RuleEngine(fails=some)
    unbroken = trainer(replace(SIX, steps=4), engine=engine, save_every=1)
    found = resumed(trainer, replace(SIX, steps=4), 2, 1, engine=engine)
    assert differing(unbroken.notes, found.notes) == {}


def test_every_step_is_told_with_several_updates_by_the_same_responses(trainer: Trainer) -> None:
    found = trainer(replace(SETTINGS, steps=4, iterations=2))
    assert list(found.notes.steps) == [1, 2, 3, 4]
    assert len(found.grader.seen) == 2
    assert all(metrics["loss"] is not None for metrics in found.notes.steps.values())


def test_a_training_that_is_due_stops_with_a_checkpoint_and_goes_on(trainer: Trainer) -> None:
    unbroken = trainer(replace(SIX, steps=4))
    first = trainer(replace(SIX, steps=4), notes=trained.Notes(due_at=2))
    assert first.last == 2 and list(first.notes.steps) == [1, 2] and list(first.notes.checkpoints) == [2]
    second = trainer(replace(SIX, steps=4), folder=first.folder, resume=first.folder / "checkpoint-2")
    assert second.last == 4 and list(second.notes.steps) == [3, 4]
    second.notes.steps = {**first.notes.steps, **second.notes.steps}
    assert differing(unbroken.notes, second.notes) == {}


def test_a_kill_before_the_first_checkpoint_begins_anew(trainer: Trainer) -> None:
    unbroken = trainer()
    first = trainer(notes=trained.Notes(killed_at=2), save_every=3)
    assert sound(first.folder, first.notes.checkpoints) is None
    again = trainer(folder=first.folder)
    assert differing(unbroken.notes, again.notes) == {}


# What a training is given and leaves


def test_a_prompt_beyond_the_context_is_told_before_training(trainer: Trainer, weights: Path) -> None:
    long = Sample("long", "canary " * 400, "x")
    policy = trained.policy(weights)
    before = tensors(policy.model)
    with pytest.raises(EngineError) as refused:
        trainer(samples=(*trained.SAMPLES, long), policy=policy)
    assert "canary" not in str(refused.value) and "600" in refused.value.problem
    assert "--max-prompt-tokens" in refused.value.mend
    assert before.keys() == tensors(policy.model).keys(), "no adapter was put on"


def test_a_training_leaves_seeds_threads_loggers_and_warnings_as_they_were(trainer: Trainer) -> None:
    import torch

    names = ("", "trl", "transformers", "accelerate", "peft", "datasets", "goalcover_local")

    def state() -> list[Any]:
        loggers = [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]
        filters = [str(each) for each in warnings.filters]
        return [loggers, filters, torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()]

    def drawn() -> list[float]:
        """What the generators would give next, which they go on giving."""
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        found = [random.random(), float(np.random.rand()), float(torch.rand(1))]
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        return found

    trainer(replace(SETTINGS, steps=1))  # what is imported for the first time may set itself up
    random.seed(11)
    np.random.seed(11)
    torch.manual_seed(11)
    before, seeds = state(), drawn()
    trainer(replace(SETTINGS, steps=1))
    assert state() == before
    assert drawn() == seeds


def test_a_training_leaves_no_variable_in_the_environment(trainer: Trainer) -> None:
    trainer(replace(SETTINGS, steps=1))
    before = dict(os.environ)
    trainer(replace(SETTINGS, steps=1, responses_at_once=4))
    changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
    assert changed <= {"PYTEST_CURRENT_TEST"}


def test_a_second_training_in_the_same_process_is_what_it_would_be_alone(trainer: Trainer) -> None:
    alone = trainer(replace(SETTINGS, steps=2))
    trainer(replace(SETTINGS, steps=1, tuning="full", responses_at_once=2, seed=9, kl=0.0))
    assert differing(alone.notes, trainer(replace(SETTINGS, steps=2)).notes) == {}


def test_what_was_drawn_before_is_of_no_account(trainer: Trainer) -> None:
    import torch

    one = trainer(replace(SETTINGS, steps=2))
    torch.manual_seed(123)
    torch.rand(7)
    assert differing(one.notes, trainer(replace(SETTINGS, steps=2)).notes) == {}


def test_the_policys_own_base_may_judge_it(trainer: Trainer, weights: Path, tmp_path: Path) -> None:
    """The judge shares its weights and stays the base, whatever is trained."""
    policy = trained.policy(weights)
    grader = trained.Remembering(share_base(policy), load_rubric(str(trained.write_reward(tmp_path / "shared"))))
    notes = trained.Notes()
    assert train(policy, grader, trained.SAMPLES, SETTINGS, tmp_path / "run", notes) == 3
    alone = share_base(trained.policy(weights))
    responses, grades = grader.seen[-1]
    again = Grader(alone, grader.rubric).grade(responses)
    assert [grade.score for grade in again] == pytest.approx([grade.score for grade in grades], abs=1e-4)
    assert all(step["failed"] == 0 for step in notes.steps.values())
