"""`goalcover analyze`: phase 3 at the command line, from a run's judgements to named gaps with their evidence."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .judging import Models, engine_options, run_card
from .table import as_text
from .verdicts import verdict_options

if TYPE_CHECKING:
    from ..asking import Asker
    from ..cards import Card
    from ..store import Run
    from ..terms import Gap, MissingCapability
    from .results import Results


@click.command("analyze", short_help="Name what is missing where a run has gaps.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--analyst", help="The card of the model that reads explanations; the run's judge if not given.")
@engine_options
@click.option("--subgoal", "only", multiple=True, help="Analyze this subgoal alone, gap or not. May be repeated.")
@click.option("--all-low", is_flag=True, help="Read every low row's explanation, not a sample of at most 200.")
@click.option(
    "--explain/--no-explain", default=True, show_default=True, help="Decode the explanations that are not there yet."
)
@verdict_options
@click.option("--json", "as_json", is_flag=True, help="Print the gaps as JSON.")
@click.pass_context
def command(ctx: click.Context, /, run: Path, **options: Any) -> None:
    """Name the capabilities that recur in the explanations of low scores, for each gap of the run in folder RUN.

    Each comes with its evidence: how many rows' explanations name it, which, and up to three quotations. What it finds
    takes the place of an earlier analysis: with --subgoal, name every subgoal that shall stand. Stopped at any moment,
    the same command goes on where it was.

    \b
    Example:
      goalcover analyze runs/first
      goalcover analyze runs/first --all-low --json
    """
    from ..store import Run

    with Run.open(run, write=True) as opened, Models(options) as models:
        failures = analyze_run(opened, models, options)
        if options["as_json"]:
            click.echo(as_text(as_json(opened)))
        else:
            print_gaps(opened)
    leave(ctx, failures)


def leave(ctx: click.Context, failures: Counter[str]) -> None:
    """Nothing; tells what a model failed to answer, and leaves with code 3 if there was any."""
    if failures:
        for failure, n in failures.most_common():
            click.echo(f"{n} answer{'' if n == 1 else 's'} failed: {failure}.", err=True)
        click.echo("What failed is left out. The same command asks for it again.", err=True)
        ctx.exit(3)


def analyze_run(run: Run, models: Models, options: Mapping[str, Any]) -> Counter[str]:
    """Why answers of the analyst are missing, counted; the gaps are in the run."""
    import numpy as np

    from ..phases.analyze import analyze
    from ..phases.assess import EXPLAINED_PER_SUBGOAL, low_rows
    from .explaining import distinct, explain_missing, unexplained
    from .results import ANALYZED, results, settings
    from .shown import tell_unfinished

    analyst_card(run, options["analyst"])
    found = results(run, value=options["value"], tau=options["tau"], rule=options["rule"])
    tell_unfinished(found)
    columns = _columns(found, options["only"])
    values, samples = found.values[found.value], run.row_samples(found.positions)
    assessed = settings(run)
    seed = assessed["seed"]
    low = {column: low_rows(values[:, column], most=None, seed=seed) for column in columns}
    some = {column: low_rows(values[:, column], most=EXPLAINED_PER_SUBGOAL, seed=seed) for column in columns}
    # What is read unless all are comes first, so that its batches are the same however much is read later.
    plans = [some, {column: np.setdiff1d(low[column], some[column]) for column in columns if options["all_low"]}]
    wanted = [{column: distinct(run, found, rows) for column, rows in plan.items()} for plan in plans]
    lacking = [
        (plan, column) for plan in wanted for column in plan if unexplained(run, found, column, plan[column]).any()
    ]
    if lacking and options["explain"]:
        judge = models.judge_of(found.identity, found.judge)
        for plan in wanted:
            explain_missing(run, judge, found, plan)
    n_unexplained = sum(int(unexplained(run, found, column, plan[column]).sum()) for plan, column in lacking)
    asker: Asker | None = None
    gaps: list[Gap] = []
    for column in columns:
        asker = asker or analyst_of(run, models, options["analyst"])
        covered = found.coverage[column]
        rows_of = Counter(samples[low[column]].tolist())
        held = {sample.digest: n for sample, n in zip(run.samples(rows_of), rows_of.values(), strict=True)}
        read = np.concatenate([plan[column] for plan in wanted if column in plan])
        chosen = {sample.digest for sample in run.samples(samples[read])}
        told = run.explanations(found.judge, covered.subgoal.digest)
        gaps.append(analyze(asker, covered.subgoal, covered, held, [each for each in told if each.sample in chosen]))
    run.put_gaps(gaps)
    failures = asker.failures if asker else Counter[str]()
    if n_unexplained and options["explain"]:
        failures["the judge wrote no legal explanation"] += n_unexplained
    details = {
        **{name: assessed[name] for name in ("judge", "goal", "data", "seed", "limit")},
        "value": found.value,
        "tau": found.tau,
        "rule": found.rule,
        "analyst": asker.digest if asker else "",
        "gaps": [gap.subgoal for gap in gaps],
        "n_judged": sum(covered.n_judged for covered in found.coverage),
        "n_failed": failures.total(),
    }
    run.event(ANALYZED, details, "goalcover analyze")
    return failures


def analyst_card(run: Run, name: str | None) -> Card:
    """The card of the model that reads and writes for a run: the one named, or its judge's. Raises ModelError."""
    from ..cards import load_card
    from .results import identity

    return load_card(name) if name else run_card(identity(run))


def analyst_of(run: Run, models: Models, name: str | None) -> Asker:
    """The model that reads and writes for a run: the card named, or the run's judge."""
    memory = run.memory()
    return models.asker(analyst_card(run, name), memory, memory.keep)


def _columns(found: Results, only: Sequence[str]) -> list[int]:
    """The columns of the subgoals to analyze: those named, else the gaps. Raises UsageError for an unknown name."""
    ids = [covered.subgoal.id for covered in found.coverage]
    unknown = sorted(set(only) - set(ids))
    if unknown:
        raise click.UsageError(f"The run has no subgoal {unknown[0]!r}. It has {', '.join(ids)}.")
    if only:
        return [column for column, name in enumerate(ids) if name in only]
    return [column for column, covered in enumerate(found.coverage) if covered.verdict == "gap"]


def as_json(run: Run) -> dict[str, Any]:
    """The gaps of a run as plain values; samples are named by the ids of their rows."""
    gaps = run.gaps()
    return {"run": str(run.folder), "gaps": [_gap_json(gap, run.row_ids(_digests(gap))) for gap in gaps]}


def _gap_json(gap: Gap, ids: Mapping[str, str]) -> dict[str, Any]:
    def told(found: Sequence[MissingCapability]) -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "n_rows": each.n_rows,
                "ids": [ids[sample] for sample in sorted(each.samples, key=place.__getitem__)],
                "quotations": [{"id": ids[sample], "text": text} for sample, text in each.quotations],
            }
            for each in found
        ]

    place = {sample: n for n, sample in enumerate(ids)}
    counts = {name: getattr(gap, name) for name in ("n_judged", "n_support", "n_low", "n_explained")}
    return {
        "subgoal": gap.subgoal,
        "absent": gap.absent,
        **counts,
        "missing": told(gap.missing),
        "instead": told(gap.instead),
    }


def _digests(gap: Gap) -> list[str]:
    return sorted({sample for each in (*gap.missing, *gap.instead) for sample in each.samples})


def print_gaps(run: Run) -> None:
    """Nothing; prints the gaps of a run, each capability with its evidence."""
    from .results import analyzed
    from .table import print_table
    from .terminal import counted, plain

    gaps = run.gaps()
    names = {subgoal.id: subgoal for subgoal in run.goal().subgoals}
    if not gaps:
        click.echo("No gap: every subgoal is covered or undecided (see `goalcover show`).")
        if undecided := [each.subgoal.id for each in analyzed(run).coverage if each.verdict == "undecided"]:
            click.echo(
                f"Undecided: {', '.join(undecided)}. Judge more rows, or look closer with `goalcover analyze "
                f"{shlex.quote(str(run.folder))} --subgoal {undecided[0]}`."
            )
    for gap in gaps:
        subgoal = names[gap.subgoal]
        ids = run.row_ids(_digests(gap))
        click.echo(f"\n{plain(subgoal.name)} ({gap.subgoal})")
        if gap.absent and gap.n_judged:
            told = f"Wholly absent: no row reaches support, of {gap.n_judged}"
        else:
            told = f"{gap.n_support} of {gap.n_judged} rows reach support"
        click.echo(
            f"{told} (target {100 * subgoal.target_share:g}%). {counted(gap.n_low, 'row')} scored low, "
            f"{counted(gap.n_explained, 'explanation')} read."
        )
        if not gap.missing:
            click.echo(
                "They name no capability that recurs." if gap.n_explained else "No explanation was there to read."
            )
        rows = []
        for each in gap.missing:
            sample, quotation = each.quotations[0]
            rows.append([plain(each.name), str(each.n_rows), f"“{plain(quotation)}” ({plain(ids[sample])})"])
        if rows:
            print_table(["missing", "rows that say so", "for example"], rows, right=(1,))
        if gap.instead:
            told = ", ".join(f"{plain(each.name)} ({each.n_rows})" for each in gap.instead)
            click.echo(f"In its place: {told}.")
