"""What `train`, `evaluate` and `experiment` share: their data, their judge as a grader, and the policies of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import click

from .assessing import recognised, some_usable
from .headings import with_added
from .judging import engine_options
from .refusals import tell_refusals

if TYPE_CHECKING:
    from ..cards import Card
    from ..finetune.policy import Policy
    from ..finetune.reward import Grader
    from ..finetune.rubric import Rubric
    from ..terms import Sample
    from ..trainings import Trainings
    from .judging import Command, Models

CHECKPOINTS = "checkpoints"
"""The folder of a training's checkpoints, beside its adapter."""


def reward_option(required: bool = False) -> Callable[[Command], Command]:
    """The option that names a reward."""
    return click.option(
        "--reward",
        required=required,
        help="How responses are graded: a reward that ships, or a folder of your own with a reward.toml.",
    )


_OF_THE_JUDGE = {
    "engine": "What runs the judge; auto takes vLLM on a GPU and transformers on a CPU.",
    "url": "With --engine server: the judge's address on this machine's loopback.",
    "devices": "Where the judge runs, a process for each of cuda:0,cuda:1; one is found if not given.",
    "threads": "CPU threads for the judge.",
}
"""What options that say what runs a model say of a judge, where a policy runs beside it."""


def judge_engine_options(command: Command) -> Command:
    """The command with the options that say what runs its judge."""
    command, added = with_added(command, engine_options)
    for parameter in added:
        if isinstance(parameter, click.Option):
            parameter.help = _OF_THE_JUDGE.get(str(parameter.name), parameter.help)
    return command


device_option = click.option(
    "--device", default="", help="Where the policy runs, such as cuda:0; one is found if not given."
)
limit_options = (
    click.option("--limit", type=click.IntRange(1), help="Take this many rows, drawn by --seed."),
    click.option(
        "--max-prompt-tokens",
        type=click.IntRange(16),
        help="Leave out rows whose prompt is longer, and say how many; without it they must fit into the context.",
    ),
)


def samples_of(options: Mapping[str, Any]) -> tuple[list[Sample], str]:
    """The data's rows that --seed and --limit draw, in the data's order, and the digest of data and columns.

    What was refused is told. Raises DataError if no row can be used.
    """
    from ..readers import read
    from ..resampling import drawn
    from ..terms import Refusal, digest_of

    layout, origin = recognised(options)
    rows = list(some_usable(read(options["data"], layout), options["data"]))
    refused = [row for row in rows if isinstance(row, Refusal)]
    samples = [row for row in rows if not isinstance(row, Refusal)]
    tell_refusals(refused)
    positions = sorted(drawn(len(samples), options["seed"], options["limit"]).tolist())
    return [samples[place] for place in positions], digest_of([origin.content, repr(layout)])


def short_enough(
    policy: Policy, rubric: Rubric, samples: Sequence[Sample], most: int | None
) -> tuple[list[Sample], int]:
    """The samples whose prompts have at most that many tokens, and the longest of their prompts.

    Says how many are left out, and where the first of them stand. Raises DataError if none is short enough.
    """
    from ..errors import DataError

    lengths = [len(policy.ids(rubric.prompt(sample.input, sample.output))) for sample in samples]
    kept = [sample for sample, length in zip(samples, lengths, strict=True) if most is None or length <= most]
    left_out = [sample for sample, length in zip(samples, lengths, strict=True) if most is not None and length > most]
    if left_out:
        places = ", ".join(f"{sample.source}:{sample.line}" for sample in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        click.echo(f"Left out: {len(left_out)} of {len(samples)} rows with longer prompts ({places}{more}).", err=True)
    if not kept:
        raise DataError(f"No row has a prompt of at most {most} tokens.", "Raise --max-prompt-tokens.")
    return kept, max(length for length in lengths if most is None or length <= most)


def grader_of(card: Card, reward: str, models: Models) -> Grader:
    """The judge of a card as a grader by that reward, its engine opened and proved; its fitness is told.

    Raises QuestionError for an unknown reward, and as `Models.asker` does.
    """
    from ..finetune.reward import Grader
    from ..finetune.rubric import load_rubric

    rubric = load_rubric(reward, single_turn=card.chat.single_turn)
    grader = Grader(models.asker(card).engine, rubric)
    tell_fitness(grader, card.name)
    return grader


def tell_fitness(grader: Grader, name: str) -> None:
    """Nothing; says how the judge's grades go with ours on the reward's reference cases, loudly if they do not."""
    from ..finetune.reward import FIT

    told = {dimension: agreement for dimension, agreement in grader.agreements.items() if agreement == agreement}
    if not told:
        click.echo(f"{name} cannot be checked as a judge of {grader.rubric.name}: no reference cases.", err=True)
        return
    each = ", ".join(f"{dimension} {agreement:.2f}" for dimension, agreement in told.items())
    click.echo(f"{name} and we grade our own cases of {grader.rubric.name} alike (Spearman): {each}.", err=True)
    if unknown := [dimension for dimension in grader.agreements if dimension not in told]:
        click.echo(f"Not known in {', '.join(unknown)}: no two reference cases there, or all graded alike.", err=True)
    if unfit := [dimension for dimension, agreement in told.items() if agreement < FIT]:
        click.echo(
            f"Warning: below {FIT} in {', '.join(unfit)}, its grades are no reward to learn from. Use another judge, "
            "or expect the policy to learn the judge's whims.",
            err=True,
        )


def policy_of(trainings: Trainings, name: str, base: Card, device: str) -> Policy:
    """The policy of that name: the card's model as it is ("base"), or as a training of the run left it.

    Raises StoreError if there is no such training, it has not ended, or its files are not what it wrote.
    """
    from ..finetune.policy import load_policy
    from ..terms import UNTUNED, digest_of

    if name == UNTUNED:
        return load_policy(base, device=device, precision=_precision(trainings))
    held = check_policy(trainings, name, base)
    folder, precision = adapter_folder(trainings, name), trainings.settings(name)["settings"]["precision"]
    return load_policy(base, trained=folder, digest=digest_of(held), device=device, precision=precision)


def check_outputs(rubric: Rubric, samples: Sequence[Sample]) -> None:
    """Nothing; raises DataError if the task wants outputs and no row has one, and says how many lack theirs."""
    from ..errors import DataError

    if "output" not in Template(rubric.task.prompt).get_identifiers():
        return
    n_without = sum(not sample.output.strip() for sample in samples)
    if n_without == len(samples):
        raise DataError(
            f"The reward {rubric.name} asks about outputs, and no row has one.",
            "Name their column with --output-column.",
        )
    if n_without:
        click.echo(f"{n_without} of {len(samples)} rows have no output; they are asked about without.", err=True)


def _precision(trainings: Trainings) -> str:
    """The precision of the base beside policies of the run: theirs, if they share one; else its card's."""
    ended = [name for name in trainings.names() if trainings.result(name) is not None]
    found = {str(trainings.settings(name)["settings"]["precision"]) for name in ended}
    return found.pop() if len(found) == 1 else ""


def check_policy(trainings: Trainings, name: str, base: Card | None = None) -> Mapping[str, str]:
    """The digests of a training's files, which are those that it wrote.

    Raises StoreError if there is no such training, it has not ended, its files were altered, or the weights of `base`
    are not those that it was trained from.
    """
    from ..errors import StoreError
    from ..finetune.checkpoints import policy_files
    from ..weights import verify

    result = trainings.result(name)
    if result is None:
        raise StoreError(f"The training {name} has not ended.", "Run the same `goalcover train` again: it goes on.")
    folder = adapter_folder(trainings, name)
    held = policy_files(folder)
    if held != result["files"]:
        raise StoreError(f"The files of the policy {name} are not those that its training wrote.", f"See {folder}.")
    settings = trainings.settings(name)
    if base and verify(base).digest != settings["policy"]["weights"]:
        raise StoreError(
            f"The policy {name} was trained from other weights than those of {base.name} here.",
            f"Its base was {settings['policy']['card']}: name it, or bring those weights back.",
        )
    return held


def adapter_folder(trainings: Trainings, name: str) -> Path:
    """Where a training's adapter lies, or its whole model after full tuning."""
    return trainings.folder(name) / "adapter"


def found_device(named: str) -> str:
    """The device named, else this process's GPU (the first, unless several processes train), else the CPU."""
    from ..engines.transformers_engine import found_device

    found = found_device()
    return named or (f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if found.startswith("cuda") else found)
