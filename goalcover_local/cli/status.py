"""`goalcover status`: how far a run has come, and what comes next."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .table import as_text

if TYPE_CHECKING:
    from ..store import Run
    from .results import Results


@click.command("status", short_help="Say how far a run has come, and what comes next.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(run: Path, as_json: bool) -> None:
    """Say of the run in folder RUN what is done, what is not, whether its audit trail is whole, and what comes next.

    \b
    Example:
      goalcover status runs/first
    """
    from ..store import Run
    from .terminal import plain

    with Run.open(run, write=False) as opened:
        told = _status(opened)
    if as_json:
        click.echo(as_text(told))
        return
    for name, value in told.items():
        if name == "audit trail" and value["problems"]:
            click.echo(f"audit trail       {value['events']} events, BROKEN: {' '.join(value['problems'])}")
        elif name == "audit trail":
            click.echo(f"audit trail       {value['events']} events, whole, last hash {value['last']}")
        else:
            click.echo(f"{name:<17} {plain(_in_words(value))}")


def _status(run: Run) -> dict[str, Any]:
    """What there is to say of a run, by what it is about."""
    from ..purging import is_begun, is_purged
    from . import decided
    from .results import STARTED, results
    from .written import candidates

    events = run.events()
    audit = {"events": len(events), "last": events[-1].hash if events else "", "problems": run.verify_events()}
    counts = run.counts()
    rows = {"used": counts.rows, "different": counts.samples, "refused": counts.refusals}
    origin = run.origin()
    told: dict[str, Any] = {"run": str(run.folder), "data": origin.path if origin else "", "rows": rows}
    if is_begun(run):
        told["texts"] = "PURGE NOT FINISHED: run the same goalcover purge again"
    elif is_purged(run):
        told["texts"] = "purged; given the data again, goalcover assess puts them back"
    if trained := _trainings(run):
        told["trainings"] = trained
    folder = shlex.quote(str(run.folder))
    if trained and not counts.rows and not audit["problems"]:
        return {**told, "audit trail": audit, "next": _next_training(folder, trained)}
    if not audit["problems"] and not any(event.kind == STARTED for event in events):
        return {**told, "audit trail": audit, "next": f"goalcover assess GOAL DATA --run {folder}"}
    if audit["problems"]:
        return {**told, "audit trail": audit, "next": "bring the run back from a copy: its record was altered"}
    found = results(run)
    n_pairs = len(found.positions) * len(found.coverage)
    n_judged = sum(covered.n_judged for covered in found.coverage)
    n_failed = sum(covered.n_failed for covered in found.coverage)
    told["judge"] = str(found.identity.get("card", ""))
    told["assess"] = {"judged": n_judged, "failed": n_failed, "of": n_pairs}
    told["verdicts"] = dict(Counter(covered.verdict for covered in found.coverage))
    if decisions := decided.as_json(run, found):
        told["decided"] = {
            name: f"{each['verdict']}{' (before the judgements that stand now)' if each['outdated'] else ''}"
            for name, each in decisions.items()
        }
    told["explanations"] = sum(len(run.explanations(found.judge, s.digest)) for s in found.goal.subgoals)
    told["analyze"] = _analysis(run)
    told["recommend"] = len(run.recommendations())
    told["synthesize"] = dict(Counter(candidate.fate for candidate in candidates(run)))
    return {**told, "audit trail": audit, "next": _next(run, found, n_pairs - n_judged - n_failed, told)}


def _trainings(run: Run) -> dict[str, str]:
    """How far each training has come, by its name."""
    from ..trainings import Trainings

    trainings = Trainings(run)
    found = {}
    for name in trainings.names():
        n_steps = trainings.settings(name)["settings"]["steps"]
        ended = trainings.result(name) is not None
        found[name] = "ended" if ended else f"step {len(trainings.steps(name))} of {n_steps}"
    return found


def _next_training(folder: str, trained: dict[str, str]) -> str:
    """The command that comes next in a run that holds trainings alone."""
    open_ones = [name for name, stands in trained.items() if stands != "ended"]
    if open_ones:
        return f"the same goalcover train again: {', '.join(open_ones)} did not end"
    return f"goalcover evaluate {folder} TEST"


def _analysis(run: Run) -> str:
    """How the latest analysis stands: "none", "of an earlier assessment", or its gaps."""
    from ..errors import StoreError
    from .results import ANALYZED, analyzed, latest

    if latest(run, ANALYZED) is None:
        return "none"
    try:
        analyzed(run)
    except StoreError:
        return "of an earlier assessment"
    gaps = [gap.subgoal for gap in run.gaps()]
    return f"gaps: {', '.join(gaps)}" if gaps else "no gap"


def _next(run: Run, found: Results, n_left: int, told: dict[str, Any]) -> str:
    """The command that comes next."""
    folder = shlex.quote(str(run.folder))
    if found.strategic:
        return f"goalcover assess GOAL DATA --run {folder}: a study chose the rows judged so far"
    if n_left:
        return f"the same goalcover assess again: {n_left} pairs are still to be judged"
    if told["assess"]["failed"]:
        return f"the same goalcover assess with --retry-failed: {told['assess']['failed']} judgements failed"
    if told["analyze"] in ("none", "of an earlier assessment"):
        return f"goalcover analyze {folder}"
    if run.gaps() and not told["recommend"]:
        return f"goalcover recommend {folder}"
    if run.gaps() and not told["synthesize"]:
        return f"goalcover synthesize {folder}, or collect what `goalcover recommend` names"
    if not run.gaps() and (open_ones := [each.subgoal.id for each in found.coverage if each.verdict == "undecided"]):
        return f"judge more rows: {', '.join(open_ones)} are undecided; or goalcover filter {folder} -o aligned.jsonl"
    return f"goalcover filter {folder} -o aligned.jsonl"


def _in_words(value: Any) -> str:
    if isinstance(value, dict) and "of" in value:
        return f"{value['judged']} of {value['of']} pairs judged, {value['failed']} failed"
    if isinstance(value, dict) and any(isinstance(each, str) for each in value.values()):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{n} {name}" for name, n in value.items()) or "none"
    return str(value) if value not in ("", 0) else "none"
