"""The options by which every command that judges names its judge, and opening it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..cards import Card
    from ..judges import Judge

Command = TypeVar("Command", bound=Callable[..., Any])

_MODEL = (
    click.option(
        "--judge", "card_name", help="The judge's card (see `goalcover models list`); the embedded one if not given."
    ),
    click.option(
        "--engine",
        type=click.Choice(["auto", "transformers", "vllm", "server"]),
        default="auto",
        show_default=True,
        help="What runs the judge; auto takes vLLM on a GPU and transformers on a CPU.",
    ),
    click.option("--url", default="", help="With --engine server: its address on this machine's loopback."),
    click.option(
        "--devices",
        default="",
        help="Comma-separated devices, a process each, such as cuda:0,cuda:1. One is found if not given.",
    ),
    click.option("--threads", type=click.IntRange(1), help="CPU threads for the judge."),
)
_ALIGNMENT = (
    click.option("--question", help="Which question of grammars/ is asked; the card's choice if not given."),
    click.option(
        "--order",
        type=click.Choice(["score-first", "reason-first"]),
        help="Score before or after the explanation; the card's choice if not given.",
    ),
)


def model_options(command: Command) -> Command:
    """The command with the options that name a model and what runs it."""
    for option in reversed(_MODEL):
        command = option(command)
    return command


def judge_options(command: Command) -> Command:
    """The command with the options that name a judge of alignment: a model, and how it is asked."""
    for option in reversed(_ALIGNMENT):
        command = option(command)
    return model_options(command)


def named_card(options: Mapping[str, Any]) -> Card:
    """The card that the options name."""
    from ..cards import DEFAULT_CARD, load_card

    return load_card(options["card_name"] or DEFAULT_CARD)


def placed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Where the options say that a model is to run, as `judges.open_engine` takes it."""
    return {
        "engine": options["engine"],
        "url": options["url"],
        "devices": [device.strip() for device in options["devices"].split(",") if device.strip()],
        "threads": options["threads"],
    }


def opened_judge(card: Card, options: Mapping[str, Any]) -> Judge:
    """The judge that the options ask for, loaded and ready. Raises as `judges.open_judge` does."""
    from ..judges import open_judge

    return open_judge(
        card,
        question=options["question"],
        order=options["order"],
        decode=options.get("decode", "choice"),
        **placed(options),
    )
