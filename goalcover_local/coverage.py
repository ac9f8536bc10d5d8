"""From judgements to coverage: how well the data support each subgoal (paper, section 3.3; Definition 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from . import stats
from .scales import Scale, evidence
from .terms import Coverage, Goal, Value, Verdict

Rule = Literal["support", "mean"]


def values(
    probabilities: np.ndarray, reference: np.ndarray, bias: np.ndarray, scale: Scale | None
) -> Mapping[str, np.ndarray]:
    """Every value that exists for these judgements, each of shape (n_samples, n_subgoals), NaN where missing.

    `probabilities` has shape (n_samples, n_subgoals, 6), `reference` (n_samples, n_reference_subgoals, 6), `bias`
    (n_subgoals,) as `scales.subgoal_bias` gives it.
    """
    found = {"score": stats.scores(probabilities), "expectation": stats.expectations(probabilities)}
    if scale is not None:
        found["corrected"] = scale.apply(evidence(probabilities, reference) - bias)
    return found


def coverage(
    goal: Goal,
    found: Mapping[str, np.ndarray],
    failed: np.ndarray,
    *,
    value: Value,
    tau: float | None = None,
    rule: Rule = "support",
) -> Sequence[Coverage]:
    """One coverage for each subgoal, in the goal's order; `failed` is boolean, (n_samples, n_subgoals).

    Rows count as often as they stand. By the rule "support" the verdict compares the share of rows whose value reaches
    0.6, with its interval, to the subgoal's target share; by "mean" it is the paper's: a gap if the mean is below tau.
    """
    limit = goal.tau if tau is None else tau
    covered = []
    for column, subgoal in enumerate(goal.subgoals):
        chosen = found[value][:, column]
        alignment = {name: stats.mean_interval(array[:, column]) for name, array in found.items()}
        n_support, support = stats.support(chosen)
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
