"""`goalcover train` as users run it, on a policy of a few kilobytes: killed, stopped, tampered with, gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import tiny
from analyst import Analyst
from command import Goalcover
from trained import RuleEngine, write_reward

from goalcover_local import beside, pulling
from goalcover_local.audit import OPENED, SEALED
from goalcover_local.cli.train import BEGUN
from goalcover_local.cli.trained import TRAINED
from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.errors import StoreError
from goalcover_local.finetune import grpo
from goalcover_local.finetune.checkpoints import digests, policy_files
from goalcover_local.finetune.grpo import Settings
from goalcover_local.finetune.rubric import LEVELS
from goalcover_local.store import Run
from goalcover_local.terms import Sample
from goalcover_local.trainings import Trainings

pytest.importorskip("trl", reason="training needs trl")
pytest.importorskip("peft", reason="training needs peft")

CANARY = "Zwiebelkuchen4711"
CARD = """
name = "{name}"
title = "Tiny"
roles = ["judge", "policy"]
parameters = "0.02M"
licence = "Apache-2.0"
provenance = "Random numbers."
context = 2048
precision = "float32"
[source]
kind = "directory"
"""
N_ROWS, STEPS = 5, 6
NAME = "original"
DATA = ("train", "train.jsonl", "--run", "run", "--reward", "./letters", "--policy", "tiny-policy")
HOW = ("--steps", STEPS, "--prompts-per-step", 2, "--responses", 4, "--at-once", 8, "--learning-rate", "1e-2")
TRAIN = (*DATA, "--name", NAME, *HOW, "--save-every", 2, "--judge", "tiny-policy")
BY_RULES = (*DATA, "--name", NAME, *HOW, "--save-every", 2, "--judge", "by-rules")
TIMES = {"seconds", "judge_seconds", "tokens_per_second"}
SECONDS = 1800
"""What a process may take before it counts as stuck: machines that build may be slow."""


# A place to train in


def write_rows(path: Path, n: int = N_ROWS) -> None:
    """That file, holding rows of which each has the canary in both of its texts; each is longer than the one before."""
    rows = [
        {"id": f"r{k}", "question": f"{CANARY} knot {'x ' * 8 * k}{k}", "answer": f"a {CANARY} loaf {k}"}
        for k in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def furnish(folder: Path, home: Path) -> Path:
    """The folder, holding rows and the one reward of all such folders."""
    (folder / "letters").symlink_to(home / "letters")
    write_rows(folder / "train.jsonl")
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small wait for their threads longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models home: a random policy by two cards, one made for it; a judge by rules; a card without weights.

    The reward lies there too, so that its folder is the same wherever the command runs.
    """
    place = tmp_path_factory.mktemp("home")
    write_reward(place / "letters")
    weights = tiny.write_checkpoint(tmp_path_factory.mktemp("weights"))
    (place / "cards").mkdir()
    for name in ("tiny-policy", "by-rules", "not-here"):
        (place / "cards" / f"{name}.toml").write_text(CARD.format(name=name), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOALCOVER_HOME", str(place))
        for name in ("tiny-policy", "by-rules", "of-my-own"):
            pulling.add(weights, name)
    return place


@pytest.fixture
def desk(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> Path:
    """The folder that the command runs in, with a reward and rows; its run is to be `run`."""
    monkeypatch.setenv("GOALCOVER_HOME", str(home))
    return furnish(tmp_path, home)


# The executable


class Finished(NamedTuple):
    """A folder in which a command came to its end, and what it wrote."""

    desk: Path
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.desk / "run"


def environment(home: Path) -> dict[str, str]:
    """The variables of a process that trains: everything about it on one thread, and its sockets on loopback."""
    root = Path(__file__).parents[1]
    ours = {"GOALCOVER_HOME": str(home), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **ours}


def module(*arguments: object) -> list[str]:
    """The executable with these arguments."""
    return [sys.executable, "-m", "goalcover_local.cli.main", *map(str, arguments)]


def executed(desk: Path, home: Path, command: Sequence[str]) -> Finished:
    """What a command wrote, whatever the umask; it must succeed, and tell no sample's text."""
    done = subprocess.run(
        command, cwd=desk, env=environment(home), capture_output=True, text=True, timeout=SECONDS, umask=0
    )
    assert done.returncode == 0, done.stderr
    silent(done.stdout, done.stderr)
    return Finished(desk, done.stdout, done.stderr)


@contextmanager
def started(desk: Path, home: Path) -> Iterator[subprocess.Popen[str]]:
    """A context with a process that trains, as if it had been started in a terminal's foreground."""
    with subprocess.Popen(
        module(*TRAIN),
        cwd=desk,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], run: Path, begun: int, step: int) -> None:
    """Nothing; returns once the training was begun that often and has come to that step."""
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        assert process.poll() is None, process.communicate()
        with suppress(StoreError), Run.open(run, write=False) as opened:  # there may be no run yet
            n_begun = sum(event.kind == BEGUN for event in opened.events())
            if n_begun >= begun and len(Trainings(opened).steps(NAME)) >= step:
                return
        time.sleep(0.02)
    pytest.fail("it never came so far")


@pytest.fixture(scope="module")
def unbroken(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A training that came to its end at the first attempt: the real executable, its network shut."""
    desk = furnish(tmp_path_factory.mktemp("unbroken"), home)
    return executed(desk, home, module(*TRAIN, "--json"))


@pytest.fixture
def copied(desk: Path, unbroken: Finished) -> Path:
    """The folder of a run in which a training came to its end."""
    return Path(shutil.copytree(unbroken.run, desk / "run"))


# What a run holds


def adapter(run: Path, name: str = NAME) -> Path:
    """Where a training's policy lies."""
    return run / "policies" / name / "adapter"


def checkpoint(run: Path, step: int) -> Path:
    """Where a training's checkpoint lies."""
    return run / "policies" / NAME / "checkpoints" / f"checkpoint-{step}"


def steps(run: Path, name: str = NAME) -> list[dict[str, Any]]:
    """What was measured at each step, times left out."""
    with Run.open(run, write=False) as opened:
        found = Trainings(opened).steps(name)
    return [{key: value for key, value in step.items() if key not in TIMES} for step in found]


def events(run: Path) -> list[tuple[str, dict[str, Any]]]:
    """The audit trail, which must be whole, without what every command puts there: kinds and details."""
    with Run.open(run, write=False) as opened:
        assert opened.verify_events() == []
        found = [(event.kind, json.loads(event.details)) for event in opened.events()]
        return [(kind, told) for kind, told in found if kind not in (OPENED, SEALED)]


def as_killed(source: Path, target: Path, at: int) -> Path:
    """The folder of a run as a kill after that step leaves it: what an unbroken one had then, and no policy yet."""
    with Run.open(source, write=False) as whole, Run.open(target, write=True, create=True) as cut:
        had, has = Trainings(whole), Trainings(cut)
        has.begin(NAME, had.settings(NAME))
        for step in had.steps(NAME)[:at]:
            has.add_step(NAME, step.pop("step"), step)
        has.make_folder(NAME)
        for step, files in had.checkpoints(NAME).items():
            if step <= at:
                has.add_checkpoint(NAME, step, files)
                with suppress(FileNotFoundError):  # only the last two are kept
                    shutil.copytree(checkpoint(source, step), checkpoint(target, step))
    return target


def spoil(file: Path) -> None:
    """Nothing; one bit of the file's last byte is another."""
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def equal(run: Path, other: Path) -> None:
    """Fails unless two trainings came to the same: numbers, checkpoints' policies and adapters, byte by byte."""
    ours, theirs = steps(run), steps(other)
    assert [step["step"] for step in ours] == [step["step"] for step in theirs] == list(range(1, STEPS + 1))
    for one, another in zip(ours, theirs, strict=True):
        assert one == pytest.approx(another, abs=1e-6, nan_ok=False)
    assert policy_files(adapter(run)) == policy_files(adapter(other))
    assert policy_files(checkpoint(run, STEPS)) == policy_files(checkpoint(other, STEPS))


def silent(*texts: str) -> None:
    """Fails if a sample's text is told, or if an error was not foreseen."""
    for text in texts:
        assert CANARY not in text and "knot" not in text and "loaf" not in text
        assert "Traceback" not in text


# A training that does not take place


class Stopped(KeyboardInterrupt):
    """The end of a training before its first step."""


class Begun(NamedTuple):
    """What a training was to begin with."""

    samples: Sequence[Sample]
    settings: Settings
    resume: Path | None


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Begun]:
    """What trainings are begun with from now on; none of them takes a step."""
    found: list[Begun] = []

    def train(_: Any, __: Any, samples: Sequence[Sample], settings: Settings, *___: Any, **options: Any) -> int:
        found.append(Begun(samples, settings, options.get("resume")))
        raise Stopped

    monkeypatch.setattr(grpo, "train", train)
    return found


class Rules(Analyst):
    """Grades a response by its share of small letters, and fails on every one that `fails` picks."""

    def __init__(self, fails: Callable[[str], bool] = lambda _: False) -> None:
        super().__init__("by-rules")
        self._rules = RuleEngine(fails=fails)

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Probabilities of 1 to 5 by the rule; other questions as the analyst answers them."""
        return (self._rules if tuple(answers) == LEVELS else super()).choose(prompts, answers)


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch, desk: Path) -> Callable[..., None]:
    """Has the judge go by rules, and fail where it is told to."""

    def judge(fails: Callable[[str], bool] = lambda _: False) -> None:
        monkeypatch.setattr("goalcover_local.asking.open_engine", lambda *_, **__: Rules(fails))

    judge()
    return judge


# The whole command


def test_what_a_training_leaves_and_says(unbroken: Finished) -> None:
    told = json.loads(unbroken.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    facts = {"run": "run", "name": NAME, "reward": "./letters", "policy": "tiny-policy", "judge": "tiny-policy"}
    facts |= {"n_rows": N_ROWS, "n_steps": STEPS, "n_failed": 0}
    assert told == told | facts
    assert set(told) == {*facts, "first", "last", "adapter", "curve", "files"}
    assert unbroken.desk / told["adapter"] == adapter(unbroken.run)
    assert told["files"] == policy_files(adapter(unbroken.run)) == policy_files(checkpoint(unbroken.run, STEPS))
    assert set(told["files"]) == {"adapter_model.safetensors", "adapter_config.json"}
    assert {path.name for path in adapter(unbroken.run).iterdir()} == {*told["files"], "card.json"}
    ElementTree.fromstring((unbroken.desk / told["curve"]).read_text("utf-8"))

    measured = steps(unbroken.run)
    assert [step["step"] for step in measured] == list(range(1, STEPS + 1))
    assert told["first"] == told["last"], "fewer steps than are averaged"
    for name in ("score", "judged", "checked", "dimensions/letters", "checks/length", "tokens"):
        assert told["last"][name] == pytest.approx(sum(step[name] for step in measured) / STEPS)
    for step in measured:
        parts = 0.8 * step["judged"] + 0.2 * (1 + 4 * step["checked"])
        assert step["score"] == pytest.approx(parts, abs=1e-5) and step["failed"] == 0
        assert 1 <= step["judged"] <= 5 and 0 <= step["checked"] <= 1
    assert len({step["score"] for step in measured}) > 1, "a reward that never changes is none"
    assert "Memory: " in unbroken.err and "tiny-policy cannot be checked as a judge of letters" in unbroken.err
    assert f"Training {NAME}: {STEPS} of {STEPS} steps" in unbroken.err


def test_the_card_says_by_what_the_policy_came_about(unbroken: Finished) -> None:
    card = json.loads((adapter(unbroken.run) / "card.json").read_text("utf-8"))
    assert card["settings"]["learning_rate"] == 0.01 and card["settings"]["loss"] == "grpo"
    assert (card["name"], card["reward_name"], card["n_steps"]) == (NAME, "letters", STEPS)
    assert card["files"] == policy_files(adapter(unbroken.run))
    assert card["policy"]["weights"] == card["judge"]["weights"] and card["judge"]["reward_digest"] == card["reward"]
    assert len(card["data"]) == len(card["reward"]) == 64 and card["versions"]["trl"]
    assert "rows" not in card


def test_the_record_tells_beginning_and_end_by_digests(unbroken: Finished) -> None:
    (first, begin), (last, end) = events(unbroken.run)
    assert (first, last) == (BEGUN, TRAINED)
    assert (begin["name"], begin["step"], end["name"], end["n_steps"]) == (NAME, 0, NAME, STEPS)
    assert all(len(begin[key]) == 64 for key in ("policy", "judge", "settings", "rows", "data", "reward"))
    told = json.loads(unbroken.out)
    assert end["files"] == told["files"] and end["last"] == told["last"]["score"]


def test_nobody_else_can_look_into_a_run_whatever_the_umask(unbroken: Finished) -> None:
    """The executable ran under a umask of 0."""
    for folder in (unbroken.run, unbroken.run / "policies", adapter(unbroken.run).parent, adapter(unbroken.run)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for file in unbroken.run.glob("run.*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_no_file_holds_text_and_no_policy_a_path(unbroken: Finished, home: Path) -> None:
    files = [path for folder in (unbroken.run, home) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    for path in adapter(unbroken.run).iterdir():
        raw = path.read_bytes()
        assert str(home).encode() not in raw and str(unbroken.desk).encode() not in raw
        assert not raw.startswith(b"PK"), "no pickle"


def test_the_table(goalcover: Goalcover, copied: Path, begun: list[Begun]) -> None:
    said = goalcover(*TRAIN)
    silent(said.out, said.err)
    lines = said.out.splitlines()
    for name in ("reward, 1-5", "letters", "length", "KL", "equal groups"):
        assert sum(line.lstrip().startswith(name) for line in lines) == 1, name
    assert f"last {STEPS} steps" in said.out and str(adapter(Path("run"))) in said.out
    assert "`goalcover evaluate` tells of other rows." in said.err
    assert begun == []


# Once more


def test_a_training_that_has_ended_is_not_trained_again(
    goalcover: Goalcover, copied: Path, unbroken: Finished, begun: list[Begun]
) -> None:
    before = events(copied)
    said = goalcover(*TRAIN, "--json")
    assert json.loads(said.out) == json.loads(unbroken.out)
    assert begun == [] and events(copied) == before
    equal(copied, unbroken.run)


def test_nor_if_its_checkpoints_were_removed_since(
    goalcover: Goalcover, copied: Path, unbroken: Finished, begun: list[Begun]
) -> None:
    shutil.rmtree(copied / "policies" / NAME / "checkpoints")
    assert json.loads(goalcover(*TRAIN, "--json").out) == json.loads(unbroken.out)
    assert begun == []


@pytest.mark.parametrize("whole", [True, False])
def test_an_altered_policy_is_not_taken_for_what_was_trained(
    goalcover: Goalcover, copied: Path, begun: list[Begun], whole: bool
) -> None:
    """Whether or not its checkpoints are still there."""
    spoil(adapter(copied) / "adapter_model.safetensors")
    if not whole:
        shutil.rmtree(copied / "policies" / NAME / "checkpoints")
    said = goalcover.refused(*TRAIN, "--json")
    assert f"The files of the policy {NAME} are not those that its training wrote." in said
    assert begun == []


@pytest.mark.parametrize(
    ("options", "differing"),
    [
        (("--learning-rate", "1e-3"), "learning_rate"),
        (("--seed", 1), "seed"),
        (("--shuffled",), "shuffled"),
        (("--limit", 3), "rows"),
        (("--judge", "by-rules"), "judge"),
    ],
)
def test_other_settings_under_the_same_name_are_refused(
    goalcover: Goalcover,
    copied: Path,
    begun: list[Begun],
    rules: Callable[..., None],
    options: tuple[object, ...],
    differing: str,
) -> None:
    before = events(copied)
    said = goalcover.refused(*TRAIN, *options)
    silent(said)
    assert f"The training {NAME} was begun with other settings: " in said and differing in said
    assert "Use another --name, or the settings it was begun with." in said
    assert begun == [] and events(copied) == before


def test_a_reward_that_lies_elsewhere_now_is_the_same_reward(
    goalcover: Goalcover, copied: Path, unbroken: Finished, begun: list[Begun]
) -> None:
    shutil.copytree("letters", "elsewhere/notes")
    said = goalcover(*TRAIN, "--reward", "elsewhere/notes", "--json")
    assert json.loads(said.out)["files"] == json.loads(unbroken.out)["files"] and begun == []
    with Run.open(copied, write=False) as run:
        assert Path(Trainings(run).settings(NAME)["reward_name"]).name == "letters", "it keeps the name it had"
    altered = Path("elsewhere/notes/reward.toml")
    altered.write_text(altered.read_text("utf-8").replace("weight = 3", "weight = 2"), "utf-8")
    said = goalcover.refused(*TRAIN, "--reward", "elsewhere/notes")
    assert "was begun with other settings: " in said and "reward" in said


def test_other_data_under_the_same_name_are_refused(goalcover: Goalcover, copied: Path, begun: list[Begun]) -> None:
    write_rows(Path("train.jsonl"), N_ROWS + 1)
    said = goalcover.refused(*TRAIN)
    assert "data" in said and "rows" in said and begun == []
    silent(said)


def test_what_does_not_change_the_outcome_may_change(goalcover: Goalcover, copied: Path, begun: list[Begun]) -> None:
    assert goalcover(*TRAIN, "--save-every", 3, "--max-hours", 1, "--json").out
    assert begun == []


# What is refused


@pytest.mark.parametrize("name", ["base", "../x", "Original", "a/b", "x" * 61, ""])
def test_what_cannot_be_a_name_is_said_before_anything_is_loaded(
    goalcover: Goalcover, desk: Path, begun: list[Begun], name: str
) -> None:
    said = goalcover.refused(*TRAIN, "--name", name)
    assert "--name" in said
    assert "Loading" not in said and not Path("run").exists() and begun == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--reward", "no-such-reward"), "There is no reward 'no-such-reward'."),
        (("--policy", "no-such-card"), "There is no card named 'no-such-card'."),
        (("--judge", "no-such-card"), "There is no card named 'no-such-card'."),
        (("--policy", "not-here"), "There are no weights of not-here in "),
        (("--max-prompt-tokens", 16), "No row has a prompt of at most 16 tokens."),
        (("--input-column", "nowhere", "--output-column", "answer"), "has no column 'nowhere'"),
    ],
)
def test_what_is_not_there_is_named(
    goalcover: Goalcover, desk: Path, begun: list[Begun], options: tuple[object, ...], problem: str
) -> None:
    said = goalcover.refused(*TRAIN, *options)
    silent(said)
    assert problem in said and begun == []


@pytest.mark.parametrize("options", [("--at-once", 3), ("--responses", 1), ("--steps", 0), ("--max-tokens", 4)])
def test_settings_that_cannot_be_are_a_question_of_usage(
    goalcover: Goalcover, desk: Path, options: tuple[object, ...]
) -> None:
    said = goalcover(*TRAIN, *options, code=2)
    assert "Error: " in said.err and said.out == "" and not Path("run").exists()


def test_rows_that_are_none_are_told_by_file_and_line(goalcover: Goalcover, desk: Path, begun: list[Begun]) -> None:
    with Path("train.jsonl").open("a", encoding="utf-8") as file:
        file.write(f'{{"question": "{CANARY}"\n{{"id": "x", "question": "{CANARY}", "answer": ""}}\n')
    said = goalcover(*TRAIN, code=130)
    silent(said.err)
    assert "refused train.jsonl:6: " in said.err and "refused train.jsonl:7: " in said.err
    assert [sample.line for sample in begun[0].samples] == [1, 2, 3, 4, 5]


def test_data_without_a_row_are_refused(goalcover: Goalcover, desk: Path) -> None:
    rows = [json.dumps({"question": CANARY, "answer": ""})] * 2
    Path("train.jsonl").write_text("\n".join(rows), "utf-8")
    said = goalcover.refused(*TRAIN)
    assert "refused train.jsonl:1: " in said and "No row of train.jsonl can be used." in said
    silent(said)
    assert not Path("run").exists()
    Path("train.jsonl").write_text("", "utf-8")
    assert "train.jsonl" in goalcover.refused(*TRAIN)


def test_one_writes_to_a_run_at_a_time(goalcover: Goalcover, copied: Path, begun: list[Begun]) -> None:
    with Run.open(copied, write=True):
        assert "is writing to the run run." in goalcover.refused(*TRAIN)
    assert begun == []


# Rows and settings


def test_smaller_limits_draw_parts_of_larger_ones_by_seed(goalcover: Goalcover, desk: Path, begun: list[Begun]) -> None:
    for number, options in enumerate([("--limit", 2), ("--limit", 4), ("--limit", 4, "--seed", 5), ("--limit", 99)]):
        goalcover(*TRAIN, *options, "--name", f"drawn-{number}", code=130)
    two, four, others, all_of_them = ([sample.line for sample in each.samples] for each in begun)
    assert len(two) == 2 and len(four) == len(others) == 4 and set(two) < set(four)
    assert four == sorted(four) and others != four and all_of_them == [1, 2, 3, 4, 5]
    assert begun[2].settings.seed == 5


def test_rows_with_longer_prompts_are_left_out_and_told(goalcover: Goalcover, desk: Path, begun: list[Begun]) -> None:
    said = goalcover(*TRAIN, "--max-prompt-tokens", 90, code=130)
    silent(said.err)
    kept = [sample.line for sample in begun[0].samples]
    assert kept == list(range(1, len(kept) + 1)) and 0 < len(kept) < N_ROWS
    places = ", ".join(f"train.jsonl:{line}" for line in range(len(kept) + 1, N_ROWS + 1))
    assert f"Left out: {N_ROWS - len(kept)} of {N_ROWS} rows with longer prompts ({places})." in said.err


def test_options_become_settings(goalcover: Goalcover, desk: Path, begun: list[Begun]) -> None:
    goalcover(*DATA, "--judge", "tiny-policy", "--name", "plain", code=130)
    expected = Settings(steps=100, max_tokens=8, responses_at_once=8, learning_rate=1e-5)
    assert begun[0].settings == expected, "the reward says how many tokens; an adapter learns by 1e-5"
    how = ("--tuning", "full", "--max-tokens", 12, "--kl", 0, "--loss", "dapo", "--schedule", "cosine", "--warmup", 2)
    goalcover(*DATA, "--judge", "tiny-policy", "--name", "full", *how, "--responses", 2, "--checkpointing", code=130)
    told = begun[1].settings
    assert (told.tuning, told.learning_rate, told.precision, told.responses_at_once) == ("full", 1e-6, "float32", 2)
    assert (told.max_tokens, told.kl, told.loss, told.schedule, told.warmup) == (12, 0, "dapo", "cosine", 2)
    assert told.checkpointing and not told.shuffled


def test_a_model_of_ones_own_can_be_trained(goalcover: Goalcover, desk: Path, begun: list[Begun]) -> None:
    """Its card is the one that `goalcover models add` wrote, which states no number of parameters."""
    said = goalcover(*TRAIN, "--policy", "of-my-own", "--judge", "of-my-own", code=130)
    assert "Memory: together" in said.err and len(begun) == 1


def test_a_control_with_shuffled_rewards_goes_another_way(
    goalcover: Goalcover, copied: Path, unbroken: Finished
) -> None:
    told = json.loads(goalcover(*TRAIN, "--name", "control", "--shuffled", "--json").out)
    ours, theirs = steps(copied, "control"), steps(unbroken.run)
    assert ours[0]["score"] == pytest.approx(theirs[0]["score"], abs=1e-6), "the same responses, graded alike"
    assert told["files"] != json.loads(unbroken.out)["files"]
    assert [kind for kind, _ in events(copied)] == [BEGUN, TRAINED] * 2
    with Run.open(copied, write=False) as run:
        assert Trainings(run).names() == [NAME, "control"]
    equal(copied, unbroken.run)


# Ended before the end


def test_interrupted_and_killed_it_comes_to_what_an_unbroken_one_does(
    goalcover: Goalcover, desk: Path, home: Path, unbroken: Finished
) -> None:
    run = desk / "run"
    with started(desk, home) as process:
        wait_for(process, run, begun=1, step=1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (130, "")
    silent(err)
    assert err.splitlines()[-1] == "Interrupted. What was judged is stored: the same command goes on from there."

    with started(desk, home) as process:
        wait_for(process, run, begun=2, step=3)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert len(steps(run)) < STEPS, "it was killed in the middle"
    half = checkpoint(run, STEPS - 1)
    half.mkdir(parents=True, exist_ok=True)
    (half / "adapter_model.safetensors").write_bytes(b"half")

    said = goalcover(*TRAIN, "--json")
    silent(said.err)
    assert "Going on from step " in said.err and f"Going on from step 0 of {STEPS}." not in said.err
    equal(run, unbroken.run)
    assert not half.exists(), "what a kill leaves half written goes"
    assert json.loads(said.out)["files"] == json.loads(unbroken.out)["files"]
    found = events(run)
    assert [kind for kind, _ in found] == [BEGUN, BEGUN, BEGUN, TRAINED]
    assert found[2][1]["step"] in (2, 4) and found[3][1]["files"] == json.loads(said.out)["files"]


def test_it_stops_in_time_and_goes_on(goalcover: Goalcover, desk: Path, unbroken: Finished) -> None:
    said = goalcover(*TRAIN, "--max-hours", 1e-9, "--json", code=130)
    assert said.out == "" and "Stopped by --max-hours. The same command goes on from here." in said.err
    assert len(steps(desk / "run")) == 1 and not adapter(desk / "run").exists()
    said = goalcover(*TRAIN, "--json")
    assert f"Going on from step 1 of {STEPS}." in said.err
    equal(desk / "run", unbroken.run)


def test_killed_between_the_last_checkpoint_and_the_end_it_trains_no_more(
    goalcover: Goalcover, desk: Path, unbroken: Finished, begun: list[Begun]
) -> None:
    run = as_killed(unbroken.run, desk / "run", STEPS)
    said = goalcover(*TRAIN, "--json")
    assert f"Going on from step {STEPS} of {STEPS}." in said.err and begun == []
    assert json.loads(said.out) == json.loads(unbroken.out)
    equal(run, unbroken.run)
    assert [kind for kind, _ in events(run)] == [BEGUN, TRAINED]


def test_killed_while_the_policy_was_kept_it_is_kept_whole(
    goalcover: Goalcover, desk: Path, unbroken: Finished, begun: list[Begun]
) -> None:
    run = as_killed(unbroken.run, desk / "run", STEPS)
    half = adapter(run).with_name("adapter.partial")
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    goalcover(*TRAIN)
    equal(run, unbroken.run)
    assert not half.exists() and begun == []


def remove(file: Path) -> None:
    file.unlink()


def a_stranger(file: Path) -> None:
    file.with_name("stranger.pt").write_bytes(b"cos\nsystem\n")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (spoil, "optimizer.pt"),
        (spoil, "rng_state.pth"),
        (spoil, "trainer_state.json"),
        (spoil, "adapter_model.safetensors"),
        (remove, "scheduler.pt"),
        (a_stranger, "optimizer.pt"),
    ],
)
def test_a_checkpoint_that_is_not_as_it_was_written_is_not_loaded(
    goalcover: Goalcover,
    desk: Path,
    unbroken: Finished,
    begun: list[Begun],
    change: Callable[[Path], None],
    name: str,
) -> None:
    run = as_killed(unbroken.run, desk / "run", STEPS)
    change(checkpoint(run, STEPS) / name)
    said = goalcover(*TRAIN, code=130)
    assert f"Going on from step 4 of {STEPS}." in said.err
    assert [each.resume for each in begun] == [checkpoint(Path("run"), 4)]
    assert len(steps(run)) == 4 and not checkpoint(run, STEPS).exists()


def test_without_a_sound_checkpoint_it_begins_anew_and_comes_to_the_same(
    goalcover: Goalcover, desk: Path, unbroken: Finished
) -> None:
    run = as_killed(unbroken.run, desk / "run", STEPS - 1)
    spoil(checkpoint(run, 4) / "optimizer.pt")
    said = goalcover(*TRAIN)
    assert f"Going on from step 0 of {STEPS}." in said.err
    equal(run, unbroken.run)


# Judgements that fail


def some(response: str) -> bool:
    return sum(response.encode()) % 3 == 0


def test_failed_judgements_are_counted_and_told(goalcover: Goalcover, rules: Callable[..., None]) -> None:
    rules(some)
    said = goalcover(*BY_RULES, "--json", code=3)
    silent(said.err)
    told = json.loads(said.out)
    shares = [step["failed"] for step in steps(Path("run"))]
    assert 0 < sum(shares) < STEPS
    assert told["n_failed"] == round(sum(shares) * 8) and told["last"]["failed"] == pytest.approx(sum(shares) / STEPS)
    assert told["judge"] == "by-rules" and "failed" in said.err
    again = goalcover(*BY_RULES, "--json", code=3)
    assert json.loads(again.out) == told, "it is so the next time too"


def test_a_judge_that_fails_for_all_gives_no_numbers(goalcover: Goalcover, rules: Callable[..., None]) -> None:
    rules(lambda _: True)
    said = goalcover(*BY_RULES, code=3)
    silent(said.err)
    [line] = [line for line in said.out.splitlines() if line.lstrip().startswith("reward, 1-5")]
    assert line.count("–") == 2
    ElementTree.fromstring(Path("run/policies/original/curve.svg").read_text("utf-8"))
    with Run.open("run", write=False) as run:
        assert beside.files(run).others == (), "what training wrote is known to hold no text"
    assert "last" not in events(Path("run"))[-1][1]


def test_a_judge_of_its_own_is_opened_once_and_closed(
    goalcover: Goalcover, rules: Callable[..., None], monkeypatch: pytest.MonkeyPatch, begun: list[Begun]
) -> None:
    judge, opened, closed = Rules(), [], []
    monkeypatch.setattr("goalcover_local.asking.open_engine", lambda card, **_: opened.append(card.name) or judge)
    monkeypatch.setattr(Rules, "close", lambda _: closed.append(True))
    goalcover(*BY_RULES, code=130)
    assert opened == ["by-rules"] and closed == [True]
    goalcover(*TRAIN, "--name", "shared", code=130)
    assert opened == ["by-rules"], "the base that judges its own policy shares its weights"


# Dry runs


def test_a_dry_run_says_what_is_needed_where_the_weights_are_not_here(goalcover: Goalcover, desk: Path) -> None:
    said = goalcover(*TRAIN, "--policy", "not-here", "--dry-run")
    silent(said.err)
    assert f"{N_ROWS} rows, {STEPS} steps of 8 responses." in said.err and "Memory: " in said.err
    assert "Not timed: not-here is not ready on this machine." in said.err
    assert "reckoned from their bytes: the policy's tokenizer is not here." in said.err
    assert said.out.endswith("GB of memory; not timed.\n") and not Path("run").exists()


def test_a_dry_run_is_json_whether_or_not_the_weights_are_here(goalcover: Goalcover, desk: Path) -> None:
    dry = (*TRAIN, "--dry-run", "--json")
    absent = json.loads(goalcover(*dry, "--policy", "not-here").out)
    rows = [json.loads(line) for line in Path("train.jsonl").read_text("utf-8").splitlines()]
    n_bytes = max(len(f"Say {row['question']} as {row['answer']}.".encode()) for row in rows)
    assert absent["prompt_tokens"] == {"longest": -(-n_bytes // 3), "counted": False}
    told = {"n_rows": N_ROWS, "n_steps": STEPS, "responses_per_step": 8, "seconds_per_step": None, "seconds": None}
    assert absent == absent | told | {"missing_weights": ["not-here"]}
    memory = absent["memory"]
    assert memory["total"] == sum(memory["parts"].values()) > 0 and memory["unknown"] and memory["device"] == "cpu"

    unjudged = json.loads(goalcover(*dry, "--judge", "not-here").out)
    assert unjudged["prompt_tokens"]["counted"] and unjudged["seconds_per_step"] is None
    assert unjudged["missing_weights"] == ["not-here"] and not unjudged["memory"]["unknown"]
    for name in ("policy", "judge"):
        capped = json.loads(goalcover(*dry, f"--{name}", "not-here", "--max-prompt-tokens", 20).out)
        assert capped["prompt_tokens"]["longest"] == 20
        assert capped["memory"]["total"] <= (absent if name == "policy" else unjudged)["memory"]["total"]


def test_a_dry_run_times_two_steps_and_stores_nothing(
    goalcover: Goalcover, desk: Path, tmp_path: Path, home: Path
) -> None:
    before = digests(tmp_path)
    said = goalcover(*TRAIN, "--dry-run", "--json")
    silent(said.out, said.err)
    told = json.loads(said.out)
    assert (told["n_rows"], told["n_steps"]) == (N_ROWS, STEPS) and told["seconds_per_step"] > 0
    assert told["seconds"] == pytest.approx(told["seconds_per_step"] * STEPS) and told["missing_weights"] == []
    assert told["prompt_tokens"]["counted"] and told["memory"]["parts"]["policy weights"] > 0
    assert digests(tmp_path) == before


def test_a_dry_run_changes_nothing_in_a_run_that_is_there(
    goalcover: Goalcover, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*arguments: Any, **_: Any) -> int:
        for step in (1, 2):
            arguments[5].stepped(step, {"score": 3.0})
        return 2

    monkeypatch.setattr(grpo, "train", train)
    before = digests(copied)
    said = goalcover(*TRAIN, "--dry-run")
    assert "s a step, " in said.out and "in all." in said.out
    assert digests(copied) == before


# What is trained can be used


def test_what_was_trained_is_merged(goalcover: Goalcover, copied: Path) -> None:
    told = json.loads(goalcover("merge", "run", NAME, "-o", "merged", "--json").out)
    assert told["files"] == digests(Path("merged")) and "model.safetensors" in told["files"]
    assert events(copied)[-1][0] == "policy merged"


def test_a_policy_tuned_in_full_is_a_model_and_no_adapter(goalcover: Goalcover, rules: Callable[..., None]) -> None:
    told = json.loads(goalcover(*BY_RULES, "--tuning", "full", "--steps", 2, "--json").out)
    assert set(told["files"]) >= {"model.safetensors", "config.json"}
    assert {path.suffix for path in adapter(Path("run")).iterdir()} == {".safetensors", ".json"}
    assert "adapter_config.json" not in told["files"]
    goalcover("merge", "run", NAME, "-o", "merged")


# Several processes


def port() -> int:
    """A port on loopback that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def together(*arguments: object) -> list[str]:
    """The executable in two processes that train together."""
    meeting = ["--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", str(port())]
    start = [sys.executable, "-m", "torch.distributed.run", *meeting, "-m", "--", "goalcover_local.cli.main"]
    return [*start, *map(str, arguments)]


def test_torchrun_takes_the_command_as_the_guide_shows_it() -> None:
    """Without the dashes it takes `--run` for one of its own options, and refuses it."""
    from torch.distributed.run import parse_args

    guide = (Path(__file__).parents[1] / "docs" / "guide.md").read_text("utf-8").replace("\\\n", " ")
    [line] = [line for line in guide.splitlines() if line.startswith("torchrun ")]
    words = line.split()[1:]
    parsed = parse_args(words)
    assert parsed.training_script == "goalcover_local.cli.main" and parsed.module
    assert parsed.training_script_args == words[words.index("--") + 1 :]
    with pytest.raises(SystemExit):
        parse_args([word for word in words if word != "--"])


def test_two_processes_train_together_and_go_on_after_a_kill(
    desk: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    train = (*TRAIN, "--at-once", 4, "--json")
    whole = executed(desk, home, together(*train))
    assert whole.err.count("Loading tiny-policy.") == whole.err.count("Memory: together") == 1, "one of them speaks"
    told = json.loads(whole.out)
    assert told["n_steps"] == STEPS and told["n_failed"] == 0, "one of them tells"
    assert [kind for kind, _ in events(whole.run)] == [BEGUN, TRAINED], "and one of them writes"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint(whole.run, STEPS).iterdir()}
    for step in steps(whole.run):
        parts = 0.8 * step["judged"] + 0.2 * (1 + 4 * step["checked"])
        assert step["score"] == pytest.approx(parts, abs=1e-5), "TRL's mean is of all responses, and so is ours"

    cut = furnish(tmp_path_factory.mktemp("cut"), home)
    as_killed(whole.run, cut / "run", STEPS - 1)
    resumed = executed(cut, home, together(*train))
    assert f"Going on from step 4 of {STEPS}." in resumed.err
    equal(resumed.run, whole.run)
    assert json.loads(resumed.out)["files"] == told["files"]

    failed = subprocess.run(
        together(*train, "--seed", 5),
        cwd=desk,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert failed.returncode == 1 and failed.stdout == ""
    errors = [line for line in failed.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "was begun with other settings: settings.seed" in errors[0], failed.stderr
