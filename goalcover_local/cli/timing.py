"""The dry run of a training: what it would need and, where the weights are here, how long it would take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from .dividing import prompt_lengths
from .judging import Models
from .planning import Opened, Wanted, generation, opened, reckoned
from .progress import duration, progress
from .stepping import Timed
from .table import as_text

_STEPS = 2
"""Steps that are trained: the first warms up, the last is timed."""

_BYTES_PER_TOKEN = 3
"""English has about four bytes in a token: a prompt that is not counted is rather taken for too long."""


def rehearse(wanted: Wanted) -> None:
    """Nothing; prints what the training would need, and how long it would take if its weights are on this machine."""
    from ..weights import state

    settings = wanted.settings
    click.echo(f"{len(wanted.samples)} rows, {settings.steps} steps of {settings.responses} responses.", err=True)
    cards = {card.name: card for card in (wanted.policy, wanted.judge)}
    absent = [name for name, card in cards.items() if state(card) != "ready"]
    found = _reckoned_alone(wanted, absent) if absent else _timed(wanted)
    seconds = found["seconds_per_step"]
    if wanted.options["as_json"]:
        steps = {"n_steps": settings.steps, "responses_per_step": settings.responses}
        in_all = None if seconds is None else seconds * settings.steps
        click.echo(as_text({**found, **steps, "seconds": in_all, "missing_weights": absent}))
    elif seconds is not None:
        click.echo(f"{seconds:.1f} s a step, {duration(seconds * settings.steps)} in all.")
    else:
        click.echo(f"{_in_words(found['memory'])} of memory; not timed.")


def _in_words(needs: dict[str, Any]) -> str:
    least = "At least " if needs["unknown"] else ""
    return f"{least}{needs['total'] / 1e9:.2f} GB"


def _reckoned_alone(wanted: Wanted, absent: list[str]) -> dict[str, Any]:
    """What can be said without opening a model."""
    counted = wanted.policy.name not in absent
    longest = _longest_prompt(wanted, counted)
    if not counted:
        click.echo(
            f"Prompts: up to about {longest} tokens, reckoned from their bytes: the policy's tokenizer is not here.",
            err=True,
        )
    memory = reckoned(wanted, longest)
    click.echo(f"Not timed: {', '.join(absent)} is not ready on this machine.", err=True)
    return _found(len(wanted.samples), longest, counted, memory, None)


def _longest_prompt(wanted: Wanted, counted: bool) -> int:
    """The tokens of the longest prompt that may be taken: counted, or reckoned from bytes."""
    if counted:
        lengths = prompt_lengths(wanted.policy, wanted.rubric, wanted.samples)
    else:
        asked = (wanted.rubric.prompt(sample.input, sample.output) for sample in wanted.samples)
        lengths = [-(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN) for text in asked]
    most = wanted.options["max_prompt_tokens"]
    return min(max(lengths), most or max(lengths))


def _timed(wanted: Wanted) -> dict[str, Any]:
    """What can be said after two steps."""
    with Models(wanted.options) as models, TemporaryDirectory() as folder:
        begun = opened(wanted, models)
        with progress("Timing", _STEPS, "steps", passing=True) as bar:
            told = Timed(bar)
            _train(wanted, begun, Path(folder), told)
    return _found(len(begun.samples), begun.longest, True, begun.memory, told.seconds[-1])


def _train(wanted: Wanted, begun: Opened, folder: Path, told: Timed) -> None:
    from ..finetune.grpo import train

    train(
        begun.policy,
        begun.grader,
        begun.samples,
        replace(wanted.settings, steps=_STEPS),
        folder,
        told,
        save_every=None,
        generation=generation(wanted.options),
    )


def _found(n_rows: int, longest: int, counted: bool, memory: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    return {
        "n_rows": n_rows,
        "prompt_tokens": {"longest": longest, "counted": counted},
        "memory": memory,
        "seconds_per_step": seconds,
    }
