"""The calibration that a run keeps: an event in its audit trail, with the labels that it rests on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..calibration import Calibration, HumanLabels
from ..terms import digest_of

if TYPE_CHECKING:
    from ..store import Run

CALIBRATED = "calibrated"


class Kept(NamedTuple):
    """A calibration that is on record: as which event, and on which labels it rests.

    `labels` has a line for each: position of the row, column of the subgoal, label, whether the row was drawn at random
    (1 or 0), and the calibrated value by a map that did not see it.
    """

    seq: int
    calibration: Calibration
    labels: np.ndarray

    def of_rows(self, positions: np.ndarray, n_subgoals: int) -> HumanLabels:
        """The labels of the rows at these positions, (n_rows,); those of other rows are left out."""
        shape = len(positions), n_subgoals
        values, random, blind = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_), np.full(shape, np.nan)
        place = {int(position): row for row, position in enumerate(positions)}
        for position, column, label, drawn, predicted in self.labels.tolist():
            if (row := place.get(int(position))) is not None:
                cell = row, int(column)
                values[cell], random[cell], blind[cell] = label, drawn == 1, predicted
        return HumanLabels(values, random, blind)


def judge_of(judge: str, panel: Sequence[str] = (), aggregate: str = "") -> str:
    """The digest that a calibration is bound to: the judge's, or one of a whole panel and how it is aggregated."""
    return digest_of({"panel": sorted(panel), "aggregate": aggregate}) if panel else judge


def kept(run: Run, judge: str, goal: str) -> Kept | None:
    """The latest calibration of this judge, or panel by `judge_of`, for this goal; None if there is none."""
    for event in reversed(run.events()):
        if event.kind == CALIBRATED:
            details = json.loads(event.details)
            if (details["judge"], details["goal"]) == (judge, goal):
                labels = np.array(details["labels"], dtype=np.float64).reshape(-1, 5)
                return Kept(event.seq, Calibration.from_record(details), labels)
    return None


def as_json(calibration: Calibration | None) -> dict[str, Any] | None:
    """What a calibration is worth, without its map; None if there is none."""
    if calibration is None:
        return None
    return {
        "source": calibration.source,
        "n_labels": calibration.n_labels,
        "agreement": None if np.isnan(calibration.agreement) else round(calibration.agreement, 6),
        "floor": calibration.floor,
        "error": round(calibration.error, 6),
        "constant_error": round(calibration.constant_error, 6),
        "diagnostic_only": calibration.diagnostic_only,
    }


def warning(calibration: Calibration) -> str:
    """That a judge's coverage is for diagnosis only, and why; for a calibration of which this is true."""
    if np.isnan(calibration.agreement):
        why = "no subgoal has labels that differ, so that nobody can tell whether the judge looks at the rows"
    elif calibration.agreement < calibration.floor:
        rho = f"rho = {calibration.agreement:.2f}"
        why = f"the judge agrees with people's labels at {rho} within subgoals, below {calibration.floor:g}"
    else:
        why = (
            "the judge comes no closer to people's labels than always the subgoal's mean "
            f"(error {calibration.error:.3f} against {calibration.constant_error:.3f})"
        )
    return f"DIAGNOSTIC ONLY: {why}. Do not rely on its verdicts."


def told(calibration: Calibration) -> str:
    """What a calibration rests on and what it is worth, as a sentence."""
    rho = "unknown" if np.isnan(calibration.agreement) else f"{calibration.agreement:.2f}"
    return (
        f"Calibrated from the {calibration.source} on {calibration.n_labels} labels; on labels not seen: "
        f"rho within subgoals = {rho} (floor {calibration.floor:g}), "
        f"error {calibration.error:.3f} (always the subgoal's mean: {calibration.constant_error:.3f})."
    )
