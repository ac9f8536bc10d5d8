"""`goalcover evaluate`: what policies write about a fixed test set, graded overall and by subgoal (paper, 6.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .assessing import data_options, deadline, stop_options, value_for
from .evaluating import Chosen, choose, graded, respond, stop
from .headings import Headed, under
from .judging import Models
from .table import as_text
from .training import device_option, grader_of, judge_engine_options, limit_options, reward_option, samples_of

if TYPE_CHECKING:
    from ..cards import Card
    from ..finetune.reward import Grader
    from ..store import Run
    from ..terms import Goal, Sample
    from .belonging import Belonging
    from .standings import Answered

ENDED = "evaluation ended"


_POLICIES = (
    click.option(
        "--name",
        "names",
        multiple=True,
        metavar="NAME",
        help="A trained policy, or base. May be repeated; base and all that have ended if not given.",
    ),
    click.option(
        "--policy", "policy_card", metavar="CARD", help="The base model; the one that was trained if not given."
    ),
    click.option("--against", metavar="NAME", help="The policy that others are compared with; base if it is graded."),
    device_option,
    click.option(
        "--temperature",
        type=click.FloatRange(0, 2),
        default=0.0,
        show_default=True,
        help="At which responses are written.",
    ),
)
_JUDGE = (
    reward_option(),
    click.option("--judge", "card_name", metavar="CARD", help="The judge; the one that gave the rewards if not given."),
    judge_engine_options,
)
_SUBGOALS = (
    click.option(
        "--goal", type=click.Path(path_type=Path), help="A goal whose subgoals the rows belong to, as judged."
    ),
    click.option(
        "--alignment-judge", metavar="CARD", help="With --goal: the judge that says which; --judge if not given."
    ),
    click.option("--subgoal-column", metavar="COLUMN", help="The column that names the subgoals a row belongs to."),
)
_RESULTS = (
    stop_options,
    click.option(
        "--responses",
        "responses_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Where to write every response with its grades as JSON Lines: private text, for you alone (mode 0600).",
    ),
    click.option(
        "--figure",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Where to draw the means and intervals, as SVG.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
)
_SEED = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes rows, sampling, intervals."
)
_SUFFIXES = {
    "responses_file": ("jsonl", "JSON Lines", (".jsonl", ".ndjson")),
    "figure": ("svg", "SVG", (".svg",)),
}
"""By option: what kind of file it names, in which format it is written, and how its name may end."""


@click.command(
    "evaluate", cls=Headed, short_help="Grade what policies write about a fixed test set, overall and by subgoal."
)
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@under("Data", data_options, *limit_options, _SEED)
@under("Policies", *_POLICIES)
@under("Reward and judge", *_JUDGE)
@under("Subgoals", *_SUBGOALS)
@under("Results", *_RESULTS)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Have the policies of RUN write about the rows of DATA, which none was trained on, and grade what they write.

    What they are asked and how they are graded is the reward's. Equal rows count once. A judgement that failed is
    missing, never the lowest. Every response and grade is kept in RUN: what was written or graded once is not again.
    A judge other than the one that gave the rewards shows whether a policy learnt the task or to please its judge.

    With --json: run, data, reward, judge, max_tokens, temperature, seed, n_samples, n_failed; policies, each with its
    score, judged and checked (value, low, high, n), dimensions and checks, words, cut_off, length_correlation;
    comparisons by part, with difference, p, p_holm (adjusted for all of them together), wins and ties; belonging;
    subgoals with every policy's score.

    \b
    Example:
      goalcover evaluate runs/lay test.jsonl --subgoal-column qtype --judge prometheus-7b-v2.0
      goalcover evaluate runs/new test.jsonl --policy smollm2-135m-instruct --reward lay-summary
    """
    from ..finetune.rubric import load_rubric
    from ..store import Run
    from ..trainings import Trainings
    from .belonging import by_column, by_judge, of_column, tell_belonging

    goal = _goal(options)
    _check_outputs(options)
    rows, data = samples_of(options)
    named = by_column(rows, options["subgoal_column"]) if options["subgoal_column"] else None
    ends = deadline(options["max_hours"])
    chosen = _chosen(options)
    aligner, rubric = _aligner(chosen, options), load_rubric(chosen.reward)
    with Run.open(options["run_folder"], write=True, create=True) as run, Models(options) as models:
        trainings, memory = Trainings(run), run.memory()
        samples, written = respond(trainings, chosen, rubric, rows, memory, options, ends)
        grader = grader_of(chosen.judge, chosen.reward, models)
        answered = graded(grader, samples, written, memory, ends, retry_failed=options["retry_failed"])
        belonging = None if named is None else of_column(named, samples, options["subgoal_column"])
        if goal and aligner:
            if aligner != chosen.judge:
                models.close()
            value, again = value_for([aligner], {"value": None}), options["retry_failed"]
            judge = models.judge(aligner)
            belonging = by_judge(judge, goal, samples, memory, value=value, retry_failed=again, ends=ends) or stop()
        if belonging:
            tell_belonging(belonging, len(samples))
        models.close()
        found = _record(run, chosen, grader, data, samples, answered, belonging, options)
        _note(run, found)
        _write_files(samples, answered, options)
    _show(found, options)
    if found["n_failed"] or (belonging and belonging.n_failed):
        ctx.exit(3)


def _chosen(options: Mapping[str, Any]) -> Chosen:
    """What is evaluated, and how: of the run if there is one, else of a base alone; nothing is written yet.

    Raises as `choose` does, and StoreError if there is no run that has the policies named.
    """
    from ..folder import DATABASE
    from ..store import Run
    from ..terms import UNTUNED
    from ..trainings import Trainings

    folder: Path = options["run_folder"]
    base_alone = options["policy_card"] and {*options["names"], options["against"] or UNTUNED} <= {UNTUNED}
    if base_alone and not (folder / DATABASE).exists():
        return choose(None, options)
    with Run.open(folder, write=False) as run:
        return choose(Trainings(run), options)


def _aligner(chosen: Chosen, options: Mapping[str, Any]) -> Card | None:
    """The card of the judge that says which subgoals rows belong to, its weights verified; None without a goal."""
    from ..cards import load_card
    from ..weights import verify

    if not options["goal"]:
        return None
    card = load_card(options["alignment_judge"]) if options["alignment_judge"] else chosen.judge
    verify(card)
    return card


def _goal(options: Mapping[str, Any]) -> Goal | None:
    """The goal that the options name, if they do. Raises as `read_goal` does, and for a goal without subgoals."""
    from ..errors import GoalError
    from ..goal_files.reading import find_goal, read_goal

    if options["goal"] and options["subgoal_column"]:
        raise click.UsageError("Give --goal or --subgoal-column, not both.")
    if options["alignment_judge"] and not options["goal"]:
        raise click.UsageError("--alignment-judge needs a --goal.")
    goal = read_goal(find_goal(options["goal"])) if options["goal"] else None
    if goal and not goal.subgoals:
        raise GoalError(f"The goal {options['goal']} has no subgoals.", "Run `goalcover clarify` on it first.")
    return goal


def _check_outputs(options: Mapping[str, Any]) -> None:
    """Nothing; raises DataError now rather than at the end if a file is not named as what it will be, or cannot be."""
    from ..errors import DataError
    from ..outputs import check

    for name, (kind, written, suffixes) in _SUFFIXES.items():
        file: Path | None = options[name]
        if file is None:
            continue
        if file.suffix.lower() not in suffixes:
            raise DataError(f"{file} would be {written}, and is not named so.", f"End it with {' or '.join(suffixes)}.")
        check(file, kind, [options["data"]])


def _record(
    run: Run,
    chosen: Chosen,
    grader: Grader,
    data: str,
    samples: Sequence[Sample],
    answered: Mapping[str, Answered],
    belonging: Belonging | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """All that was found, as plain values."""
    from .standings import record

    told = None
    if belonging:
        told = {"by": belonging.value, "n_none": belonging.n_none, "n_failed": belonging.n_failed}
    reasons = Counter(grade.failure for each in answered.values() for grade in each.grades if grade.score is None)
    return {
        "run": str(run.folder),
        "data": data,
        "reward": chosen.reward,
        "reward_digest": grader.rubric.digest,
        "judge": grader.digest,
        "judge_card": chosen.judge.name,
        "rewarded": list(chosen.rewarded),
        "agreement": None if grader.agreement != grader.agreement else grader.agreement,
        "max_tokens": chosen.max_tokens or grader.rubric.task.max_tokens,
        "temperature": options["temperature"],
        "seed": options["seed"],
        "limit": options["limit"],
        "n_samples": len(samples),
        "n_failed": sum(reasons.values()),
        "failures": dict(reasons),
        "belonging": told,
        **record(answered, chosen.against, belonging, options["seed"]),
    }


def _note(run: Run, found: Mapping[str, Any]) -> None:
    """Nothing; the audit trail tells of the evaluation: digests, counts and means."""
    names = ("data", "reward_digest", "judge", "judge_card", "max_tokens", "temperature", "seed", "limit", "n_samples")
    means = {each["policy"]: each["score"] and each["score"]["value"] for each in found["policies"]}
    details = {
        **{name: found[name] for name in (*names, "n_failed")},
        "policies": {each["policy"]: each["digest"] for each in found["policies"]},
        "means": means,
    }
    run.event(ENDED, details, "goalcover evaluate")


def _write_files(samples: Sequence[Sample], answered: Mapping[str, Answered], options: Mapping[str, Any]) -> None:
    """Nothing; the files that the options name are written, whole or not at all."""
    from ..outputs import failures_told, placed
    from ..report.training import interval_figure
    from ..writers import write_records
    from .standings import responses, standings

    if options["responses_file"]:
        with placed(options["responses_file"], "jsonl", [options["data"]]) as place:
            write_records(place, responses(samples, answered))
        click.echo(f"Responses and grades: {options['responses_file']} (private text).", err=True)
    if options["figure"]:
        drawn = interval_figure(standings(answered, options["seed"]))
        with placed(options["figure"], "svg", [options["data"]]) as place, failures_told(options["figure"]):
            place.path.write_text(drawn, encoding="utf-8")
        click.echo(f"Figure: {options['figure']}", err=True)


def _show(found: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Nothing; prints what was found, and what to bear in mind with it."""
    from .standings import print_record

    if options["as_json"]:
        click.echo(as_text(dict(found)))
    else:
        print_record(found)
        click.echo(f"{found['n_samples']} rows, reward {found['reward']}, judge {found['judge_card']}.")
    if found["rewarded"]:
        click.echo(
            f"The judge is the one that gave the rewards to {', '.join(found['rewarded'])}: see --judge for another.",
            err=True,
        )
    if found["n_failed"]:
        why = "; ".join(f"{reason}: {n}" for reason, n in found["failures"].items())
        click.echo(f"{found['n_failed']} grades failed and are left out ({why}); --retry-failed asks again.", err=True)
