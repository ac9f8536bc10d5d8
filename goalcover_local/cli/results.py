"""What a run's judgements amount to: read from the store, for `show`, for `assess` when it ends, and for `export`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..coverage import Rule, coverage, values
from ..errors import StoreError
from ..scales import Scale, evidence, reference_digest, reference_samples, reference_subgoals, subgoal_bias
from ..store import Judged, Keys, Run
from ..terms import Coverage, Goal, Value
from .progress import duration
from .table import print_table

STARTED = "assessment started"
ANALYZED = "analysis ended"


@dataclass(frozen=True)
class Results:
    """A run's latest assessment: its settings, its values per row and subgoal, and the coverage they give."""

    goal: Goal
    judge: str
    identity: Mapping[str, Any]
    value: Value
    rule: Rule
    tau: float
    positions: np.ndarray
    values: Mapping[str, np.ndarray]
    coverage: Sequence[Coverage]
    n_truncated: int
    agreement: float | None


def latest(run: Run, kind: str) -> Mapping[str, Any] | None:
    """The details of the run's latest event of a kind; None if there is none."""
    for event in reversed(run.events()):
        if event.kind == kind:
            details: Mapping[str, Any] = json.loads(event.details)
            return details
    return None


def settings(run: Run) -> Mapping[str, Any]:
    """The settings of the run's latest assessment. Raises StoreError if nothing was assessed."""
    if (details := latest(run, STARTED)) is not None:
        return details
    mend = f"Run `goalcover assess GOAL DATA --run {shlex.quote(str(run.folder))}` first."
    raise StoreError(f"Nothing was assessed in {run.folder}.", mend)


def results(run: Run, *, value: Value | None = None, tau: float | None = None, rule: Rule = "support") -> Results:
    """The results of the run's latest assessment, over the rows it drew. Raises StoreError if there is none."""
    told = settings(run)
    goal, judge = run.goal(), str(told["judge"])
    positions = run.draw(told["seed"], told["limit"] or None)
    judged, scale, found = values_of(run, goal, judge, run.row_samples(positions))
    chosen: Value = value or told["value"]
    if chosen not in found:
        raise StoreError(
            f"This run has no {chosen} values.",
            f"Choose one of {', '.join(sorted(found))} with --value, or assess again.",
        )
    limit = float(told["tau"]) if tau is None else tau
    return Results(
        goal=goal,
        judge=judge,
        identity=run.judges()[judge],
        value=chosen,
        rule=rule,
        tau=limit,
        positions=positions,
        values=found,
        coverage=coverage(goal, found, judged.failed, value=chosen, tau=limit, rule=rule),
        n_truncated=len(run.truncations(judge)),
        agreement=scale.agreement if scale else None,
    )


def values_of(run: Run, goal: Goal, judge: str, samples: Keys) -> tuple[Judged, Scale | None, Mapping[str, np.ndarray]]:
    """What a judge said of samples, its scale, and every value that exists, each (n_samples, n_subgoals)."""
    own = [subgoal.digest for subgoal in goal.subgoals]
    aliens = [subgoal.digest for subgoal in reference_subgoals()]
    judged = run.probabilities(judge, own, samples)
    record = run.scale(judge)
    # Evidence of other reference pairs is not on this scale: after an update of them, assess again.
    scale = Scale.from_record(record) if record and record["reference"] == reference_digest() else None
    ground = run.keys(sample.digest for sample in reference_samples())
    bias = subgoal_bias(
        evidence(
            run.probabilities(judge, own, ground).probabilities, run.probabilities(judge, aliens, ground).probabilities
        )
    )
    reference = run.probabilities(judge, aliens, samples).probabilities
    return judged, scale, values(judged.probabilities, reference, bias, scale)


def analyzed(run: Run) -> Results:
    """The results of which the run's gaps are. Raises StoreError if none were analyzed, or if they are of others."""
    now = settings(run)
    told = latest(run, ANALYZED)
    if told is None:
        raise StoreError(f"The gaps of {run.folder} were not analyzed.", f"Run `{_analyze(run)}` first.")
    stale = StoreError(f"The gaps of {run.folder} are of an earlier assessment.", f"Run `{_analyze(run)}` again.")
    if any(told.get(name) != now.get(name) for name in ("judge", "goal", "data", "seed", "limit")):
        raise stale
    if "n_judged" not in told:
        raise stale
    found = results(run, value=told["value"], tau=told["tau"], rule=told["rule"])
    n_judged = sum(covered.n_judged for covered in found.coverage)
    if n_judged != told["n_judged"] or [gap.subgoal for gap in run.gaps()] != told["gaps"]:
        raise stale
    return found


def _analyze(run: Run) -> str:
    """The command that analyzes a run, as it is typed."""
    return f"goalcover analyze {shlex.quote(str(run.folder))}"


def identity(run: Run) -> Mapping[str, Any]:
    """What there is to know of the judge of the run's latest assessment."""
    return run.judges()[str(settings(run)["judge"])]


def n_unjudged(found: Results) -> int:
    """How many pairs of the rows drawn are still to be judged."""
    return sum(len(found.positions) - covered.n_judged - covered.n_failed for covered in found.coverage)


def tell_unfinished(found: Results) -> None:
    """Nothing; warns where an assessment is not finished."""
    import click

    if n := n_unjudged(found):
        click.echo(
            f"The assessment is not finished: {n} pairs are still to be judged. What follows is of those that are.",
            err=True,
        )


def as_json(run: Run, found: Results) -> dict[str, Any]:
    """The interface that `goalcover show --json` keeps (see docs/show.schema.json)."""
    return {
        "run": str(run.folder),
        "judge": found.judge,
        "value": found.value,
        "n_samples": len(found.positions),
        "n_asked": run.n_asked(),
        "n_stored": run.n_stored(),
        "device_seconds": round(run.counter("device_seconds"), 1),
        "subgoals": [_subgoal_json(found, covered) for covered in found.coverage],
    }


def _subgoal_json(found: Results, covered: Coverage) -> dict[str, Any]:
    chosen = covered.alignment[found.value]
    return {
        "id": covered.subgoal.id,
        "name": covered.subgoal.name,
        "alignment": {name: number(estimate.value) for name, estimate in covered.alignment.items()},
        "low": chosen.low,
        "high": chosen.high,
        "shares": [number(share) for share in covered.shares],
        "support": {
            "n": covered.n_support,
            "share": number(covered.support.value),
            "low": covered.support.low,
            "high": covered.support.high,
        },
        "target_share": covered.subgoal.target_share,
        "n_judged": covered.n_judged,
        "n_failed": covered.n_failed,
        "below_tau": covered.below_tau,
        "verdict": covered.verdict,
    }


def number(value: float) -> float | None:
    """A number for JSON; None where it is missing."""
    return None if np.isnan(value) else round(float(value), 6)


def print_results(run: Run, found: Results) -> None:
    """Nothing; prints the coverage table and what it rests on."""
    import click

    header = ["subgoal", "alignment", "95% interval", "at 0.0 … 1.0, %", "support", "95% interval", "target"]
    header += ["judged", "failed", f"mean < {found.tau:g}", "verdict"]
    rows = []
    for covered in found.coverage:
        mean = covered.alignment[found.value]
        shares = " ".join("–" if np.isnan(s) else f"{100 * s:.0f}" for s in covered.shares)
        rows.append(
            [
                covered.subgoal.id,
                "–" if np.isnan(mean.value) else f"{mean.value:.3f}",
                f"{mean.low:.3f} to {mean.high:.3f}",
                shares,
                f"{covered.n_support} of {covered.n_judged}",
                f"{100 * covered.support.low:.1f}% to {100 * covered.support.high:.1f}%",
                f"{100 * covered.subgoal.target_share:g}%",
                str(covered.n_judged),
                str(covered.n_failed),
                "yes" if covered.below_tau else "no",
                covered.verdict.upper() if covered.verdict == "gap" else covered.verdict,
            ]
        )
    print_table(header, rows, right=(1, 4, 6, 7, 8))
    click.echo(f"{len(found.positions)} rows, value: {found.value}, rule: {found.rule}, judge: {_judge_line(found)}")
    if n_missing := n_unjudged(found):
        click.echo(f"NOT FINISHED: {n_missing} pairs are still to be judged; the same `goalcover assess` goes on.")
    if found.n_truncated:
        click.echo(f"{found.n_truncated} samples were longer than the judge's context and cut in their middle.")
    if found.agreement is not None:
        click.echo(
            f"On our reference pairs this judge's evidence agrees with their anchors at rho = {found.agreement:.2f}."
        )
    click.echo(
        f"{run.n_asked()} pairs asked, {run.n_stored()} stored (reference pairs included), "
        f"{duration(run.counter('device_seconds'))} of device time ({run.counter('device_seconds') / 3600:.4f} h)."
    )


def _judge_line(found: Results) -> str:
    card, device = found.identity.get("card", "?"), found.identity.get("device", "?")
    return f"{card} ({found.identity.get('precision', '?')} on {device}, digest {found.judge[:12]})"
