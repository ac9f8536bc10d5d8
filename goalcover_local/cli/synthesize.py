"""`goalcover synthesize`: samples written for the gaps of a run, graded, judged, ranked, refined, kept or not."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..outputs import FORMATS
from .judging import Models, engine_options
from .refusals import tell_refusals
from .selecting import data_option
from .table import as_text
from .written import as_json, checked_output, print_candidates, write_output
from .written import candidates as candidates_of

if TYPE_CHECKING:
    from ..cards import Card
    from ..discriminator import Discriminator
    from ..duplicates import Known
    from ..judges import Judge
    from ..phases.synthesize import Commission
    from ..readers import Layout
    from ..store import Run
    from ..terms import Candidate, Gap, Refusal, Sample, Subgoal
    from .results import Results

SYNTHESIZED = "synthesis ended"
_LOOKED_AT = 50
"""Rows of a subgoal that are looked at for one that is short enough to be an example."""


@click.command("synthesize", short_help="Have samples written for the gaps of a run, and keep what is good.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-n", "n_wanted", type=click.IntRange(1), help="Samples to keep for each gap; as many as it lacks if not given."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write what is kept, in the columns of the data. Its suffix names the format; without one it is a folder of "
    "`datasets`.",
)
@click.option("--format", "file_format", type=click.Choice(FORMATS), help="The format, where the name does not tell.")
@data_option
@click.option("--generator", help="The card of the model that writes; the run's judge if not given.")
@click.option("--discriminator", help="The card of the model that grades; the generator if not given.")
@engine_options
@click.option(
    "--subgoal",
    "only",
    multiple=True,
    help="Write for this subgoal alone, and to -o what was kept for it. May be repeated.",
)
@click.option("--rounds", type=click.IntRange(0), default=1, show_default=True, help="How often a draft is refined.")
@click.option(
    "--least",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="The least grade and alignment of what is kept.",
)
@click.option("--holdout", type=click.Path(path_type=Path), help="A file of held-out rows that must not be repeated.")
@click.option(
    "--drafts", type=click.Path(path_type=Path), help="Rows written elsewhere, to be graded first, as if written here."
)
@click.option("--max-tokens", type=click.IntRange(16), default=256, show_default=True, help="The longest sample.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes topics and sampling.")
@click.option("--json", "as_json", is_flag=True, help="Print every candidate as JSON.")
@click.pass_context
def command(ctx: click.Context, /, run: Path, **options: Any) -> None:
    """Have samples written for the gaps that `goalcover analyze` found in folder RUN.

    A generator writes in the form of the data. Near-duplicates of the data, of each other and of --holdout are refused.
    A discriminator grades the rest in correctness, completeness and faithfulness and ranks them against each other; the
    run's judge scores the subgoal. What is on its subgoal and falls short in a grade is refined with the criticism, up
    to --rounds times.

    The same command goes on where it was stopped. A new synthesis replaces the earlier one of that subgoal.

    \b
    Example:
      goalcover synthesize runs/first -n 20 -o synthetic.jsonl
      goalcover synthesize runs/first --subgoal heart --generator qwen2.5-coder-1.5b-instruct --holdout test.jsonl
    """
    from ..errors import StoreError
    from ..readers import layout_from
    from ..store import Run
    from .analyze import leave
    from .results import analyzed

    with Run.open(run, write=True) as opened:
        found = analyzed(opened)
        gaps = _chosen(opened.gaps(), options["only"])
        origin = opened.origin()
        if origin is None:
            raise StoreError(
                f"The run {run} does not say how its data were read.", "Run the same `goalcover assess` once more."
            )
        layout = layout_from(origin.layout)
        output = checked_output(opened, origin, layout, options)
        failures = _synthesize_run(opened, found, layout, gaps, options) if gaps else Counter[str]()
        if output:
            write_output(opened, output, options["only"])
        if options["as_json"]:
            click.echo(as_text(as_json(opened)))
        else:
            print_candidates(opened, found)
    leave(ctx, failures)


def _synthesize_run(
    run: Run, found: Results, layout: Layout, gaps: Sequence[Gap], options: Mapping[str, Any]
) -> Counter[str]:
    """Why answers of the models are missing, counted; the candidates are in the run."""
    from ..cards import load_card
    from ..discriminator import Discriminator
    from ..phases.synthesize import prepare, synthesize
    from .judging import run_card
    from .progress import progress

    judged_by = run_card(found.identity)
    _refuse_panel_value(run, found)
    writer = load_card(options["generator"]) if options["generator"] else judged_by
    grader = load_card(options["discriminator"]) if options["discriminator"] else writer
    drafts = _drafts(layout, options["drafts"])
    shown = _shown(found)
    known, rows = _known(run, gaps, _holdout(layout, options["holdout"]), shown)
    _tell_models(writer, grader, judged_by)
    if found.panel:
        click.echo(f"Of the panel {judged_by.name} alone, which is its first, judges what is written.", err=True)
    failures: Counter[str] = Counter()
    with Models(options) as models:
        memory = run.memory()
        generator = models.asker(writer, memory, memory.keep)
        discriminator = Discriminator(generator if grader == writer else models.asker(grader, memory, memory.keep))
        judge = models.judge_of(found.identity, found.judge)
        _tell_fitness(grader, discriminator)
        for gap in gaps:
            column = next(place for place, each in enumerate(found.coverage) if each.subgoal.id == gap.subgoal)
            examples = _examples(found, layout, shown, rows, column)
            commission = _commission(run, found, layout, gap, column, examples, options)
            prepare(commission, generator)
            align = _aligner(run, found, judge, column, failures)
            _tell_replaced(run, gap.subgoal)
            candidates: list[Candidate] = []
            with progress(f"Writing for {gap.subgoal}", commission.n, "kept samples") as bar:
                for wave in synthesize(commission, generator, discriminator, align, known, drafts):
                    if wave:
                        run.put_candidates(gap.subgoal, wave, start=len(candidates))
                    candidates += wave
                    bar.advance(sum(each.fate == "kept" for each in wave))
            details: dict[str, Any] = {
                "subgoal": gap.subgoal,
                "generator": generator.digest,
                "discriminator": discriminator.asker.digest,
                "agreement": round(discriminator.agreement, 4),
                "fit": discriminator.fit,
                "judge": found.judge,
                "seed": options["seed"],
            }
            details |= Counter(each.fate for each in candidates)
            run.event(SYNTHESIZED, details, "goalcover synthesize")
        return failures + generator.failures + (Counter() if grader == writer else discriminator.asker.failures)


def _chosen(gaps: Sequence[Gap], only: Sequence[str]) -> list[Gap]:
    """The gaps to write for. Raises UsageError for a subgoal that is no gap of the run."""
    ids = [gap.subgoal for gap in gaps]
    unknown = sorted(set(only) - set(ids))
    if unknown:
        told = f"Its gaps are {', '.join(ids)}." if ids else "It has none."
        raise click.UsageError(
            f"{unknown[0]!r} was not analyzed as a gap of the run. {told} `goalcover analyze --subgoal` takes any."
        )
    return [gap for gap in gaps if not only or gap.subgoal in only]


def _refuse_panel_value(run: Run, found: Results) -> None:
    """Raises StoreError if the value is of a whole panel: what is written is judged by the first of it alone."""
    from ..errors import StoreError

    if found.panel and found.value == "calibrated":
        raise StoreError(
            f"The gaps of {run.folder} are by a panel's calibrated values, which one judge alone cannot give.",
            f"Run `goalcover analyze {shlex.quote(str(run.folder))} --value expectation` first.",
        )


def _tell_models(writer: Card, grader: Card, judge: Card) -> None:
    same = "the same model: it may favour its own samples" if writer == grader else "different models"
    click.echo(f"Generator {writer.name}, discriminator {grader.name} ({same}), judge {judge.name}.", err=True)


def _tell_fitness(grader: Card, discriminator: Discriminator) -> None:
    """Nothing; warns of a discriminator whose grades are worth little or nothing."""
    if discriminator.scale is None:
        told = "it fails on our own samples or says the same of all of them. Nothing can be kept"
    elif not discriminator.fit:
        told = f"its grades of our own samples go with ours at {discriminator.agreement:.2f} only. Check what is kept"
    else:
        return
    click.echo(f"{grader.name} is not fit to grade: {told}; name another with --discriminator.", err=True)


def _tell_replaced(run: Run, subgoal: str) -> None:
    """Nothing; tells how many samples that were kept before will make room."""
    n = sum(each.subgoal == subgoal and each.fate == "kept" for each in run.candidates())
    if n:
        click.echo(f"{subgoal}: samples kept by an earlier synthesis, which this one replaces: {n}.", err=True)


def _commission(
    run: Run,
    found: Results,
    layout: Layout,
    gap: Gap,
    column: int,
    examples: Sequence[tuple[Subgoal, Mapping[str, str]]],
    options: Mapping[str, Any],
) -> Commission:
    """What is to be written for a gap: its focuses, topics from the data, and rows of the data that show the form."""
    import numpy as np

    from ..phases.recommend import Surroundings, missing_rows
    from ..phases.synthesize import Commission, topic

    covered = found.coverage[column]
    subgoal = covered.subgoal
    around = Surroundings(run.n_rows(), len(found.positions), n_idle=0, near=())
    n = options["n_wanted"] or max(1, missing_rows(gap, covered, around))
    order = np.random.default_rng(options["seed"]).permutation(len(found.positions))
    keys = list(dict.fromkeys(run.row_samples(found.positions)[order].tolist()))
    topics = list(dict.fromkeys(topic(sample.input or sample.output) for sample in run.samples(keys[: 8 * n])))
    return Commission(
        subgoal=subgoal,
        n=n,
        layout=layout,
        focuses=[each.name for each in gap.missing] or [subgoal.name],
        topics=topics,
        examples=examples,
        rounds=options["rounds"],
        seed=options["seed"],
        least=options["least"],
        max_tokens=options["max_tokens"],
    )


def _shown(found: Results) -> list[list[int]]:
    """For each subgoal the positions of rows that support it, the best first, from which its example may be taken."""
    import numpy as np

    from ..terms import SUPPORT_AT

    values = np.nan_to_num(found.values[found.value], nan=-1.0)
    best = np.argsort(-values, axis=0, kind="stable")[:_LOOKED_AT]
    return [
        [int(found.positions[row]) for row in rows if values[row, column] >= SUPPORT_AT - 1e-9]
        for column, rows in enumerate(best.T)
    ]


def _known(
    run: Run, gaps: Sequence[Gap], holdout: Sequence[Sample], shown: Sequence[Sequence[int]]
) -> tuple[Known, dict[int, Sample]]:
    """What must not be repeated, and the rows that may be shown, by position, of one reading of the data.

    It is the data, a held-out file, and what was kept for gaps that are not written for now.
    """
    from ..duplicates import Known
    from ..phases.synthesize import WRITTEN

    wanted = {position for positions in shown for position in positions}
    rows: dict[int, Sample] = {}

    def noted() -> Iterator[Sample]:
        for position, row in enumerate(run.rows()):
            if position in wanted:
                rows[position] = row
            yield row

    known = Known()
    known.add("row", noted())
    known.add("held-out row", holdout, inputs=True)
    now = {gap.subgoal for gap in gaps}
    known.add(WRITTEN, [e.sample for e in candidates_of(run) if e.fate == "kept" and e.subgoal not in now])
    return known, rows


def _examples(
    found: Results, layout: Layout, shown: Sequence[Sequence[int]], rows: Mapping[int, Sample], column: int
) -> list[tuple[Subgoal, Mapping[str, str]]]:
    """Rows of the data as texts by column, each with the subgoal that it supports best: the gap's own last."""
    from ..phases.synthesize import EXAMPLES, LONGEST_EXAMPLE
    from ..readers import written_texts

    examples = []
    for place in [*(place for place in range(len(shown)) if place != column), column]:
        texts = (written_texts(layout, rows[position]) for position in shown[place])
        short = next((each for each in texts if each and sum(map(len, each.values())) <= LONGEST_EXAMPLE), None)
        if short:
            examples.append((found.goal.subgoals[place], short))
    return examples[-EXAMPLES:]


def _read_like(path: Path, layout: Layout) -> Iterator[Sample | Refusal]:
    """The rows of another file that is read as the data were, in its own format."""
    from dataclasses import replace

    from ..formats import format_of
    from ..readers import read

    yield from read(path, replace(layout, format=format_of(path, None), id_column=None, split=None))


def _holdout(layout: Layout, path: Path | None) -> list[Sample]:
    """The rows of a held-out file; tells of those that cannot be read. Raises DataError if none can."""
    from ..errors import DataError
    from ..terms import Sample

    if path is None:
        return []
    rows = list(_read_like(path, layout))
    held = [row for row in rows if isinstance(row, Sample)]
    tell_refusals([row for row in rows if not isinstance(row, Sample)])
    if not held:
        raise DataError(
            f"No row of {path.name} can be read as the data were, so nothing would be held out.",
            f"It needs the data's layout: {layout.describe()}",
        )
    return held


def _drafts(layout: Layout, path: Path | None) -> list[Mapping[str, str]]:
    """Rows written elsewhere, as texts by column; tells of those that cannot be used."""
    from ..readers import written_texts
    from ..terms import Refusal

    drafts: list[Mapping[str, str]] = []
    refused: list[Refusal] = []
    unfit = "not one turn of the user and one of the assistant" if layout.turns else "a column is empty or no text"
    for row in _read_like(path, layout) if path else ():
        if isinstance(row, Refusal):
            refused.append(row)
        elif texts := written_texts(layout, row):
            drafts.append(texts)
        else:
            refused.append(Refusal(row.source, row.line, unfit))
    tell_refusals(refused)
    return drafts


def _aligner(
    run: Run, found: Results, judge: Judge, column: int, failures: Counter[str]
) -> Callable[[Sequence[Sample]], Sequence[float | None]]:
    """The judge's value of samples for a subgoal: asked where it is not stored, stored, and read back.

    What failed before is asked again, once; what fails now is counted in `failures`.
    """
    import numpy as np

    from ..phases.assess import assess
    from ..scales import reference_subgoals
    from .results import values_of

    source = found.calibration.source if found.calibration and found.value == "calibrated" else found.value
    asked = [found.goal.subgoals[column], *(reference_subgoals() if source == "corrected" else [])]
    tried: set[int] = set()

    def align(samples: Sequence[Sample]) -> Sequence[float | None]:
        keys = run.put_samples(samples)
        missing = run.missing(found.judge, [each.digest for each in asked], keys, retry_failed=True)
        missing[[key in tried for key in keys.tolist()]] = False
        tried.update(keys.tolist())
        for batch in assess(judge, missing, lambda rows: run.samples(keys[rows]), asked, run.asking):
            run.append(found.judge, batch.judgements, batch.explanations, batch.truncations.items())
            run.count("device_seconds", batch.seconds)
            run.count("n_tokens", batch.n_tokens)
            failures.update(each.failure for each in batch.judgements if each.failure)
        _, _, values = values_of(run, found.goal, found.judge, keys)
        return [None if np.isnan(value) else float(value) for value in values[found.value][:, column]]

    return align
