"""The dry run of an experiment: what it would judge, train and write, what it needs, and what is missing for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .dividing import division_of, prompt_lengths, read_data, tell_division
from .progress import duration
from .stages import called

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..finetune.grpo import Settings
    from ..finetune.rubric import Rubric
    from ..studies.downstream import Study
    from ..terms import Sample


def rehearse(
    study: Study,
    rubric: Rubric,
    settings: Settings,
    rows: Sequence[str],
    training: Callable[[str, Path], list[str]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What the experiment would take, as plain values; the memory of each policy's training is told on stderr.

    `rows` are the datasets to train on, `training` gives the arguments of `goalcover train` for a policy and a file.
    """
    from ..cards import load_card
    from ..weights import state

    absent = [name for name in (*study.cards, *study.policies) if state(load_card(name)) != "ready"]
    samples, _ = read_data(study, options)
    counted = study.policy not in absent
    lengths = prompt_lengths(load_card(study.policy), rubric, samples) if counted else [0] * len(samples)
    division = division_of(study, samples, lengths)
    tell_division(division, study)
    taken = {sample.digest for part in division.parts.values() for sample in part}
    tokens = [length for sample, length in zip(samples, lengths, strict=True) if sample.digest in taken]
    n_trainings = len(rows) * len(study.seeds)
    n_test = len(division.parts["test"])
    written = n_test * (1 + n_trainings)
    # Too few rows are all in the test part; what a training takes can be told by those.
    rehearsed = division.parts["train"] or division.parts["test"]
    seconds = _seconds(study, rehearsed, training, options)
    return {
        "study": study.name,
        "n_rows": len(samples),
        "sizes": {part: {"asked": size, "there": len(division.parts[part])} for part, size in study.data.sizes.items()},
        "judgements": _judgements(study, len(division.parts["train"]) + n_test),
        "trainings": n_trainings,
        "steps": n_trainings * settings.steps,
        "responses": n_trainings * settings.steps * settings.responses // settings.iterations,
        "test_responses": written,
        "test_grades": written * len(rubric.dimensions) * len(study.judges),
        "prompt_tokens": {"total": sum(tokens), "longest": max(tokens, default=0)} if counted else None,
        "seconds_per_step": seconds,
        "training_seconds": None if seconds is None else seconds * n_trainings * settings.steps,
        "lacking": division.lacking(study.data),
        "missing_weights": absent,
    }


def _judgements(study: Study, n_rows: int) -> int:
    """How many pairs of a row and a subgoal the judge of alignment would be asked; explanations apart."""
    from ..cards import load_card
    from ..goal_files.reading import find_goal, read_goal
    from .assessing import references, value_for

    aliens, ground = references(value_for([load_card(study.alignment_judge)], {"value": None}))
    return (n_rows + len(ground)) * (len(read_goal(find_goal(study.goal)).subgoals) + len(aliens))


def _seconds(
    study: Study,
    rows: Sequence[Sample],
    training: Callable[[str, Path], list[str]],
    options: Mapping[str, Any],
) -> float | None:
    """How long a step of the study's policy takes: as in this run, or as timed now where the weights are here.

    Tells the memory plan of each policy on the way.
    """
    from . import train

    found = _in_run(options["run_folder"], study.policy)
    if not rows:
        return found
    with _in_memory(rows) as file:
        for policy in (study.policy, *study.policies):
            if found is not None and policy == study.policy:
                continue
            click.echo(f"\nPolicy {policy}:", err=True)
            arguments = [*training(policy, file), "--format", "jsonl", "--dry-run", "--json"]
            _, said = called(train.command, arguments)
            if policy == study.policy:
                found = json.loads(said)["seconds_per_step"]
    return found


@contextmanager
def _in_memory(rows: Sequence[Sample]) -> Iterator[Path]:
    """A context with a file that holds the rows and lies on no disk: whatever ends this process, nothing is left."""
    with os.fdopen(os.memfd_create("rows"), "wb") as stream:
        stream.writelines(sample.raw + b"\n" for sample in rows)
        stream.flush()
        yield Path(f"/proc/self/fd/{stream.fileno()}")


def _in_run(folder: Path, policy: str) -> float | None:
    """The mean time of the steps that this policy was trained in the run; None if there are none."""
    from ..errors import StoreError
    from ..store import Run
    from ..trainings import Trainings

    try:
        with Run.open(folder, write=False) as run:
            trainings = Trainings(run)
            own = [name for name in trainings.names() if trainings.settings(name)["policy"]["card"] == policy]
            seconds = [step["seconds"] for name in own for step in trainings.steps(name) if step.get("seconds")]
    except StoreError:
        return None
    return sum(seconds) / len(seconds) if seconds else None


def print_rehearsal(told: Mapping[str, Any]) -> None:
    """Nothing; prints what the experiment would take, and what is missing."""
    sizes = ", ".join(f"{part} {size['there']} of {size['asked']}" for part, size in told["sizes"].items())
    tokens, seconds = told["prompt_tokens"], told["seconds_per_step"]
    lines = {
        "rows": f"{told['n_rows']} in the data; {sizes}",
        "judgements": f"{told['judgements']} of alignment, explanations and synthesis apart",
        "trainings": f"{told['trainings']}, {told['steps']} steps in all, {told['responses']} responses to be graded",
        "evaluation": f"{told['test_responses']} responses, {told['test_grades']} grades",
        "prompts": "not counted: the policy's tokenizer is not here"
        if tokens is None
        else f"{tokens['total']} tokens in all rows, {tokens['longest']} in the longest",
        "time": "not timed"
        if seconds is None
        else f"{seconds:.1f} s a step, {duration(told['training_seconds'])} for all trainings",
        "missing rows": ", ".join(f"{n} for {part}" for part, n in told["lacking"].items()) or "none",
        "missing weights": ", ".join(told["missing_weights"]) or "none",
    }
    for name, line in lines.items():
        click.echo(f"{name:16} {line}")
    if told["missing_weights"]:
        click.echo(
            "Set GOALCOVER_HOME to where models are, or name a copy with `goalcover models add`;"
            " with a network: `goalcover models pull`.",
            err=True,
        )
