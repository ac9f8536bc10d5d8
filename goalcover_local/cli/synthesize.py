"""`goalcover synthesize`: samples written for the gaps of a run, graded, judged, ranked, refined, kept or not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .judging import Models, engine_options
from .table import as_text

if TYPE_CHECKING:
    from ..cards import Card
    from ..duplicates import Known
    from ..judges import Judge
    from ..phases.synthesize import Commission
    from ..readers import Layout
    from ..store import Keys, Run
    from ..terms import Candidate, Gap, Sample, Subgoal
    from .results import Results

SYNTHESIZED = "synthesis ended"


@click.command("synthesize", short_help="Have samples written for the gaps of a run, and keep what is good.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-n", "n_wanted", type=click.IntRange(1), help="Samples to keep for each gap; as many as it lacks if not given."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write what is kept, in the form of the data.")
@click.option("--generator", help="The card of the model that writes; the run's judge if not given.")
@click.option("--discriminator", help="The card of the model that grades; the generator if not given.")
@engine_options
@click.option("--subgoal", "only", multiple=True, help="Write for this subgoal alone. May be repeated.")
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
    run's judge scores the subgoal. What falls short is refined with the criticism, up to --rounds times.

    \b
    Example:
      goalcover synthesize runs/first -n 20 -o synthetic.jsonl
      goalcover synthesize runs/first --subgoal heart --generator qwen2.5-coder-1.5b-instruct --holdout test.jsonl
    """
    from ..store import Run
    from .analyze import leave

    with Run.open(run, write=True) as opened:
        with Models(options) as models:
            failures = _synthesize_run(opened, models, options)
        if options["output"]:
            _write(opened, options["output"])
        if options["as_json"]:
            click.echo(as_text(as_json(opened)))
        else:
            _print_candidates(opened)
    leave(ctx, failures)


def _synthesize_run(run: Run, models: Models, options: Mapping[str, Any]) -> Counter[str]:
    """Why answers of the models are missing, counted; the candidates are in the run."""
    from ..cards import load_card
    from ..discriminator import Discriminator
    from ..errors import StoreError
    from ..phases.synthesize import prepare, synthesize
    from ..readers import layout_from
    from .judging import run_card
    from .progress import progress
    from .results import analyzed

    found = analyzed(run)
    origin = run.origin()
    if origin is None:
        raise StoreError(
            f"The run {run.folder} does not say how its data were read.", "Run the same `goalcover assess` once more."
        )
    layout = layout_from(origin.layout)
    gaps = _chosen(run.gaps(), options["only"])
    judged_by = run_card(found.identity)
    writer = load_card(options["generator"]) if options["generator"] else judged_by
    grader = load_card(options["discriminator"]) if options["discriminator"] else writer
    if not gaps:
        return Counter()
    _tell_models(writer, grader, judged_by)
    memory = run.memory()
    generator = models.asker(writer, memory, memory.keep)
    discriminator = Discriminator(generator if grader == writer else models.asker(grader, memory, memory.keep))
    judge = models.judge_of(found.identity, found.judge)
    if not discriminator.fit:
        click.echo(
            f"{grader.name} is not fit to grade: its grades of our own samples go with ours at "
            f"{discriminator.scale.agreement:.2f} only. Check what is kept, or name another with --discriminator.",
            err=True,
        )
    for gap in gaps:
        commission = _commission(run, found, layout, gap, options)
        prepare(commission, generator)
        known = _known(run, layout, options["holdout"])
        drafts = _drafts(layout, options["drafts"])
        align = _aligner(run, found, judge, commission.subgoal)
        candidates: list[Candidate] = []
        with progress(f"Writing for {gap.subgoal}", commission.n, "kept samples") as bar:
            for wave in synthesize(commission, generator, discriminator, align, known, drafts):
                candidates += wave
                run.put_candidates(gap.subgoal, candidates)
                bar.advance(sum(each.fate == "kept" for each in wave))
        details: dict[str, Any] = {
            "subgoal": gap.subgoal,
            "generator": generator.digest,
            "discriminator": discriminator.asker.digest,
            "judge": found.judge,
            "seed": options["seed"],
        }
        details |= Counter(each.fate for each in candidates)
        run.event(SYNTHESIZED, details, "goalcover synthesize")
    return generator.failures + (Counter() if grader == writer else discriminator.asker.failures)


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


def _tell_models(writer: Card, grader: Card, judge: Card) -> None:
    same = "the same model: it may favour its own samples" if writer == grader else "different models"
    click.echo(f"Generator {writer.name}, discriminator {grader.name} ({same}), judge {judge.name}.", err=True)


def _commission(run: Run, found: Results, layout: Layout, gap: Gap, options: Mapping[str, Any]) -> Commission:
    """What is to be written for a gap: its focuses, topics from the data, and rows of the data that show the form."""
    import numpy as np

    from ..phases.synthesize import Commission, topic
    from ..stats import rows_to_share

    column = next(place for place, each in enumerate(found.coverage) if each.subgoal.id == gap.subgoal)
    subgoal = found.coverage[column].subgoal
    n_hits = round(gap.n_support / gap.n_judged * run.n_rows()) if gap.n_judged else 0
    n = options["n_wanted"] or max(1, rows_to_share(n_hits, run.n_rows(), subgoal.target_share))
    order = np.random.default_rng(options["seed"]).permutation(len(found.positions))
    keys = list(dict.fromkeys(run.row_samples(found.positions)[order].tolist()))
    topics = list(dict.fromkeys(topic(sample.input or sample.output) for sample in run.samples(keys[: 8 * n])))
    return Commission(
        subgoal=subgoal,
        n=n,
        layout=layout,
        focuses=[each.name for each in gap.missing] or [subgoal.name],
        topics=topics,
        examples=_examples(run, found, layout, column),
        rounds=options["rounds"],
        seed=options["seed"],
        least=options["least"],
        max_tokens=options["max_tokens"],
    )


def _examples(run: Run, found: Results, layout: Layout, column: int) -> list[tuple[Subgoal, Mapping[str, str]]]:
    """Rows of the data as texts by column, each with the subgoal that it supports best: the gap's own last."""
    import numpy as np

    from ..phases.synthesize import EXAMPLES, LONGEST_EXAMPLE
    from ..readers import written_texts
    from ..terms import SUPPORT_AT

    values = np.nan_to_num(found.values[found.value], nan=-1.0)
    texts = _texts_at(run, found.positions, layout, written_texts)
    shown: list[tuple[Subgoal, Mapping[str, str]]] = []
    others = [place for place in range(values.shape[1]) if place != column]
    for place in [*others, column]:
        best = sorted(range(len(values)), key=lambda row, place=place: (-values[row, place], row))  # type: ignore[misc]
        for row in best[:50]:
            if values[row, place] < SUPPORT_AT - 1e-9:
                break
            written = texts.get(int(found.positions[row]))
            if written and sum(map(len, written.values())) <= LONGEST_EXAMPLE:
                shown.append((found.goal.subgoals[place], written))
                break
    return shown[-EXAMPLES:]


def _texts_at(
    run: Run, positions: Keys, layout: Layout, read: Callable[[Layout, Sample], Mapping[str, str] | None]
) -> dict[int, Mapping[str, str]]:
    """The rows at these positions as texts by column; those that cannot be written anew are left out."""
    wanted = set(positions.tolist())
    found = {place: read(layout, row) for place, row in enumerate(run.rows()) if place in wanted}
    return {place: texts for place, texts in found.items() if texts}


def _known(run: Run, layout: Layout, holdout: Path | None) -> Known:
    """What must not be repeated: the rows of the data, and those of a held-out file."""
    from ..duplicates import Known
    from ..terms import Sample

    known = Known()
    known.add("row", run.rows())
    if holdout:
        known.add("held-out row", [row for row in _read_like(holdout, layout) if isinstance(row, Sample)], inputs=True)
    return known


def _read_like(path: Path, layout: Layout) -> Iterator[Any]:
    """The rows of another file that is read as the data were, in its own format."""
    from dataclasses import replace

    from ..formats import format_of
    from ..readers import read

    yield from read(path, replace(layout, format=format_of(path, None), id_column=None, split=None))


def _drafts(layout: Layout, path: Path | None) -> list[Mapping[str, str]]:
    """Rows written elsewhere, as texts by column; tells how many cannot be used."""
    from ..readers import written_texts
    from ..terms import Refusal

    if path is None:
        return []
    drafts = []
    for row in _read_like(path, layout):
        texts = None if isinstance(row, Refusal) else written_texts(layout, row)
        if texts is None:
            reason = row.reason if isinstance(row, Refusal) else "a column is empty or no text"
            click.echo(f"  refused {row.source}:{row.line}: {reason}", err=True)
        else:
            drafts.append(texts)
    return drafts


def _aligner(
    run: Run, found: Results, judge: Judge, subgoal: Subgoal
) -> Callable[[Sequence[Sample]], Sequence[float | None]]:
    """The judge's value of samples for a subgoal: asked where it is not stored, stored, and read back."""
    import numpy as np

    from ..phases.assess import assess
    from ..scales import reference_subgoals
    from .results import values_of

    column = found.goal.subgoals.index(subgoal)
    asked = [subgoal, *(reference_subgoals() if found.value == "corrected" else [])]

    def align(samples: Sequence[Sample]) -> Sequence[float | None]:
        keys = run.put_samples(samples)
        missing = run.missing(found.judge, [each.digest for each in asked], keys)
        for batch in assess(judge, missing, lambda rows: run.samples(keys[rows]), asked, run.asking):
            run.append(found.judge, batch.judgements, batch.explanations, batch.truncations.items())
            run.count("device_seconds", batch.seconds)
            run.count("n_tokens", batch.n_tokens)
        _, _, values = values_of(run, found.goal, found.judge, keys)
        return [None if np.isnan(value) else float(value) for value in values[found.value][:, column]]

    return align


def _write(run: Run, output: Path) -> None:
    """Nothing; writes the fields of what was kept, a JSON object a line, for its owner alone."""
    from .export import private

    with private(output) as stream:
        for each in run.candidates():
            if each.fate == "kept":
                stream.write(json.dumps(each.fields, ensure_ascii=False) + "\n")


def as_json(run: Run) -> dict[str, Any]:
    """Every candidate of a run as plain values, with its provenance."""
    told = [
        {
            "subgoal": each.subgoal,
            "id": each.sample.id,
            "fields": each.fields,
            "number": each.number,
            "round": each.round,
            "quality": each.quality,
            "alignment": each.alignment,
            "rank": each.rank,
            "fate": each.fate,
            "reason": each.reason,
            "feedback": each.feedback,
            "provenance": each.provenance,
        }
        for each in run.candidates()
    ]
    return {"run": str(run.folder), "candidates": told}


def _print_candidates(run: Run) -> None:
    """Nothing; prints what became of the candidates, by subgoal, and what those kept do for it."""
    from .results import analyzed
    from .table import print_table

    found = analyzed(run)
    covered = {each.subgoal.id: each for each in found.coverage}
    candidates = run.candidates()
    if not candidates:
        click.echo("No gap, so nothing was written.")
        return
    rows = []
    for name in dict.fromkeys(each.subgoal for each in candidates):
        mine = [each for each in candidates if each.subgoal == name]
        kept = [each for each in mine if each.fate == "kept"]
        fates = Counter(each.fate for each in mine)
        n_hits = sum(each.alignment is not None and each.alignment >= 0.6 - 1e-9 for each in kept)
        before = covered[name]
        n, hits = before.n_judged, before.n_support
        rows.append(
            [
                name,
                str(len(mine)),
                *(str(fates[fate]) for fate in ("kept", "rejected", "refused")),
                f"{hits} of {n} ({100 * hits / max(1, n):.1f}%)",
                f"{hits + n_hits} of {n + len(kept)} ({100 * (hits + n_hits) / max(1, n + len(kept)):.1f}%)",
            ]
        )
    header = ["subgoal", "written", "kept", "rejected", "refused", "support", "with what is kept"]
    print_table(header, rows, right=(1, 2, 3, 4))
    for reason, n in Counter(_kind(each) for each in candidates if each.fate != "kept").most_common(8):
        click.echo(f"  {n} {reason}")


def _kind(candidate: Candidate) -> str:
    """A reason without its numbers and ids, for counting."""
    if candidate.fate == "refused":
        return "refused as near-duplicates"
    return f"rejected: {candidate.reason.split(' ')[0]} too low" if "<" in candidate.reason else candidate.reason
