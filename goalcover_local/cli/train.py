"""`goalcover train`: a policy fine-tuned by GRPO, rewarded by a local judge (paper, section 6)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..terms import digest_of
from .assessing import data_options
from .judging import Models, engine_options, reads_all
from .progress import duration, progress
from .table import as_text
from .train_options import settings_of, training_options
from .trained import end
from .training import (
    CHECKPOINTS,
    check_outputs,
    check_policy,
    device_option,
    found_device,
    grader_of,
    limited,
    reward_option,
    samples_of,
    short_enough,
)

if TYPE_CHECKING:
    from ..cards import Card
    from ..finetune.grpo import Settings
    from ..finetune.policy import Policy
    from ..finetune.reward import Grader
    from ..finetune.rubric import Rubric
    from ..store import Run
    from ..terms import Sample
    from ..trainings import Trainings
    from .progress import Progress

BEGUN = "training started"

_SHORT = 16
"""Digits by which a training remembers its rows, so that an evaluation can tell whether it saw them."""

_MEASURED = 2
"""Steps that a dry run trains: the first warms up, the last is timed."""


@click.command("train", short_help="Fine-tune a policy by GRPO, with a local judge as the reward.")
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--run", "run_folder", type=click.Path(path_type=Path), required=True, help="The run; made if new.")
@click.option("--name", required=True, help="What the trained policy is called, such as original or goal-aligned.")
@reward_option(required=True)
@click.option("--policy", "policy_card", help="The card of the model to train; the embedded one if not given.")
@click.option("--judge", "card_name", help="The card of the judge that rewards; the embedded one if not given.")
@training_options
@data_options
@limited
@engine_options
@device_option
@click.option(
    "--generation-url",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="With --generation vllm-server: the address of `trl vllm-serve` on this machine's loopback.",
)
@click.option(
    "--vllm-memory",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.3,
    show_default=True,
    help="With --generation vllm-colocate: the share of the GPU's memory that vLLM takes.",
)
@click.option("--save-every", type=click.IntRange(1), default=10, show_default=True, help="Steps between checkpoints.")
@click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="Stop, resumable, after this long.")
@click.option("--dry-run", is_flag=True, help="Say what it needs; where the weights are here, time two steps.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Fine-tune a policy on the rows of DATA by GRPO, rewarded by a judge that grades every response.

    What the policy is asked and how its responses are graded is the reward's: a folder with a rubric, which a judge
    answers from 1 to 5, and checks, which a program computes. What counts is the expectation over the judge's grades,
    so that responses seldom tie; a failed judgement is no reward, never the lowest. A judge that is the policy's own
    base shares its weights: the base with its adapter off.

    The adapter lies in RUN/policies/NAME/adapter, with card.json; checkpoints beside it. Killed at any step, the same
    command goes on from the last checkpoint and comes to the same numbers. A checkpoint is loaded only if this run
    wrote it, by its digests.

    With --json: run, name, reward, policy, judge, n_rows, n_steps, n_failed, first and last (means over ten steps),
    adapter, curve, files.

    \b
    Example:
      goalcover train original.jsonl --run runs/lay --name original --reward lay-summary \\
        --judge qwen2.5-coder-1.5b-instruct --steps 60 --learning-rate 2e-4
      goalcover evaluate runs/lay test.jsonl
    """
    from ..cards import DEFAULT_CARD, load_card
    from ..finetune.grpo import check_processes
    from ..finetune.processes import agreed, is_main, join, n_processes
    from ..finetune.rubric import load_rubric
    from ..store import Run
    from ..trainings import check_name

    check_name(options["name"])
    rubric = load_rubric(options["reward"])
    settings = settings_of(options, rubric.task.max_tokens)
    policy_card = load_card(options["policy_card"] or DEFAULT_CARD)
    judge_card = load_card(options["card_name"] or DEFAULT_CARD)
    check_processes(settings)
    samples, data = samples_of(options)
    check_outputs(rubric, samples)
    if options["dry_run"]:
        _rehearse(policy_card, judge_card, rubric, samples, settings, options)
        return
    with ExitStack() as held:
        run = held.enter_context(Run.open(options["run_folder"], write=True, create=True)) if is_main() else None
        models = held.enter_context(Models(options))
        policy, grader, taken = _opened(policy_card, judge_card, rubric, samples, settings, options, models)
        found = {
            "reward_name": _reward_name(rubric, options["reward"]),
            "reward": grader.rubric.digest,
            "policy": policy.identity,
            "judge": dict(grader.identity),
            "settings": settings.record(),
            "data": data,
            "rows": sorted({sample.digest[:_SHORT] for sample in taken}),
            "versions": versions(),
            "threads": threads(policy.model.device),
            "processes": n_processes(),
        }
        join(policy.model.device.type)
        step, checkpoint, ended = agreed(_begin(run, found, options) if run else (0, None, False))
        if not ended and step < settings.steps:
            last = _train(run, policy, grader, taken, settings, options, step, checkpoint)
            if last < settings.steps:
                click.echo("Stopped by --max-hours. The same command goes on from here.", err=True)
                ctx.exit(130)
        if run and end(run, found, options):
            ctx.exit(3)


def threads(device: Any) -> int:
    """The CPU threads that compute, on which sums depend in their last bits; 0 where a GPU does."""
    import torch

    return torch.get_num_threads() if device.type == "cpu" else 0


def versions() -> dict[str, str]:
    """The versions of the packages that train."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("accelerate", "peft", "torch", "transformers", "trl")}
    return {**found, "goalcover": __version__}


def _reward_name(rubric: Rubric, named: str) -> str:
    """The reward's name if it ships, else where its folder is, from whichever directory."""
    from ..finetune.rubric import rewards

    return rubric.name if named in rewards() else str(rubric.folder)


def _opened(
    policy_card: Card,
    judge_card: Card,
    rubric: Rubric,
    samples: Sequence[Sample],
    settings: Settings,
    options: Mapping[str, Any],
    models: Models,
) -> tuple[Policy, Grader, Sequence[Sample]]:
    """The policy, the judge as a grader, and the samples that are short enough; what it will need is told."""
    from ..finetune.policy import load_policy, share_base

    click.echo(f"Loading {policy_card.name}.", err=True)
    policy = load_policy(
        policy_card,
        device=found_device(options["device"]),
        precision=settings.precision,
        full=reads_all(options),
    )
    samples, longest = short_enough(policy, rubric, samples, options["max_prompt_tokens"])
    _tell_plan(policy_card, judge_card, settings, longest, options)
    if _shares(policy_card, judge_card, settings, options):
        models.hold(judge_card, share_base(policy))
    return policy, grader_of(judge_card, options["reward"], models), samples


def _shares(policy: Card, judge: Card, settings: Settings, options: Mapping[str, Any]) -> bool:
    """Whether the judge is the policy's own base with its adapter off, and shares its weights."""
    in_process = options["engine"] in ("auto", "transformers") and not options["devices"]
    return policy == judge and settings.tuning == "lora" and in_process


def _tell_plan(policy: Card, judge: Card, settings: Settings, prompt_tokens: int, options: Mapping[str, Any]) -> None:
    """Nothing; says how much memory the training will need, by what for, and warns if less is free."""
    from ..finetune import memory

    device = found_device(options["device"])
    config = memory.config_of(policy)
    n_parameters = memory.count_of(policy)
    apart = not _shares(policy, judge, settings, options) and options["engine"] != "server"
    plan = memory.plan(
        config,
        n_parameters=n_parameters,
        trainable=n_parameters if settings.tuning == "full" else memory.lora_parameters(config, settings.rank),
        precision=memory.held_as(settings.precision or policy.precision, device),
        sequences=settings.responses,
        micro_batch=settings.responses_at_once,
        prompt_tokens=prompt_tokens,
        completion_tokens=settings.max_tokens,
        reference=settings.kl > 0,
        checkpointing=settings.checkpointing,
        judge=memory.weight_bytes(judge) if apart else 0,
    )
    for line in plan.lines():
        click.echo(f"Memory: {line}", err=True)
    free = memory.available(device)
    if free is not None and plan.total > free:
        click.echo(
            f"Warning: {device} has {free / 1e9:.1f} GB free. Lower --at-once or --responses, add --checkpointing, or "
            "put the judge elsewhere.",
            err=True,
        )


def _begin(run: Run, found: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[int, Path | None, bool]:
    """The step from which the training goes on, 0 for a new one, the checkpoint to load, and whether it has ended.

    Raises StoreError if it has ended and its policy is not what it wrote.
    """
    from ..finetune.checkpoints import clear, sound
    from ..trainings import Trainings

    trainings, name = Trainings(run), options["name"]
    new = trainings.begin(name, found)
    folder = trainings.make_folder(name) / CHECKPOINTS
    if trainings.result(name) is not None:
        check_policy(trainings, name)
        click.echo(f"The training {name} has ended; nothing is trained again.", err=True)
        return found["settings"]["steps"], None, True
    step, checkpoint = sound(folder, trainings.checkpoints(name)) or (0, None)
    trainings.rewind(name, step)
    clear(folder, checkpoint)
    told = {key: digest_of(found[key]) for key in ("policy", "judge", "settings", "rows")}
    details = {"name": name, "step": step, "reward": found["reward"], "data": found["data"], **told}
    run.event(BEGUN, details, "goalcover train")
    if not new:
        click.echo(f"Going on from step {step} of {found['settings']['steps']}.", err=True)
    return step, checkpoint, False


class _Told:
    """Stores what a training tells, and shows it."""

    def __init__(self, trainings: Trainings | None, name: str, bar: Progress, max_hours: float | None) -> None:
        self._trainings = trainings
        self._name = name
        self._bar = bar
        self._ends = time.monotonic() + 3600 * max_hours if max_hours else float("inf")

    def stepped(self, step: int, metrics: Mapping[str, float | None]) -> None:
        if self._trainings:
            self._trainings.add_step(self._name, step, metrics)
        self._bar.note = step_line(metrics)
        self._bar.advance(1)

    def saved(self, step: int, files: Mapping[str, str]) -> None:
        if self._trainings:
            self._trainings.add_checkpoint(self._name, step, files)

    def due(self) -> bool:
        return time.monotonic() >= self._ends


def step_line(metrics: Mapping[str, float | None]) -> str:
    """A step's numbers in a line: reward and its spread, its parts, equal groups, divergence, speed."""

    def told(name: str, form: str) -> str:
        value = metrics.get(name)
        return "–" if value is None else form.format(value)

    parts = [
        f"reward {told('score', '{:.3f}')} ± {told('spread', '{:.3f}')}",
        f"judged {told('judged', '{:.3f}')}",
        f"checks {told('checked', '{:.2f}')}",
        f"equal groups {told('zero_variance', '{:.0%}')}",
        f"KL {told('kl', '{:.4f}')}",
        f"{told('tokens_per_second', '{:.0f}')} tokens/s",
    ]
    if metrics.get("failed"):
        parts.append(f"failed {told('failed', '{:.0%}')}")
    return ", ".join(parts)


def _train(
    run: Run | None,
    policy: Policy,
    grader: Grader,
    samples: Sequence[Sample],
    settings: Settings,
    options: Mapping[str, Any],
    step: int,
    checkpoint: Path | None,
) -> int:
    """The last step trained: all of them, unless --max-hours ended it."""
    from ..finetune.grpo import train
    from ..trainings import Trainings

    trainings = Trainings(run) if run else None
    folder = options["run_folder"] / "policies" / options["name"] / CHECKPOINTS
    with progress(f"Training {options['name']}", settings.steps - step, "steps") as bar:
        told = _Told(trainings, options["name"], bar, options["max_hours"])
        return train(
            policy,
            grader,
            samples,
            settings,
            folder,
            told,
            save_every=options["save_every"],
            resume=checkpoint,
            generation=_generation(options),
        )


def _generation(options: Mapping[str, Any]) -> dict[str, Any]:
    """What TRL is told of the vLLM that writes responses. Raises EngineError for an address beyond this machine."""
    from ..engines.server_engine import loopback

    if options["generation"] == "vllm-server":
        return {"vllm_server_base_url": loopback(options["generation_url"])}
    return {"vllm_gpu_memory_utilization": options["vllm_memory"]}


def _rehearse(
    policy_card: Card,
    judge_card: Card,
    rubric: Rubric,
    samples: Sequence[Sample],
    settings: Settings,
    options: Mapping[str, Any],
) -> None:
    """Nothing; says what the training would need and, where the weights are here, how long, by training two steps."""
    from dataclasses import replace

    from ..finetune.grpo import train
    from ..weights import state

    click.echo(f"{len(samples)} rows, {settings.steps} steps of {settings.responses} responses.", err=True)
    absent = [card.name for card in (policy_card, judge_card) if state(card) != "ready"]
    if absent:
        _tell_plan(policy_card, judge_card, settings, options["max_prompt_tokens"] or 0, options)
        click.echo(f"Not timed: {', '.join(dict.fromkeys(absent))} is not ready on this machine.", err=True)
        return
    with Models(options) as models, TemporaryDirectory() as folder:
        policy, grader, samples = _opened(policy_card, judge_card, rubric, samples, settings, options, models)
        with progress("Timing", _MEASURED, "steps", passing=True) as bar:
            told = _Timed(None, "", bar, None)
            train(
                policy,
                grader,
                samples,
                replace(settings, steps=_MEASURED),
                Path(folder),
                told,
                save_every=None,
                generation=_generation(options),
            )
    seconds = told.seconds[-1]
    if options["as_json"]:
        click.echo(as_text({"n_rows": len(samples), "n_steps": settings.steps, "seconds_per_step": seconds}))
    else:
        click.echo(f"{seconds:.1f} s a step, {duration(seconds * settings.steps)} in all.")


class _Timed(_Told):
    """Keeps how long steps take; stores nothing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seconds: list[float] = []
        self._since = time.monotonic()

    def stepped(self, step: int, metrics: Mapping[str, float | None]) -> None:
        super().stepped(step, metrics)
        self.seconds.append(time.monotonic() - self._since)
        self._since = time.monotonic()
