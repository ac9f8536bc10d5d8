"""What a goal file says of its decomposition: the checks of a judge and the reviews of experts, read strictly."""

from __future__ import annotations

from typing import get_args

from ..errors import GoalError
from ..terms import CONSTRAINTS, Checks, Constraint, Finding, Mark, Outcome, Repair, Review
from .tables import Table

_CHECKS_KEYS = ("judge", "digest", "subgoals", "fitness", "findings", "repairs")
_FINDING_KEYS = ("constraint", "subgoals", "statement", "probability", "outcome", "note", "reason")
_REPAIR_KEYS = ("constraint", "before", "after", "kept")
_REVIEW_KEYS = ("reviewer", "subgoals", "missing", "atomic", "needed", "disjoint", "comments")
_PAIR_KEYS = ("subgoals", "mark")
_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_MARKS: tuple[Mark, ...] = get_args(Mark)
_SPOKEN_OF = {"atomicity": 1, "disjointness": 2}
"""How many subgoals a finding is of; one of coverage names those that cover its sentence, as many as they are."""


def checks_of(table: Table) -> Checks | None:
    """The checks that `[checks]` states; None if it is empty or absent. Raises GoalError, naming the table."""
    if not table.values:
        return None
    table.refuse_unknown(_CHECKS_KEYS)
    fitness = table.table("fitness")
    fitness.refuse_unknown(CONSTRAINTS)
    return Checks(
        judge=table.text("judge"),
        digest=table.text("digest"),
        subgoals=table.text("subgoals"),
        fitness={key: fitness.probability(key) for key in fitness.values},
        findings=tuple(_finding(finding) for finding in table.tables("findings", "finding")),
        repairs=tuple(_repair(repair) for repair in table.tables("repairs", "repair")),
    )


def review_of(table: Table) -> Review:
    """The review that one of `[[reviews]]` states. Raises GoalError, naming the table."""
    table.refuse_unknown(_REVIEW_KEYS)
    disjoint: dict[tuple[str, str], Mark] = {}
    for pair in table.tables("disjoint", "pair"):
        pair.refuse_unknown(_PAIR_KEYS)
        first, second = _spoken_of(pair, 2)
        if (first, second) in disjoint or (second, first) in disjoint:
            raise GoalError(f"{pair.where}: {first!r} and {second!r} are marked twice.", "Remove one of the marks.")
        disjoint[first, second] = pair.word("mark", _MARKS)
    comments = table.table("comments")
    return Review(
        reviewer=table.text("reviewer"),
        subgoals=table.text("subgoals"),
        atomic=_marks(table.table("atomic")),
        needed=_marks(table.table("needed")),
        disjoint=disjoint,
        missing=table.texts("missing"),
        comments={comments.as_id(key): comments.text(key) for key in comments.values},
    )


def _finding(table: Table) -> Finding:
    table.refuse_unknown(_FINDING_KEYS)
    constraint: Constraint = table.word("constraint", CONSTRAINTS)
    outcome: Outcome = table.word("outcome", _OUTCOMES)
    if constraint != "coverage" and "statement" in table:
        raise GoalError(f"{table.where}: 'statement' stands with {constraint}.", "Only coverage has one: remove it.")
    if outcome != "accepted" and "reason" in table:
        mend = 'Only what is accepted has one: remove it, or set outcome = "accepted".'
        raise GoalError(f"{table.where}: 'reason' stands with outcome {outcome!r}.", mend)
    return Finding(
        constraint=constraint,
        subgoals=_spoken_of(table, _SPOKEN_OF.get(constraint)),
        statement=table.text("statement", default=""),
        probability=table.probability("probability") if "probability" in table else None,
        outcome=outcome,
        note=table.text("note", default=""),
        reason=table.text("reason") if outcome == "accepted" else "",
    )


def _repair(table: Table) -> Repair:
    table.refuse_unknown(_REPAIR_KEYS)
    return Repair(
        constraint=table.word("constraint", CONSTRAINTS),
        before=table.ids("before"),
        after=table.ids("after"),
        kept=table.flag("kept"),
    )


def _spoken_of(table: Table, number: int | None) -> tuple[str, ...]:
    """The ids under `subgoals`, no two alike; of a number if one is given."""
    ids = table.ids("subgoals")
    if len(set(ids)) < len(ids):
        raise GoalError(f"{table.where}: 'subgoals' names one twice.", "Name each once.")
    if number is not None and len(ids) != number:
        raise GoalError(f"{table.where}: 'subgoals' names {len(ids)}, not {number}.", f"Name {number}.")
    return ids


def _marks(table: Table) -> dict[str, Mark]:
    return {table.as_id(key): table.word(key, _MARKS) for key in table.values}
