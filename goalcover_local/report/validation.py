"""A validation as a JSON record, as the paper's Table 2 in Markdown, and as a dumbbell figure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..studies.corruption import ALPHA, Cell, Corruption, Effect, Separation

Record = Mapping[str, Any]

LOST = "graded support"
"""The measure that says how much is lost; whether anything is, the alignment says."""


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
    return None if np.isnan(value) else float(f"{round(value, 12):.6g}")


def cells(mix: Record) -> Iterator[tuple[Record, Record, Record]]:
    """Of every removal and subgoal of a mix: the removal, the alignment's cell, and that of the graded support."""
    aligned, lost = mix["measures"]["alignment"]["removals"], mix["measures"][LOST]["removals"]
    for removal, other in zip(aligned, lost, strict=True):
        for cell, loss in zip(removal["subgoals"], other["subgoals"], strict=True):
            yield removal, cell, loss


HEADER = (
    "removed",
    "subgoal",
    "alignment",
    "after",
    "change",
    "95% interval",
    "chance",
    "support",
    "after",
    "change",
    "95% interval",
    "kept",
)
"""The columns of the table that `rows` fills."""


def rows(mix: Record) -> list[list[str]]:
    """The table of a mix, a line for each removal and subgoal; targets have a star."""
    found = []
    before = ""
    for removal, cell, loss in cells(mix):
        first = removal["removal"] != before
        before = removal["removal"]
        found.append(
            [
                removal["removal"] if first else "",
                cell["subgoal"] + (" *" if cell["target"] else ""),
                *_change(cell),
                _chance(cell["p"]),
                *_change(loss),
                percent(removal["retention"], signed=False) if first else "",
            ]
        )
    return found


def _change(cell: Record) -> list[str]:
    stated = cell["relative"] is not None
    change = percent(cell["relative"]) if stated else _plain(cell["absolute"], signed=True)
    ends = [percent(cell[end]) if stated else _plain(cell[end], signed=True) for end in ("low", "high")]
    return [_plain(cell["original"]), _plain(cell["after"]), change, " to ".join(ends)]


def _plain(value: float | None, signed: bool = False) -> str:
    return "–" if value is None else f"{value:+.3f}" if signed else f"{value:.3f}"


def percent(value: float | None, signed: bool = True) -> str:
    """A share in percent; a dash where it is missing."""
    if value is None:
        return "–"
    return f"{100 * value:+.1f}%" if signed else f"{100 * value:.1f}%"


def _chance(p: float | None) -> str:
    return "–" if p is None else f"{p:.4f}"


def sentences(mix: Record) -> list[str]:
    """What a mix says of the judge: how far targets and others fell, and in how many removals it was noticed."""
    said = []
    for kind, name in (("separation", "removals"), ("natural_gaps", "natural gaps")):
        found = {measure: mix["measures"][measure][kind] for measure in ("alignment", LOST)}
        aligned = found["alignment"]
        if aligned is None:
            continue
        said.append(
            f"{name}: the target is the most affected in {aligned['n_most_affected']} of {aligned['n']}, and falls by "
            f"more than chance (p < {ALPHA:g}) in {aligned['n_flagged']} of {aligned['n']}"
        )
        for measure, each in found.items():
            if each is not None:
                said.append(f"{name}, {measure}: {apart(each)}")
    return said


def apart(found: Record) -> str:
    """How far targets fell, how far others, and the size of that effect, in words."""
    d = f"{found['d']:.2f}" if found["d"] is not None else "–"
    low, high = (("–" if end is None else f"{end:.2f}") for end in found["d_interval"])
    p = "" if found["p"] is None else f", paired t-test p = {found['p']:.3g}"
    p += "" if found["p_ranks"] is None else f", Wilcoxon p = {found['p_ranks']:.3g}"
    return (
        f"targets lose {percent(found['target'], signed=False)} ({_ends(found['target_interval'])}), others "
        f"{percent(found['others'], signed=False)} ({_ends(found['others_interval'])}); Cohen's d, pooled, {d} "
        f"({low} to {high}){p}, n = {found['n']}"
    )


def _ends(interval: Sequence[float | None]) -> str:
    return " to ".join(percent(end, signed=False) for end in interval)


def seeds(record: Record) -> list[list[str]]:
    """Over the strategic samples: for each removal the target's loss, from least to most, and how often it was seen."""
    drawn = [mix for mix in record["mixes"] if mix["mix"] == "strategic"]
    found = []
    for place, removal in enumerate(drawn[0]["measures"]["alignment"]["removals"] if drawn else ()):
        line = [removal["removal"], removal["target"]]
        for measure in ("alignment", LOST):
            each = [mix["measures"][measure]["removals"][place] for mix in drawn]
            told = [next(c for c in one["subgoals"] if c["target"])["relative"] for one in each]
            known = [value for value in told if value is not None]
            line.append(percent(sum(known) / len(known)) if known else "–")
            line.append(f"{percent(min(known))} to {percent(max(known))}" if known else "–")
            if measure == "alignment":
                line.append(f"{sum(one['most_affected'] for one in each)} of {len(each)}")
                line.append(f"{sum(one['flagged'] for one in each)} of {len(each)}")
        found.append(line)
    return found


SEEDS_HEADER = (
    "removed",
    "target",
    "alignment",
    "over seeds",
    "most affected",
    f"p < {ALPHA:g}",
    "support",
    "over seeds",
)
"""The columns of the table that `seeds` fills."""


ALL_SEEN = (
    "Whatever was removed, its target fell by more than chance, and no other subgoal fell as far: this judge sees these "
    "capabilities in these data."
)


def judgement(record: Record) -> list[str]:
    """What a user should take from it: a sentence for each removal that was not noticed, or one that all were."""
    natural = [mix for mix in record["mixes"] if mix["mix"] == "natural"] or record["mixes"]
    strategic = [mix for mix in record["mixes"] if mix["mix"] == "strategic"] or natural
    found, controls = [], []
    for place, removal in enumerate(natural[0]["measures"]["alignment"]["removals"]):
        among_many = [mix["measures"]["alignment"]["removals"][place] for mix in strategic]
        if removal["kind"] == "control":
            controls.append(_of_control(removal))
        elif sentence := _of_removal(removal, 2 * sum(each["flagged"] for each in among_many) > len(among_many)):
            found.append(sentence)
    seen = (
        "Whatever was removed, its target fell by more than chance, and no other subgoal fell as far: this judge sees "
    )
    return [*(found or [f"{seen}these capabilities in these data."]), *controls]


def _of_removal(removal: Record, among_many: bool) -> str:
    """What is wrong with how a removal was noticed; `among_many` if it was in the strategic samples."""
    name, target = removal["removal"], removal["target"]
    if next(cell for cell in removal["subgoals"] if cell["target"])["p"] is None:
        return f"NOT TESTED: {name}. Too few rows were judged: none of what it removes, or nothing else."
    if not removal["flagged"] and among_many:
        return (
            f"NOTICED ONLY AMONG MANY: {name}. Its removal lowers {target} by more than chance in strategic samples, "
            f"but not in the natural mix, where it takes {removal['n_removed']} rows: judge more rows before you believe "
            "it."
        )
    if not removal["flagged"]:
        return (
            f"NOT NOTICED: {name}. Its removal does not lower {target} by more than chance: do not trust this judge's "
            f"coverage of {target} on these data."
        )
    if not removal["most_affected"]:
        return (
            f"NOT TOLD APART: {name}. Its removal lowers another subgoal as far as {target}: this judge mixes them up, "
            "or the same rows teach both."
        )
    return ""


def _of_control(removal: Record) -> str:
    if removal["flagged"]:
        return (
            f"CONTROL FLAGGED: {removal['removal']}. Rows taken at random lower {removal['target']}: mistrust it all."
        )
    return (
        f"Control passed: {removal['removal']}, rows taken at random, lowers {removal['target']} no more than chance."
    )


def markdown(record: Record) -> str:
    """The whole validation in Markdown: a table for the natural mix, one over strategic samples, and what they say."""
    parts = [
        f"# Validation: {escaped(record['study'])}",
        f"Judge {escaped(record['card'])} (digest {record['judge'][:12]}), value {record['value']}, {record['n_rows']} "
        "rows judged. A star marks the subgoal that should fall. `chance` is the share of random removals of as many "
        "rows that lower it as much.",
    ]
    for mix in record["mixes"]:
        if mix["mix"] == "strategic" and mix["seed"] != record["seed"]:
            continue
        name = "Natural mix" if mix["mix"] == "natural" else f"Strategic sample, seed {mix['seed']}"
        parts += [f"## {name}, {mix['n_rows']} rows", table(HEADER, rows(mix))]
        parts.append("\n".join(f"- {sentence}" for sentence in sentences(mix)))
    if over := seeds(record):
        parts += [f"## Over {record['n_seeds']} strategic samples", table(SEEDS_HEADER, over)]
    parts.append("\n\n".join(map(escaped, judgement(record))))
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; whatever its cells hold, they are text."""
    marked = ["| " + " | ".join(map(escaped, line)) + " |" for line in (header, *lines)]
    return "\n".join([marked[0], "|" + "---|" * len(header), *marked[1:]])


def escaped(text: str) -> str:
    """A text on one line of Markdown in which nothing is read as markup, HTML's neither."""
    return re.sub(r"([\\|`*_\[\]<>&#~])", r"\\\1", " ".join(text.split()))


def figure(record: Record, mix: str = "natural") -> str:
    """An SVG of each subgoal's graded support before and after each removal, as dumbbells."""
    from .figures import dumbbells

    chosen = next(each for each in record["mixes"] if each["mix"] == mix)
    groups: dict[str, list[tuple[str, float, float, bool]]] = {}
    for removal, _, loss in cells(chosen):
        if loss["original"] is not None and loss["after"] is not None:
            name = f"{removal['removal']} ({removal['n_removed']} of {chosen['n_rows']} rows)"
            groups.setdefault(name, []).append((loss["subgoal"], loss["original"], loss["after"], loss["target"]))
    return dumbbells(groups, title=f"{record['study']}, {record['card']}", label="graded support")
