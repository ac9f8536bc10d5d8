"""The commands by which a person settles a set of subgoals."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from .editor import edited_lines, edited_set
from .terminal import counted

if TYPE_CHECKING:
    from ..asking import Asker
    from ..phases.clarify import Draft
    from ..terms import Finding, Subgoal

SETTLED = """\
  done                       write the goal; first settle what stands against the set
  accept N REASON            let violation N be; the reason is recorded
  repair                     let the model try to mend what is violated
  drop ID                    remove a subgoal
  merge ID ID [NAME]         one subgoal instead of two; named as the first without a NAME
  split ID NAME; NAME [...]  several instead of one
  add NAME[: DESCRIPTION]    one more; without a description the model writes one
  edit                       the whole set in $EDITOR          spec   the specification in $EDITOR
  back                       to the last question again           undo   take back the last move
  show                       print the set again               quit   save and stop (as Ctrl-C does)"""
"""What the commands do, for people."""


def moved(draft: Draft, said: str, asker: Asker) -> Draft | None:
    """The draft after a command of the settling stage; None if it changed nothing. Raises click.UsageError."""
    from ..phases import clarify
    from ..phases.decompose import replaced

    verb, _, rest = said.lstrip("/").partition(" ")
    rest = rest.strip()
    subgoals, goal = draft.subgoals, draft.goal
    match verb.lower():
        case "done":
            if not subgoals:
                raise click.UsageError("There is no subgoal yet: add one.")
            if draft.violations:
                raise click.UsageError(
                    f"{counted(len(draft.violations), 'violation')} left: mend or accept each, with a reason "
                    "(accept N REASON)."
                )
            texts = [subgoal.digest for subgoal in subgoals]
            twins = [subgoal.id for subgoal in subgoals if texts.count(subgoal.digest) > 1]
            if twins:
                raise click.UsageError(f"{' and '.join(twins)} have the same text: drop one, or say how they differ.")
            return clarify.settled(draft)
        case "accept":
            number, _, reason = rest.partition(" ")
            violation = _numbered(draft.violations, number)
            if not reason.strip():
                raise click.UsageError("Give the reason too: accept N REASON.")
            return clarify.accepted(draft, violation, reason)
        case "repair":
            if not draft.violations:
                raise click.UsageError("Nothing is violated.")
            return clarify.repaired_again(draft)
        case "drop":
            gone = _known(subgoals, rest)
            return clarify.edited(draft, [subgoal for subgoal in subgoals if subgoal.id != gone.id])
        case "merge":
            first, second, *words = _words(rest, 2, "merge ID ID [NAME]")
            pair = _known(subgoals, first), _known(subgoals, second)
            if pair[0] == pair[1]:
                raise click.UsageError("Name two different subgoals.")
            named = " ".join(words) or pair[0].name
            _refuse_names([named], [subgoal for subgoal in subgoals if subgoal not in pair])
            fresh = _undescribed(subgoals, pair)
            return clarify.edited(draft, replaced(asker, goal, fresh, [subgoal.id for subgoal in pair], [named]))
        case "split":
            identity, _, names = rest.partition(" ")
            parts = [name.strip() for name in names.split(";") if name.strip()]
            if len(parts) < 2:
                raise click.UsageError("Name the parts: split ID NAME; NAME.")
            whole = _known(subgoals, identity)
            _refuse_names(parts, [subgoal for subgoal in subgoals if subgoal != whole])
            return clarify.edited(draft, replaced(asker, goal, _undescribed(subgoals, [whole]), [whole.id], parts))
        case "add":
            name, _, description = rest.partition(":")
            if not name.strip():
                raise click.UsageError("Name it: add NAME, or add NAME: DESCRIPTION.")
            return clarify.edited(draft, _added(subgoals, name.strip(), description.strip()))
        case "edit":
            changed = edited_set(subgoals)
            return None if changed is None else clarify.edited(draft, changed)
        case "spec":
            statements = edited_lines(draft.statements)
            return None if statements is None else clarify.respecified(draft, statements)
    raise click.UsageError(f"There is no {verb!r}.\n{SETTLED}")


def _undescribed(subgoals: Sequence[Subgoal], some: Sequence[Subgoal]) -> list[Subgoal]:
    """The set with some of it bare: what takes their place must not keep a text that was of more, or of less."""
    return [replace(each, description="", evidence="") if each in some else each for each in subgoals]


def _numbered(violations: Sequence[Finding], number: str) -> Finding:
    by_number = {str(place): violation for place, violation in enumerate(violations, 1)}
    if number not in by_number:
        raise click.UsageError(f"There is no such number among {counted(len(violations), 'violation')}.")
    return by_number[number]


def _known(subgoals: Sequence[Subgoal], identity: str) -> Subgoal:
    for subgoal in subgoals:
        if subgoal.id == identity.strip():
            return subgoal
    raise click.UsageError(f"There is no subgoal {identity.strip()!r}: {', '.join(s.id for s in subgoals)}.")


def _words(rest: str, least: int, usage: str) -> list[str]:
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    if len(words) < least:
        raise click.UsageError(f"Write it so: {usage}.")
    return words


def _refuse_names(names: Sequence[str], others: Sequence[Subgoal]) -> None:
    """Nothing; raises UsageError if a name has no letter or digit, or is another's too."""
    taken = {subgoal.name.casefold() for subgoal in others}
    for name in names:
        if not any(each.isalnum() for each in name):
            raise click.UsageError(f"{name!r} is no name.")
        if name.casefold() in taken:
            raise click.UsageError(f"There is a subgoal {name!r} already.")
        taken.add(name.casefold())


def _added(subgoals: Sequence[Subgoal], name: str, description: str) -> list[Subgoal]:
    from ..goal_files.reading import slug
    from ..terms import Subgoal

    _refuse_names([name], subgoals)
    return [*subgoals, Subgoal(slug(name, [subgoal.id for subgoal in subgoals]), name, description)]
