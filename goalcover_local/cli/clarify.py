"""`goalcover clarify`: from a goal to a checked set of subgoals, with a person or by a script."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .judging import Models, model_options, named_card
from .terminal import counted, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from ..asking import Asker
    from ..drafts import DraftFile
    from ..overlaps import Overlap
    from ..phases.clarify import Draft
    from ..terms import Goal
    from .interview import Script

_FILE = click.Path(path_type=Path, dir_okay=False)
_STEPS = {"no_questions": "--no-questions", "no_refinement": "--no-refinement", "no_checks": "--no-checks"}
_OF_THE_MODEL = {"card_name": None, "engine": "auto", "url": "", "devices": "", "threads": None}
"""The options that name the model, as they are if they are not given."""
_OF_AN_INTERVIEW = {"answers": "--answers", "yes": "--yes", "subgoals_file": "--subgoals", **_STEPS}


@click.command("clarify", short_help="Turn a goal into subgoals, each one thing, no two alike, none missing.")
@click.argument("goal", required=False)
@click.option("-o", "--output", type=_FILE, help="The goal file to write (with --review: the sheet).")
@click.option("--resume", is_flag=True, help="Go on with the draft of the goal file named by -o.")
@click.option(
    "--answers", type=_FILE, help="Answers to give, and violations to accept: a TOML file, or an earlier goal."
)
@click.option("--yes", is_flag=True, help="Ask nobody: skip questions without an answer, take the set as it is.")
@click.option(
    "--subgoals", "subgoals_file", type=_FILE, help="A set written by hand, to be checked: TOML, or a name a line."
)
@click.option("--check", is_flag=True, help="Check the set of the goal file GOAL again; -o writes the outcome.")
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --check: a run that assessed these subgoals; tells how far its values overlap.",
)
@click.option("--review", is_flag=True, help="Write a sheet on which an expert marks the set of the goal file GOAL.")
@click.option("--marks", type=_FILE, help="With --review: a filled-in sheet; -o writes the goal file with its marks.")
@click.option("--no-questions", is_flag=True, help="Ask no clarifying questions (an ablation).")
@click.option(
    "--no-refinement", is_flag=True, help="Put question and answer into the specification as they are (an ablation)."
)
@click.option("--no-checks", is_flag=True, help="Check no subgoals, and repair none (an ablation).")
@click.option("--overwrite", is_flag=True, help="Replace an output file, or a draft, that is there.")
@model_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Clarify GOAL, in quotes, into a goal file that `goalcover assess` takes.

    A local model asks what the goal leaves open, writes a specification from the answers, proposes subgoals, and checks
    that each is one capability, that no two overlap, and that together they cover the specification. Every step is
    saved: Ctrl-C, and later --resume, lose nothing. The first sentence of GOAL is the goal, others begin the
    specification; GOAL may also be a goal file or a shipped goal's name, whose set is then worked on.

    The embedded judge is too small for this: take qwen2.5-coder-1.5b-instruct, or a larger one.

    \b
    Example:
      goalcover clarify "Answer clinicians' questions" --judge qwen2.5-coder-1.5b-instruct -o goal.toml
      goalcover clarify --resume -o goal.toml
      goalcover clarify "Summarise bills of Congress" --answers answers.toml --yes -o goal.toml
      goalcover clarify --check goal.toml --run runs/first
      goalcover clarify --review goal.toml -o sheet.md

    Exit codes: 0 done, 1 error, 2 usage, 3 a violation stands that nobody accepted, 130 interrupted and resumable.
    """
    _check_usage(options)
    if options["review"]:
        _review(options)
        return
    if options["check"]:
        ctx.exit(_check(options))
    ctx.exit(_clarify(options))


def _check_usage(options: Mapping[str, Any]) -> None:
    """Nothing; raises UsageError for options that make no sense together."""
    modes = [name for name in ("check", "review", "resume") if options[name]]
    if len(modes) > 1:
        raise click.UsageError(f"--{modes[0]} and --{modes[1]} do not go together.")
    if options["marks"] and not options["review"]:
        raise click.UsageError("--marks goes with --review.")
    if options["run_folder"] and not options["check"]:
        raise click.UsageError("--run goes with --check.")
    if options["resume"] and options["subgoals_file"]:
        raise click.UsageError("--resume goes on with the draft's own set; leave --subgoals out.")
    for mode, others in (("check", _OF_AN_INTERVIEW), ("review", _OF_AN_INTERVIEW), ("resume", _STEPS)):
        for name, option in others.items():
            if options[mode] and options[name]:
                raise click.UsageError(f"{option} does not go with --{mode}.")
    if not options["resume"] and not options["goal"]:
        raise click.UsageError(
            "Name the goal file." if options["check"] or options["review"] else "Give a goal, in quotes."
        )
    if not options["output"] and not options["check"]:
        raise click.UsageError("Name the file to write: -o FILE.")


def _clarify(options: dict[str, Any]) -> int:
    """The exit code of an interview by this process alone."""
    from ..drafts import alone
    from .interview import NO_TERMINAL, at_terminal

    if not options["yes"] and not at_terminal():
        raise click.UsageError(NO_TERMINAL)
    with alone(_draft_of(options["output"])):
        return _interviewed(options)


def _interviewed(options: dict[str, Any]) -> int:
    """The exit code of an interview, which ends with a goal file."""
    from ..errors import GoalCoverError
    from ..goal_files.writing import save_goal
    from ..phases.clarify import clarified
    from .interview import Interview

    output: Path = options["output"]
    script = _script(options)
    file, origin = _resumed(options) if options["resume"] else _begun(options)
    begun = file.draft
    script.pass_over(begun.exchanges if options["resume"] else ())
    console = _console()
    try:
        with _asker(options, file) as asker:
            draft = Interview(file, asker, console, script).run()
            goal = clarified(draft, named_card(options).name, asker, origin)
            failures = asker.failures
    except KeyboardInterrupt:
        file.save()
        _console(stderr=True).show_cursor()  # a bar that was only just beginning leaves it hidden
        click.echo(f"\nSaved. `{_resuming(options)}` goes on from here.", err=True)
        return 130
    except GoalCoverError:
        if file.draft == begun and not (file.memory or options["resume"]):
            file.remove()
        raise
    _refuse_changed(file, options)
    try:
        save_goal(goal, output)
    except GoalCoverError:
        # What cannot be written must be mended: --resume goes on where it can be.
        with suppress(GoalCoverError):
            file.undo()
        raise
    _note_acceptances(goal)
    file.remove()
    for line in script.left_over():
        click.echo(f"{options['answers']}: {line}", err=True)
    return _told(draft, output, failures)


def _resuming(options: Mapping[str, Any]) -> str:
    """The command that goes on with a draft that was interrupted."""
    answers = ["--answers", str(options["answers"])] if options["answers"] else []
    yes = ["--yes"] if options["yes"] else []
    return shlex.join(["goalcover", "clarify", "--resume", *answers, *yes, "-o", str(options["output"])])


def _told(draft: Draft, output: Path | None, failures: Counter[str]) -> int:
    """The exit code, after saying what was written and what stands against it."""
    from ..terms import CONSTRAINTS

    if output:
        click.echo(f"{output}: {len(draft.subgoals)} subgoals, {len(draft.exchanges)} questions.", err=True)
    for reason, n in failures.items():
        click.echo(f"The model failed to answer {counted(n, 'time')}: {reason}.", err=True)
    if draft.findings is None:
        click.echo("Nothing was checked (--no-checks).", err=True)
        return 0
    undecided = [
        name for name in CONSTRAINTS if any(f.outcome == "undecided" and f.constraint == name for f in draft.findings)
    ]
    if undecided:
        click.echo(
            f"Undecided: {', '.join(undecided)}. Look at the set yourself, or check it with a larger model.", err=True
        )
    if draft.violations:
        click.echo(f"Nobody accepted {counted(len(draft.violations), 'violation')}.", err=True)
    missing = sum(finding.probability is None for finding in draft.findings)
    if missing:
        click.echo(f"Without an answer: {counted(missing, 'check')}; `goalcover clarify --check` asks again.", err=True)
    return 3 if draft.violations or missing else 0


def _begun(options: Mapping[str, Any]) -> tuple[DraftFile, Goal | None]:
    """A new draft beside the output, and the goal file it works on if GOAL names one."""
    from ..drafts import DraftFile
    from ..goal_files.reading import find_goal, read_goal, read_subgoals, shipped_goals
    from ..phases.clarify import Steps, begin, reopened

    output: Path = options["output"]
    place = _draft_of(output)
    text: str = options["goal"]
    named = text in shipped_goals() or (text.endswith(".toml") and not any(each.isspace() for each in text))
    source = find_goal(text) if named or (text.endswith(".toml") and Path(text).is_file()) else None
    origin = read_goal(source) if source else None
    if place.exists() and not options["overwrite"]:
        raise click.UsageError(f"There is a draft {place}: go on with --resume, or begin anew with --overwrite.")
    _refuse_other(output, source or "", options["overwrite"])
    steps = Steps(not options["no_questions"], not options["no_refinement"], not options["no_checks"])
    subgoals = read_subgoals(options["subgoals_file"]) if options["subgoals_file"] else ()
    if not plain(text).strip():
        raise click.UsageError("The goal is empty.")
    if origin and subgoals:
        draft = reopened(replace(origin, subgoals=subgoals, checks=None), steps)
    else:
        draft = reopened(origin, steps) if origin else begin(plain(text), steps, subgoals)
    if origin:
        _tell_of_stale(origin)
    kept = {name: options[name] for name in _OF_THE_MODEL} | {
        "card_name": named_card(options).name,
        "goal": plain(text),
        "origin": str(source.absolute()) if source else "",
        "overwrite": options["overwrite"],
        "output": _digest_of_file(output),
    }
    if place.exists():
        place.replace(place.with_name(f"{place.name}.old"))
    return DraftFile.begin(place, draft, kept), origin


def _resumed(options: dict[str, Any]) -> tuple[DraftFile, Goal | None]:
    """The draft beside the output, and the goal file it works on; options of the model not given are as they were."""
    from ..drafts import DraftFile
    from ..goal_files.reading import read_goal

    file = DraftFile.resume(_draft_of(options["output"]))
    if options["goal"] and plain(options["goal"]) != file.options.get("goal"):
        raise click.UsageError(f"{file.path} is of another goal: leave the goal out to go on with it.")
    origin = str(file.options.get("origin", ""))
    _refuse_other(options["output"], origin, options["overwrite"] or file.options.get("overwrite", False))
    _refuse_changed(file, options)
    for name, default in _OF_THE_MODEL.items():
        if options[name] == default:
            options[name] = file.options.get(name, default)
        file.options[name] = options[name]
    return file, read_goal(origin) if origin else None


def _digest_of_file(path: Path) -> str:
    """Digest of what stands in a file, "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _refuse_changed(file: DraftFile, options: Mapping[str, Any]) -> None:
    """Nothing; raises GoalError if somebody wrote the output since the draft was begun. The draft stays."""
    from ..errors import GoalError

    output: Path = options["output"]
    if not options["overwrite"] and _digest_of_file(output) != file.options.get("output", ""):
        mend = "Add --resume --overwrite to replace it, or move it away first; the draft is kept."
        raise GoalError(f"{output} was written by somebody else in the meantime.", mend)


def _tell_of_stale(goal: Goal) -> None:
    """Nothing; says so if acceptances are of a set that was edited since."""
    accepted = [finding for finding in goal.checks.findings if finding.outcome == "accepted"] if goal.checks else []
    if accepted and goal.current_checks is None:
        told = counted(len(accepted), "acceptance")
        click.echo(f"The set was edited since it was checked: {told} no longer hold; accept again.", err=True)


def _note_acceptances(goal: Goal) -> None:
    """Nothing; the ledger tells of each violation that a person accepted, by digests."""
    from ..decisions import ACCEPTED, acceptances
    from ..ledger import note

    for details in acceptances(goal):
        note(ACCEPTED, details, "goalcover clarify")


def _refuse_other(output: Path, origin: Path | str, overwrite: bool) -> None:
    """Nothing; raises UsageError if the output is there, is not the goal file that is worked on, and must stay."""
    if output.exists() and not overwrite and not (origin and Path(origin).exists() and output.samefile(origin)):
        raise click.UsageError(f"{output} is there already: name another file, or give --overwrite.")


def _draft_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.draft")


def _script(options: Mapping[str, Any]) -> Script:
    from ..goal_files.reading import read_answers
    from .interview import Script

    if options["answers"] is None:
        return Script([], [], options["yes"])
    exchanges, accepted = read_answers(options["answers"])
    return Script(list(exchanges), list(accepted), options["yes"])


@contextmanager
def _asker(options: Mapping[str, Any], file: DraftFile | None = None) -> Iterator[Asker]:
    """A context with the model that the options name, whose answers the draft remembers."""
    with Models(options) as models:
        yield models.asker(named_card(options), *((file.memory, file.save) if file else ()))


def _check(options: Mapping[str, Any]) -> int:
    """The exit code of checking a goal file's set again."""
    from ..goal_files.reading import find_goal, read_goal
    from ..goal_files.writing import save_goal
    from ..phases.clarify import advance, clarified, reopened
    from .decomposition import print_overlaps, print_set, unfit_for

    origin = find_goal(options["goal"])
    goal = read_goal(origin)
    if options["output"]:
        _refuse_other(options["output"], origin, options["overwrite"])
    _tell_of_stale(goal)
    measured = _measured(goal, options["run_folder"]) if options["run_folder"] else None
    draft = reopened(goal)
    with _stopping(), _asker(options) as asker:
        *_, draft = draft, *advance(draft, asker)
        checked = clarified(draft, named_card(options).name, asker, goal)
        failures, unfit = asker.failures, unfit_for(asker)
    console = _console()
    print_set(console, draft.subgoals, draft.findings)
    for line in unfit:
        click.echo(line, err=True)
    if measured is not None:
        print_overlaps(console, measured, draft.findings or ())
    if options["output"]:
        save_goal(checked, options["output"])
        _note_acceptances(checked)
    return _told(draft, options["output"], failures)


@contextmanager
def _stopping() -> Iterator[None]:
    """A context in which Ctrl-C says that nothing was written, and leaves with its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nStopped. Nothing was written.", err=True)
        raise click.exceptions.Exit(130) from None


def _measured(goal: Goal, folder: Path) -> list[Overlap]:
    """How far the goal's subgoals overlap by a run's values. Raises GoalError for those that the run did not assess."""
    import numpy as np

    from ..errors import GoalError
    from ..overlaps import overlaps
    from ..store import Run
    from .results import results

    with Run.open(folder, write=False) as run:
        found = results(run)
        distinct = np.sort(np.unique(run.row_samples(found.positions), return_index=True)[1])
    places = {subgoal.digest: place for place, subgoal in enumerate(found.goal.subgoals)}
    absent = [subgoal.id for subgoal in goal.subgoals if subgoal.digest not in places]
    if absent:
        raise GoalError(
            f"The run {folder} did not assess {', '.join(absent)} as this goal file states it.",
            "Assess the goal file into it first: only what is new is judged.",
        )
    columns = [places[subgoal.digest] for subgoal in goal.subgoals]
    # Rows of one text have one value: only the first of them counts.
    return overlaps([subgoal.id for subgoal in goal.subgoals], found.values[found.value][distinct][:, columns])


def _review(options: Mapping[str, Any]) -> None:
    """Nothing; writes a sheet for an expert, or reads a filled-in one into the goal file."""
    from ..files import replace_file
    from ..goal_files.reading import find_goal, read_goal
    from ..goal_files.review_sheets import agreement, read_sheet, sheet
    from ..goal_files.tables import text_of
    from ..goal_files.writing import save_goal

    output: Path = options["output"]
    origin = find_goal(options["goal"])
    goal = read_goal(origin)
    if options["marks"] is None:
        if output.exists() and output.samefile(origin):
            raise click.UsageError(f"{output} is the goal file: name another file for the sheet.")
        _refuse_other(output, "", options["overwrite"])
        replace_file(output, sheet(goal))
        click.echo(f"{output}: {len(goal.subgoals)} subgoals to review.", err=True)
        return
    _refuse_other(output, origin, options["overwrite"])
    review = read_sheet(text_of(options["marks"]), goal, str(options["marks"]))
    others = tuple(
        each for each in goal.reviews if (each.reviewer, each.subgoals) != (review.reviewer, review.subgoals)
    )
    marked = replace(goal, reviews=(*others, review))
    save_goal(marked, output)
    click.echo(f"{output}: the review by {plain(review.reviewer)} is in it.", err=True)
    for found in agreement(marked):
        click.echo(f"{found.constraint}: the model agrees with {found.n_agree} of {found.n_marked} marks.")


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(highlight=False, emoji=False, stderr=stderr)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console
