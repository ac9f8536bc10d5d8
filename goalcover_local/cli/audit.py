"""`goalcover audit`: what was done to a run, and by this user across runs; shown, verified and exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..chain import Event

_RUN = click.Path(path_type=Path, file_okay=False)
_LONGEST = 60


@click.group("audit", short_help="Show, verify and export what was done: to a run, and by you across runs.")
def command() -> None:
    """Show, verify and export what was done: to a run (its chain of events), and by you across runs (the ledger).

    These commands change nothing, and are not on record themselves.

    \b
    Example:
      goalcover audit show runs/first
      goalcover audit verify runs/first --head 3fa9…
      goalcover audit export runs/first -o events.jsonl
    """


@command.command("show")
@click.argument("run", type=_RUN, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON, with all their details.")
def show(run: Path | None, as_json: bool) -> None:
    """Print the events of the run in folder RUN, or without RUN those of the ledger, oldest first.

    \b
    Example:
      goalcover audit show runs/first
      goalcover audit show --json
    """
    from .. import ledger
    from .table import as_text

    events = ledger.read().events if run is None else _events(run)
    if as_json:
        click.echo(as_text([{**event.record, "details": event.told} for event in events]))
        return
    _print(events)


@command.command("verify")
@click.argument("runs", type=_RUN, nargs=-1)
@click.option("--head", help="A hash kept elsewhere: it must stand in the run's chain (without RUN, in the ledger).")
@click.option("--ledger", "of_ledger", is_flag=True, help="Verify the ledger too, as happens without RUN.")
@click.pass_context
def verify(ctx: click.Context, runs: tuple[Path, ...], head: str | None, of_ledger: bool) -> None:
    """Check the runs in folders RUNS, or without RUNS the ledger; leaves with code 1 if anything is wrong.

    Of a run: that its chain of events is whole, that it holds what its last seal says, and that every head that the
    ledger knows of it stands in its chain, so that nothing was cut off or rolled back.

    \b
    Example:
      goalcover audit verify runs/first
      goalcover audit verify runs/first --head 3fa9…
      goalcover audit verify --ledger
    """
    from .. import ledger
    from .verifying import BEYOND, Verified, of_run, of_the_ledger

    if head is not None and len(runs) > 1:
        raise click.UsageError("--head is of one run: name that run alone.")
    if head is not None and not _is_hash(head):
        raise click.UsageError("--head is a hash: 64 digits of 0 to 9 and a to f.")
    reading = ledger.read()
    told: list[Verified] = [of_run(run, reading, head) for run in runs]
    if of_ledger or not runs:
        told.append(of_the_ledger(reading, ledger.path(), None if runs else head))
    for each in told:
        click.echo(each.name)
        for line in each.checked:
            click.echo(f"  {line}")
        for line in each.wrong:
            click.echo(f"  WRONG: {line}")
    n_wrong = sum(len(each.wrong) for each in told)
    click.echo(f"{BEYOND}\n{f'{n_wrong} findings.' if n_wrong else 'Nothing wrong was found.'}", err=True)
    if n_wrong:
        ctx.exit(1)


@command.command("export")
@click.argument("run", type=_RUN)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; stdout if not given.")
def export(run: Path, output: Path | None) -> None:
    """Write the events of the run in folder RUN, one a line, for anyone to check without GoalCover.

    Each line is canonical JSON (keys sorted, no spaces, UTF-8). Its "hash" is the SHA-256 of the same line without that
    field, and its "previous" the hash of the line before (64 zeros in the first). With jq and sha256sum:

    \b
      while read -r line; do
        printf %s "$line" | jq -cSj 'del(.hash)' | sha256sum   # prints the line's hash
      done < events.jsonl

    A file that is named with -o is written for you alone (mode 0600), whole or not at all.

    \b
    Example:
      goalcover audit export runs/first -o events.jsonl
    """
    from ..outputs import failures_told, placed

    lines = [event.line.encode("utf-8", "surrogatepass") + b"\n" for event in _events(run)]
    if output is None:
        for line in lines:
            click.echo(line, nl=False)
    else:
        with placed(output, "jsonl") as place, failures_told(output):
            place.path.write_bytes(b"".join(lines))
    click.echo(f"{len(lines)} events written.", err=True)


def _events(folder: Path) -> Sequence[Event]:
    from ..store import Run

    with Run.open(folder, write=False) as run:
        return run.events()


def _print(events: Sequence[Event]) -> None:
    from .decomposition import plain
    from .table import print_table

    header = ["event", "at (UTC)", "who", "command", "what", "details", "hash"]
    rows = []
    for event in events:
        brief = plain(event.details)
        brief = brief if len(brief) <= _LONGEST else f"{brief[: _LONGEST - 1]}…"
        who = plain(f"{event.who} on {event.host}")
        at = plain(event.at[:19].replace("T", " "))
        rows.append([str(event.seq), at, who, plain(event.command), plain(event.kind), brief, plain(event.hash[:12])])
    print_table(header, rows, right=(0,))


def _is_hash(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
