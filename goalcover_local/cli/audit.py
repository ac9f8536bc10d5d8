"""`goalcover audit`: what was done to a run, and by this user across runs; shown, verified and exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..chain import Event
    from .verifying import Verified

_RUN = click.Path(path_type=Path, file_okay=False)
_LONGEST = 72
_SHOWN = 12
"""Digits of a hash in a table, and the fewest that `--head` takes."""

_FIRST = ("subgoal", "verdict", "outcome", "edited", "counts", "code", "run")
"""What tells most in an event's details."""


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

    A run's id is its first event's hash. The table shows the first 12 digits of hashes; all are in the JSON.

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
    _print(events, f"Run {events[0].hash}" if run is not None and events else "")


@command.command("verify")
@click.argument("runs", type=_RUN, nargs=-1)
@click.option("--head", help="A hash kept elsewhere, or its first 12 digits or more, of the run (else of the ledger).")
@click.option("--ledger", "of_ledger", is_flag=True, help="Verify the ledger on its own too, as happens without RUNS.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_context
def verify(ctx: click.Context, runs: tuple[Path, ...], head: str | None, of_ledger: bool, as_json: bool) -> None:
    """Check the runs in folders RUNS, or without RUNS the ledger.

    Of a run: that its chain of events is whole, that it holds what its last seal says, and that the ledger, which is
    checked as well, saw every command that wrote to it, so that nothing was cut off, rolled back or forged. With
    --head: that this event stands in the chain. It vouches for the chain up to there, and for the contents only if it
    is the newest seal.

    \b
    Exit codes:
      0  whole; notes tell of commands that were killed before others came
      1  WRONG: something was edited, cut, rolled back, exchanged or forged, or is gone
      3  UNSEALED: nothing is wrong, and the last command was killed or is at work,
         or this is a copy of an earlier state, so that nobody can vouch for the
         contents until a command that writes seals them

    \b
    Example:
      goalcover audit verify runs/first
      goalcover audit verify runs/first --head 3fa9…
      goalcover audit verify --ledger
    """
    from .. import ledger
    from .terminal import counted
    from .verifying import BEYOND, code_of, of_run, of_the_ledger

    if head is not None and len(runs) > 1:
        raise click.UsageError("--head is of one run: name that run alone.")
    if head is not None and not _is_hash(head):
        raise click.UsageError(f"--head is a hash: {_SHOWN} to 64 digits of 0 to 9 and a to f.")
    told = [of_run(run, head) for run in runs]
    if of_ledger or not runs:
        told.append(of_the_ledger(ledger.read(), None if runs else head))
    code = code_of(told)
    _print_verified(told, code, as_json)
    said = {0: "Nothing wrong was found.", 3: "Nothing wrong was found, and not all is sealed."}
    click.echo(f"{BEYOND}\n{said.get(code) or counted(sum(len(each.wrong) for each in told), 'finding')}", err=True)
    if code:
        ctx.exit(code)


@command.command("export")
@click.argument("run", type=_RUN, required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; stdout if not given.")
def export(run: Path | None, output: Path | None) -> None:
    """Write the events of the run in folder RUN, or without RUN those of the ledger, for anyone to check without us.

    Each line is an event as canonical JSON (keys sorted, no spaces, UTF-8). Its "hash" is the SHA-256 of the same line
    without that field, and its "previous" the hash of the line before (64 zeros in the first). With jq and sha256sum:

    \b
      while read -r line; do
        printf %s "$line" | jq -cSj 'del(.hash)' | sha256sum   # prints the line's hash
      done < events.jsonl

    A file that is named with -o is written for you alone (mode 0600), whole or not at all.

    \b
    Example:
      goalcover audit export runs/first -o events.jsonl
      goalcover audit export -o ledger.jsonl
    """
    from .. import ledger
    from ..outputs import failures_told, placed

    reading = ledger.read() if run is None else None
    events = _events(run) if run is not None else reading.events if reading else ()
    lines = [event.line.encode("utf-8", "surrogatepass") + b"\n" for event in events]
    if output is None:
        for line in lines:
            click.echo(line, nl=False)
    else:
        with placed(output, "jsonl", [ledger.path()]) as place, failures_told(output):
            place.path.write_bytes(b"".join(lines))
    click.echo(f"{len(lines)} events written.", err=True)
    if n := len(reading.unreadable) + bool(reading.torn) if reading else 0:
        what = (
            "1 line of the ledger was left out: no event."
            if n == 1
            else f"{n} lines of the ledger were left out: no events."
        )
        click.echo(what, err=True)


def _events(folder: Path) -> Sequence[Event]:
    from ..store import Run

    with Run.open(folder, write=False) as run:
        return run.events()


def _print(events: Sequence[Event], heading: str) -> None:
    """Nothing; prints the events as a table, between what they are of and the newest head."""
    from .table import print_table
    from .terminal import plain

    header = ["event", "at (UTC)", "who", "command", "what", "details", "hash"]
    rows = []
    for event in events:
        who = plain(f"{event.who} on {event.host}")
        at = plain(event.at[:19].replace("T", " "))
        what = [at, who, plain(event.command), plain(event.kind), plain(_brief(event.told)), plain(event.hash[:_SHOWN])]
        rows.append([str(event.seq), *what])
    if heading:
        click.echo(plain(heading))
    print_table(header, rows, right=(0,))
    if events:
        click.echo(f"Head {plain(events[-1].hash)}")


def _brief(details: Mapping[str, Any]) -> str:
    """What tells most of an event's details, first things first; of hashes the first digits, and no other digests."""
    names = [*(name for name in _FIRST if name in details), *(name for name in details if name not in _FIRST)]
    brief, left_out = "", False
    for part in (told for name in names if (told := _part(name, details[name]))):
        longer = f"{brief}, {part}" if brief else part
        fits = len(longer) <= _LONGEST
        brief, left_out = longer if fits else brief, left_out or not fits
    return f"{brief}{', ' if brief else ''}…" if left_out else brief


def _part(name: str, value: Any) -> str:
    """A detail in words; nothing for what is made of digests."""
    if isinstance(value, str) and _is_hash(value) and len(value) == 64:
        return f"{name} {value[:_SHOWN]}" if name in ("run", "head") else ""
    if isinstance(value, list):
        held = [each for each in (_part("", item).strip() for item in value) if each]
        return f"{name} {' '.join(held)}" if held else ""
    if isinstance(value, dict):
        held = [part for each, item in value.items() if (part := _part(each, item))]
        return f"{name}: {' '.join(held)}" if held else ""
    return f"{name} {'' if value is None else value}".strip()


def _print_verified(told: Sequence[Verified], code: int, as_json: bool) -> None:
    """Nothing; prints what was verified."""
    from .. import __version__
    from ..chain import author
    from .table import as_text
    from .terminal import one_line

    if as_json:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"at": at, "host": author()[1], "version": __version__, "code": code}
        click.echo(as_text({**record, "verified": [each.record for each in told]}))
        return
    for each in told:
        click.echo(each.name)
        unsealed, wrong = (f"UNSEALED: {line}" for line in each.unsealed), (f"WRONG: {line}" for line in each.wrong)
        for line in (*each.notes, *unsealed, *wrong):
            click.echo(f"  {one_line(line)}")


def _is_hash(text: str) -> bool:
    return _SHOWN <= len(text) <= 64 and set(text) <= set("0123456789abcdef")
