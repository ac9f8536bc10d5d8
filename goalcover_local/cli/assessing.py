"""What every command that judges rows does: take the data in, judge what is missing, keep the judge's scale."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .refusals import tell_refusals

if TYPE_CHECKING:
    from ..cards import Card
    from ..judges import Batch, Judge
    from ..readers import Layout
    from ..scales import Scale
    from ..store import Keys, Origin, Run
    from ..terms import Goal, Refusal, Sample, Subgoal
    from .judging import Command, Models

_DATA = (
    click.option("--input-column", help="Column(s) that make the input, comma-separated."),
    click.option("--output-column", help="Column(s) that make the output, comma-separated."),
    click.option("--template", help="The input made from columns, such as '{title}: {body}'."),
    click.option("--id-column", help="Column that names a row."),
    click.option("--format", "file_format", help="The data's format, where the file's name does not tell."),
    click.option("--split", help="Which split of a datasets folder."),
)


_STOP = (
    click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="Stop, resumable, after this long."),
    click.option("--retry-failed", is_flag=True, help="Ask again for judgements that failed."),
)


def stop_options(command: Command) -> Command:
    """The command with the options that say when it stops, and whether it asks again what failed."""
    for option in reversed(_STOP):
        command = option(command)
    return command


def deadline(max_hours: float | None) -> float:
    """When, on the monotonic clock, --max-hours is over that begins now; never if it was not given."""
    return time.monotonic() + 3600 * max_hours if max_hours else float("inf")


def data_options(command: Command) -> Command:
    """The command with the options that say how its data are read."""
    for option in reversed(_DATA):
        command = option(command)
    return command


def recognised(options: Mapping[str, Any]) -> tuple[Layout, Origin]:
    """How the data are read, and where they come from; says so. Raises DataError as `readers.recognise` does."""
    from ..formats import content_digest
    from ..readers import recognise
    from ..store import Origin

    names = ("input_column", "output_column", "template", "id_column", "split")
    layout = recognise(options["data"], format=options["file_format"], **{name: options[name] for name in names})
    click.echo(layout.describe(), err=True)
    return layout, Origin(str(options["data"].absolute()), content_digest(options["data"]), asdict(layout))


def take_in(run: Run, layout: Layout, origin: Origin, data: Path) -> None:
    """Nothing; the run holds the rows, and what was refused is told. Raises DataError if no row can be used."""
    from ..purging import give_again, is_purged
    from ..readers import read
    from ..terms import digest_of

    digest = digest_of([origin.content, repr(layout)])
    counts = run.put_rows(some_usable(read(data, layout), data), digest, origin)
    if is_purged(run):
        click.echo(f"{give_again(run, read(data, layout))} rows that were purged have their texts again.", err=True)
    n_refused = counts.refusals
    click.echo(
        f"{counts.rows + n_refused} rows in, {counts.rows} used ({counts.samples} different), {n_refused} refused.",
        err=True,
    )
    tell_refusals(run.refusals(), "; they are stored with the run.")


def some_usable(rows: Iterator[Sample | Refusal], data: Path) -> Iterator[Sample | Refusal]:
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


def references(value: str) -> tuple[list[Subgoal], list[Sample]]:
    """Reference subgoals and samples: only the corrected value needs them, and whoever reasons first pays dearly."""
    from ..scales import reference_samples, reference_subgoals

    return (reference_subgoals(), reference_samples()) if value == "corrected" else ([], [])


def assess_goal(
    run: Run,
    goal: Goal,
    models: Models,
    cards: Sequence[Card],
    options: Mapping[str, Any],
    rows: Sequence[int] | None = None,
) -> bool:
    """Whether every judge has finished, and was not stopped by --max-hours.

    Judged are the rows at these positions; without them, those that the options' seed and limit draw.
    """
    import numpy as np

    from .explaining import explain_missing, low_samples, unexplained
    from .results import STARTED, results

    ends = deadline(options["max_hours"])
    value = value_for(cards, options)
    panel: list[str] = []
    for card in cards:
        if panel:
            models.close()
        judge = models.judge(card)
        panel.append(introduce(run, goal, judge, value))
        details = {
            "judge": panel[0],
            **({"panel": list(panel), "aggregate": options["aggregate"]} if len(panel) > 1 else {}),
            "goal": goal.digest,
            "data": run.data_digest(),
            "seed": options["seed"],
            "limit": options["limit"] or 0,
            "value": value,
            "tau": goal.tau if options["tau"] is None else options["tau"],
            **({} if rows is None else {"rows": list(rows)}),
        }
        run.event(STARTED, details, f"goalcover {click.get_current_context().info_name}")
        positions = run.draw(options["seed"], options["limit"]) if rows is None else np.array(rows, dtype=np.int64)
        if not judge_samples(
            run, goal, judge, run.distinct(positions), value=value, retry_failed=options["retry_failed"], ends=ends
        ):
            return False
    if len(cards) > 1:
        models.close()
    if options["explain"] == "none":
        return True
    found = results(run, value=options["value"], tau=options["tau"])
    low = low_samples(run, found, all_rows=options["explain"] == "all", seed=options["seed"])
    if found.panel and not any(unexplained(run, found, column, rows).any() for column, rows in low.items()):
        return True
    return explain_missing(run, models.judge(cards[0]), found, low, ends)


def value_for(cards: Sequence[Card], options: Mapping[str, Any]) -> str:
    """The value that was asked for, else the one that every card prefers, else the expectation, which all have."""
    preferred = {card.value for card in cards}
    return str(options["value"] or (preferred.pop() if len(preferred) == 1 else "expectation"))


def introduce(run: Run, goal: Goal, judge: Judge, value: str) -> str:
    """The judge's digest; the run now knows the judge, its scale if the value needs one, and all that will be asked."""
    digest = run.put_judge(dict(judge.identity))
    from ..decisions import note_acceptances

    aliens, _ = references(value)
    if aliens:
        run.put_scale(digest, _scale(judge).record())
    run.put_goal(goal)
    note_acceptances(run, goal, f"goalcover {click.get_current_context().info_name}")
    run.put_subgoals(aliens)
    return digest


def judge_samples(
    run: Run,
    goal: Goal,
    judge: Judge,
    samples: Keys,
    *,
    value: str,
    retry_failed: bool = False,
    ends: float = float("inf"),
) -> bool:
    """Whether every sample has been judged, and not stopped at `ends` on the monotonic clock.

    The judge was introduced. Samples are judged in their order, those that measure a subgoal's bias before them.
    """
    import numpy as np

    from ..phases.assess import assess
    from .progress import progress

    aliens, ground = references(value)
    plan = np.concatenate([run.put_samples(ground), samples])
    asked = [*goal.subgoals, *aliens]
    missing = run.missing(judge.digest, [s.digest for s in asked], plan, retry_failed=retry_failed)
    n_own = len(goal.subgoals)
    if not missing.all():
        click.echo(f"{int((~missing[:, :n_own]).sum())} of {len(plan) * n_own} pairs are stored already.", err=True)
    own = {subgoal.digest for subgoal in goal.subgoals}
    batches = assess(judge, missing, lambda rows: run.samples(plan[rows]), asked, run.asking)
    finished, n_disagree = True, 0
    with progress("Judging", int(missing[:, :n_own].sum()), "pairs") as bar:
        for batch in batches:
            _store(run, judge.digest, batch)
            n_disagree += batch.n_disagree
            ours = [j for j in batch.judgements if j.subgoal in own]
            bar.advance(len(ours), sum(j.failure is not None for j in ours))
            if time.monotonic() > ends:
                finished = not run.missing(judge.digest, [s.digest for s in asked], plan).any()
                break
    if judge.decode == "grammar" or judge.order == "reason-first":
        click.echo(f"Decoded anchor and most probable anchor disagree in {n_disagree} answers.", err=True)
    for name, told in judge.engine.report().items():
        click.echo(f"{name}: {told}", err=True)
    return finished


def tell_cost(
    goal: Goal, cards: Sequence[Card], samples: Sequence[Sample], value: str, options: Mapping[str, Any]
) -> None:
    """Nothing; prints exact token counts, the rate measured on a few samples, and the time that judging would take."""
    from .judging import Models
    from .progress import duration

    aliens, ground = references(value)
    asked = [*goal.subgoals, *aliens]
    click.echo(f"rows to judge        {len(samples)} different samples x {len(goal.subgoals)} subgoals")
    click.echo(f"reference            {len(aliens)} subgoals a sample, {len(ground)} samples")
    for card in cards:
        with Models(options) as models:
            judge = models.judge(card)
            sent, unique = judge.tokens([*ground, *samples], asked)
            batch = judge.judge([(sample, subgoal) for sample in samples[:4] for subgoal in asked])
        rate = batch.n_tokens / batch.seconds
        writes = judge.decode == "grammar" or judge.order == "reason-first"
        # What is written, and what a server remembers, does not show in prompts' tokens: then pairs are the measure.
        by_pairs = batch.seconds / len(batch.judgements) * (len(samples) + len(ground)) * len(asked)
        seconds = by_pairs if writes or options["engine"] == "server" else unique / rate
        if len(cards) > 1:
            click.echo(f"judge                {card.name}")
        click.echo(f"tokens as prompts    {sent}")
        click.echo(f"tokens once shared   {unique}")
        click.echo(f"measured rate        {rate:.0f} tokens a second")
        click.echo(f"time, explanations apart   about {duration(seconds)}")


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
