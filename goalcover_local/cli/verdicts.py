"""The options by which commands say what makes a gap: which value, which tau, which rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..terms import VALUES

Command = TypeVar("Command", bound=Callable[..., Any])

rule_option = click.option(
    "--rule",
    type=click.Choice(["support", "mean"]),
    default="support",
    show_default=True,
    help="What makes a gap: too few supporting rows, or the paper's mean below tau.",
)
value_option = click.option(
    "--value",
    type=click.Choice(VALUES),
    help="Which number stands for a judgement; the assessment's if not given. 'calibrated' asks for labels of people "
    "(see `goalcover calibrate`).",
)
_TAU = click.option(
    "--tau",
    type=click.FloatRange(0, 1),
    help="Alignment below which the paper calls a subgoal a gap (with --rule mean); the goal's if not given.",
)


def verdict_options(command: Command) -> Command:
    """The command with every option that makes a verdict."""
    return value_option(_TAU(rule_option(command)))
