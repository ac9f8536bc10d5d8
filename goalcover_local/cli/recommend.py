"""`goalcover recommend`: phase 4 at the command line, from gaps to what to do about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .judging import Models, engine_options
from .table import as_text

if TYPE_CHECKING:
    import numpy as np

    from ..phases.recommend import Surroundings
    from ..store import Run
    from .results import Results

RECOMMENDED = "recommendations written"
_NEAR = 20
"""The most samples told of that come near support."""


@click.command("recommend", short_help="Say what would close the gaps of a run.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--analyst", help="The card of the model that writes issue and fix; the run's judge if not given.")
@engine_options
@click.option("--plain", is_flag=True, help="No model: issue and fix in set words, from what was counted.")
@click.option("--json", "as_json", is_flag=True, help="Print the recommendations as JSON.")
@click.pass_context
def command(ctx: click.Context, /, run: Path, **options: Any) -> None:
    """Say what would close the gaps that `goalcover analyze` found in folder RUN: what to collect, from where, how many
    rows are missing to the target share, what to have written, what to leave out.

    \b
    Example:
      goalcover recommend runs/first
      goalcover recommend runs/first --plain --json
    """
    from ..store import Run
    from .analyze import leave

    with Run.open(run, write=True) as opened, Models(options) as models:
        failures = recommend_run(opened, models, options)
        if options["as_json"]:
            click.echo(as_text(as_json(opened)))
        else:
            print_recommendations(opened)
    leave(ctx, failures)


def recommend_run(run: Run, models: Models, options: Mapping[str, Any]) -> Counter[str]:
    """Why answers of the model are missing, counted; the recommendations are in the run."""
    from ..phases.recommend import TELLS_APART, recommend
    from .analyze import analyst_card, analyst_of
    from .results import analyzed

    found = analyzed(run)
    covered = {each.subgoal.id: each for each in found.coverage}
    column = {each.subgoal.id: place for place, each in enumerate(found.coverage)}
    gaps = [(gap, covered[gap.subgoal], _around(run, found, column[gap.subgoal])) for gap in run.gaps()]
    asker = analyst_of(run, models, options["analyst"]) if gaps and not options["plain"] else None
    author = analyst_card(run, options["analyst"]).name if asker else ""
    if asker and not asker.fitness(TELLS_APART).fit:
        click.echo(
            f"{author} is not fit to write issue and fix: it hardly tells two capabilities apart (see `goalcover "
            "clarify`). They are told in set words; name a larger model with --analyst.",
            err=True,
        )
        asker = None
    written = recommend(asker, author, gaps)
    run.put_recommendations(written)
    failures = asker.failures if asker else Counter[str]()
    details = {
        "judge": found.judge,
        "author": asker.digest if asker else "",
        "n": len(written),
        "n_failed": failures.total(),
    }
    run.event(RECOMMENDED, details, "goalcover recommend")
    return failures


def _around(run: Run, found: Results, column: int) -> Surroundings:
    """What the dataset holds beside this subgoal's gap."""
    import numpy as np

    from ..phases.assess import LOW
    from ..phases.recommend import Surroundings
    from ..terms import SUPPORT_AT

    values = found.values[found.value]
    own = values[:, column]
    judged = ~np.isnan(own)
    best = np.where(np.isnan(values).all(axis=1), np.nan, np.nanmax(np.nan_to_num(values, nan=-1.0), axis=1))
    idle = judged & ~np.isnan(values).any(axis=1) & (best < SUPPORT_AT - 1e-9)
    near = np.flatnonzero(judged & (own > LOW + 1e-9) & (own < SUPPORT_AT - 1e-9))
    return Surroundings(run.n_rows(), len(own), int(idle.sum()), _samples(run, found, own, near))


def _samples(run: Run, found: Results, own: np.ndarray, rows: np.ndarray) -> tuple[str, ...]:
    """Digests of the samples in these rows, each once, the highest value first."""
    order = sorted(rows.tolist(), key=lambda row: (-own[row], row))
    keys = dict.fromkeys(run.row_samples(found.positions)[order].tolist())
    return tuple(sample.digest for sample in run.samples(list(keys)[:_NEAR]))


def as_json(run: Run) -> dict[str, Any]:
    """The recommendations of a run as plain values; near samples are named by the ids of their rows."""
    told = []
    for each in run.recommendations():
        ids = run.row_ids(each.near)
        told.append(
            {
                "subgoal": each.subgoal,
                "issue": each.issue,
                "fix": each.fix,
                "author": each.author,
                "n_missing": each.n_missing,
                "actions": [{"remedy": a.remedy, "n_rows": a.n_rows, "text": a.text} for a in each.actions],
                "near": [ids[sample] for sample in each.near],
            }
        )
    return {"run": str(run.folder), "recommendations": told}


def print_recommendations(run: Run) -> None:
    """Nothing; prints the recommendations of a run."""
    from .terminal import plain

    recommendations = run.recommendations()
    if not recommendations:
        click.echo("No gap, so there is nothing to recommend.")
    for each in recommendations:
        click.echo(f"\n{each.subgoal}" + (f" (issue and fix in the words of {each.author})" if each.author else ""))
        click.echo(f"  Issue: {plain(each.issue)}")
        click.echo(f"  Fix: {plain(each.fix)}")
        for number, action in enumerate(each.actions, 1):
            click.echo(f"  {number}. {plain(action.text)}")
        if each.near:
            ids = run.row_ids(each.near)
            shown = ", ".join(plain(ids[sample]) for sample in each.near[:5])
            click.echo(f"  Samples that come near: {shown}{' …' if len(each.near) > 5 else ''}")
