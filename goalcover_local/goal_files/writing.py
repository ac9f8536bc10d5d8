"""Goals become goal files: fresh ones, with comments for their reader, or edits of one that a person keeps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ..errors import GoalError
from ..files import replace_file
from ..terms import Checks, Exchange, Finding, Goal, Repair, Review, Subgoal
from .editing import edited
from .reading import parse_goal
from .tables import text_of

_PLACES = 4  # digits of a probability
_WIDTH = 100  # characters of a list on one line

_ON_GOAL = """\
# The goal in your words, and what it covers. Edit any text here: comments stay when the file is written again."""
_ON_SUBGOALS = """\
# What the data should support. A judge reads name and description; evidence is for people;
# target_share is the share of rows that should support the subgoal. Edit, add and remove as you like."""
_ON_EXCHANGES = """\
# The questions that led to the specification. One without an answer was skipped."""
_ON_CHECKS = """\
# Written by "goalcover clarify --check". After an edit above, run that again rather than edit below."""
_ON_REVIEWS = """\
# Experts' marks on the subgoals, read from their sheets."""


def written(goal: Goal, onto: str = "") -> str:
    """The text of a goal file that `read_goal` reads back as this goal, texts trimmed, probabilities to 4 digits.

    Without `onto` it is a fresh document. With `onto`, the text of a goal file, it is that text with only what
    differs changed: comments, order, spacing and quotes stay; exchanges, checks and reviews are replaced whole if
    they differ. An edit that would not read back gives way to a fresh document. Raises GoalError if `onto` is no goal
    file, or if no file could be read back as this goal: it has no subgoals, say, or one without a description.
    """
    fresh = _fresh(goal)
    try:
        fresh.encode()
    except UnicodeEncodeError:
        raise GoalError("The goal to write holds half a character.", "Type the text that was pasted again.") from None
    wanted = parse_goal(fresh, "the goal to write")
    if not onto:
        return fresh
    old = parse_goal(onto, "the goal file to change")
    if old.checks == goal.checks:
        wanted = replace(wanted, checks=old.checks)
    with contextlib.suppress(GoalError, TOMLKitError):
        text = edited(onto, old, wanted, fresh)
        if parse_goal(text, "the goal file as changed") == wanted:
            return text
    return fresh


def written_subgoals(subgoals: Sequence[Subgoal]) -> str:
    """The subgoals alone, as they stand in a fresh goal file; `read_subgoals` reads them back from a `.toml`."""
    return "\n".join(_headed(_ON_SUBGOALS, (_record("[[subgoals]]", each) for each in subgoals)))


def save_goal(goal: Goal, path: Path | str) -> None:
    """Nothing; the goal file is written, onto the one that is there if it can be read, and takes its place in one step.

    An existing file's mode is kept, and a link is followed. Raises GoalError, and leaves what was there as it was, if
    the file or the goal cannot be written.
    """
    file = Path(path)
    if file.exists() and not os.access(file, os.W_OK):
        raise GoalError(f"{path} may only be read.", "Change its permissions, or name another place.")
    replace_file(file.resolve() if file.is_symlink() else file, written(goal, onto=_existing(file)))


def _existing(file: Path) -> str:
    """The text of the goal file that is there; none if it is none."""
    try:
        text = text_of(file)
        parse_goal(text, str(file))
    except GoalError:
        return ""
    return text


def _fresh(goal: Goal) -> str:
    """A goal file from the top: goal, subgoals, exchanges, checks, reviews."""
    top = {"goal": goal.text, "specification": goal.specification, "tau": goal.tau, "without": goal.without}
    sections = [*_headed(_ON_GOAL, [_section("", top)])]
    sections += [written_subgoals(goal.subgoals)] if goal.subgoals else []
    sections += _headed(_ON_EXCHANGES, (_record("[[exchanges]]", each) for each in goal.exchanges))
    sections += _headed(_ON_CHECKS, _checks(goal.checks) if goal.checks else ())
    sections += _headed(_ON_REVIEWS, (section for each in goal.reviews for section in _review(each)))
    return "\n".join(sections)


def _headed(comment: str, sections: Iterable[str]) -> Iterator[str]:
    """Sections, the first of them under a comment."""
    for place, section in enumerate(sections):
        yield section if place else f"{comment}\n{section}"


def _section(header: str, values: Mapping[str, object]) -> str:
    """A header and its keys, one a line; what is None or empty is left out."""
    lines = [header] if header else []
    lines += [f"{key} = {_value(value)}" for key, value in values.items() if value not in (None, "", ())]
    return "\n".join(lines) + "\n"


def _record(header: str, record: Subgoal | Exchange | Finding | Repair) -> str:
    """A table whose keys are the fields of a record."""
    return _section(header, {field.name: getattr(record, field.name) for field in fields(record)})


def _checks(checks: Checks) -> Iterator[str]:
    yield _section("[checks]", {"judge": checks.judge, "digest": checks.digest, "subgoals": checks.subgoals})
    if checks.fitness:
        yield _section("[checks.fitness]", {key: _rounded(share) for key, share in checks.fitness.items()})
    for finding in checks.findings:
        yield _record("[[checks.findings]]", replace(finding, probability=_rounded(finding.probability)))
    for repair in checks.repairs:
        yield _record("[[checks.repairs]]", repair)


def _review(review: Review) -> Iterator[str]:
    top = {"reviewer": review.reviewer, "subgoals": review.subgoals, "missing": review.missing}
    yield _section("[[reviews]]", top)
    for key in ("atomic", "needed", "comments"):
        if marks := getattr(review, key):
            yield _section(f"[reviews.{key}]", marks)
    for pair, mark in review.disjoint.items():
        yield _section("[[reviews.disjoint]]", {"subgoals": pair, "mark": mark})


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(probability, _PLACES)


def _value(value: object) -> str:
    """A value as TOML: a text of several lines on as many, a list on one line if it has room there."""
    if isinstance(value, tuple):
        texts = [tomlkit.item(text).as_string() for text in value]
        line = f"[{', '.join(texts)}]"
        return line if len(line) <= _WIDTH else "".join(["[\n", *(f"    {text},\n" for text in texts), "]"])
    if isinstance(value, str) and "\n" in value:
        # Line by line, because tomlkit would leave the carriage return of a line end bare, to be lost when read.
        lines = (tomlkit.string(line, multiline=True).as_string()[3:-3] for line in value.split("\n"))
        return "\n".join(['"""', *lines, '"""'])
    return tomlkit.item(value).as_string()
