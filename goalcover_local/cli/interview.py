"""The conversation of `goalcover clarify`: the model's work shown as it comes, and a person's or a script's moves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from .decomposition import print_set, told_of, unfit_for
from .editor import edited_lines
from .settling import SETTLED, moved
from .terminal import counted, plain

if TYPE_CHECKING:
    from rich.console import Console

    from ..asking import Asker
    from ..drafts import DraftFile
    from ..phases.clarify import Draft, Inquiry
    from ..terms import Acceptance, Exchange, Finding, Subgoal

ASKED = """\
Type your answer, or the numbers of suggestions (such as 1,3).
  /skip     leave this question unanswered      /back, /undo   take back the last move
  /enough   no more questions                   /spec          edit the specification in $EDITOR
  /quit     save and stop (as Ctrl-C does)"""

WELCOME = """\
Answer in your own words, or by the numbers of suggestions. /skip leaves a question out, /enough ends the questions,
/help shows more; Ctrl-C saves and stops."""

BARE = ("help", "quit", "skip", "back", "undo", "enough", "spec", "done")
"""Words that are commands where they stand behind a slash, and no answers."""

NO_TERMINAL = "This needs a terminal; give --yes, and --answers FILE, to do without one."


class Undo(Exception):
    """A person takes the last move back."""


def at_terminal() -> bool:
    """Whether somebody can type."""
    return sys.stdin is not None and sys.stdin.isatty()


@dataclass
class Script:
    """Moves that were written down before: answers to questions, and reasons for accepting violations, each made once.

    With `yes` nothing is left to a person: a question without an answer is skipped, and the set is taken as it is.
    """

    exchanges: list[Exchange]
    accepted: list[Acceptance]
    yes: bool = False

    def pass_over(self, exchanges: Sequence[Exchange]) -> None:
        """Nothing; takes out the answers that were given before, as these exchanges tell."""
        for exchange in exchanges:
            self.answer(exchange)

    def answer(self, inquiry: Inquiry | Exchange) -> str | None:
        """The answer to this question, or to another on its aspect; "" skips it; None if there is no such move."""
        same = [each for each in self.exchanges if each.question == inquiry.question]
        about = [each for each in self.exchanges if each.aspect == inquiry.aspect]
        for exchange in (*same, *about)[:1]:
            self.exchanges.remove(exchange)
            return plain(exchange.answer)
        return "" if self.yes else None

    def left_over(self) -> list[str]:
        """What was written down and not asked for, in words."""
        answers = [exchange.aspect or exchange.question for exchange in self.exchanges]
        told = [f"answers not asked for: {plain('; '.join(answers))}."] if answers else []
        n = len(self.accepted)
        return [*told, f"{counted(n, 'acceptance')} of nothing that was violated."] if n else told

    def reason(self, finding: Finding, subgoals: Sequence[Subgoal]) -> str:
        """The reason why this violation may be; "" if there is no such move."""
        digests = {subgoal.id: subgoal.digest for subgoal in subgoals}
        for acceptance in self.accepted:
            if acceptance.covers(finding, digests):
                self.accepted.remove(acceptance)
                return plain(acceptance.reason).strip()
        return ""


class Interview:
    """Takes a draft to its end: the model works until somebody must move, then the script or else the person does."""

    def __init__(self, file: DraftFile, asker: Asker, console: Console, script: Script) -> None:
        self._file, self._asker, self._console, self._script = file, asker, console, script
        self._shown: Draft | None = None

    def run(self) -> Draft:
        """The settled draft. Raises KeyboardInterrupt where the person stops; all is saved then."""
        from ..phases.clarify import advance, renewed, unrepaired

        self._warned()
        if (fresh := renewed(self._file.draft, self._asker)) != self._file.draft:
            self._file.work(fresh)
        if not self._script.yes and self._file.draft.steps.questions and not self._file.draft.enough:
            self._say(WELCOME)
        while True:
            before = self._file.draft
            unmended = before
            for draft in advance(before, self._asker):
                if draft.stage == "repairing" and not draft.tried:
                    unmended = draft
                if (
                    draft.repairs[len(unmended.repairs) :]
                    and draft.repairs[-1].kept
                    and draft.subgoals != unmended.subgoals
                ):
                    # So that one undo brings back the set as it was before the model mended it.
                    self._file.work(unrepaired(unmended))
                    self._file.move(draft)
                    unmended = draft
                else:
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
        self._console.print(plain(text), style=style or None, markup=False, highlight=False)

    def _warned(self) -> None:
        """Nothing; says which checks this model is not fit for, as measured on reference cases."""
        for line in unfit_for(self._asker, checks=self._file.draft.steps.checks):
            self._say(line, "yellow")

    def _tell(self, before: Draft, after: Draft) -> None:
        """Nothing; shows what the model's step changed."""
        if after.statements != before.statements:
            self._show_specification(before.statements, after.statements)
        if after.proposed and not before.proposed:
            self._say(f"\nProposed: {'; '.join(subgoal.name for subgoal in after.subgoals) or 'nothing'}")
        if after.stage == "repairing" and before.findings is None:
            names = {subgoal.id: subgoal.name for subgoal in after.subgoals}
            for violation in after.violations:
                self._say(f"  {told_of(violation, names)}")
        names = {subgoal.id: subgoal.name for subgoal in (*before.subgoals, *after.subgoals)}
        for attempt in after.repairs[len(before.repairs) :]:
            stood = " and ".join(names.get(each, each) for each in attempt.before) or "what is not covered"
            came = "; ".join(names.get(each, each) for each in attempt.after)
            if attempt.kept:
                self._say(f"Mended: {stood} → {came} (undo brings back the set as it was)")
            else:
                self._say(f"Not mended: {stood}{f' → {came} is no better' if came else ''}")

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
                    try:
                        statements = edited_lines(draft.statements)
                    except click.UsageError as error:
                        self._say(error.message)
                        continue
                    if statements is not None:
                        self._show_specification(draft.statements, statements)
                        return respecified(draft, statements)
                case other if other in BARE:
                    self._say(f"If you mean the command, type /{other}; if it is your answer, say more.")
                case other if other.startswith("/"):
                    self._say(f"There is no {other}.\n{ASKED}")
                case _:
                    picked = _picked(said, inquiry.suggestions)
                    if picked is None:
                        self._say(f"There are suggestions 1 to {len(inquiry.suggestions)}; or answer in words.")
                    else:
                        return answered(draft, picked)

    def _settle(self, draft: Draft) -> Draft:
        from ..errors import GoalError
        from ..phases.clarify import accepted, settled

        for violation in draft.violations:
            if reason := self._script.reason(violation, draft.subgoals):
                return accepted(draft, violation, reason)
        if self._shown != draft:
            self._show_set(draft)
            self._shown = draft
        if self._script.yes:
            if not draft.subgoals:
                mend = "Answer what it must master (--answers), or --resume without --yes and add them."
                raise GoalError("No subgoal was found.", mend)
            return settled(draft)
        while True:
            said = self._ask("What next? (done, help) > ").strip()
            try:
                match said.lstrip("/").lower():
                    case "" | "help" | "?":
                        self._say(SETTLED)
                    case "show":
                        self._show_set(draft)
                    case "undo":
                        raise Undo
                    case "quit":
                        raise KeyboardInterrupt
                    case "back":
                        if (asked := self._file.last_asked()) is not None:
                            self._say("The last question again; the set will be drawn anew. /undo returns to it.")
                            return asked
                        self._say("No question was asked.")
                    case _:
                        if (move := moved(draft, said, self._asker)) is not None:
                            return move
                        self._say("Nothing changed.")
            except click.UsageError as error:
                self._say(error.message)

    def _ask(self, prompt: str) -> str:
        """A line that the person types. Raises KeyboardInterrupt at the end of input, UsageError without a terminal."""
        if not at_terminal():
            raise click.UsageError(NO_TERMINAL)
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        while True:
            try:
                return plain(" ".join(input(prompt).split()))
            except EOFError:
                raise KeyboardInterrupt from None
            except UnicodeDecodeError:
                self._say("That is no UTF-8: type it again.")


def _picked(said: str, suggestions: Sequence[str]) -> str | None:
    """What was typed, or the suggestions whose numbers were, each once; None for a number that there is not."""
    numbers = said.replace(",", " ").split()
    if not suggestions or not all(number.isdecimal() for number in numbers):
        return said
    by_number = {str(number): suggestion for number, suggestion in enumerate(suggestions, 1)}
    if not numbers or not set(numbers) <= set(by_number):
        return None
    return "; ".join(by_number[number] for number in dict.fromkeys(numbers))
