"""What the ledger vouches for of a run: which commands it saw begin there, and with which heads it saw them end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import audit, chain
from ..audit import Stretch
from ..chain import Event
from ..ledger import Reading
from .terminal import counted, plain
from .trail import RUN_OPENED, RUN_SEALED


@dataclass(frozen=True, slots=True)
class Noted:
    """An event of the ledger on a run, which is named by its first event, at a place.

    One that a command `sealed`, or one that a command opened; `head` is the run's event that says so, number `seq`.
    """

    event: Event
    run: str
    place: str
    sealed: bool
    seq: int
    head: str


@dataclass
class Vouched:
    """What the ledger says of a run, a sentence each: what is wrong, what is not sealed, and what else there is."""

    wrong: list[str] = field(default_factory=list)
    unsealed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def noted(ledger: Reading) -> tuple[list[Noted], list[int]]:
    """What the ledger tells of runs, oldest first, and the numbers of the events that do not tell what they must."""
    found, malformed = [], []
    for event in ledger.events:
        if event.kind in (RUN_OPENED, RUN_SEALED) and event.hash == event.seal:
            match event.told:
                case {"run": str(run), "place": str(place), "events": int(seq), "head": str(head)}:
                    found.append(Noted(event, run, place, event.kind == RUN_SEALED, seq, head))
                case _:
                    malformed.append(event.seq)
    return found, malformed


def vouched(events: Sequence[Event], known: Sequence[Noted], here: str, ledger: str) -> Vouched:
    """What the ledger, named `ledger`, says of the run that lies at `here`, given all that it has `known` of runs.

    A copy may have gone on in another folder: heads from there are missed only where none is known from here, and not
    in a copy of an earlier state.
    """
    first = events[0].hash if events else ""
    own = [each for each in known if each.run == first]
    if not own:
        return _unknown(events, known, here, ledger)
    told = Vouched()
    from_here = [each for each in own if each.place == here]
    there = [each for each in known if each.place == here]
    if there and not from_here:
        told.wrong.append(
            "The ledger knows another run in this folder, and this one elsewhere: it was put in its place."
        )
        return told
    if there and there[-1].run != first:
        told.notes.append("Ledger: since this run was last written to here, it knows another run in this folder.")
    every = [each for each in own if each.sealed]
    heads = [each for each in every if each.place == here] or every
    hashes = {event.seq: event.hash for event in events}
    lost = [each for each in heads if hashes.get(each.seq) != each.head]
    if lost and _is_earlier(events, own, here):
        told.unsealed.append(
            f"This is an earlier state of the run at another place, which the ledger knows with"
            f" {counted(lost[-1].seq, 'event')}, head {lost[-1].head}."
        )
        heads = [each for each in heads if each not in lost]
    elif lost:
        told.wrong.append(
            f"The ledger knows this run with {counted(lost[-1].seq, 'event')}, head {lost[-1].head}, which is"
            f" not in its chain of {len(events)}: it was cut off, rolled back or rewritten."
        )
        return told
    if heads:
        told.notes.append(f"Ledger: knows {counted(len(heads), 'head')} of this run, all in its chain.")
    else:
        told.notes.append("Ledger: knows this run, and no head of it yet.")
    commands, _ = audit.stretches(events)
    began = _begun(commands, own)
    _tell_forged(told, events, commands, own, began)
    _tell_seals(told, commands, own, began)
    _tell_never_begun(told, [each for each in own if each.place == here], began)
    return told


def _is_earlier(events: Sequence[Event], own: Sequence[Noted], here: str) -> bool:
    """Whether this is a copy, not sealed here, of a state that the ledger knows from other places alone.

    It may have gone on from there by a command that the ledger saw begin here.
    """
    if any(each.sealed and each.place == here for each in own):
        return False
    elsewhere = {each.head for each in own if each.place != here}
    begun_here = {each.head for each in own if each.place == here}
    last = max((event.seq for event in events if event.hash in elsewhere), default=0)
    after = [event for event in events if event.seq > last]
    return bool(last) and (after[0].hash in begun_here if after else not begun_here)


def _unknown(events: Sequence[Event], known: Sequence[Noted], here: str, ledger: str) -> Vouched:
    """What there is to say of a run that the ledger does not know."""
    there = [each for each in known if each.place == here]
    mine = [event for event in events if event.kind in (audit.OPENED, audit.SEALED) and _is_mine(event)]
    if there and not events and not any(each.sealed for each in known if each.run == there[-1].run):
        return Vouched(unsealed=[_never_begun(there[-1])])
    if there:
        told = "The ledger knows another run in this folder, and not this one: it was put in its place."
        return Vouched(wrong=[told])
    if mine:
        told = (
            f"Event {mine[-1].seq} says that {plain(f'{mine[-1].who} on {mine[-1].host}')} wrote this run, and that"
            f" user's ledger {ledger} does not know it: it was removed or cut, or could not be written then."
        )
        return Vouched(wrong=[told])
    return Vouched(
        notes=["The ledger of this user does not know this run: made by another user or on another machine?"]
    )


def _begun(commands: Sequence[Stretch], own: Sequence[Noted]) -> Mapping[int, Noted]:
    """What the ledger knows of the commands that began, by the number of the event that says so."""
    opened = {each.head: each for each in own if not each.sealed}
    return {each.opened.seq: opened[each.opened.hash] for each in commands if each.opened.hash in opened}


def _tell_forged(
    told: Vouched,
    events: Sequence[Event],
    commands: Sequence[Stretch],
    own: Sequence[Noted],
    began: Mapping[int, Noted],
) -> None:
    """Nothing; tells of commands that began without the ledger's knowledge once it knew the run, or as this user."""
    heads = {each.head for each in own}
    since = min([*began, *(event.seq for event in events if event.hash in heads)], default=events[-1].seq)
    unknown = [command.opened for command in commands if command.opened.seq not in began]
    forged = [event.seq for event in unknown if event.seq > since or _is_mine(event)]
    if forged:
        which = f"Event {forged[0]} says" if len(forged) == 1 else f"Events {', '.join(map(str, forged))} say"
        told.wrong.append(
            f"{which} that a command began to write, of which the ledger does not know: forged, done on another"
            " machine, or the ledger could not be written then."
        )
    elif unknown:
        told.notes.append(f"Ledger: does not know what others wrote up to event {since}, and does not vouch for it.")


def _tell_seals(told: Vouched, commands: Sequence[Stretch], own: Sequence[Noted], began: Mapping[int, Noted]) -> None:
    """Nothing; tells of the seals that the ledger does not know, of commands that it saw begin."""
    heads = {each.head for each in own if each.sealed}
    for command, after in zip(commands, [*commands[1:], None], strict=True):
        sealed = command.sealed
        if command.opened.seq not in began or sealed is None or sealed.hash in heads:
            continue
        what = f"{plain(command.opened.command)} was killed as it sealed, and the ledger does not know event"
        if after is None:
            told.unsealed.append(
                f"{what} {sealed.seq}: run a command that writes, so that it vouches for the contents."
            )
        else:
            told.notes.append(
                f"{what} {sealed.seq}: what was changed between events {command.opened.seq} and {after.opened.seq}"
                " cannot be told apart from its work."
            )


def _tell_never_begun(told: Vouched, from_here: Sequence[Noted], began: Mapping[int, Noted]) -> None:
    """Nothing; tells of the commands that the ledger saw begin here, and of which the run knows nothing."""
    for each in from_here:
        if not each.sealed and each not in began.values():
            (told.unsealed if each is from_here[-1] else told.notes).append(_never_begun(each))


def _never_begun(opened: Noted) -> str:
    return f"A command was killed before its first change ({plain(opened.event.command)}, {when(opened.event)})."


def _is_mine(event: Event) -> bool:
    return (event.who, event.host) == chain.author()


def when(event: Event) -> str:
    """When an event was written: date and time to the second."""
    return plain(f"{event.at[:19].replace('T', ' ')} UTC")
