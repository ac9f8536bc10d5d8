"""`goalcover assess`: phase 2 at the command line, from files to a run folder that can be continued."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .judging import Command, Models, judge_options, named_card
from .refusals import tell_refusals

if TYPE_CHECKING:
    from ..cards import Card
    from ..judges import Batch, Judge
    from ..readers import Layout
    from ..scales import Scale
    from ..store import Origin, Run
    from ..terms import Goal, Refusal, Sample, Subgoal
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
    judge_options,
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
    click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="Stop, resumable, after this long."),
    click.option("--retry-failed", is_flag=True, help="Ask again for judgements that failed."),
    click.option("--input-column", help="Column(s) that make the input, comma-separated."),
    click.option("--output-column", help="Column(s) that make the output, comma-separated."),
    click.option("--template", help="The input made from columns, such as '{title}: {body}'."),
    click.option("--id-column", help="Column that names a row."),
    click.option("--format", "file_format", help="The data's format, where the file's name does not tell."),
    click.option("--split", help="Which split of a datasets folder."),
)


def assess_options(command: Command) -> Command:
    """The command with everything that an assessment takes: goal, data, run folder, judge, and how it judges."""
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

    Stopped at any moment, the same command goes on where it was; nothing stored is judged again.

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

    goal, card, layout, origin = _given(options)
    with Run.open(options["run_folder"], write=True, create=True) as run:
        _take_in(run, layout, origin, options["data"])
        with Models(options) as models:
            yield run, models, _assess(run, goal, models.judge(card), card.value, options)


def _given(options: Mapping[str, Any]) -> tuple[Goal, Card, Layout, Origin]:
    """The goal, the judge's card, how the data are read, and where they come from."""
    from ..goal_files.reading import find_goal, read_goal
    from ..weights import verify

    goal = read_goal(find_goal(options["goal"]))
    card = named_card(options)
    verify(card)
    return goal, card, *_recognised(options)


def _recognised(options: Mapping[str, Any]) -> tuple[Layout, Origin]:
    """How the data are read, and where they come from."""
    from ..formats import content_digest
    from ..readers import recognise
    from ..store import Origin

    names = ("input_column", "output_column", "template", "id_column", "split")
    layout = recognise(options["data"], format=options["file_format"], **{name: options[name] for name in names})
    click.echo(layout.describe(), err=True)
    return layout, Origin(str(options["data"].absolute()), content_digest(options["data"]), asdict(layout))


def _take_in(run: Run, layout: Layout, origin: Origin, data: Path) -> None:
    from ..readers import read
    from ..terms import digest_of

    digest = digest_of([origin.content, repr(layout)])
    counts = run.put_rows(_some_usable(read(data, layout), data), digest, origin)
    n_refused = counts.refusals
    click.echo(
        f"{counts.rows + n_refused} rows in, {counts.rows} used ({counts.samples} different), {n_refused} refused.",
        err=True,
    )
    tell_refusals(run.refusals(), "; they are stored with the run.")


def _some_usable(rows: Iterator[Sample | Refusal], data: Path) -> Iterator[Sample | Refusal]:
    """The rows as they come; raises DataError after the last if none could be used, so that nothing is stored."""
    from ..errors import DataError
    from ..terms import Refusal

    refused: list[Refusal] = []
    n_used = 0
    for row in rows:
        if isinstance(row, Refusal):
            refused.append(row)
        else:
            n_used += 1
        yield row
    if not n_used:
        tell_refusals(refused)
        raise DataError(
            f"No row of {data.name} can be used.", "The reasons are above; mend the file, or name its columns."
        )


def _assess(run: Run, goal: Goal, judge: Judge, card_value: str, options: Mapping[str, Any]) -> bool:
    """Whether the assessment is finished, and not stopped by --max-hours."""
    import numpy as np

    from ..phases.assess import assess
    from .explaining import explain_missing, low_samples
    from .progress import progress
    from .results import STARTED, results

    ends = time.monotonic() + 3600 * options["max_hours"] if options["max_hours"] else float("inf")
    digest = run.put_judge(dict(judge.identity))
    value = options["value"] or card_value
    aliens, ground = _references(value)
    if aliens:
        run.put_scale(digest, _scale(judge).record())
    run.put_goal(goal)
    run.put_subgoals(aliens)
    details = {
        "judge": digest,
        "goal": goal.digest,
        "data": run.data_digest(),
        "seed": options["seed"],
        "limit": options["limit"] or 0,
        "value": value,
        "tau": goal.tau if options["tau"] is None else options["tau"],
    }
    run.event(STARTED, details, "goalcover assess")
    plan = np.concatenate([run.put_samples(ground), run.permutation(options["seed"], options["limit"])])
    asked = [*goal.subgoals, *aliens]
    missing = run.missing(digest, [s.digest for s in asked], plan, retry_failed=options["retry_failed"])
    n_own = len(goal.subgoals)
    if not missing.all():
        click.echo(f"{int((~missing[:, :n_own]).sum())} of {len(plan) * n_own} pairs are stored already.", err=True)
    own = {subgoal.digest for subgoal in goal.subgoals}
    batches = assess(judge, missing, lambda rows: run.samples(plan[rows]), asked, run.asking)
    finished, n_disagree = True, 0
    with progress("Judging", int(missing[:, :n_own].sum()), "pairs") as bar:
        for batch in batches:
            _store(run, digest, batch)
            n_disagree += batch.n_disagree
            ours = [j for j in batch.judgements if j.subgoal in own]
            bar.advance(len(ours), sum(j.failure is not None for j in ours))
            if time.monotonic() > ends:
                finished = not run.missing(digest, [s.digest for s in asked], plan).any()
                break
    if judge.decode == "grammar" or judge.order == "reason-first":
        click.echo(f"Decoded anchor and most probable anchor disagree in {n_disagree} answers.", err=True)
    for name, told in judge.engine.report().items():
        click.echo(f"{name}: {told}", err=True)
    if finished and options["explain"] != "none":
        found = results(run, value=options["value"], tau=options["tau"])
        low = low_samples(run, found, all_rows=options["explain"] == "all", seed=options["seed"])
        finished = explain_missing(run, judge, found, low, ends)
    return finished


def _references(value: str) -> tuple[list[Subgoal], list[Sample]]:
    """Reference subgoals and samples: only the corrected value needs them, and whoever reasons first pays dearly."""
    from ..scales import reference_samples, reference_subgoals

    return (reference_subgoals(), reference_samples()) if value == "corrected" else ([], [])


def _store(run: Run, judge: str, batch: Batch) -> None:
    run.append(judge, batch.judgements, batch.explanations, batch.truncations.items())
    run.count("device_seconds", batch.seconds)
    run.count("n_tokens", batch.n_tokens)


def _scale(judge: Judge) -> Scale:
    """The judge's scale: the one fitted before under its digest, or one fitted now.

    Where the score comes first, what is decoded after it changes no probability: a scale then needs no decoding.
    """
    from ..errors import EngineError
    from ..phases.calibrate import judge_references, pairs_to_judge, scale_from
    from ..scales import find_scale, keep_scale
    from .progress import progress

    if judge.order == "score-first":
        judge = replace(judge, decode="choice")
    kept = find_scale(judge.digest)
    if kept:
        return kept
    with progress("Fitting the judge's scale (once)", len(pairs_to_judge()), "reference pairs") as bar:
        batches = []
        for batch in judge_references(judge):
            batches.append(batch)
            bar.advance(len(batch.judgements))
    try:
        scale = scale_from(batches)
    except ValueError as error:
        raise EngineError(
            "The judge failed on most of the reference pairs, so its values have no scale.",
            "Run `goalcover doctor` with this judge, or use another.",
        ) from error
    try:
        keep_scale(judge.digest, scale)
    except OSError:
        click.echo("The models home cannot be written to, so the scale will be fitted again next time.", err=True)
    return scale


def _conclude(ctx: click.Context, run: Run, finished: bool, options: Mapping[str, Any]) -> None:
    """Prints the coverage and leaves with the code that fits: 3 with failures, 130 if there is more to do."""
    import json

    from .results import as_json, print_results, results

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
    n_failed = sum(covered.n_failed for covered in found.coverage)
    details = {"finished": finished, "n_asked": run.n_asked(), "n_stored": run.n_stored(), "n_failed": n_failed}
    event = run.event("assessment ended", details, "goalcover assess")
    click.echo(f"Audit trail: event {event.seq}, {event.hash}", err=True)
    if not finished:
        click.echo("Stopped by --max-hours. The same command goes on from here.", err=True)
    if n_failed:
        click.echo(
            f"{n_failed} judgements failed: `goalcover show {run.folder} --failures`, then --retry-failed.", err=True
        )
    return n_failed


def _dry_run(goal: Goal, card: Card, layout: Layout, options: Mapping[str, Any]) -> None:
    """Nothing; prints exact token counts, the rate measured on a few samples, and the time that judging would take."""
    from ..readers import read
    from ..store import drawn
    from ..terms import Sample
    from .progress import duration

    data: Path = options["data"]
    rows = [row for row in _some_usable(read(data, layout), data) if isinstance(row, Sample)]
    chosen = {rows[i].digest: rows[i] for i in drawn(len(rows), options["seed"], options["limit"])}
    samples = list(chosen.values())
    aliens, ground = _references(options["value"] or card.value)
    asked = [*goal.subgoals, *aliens]
    with Models(options) as models:
        judge = models.judge(card)
        sent, unique = judge.tokens([*ground, *samples], asked)
        batch = judge.judge([(sample, subgoal) for sample in samples[:4] for subgoal in asked])
    rate = batch.n_tokens / batch.seconds
    writes = judge.decode == "grammar" or judge.order == "reason-first"
    # What is written, and what a server remembers, does not show in the tokens of prompts: then pairs are the measure.
    by_pairs = batch.seconds / len(batch.judgements) * (len(samples) + len(ground)) * len(asked)
    seconds = by_pairs if writes or options["engine"] == "server" else unique / rate
    click.echo(f"rows to judge        {len(samples)} different samples x {len(goal.subgoals)} subgoals")
    click.echo(f"reference            {len(aliens)} subgoals a sample, {len(ground)} samples")
    click.echo(f"tokens as prompts    {sent}")
    click.echo(f"tokens once shared   {unique}")
    click.echo(f"measured rate        {rate:.0f} tokens a second")
    click.echo(f"time, explanations apart   about {duration(seconds)}")
