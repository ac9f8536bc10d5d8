"""What `synthesize` wrote, as its users get it: a file of what was kept, JSON of every candidate, a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..readers import Layout
    from ..store import Origin, Run
    from ..terms import Candidate, Coverage
    from ..writers import Source
    from .results import Results

_REASONS_SHOWN = 8


@dataclass(frozen=True)
class Output:
    """A file or folder that what is kept shall be written to, and the files whose place it must never take."""

    path: Path
    kind: str
    source: Source
    others: Sequence[Path]


def checked_output(run: Run, origin: Origin, layout: Layout, options: Mapping[str, Any]) -> Output | None:
    """The output that the options name; None if they name none.

    Raises DataError if nothing can be written there, if it would take the place of a file that is read or of a run's
    own, or if the original is needed for its types and is not as it was.
    """
    from ..outputs import check, format_of
    from ..writers import Source

    output: Path | None = options["output"]
    if output is None:
        return None
    if not output.name:
        raise click.UsageError(f"{output} is no name for a file.")
    kind = format_of(output, options["file_format"])
    data: Path = options["data"] or Path(origin.path)
    source = Source(run.rows, layout, data, origin.content)
    others = [data, Path(origin.path), *(options[name] for name in ("holdout", "drafts") if options[name])]
    check(output, kind, others)
    if {kind, layout.format} <= {"parquet", "datasets"} and source.original:
        click.echo(f"Types of columns are taken from {data}.", err=True)
    return Output(output, kind, source, others)


def write_output(run: Run, output: Output, only: Sequence[str]) -> None:
    """Nothing; what was kept, of the subgoals in `only` or of all, is in the output, for its owner alone."""
    import numpy as np

    from ..outputs import placed
    from ..writers import write

    kept = [each.fields for each in candidates(run, only) if each.fate == "kept"]
    with placed(output.path, output.kind, output.others) as place:
        write(place, output.source, np.zeros(run.n_rows(), dtype=bool), kept)
    click.echo(f"Samples written to {output.path}: {len(kept)}.", err=True)


def candidates(run: Run, only: Sequence[str] = ()) -> list[Candidate]:
    """The candidates of a run for subgoals that its goal still has: for those in `only`, or for all.

    What was written for a subgoal before its text was changed is left out: it was never judged for that of now.
    """
    now = {subgoal.id: subgoal.digest for subgoal in run.goal().subgoals if not only or subgoal.id in only}
    found = (each for each in run.candidates() if each.subgoal in now)
    return [each for each in found if each.provenance.get("subgoal", now[each.subgoal]) == now[each.subgoal]]


def as_json(run: Run) -> dict[str, Any]:
    """Every candidate of a run as plain values, with its provenance; `before` is the digest of the draft refined."""
    told = [
        {
            "subgoal": each.subgoal,
            "id": each.sample.id,
            "fields": each.fields,
            "number": each.number,
            "round": each.round,
            "before": each.before,
            "quality": each.quality,
            "alignment": each.alignment,
            "rank": each.rank,
            "among": each.among,
            "fate": each.fate,
            "reason": each.reason,
            "feedback": each.feedback,
            "provenance": each.provenance,
        }
        for each in candidates(run)
    ]
    return {"run": str(run.folder), "candidates": told}


def print_candidates(run: Run, results: Results) -> None:
    """Nothing; prints what became of the candidates, by subgoal, and what those kept do for it."""
    from .table import print_table

    found = candidates(run)
    if not found:
        click.echo("Nothing was written." if run.gaps() else "No gap, so nothing was written.")
        return
    covered = {each.subgoal.id: each for each in results.coverage}
    rows, told = [], []
    for name in dict.fromkeys(each.subgoal for each in found):
        mine = [each for each in found if each.subgoal == name]
        fates = Counter(each.fate for each in mine)
        before, after = _supports(covered[name], mine)
        rows.append(
            [
                name,
                str(len(mine)),
                *(str(fates[fate]) for fate in ("kept", "rejected", "refused")),
                f"{100 * fates['kept'] / len(mine):.0f}%",
                _share(*before),
                _share(*after),
            ]
        )
        told.append(f"{name}: {_change(before, after)}")
    header = ["subgoal", "written", "kept", "rejected", "refused", "keep rate", "support", "with what is kept"]
    print_table(header, rows, right=(1, 2, 3, 4, 5))
    for line in told:
        click.echo(line)
    reasons = Counter(_kind(each) for each in found if each.fate != "kept")
    for reason, n in reasons.most_common(_REASONS_SHOWN):
        click.echo(f"  {n} {reason}")


def _supports(covered: Coverage, mine: Sequence[Candidate]) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many rows support a subgoal, of how many: among those judged, and with what was kept added to them."""
    from ..terms import SUPPORT_AT

    kept = [each for each in mine if each.fate == "kept"]
    more = sum(each.alignment is not None and each.alignment >= SUPPORT_AT - 1e-9 for each in kept)
    hits, n = covered.n_support, covered.n_judged
    return (hits, n), (hits + more, n + len(kept))


def _share(hits: int, n: int) -> str:
    return f"{hits} of {n} ({100 * hits / max(1, n):.1f}%)"


def _change(before: tuple[int, int], after: tuple[int, int]) -> str:
    """What the samples kept do for a subgoal's support, in a sentence."""
    if before == after:
        return f"By the stored scores: support stays at {_share(*before)}."
    rises = after[0] * max(1, before[1]) >= before[0] * max(1, after[1])
    return f"By the stored scores: support {'rises' if rises else 'falls'} from {_share(*before)} to {_share(*after)}."


def _kind(candidate: Candidate) -> str:
    """A reason without its numbers and ids, for counting."""
    if candidate.fate == "refused":
        return "refused as near-duplicates"
    short = re.fullmatch(r"(\w+) \S+ < \S+", candidate.reason)
    return f"rejected: {short[1]} too low" if short else re.sub(r" \([\d.]+\)$", "", candidate.reason)
