"""`goalcover ablate`: a validation with one part of the method left out or changed at a time, in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .assessing import deadline, judge_samples, take_in
from .drawing import Drawing, data_given, drawing_of, folder_of, study_options, tell_drawing
from .judging import Models, model_options, named_card
from .probing import plain_number
from .table import as_text, print_table

if TYPE_CHECKING:
    import numpy as np

    from ..cards import Card
    from ..judges import Judge
    from ..store import Run
    from ..studies.removals import Study
    from ..terms import Goal, Step

ABLATED = "ablation ended"
_SCORES = {"anchor": "score", "expectation": "expectation"}


@click.command("ablate", short_help="Validate with one part left out at a time, to see what it is worth.")
@study_options
@model_options
@click.option(
    "--without",
    "parts",
    multiple=True,
    type=click.Choice(["questions", "refinement", "checks", "examples", "explanation"]),
    help="What to leave out; may be repeated, one at a time is left out.",
)
@click.option(
    "--order",
    "orders",
    multiple=True,
    type=click.Choice(["score-first", "reason-first"]),
    help="Ask in this order; reason-first writes an explanation for every pair, which takes long.",
)
@click.option(
    "--score",
    "scores",
    multiple=True,
    type=click.Choice(list(_SCORES)),
    help="Take the most probable anchor, or the expectation over the anchors.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Run the validation STUDY on DATA as it is, and again with one part of the method left out or changed.

    By the expectation, which every variant has. A target loses what its removal takes of its alignment; `told apart` is
    how often a removed row has a higher value than a row that is left (AUC: 0.5 is chance). Without questions,
    refinement or checks, the goal is decomposed anew by the judge's model, from the study's answers, and beside it with
    all steps; each removal's target is then the subgoal whose words are nearest. What the run was assessed for stays.

    \b
    Example:
      goalcover ablate medical ori_pqal.json --without examples --score anchor --rows 200
      goalcover ablate study.toml data.jsonl --without checks --without questions
    """
    from ..store import Run
    from ..studies.removals import find_study, read_study
    from ..weights import verify
    from .analyze import leave
    from .results import STARTED, latest

    if not (options["parts"] or options["orders"] or options["scores"]):
        raise click.UsageError("Say what to leave out or change: --without, --order or --score.")
    study = read_study(find_study(options["study"]))
    verify(named_card(options))
    layout, origin = data_given(study, options)
    with Run.open(folder_of(study, options), write=True, create=True) as run, Models(options) as models:
        take_in(run, layout, origin, options["data"])
        drawing = drawing_of(study, list(run.rows()), options)
        tell_drawing(drawing)
        ends = deadline(options["max_hours"])
        if latest(run, STARTED) is None:
            run.put_goal(study.goal)
        unanswered: Counter[str] = Counter()
        lines, failed = [], dict[tuple[str, str], int]()
        for variant in _variants(run, study, drawing, models, options, unanswered):
            same = variant.judge.digest, variant.goal.digest
            again = options["retry_failed"] and same not in failed
            line = _line(run, drawing, variant, {**options, "retry_failed": again}, ends)
            if line is None:
                click.echo("Stopped by --max-hours. The same command goes on from here.", err=True)
                ctx.exit(130)
            lines.append(line)
            failed[same] = line["n_failed"]
        details = {"goal": study.goal.digest, "judges": [line["judge"] for line in lines], "seed": options["seed"]}
        run.event(ABLATED, {**details, "n_rows": len(drawing.judged)}, "goalcover ablate")
    if options["as_json"]:
        click.echo(as_text({"study": study.name, "n_rows": len(drawing.judged), "variants": lines}))
    else:
        _print(lines, len(drawing.judged))
    if n_failed := sum(failed.values()):
        click.echo(f"{n_failed} judgements failed and are left out; --retry-failed asks again.", err=True)
    leave(ctx, unanswered)
    if n_failed:
        ctx.exit(3)


@dataclass(frozen=True)
class Variant:
    """The method with one thing changed: who judges, what, by which value, and which subgoal each removal is for."""

    name: str
    judge: Judge
    goal: Goal
    value: str
    targets: Sequence[int]


def _variants(
    run: Run, study: Study, drawing: Drawing, models: Models, options: Mapping[str, Any], unanswered: Counter[str]
) -> list[Variant]:
    """The method as it is, then each change that the options name, once, before anything is judged.

    Why answers of a decomposition are missing is counted in `unanswered`.
    """
    from ..studies.ablation import without_examples
    from ..terms import STEPS

    card = named_card(options)
    judge = models.judge(card)
    ids = [subgoal.id for subgoal in study.goal.subgoals]
    targets = [ids.index(removal.target) for removal in drawing.removals]
    parts = list(dict.fromkeys(options["parts"]))

    def same(name: str, judge: Judge = judge, value: str = "expectation") -> Variant:
        return Variant(name, judge, study.goal, value, targets)

    variants = [same("as it is")]
    variants += [same(f"score: {score}", value=_SCORES[score]) for score in dict.fromkeys(options["scores"])]
    for part in parts:
        if part == "examples":
            variants.append(same("without examples", without_examples(judge)))
        elif part == "explanation":
            # Of a judge that scores first nothing is left out: what it explains, it explains after the score.
            variants.append(same("without explanation", models.judge(card, order="score-first")))
    variants += [same(order, models.judge(card, order=order)) for order in dict.fromkeys(options["orders"])]
    steps = [part for part in parts if part in STEPS]
    for step in [None, *steps] if steps else []:
        name = f"decomposed without {step}" if step else "decomposed with all steps"
        goal = _decomposed(run, study, models, card, step, name, unanswered)
        places = [_nearest(study.goal, target, goal) for target in targets]
        for removal, place in zip(drawing.removals, places, strict=True):
            click.echo(f"{name}: {removal.name} is for {goal.subgoals[place].id}.", err=True)
        variants.append(Variant(name, judge, goal, "expectation", places))
    return variants


def _decomposed(
    run: Run, study: Study, models: Models, card: Card, step: Step | None, name: str, unanswered: Counter[str]
) -> Goal:
    """The goal as the judge's model decomposes it. Raises GoalError if that leaves fewer than two subgoals."""
    from ..errors import GoalError
    from ..studies.ablation import decomposed

    memory = run.memory()
    asker = models.asker(card, memory, memory.keep)
    goal = decomposed(study.goal.text, study.exchanges, asker, card.name, step)
    unanswered.update(asker.failures)
    if len(goal.subgoals) < 2:
        n = "one subgoal" if goal.subgoals else "no subgoal"
        raise GoalError(
            f"{name.capitalize()}, the goal has {n}, and two are needed.", "Name a larger model with --judge."
        )
    return goal


def _nearest(goal: Goal, target: int, other: Goal) -> int:
    from ..studies.ablation import nearest

    return nearest(goal.subgoals[target], other.subgoals)


def _line(
    run: Run, drawing: Drawing, variant: Variant, options: Mapping[str, Any], ends: float
) -> dict[str, Any] | None:
    """A line of the table, once what is missing is judged: how far targets and others fall; None if it was stopped."""
    from ..studies.corruption import corrupt
    from .results import values_of
    from .shown import number

    click.echo(f"{variant.name}:", err=True)
    # The run's own goal stays what it is: its assessment is of that.
    digest = run.put_judge(dict(variant.judge.identity))
    run.put_subgoals(variant.goal.subgoals)
    samples = run.distinct(drawing.judged)
    if not judge_samples(
        run,
        variant.goal,
        variant.judge,
        samples,
        value="expectation",
        retry_failed=options["retry_failed"],
        ends=ends,
    ):
        return None
    judged, _, found = values_of(run, variant.goal, digest, run.row_samples(drawing.judged))
    values = found[variant.value]
    removed = drawing.removed[:, drawing.judged]
    everything = list(range(len(drawing.removals)))
    chosen = [place for place in everything if drawing.removals[place].kind == "removal"] or everything
    corruption = corrupt(
        values,
        removed[chosen],
        [subgoal.id for subgoal in variant.goal.subgoals],
        [variant.targets[place] for place in chosen],
        names=[drawing.removals[place].name for place in chosen],
        samples=drawing.samples[drawing.judged],
        n_draws=options["draws"],
        seed=options["seed"],
    )
    apart = corruption.separation()
    own, others = _told_apart(values, removed[chosen], [variant.targets[place] for place in chosen])
    return {
        "variant": variant.name,
        "judge": digest,
        "goal": variant.goal.digest,
        "value": variant.value,
        "subgoals": [subgoal.id for subgoal in variant.goal.subgoals],
        "targets": [variant.goal.subgoals[variant.targets[place]].id for place in chosen],
        "target": number(apart.target),
        "others": number(apart.others),
        "apart_target": number(_mean(own)),
        "apart_others": number(_mean(others)),
        "n_most_affected": sum(effect.most_affected for effect in corruption.effects),
        "n_flagged": sum(effect.flagged for effect in corruption.effects),
        "n_removals": len(chosen),
        "n_failed": int(judged.failed.sum()),
    }


def _told_apart(values: np.ndarray, removed: np.ndarray, targets: Sequence[int]) -> tuple[list[float], list[float]]:
    """The AUC of removed against kept rows by the target's values, and by the others' on average, one a removal."""
    from ..resampling import told_apart

    own, others = [], []
    for mask, target in zip(removed, targets, strict=True):
        each = told_apart(values, mask)
        own.append(float(each[target]))
        others.append(_mean([float(each[column]) for column in range(values.shape[1]) if column != target]))
    return own, others


def _mean(values: Sequence[float]) -> float:
    """The mean of what is not missing; NaN where all is."""
    there = [value for value in values if value == value]
    return sum(there) / len(there) if there else float("nan")


def _print(lines: Sequence[Mapping[str, Any]], n_rows: int) -> None:
    from ..report.validation import percent

    header = ["variant", "value", "target loses", "others lose", "told apart", "others", "most affected", "p < 0.01"]
    click.echo(f"{n_rows} rows")
    print_table(
        header,
        [
            [
                line["variant"],
                line["value"],
                percent(line["target"], signed=False),
                percent(line["others"], signed=False),
                plain_number(line["apart_target"]),
                plain_number(line["apart_others"]),
                f"{line['n_most_affected']} of {line['n_removals']}",
                f"{line['n_flagged']} of {line['n_removals']}",
            ]
            for line in lines
        ],
        right=(2, 3, 4, 5, 6, 7),
    )
