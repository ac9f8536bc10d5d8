"""What a run's judgements amount to, as `show` prints it, and `assess` when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import numpy as np

from ..coverage import LEAST_RANDOM_LABELS
from ..store import Run
from ..terms import Coverage, Value
from . import calibrations, decided
from .progress import duration
from .results import Results, n_unjudged
from .table import print_table

STRATEGIC = (
    "STRATEGIC SAMPLE: a study chose these rows by what it removes. Shares and verdicts are not those of the data."
)


def tell_unfinished(found: Results) -> None:
    """Nothing; warns where an assessment is not finished, or its rows were chosen."""
    if found.strategic:
        click.echo(STRATEGIC, err=True)
    if n := n_unjudged(found):
        click.echo(
            f"The assessment is not finished: {n} pairs are still to be judged. What follows is of those that are.",
            err=True,
        )


def as_json(run: Run, found: Results) -> dict[str, Any]:
    """The interface that `goalcover show --json` keeps (see docs/show.schema.json)."""
    decisions = decided.as_json(run, found)
    return {
        "run": str(run.folder),
        "judge": found.judge,
        "value": found.value,
        "strategic": found.strategic,
        "n_samples": len(found.positions),
        "n_asked": run.n_asked(),
        "n_stored": run.n_stored(),
        "device_seconds": round(run.counter("device_seconds"), 1),
        "subgoals": [
            {**_subgoal_json(found, covered), "decision": decisions.get(covered.subgoal.id)}
            for covered in found.coverage
        ],
        "calibration": calibrations.as_json(found.calibration),
        "panel": [
            {
                "judge": member.judge,
                "card": str(member.identity.get("card", "?")),
                "subgoals": [_brief_json(member.value, covered) for covered in member.coverage],
            }
            for member in found.members
        ],
    }


def support_json(covered: Coverage) -> dict[str, Any]:
    """How many rows support a subgoal, and their share with its interval."""
    return {
        "n": covered.n_support,
        "share": number(covered.support.value),
        "low": covered.support.low,
        "high": covered.support.high,
    }


def _brief_json(value: Value, covered: Coverage) -> dict[str, Any]:
    return {
        "id": covered.subgoal.id,
        "alignment": number(covered.alignment[value].value),
        "support": support_json(covered),
        "verdict": covered.verdict,
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
        "support": support_json(covered),
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
    if found.strategic:
        click.echo(STRATEGIC)
    if found.calibration and found.calibration.diagnostic_only:
        click.echo(calibrations.warning(found.calibration))
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
                _supporting(found, covered),
                f"{100 * covered.support.low:.1f}% to {100 * covered.support.high:.1f}%",
                f"{100 * covered.subgoal.target_share:g}%",
                str(covered.n_judged),
                str(covered.n_failed),
                "yes" if covered.below_tau else "no",
                covered.verdict.upper() if covered.verdict == "gap" else covered.verdict,
            ]
        )
    print_table(header, rows, right=(1, 4, 6, 7, 8))
    for line in decided.lines(run, found):
        click.echo(line)
    click.echo(f"{len(found.positions)} rows, value: {found.value}, rule: {found.rule}, {_judges_line(found)}")
    if found.calibration:
        click.echo(calibrations.told(found.calibration))
        if found.value == "calibrated":
            click.echo("Support and its intervals rest on the labels and the judge, means on the judge alone.")
            if few := [
                c.subgoal.id for c, n in zip(found.coverage, found.n_random, strict=True) if n < LEAST_RANDOM_LABELS
            ]:
                click.echo(
                    f"Fewer than {LEAST_RANDOM_LABELS} labels of rows drawn at random: {', '.join(few)}. There the "
                    "judge's values alone decide."
                )
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

    if found.members:
        click.echo("\nEach judge by itself:")
        names = [f"{member.identity.get('card', '?')} {member.judge[:8]}" for member in found.members]
        each = zip(*(member.coverage for member in found.members), strict=True)
        rows = [[those[0].subgoal.id, *map(_brief, those)] for those in each]
        print_table(["subgoal", *names], rows)


def _supporting(found: Results, covered: Coverage) -> str:
    """How many rows support a subgoal, or the share that labels and judge together give."""
    if found.value == "calibrated" and not np.isnan(covered.support.value):
        return f"{100 * covered.support.value:.1f}%"
    return f"{covered.n_support} of {covered.n_judged}"


def _brief(covered: Coverage) -> str:
    return f"{covered.verdict} ({covered.n_support} of {covered.n_judged})"


def _judges_line(found: Results) -> str:
    if not found.members:
        return f"judge: {_judge_line(found.judge, found.identity)}"
    told = ", ".join(_judge_line(member.judge, member.identity) for member in found.members)
    return f"panel of {len(found.members)}, {found.aggregate}: {told}"


def _judge_line(judge: str, identity: Mapping[str, Any]) -> str:
    card, device = identity.get("card", "?"), identity.get("device", "?")
    return f"{card} ({identity.get('precision', '?')} on {device}, digest {judge[:12]})"
