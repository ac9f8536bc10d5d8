"""`goalcover run`: phases 2 to 4 in one go: assess, analyze, recommend."""

from __future__ import annotations

from typing import Any

import click

from .assess import assess_options
from .table import as_text
from .verdicts import rule_option


@click.command("run", short_help="Assess, analyze and recommend in one go.")
@assess_options
@click.option(
    "--analyst", help="The card of the model that names what is missing and what to do; the judge if not given."
)
@click.option("--all-low", is_flag=True, help="Read every low row's explanation, not a sample of at most 200.")
@rule_option
@click.option("--json", "as_json", is_flag=True, help="Print coverage, gaps and recommendations as one JSON object.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Judge DATA against GOAL, name what is missing, and say what to do: `assess`, `analyze` and `recommend` in one go.

    Stopped at any moment, the same command goes on where it was; what is done is not done again.

    \b
    Example:
      goalcover run family-clinic data.jsonl --run runs/first
      goalcover run goal.toml data.jsonl --run runs/first --limit 500 --json
    """
    from ..cards import load_card
    from . import analyze, recommend, results, shown
    from .assess import assessed, ended

    if options["analyst"]:
        load_card(options["analyst"])
    with assessed(options) as (run, models, finished):
        found = results.results(run, value=options["value"], tau=options["tau"], rule=options["rule"])
        n_failed = ended(run, found, finished)
        if not finished:
            if options["as_json"]:
                click.echo(as_text({**shown.as_json(run, found), "gaps": [], "recommendations": []}))
            else:
                shown.print_results(run, found)
            ctx.exit(130)
        chosen = {**options, "only": (), "explain": options["explain"] != "none", "plain": False}
        failures = analyze.analyze_run(run, models, chosen) + recommend.recommend_run(run, models, chosen)
        models.close()
        if options["as_json"]:
            told = {
                **shown.as_json(run, found),
                "gaps": analyze.as_json(run)["gaps"],
                "recommendations": recommend.as_json(run)["recommendations"],
            }
            click.echo(as_text(told))
        else:
            shown.print_results(run, found)
            analyze.print_gaps(run)
            recommend.print_recommendations(run)
    analyze.leave(ctx, failures)
    if n_failed:
        ctx.exit(3)
