"""`goalcover packages`: what is installed, under which licence, and what is known to be wrong with it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import DataError
from .table import as_text, print_table

if TYPE_CHECKING:
    from ..advisories import Check
    from ..dependencies import Dependency

UNSEEN = (
    "native libraries inside wheels (OpenSSL, CUDA, BLAS …), which have no entry of their own",
    "the GPU's driver, the operating system and Python itself",
    "model weights",
    "what nobody has reported yet, or only after the database was copied",
)
"""What a check of package versions cannot see."""

OLD = 30
"""Days after which a database is called old."""


@click.command("packages", short_help="List installed packages and licences; check them against known vulnerabilities.")
@click.option(
    "--advisories",
    "database",
    type=click.Path(exists=True, path_type=Path),
    help="OSV's database for PyPI: its all.zip, a folder of its JSON files, or one JSON or JSONL file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, database: Path | None, as_json: bool) -> None:
    """List every package of this Python environment with its version and licence.

    With --advisories, tell which have a known vulnerability. Nothing is looked up anywhere: the file is all that is
    read. Exit code 1 if a package is affected; 2 if the file is no database for PyPI; 3 if nothing was found, but
    advisories could not be read or decided; else 0.

    \b
    Example:
      goalcover packages
      goalcover packages --advisories /mnt/transfer/all.zip
    """
    from ..dependencies import installed

    packages, checked, sha256 = installed(), None, ""
    if database is not None:
        from ..advisories import check, digest

        try:
            checked = check(database, {package.name: package.version for package in packages})
            sha256 = digest(database)
        except DataError as error:  # and not 1, which says that a package is affected
            raise click.BadParameter(str(error), ctx, param_hint="--advisories") from error
    if as_json:
        click.echo(as_text(_as_json(packages, checked, database, sha256)))
    elif checked is None:
        rows = [[package.name, package.version, package.licence, package.need] for package in packages]
        print_table(["package", "version", "licence", "needed"], rows)
    else:
        _tell(checked, len(packages), sha256)
    ctx.exit(0 if checked is None else 1 if checked.findings else 0 if checked.complete else 3)


def _as_json(packages: list[Dependency], checked: Check | None, database: Path | None, sha256: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "goalcover": __version__,
        "python": platform.python_version(),
        "packages": [asdict(package) for package in packages],
        "advisories": None,
    }
    if checked:
        told["advisories"] = {
            "file": str(database),
            "sha256": sha256,
            "n": checked.n_advisories,
            "newest": checked.newest.astimezone(UTC).isoformat(),
            "n_malformed": checked.n_malformed,
            "undecided": list(checked.undecided),
            "affected": [asdict(finding) for finding in checked.findings],
            "unseen": list(UNSEEN),
        }
    return told


def _tell(checked: Check, n_packages: int, sha256: str) -> None:
    """Nothing; prints the findings and what may hide more, and on stderr what they rest on."""
    from .terminal import counted, plain

    if checked.findings:
        header = ["package", "version", "known as", "severity", "mended in"]
        rows = [
            [each.package, each.version, ", ".join(each.ids), each.severity or "not stated", each.fixed or "none"]
            for each in checked.findings
        ]
        print_table(header, [[plain(cell) for cell in row] for row in rows])
    elif checked.complete:
        click.echo("No installed package is affected.")
    else:
        click.echo("No installed package was found to be affected, but the check is incomplete.")
    if checked.n_malformed:
        click.echo(f"{_advisories(checked.n_malformed)} could not be read, and may hide a finding.")
    if checked.undecided:
        names = plain(", ".join(checked.undecided))
        click.echo(f"Not decided, for want of versions that can be compared: {names}.")
    click.echo(f"{counted(n_packages, 'package')} held against {_advisories(checked.n_advisories)}.", err=True)
    click.echo(f"The newest is of {checked.newest:%Y-%m-%d}, {_age(checked.newest)}.", err=True)
    click.echo(f"The database's SHA-256 is {sha256}.", err=True)
    click.echo(f"Not seen by this check: {'; '.join(UNSEEN)}.", err=True)


def _advisories(n: int) -> str:
    return f"{n:,} {'advisory' if n == 1 else 'advisories'}"


def _age(newest: datetime) -> str:
    """How old a database is whose newest advisory is of then, and what to do if that is too old or cannot be."""
    from .terminal import counted

    days = (datetime.now(UTC) - newest).days
    if days < 0:
        return "which lies in the future: the database, or this machine's clock, is wrong"
    return f"{counted(days, 'day')} ago{'. It is old: bring a new one' if days > OLD else ''}"
