"""A set of subgoals and what its checks found, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .terminal import plain

if TYPE_CHECKING:
    from rich.console import Console

    from ..asking import Asker
    from ..overlaps import Overlap
    from ..terms import Finding, Subgoal

UNFIT = {
    "completeness": "saying what a specification leaves open (it asks plain questions instead)",
    "atomicity": "telling one capability from several",
    "overlap": "telling whether two subgoals overlap",
    "uncovered": "telling whether the set covers the specification",
}
"""What a model that decides one of these questions badly must not be trusted with."""


def unfit_for(asker: Asker, *, checks: bool = True) -> list[str]:
    """What to tell a person of a model's weaknesses, as measured on reference cases; nothing if it is fit for all."""
    measured = {name: asker.fitness(name) for name in UNFIT if checks or name == "completeness"}
    lines = [
        f"This model is not fit for {UNFIT[name]}: it decides {fitness.accuracy:.0%} of {fitness.n_cases} reference "
        f"cases well, where guessing gives {1 / len(fitness.bias):.0%}."
        for name, fitness in measured.items()
        if not fitness.fit
    ]
    mend = "What it is not fit for is left to you. Better: a larger model, such as --judge qwen2.5-coder-1.5b-instruct."
    return [*lines, mend] if lines else []


def print_set(console: Console, subgoals: Sequence[Subgoal], findings: Sequence[Finding] | None) -> None:
    """Nothing; prints a set of subgoals and what the checks found."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    by_constraint = _by_constraint(findings or ())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "name", "what it covers", *(["one capability?"] if findings is not None else [])):
        table.add_column(name, overflow="fold")
    single = {finding.subgoals: finding for finding in by_constraint["atomicity"]}
    for subgoal in subgoals:
        cells = [subgoal.id, subgoal.name, subgoal.description]
        if findings is not None:
            cells.append(_verdict(single.get((subgoal.id,))))
        table.add_row(*(Text(plain(cell)) for cell in cells))
    console.print()
    console.print(table)
    if findings is None:
        console.print("Nothing was checked.", markup=False)
        return
    for constraint, what in (("disjointness", "pairs are apart"), ("coverage", "sentences are covered")):
        found = by_constraint[constraint]
        if not found and constraint == "disjointness":
            continue
        holding = sum(finding.outcome == "holds" for finding in found)
        undecided = sum(finding.outcome == "undecided" for finding in found)
        told = f", {undecided} undecided" if undecided else ""
        console.print(f"{holding} of {len(found)} {what}{told}.", markup=False, highlight=False)
    names = {subgoal.id: subgoal.name for subgoal in subgoals}
    against = [finding for finding in findings if finding.outcome == "violated"]
    for number, finding in enumerate(against, 1):
        style = "bold red" if console.is_terminal else None
        console.print(f"  {number}  {plain(told_of(finding, names))}", style=style, markup=False, highlight=False)
    for finding in findings:
        if finding.outcome == "accepted":
            told = plain(f"  accepted: {told_of(finding, names)} Reason: {finding.reason}")
            console.print(told, markup=False, highlight=False)


def told_of(finding: Finding, names: Mapping[str, str]) -> str:
    """What a finding says against the set, in a sentence."""
    about = " and ".join(f"“{names.get(identity, identity)}”" for identity in finding.subgoals)
    sure = "" if finding.probability is None else f" ({1 - finding.probability:.0%})"
    note = f": {finding.note.rstrip('.')}" if finding.note else ""
    if finding.constraint == "atomicity":
        return f"{about} is more than one capability{sure}{note}."
    if finding.constraint == "disjointness":
        return f"{about} overlap{sure}{note}."
    return f"Not covered{sure}: “{finding.statement}”{f' Missing{note}.' if note else ''}"


def _by_constraint(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    from ..terms import CONSTRAINTS

    return {name: [finding for finding in findings if finding.constraint == name] for name in CONSTRAINTS}


def _verdict(finding: Finding | None) -> str:
    if finding is None:
        return "–"
    if finding.probability is None or finding.outcome == "undecided":
        return "undecided"
    if finding.outcome == "holds":
        return f"yes ({finding.probability:.0%})"
    return f"{'NO' if finding.outcome == 'violated' else 'accepted: no'} ({1 - finding.probability:.0%})"


def print_overlaps(console: Console, measured: Sequence[Overlap], findings: Sequence[Finding]) -> None:
    """Nothing; prints how far each pair overlaps by a run's values, beside what the model thinks of their texts."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    thought = {finding.subgoals: finding for finding in findings if finding.constraint == "disjointness"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("pair", "correlation", "95% interval", "rows", "support both", "support either", "model: apart?"):
        table.add_column(name, justify="left" if name in ("pair", "model: apart?") else "right")
    for overlap in measured:
        found = overlap.correlation
        finding = thought.get(overlap.subgoals)
        cells = [
            " / ".join(overlap.subgoals),
            "–" if found is None else f"{found.value:+.2f}",
            "–" if found is None else f"{found.low:+.2f} to {found.high:+.2f}",
            "–" if found is None else str(found.n),
            str(overlap.n_both),
            str(overlap.n_either),
            _verdict(finding),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    console.print(
        "\nMeasured overlap: how the values of two subgoals go together over the run's rows (equal rows counted once)"
    )
    console.print(table)
