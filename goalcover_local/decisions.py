"""What people decided: verdicts of their own beside the judge's, each with a reason and an event in the chain.

The reason is kept in the run, its digest in the event. A decision replaces no verdict: it is shown beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .audit import add
from .chain import digest_of_text
from .records import as_json
from .store import Run
from .terms import Goal, Verdict

DECIDED = "verdict decided"
WITHDRAWN = "decision withdrawn"
ACCEPTED = "violation accepted"

REASON_PURGED = "(reason purged)"
"""What stands for a reason that was purged with the samples' texts; its digest stays in the chain."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's verdict on a subgoal, named by id and digest, against the judge's verdict of that time.

    `basis` is the digest of what the judges had said of the subgoal; once it differs, the decision was made before. An
    empty `verdict` takes the decision before it back.
    """

    subgoal: str
    digest: str
    verdict: Verdict | None
    judged: Verdict
    reason: str
    basis: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A decision as it stands: who made it, when (UTC, ISO 8601), and by which event."""

    decision: Decision
    who: str
    at: str
    event: int


def decide(run: Run, decision: Decision) -> int:
    """The number of the event that tells of the decision, which now stands. Raises StoreError as a run's writers do."""
    kind = WITHDRAWN if decision.verdict is None else DECIDED
    about = {name: value for name, value in asdict(decision).items() if name != "reason"}
    details = {**about, "reason": digest_of_text(decision.reason)}
    with run._transaction() as database:
        event = add(database, kind, details, "goalcover decide")
        database.execute("INSERT INTO decisions VALUES (?, ?)", (event.seq, as_json(asdict(decision))))
    return event.seq


def decisions(run: Run) -> list[Standing]:
    """Every decision that was ever made, withdrawals included, the oldest first."""
    events = {event.seq: event for event in run.events()}
    return [
        Standing(Decision(**json.loads(text)), events[seq].who, events[seq].at, seq)
        for seq, text in run._read("SELECT event, json FROM decisions ORDER BY event")
        if seq in events
    ]


def standing(run: Run, goal: Goal) -> dict[str, Standing]:
    """By id, the decisions that stand on the goal's subgoals: the latest of each, of its very text, not withdrawn."""
    texts = {subgoal.id: subgoal.digest for subgoal in goal.subgoals}
    latest = {
        each.decision.subgoal: each
        for each in decisions(run)
        if texts.get(each.decision.subgoal) == each.decision.digest
    }
    return {name: each for name, each in latest.items() if each.decision.verdict is not None}


def note_acceptances(run: Run, goal: Goal, command: str) -> None:
    """Nothing; the chain tells once of each violation that a person accepted, and of the reason, by digests."""
    known = [event.told for event in run.events() if event.kind == ACCEPTED]
    for details in acceptances(goal):
        if details not in known:
            run.event(ACCEPTED, details, command)


def acceptances(goal: Goal) -> Sequence[dict[str, object]]:
    """The details of an event for each violation that a person accepted: digests, ids and no text."""
    findings = goal.checks.findings if goal.checks else ()
    return [
        {
            "goal": goal.digest,
            "constraint": finding.constraint,
            "subgoals": list(finding.subgoals),
            "statement": digest_of_text(finding.statement) if finding.statement else "",
            "reason": digest_of_text(finding.reason),
        }
        for finding in findings
        if finding.outcome == "accepted"
    ]
