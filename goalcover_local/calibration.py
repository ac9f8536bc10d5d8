"""Calibration: a judge's values on the scale of people's labels, and how far the judge agrees with them at all.

One monotone map from values to labels, pooled over a goal's subgoals and bound to the judge and the goal. Whether it is
worth anything is told by labels that it did not see: samples are dealt to folds, and each fold is predicted by a map
that was fitted on the others. It is told within subgoals: who knows how common support of each subgoal is, and never
looks at a row, agrees with nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .errors import DataError

LEAST_LABELS = 20
"""How many labels a map needs."""

LEAST_AGREEMENT = 0.4
"""The floor of agreement: below it a judge's coverage is for diagnosis only."""

N_FOLDS = 5

Source = Literal["expectation", "corrected"]
"""The values that can be calibrated."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A monotone map from a judge's values to people's labels: linear between its knots, flat beyond them.

    A value `at` a knot `becomes` a label, both ascending and in [0, 1]. `judge` and `goal` are the digests that the map
    is bound to, `source` is the value that it takes. On labels that a map did not see: `agreement` is Spearman's
    correlation of prediction and label within a subgoal (0 where its predictions are all alike), the mean over the
    subgoals whose labels differ, weighted by their number; NaN if no subgoal's labels differ. `error` is the mean
    absolute error, and `constant_error` that of always predicting the subgoal's mean label.
    """

    at: tuple[float, ...]
    becomes: tuple[float, ...]
    judge: str
    goal: str
    source: Source
    n_labels: int
    agreement: float
    error: float
    constant_error: float
    floor: float = LEAST_AGREEMENT

    @property
    def diagnostic_only(self) -> bool:
        """Whether the judge agrees too little with people for its coverage to be believed, or nobody can tell."""
        return not self.agreement >= self.floor or self.error >= self.constant_error

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Calibrated values in [0, 1], of values of any shape; NaN stays NaN."""
        return np.where(np.isnan(values), np.nan, np.interp(np.nan_to_num(values), self.at, self.becomes))

    def record(self) -> dict[str, Any]:
        """The calibration as plain values, for JSON, which has no NaN: None stands for it."""
        found = {name: list(held) if isinstance(held, tuple) else held for name, held in asdict(self).items()}
        return found | {"agreement": None if np.isnan(self.agreement) else self.agreement}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Calibration:
        """The calibration that `record` wrote; other keys are passed over."""
        held = {name: record[name] for name in cls.__dataclass_fields__}
        knots: dict[str, Any] = {name: tuple(held[name]) for name in ("at", "becomes")}
        agreement = float("nan") if held["agreement"] is None else held["agreement"]
        return cls(**{**held, **knots, "agreement": agreement})


class Fitted(NamedTuple):
    """A calibration, and for each label what maps predict that did not see it, (n_labels,); NaN without a value."""

    calibration: Calibration
    blind: np.ndarray


@dataclass(frozen=True, slots=True)
class HumanLabels:
    """What people said of rows, as arrays of shape (n_samples, n_subgoals).

    `values` in [0, 1], NaN where there is no label; `random` is True where the row was drawn at random; `blind` are
    calibrated values by maps that did not see the label, NaN where there is none.
    """

    values: np.ndarray
    random: np.ndarray
    blind: np.ndarray


def fit(
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    subgoals: np.ndarray,
    *,
    judge: str,
    goal: str,
    source: Source = "expectation",
    floor: float = LEAST_AGREEMENT,
) -> Fitted:
    """The map from values to labels, each (n_labels,) in [0, 1], and what it is worth on labels that it did not see.

    `groups` (n_labels,) numbers the samples: labels of one sample are in one fold. `subgoals` (n_labels,) numbers what
    they were asked about. Pairs whose value is missing (NaN) are left out. Equal input gives equal output. Raises
    DataError for fewer than 20 labels, labels that are all alike, or labels of one sample alone.
    Source: isotonic regression, Barlow et al. (1972), as scikit-learn fits it.
    """
    from sklearn.model_selection import GroupKFold

    there = ~(np.isnan(values) | np.isnan(labels))
    x, y, samples, asked = values[there], labels[there], groups[there], subgoals[there]
    n_samples = len(np.unique(samples))
    _refuse_useless(y, n_samples)
    predicted, constant = np.empty(len(y)), np.empty(len(y))
    folds = GroupKFold(min(N_FOLDS, n_samples), shuffle=True, random_state=0)
    for seen, unseen in folds.split(x, y, samples):
        predicted[unseen] = np.interp(x[unseen], *_knots(x[seen], y[seen]))
        constant[unseen] = _means(y[seen], asked[seen], asked[unseen])
    calibration = Calibration(
        *_knots(x, y),
        judge=judge,
        goal=goal,
        source=source,
        n_labels=len(y),
        agreement=_agreement(predicted, y, asked),
        error=float(np.abs(predicted - y).mean()),
        constant_error=float(np.abs(constant - y).mean()),
        floor=floor,
    )
    blind = np.full(len(labels), np.nan)
    blind[there] = predicted
    return Fitted(calibration, blind)


def _refuse_useless(labels: np.ndarray, n_samples: int) -> None:
    """Raises DataError for labels of which nothing can be learnt."""
    if len(labels) < LEAST_LABELS:
        counted = "is 1 label" if len(labels) == 1 else f"are {len(labels)} labels"
        raise DataError(
            f"There {counted} of pairs that the judge has a value for; a map needs {LEAST_LABELS}.",
            "Label more rows: `goalcover calibrate RUN --sheet FILE` writes some to fill in.",
        )
    if np.ptp(labels) == 0:
        raise DataError(
            f"All {len(labels)} labels are alike, so they cannot tell a good judge from a bad one.",
            "Label rows of both kinds: some that support a subgoal, and some that do not.",
        )
    if n_samples < 2:
        raise DataError("All labels are of one sample.", "Label at least two different rows.")


def _means(labels: np.ndarray, subgoals: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """For each of the subgoals asked, the mean of its labels; that of all labels where it has none."""
    own = {subgoal: labels[subgoals == subgoal].mean() for subgoal in np.unique(subgoals)}
    return np.array([own.get(subgoal, labels.mean()) for subgoal in asked])


def _agreement(predicted: np.ndarray, labels: np.ndarray, subgoals: np.ndarray) -> float:
    """Spearman's correlation within the subgoals whose labels differ, their mean weighted by labels; NaN if none do."""
    from scipy.stats import spearmanr

    found, weights = [], []
    for subgoal in np.unique(subgoals):
        said, label = predicted[subgoals == subgoal], labels[subgoals == subgoal]
        if np.ptp(label) > 0:
            found.append(float(spearmanr(said, label).statistic) if np.ptp(said) > 0 else 0.0)
            weights.append(len(label))
    return float(np.average(found, weights=weights)) if found else float("nan")


def _knots(values: np.ndarray, labels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Where the increasing map of least squares bends: values, ascending, and what they become."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, increasing=True, out_of_bounds="clip").fit(values, labels)
    return tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_))
