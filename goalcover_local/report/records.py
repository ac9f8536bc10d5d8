"""A validation as plain values for JSON, and what it says of a judge: an outcome for each removal, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..studies.corruption import ALPHA, Cell, Corruption, Effect, Separation

Record = Mapping[str, Any]


def mix_record(name: str, seed: int | None, found: Mapping[str, Corruption]) -> dict[str, Any]:
    """One draw of rows as plain values for JSON: by measure its removals and what sets targets apart."""
    measures = {}
    for measure, corruption in found.items():
        measures[measure] = {
            "removals": [_effect(effect) for effect in corruption.effects],
            "separation": separation_record(corruption.separation()),
            "natural_gaps": separation_record(corruption.separation("natural gap")),
        }
    n_rows = next(iter(found.values())).n_rows
    return {"mix": name, "seed": seed, "n_rows": n_rows, "measures": measures}


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "removal": effect.removal,
        "target": effect.target.subgoal,
        "kind": effect.kind,
        "n_removed": effect.n_removed,
        "retention": number(effect.retention),
        "flagged": effect.flagged,
        "most_affected": effect.most_affected,
        "subgoals": [_cell(cell) for cell in effect.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {name: number(value) if isinstance(value, float) else value for name, value in asdict(cell).items()}


def separation_record(found: Separation) -> dict[str, Any] | None:
    """What sets targets apart as plain values for JSON; None where no removal could be told."""
    if not found.n:
        return None
    told = asdict(found)
    paired = told.pop("paired")
    for name in ("target_interval", "others_interval", "d_interval"):
        told[name] = [number(end) for end in told[name]]
    told |= {"p": paired["p"], "p_ranks": paired["p_ranks"], "d": paired["d"], "d_paired": paired["d_paired"]}
    return {name: number(value) if isinstance(value, float) else value for name, value in told.items()}


def number(value: float) -> float | None:
    """A number for JSON, to six digits and without what rounding leaves of zero; None where it is missing."""
    return None if np.isnan(value) else float(f"{round(value, 12) + 0.0:.6g}")


SEES = (
    "Whatever was removed, its target fell by more than chance, and no other subgoal fell as far: this judge sees "
    "these capabilities in these data."
)
SEES_ONE = (
    "Whatever was removed, its target fell by more than chance. There is one subgoal, so nothing tells whether others "
    "would have stayed."
)
ONLY_CONTROLS = "Only rows taken at random were removed: this says nothing of what the judge sees."
"""What is said of the judge where no removal went wrong."""


def outcomes(mixes: Sequence[Record]) -> list[dict[str, str]]:
    """For each removal its outcome and a sentence about it: by the natural mix, and by the strategic samples beside it.

    An outcome is "noticed", "noticed among many only", "not noticed", "not told apart", "too little to lose", "not
    tested", "control passed" or "control flagged".
    """
    natural = [mix for mix in mixes if mix["mix"] == "natural"] or list(mixes)
    strategic = [mix for mix in mixes if mix["mix"] == "strategic"] or natural
    found = []
    for place, removal in enumerate(natural[0]["measures"]["alignment"]["removals"]):
        among = [mix["measures"]["alignment"]["removals"][place]["flagged"] for mix in strategic]
        outcome = _outcome(removal, natural[0]["n_rows"], 2 * sum(among) > len(among))
        target = next(cell for cell in removal["subgoals"] if cell["target"])
        sentence = _SENTENCES[outcome].format(
            name=removal["removal"],
            target=removal["target"],
            n=removal["n_removed"],
            rows=natural[0]["n_rows"],
            base=f"{target['original']:.3f}" if target["original"] is not None else "nothing",
        )
        found.append({"removal": removal["removal"], "outcome": outcome, "sentence": sentence})
    return found


def judgement(told: Sequence[Mapping[str, str]], n_subgoals: int) -> list[str]:
    """What a user should take from the outcomes: a sentence for each that went wrong, or one that none did."""
    wrong = [each["sentence"] for each in told if each["outcome"] not in ("noticed", "control passed")]
    controls = [each["sentence"] for each in told if each["outcome"] == "control passed"]
    if wrong:
        return [*wrong, *controls]
    return [ONLY_CONTROLS if len(controls) == len(told) else SEES if n_subgoals > 1 else SEES_ONE, *controls]


_SENTENCES = {
    "noticed": "{name}: its removal lowers {target} by more than chance, and no other subgoal as far.",
    "noticed among many only": "NOTICED ONLY AMONG MANY: {name}. Its removal lowers {target} by more than chance in "
    "strategic samples, but not in the natural mix, where it takes {n} rows: judge more rows before you believe it.",
    "not noticed": "NOT NOTICED: {name}. Its removal does not lower {target} by more than chance: do not trust this "
    "judge's coverage of {target} on these data.",
    "not told apart": "NOT TOLD APART: {name}. Its removal lowers another subgoal as far as {target}: this judge mixes "
    "them up, or the same rows teach both.",
    "too little to lose": "TOO LITTLE TO LOSE: {name}. {target} falls by more than chance, but has {base} to lose: how "
    "far it falls beside others is not stated.",
    "not tested": "NOT TESTED: {name}. It takes {n} of the {rows} rows judged: of so few no drop can be told from "
    "chance.",
    "control passed": "Control passed: {name}, rows taken at random, lowers {target} no more than chance.",
    "control flagged": "CONTROL FLAGGED: {name}. Rows taken at random lower {target} by more than chance: mistrust all "
    "of this.",
}


def _outcome(removal: Record, n_rows: int, among_many: bool) -> str:
    target = next(cell for cell in removal["subgoals"] if cell["target"])
    if removal["kind"] == "control":
        return "control flagged" if removal["flagged"] else "control passed"
    if target["p"] is None or _too_few(removal["n_removed"], n_rows):
        return "not tested"
    if not removal["flagged"]:
        return "noticed among many only" if among_many else "not noticed"
    if target["relative"] is None:
        return "too little to lose"
    return "noticed" if removal["most_affected"] else "not told apart"


def _too_few(n_removed: int, n_rows: int) -> bool:
    """Whether so few sets of as many rows can be removed that even the one that lowers most is no rare one."""
    return n_rows <= 1 / ALPHA and 1 / math.comb(n_rows, n_removed) >= ALPHA
