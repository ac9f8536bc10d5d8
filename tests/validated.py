"""Validations to test reports on: a real one of ten rows, and one written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from goalcover_local.report.records import mix_record, outcomes
from goalcover_local.studies.corruption import Corruption, corrupt, measured

IDS = ("plain", "hearts", "drugs")
JUDGE = {"study": "hearts", "card": "by hand", "judge": "0123456789abcdef", "value": "corrected"}


def values() -> np.ndarray:
    """Ten rows whose first four teach hearts, and whose first and fifth teach drugs."""
    found = np.full((10, 3), 0.2)
    found[:, 0] = 0.6
    found[:4, 1] = 0.8
    found[[0, 4], 2] = [0.6, 1.0]
    return found


def mix(name: str, seed: int | None, names: tuple[str, ...] = ("Heart rows", "Half of them")) -> dict[str, Any]:
    """A mix with a whole removal and a natural gap, both of hearts."""
    removed = np.array([np.arange(10) < 4, np.arange(10) < 2])
    found: Mapping[str, Corruption] = {
        measure: corrupt(
            measured(values(), measure),
            removed,
            IDS,
            [1, 1],
            names=names,
            kinds=["removal", "natural gap"],
            n_draws=999,
            n_replicates=200,
        )
        for measure in ("alignment", "graded support", "support")
    }
    return mix_record(name, seed, found)


def record(names: tuple[str, ...] = ("Heart rows", "Half of them"), **more: Any) -> dict[str, Any]:
    """A whole validation: the natural mix, and two strategic samples that are just like it."""
    mixes = [mix("natural", None, names), mix("strategic", 3, names), mix("strategic", 4, names)]
    counts = {"seed": 3, "n_seeds": 2, "n_rows": 10, "n_pairs": 30, "n_failed": 0}
    return {**JUDGE, **counts, "subgoals": list(IDS), "outcomes": outcomes(mixes), "mixes": mixes, **more}


def cell_by_hand(subgoal: str, *numbers: float | None, target: bool = False) -> dict[str, Any]:
    """A removal's cell: original, after, absolute, relative, low, high, p."""
    names = ("original", "after", "absolute", "relative", "low", "high", "p")
    return {"subgoal": subgoal, "target": target, **dict(zip(names, numbers, strict=True))}


def removal_by_hand(hearts: dict[str, Any], *others: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a removal did, as a record has it: noticed, unless it is said otherwise."""
    told = {"removal": "Heart rows", "target": "hearts", "kind": "removal", "n_removed": 4, "retention": 0.6}
    return {**told, "flagged": True, "most_affected": True, "subgoals": [hearts, *others], **more}


def small() -> dict[str, Any]:
    """A record written by hand: a removal that is noticed, beside a subgoal that has nothing to lose."""
    aligned = removal_by_hand(
        cell_by_hand("hearts", 0.44, 0.2, -0.24, -0.545455, -0.6, -0.4, 0.0005, target=True),
        cell_by_hand("drugs", 0.01, 0.012, 0.002, None, -0.001, 0.005, 0.7),
    )
    lost = removal_by_hand(
        cell_by_hand("hearts", 0.4, 0.0, -0.4, -1.0, -1.0, -1.0, 0.0005, target=True),
        cell_by_hand("drugs", None, None, None, None, None, None, None),
    )
    separation = {
        "n": 1,
        "n_most_affected": 1,
        "n_flagged": 1,
        "target": 0.545455,
        "target_interval": [0.4, 0.6],
        "others": 0.021,
        "others_interval": [None, None],
        "p": None,
        "p_ranks": None,
        "d": 1.236,
        "d_paired": None,
        "d_interval": [0.9, 1.5],
    }
    both = {
        "alignment": {"removals": [aligned], "separation": separation, "natural_gaps": None},
        "graded support": {"removals": [lost], "separation": None, "natural_gaps": None},
    }
    mixes: list[dict[str, Any]] = [
        {"mix": "natural", "seed": None, "n_rows": 10, "measures": both},
        {"mix": "strategic", "seed": 0, "n_rows": 8, "measures": both},
        {"mix": "strategic", "seed": 1, "n_rows": 8, "measures": both},
    ]
    counts = {"seed": 0, "n_seeds": 2, "n_rows": 10, "n_pairs": 20, "n_failed": 3}
    subgoals = ["hearts", "drugs"]
    return {**JUDGE, **counts, "subgoals": subgoals, "outcomes": outcomes(mixes), "mixes": mixes}
