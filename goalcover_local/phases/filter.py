"""The goal-aligned subset: which rows to keep by their stored values, and why (paper, section 6.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ..errors import DataError
from ..terms import SUPPORT_AT

Measure = Literal["mean", "max", "any", "all"]
"""What a row is kept by: its mean over the subgoals, its best subgoal (two names for it), or every subgoal."""

Outcome: TypeAlias = tuple[np.ndarray, Callable[[int], str]]
"""Which rows are kept, boolean, (n_rows,), and what is said of one."""

_NEAR = 1e-9
_AT_LEAST = re.compile(r"(mean|max|any|all) *(?:>=|≥) *(\d*\.?\d+)", re.ASCII)
_TOP = re.compile(r"top *(\d*\.?\d+) *%(?: *by *(mean|max))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a row's `measure` must reach, in [0, 1]; or, if `top`, which percentage of the rows is kept by it."""

    measure: Measure
    bound: float
    top: bool = False

    def __str__(self) -> str:
        if self.top:
            return f"top {self.bound:g}%" + (" by max" if self.measure == "max" else "")
        return f"{self.measure} >= {self.bound:g}"


def parse_rule(text: str) -> Rule:
    """The rule that a text writes, such as "any >= 0.6" or "top 50% by max". Raises DataError if it writes none."""
    plain = " ".join(text.lower().split())
    if (found := _AT_LEAST.fullmatch(plain)) and float(found[2]) <= 1:
        return Rule(found[1], float(found[2]))  # type: ignore[arg-type]
    if (found := _TOP.fullmatch(plain)) and 0 < float(found[1]) <= 100:
        return Rule("max" if found[2] == "max" else "mean", float(found[1]), top=True)
    raise DataError(
        f"{text!r} is no rule to keep rows by.",
        "Write mean, max, any or all with a value from 0 to 1, such as 'any >= 0.6', or 'top 50%', 'top 50% by max'.",
    )


@dataclass(frozen=True, slots=True)
class Criteria:
    """A rule and what refines it, by subgoal id.

    `thresholds` stand for the rule's value where it asks subgoals one by one (any, max, all); where it asks for a mean
    or the top, a row must reach them as well. `weights` (1 if not given) count in means. With `stratify` the top is
    taken within each stratum: the rows whose best subgoal is the same. Whatever the rule, of each subgoal the best
    `at_least` rows that support it are kept, or all there are.
    """

    rule: Rule
    thresholds: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    stratify: bool = False
    at_least: int = 0

    def check(self, subgoals: Sequence[str]) -> None:
        """Nothing. Raises DataError if the parts do not go together, or name a subgoal that is none of these."""
        for identity in (*self.thresholds, *self.weights):
            if identity not in subgoals:
                raise DataError(f"There is no subgoal {identity!r}.", f"Choose among {', '.join(subgoals)}.")
        if self.stratify and not self.rule.top:
            raise DataError(
                "--stratify goes with a top share only, such as --keep 'top 50%'.", "Give one, or leave --stratify out."
            )
        if self.weights and self.rule.measure != "mean":
            raise DataError(
                "--weight goes with a mean only, such as --keep 'mean >= 0.6' or --keep 'top 50%'.",
                "Give one, or leave --weight out.",
            )
        weights = [self.weights.get(identity, 1.0) for identity in subgoals]
        if not all(isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise DataError("A weight is below 0, or all are 0.", "Give at least one subgoal a weight above 0.")


class Selection(NamedTuple):
    """What became of each row: whether it is kept, boolean, (n_rows,), and the reason."""

    kept: np.ndarray
    reasons: Sequence[str]


def select(
    values: np.ndarray, subgoals: Sequence[str], criteria: Criteria, drawn: np.ndarray | None = None
) -> Selection:
    """The fate of each row by `values`, (n_rows, n_subgoals), NaN where missing; `subgoals` are the columns' ids.

    What is missing is left out, never 0: a row goes by the values that it has, and is rejected if it has none, or if
    by the rule `all` one is lacking. `drawn`, boolean, (n_rows,), marks the rows that the assessment drew. Equal rows
    have equal fates, except at the edge of a top or of `at_least`, where the earlier one goes first. Raises DataError
    as `Criteria.check` does.
    """
    criteria.check(subgoals)
    rule = criteria.rule
    if rule.measure == "all" or (rule.measure in ("any", "max") and not rule.top):
        kept, said = _by_one(values, subgoals, criteria)
    else:
        measured = _measured(values, subgoals, criteria)
        by = _by_rank if rule.top else _by_mean
        kept, said = _reaching_thresholds(by(measured, values, subgoals, criteria), values, subgoals, criteria)
    n_missing = np.isnan(values).sum(axis=1)
    supporting = _supporting(values, subgoals, criteria.at_least)

    def reason(row: int) -> str:
        if drawn is not None and not drawn[row]:
            return "not drawn by the assessment (--limit)"
        missing = f"not yet judged, or failed: {n_missing[row]} of {len(subgoals)}"
        if n_missing[row] == len(subgoals):
            return missing
        told = said(row) if kept[row] else supporting.get(row) or said(row)
        return f"{told} ({missing})" if n_missing[row] else told

    reasons = [reason(row) for row in range(len(values))]
    spared = np.isin(np.arange(len(values)), list(supporting))
    return Selection(kept | spared, reasons)


def _by_one(values: np.ndarray, subgoals: Sequence[str], criteria: Criteria) -> Outcome:
    """Rows of which one subgoal, or every one, reaches its threshold; the one that decides is told."""
    rule = criteria.rule
    bounds = np.array([criteria.thresholds.get(identity, rule.bound) for identity in subgoals])
    every = rule.measure == "all"
    margins = np.where(np.isnan(values), np.inf if every else -np.inf, values - bounds)
    deciding = margins.argmin(axis=1) if every else margins.argmax(axis=1)
    reached = margins[np.arange(len(values)), deciding] >= -_NEAR
    whole = ~np.isnan(values).any(axis=1)
    kept = reached & (whole if every else ~np.isnan(values).all(axis=1))

    def said(row: int) -> str:
        column = deciding[row]
        if every and reached[row] and not whole[row]:
            return "not judged for all"
        compared = _compared(values[row, column], bounds[column])
        return f"{rule.measure} {compared} ({'lowest' if every else 'best'}: {subgoals[column]})"

    return kept, said


def _measured(values: np.ndarray, subgoals: Sequence[str], criteria: Criteria) -> np.ndarray:
    """Each row's best value or weighted mean, (n_rows,), of what is there; NaN if nothing with a weight is."""
    there = ~np.isnan(values)
    if criteria.rule.measure == "max":
        best = np.where(there, values, -np.inf).max(axis=1)
        return np.where(there.any(axis=1), best, np.nan)
    weights = np.array([criteria.weights.get(identity, 1.0) for identity in subgoals])
    weights = weights / weights.max()
    total = there @ weights
    return np.where(total > 0, np.nan_to_num(values) @ weights / np.where(total > 0, total, 1), np.nan)


def _by_mean(measured: np.ndarray, values: np.ndarray, subgoals: Sequence[str], criteria: Criteria) -> Outcome:
    """Rows whose mean reaches the rule's value."""

    def said(row: int) -> str:
        if np.isnan(measured[row]):
            return "not judged for any subgoal that has a weight"
        return f"mean {_compared(measured[row], criteria.rule.bound)}"

    return measured >= criteria.rule.bound - _NEAR, said


def _by_rank(measured: np.ndarray, values: np.ndarray, subgoals: Sequence[str], criteria: Criteria) -> Outcome:
    """The top share of the rows, or of each stratum, rounded up to whole rows."""
    rule = criteria.rule
    best = np.where(np.isnan(values), -np.inf, values).argmax(axis=1)
    strata = best if criteria.stratify else np.zeros(len(values), dtype=int)
    rank, size, most = (np.zeros(len(values), dtype=int) for _ in range(3))
    for stratum in np.unique(strata):
        rows = np.flatnonzero((strata == stratum) & ~np.isnan(measured))
        rows = rows[np.argsort(-measured[rows].round(9), kind="stable")]
        rank[rows] = np.arange(1, len(rows) + 1)
        size[rows] = len(rows)
        most[rows] = int(np.ceil(len(rows) * rule.bound / 100 - _NEAR))

    def said(row: int) -> str:
        if np.isnan(measured[row]):
            return "not judged for any subgoal that has a weight"
        where = f" where {subgoals[best[row]]} is best" if criteria.stratify else ""
        place = f"rank {rank[row]} of {size[row]}{where} by {rule.measure} {measured[row]:.2f}"
        return f"{place}, top {rule.bound:g}% are {most[row]}"

    return (rank > 0) & (rank <= most), said


def _reaching_thresholds(outcome: Outcome, values: np.ndarray, subgoals: Sequence[str], criteria: Criteria) -> Outcome:
    """Of the rows kept, those that also reach every threshold; a value that is missing does not."""
    kept, before = outcome
    asked = [(column, criteria.thresholds[s]) for column, s in enumerate(subgoals) if s in criteria.thresholds]
    short = {column: ~(values[:, column] >= bound - _NEAR) for column, bound in asked}

    def said(row: int) -> str:
        found = next(((column, bound) for column, bound in asked if kept[row] and short[column][row]), None)
        if found is None:
            return before(row)
        column, bound = found
        value = values[row, column]
        why = f"was not judged, {bound:g} is asked" if np.isnan(value) else _compared(value, bound)
        return f"{before(row)}, but {subgoals[column]} {why}"

    return kept & ~np.any([*short.values(), np.zeros(len(values), dtype=bool)], axis=0), said


def _supporting(values: np.ndarray, subgoals: Sequence[str], at_least: int) -> Mapping[int, str]:
    """Of each subgoal the best so many rows that support it, each with why it is kept."""
    found: dict[int, str] = {}
    for column, subgoal in enumerate(subgoals):
        rows = np.flatnonzero(values[:, column] >= SUPPORT_AT - _NEAR)
        ranked = rows[np.argsort(-values[rows, column].round(9), kind="stable")]
        for rank, row in enumerate(ranked[:at_least].tolist(), 1):
            found.setdefault(row, f"kept for {subgoal}: row {rank} of {len(rows)} that support it")
    return found


def _compared(value: float, bound: float) -> str:
    """The comparison in words, with as many digits, from two, as keep rounding from turning it round."""
    reaches = value >= bound - _NEAR
    for digits in range(2, 12):
        text = f"{value:.{digits}f}"
        if (float(text) >= bound - _NEAR) == reaches:
            break
    return f"{text} {'>=' if reaches else '<'} {bound:g}"
