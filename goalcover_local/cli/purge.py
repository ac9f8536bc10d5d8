"""`goalcover purge`: the samples' texts leave a run; its numbers, digests and audit trail stay."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..beside import Files
    from ..purging import Texts

_SHOWN = 10
LEFT = 3
"""The exit code where files were left that may hold text."""


@click.command("purge", short_help="Remove the samples' texts from a run, and keep its numbers and audit trail.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--samples", is_flag=True, required=True, help="Remove sample text, and all text that may quote it.")
@click.option("--ids", is_flag=True, help="Put digests in place of ids, names of files and the data's path too.")
@click.option(
    "--files", "others", is_flag=True, help="Remove files in the folder whose content is not certain as well."
)
@click.option("--yes", is_flag=True, help="Do not ask first; needed where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed and what is left as JSON.")
@click.pass_context
def command(ctx: click.Context, /, run: Path, **options: Any) -> None:
    """Remove the samples' texts from the run in folder RUN, and every text that may quote one, for good.

    Removed: inputs, outputs, the rows as they were read, explanations, candidates, responses, what models wrote of
    gaps and what to do about them, and the reasons that people gave with `goalcover decide`, which may quote a row:
    export first what you want to keep. Kept: goal, scores, counts, digests, trainings and the audit trail, so that
    `show`, `status` and `export` still work. Runs and rows that studies and experiments left in the folder go the same
    way. Of the other files there those are kept whose digest the run holds, as of weights; the rest, figures too, are
    named, and removed with --files.

    Given again the very data, `goalcover assess` puts the samples' texts back, and nothing is judged twice. Killed at
    any moment, the same command finishes what it began. What lies outside the folder (the data, copies, backups,
    snapshots of the disk) is not reached, weights that were trained on the samples may repeat them, and short texts and
    ids can be guessed from their digests.

    Leaves with code 3 where files were left that may hold text.

    \b
    Example:
      goalcover purge runs/first --samples
      goalcover purge runs/first --samples --ids --files --yes
    """
    from .table import as_text

    found = _held(run)
    _confirm(found, options)
    told = [_purge(folder, options) for folder in found]
    left = [path for each in told for path in each["left"]]
    if options["as_json"]:
        click.echo(as_text({"runs": told}))
    else:
        for each in told:
            _print(each)
    if left:
        _name("May hold sample text, and was left", left, "Look at it, or remove it with --files.")
        ctx.exit(LEFT)


def _held(folder: Path) -> dict[Path, tuple[Texts, Files]]:
    """What a purge would remove of the run in a folder, and of every run inside it, the innermost first."""
    from ..beside import files
    from ..purging import texts
    from ..store import Run

    with Run.open(folder, write=False) as run:
        held = texts(run), files(run)
    found: dict[Path, tuple[Texts, Files]] = {}
    for inner in held[1].runs:
        found |= _held(inner)
    return {**found, folder: held}


def _confirm(found: Mapping[Path, tuple[Texts, Files]], options: Mapping[str, Any]) -> None:
    """Nothing; says what will be removed and asks, unless told not to. Raises UsageError without a terminal."""
    from .terminal import plain

    if options["yes"]:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on: add --yes if the texts shall go for good.")
    for folder, (held, lying) in found.items():
        n_files = len(lying.rows) + (len(lying.others) if options["others"] else 0)
        click.echo(f"{plain(str(folder))}: {_counted(held)}; {n_files} files.", err=True)
    click.confirm("Remove these for good?", abort=True, err=True)


def _purge(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """What was removed from one run, and what is left beside it."""
    from ..purging import purge
    from ..store import Run

    with Run.open(folder, write=True) as run:
        held, lying = purge(run, ids=options["ids"], others=options["others"])
    with Run.open(folder, write=False) as run:
        last = run.events()[-1]  # the seal, which is written when the run is closed
    gone, left = (lying.rows + lying.others, ()) if options["others"] else (lying.rows, lying.others)
    return {
        "run": str(folder),
        "removed": held._asdict(),
        "files": [str(path) for path in gone],
        "left": [str(path) for path in left],
        "policies": [str(path) for path in lying.policies],
        "event": last.seq,
        "hash": last.hash,
    }


def _print(told: Mapping[str, Any]) -> None:
    from ..purging import Texts
    from .terminal import plain

    click.echo(f"{plain(told['run'])}: removed {_counted(Texts(**told['removed']))}.")
    _name("Removed", told["files"])
    _name("Trained on the samples, and kept", told["policies"], "Weights may repeat what they learnt.")


def _counted(held: Texts) -> str:
    """The counts as a list in words."""
    told = [f"{n} {name}" for name, n in held._asdict().items() if n]
    return f"texts of {', '.join(told)}" if told else "no text, for none was left"


def _name(what: str, paths: Sequence[str], more: str = "") -> None:
    """Nothing; names the first ten of these files, and how many there are beyond."""
    from .terminal import plain

    if not paths:
        return
    shown = ", ".join(plain(str(path)) for path in paths[:_SHOWN])
    beyond = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    click.echo(f"{what}: {shown}{beyond}.{f' {more}' if more else ''}", err=True)
