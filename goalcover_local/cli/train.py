"""`goalcover train`: a policy fine-tuned by GRPO, rewarded by a local judge (paper, section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..terms import digest_of
from .headings import Headed
from .judging import Models
from .planning import Opened, Wanted, generation, opened
from .progress import progress
from .stepping import Told
from .timing import rehearse
from .train_options import settings_of, train_options
from .trained import end
from .training import CHECKPOINTS, check_outputs, check_policy, samples_of

if TYPE_CHECKING:
    from ..finetune.rubric import Rubric
    from ..store import Run
    from ..trainings import Trainings

BEGUN = "training started"

_SHORT = 16
"""Digits by which a training remembers its rows, so that an evaluation can tell whether it saw them."""


@click.command("train", cls=Headed, short_help="Fine-tune a policy by GRPO, with a local judge as the reward.")
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@train_options
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
    adapter, curve, files. With --dry-run too: n_rows, n_steps, responses_per_step, prompt_tokens (the longest, and
    whether it was counted), memory in bytes, seconds_per_step and seconds (null if not timed), missing_weights.

    \b
    Example:
      goalcover train original.jsonl --run runs/lay --name original --reward lay-summary \\
        --judge qwen2.5-coder-1.5b-instruct --steps 60 --learning-rate 2e-4
      goalcover evaluate runs/lay test.jsonl
    """
    from ..finetune.processes import only_main_speaks

    with only_main_speaks():
        _run(ctx, options)


def _run(ctx: click.Context, options: Mapping[str, Any]) -> None:
    """Nothing; the whole command, in each of the processes that train together."""
    from ..cards import DEFAULT_CARD, load_card
    from ..finetune.grpo import check_processes
    from ..finetune.processes import done_by_main, is_main, join, n_processes
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
    wanted = Wanted(policy_card, judge_card, rubric, samples, settings, options)
    if options["dry_run"]:
        rehearse(wanted)
        return
    with ExitStack() as held:
        run = held.enter_context(Run.open(options["run_folder"], write=True, create=True)) if is_main() else None
        models = held.enter_context(Models(options))
        begun = opened(wanted, models)
        found = {
            "reward_name": _reward_name(rubric, options["reward"]),
            "reward": begun.grader.rubric.digest,
            "policy": begun.policy.identity,
            "judge": dict(begun.grader.identity),
            "settings": settings.record(),
            "data": data,
            "rows": sorted({sample.digest[:_SHORT] for sample in begun.samples}),
            "versions": versions(),
            "threads": threads(begun.policy.model.device),
            "processes": n_processes(),
        }
        join(begun.policy.model.device.type)
        step, checkpoint, ended = done_by_main(lambda: _begin(run, found, options) if run else (0, None, False))
        if not ended and step < settings.steps:
            last = _train(run, wanted, begun, step, checkpoint)
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


def _begin(run: Run, found: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[int, Path | None, bool]:
    """The step from which the training goes on, 0 for a new one, the checkpoint to load, and whether it has ended.

    Raises StoreError if it has ended and its policy is not what it wrote.
    """
    from ..finetune.checkpoints import clear, sound
    from ..trainings import Trainings

    trainings, name = Trainings(run), options["name"]
    new = trainings.begin(name, _as_named_before(trainings, name, found))
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


def _as_named_before(trainings: Trainings, name: str, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the training is begun with; a reward that is called otherwise now, or lies elsewhere, keeps its name."""
    held = trainings.settings(name) if name in trainings.names() else {}
    if held.get("reward") != found["reward"]:
        return found
    judge = {**found["judge"], "reward": held["judge"]["reward"]}
    return {**found, "reward_name": held["reward_name"], "judge": judge}


def _train(run: Run | None, wanted: Wanted, begun: Opened, step: int, checkpoint: Path | None) -> int:
    """The last step trained: all of them, unless --max-hours ended it."""
    from ..finetune.grpo import train
    from ..trainings import Trainings

    options, n_steps = wanted.options, wanted.settings.steps
    trainings, name = Trainings(run) if run else None, options["name"]
    with progress(f"Training {name}", n_steps - step, "steps") as bar:
        return train(
            begun.policy,
            begun.grader,
            begun.samples,
            wanted.settings,
            options["run_folder"] / "policies" / name / CHECKPOINTS,
            Told(trainings, name, bar, options["max_hours"]),
            save_every=options["save_every"],
            resume=checkpoint,
            generation=generation(options),
        )
