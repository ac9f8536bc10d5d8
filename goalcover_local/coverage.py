"""From judgements to coverage: how well the data support each subgoal (paper, section 3.3; Definition 1)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from . import stats
from .calibration import Calibration, HumanLabels
from .scales import Scale, evidence
from .terms import Coverage, Estimate, Goal, Value, Verdict

Rule = Literal["support", "mean"]
Aggregate = Literal["mean", "median"]

LEAST_RANDOM_LABELS = 10
"""How many random labels a subgoal needs for an interval that rests on them."""


def values(
    probabilities: np.ndarray,
    reference: np.ndarray,
    bias: np.ndarray,
    scale: Scale | None,
    calibration: Calibration | None = None,
) -> Mapping[str, np.ndarray]:
    """Every value that exists for these judgements, each of shape (n_samples, n_subgoals), NaN where missing.

    `probabilities` has shape (n_samples, n_subgoals, 6), `reference` (n_samples, n_reference_subgoals, 6), `bias`
    (n_subgoals,) as `scales.subgoal_bias` gives it.
    """
    found = {"score": stats.scores(probabilities), "expectation": stats.expectations(probabilities)}
    if scale is not None:
        found["corrected"] = scale.apply(evidence(probabilities, reference) - bias)
    return calibrated(found, calibration)


def calibrated(found: Mapping[str, np.ndarray], calibration: Calibration | None) -> Mapping[str, np.ndarray]:
    """The values, and the calibrated ones where there is a calibration of one of them."""
    if calibration is None or calibration.source not in found:
        return found
    return {**found, "calibrated": calibration.apply(found[calibration.source])}


def combined(panel: Sequence[Mapping[str, np.ndarray]], aggregate: Aggregate) -> Mapping[str, np.ndarray]:
    """The values of a panel of judges, of each kind that all of them have: the mean or median of those that answered.

    Arrays are as `values` gives them; NaN where no judge answered.
    """
    kinds = [kind for kind in panel[0] if all(kind in each for each in panel)]
    reduce = np.nanmean if aggregate == "mean" else np.nanmedian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of what no judge answered, which is NaN on purpose
        return {kind: np.asarray(reduce(np.stack([each[kind] for each in panel]), axis=0)) for kind in kinds}


def coverage(
    goal: Goal,
    found: Mapping[str, np.ndarray],
    failed: np.ndarray,
    *,
    value: Value,
    tau: float | None = None,
    rule: Rule = "support",
    labels: HumanLabels | None = None,
) -> Sequence[Coverage]:
    """One coverage for each subgoal, in the goal's order; `failed` is boolean, (n_samples, n_subgoals).

    Rows count as often as they stand. By the rule "support" the verdict compares the share of rows whose value reaches
    0.6, with its interval, to the subgoal's target share; by "mean" it is the paper's: a gap if the mean is below tau.
    With the value "calibrated" and at least 10 random labels of a subgoal, the share is that of rows which a person
    would say support it (prediction-powered); `n_support` is counted from the judge all the same.
    """
    limit = goal.tau if tau is None else tau
    covered = []
    for column, subgoal in enumerate(goal.subgoals):
        chosen = found[value][:, column]
        alignment = {name: stats.mean_interval(array[:, column]) for name, array in found.items()}
        n_support, support = stats.support(chosen)
        if labels is not None and value == "calibrated":
            support = _supported(labels, column, chosen) or support
        below = bool(alignment[value].value < limit)
        verdict: Verdict = stats.verdict(support, subgoal.target_share)
        if rule == "mean":
            verdict = "undecided" if alignment[value].n == 0 else "gap" if below else "covered"
        covered.append(
            Coverage(
                subgoal=subgoal,
                alignment=alignment,
                shares=tuple(float(share) for share in stats.anchor_shares(chosen)),
                support=support,
                n_support=n_support,
                n_judged=int((~np.isnan(chosen)).sum()),
                n_failed=int(failed[:, column].sum()),
                below_tau=below,
                verdict=verdict,
            )
        )
    return covered


def _supported(labels: HumanLabels, column: int, calibrated: np.ndarray) -> Estimate | None:
    """The share of rows that people would say support a subgoal; None if there are too few random labels.

    The judge's part are calibrated values and not which of them reach 0.6: where support is rare or the judge weak, few
    or none do, and what the values still tell of the labels would be lost, so intervals would be wider.
    """
    there = labels.random[:, column] & ~np.isnan(labels.values[:, column]) & ~np.isnan(labels.blind[:, column])
    if there.sum() < LEAST_RANDOM_LABELS:
        return None
    supporting = stats.supports(labels.values[there, column]).astype(float)
    return stats.prediction_powered(calibrated[~there], labels.blind[there, column], supporting)
