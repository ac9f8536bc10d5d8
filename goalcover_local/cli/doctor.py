"""`goalcover doctor`: proves that a judge is ready to work here, and says what to mend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from ..cards import Card
    from ..judges import Judge


class Check(NamedTuple):
    """One thing looked at: whether it is well, and what was found (with the mend where it is not)."""

    name: str
    well: bool
    found: str


@click.command("doctor", short_help="Prove that a judge is ready: weights, grammar, sockets, memory, run folder.")
@click.option("--judge", "card_name", help="The judge's card; the embedded one if not given.")
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run folders are to lie.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, card_name: str | None, run_folder: Path, as_json: bool) -> None:
    """Check the judge's weights, its grammar, the shut network, the memory and the place for runs.

    Exit code 0 if all is well, else 1.

    \b
    Example:
      goalcover doctor
      goalcover doctor --judge prometheus-7b-v2.0 --run /data/runs
    """
    from ..cards import DEFAULT_CARD, load_card

    checks = []
    for check in _checks(load_card(card_name or DEFAULT_CARD), run_folder):
        checks.append(check)
        if not as_json:
            click.echo(f"{'ok  ' if check.well else 'FAIL'}  {check.name}: {check.found}")
    if as_json:
        click.echo(json.dumps([check._asdict() for check in checks], indent=2))
    ctx.exit(0 if all(check.well for check in checks) else 1)


def _checks(card: Card, run_folder: Path) -> Iterator[Check]:
    from ..errors import GoalCoverError
    from ..judges import open_judge
    from ..offline import refused
    from ..weights import verify

    def told(name: str, look: Callable[[], str]) -> Check:
        try:
            return Check(name, True, look())
        except GoalCoverError as error:
            return Check(name, False, str(error))

    yield told("network", _network)
    n_refused = len(refused)
    yield told("run folder", lambda: _place(run_folder))
    weights = told("weights", lambda: f"{card.name} verified, digest {verify(card).digest[:16]}…")
    yield weights
    if not weights.well:
        return
    yield told("memory", lambda: _memory(sum(f.stat().st_size for f in verify(card).directory.glob("*.safetensors"))))
    try:
        judge = open_judge(card)
    except GoalCoverError as error:
        yield Check("engine", False, str(error))
        return
    identity = judge.identity
    yield Check(
        "engine",
        True,
        f"{identity['engine']} {identity['transformers']}, {identity['precision']} on {identity['device']}",
    )
    yield told("grammar", lambda: _grammar(judge))
    yield told("anchors", lambda: _anchors(judge))
    n_refused = len(refused) - n_refused
    yield Check("while judging", n_refused == 0, f"{n_refused} attempts to leave the machine")


def _network() -> str:
    """Proof that the guard refuses: an address that belongs to nobody (RFC 5737) is tried, and must be refused."""
    import socket

    from .. import offline
    from ..errors import GoalCoverError, NetworkRefused

    if not offline.is_shut():
        offline.shut()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
    except NetworkRefused:
        return "shut: a connection to 192.0.2.1 was refused before it left this process"
    raise GoalCoverError("The network guard let a connection out.", "Please report this; do not judge private data.")


def _place(folder: Path) -> str:
    from ..errors import StoreError
    from ..store import Run

    problem = Run.check_place(folder)
    if problem:
        raise StoreError(problem)
    return f"{folder} can hold runs"


def _memory(weights: int) -> str:
    from ..errors import EngineError

    available = _available_memory()
    needed = int(weights * 1.2) + 1_000_000_000
    if available is not None and available < needed:
        raise EngineError(
            f"The judge needs about {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free.",
            "Close other programs, or use a smaller judge.",
        )
    free = "unknown" if available is None else f"{available / 1e9:.1f} GB"
    return f"about {needed / 1e9:.1f} GB needed, {free} free"


def _available_memory() -> int | None:
    """Bytes that a new process may take, or None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _grammar(judge: Judge) -> str:
    """Proof that the grammar binds: asked for prose, the judge still gives a legal answer."""
    from ..engines.base import Message, Prompt
    from ..errors import EngineError

    begging = Prompt((Message("user", "Write a poem about the sea in plain words. No JSON, no braces, only verse."),))
    completion = judge.engine.generate([begging], judge.question.grammar(), max_tokens=48)[0]
    if completion.failure or judge.question.read(completion.text) is None:
        raise EngineError(
            "Asked for prose, the judge broke out of its grammar.", "Do not use this engine; please report it."
        )
    return f"binds: asked for a poem, the judge answered {completion.n_tokens} tokens of legal JSON"


def _anchors(judge: Judge) -> str:
    """Proof that a clear case is judged the right way round: a matching capability above an unrelated one."""
    from ..errors import EngineError
    from ..terms import Sample, Subgoal

    sample = Sample(
        "doctor", "Which knot holds two ropes together?", "Use a sheet bend: it joins ropes of unlike thickness."
    )
    fitting = Subgoal("fitting", "Knots and ropes", "Explains how to tie knots and join ropes.")
    alien = Subgoal("alien", "Dental care", "Explains how to care for teeth and gums.")
    batch = judge.judge([(sample, fitting), (sample, alien)])
    first, second = (j.expectation for j in batch.judgements)
    if first is None or second is None:
        raise EngineError(
            f"The judge failed: {batch.judgements[0].failure or batch.judgements[1].failure}.", "See above."
        )
    told = f"a fitting capability gets {first:.2f}, an alien one {second:.2f}"
    if first <= second:
        raise EngineError(f"The judge confuses a clear case: {told}.", "Use a stronger judge.")
    return told
