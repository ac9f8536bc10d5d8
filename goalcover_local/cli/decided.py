"""People's decisions on verdicts as `show`, `status` and `export` tell of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..decisions import Standing, decisions, standing
from ..terms import digest_of
from .terminal import plain

if TYPE_CHECKING:
    from ..store import Run
    from ..terms import Coverage
    from .results import Results


def basis(found: Results, covered: Coverage) -> str:
    """Digest of what the judges said of a subgoal, whatever value, rule and threshold it is shown by."""
    mean = round(covered.alignment["expectation"].value, 9)
    told = None if mean != mean else mean
    return digest_of([list(found.judges), covered.subgoal.digest, covered.n_judged, covered.n_failed, told])


def as_json(run: Run, found: Results) -> dict[str, dict[str, Any]]:
    """By the subgoal's id, the decision that stands on it."""
    held = standing(run, found.goal)
    return {c.subgoal.id: _standing_json(found, c, held[c.subgoal.id]) for c in found.coverage if c.subgoal.id in held}


def lines(run: Run, found: Results) -> Iterator[str]:
    """A line for each decision that stands, in the order of the goal."""
    verdicts = {covered.subgoal.id: covered.verdict for covered in found.coverage}
    for name, told in as_json(run, found).items():
        before = ", before the judgements that stand now" if told["outdated"] else ""
        yield (
            f"Decided by {told['who']} on {told['at'][:10]}{before}: {name} is {told['verdict']} "
            f"(the judge says {verdicts[name]}). Reason: {plain(told['reason'])}"
        )


def records(run: Run, found: Results) -> Iterator[Mapping[str, Any]]:
    """Every decision that was made, the oldest first; `stands` says whether it does, a withdrawal has no verdict."""
    held = as_json(run, found)
    for each in decisions(run):
        stands = held.get(each.decision.subgoal, {}).get("event") == each.event
        yield {
            "subgoal": each.decision.subgoal,
            "verdict": each.decision.verdict,
            "judged": each.decision.judged,
            "reason": each.decision.reason,
            "who": each.who,
            "at": each.at,
            "event": each.event,
            "stands": stands,
            "outdated": held[each.decision.subgoal]["outdated"] if stands else None,
        }


def _standing_json(found: Results, covered: Coverage, each: Standing) -> dict[str, Any]:
    return {
        "verdict": each.decision.verdict,
        "judged": each.decision.judged,
        "reason": each.decision.reason,
        "who": each.who,
        "at": each.at,
        "event": each.event,
        "outdated": each.decision.basis != basis(found, covered),
    }
