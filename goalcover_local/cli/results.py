"""What a run's judgements amount to: read from the store, for `show`, for `assess` when it ends, and for `export`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calibration import Calibration
from ..coverage import LEAST_RANDOM_LABELS, Aggregate, Rule, calibrated, combined, coverage, values
from ..errors import StoreError
from ..scales import Scale, evidence, reference_digest, reference_samples, reference_subgoals, subgoal_bias
from ..store import Judged, Keys, Run
from ..terms import Coverage, Goal, Value
from . import calibrations, decided
from .progress import duration
from .table import print_table

STARTED = "assessment started"
ANALYZED = "analysis ended"
STRATEGIC = (
    "STRATEGIC SAMPLE: a study chose these rows by what it removes. Shares and verdicts are not those of the data."
)


@dataclass(frozen=True)
class Member:
    """One judge of a panel: its digest, what there is to know of it, and the coverage that its own values give."""

    judge: str
    identity: Mapping[str, Any]
    value: Value
    coverage: Sequence[Coverage]


@dataclass(frozen=True)
class Results:
    """A run's latest assessment: its settings, its values per row and subgoal, and the coverage they give.

    `strategic` says that a study chose the rows, so that they do not speak for the data; `n_random` is how many labels
    of rows drawn at random each subgoal has, where there is a calibration. Where several judges assessed, `panel` are
    their digests and `judge` is the first of them; `values` are then the `aggregate` of theirs, `members` has what each
    said by itself, and `agreement`, which is of one judge, is None.
    """

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
    calibration: Calibration | None = None
    panel: tuple[str, ...] = ()
    aggregate: Aggregate = "mean"
    members: Sequence[Member] = ()
    strategic: bool = False
    n_random: Sequence[int] = ()

    @property
    def judges(self) -> Sequence[str]:
        """The digests of all judges that assessed, one or a panel."""
        return self.panel or (self.judge,)

    @property
    def each(self) -> Sequence[Sequence[Coverage]]:
        """The coverage that each judge gives by itself."""
        return [member.coverage for member in self.members] or [self.coverage]

    @property
    def n_failed(self) -> int:
        """How many judgements of the rows drawn failed, of all judges."""
        return sum(covered.n_failed for judge in self.each for covered in judge)


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
    panel: tuple[str, ...] = tuple(told.get("panel", ()))
    aggregate: Aggregate = told.get("aggregate", "mean")
    positions = (
        np.array(told["rows"], dtype=np.int64) if "rows" in told else run.draw(told["seed"], told["limit"] or None)
    )
    samples = run.row_samples(positions)
    said = [_said(run, goal, each, samples) for each in panel or (judge,)]
    failed = np.logical_and.reduce([judged.failed for judged, _, _ in said])
    held = calibrations.kept(run, calibrations.judge_of(judge, panel, aggregate), goal.digest)
    found = said[0][2] if len(said) == 1 else combined([each for _, _, each in said], aggregate)
    found = calibrated(found, held.calibration if held else None)
    chosen: Value = value or told["value"]
    _refuse_absent(run, chosen, found)
    limit = float(told["tau"]) if tau is None else tau
    labels = held.of_rows(positions, len(goal.subgoals)) if held else None
    own: Value = held.calibration.source if held and chosen == "calibrated" else chosen
    judges = run.judges()
    return Results(
        goal=goal,
        judge=judge,
        identity=judges[judge],
        value=chosen,
        rule=rule,
        tau=limit,
        positions=positions,
        values=found,
        coverage=coverage(goal, found, failed, value=chosen, tau=limit, rule=rule, labels=labels),
        n_truncated=len({sample for each in panel or (judge,) for sample in run.truncations(each)}),
        agreement=said[0][1].agreement if said[0][1] and not panel else None,
        calibration=held.calibration if held else None,
        panel=panel,
        aggregate=aggregate,
        strategic="rows" in told,
        n_random=[] if labels is None else (labels.random & ~np.isnan(labels.values)).sum(axis=0).tolist(),
        members=[
            Member(each, judges[each], own, coverage(goal, its, judged.failed, value=own, tau=limit, rule=rule))
            for each, (judged, _, its) in zip(panel, said, strict=False)
        ],
    )


def _refuse_absent(run: Run, chosen: Value, found: Mapping[str, np.ndarray]) -> None:
    """Raises StoreError if a run has no values of the kind chosen."""
    if chosen in found:
        return
    mend = f"Choose one of {', '.join(sorted(found))} with --value, or assess again."
    if chosen == "calibrated":
        folder = shlex.quote(str(run.folder))
        mend = f"Label rows and run `goalcover calibrate {folder} --labels FILE`: it is bound to judge and goal."
    raise StoreError(f"This run has no {chosen} values.", mend)


def values_of(run: Run, goal: Goal, judge: str, samples: Keys) -> tuple[Judged, Scale | None, Mapping[str, np.ndarray]]:
    """What a judge said of samples, its scale, and every value that exists, each (n_samples, n_subgoals)."""
    judged, scale, found = _said(run, goal, judge, samples)
    held = calibrations.kept(run, judge, goal.digest)
    return judged, scale, calibrated(found, held.calibration if held else None)


def _said(run: Run, goal: Goal, judge: str, samples: Keys) -> tuple[Judged, Scale | None, Mapping[str, np.ndarray]]:
    """As `values_of`, without calibrated values."""
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
    if _assessed_otherwise(run, by_calibrated=told["value"] == "calibrated"):
        raise stale
    if "n_judged" not in told:
        raise stale
    found = results(run, value=told["value"], tau=told["tau"], rule=told["rule"])
    n_judged = sum(covered.n_judged for covered in found.coverage)
    if n_judged != told["n_judged"] or [gap.subgoal for gap in run.gaps()] != told["gaps"]:
        raise stale
    return found


def _assessed_otherwise(run: Run, *, by_calibrated: bool) -> bool:
    """Whether, since the analysis, another panel or other rows were assessed, or the judge was calibrated anew."""
    names = ("panel", "aggregate", "rows")
    before: list[Any] | None = None
    now: list[Any] | None = None
    for event in run.events():
        if event.kind == STARTED:
            now = [json.loads(event.details).get(name) for name in names]
        elif event.kind == ANALYZED:
            before = now
        elif event.kind == calibrations.CALIBRATED and by_calibrated:
            before = None
    return before != now


def _analyze(run: Run) -> str:
    """The command that analyzes a run, as it is typed."""
    return f"goalcover analyze {shlex.quote(str(run.folder))}"


def identity(run: Run) -> Mapping[str, Any]:
    """What there is to know of the judge of the run's latest assessment."""
    return run.judges()[str(settings(run)["judge"])]


def n_unjudged(found: Results) -> int:
    """How many pairs of the rows drawn are still to be judged."""
    return sum(len(found.positions) - covered.n_judged - covered.n_failed for judge in found.each for covered in judge)


def tell_unfinished(found: Results) -> None:
    """Nothing; warns where an assessment is not finished, or its rows were chosen."""
    import click

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
    import click

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
