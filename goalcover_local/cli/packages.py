"""`goalcover packages`: what is installed, under which licence, and what is known to be wrong with it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    read. Exit code 1 if a package is affected, else 0.

    \b
    Example:
      goalcover packages
      goalcover packages --advisories /mnt/transfer/all.zip
    """
    from ..dependencies import installed

    packages, checked = installed(), None
    if database is not None:
        from ..advisories import check

        checked = check(database, {package.name: package.version for package in packages})
    if as_json:
        click.echo(as_text(_as_json(packages, checked, database)))
    elif checked is None:
        rows = [[package.name, package.version, package.licence, package.need] for package in packages]
        print_table(["package", "version", "licence", "needed"], rows)
    else:
        _tell(checked, len(packages))
    ctx.exit(1 if checked and checked.findings else 0)


def _as_json(packages: list[Dependency], checked: Check | None, database: Path | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": [asdict(package) for package in packages],
        "advisories": None,
    }
    if checked:
        told["advisories"] = {
            "file": str(database),
            "n": checked.n_advisories,
            "newest": checked.newest.astimezone(UTC).isoformat() if checked.newest else None,
            "n_malformed": checked.n_malformed,
            "undecided": list(checked.undecided),
            "affected": [asdict(finding) for finding in checked.findings],
            "unseen": list(UNSEEN),
        }
    return told


def _tell(checked: Check, n_packages: int) -> None:
    """Nothing; prints the findings, and on stderr what they rest on."""
    from .decomposition import counted, plain

    if checked.findings:
        header = ["package", "version", "known as", "severity", "mended in"]
        rows = [
            [each.package, each.version, ", ".join(each.ids), each.severity or "not stated", each.fixed or "none"]
            for each in checked.findings
        ]
        print_table(header, [[plain(cell) for cell in row] for row in rows])
    else:
        click.echo("No installed package is affected.")
    noun = "advisory" if checked.n_advisories == 1 else "advisories"
    click.echo(f"{counted(n_packages, 'package')} held against {checked.n_advisories:,} {noun}.", err=True)
    if checked.newest:
        days = (datetime.now(UTC) - checked.newest).days
        old = " It is old: bring a new one." if days > OLD else ""
        click.echo(f"The newest advisory is of {checked.newest:%Y-%m-%d}, {counted(days, 'day')} ago.{old}", err=True)
    if checked.n_malformed:
        click.echo(
            f"{counted(checked.n_malformed, 'advisory file')} could not be read, and may hide a finding.", err=True
        )
    if checked.undecided:
        names = plain(", ".join(checked.undecided))
        click.echo(f"Not decided, for want of versions that can be compared: {names}.", err=True)
    click.echo(f"Not seen by this check: {'; '.join(UNSEEN)}.", err=True)
