"""`goalcover assess`: phase 2 at the command line, from files to a run folder that can be continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .assessing import assess_goal, data_options, recognised, some_usable, stop_options, take_in, tell_cost, value_for
from .judging import Command, Models, panel_options, verified_cards

if TYPE_CHECKING:
    from ..cards import Card
    from ..readers import Layout
    from ..store import Origin, Run
    from ..terms import Goal
    from .results import Results


_OPTIONS = (
    click.argument("goal"),
    click.argument("data", type=click.Path(path_type=Path)),
    click.option(
        "--run",
        "run_folder",
        required=True,
        type=click.Path(path_type=Path),
        help="The run folder, new or to be continued.",
    ),
    panel_options,
    click.option(
        "--limit",
        type=click.IntRange(1),
        help="Judge only this many rows, drawn by --seed; smaller limits are parts of larger ones.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Fixes which rows a limit draws, and their order.",
    ),
    click.option(
        "--explain",
        type=click.Choice(["low", "all", "none"]),
        default="low",
        show_default=True,
        help="Explain scores: of low rows of likely gaps, all, or none.",
    ),
    click.option(
        "--decode",
        type=click.Choice(["choice", "grammar"]),
        default="choice",
        show_default=True,
        help="Read the anchors' probabilities, or also decode each whole answer.",
    ),
    click.option(
        "--value",
        type=click.Choice(["score", "expectation", "corrected"]),
        help="Which number stands for a judgement; the card's choice if not given.",
    ),
    click.option(
        "--tau",
        type=click.FloatRange(0, 1),
        help="Alignment below which the paper calls a subgoal a gap; the goal's if not given.",
    ),
    stop_options,
    data_options,
)


def assess_options(command: Command) -> Command:
    """The command with everything that an assessment takes: goal, data, run folder, judges, and how they judge."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("assess", short_help="Judge every sample against every subgoal of a goal.")
@assess_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Count tokens, measure the rate, tell how long it would take; judge and store nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the coverage as JSON at the end.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Judge the rows of DATA against the subgoals of GOAL (a goal.toml, or the name of one that ships with the tool).

    Stopped at any moment, the same command goes on where it was; nothing stored is judged again. With --judge more than
    once a panel judges, one after the other: a row's value is the mean (or median) of what they say, and each one's
    own verdicts are kept and shown.

    \b
    Example:
      goalcover assess family-clinic data.jsonl --run runs/first
      goalcover assess goal.toml ori_pqal.json --input-column QUESTION --output-column LONG_ANSWER \\
          --limit 100 --run runs/pubmedqa
    """
    if options["dry_run"]:
        _dry_run(*_given(options)[:3], options)
        return
    with assessed(options) as (run, models, finished):
        models.close()
        _conclude(ctx, run, finished, options)


@contextmanager
def assessed(options: Mapping[str, Any]) -> Iterator[tuple[Run, Models, bool]]:
    """A context with a run that was assessed, the models that are open, and whether the assessment is finished."""
    from ..store import Run

    goal, cards, layout, origin = _given(options)
    with Run.open(options["run_folder"], write=True, create=True) as run:
        take_in(run, layout, origin, options["data"])
        with Models(options) as models:
            yield run, models, assess_goal(run, goal, models, cards, options)


def _given(options: Mapping[str, Any]) -> tuple[Goal, Sequence[Card], Layout, Origin]:
    """The goal, the judges' cards, how the data are read, and where they come from."""
    from ..goal_files.reading import find_goal, read_goal

    return read_goal(find_goal(options["goal"])), verified_cards(options), *recognised(options)


def _conclude(ctx: click.Context, run: Run, finished: bool, options: Mapping[str, Any]) -> None:
    """Prints the coverage and leaves with the code that fits: 3 with failures, 130 if there is more to do."""
    import json

    from .results import results
    from .shown import as_json, print_results

    found = results(run, value=options["value"], tau=options["tau"])
    if options["as_json"]:
        click.echo(json.dumps(as_json(run, found), indent=2, ensure_ascii=False))
    else:
        print_results(run, found)
    n_failed = ended(run, found, finished)
    if not finished:
        ctx.exit(130)
    if n_failed:
        ctx.exit(3)


def ended(run: Run, found: Results, finished: bool) -> int:
    """How many judgements failed; puts the end of an assessment on record and tells what is left to do."""
    n_failed = found.n_failed
    details = {"finished": finished, "n_asked": run.n_asked(), "n_stored": run.n_stored(), "n_failed": n_failed}
    run.event("assessment ended", details, "goalcover assess")
    if not finished:
        click.echo("Stopped by --max-hours. The same command goes on from here.", err=True)
    if n_failed:
        click.echo(
            f"{n_failed} judgements failed: `goalcover show {run.folder} --failures`, then --retry-failed.", err=True
        )
    return n_failed


def _dry_run(goal: Goal, cards: Sequence[Card], layout: Layout, options: Mapping[str, Any]) -> None:
    """Nothing; prints exact token counts, the rate measured on a few samples, and the time that judging would take."""
    from ..readers import read
    from ..resampling import drawn
    from ..terms import Sample

    data: Path = options["data"]
    rows = [row for row in some_usable(read(data, layout), data) if isinstance(row, Sample)]
    chosen = {rows[i].digest: rows[i] for i in drawn(len(rows), options["seed"], options["limit"])}
    tell_cost(goal, cards, list(chosen.values()), value_for(cards, options), options)
