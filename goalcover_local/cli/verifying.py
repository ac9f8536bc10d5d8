"""What verifying a run, or the ledger, comes to: what was checked, and each finding as a sentence."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from .. import audit, ledger
from ..chain import Event
from ..errors import GoalCoverError
from ..folder import DATABASE
from ..ledger import MENDED, Reading
from .terminal import counted, plain
from .trail import place
from .vouching import Noted, noted, vouched, when

BEYOND = (
    "Who can rewrite the runs and the ledger can rewrite both without a trace: keep the heads elsewhere, and give them"
    " with --head."
)
"""What no check of these files can know."""

WRONG = 1
"""The exit code where something was edited, cut, rolled back, exchanged or forged."""

UNSEALED = 3
"""The exit code where nothing is wrong, and no seal stands: nobody can vouch for contents until a command seals."""

TRIES = 5
"""How often a run and the ledger are read where a command begins or seals in between, so that they do not fit."""


@dataclass
class Verified:
    """What was verified: sentences on what was checked, on what is not sealed, and on what is wrong.

    `head` is the last event's hash, empty where there is none.
    """

    name: str
    head: str = ""
    notes: list[str] = field(default_factory=list)
    unsealed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code that this alone comes to."""
        return WRONG if self.wrong else UNSEALED if self.unsealed else 0

    @property
    def record(self) -> dict[str, Any]:
        """What was found, for machines."""
        return {
            "name": self.name,
            "code": self.code,
            "head": self.head or None,
            "findings": self.wrong,
            "unsealed": self.unsealed,
            "notes": self.notes,
        }


def code_of(told: Sequence[Verified]) -> int:
    """The exit code of all that was verified: that something is wrong counts before that something is not sealed."""
    codes = {each.code for each in told}
    return next((code for code in (WRONG, UNSEALED) if code in codes), 0)


def of_run(folder: Path, head: str | None) -> Verified:
    """What there is to say of the run in a folder; one that cannot be read is a finding.

    Of one to which commands write without a pause, nothing but that: what was read would not fit together.
    """
    here = place(folder)
    for _ in range(TRIES):
        reading = ledger.read()
        told = _of_run(folder, here, reading, head)
        if _of_place(reading, here) == _of_place(ledger.read(), here):
            return told
    at_work = "Commands are at work here, one after the other: verify it again when they are done."
    return Verified(plain(str(folder)), unsealed=[at_work])


def _of_run(folder: Path, here: str, reading: Reading, head: str | None) -> Verified:
    told = Verified(plain(str(folder)))
    known, malformed = noted(reading)
    _tell_ledger_itself(told, reading, malformed)
    if _is_gone(folder) and (there := _of_place(reading, here)):
        told.wrong.append(f"The ledger knows a run here, with {_newest(there)}; it is gone.")
        return told
    try:
        seen = audit.examined(folder)
    except GoalCoverError as error:
        if not _is_empty(folder):
            told.wrong.append(str(error))
        elif there := _of_place(reading, here):
            told.wrong.append(f"The ledger knows a run here, with {_newest(there)}; its file is empty.")
        else:
            told.unsealed.append("The file is empty: a command was killed before its first change.")
            _tell_head(told, [], head, of_contents=True)
        return told
    events = seen.events
    _tell_chain(told, events, seen.problems)
    _tell_commands(told, events)
    _tell_contents(told, events, seen.edited)
    found = vouched(events, known, here, plain(str(ledger.path())))
    told.wrong += found.wrong
    told.unsealed += found.unsealed
    told.notes += found.notes
    _tell_head(told, events, head, of_contents=True)
    return told


def _of_place(reading: Reading, here: str) -> list[Noted]:
    """What the ledger knows of the runs that lay at a place."""
    return [each for each in noted(reading)[0] if each.place == here]


def of_the_ledger(reading: Reading, head: str | None) -> Verified:
    """What there is to say of the ledger, and of the runs that it knows."""
    told = Verified(plain(str(ledger.path())))
    if not reading.events and not reading.problems:
        told.notes.append("There is no ledger yet.")
    else:
        _tell_chain(told, reading.events, reading.problems)
    if reading.torn:
        told.notes.append(f"After the last event stand {reading.torn} bytes of one that was not written to its end.")
    for event in reading.events:
        if event.kind == MENDED:
            told.notes.append(f"Event {event.seq} tells that the end was torn before it; what stood there was kept.")
    known, malformed = noted(reading)
    told.wrong += [f"Event {seq} tells of a run, and not what it must." for seq in malformed]
    places: dict[str, list[Noted]] = {}
    for each in known:
        places.setdefault(each.place, []).append(each)
    for at, there in places.items():
        told.notes.append(f"Knows a run at place {plain(at[:12])}, with {_newest(there)}.")
    if known:
        told.notes.append("Places are digests of paths, and folders may be moved: verify each run by its folder.")
    _tell_head(told, reading.events, head, of_contents=False)
    return told


def _tell_ledger_itself(told: Verified, reading: Reading, malformed: Sequence[int]) -> None:
    """Nothing; tells of what is wrong with the ledger by which a run is verified."""
    name = plain(str(ledger.path()))
    told.wrong += [f"The ledger {name}, by which runs are verified: {problem}" for problem in reading.problems]
    told.wrong += [f"The ledger {name}: event {seq} tells of a run, and not what it must." for seq in malformed]


def _tell_chain(told: Verified, events: Sequence[Event], broken: Sequence[str]) -> None:
    told.wrong += broken
    told.head = events[-1].hash if events else ""
    if events and not broken:
        told.notes.append(f"Chain: {counted(len(events), 'event')}, whole, head {events[-1].hash}")
    elif not events:
        told.notes.append("Chain: no events.")


def _tell_commands(told: Verified, events: Sequence[Event]) -> None:
    """Nothing; tells of commands that were killed, and of events that no command wrote."""
    commands, strays = audit.stretches(events)
    for event in strays:
        told.wrong.append(f"Event {event.seq} ({plain(event.kind)}) was written by no command that had begun.")
    for before, after in pairwise(commands):
        if before.sealed is None:
            what = audit.changed(before.opened, after.opened)
            which = "" if what is None else f" ({', '.join(what)})" if what else " (in the end, nothing)"
            told.notes.append(
                f"A command was killed between events {before.opened.seq} and {after.opened.seq}"
                f" ({when(before.opened)} to {when(after.opened)}); what was changed there{which} cannot be told apart"
                " from its work."
            )


def _tell_contents(told: Verified, events: Sequence[Event], edited: Sequence[str] | None) -> None:
    told.wrong += audit.edits(events)
    commands, _ = audit.stretches(events)
    seal = commands[-1].sealed if commands else None
    if edited and seal:
        told.wrong.append(f"Since event {seal.seq} sealed them, somebody edited: {', '.join(edited)}.")
    elif edited:
        told.wrong.append(f"The file was edited or is damaged: {', '.join(edited)}.")
    elif seal and edited is not None:
        counts = seal.told.get("counts", {})
        counts = counts.items() if isinstance(counts, dict) else ()
        told_of = ((plain(kind), n) for kind, n in counts if kind not in ("goal", "counters"))
        held = ", ".join(f"{n} {kind.removesuffix('s') if n == 1 else kind}" for kind, n in told_of)
        told.notes.append(f"Contents: as event {seal.seq} sealed them ({held or 'empty'}).")
    elif commands and not seal:
        opened = commands[-1].opened
        told.unsealed.append(
            f"{plain(opened.command)} began at event {opened.seq} ({when(opened)}) and did not seal: it was killed, or"
            " is still at work. What was changed since cannot be told apart from its work until a command seals."
        )
    else:
        told.unsealed.append("No command sealed the contents, so edits cannot be told until one that writes does.")


def _tell_head(told: Verified, events: Sequence[Event], head: str | None, *, of_contents: bool) -> None:
    """Nothing; tells what a head that was kept elsewhere, or the first digits of one, vouches for."""
    if head is None:
        return
    found = [event for event in events if event.hash.startswith(head)]
    if len(found) != 1:
        what = "was cut off, rolled back, rewritten, or is another's" if not found else "fits several events"
        told.wrong.append(f"The head {head} is not in the chain: it {what}.")
        return
    [event] = found
    n_after = events[-1].seq - event.seq
    came = "its last" if not n_after else f"and {counted(n_after, 'event')} came after"
    vouches = "It vouches for the chain up to there"
    if of_contents and not n_after and event.kind == audit.SEALED:
        vouches += ", and for the contents that it seals"
    elif of_contents:
        vouches += "; for the contents, the last seal and the ledger alone do"
    told.notes.append(f"Head: given, stands as event {event.seq}, {came}. {vouches}.")


def _is_gone(folder: Path) -> bool:
    try:
        (folder / DATABASE).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_empty(folder: Path) -> bool:
    """Whether the run's file was made, and nothing was written to it."""
    try:
        found = (folder / DATABASE).lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_size


def _newest(there: Sequence[Noted]) -> str:
    """The newest head that is known of a place, or that none is, and of when."""
    heads = [each for each in there if each.sealed]
    if not heads:
        return f"no head yet, opened {when(there[-1].event)}"
    return f"head {plain(heads[-1].head or '')}, of {when(heads[-1].event)}"
