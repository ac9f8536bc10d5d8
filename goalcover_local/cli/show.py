"""`goalcover show`: the coverage table of a run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .verdicts import verdict_options


@click.command("show", short_help="Print a run's coverage table.")
@click.argument("run", type=click.Path(path_type=Path))
@verdict_options
@click.option("--failures", is_flag=True, help="List the failed judgements and their reasons instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/show.schema.json).")
def command(run: Path, value: str | None, tau: float | None, rule: str, failures: bool, as_json: bool) -> None:
    """Print the coverage table of the run in folder RUN: per subgoal its alignment, support and verdict.

    \b
    Example:
      goalcover show runs/first
      goalcover show runs/first --rule mean --tau 0.5 --json
    """
    from ..store import Run
    from . import results, shown

    with Run.open(run, write=False) as opened:
        if failures:
            told = results.settings(opened)
            for failed in (each for judge in told.get("panel", [told["judge"]]) for each in opened.failures(judge)):
                click.echo(f"{failed.sample[:16]}  {failed.subgoal[:16]}  {failed.failure}")
            return
        found = results.results(opened, value=value, tau=tau, rule=rule)  # type: ignore[arg-type]
        if as_json:
            click.echo(json.dumps(shown.as_json(opened, found), indent=2, ensure_ascii=False))
        else:
            shown.print_results(opened, found)
