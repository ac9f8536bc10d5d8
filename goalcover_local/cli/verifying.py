"""What verifying a run, or the ledger, comes to: what was checked, and each finding as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import audit
from ..chain import Event
from ..errors import GoalCoverError
from ..ledger import MENDED, Reading
from ..store import Run
from .decomposition import counted, plain
from .trail import RUN_OPENED, RUN_SEALED, place

BEYOND = (
    "Who can rewrite the runs and the ledger can rewrite both without a trace: keep the heads elsewhere, and give them"
    " with --head."
)
"""What no check of these files can know."""


@dataclass
class Verified:
    """What was verified: sentences on what was checked, and on what is wrong."""

    name: str
    checked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def of_run(folder: Path, ledger: Reading, head: str | None) -> Verified:
    """What there is to say of the run in a folder; one that cannot be read is a finding."""
    told = Verified(plain(str(folder)))
    try:
        with Run.open(folder, write=False) as run:
            events, broken, edited = run.events(), run.verify_events(), run.edited()
    except GoalCoverError as error:
        told.wrong.append(str(error))
        return told
    _tell_chain(told, events, broken)
    _tell_contents(told, events, edited)
    _tell_heads(told, events, ledger, place(folder))
    _tell_head(told, events, head)
    return told


def of_the_ledger(ledger: Reading, path: Path, head: str | None) -> Verified:
    """What there is to say of the ledger."""
    told = Verified(plain(str(path)))
    if not ledger.events and not ledger.problems:
        told.checked.append("There is no ledger yet.")
    else:
        _tell_chain(told, ledger.events, ledger.problems)
    if ledger.torn:
        told.checked.append(f"After the last event stand {ledger.torn} bytes of one that was not written to its end.")
    for event in ledger.events:
        if event.kind == MENDED:
            told.checked.append(f"Event {event.seq} tells that the end was torn before it; what stood there was kept.")
    _tell_head(told, ledger.events, head)
    return told


def _tell_chain(told: Verified, events: Sequence[Event], broken: Sequence[str]) -> None:
    told.wrong += broken
    if events and not broken:
        told.checked.append(f"Chain: {counted(len(events), 'event')}, whole, head {events[-1].hash}")
    elif not events:
        told.checked.append("Chain: no events.")


def _tell_contents(told: Verified, events: Sequence[Event], edited: Sequence[str] | None) -> None:
    told.wrong += audit.edits(events)
    if edited is None:
        by = f"{plain(events[-1].command)} did not seal them" if events else "nothing was recorded"
        told.checked.append(f"Contents: not sealed since they were last written ({by}), so edits cannot be told.")
    elif edited:
        told.wrong.append(f"Since event {events[-1].seq} sealed them, somebody edited: {', '.join(edited)}.")
    else:
        counts = events[-1].told.get("counts", {})
        held = ", ".join(f"{n} {kind}" for kind, n in counts.items() if kind not in ("goal", "counters"))
        told.checked.append(f"Contents: as event {events[-1].seq} sealed them ({held or 'empty'}).")


def _tell_heads(told: Verified, events: Sequence[Event], ledger: Reading, here: str) -> None:
    """Nothing; tells whether the heads that the ledger knows of this run, or of this folder, are in the chain.

    A copy may have gone on in another folder: heads from there are missed only where none is known from here.
    """
    known = [(event.kind, event.told) for event in ledger.events if event.hash == event.seal]
    first = events[0].hash if events else ""
    own = [details for kind, details in known if kind in (RUN_OPENED, RUN_SEALED) and details["run"] == first]
    heads = [details for kind, details in known if kind == RUN_SEALED and details["run"] == first]
    heads = [each for each in heads if each["place"] == here] or heads
    hashes = {event.seq: event.hash for event in events}
    lost = [each for each in heads if hashes.get(each["events"]) != each["head"]]
    if lost:
        told.wrong.append(
            f"The ledger knows this run with {counted(lost[-1]['events'], 'event')}, head {lost[-1]['head']}, which is"
            f" not in its chain of {len(events)}: it was cut off, rolled back or rewritten."
        )
    elif heads:
        told.checked.append(f"Ledger: knows {counted(len(heads), 'head')} of this run, all in its chain.")
    elif own:
        told.checked.append("Ledger: knows this run, and no head of it yet.")
    elif any(details.get("place") == here for _, details in known):
        told.wrong.append("The ledger knows another run in this folder, and not this one: it was put in its place.")
    else:
        told.checked.append("Ledger: does not know this run, so that a cut at its end cannot be told by it.")


def _tell_head(told: Verified, events: Sequence[Event], head: str | None) -> None:
    if head is None:
        return
    at = next((event.seq for event in events if event.hash == head), None)
    if at is None:
        told.wrong.append(
            f"The head {head} is not in the chain: it was cut off, rolled back, rewritten, or is another's."
        )
        return
    after = events[-1].seq - at
    came = "its last" if not after else f"and {counted(after, 'event')} came after"
    told.checked.append(f"Head: given, stands as event {at}, {came}.")
