"""The conversation of `goalcover clarify`: the model's work shown as it comes, and a person's or a script's moves."""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .decomposition import print_set, unfit_for
from .progress import progress

if TYPE_CHECKING:
    from rich.console import Console

    from ..asking import Asker
    from ..drafts import DraftFile
    from ..goals import Accepted
    from ..phases.clarify import Draft, Inquiry
    from ..terms import Exchange, Finding, Subgoal

WORK = {
    "clarifying-question": "Thinking of questions",
    "completeness": "Looking what is still open",
    "refinement": "Refining the specification",
    "subgoals": "Proposing subgoals",
    "description": "Describing subgoals",
    "atomicity": "Is each one capability?",
    "overlap": "Is each pair apart?",
    "uncovered": "Is everything covered?",
    "repair": "Mending the set",
}
"""What the model is doing while it answers a question."""

ASKED = """\
Type your answer, or the numbers of suggestions (such as 1,3).
  /skip     leave this question unanswered      /back, /undo   take back the last move
  /enough   no more questions                   /spec          edit the specification in $EDITOR
  /quit     save and stop (as Ctrl-C does)"""

SETTLED = """\
  done                       write the goal; first settle what stands against the set
  accept N REASON            let violation N be; the reason is recorded
  repair                     let the model try to mend what is violated
  drop ID                    remove a subgoal
  merge ID ID [NAME]         one subgoal instead of two
  split ID NAME; NAME [...]  several instead of one
  add NAME[: DESCRIPTION]    one more; without a description the model writes one
  edit                       the whole set in $EDITOR          spec   the specification in $EDITOR
  back                       to the questions again            undo   take back the last move
  show                       print the set again               quit   save and stop (as Ctrl-C does)"""


class Undo(Exception):
    """A person takes the last move back."""


@contextmanager
def watched(what: str, n: int) -> Iterator[Callable[[int], None]]:
    """A context that shows the model at work on n answers to a question; what it gives is called as they come."""
    with progress(WORK.get(what, what), n, "answers", passing=True) as bar:
        yield bar.advance


@dataclass
class Script:
    """Moves that were written down before: answers to questions, and reasons for accepting violations.

    With `yes` nothing is left to a person: a question without an answer is skipped, and the set is taken as it is.
    """

    exchanges: list[Exchange]
    accepted: Accepted
    yes: bool = False

    def answer(self, inquiry: Inquiry) -> str | None:
        """The answer to this question, or to another on its aspect; "" skips it; None if there is no such move."""
        same = [each for each in self.exchanges if each.question == inquiry.question]
        about = [each for each in self.exchanges if each.aspect == inquiry.aspect]
        for exchange in (*same, *about)[:1]:
            self.exchanges.remove(exchange)
            return exchange.answer
        return "" if self.yes else None

    def reason(self, finding: Finding) -> str | None:
        """The reason why this violation may be."""
        return self.accepted.get((finding.constraint, tuple(sorted(finding.subgoals)), finding.statement))


class Interview:
    """Takes a draft to its end: the model works until somebody must move, then the script or else the person does."""

    def __init__(self, file: DraftFile, asker: Asker, console: Console, script: Script) -> None:
        self._file, self._asker, self._console, self._script = file, asker, console, script
        self._shown: Draft | None = None

    def run(self) -> Draft:
        """The settled draft. Raises KeyboardInterrupt where the person stops; all is saved then."""
        from ..phases.clarify import advance

        self._warned()
        while True:
            before = self._file.draft
            for draft in advance(before, self._asker):
                self._file.work(draft)
                self._tell(before, draft)
                before = draft
            draft = self._file.draft
            if draft.stage == "done":
                return draft
            try:
                self._file.move(self._answer(draft) if draft.stage == "answering" else self._settle(draft))
            except Undo:
                self._say("Taken back." if self._file.undo() else "There is nothing to take back.")
                self._shown = None

    # What is shown

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style or None, markup=False, highlight=False)

    def _warned(self) -> None:
        """Nothing; says which checks this model is not fit for, as measured on reference cases."""
        for line in unfit_for(self._asker, checks=self._file.draft.steps.checks):
            self._say(line, "yellow")

    def _tell(self, before: Draft, after: Draft) -> None:
        """Nothing; shows what the model's step changed."""
        if after.statements != before.statements:
            self._show_specification(before.statements, after.statements)
        for attempt in after.repairs[len(before.repairs) :]:
            stood, came = ", ".join(attempt.before) or "what is not covered", ", ".join(attempt.after)
            if not came:
                self._say(f"No repair found for {stood}.")
            else:
                fate = "" if attempt.kept else " (not kept: the set is no better for it)"
                self._say(f"Repair: {stood} → {came}{fate}")

    def _show_specification(self, before: Sequence[str], after: Sequence[str]) -> None:
        self._say("\nSpecification", "bold")
        for statement in before:
            if statement not in after:
                self._say(f"  - {statement}", "red")
        for statement in after:
            self._say(f"  {' ' if statement in before else '+'} {statement}", "" if statement in before else "green")

    def _show_set(self, draft: Draft) -> None:
        """Nothing; shows the subgoals and what the checks found."""
        print_set(self._console, draft.subgoals, draft.findings)

    # Moves

    def _answer(self, draft: Draft) -> Draft:
        from ..phases.clarify import answered, enough, respecified

        inquiry = draft.inquiries[0]
        scripted = self._script.answer(inquiry)
        self._say(f"\n{inquiry.question}", "bold")
        for number, suggestion in enumerate(inquiry.suggestions, 1):
            self._say(f"  {number}  {suggestion}")
        if scripted is not None:
            self._say(f"> {scripted or '/skip'}")
            return answered(draft, scripted)
        while True:
            said = self._ask("> ")
            match said.strip().lower():
                case "":
                    self._say("An answer, a number, or /help.")
                case "/help" | "/?" | "?":
                    self._say(ASKED)
                case "/skip":
                    return answered(draft, "")
                case "/enough":
                    return enough(draft)
                case "/back" | "/undo":
                    raise Undo
                case "/quit":
                    raise KeyboardInterrupt
                case "/spec":
                    if (statements := self._edited_lines(draft.statements)) is not None:
                        self._show_specification(draft.statements, statements)
                        return respecified(draft, statements)
                case other if other.startswith("/"):
                    self._say(f"There is no {other}.\n{ASKED}")
                case _:
                    picked = _picked(said, inquiry.suggestions)
                    if picked is None:
                        self._say(f"There are {len(inquiry.suggestions)} suggestions.")
                    else:
                        return answered(draft, picked)

    def _settle(self, draft: Draft) -> Draft:
        from ..phases.clarify import accepted, settled

        for violation in draft.violations:
            if reason := self._script.reason(violation):
                return accepted(draft, violation, reason)
        if self._shown != draft:
            self._show_set(draft)
            self._shown = draft
        if self._script.yes:
            return settled(draft)
        while True:
            said = self._ask("What next? (done, help) > ").strip()
            try:
                if (move := self._moved(draft, said)) is not None:
                    return move
            except click.UsageError as error:
                self._say(error.message)

    def _moved(self, draft: Draft, said: str) -> Draft | None:
        """The draft after a command of the settling stage; None if it changed nothing. Raises click.UsageError."""
        from ..phases import clarify
        from ..phases.decompose import replaced

        verb, _, rest = said.lstrip("/").partition(" ")
        rest = rest.strip()
        subgoals, goal = draft.subgoals, draft.goal
        match verb.lower():
            case "" | "help" | "?":
                self._say(SETTLED)
                return None
            case "show":
                self._show_set(draft)
                return None
            case "done":
                if not subgoals:
                    raise click.UsageError("There is no subgoal yet: add one.")
                if draft.violations:
                    raise click.UsageError(
                        f"{len(draft.violations)} violations stand: mend them, or accept each with a reason "
                        "(accept N REASON)."
                    )
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
                fresh = [replace(s, description="", evidence="") if s == pair[0] else s for s in subgoals]
                return clarify.edited(
                    draft, replaced(self._asker, goal, fresh, [subgoal.id for subgoal in pair], [named])
                )
            case "split":
                identity, _, names = rest.partition(" ")
                parts = [name.strip() for name in names.split(";") if name.strip()]
                if len(parts) < 2:
                    raise click.UsageError("Name the parts: split ID NAME; NAME.")
                return clarify.edited(
                    draft, replaced(self._asker, goal, subgoals, [_known(subgoals, identity).id], parts)
                )
            case "add":
                name, _, description = rest.partition(":")
                if not name.strip():
                    raise click.UsageError("Name it: add NAME, or add NAME: DESCRIPTION.")
                return clarify.edited(draft, _added(subgoals, name.strip(), description.strip()))
            case "edit":
                changed = self._edited_set(subgoals)
                return None if changed is None else clarify.edited(draft, changed)
            case "spec":
                statements = self._edited_lines(draft.statements)
                return None if statements is None else clarify.respecified(draft, statements)
            case "back":
                return clarify.asked_again(draft)
            case "undo":
                raise Undo
            case "quit":
                raise KeyboardInterrupt
        raise click.UsageError(f"There is no {verb!r}.\n{SETTLED}")

    def _ask(self, prompt: str) -> str:
        """A line that the person types. Raises KeyboardInterrupt at the end of input, UsageError without a terminal."""
        if not sys.stdin.isatty():
            raise click.UsageError("This needs a terminal; give --yes, and --answers FILE, to do without one.")
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        try:
            return input(prompt)
        except EOFError:
            raise KeyboardInterrupt from None

    def _edited_lines(self, lines: Sequence[str]) -> tuple[str, ...] | None:
        """The lines as the person left them in $EDITOR; None if nothing changed."""
        text = click.edit("".join(f"{line}\n" for line in lines), extension=".txt")
        changed = None if text is None else tuple(line.strip() for line in text.splitlines() if line.strip())
        return None if changed == tuple(lines) else changed

    def _edited_set(self, subgoals: Sequence[Subgoal]) -> tuple[Subgoal, ...] | None:
        """The set as the person left it in $EDITOR, None if nothing changed. Raises UsageError if it is wrong."""
        from ..errors import GoalError
        from ..goal_writing import written_subgoals
        from ..goals import read_subgoals

        with tempfile.TemporaryDirectory(prefix="goalcover-") as folder:
            path = Path(folder) / "subgoals.toml"
            path.write_text(written_subgoals(subgoals), encoding="utf-8")
            click.edit(filename=str(path))
            try:
                changed = read_subgoals(path)
            except GoalError as error:
                raise click.UsageError(f"{error} The set is as it was.".replace(str(path), path.name)) from None
        return None if changed == tuple(subgoals) else changed


def _picked(said: str, suggestions: Sequence[str]) -> str | None:
    """What was typed, or the suggestions whose numbers were; None for a number that there is not."""
    numbers = said.replace(",", " ").split()
    if not suggestions or not all(number.isdecimal() for number in numbers):
        return said
    if not all(1 <= int(number) <= len(suggestions) for number in numbers):
        return None
    return "; ".join(suggestions[int(number) - 1] for number in numbers)


def _numbered(violations: Sequence[Finding], number: str) -> Finding:
    if not number.isdecimal() or not 1 <= int(number) <= len(violations):
        raise click.UsageError(f"There are {len(violations)} violations: name one by its number.")
    return violations[int(number) - 1]


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


def _added(subgoals: Sequence[Subgoal], name: str, description: str) -> list[Subgoal]:
    from ..goals import slug
    from ..terms import Subgoal

    if any(subgoal.name.casefold() == name.casefold() for subgoal in subgoals):
        raise click.UsageError(f"There is a subgoal {name!r} already.")
    return [*subgoals, Subgoal(slug(name, [subgoal.id for subgoal in subgoals]), name, description)]
