"""What a run's judgements amount to, read from the store."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calibration import Calibration
from ..coverage import Aggregate, Rule, calibrated, combined, coverage, values
from ..errors import StoreError
from ..scales import Scale, evidence, reference_digest, reference_samples, reference_subgoals, subgoal_bias
from ..store import Judged, Keys, Run
from ..terms import Coverage, Goal, Value
from . import calibrations

STARTED = "assessment started"
ANALYZED = "analysis ended"


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
