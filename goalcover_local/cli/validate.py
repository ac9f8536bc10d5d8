"""`goalcover validate`: does a judge notice when what teaches a capability is removed? The paper's sections 4 and 5."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .assessing import assess_goal, some_usable, take_in, tell_cost, value_for
from .drawing import Drawing, data_given, drawing_of, folder_of, study_options, tell_drawing
from .judging import Models, panel_options, verified_cards
from .table import as_text, print_table

if TYPE_CHECKING:
    import numpy as np

    from ..cards import Card
    from ..readers import Layout
    from ..store import Run
    from ..studies.corruption import Corruption, Measure
    from ..studies.removals import Study
    from .results import Results

VALIDATED = "validation ended"
FIGURE = "validation.svg"


@click.command("validate", short_help="Remove what teaches a capability, and see whether a judge notices.")
@study_options
@panel_options
@click.option(
    "--value",
    type=click.Choice(["score", "expectation", "corrected", "calibrated"]),
    help="Which number stands for a judgement; the card's choice if not given.",
)
@click.option("--recommend", is_flag=True, help="Analyze the data left by each removal and say what would mend them.")
@click.option("--analyst", help="With --recommend: the model that reads and writes; the judge if not given.")
@click.option("--dry-run", is_flag=True, help="Tell what would be drawn and how long judging takes; judge nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Judge DATA once, then take out the rows that teach a subgoal and see whether its alignment falls, and no other's.

    STUDY is medical, legal or code (the paper's removals, for data like PubMedQA, bills and CodeAlpaca), or a
    study.toml of your own: a goal, and what to remove for which subgoal. Each drop is held against random removals of
    as many rows. The run folder keeps validation.json, validation.md and validation.svg.

    \b
    Example:
      goalcover validate medical ori_pqal.json --judge prometheus-7b-v2.0 --rows 400
      goalcover validate study.toml data.jsonl --run runs/trust --recommend
    """
    from ..store import Run
    from ..studies.removals import find_study, read_study

    study = read_study(find_study(options["study"]))
    cards = verified_cards(options)
    layout, origin = data_given(study, options)
    if options["dry_run"]:
        _dry_run(study, cards, layout, options)
        return
    with Run.open(folder_of(study, options), write=True, create=True) as run, Models(options) as models:
        take_in(run, layout, origin, options["data"])
        drawing = drawing_of(study, list(run.rows()), options)
        tell_drawing(drawing)
        chosen = {**options, "limit": None, "tau": None, "explain": "none"}
        chosen["value"] = None if options["value"] == "calibrated" else options["value"]
        rows = None if len(drawing.judged) == run.n_rows() else drawing.judged.tolist()
        finished = assess_goal(run, study.goal, models, cards, chosen, rows)
        if not finished:
            click.echo("Stopped by --max-hours. The same command goes on from here.", err=True)
            ctx.exit(130)
        record, found = _validated(run, study, drawing, options)
        _keep(run, record)
        failures = 0
        if options["recommend"]:
            if found.panel:
                models.close()
            failures = _mended(run, drawing, found, models, options, record)
            _keep(run, record)
        models.close()
        if options["as_json"]:
            click.echo(as_text(record))
        else:
            _print(record)
        n_failed = found.n_failed
    if n_failed:
        click.echo(f"{n_failed} judgements failed and are left out; --retry-failed asks again.", err=True)
    if n_failed or failures:
        ctx.exit(3)


def _dry_run(study: Study, cards: Sequence[Card], layout: Layout, options: Mapping[str, Any]) -> None:
    from ..readers import read
    from ..terms import Sample

    samples = [row for row in some_usable(read(options["data"], layout), options["data"]) if isinstance(row, Sample)]
    drawing = drawing_of(study, samples, options)
    tell_drawing(drawing)
    chosen = {samples[place].digest: samples[place] for place in drawing.judged.tolist()}
    value = options["value"] if options["value"] != "calibrated" else None
    tell_cost(study.goal, cards, list(chosen.values()), value_for(cards, {"value": value}), options)


def _validated(run: Run, study: Study, drawing: Drawing, options: Mapping[str, Any]) -> tuple[dict[str, Any], Results]:
    """The record of what was found, and the results it rests on."""
    from ..report.records import mix_record, outcomes
    from .results import results

    found = results(run, value=options["value"])
    click.echo(f"Comparing each removal with {options['draws']} random ones.", err=True)
    seeds = list(drawing.strategic)
    mixes = [mix_record("natural", None, corruptions(found, drawing, drawing.natural, options, every=True))]
    for seed, positions in drawing.strategic.items():
        every = seed == seeds[0]
        mixes.append(mix_record("strategic", seed, corruptions(found, drawing, positions, options, every=every)))
        mixes[-1]["shortfalls"] = dict(drawing.shortfalls[seed])
    record = {
        "study": study.name,
        "goal": study.goal.digest,
        "judge": found.judge,
        "panel": list(found.panel),
        "card": ", ".join(str(run.judges()[judge].get("card", "?")) for judge in found.judges),
        "data": run.data_digest(),
        "value": found.value,
        "seed": options["seed"],
        "n_seeds": len(seeds),
        "n_draws": options["draws"],
        "n_rows": len(found.positions),
        "n_pairs": len(found.positions) * len(found.coverage) * len(found.judges),
        "n_failed": found.n_failed,
        "subgoals": [subgoal.id for subgoal in found.goal.subgoals],
        "outcomes": outcomes(mixes),
        "mixes": mixes,
    }
    return record, found


def corruptions(
    found: Results, drawing: Drawing, positions: np.ndarray, options: Mapping[str, Any], *, every: bool
) -> dict[str, Corruption]:
    """What the removals do to these rows by each measure; `every` adds the share of support and other values."""
    import numpy as np

    from ..studies.corruption import MEASURES, corrupt, measured

    order = np.argsort(found.positions)
    places = order[np.searchsorted(found.positions, np.sort(positions), sorter=order)]
    ids = [subgoal.id for subgoal in found.goal.subgoals]
    chosen = MEASURES if every else MEASURES[:2]
    kinds: list[tuple[Measure, str, str]] = [(measure, found.value, measure) for measure in chosen]
    others = [value for value in found.values if value != found.value] if every else []
    kinds += [("alignment", value, f"alignment by {value}") for value in others]
    return {
        name: corrupt(
            measured(found.values[value][places], measure),
            drawing.removed[:, np.sort(positions)],
            ids,
            [ids.index(removal.target) for removal in drawing.removals],
            names=[removal.name for removal in drawing.removals],
            kinds=[removal.kind for removal in drawing.removals],
            samples=drawing.samples[np.sort(positions)],
            n_draws=options["draws"],
            seed=options["seed"],
        )
        for measure, value, name in kinds
    }


def _mended(
    run: Run, drawing: Drawing, found: Results, models: Models, options: Mapping[str, Any], record: dict[str, Any]
) -> int:
    """How many answers failed; the record tells what would mend what each removal leaves of the natural mix."""
    from ..goal_files.reading import slug
    from .corrupted import corrupted_run, mended

    record["mended"], n_failed, taken = [], 0, set[str]()
    for removal, mask in zip(drawing.removals, drawing.removed, strict=True):
        if removal.kind == "control":
            continue
        taken.add(name := slug(removal.name, taken))
        left = drawing.natural[~mask[drawing.natural]]
        folder = corrupted_run(run, found, left, run.folder / f"without-{name}")
        told, failed = mended(folder, removal, models, options)
        record["mended"].append(told)
        n_failed += failed
    return n_failed


def _keep(run: Run, record: Mapping[str, Any]) -> None:
    """Nothing; the run folder holds the record, its tables and its figure, and the audit trail tells of it."""
    from ..chain import digest_of_text
    from ..files import replace_file
    from ..report.validation import figure, markdown
    from ..terms import digest_of

    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    replace_file(run.folder / "validation.json", text, mode=0o600)
    replace_file(run.folder / "validation.md", markdown(record), mode=0o600)
    drawing = figure(record)
    replace_file(run.folder / FIGURE, drawing, mode=0o600)
    details = {name: record[name] for name in ("judge", "goal", "data", "value", "seed", "n_seeds", "n_rows")}
    drawn = {FIGURE: digest_of_text(drawing)}
    run.event(VALIDATED, {**details, "record": digest_of(record), "drawn": drawn}, "goalcover validate")
    click.echo(f"Kept: validation.json, validation.md and {FIGURE} in {run.folder}.", err=True)


def _print(record: Mapping[str, Any]) -> None:
    from ..report import validation
    from .terminal import plain

    for title, mix in validation.shown(record):
        click.echo(f"{title}, value {record['value']} (* should fall)")
        print_table(validation.HEADER, validation.rows(mix), right=(1, 2, 3, 4, 5))
        for sentence in validation.sentences(mix):
            click.echo(sentence)
        click.echo("")
    if record["n_seeds"] > 1:
        click.echo(f"Targets over {record['n_seeds']} strategic samples: mean change, least to greatest")
        print_table(validation.SEEDS_HEADER, validation.seeds(record))
    if record.get("mended"):
        click.echo("What would mend the data that each removal leaves:")
    for removal in record.get("mended", ()):
        click.echo(f"{removal['removal']}, {removal['target']}: {removal['verdict']}")
        for name in ("issue", "fix"):
            if removal[name]:
                click.echo(f"  {name.capitalize()}: {plain(removal[name])}")
    for sentence in validation.told(record):
        click.echo(sentence)
