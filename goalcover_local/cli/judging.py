"""The options by which every command names its models, and opening them, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

if TYPE_CHECKING:
    from ..asking import Asker
    from ..cards import Card
    from ..engines.base import Engine
    from ..judges import Judge

Command = TypeVar("Command", bound=Callable[..., Any])

verify_option = click.option(
    "--verify",
    type=click.Choice(["cached", "full"]),
    default="cached",
    show_default=True,
    help="Before loading, read again the weights that changed since they were verified, or every byte of all.",
)
"""The option that says how weights are verified before they are loaded."""

_JUDGE = click.option(
    "--judge", "card_name", help="The judge's card (see `goalcover models list`); the embedded one if not given."
)
_JUDGES = (
    click.option(
        "--judge",
        "card_names",
        multiple=True,
        help="A judge's card (see `goalcover models list`); the embedded one if not given. More than once: a panel.",
    ),
    click.option(
        "--aggregate",
        type=click.Choice(["mean", "median"]),
        default="mean",
        show_default=True,
        help="How a panel's values become one.",
    ),
)
_ENGINE = (
    click.option(
        "--engine",
        type=click.Choice(["auto", "transformers", "vllm", "server"]),
        default="auto",
        show_default=True,
        help="What runs the model; auto takes vLLM on a GPU and transformers on a CPU.",
    ),
    click.option("--url", default="", help="With --engine server: its address on this machine's loopback."),
    click.option(
        "--devices",
        default="",
        help="Comma-separated devices, a process each, such as cuda:0,cuda:1. One is found if not given.",
    ),
    click.option("--threads", type=click.IntRange(1), help="CPU threads for the model."),
    verify_option,
)
_ALIGNMENT = (
    click.option("--question", help="Which question of grammars/ is asked; the card's choice if not given."),
    click.option(
        "--order",
        type=click.Choice(["score-first", "reason-first"]),
        help="Score before or after the explanation; the card's choice if not given.",
    ),
)


def engine_options(command: Command) -> Command:
    """The command with the options that say what runs its models."""
    for option in reversed(_ENGINE):
        command = option(command)
    return command


def model_options(command: Command) -> Command:
    """The command with the options that name a model and what runs it."""
    return _JUDGE(engine_options(command))


def judge_options(command: Command) -> Command:
    """The command with the options that name a judge of alignment: a model, and how it is asked."""
    for option in reversed(_ALIGNMENT):
        command = option(command)
    return model_options(command)


def panel_options(command: Command) -> Command:
    """The command with the options that name one judge of alignment or several, and how they are asked."""
    for option in reversed((*_JUDGES, engine_options, *_ALIGNMENT)):
        command = option(command)
    return command


def named_card(options: Mapping[str, Any]) -> Card:
    """The card that the options name."""
    from ..cards import DEFAULT_CARD, load_card

    return load_card(options["card_name"] or DEFAULT_CARD)


def verified_cards(options: Mapping[str, Any]) -> list[Card]:
    """The cards that the options name, each once, and their weights verified. Raises ModelError if they are not."""
    from ..cards import DEFAULT_CARD, load_card
    from ..weights import verify

    cards = [load_card(name) for name in dict.fromkeys(options["card_names"] or (DEFAULT_CARD,))]
    for card in cards:
        verify(card)
    return cards


def placed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Where the options say that a model is to run, as `judges.open_engine` takes it."""
    return {
        "engine": options["engine"],
        "url": options["url"],
        "devices": [device.strip() for device in options["devices"].split(",") if device.strip()],
        "threads": options["threads"],
        "full": reads_all(options),
    }


def reads_all(options: Mapping[str, Any]) -> bool:
    """Whether the options ask for every byte of the weights to be read again."""
    return bool(options["verify"] == "full")


def run_card(identity: Mapping[str, Any]) -> Card:
    """The card of a run's judge. Raises ModelError if it is not known here."""
    from ..cards import load_card

    return load_card(str(identity["card"]))


class Models:
    """The models of a command, each opened once, where the options say, and closed when the context ends."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._engines: dict[str, Engine] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Nothing; every engine is closed."""
        while self._engines:
            self._engines.popitem()[1].close()

    def hold(self, card: Card, engine: Engine) -> None:
        """Nothing; this card's engine is one that was opened elsewhere, and is proved here.

        Raises EngineError if it does not do what it must (see `canary`).
        """
        from .. import canary
        from ..questions import load_question

        canary.check(engine, load_question("refinement", single_turn=card.chat.single_turn))
        self._engines[card.name] = engine

    def judge(self, card: Card, *, question: str | None = None, order: str | None = None, decode: str = "") -> Judge:
        """A judge of alignment; question, order and decoding as the options say unless given.

        Raises as `judges.open_judge` does.
        """
        from ..judges import open_judge

        self._announce(card)
        options = self._options
        judge = open_judge(
            card,
            question=question or options.get("question"),
            order=order or options.get("order"),  # type: ignore[arg-type]
            decode=decode or options.get("decode", "choice"),  # type: ignore[arg-type]
            opened=self._engines.get(card.name),
            **placed(options),
        )
        self._engines[card.name] = judge.engine
        return judge

    def judge_of(self, identity: Mapping[str, Any], digest: str) -> Judge:
        """The judge of a run again, whose answers can stand beside those it gave.

        Raises as `judges.open_judge` does, and StoreError if what opens here is not the same judge.
        """
        from ..errors import StoreError

        judge = self.judge(
            run_card(identity),
            question=str(identity["question"]),
            order=str(identity["order"]),
            decode=str(identity["decode"]),
        )
        if judge.digest != digest:
            differing = sorted(name for name in identity if judge.identity.get(name) != identity[name])
            raise StoreError(
                f"The run's judge cannot be opened here as it was: {', '.join(differing)} differ.",
                "Use the engine and the versions that assessed the run, or assess it again.",
            )
        return judge

    def asker(
        self, card: Card, memory: MutableMapping[str, Any] | None = None, keep: Callable[[], None] = lambda: None
    ) -> Asker:
        """A model that answers questions and remembers; `keep` stores what it does. Raises as `open_asker` does."""
        from ..asking import open_asker
        from .progress import watched

        self._announce(card)
        asker = open_asker(
            card,
            opened=self._engines.get(card.name),
            memory=memory,
            keep=keep,
            watch=watched,
            **placed(self._options),
        )
        self._engines[card.name] = asker.engine
        return asker

    def _announce(self, card: Card) -> None:
        if card.name not in self._engines:
            click.echo(f"Loading {card.name}.", err=True)
