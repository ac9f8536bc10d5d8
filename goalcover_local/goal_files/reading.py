"""Goal files: `goal.toml` becomes a `Goal`, checked strictly, and the goals that ship are found by name."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

from ..errors import GoalError
from ..resources import shipped
from ..terms import CONSTRAINTS, STEPS, Acceptance, Exchange, Goal, Subgoal
from .checks import checks_of, review_of
from .tables import Table, table_of, text_of

_GOAL_KEYS = ("goal", "specification", "tau", "without", "exchanges", "subgoals", "checks", "reviews")
_EXCHANGE_KEYS = ("question", "answer", "aspect", "suggestions", "statement")
_SUBGOAL_KEYS = ("id", "name", "description", "evidence", "target_share")
_MOST = 1000  # subgoals, each of which is compared with every other
_LONGEST_ID = 40  # characters, of those made from a name
_BULLET = re.compile(r"(?:[-*]|\d+[.)])(?:\s+|$)")


def read_goal(path: Path | str) -> Goal:
    """The goal that a `goal.toml` states: texts trimmed at both ends, subgoals in the order of the file.

    `goal` and at least one `[[subgoals]]` are needed; `tau` and each `target_share` lie in (0, 1]; exchanges, checks
    and reviews may stand there, and the ids in checks and reviews may be of subgoals that are gone. Raises GoalError,
    naming the file and the table, for anything else: an unknown key, a wrong type, an empty text, a bad or repeated
    id, two subgoals of one text.
    """
    return parse_goal(text_of(Path(path)), str(path))


def parse_goal(text: str, where: str) -> Goal:
    """The goal that the text of a goal file states, as `read_goal` reads it; `where` names the file in errors."""
    top = table_of(text, where)
    if "removals" in top:
        raise GoalError(f"{where} is a study, not a goal.", "Give the goal that it names.")
    top.refuse_unknown(_GOAL_KEYS)
    return Goal(
        text=top.text("goal"),
        specification=top.text("specification", default=""),
        exchanges=tuple(_exchange(table) for table in top.tables("exchanges", "exchange")),
        subgoals=_subgoals(top),
        tau=top.share("tau", default=0.6),
        without=top.words("without", STEPS),
        checks=checks_of(top.table("checks")),
        reviews=tuple(review_of(table) for table in top.tables("reviews", "review")),
    )


def read_subgoals(path: Path | str) -> tuple[Subgoal, ...]:
    """The subgoals that somebody wrote by hand, in the order of the file; a description may be missing, then it is "".

    A file that ends in `.toml` has `[[subgoals]]` as a goal file has, of which only `name` is needed; the goal's
    other keys may stand there and are not read. Any other file is plain text: one subgoal a line, `name` or
    `name: description`, after a bullet or a number or none; blank lines and lines that begin with `#` are passed
    over. Ids that are missing are made from names. Raises GoalError as `read_goal` does.
    """
    text = text_of(Path(path))
    if Path(path).suffix.lower() != ".toml":
        return _listed(text, str(path))
    top = table_of(text, str(path))
    top.refuse_unknown(_GOAL_KEYS)
    return _subgoals(top, by_hand=True)


def read_answers(path: Path | str) -> tuple[tuple[Exchange, ...], tuple[Acceptance, ...]]:
    """What was answered and accepted beforehand: exchanges, and the reasons for which violations may be.

    A goal file that was clarified before tells both; if its set was edited since it was checked, only answers. Any
    other file is TOML with `[[exchanges]]` (`question` or `aspect`, and `answer`) and `[[accepted]]` (`constraint`,
    `subgoals` or `statement`, and `reason`). Raises GoalError as `read_goal` does.
    """
    text = text_of(Path(path))
    top = table_of(text, str(path))
    if "goal" in top:
        goal = parse_goal(text, str(path))
        found = goal.current_checks.findings if goal.current_checks else ()
        digests = {subgoal.id: subgoal.digest for subgoal in goal.subgoals}
        return goal.exchanges, tuple(
            Acceptance(each.constraint, each.subgoals, each.statement, each.reason, digests)
            for each in found
            if each.outcome == "accepted"
        )
    top.refuse_unknown(("exchanges", "accepted"))
    exchanges = tuple(_exchange(table, scripted=True) for table in top.tables("exchanges", "exchange"))
    return exchanges, tuple(_acceptance(table) for table in top.tables("accepted", "acceptance"))


def slug(name: str, taken: Collection[str] = ()) -> str:
    """An id made from a name: small letters, digits and hyphens, at most 40 characters, none of those taken."""
    plain = unicodedata.normalize("NFKD", name).casefold().encode("ascii", "ignore").decode()
    word = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "subgoal"
    word = word if word[0].isalpha() else f"s-{word}"
    found, number = _cut(word, _LONGEST_ID), 1
    while found in taken:
        number += 1
        found = f"{_cut(word, _LONGEST_ID - len(f'-{number}'))}-{number}"
    return found


def find_goal(name_or_path: Path | str) -> Path:
    """The goal file meant: that path if it is a file, else the shipped goal of that name.

    Raises GoalError, which names the shipped goals, if there is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = shipped_goals()
    name = str(name_or_path)
    if name in known:
        return known[name]
    what = "is a folder, not a goal file" if path.is_dir() else "is neither a file nor a shipped goal"
    close = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(known) if known else "none"
    raise GoalError(f"{name!r} {what}.", f"{hint}Give the path of a goal.toml, or a shipped goal: {listed}.")


def shipped_goals() -> dict[str, Path]:
    """The goals that ship, name to file, in alphabetical order."""
    return {file.stem: file for file in sorted(shipped("goals").glob("*.toml"))}


def _exchange(table: Table, scripted: bool = False) -> Exchange:
    """An exchange as it was; a scripted one, whose question is not known yet, may name its aspect instead."""
    table.refuse_unknown(_EXCHANGE_KEYS)
    return Exchange(
        question=table.text("question", default="" if scripted and "aspect" in table else None),
        answer=table.text("answer") if "answer" in table else "",
        aspect=table.text("aspect", default=""),
        suggestions=table.texts("suggestions"),
        statement=table.text("statement", default=""),
    )


def _acceptance(table: Table) -> Acceptance:
    table.refuse_unknown(("constraint", "subgoals", "statement", "reason"))
    about = table.ids("subgoals"), table.text("statement", default="")
    if not any(about):
        raise GoalError(f"{table.where} does not say what is accepted.", "Name its subgoals, or its statement.")
    return Acceptance(table.word("constraint", CONSTRAINTS), *about, table.text("reason"))


def _subgoals(top: Table, by_hand: bool = False) -> tuple[Subgoal, ...]:
    """The subgoals under `top`, at least one, no two alike; those by hand may lack id and description."""
    tables = top.tables("subgoals", "subgoal")
    if not tables:
        needed = "a name" if by_hand else "id, name and description"
        raise GoalError(f"{top.where} has no subgoals.", f"Add at least one [[subgoals]] with {needed}.")
    if len(tables) > _MOST:
        raise GoalError(f"{top.where} has more than {_MOST} subgoals.", "Keep those that matter.")
    taken = {table.id("id") for table in tables if "id" in table}
    subgoals: list[Subgoal] = []
    for table in tables:
        made = by_hand and "id" not in table
        subgoals.append(_subgoal(table, slug(table.text("name"), taken) if made else table.id("id"), by_hand))
        taken.add(subgoals[-1].id)
    _refuse_equals(top.where, subgoals)
    return tuple(subgoals)


def _subgoal(table: Table, identity: str, by_hand: bool) -> Subgoal:
    named = Table(table.values, f"{table.where} ({identity!r})")
    named.refuse_unknown(_SUBGOAL_KEYS)
    return Subgoal(
        id=identity,
        name=named.text("name"),
        description=named.text("description", default="" if by_hand else None),
        evidence=named.text("evidence", default=""),
        target_share=named.share("target_share", default=0.05),
    )


def _refuse_equals(where: str, subgoals: list[Subgoal]) -> None:
    """Raises GoalError if two subgoals share an id, or all that a judge reads of them."""
    ids: dict[str, int] = {}
    texts: dict[str, str] = {}
    for place, subgoal in enumerate(subgoals, 1):
        if subgoal.id in ids:
            problem = f"{where}: subgoals {ids[subgoal.id]} and {place} have the same id {subgoal.id!r}."
            raise GoalError(problem, "Give each its own id.")
        if subgoal.digest in texts:
            problem = f"{where}: subgoals {texts[subgoal.digest]!r} and {subgoal.id!r} have the same text."
            raise GoalError(problem, "Remove one, or say how they differ.")
        ids[subgoal.id] = place
        texts[subgoal.digest] = subgoal.id


def _listed(text: str, where: str) -> tuple[Subgoal, ...]:
    """The subgoals of a plain text, one a line. Raises GoalError: a line without a name, two alike, none at all."""
    subgoals: dict[str, Subgoal] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        bullet = _BULLET.match(words)
        name, *rest = re.split(r":(?:\s+|$)", words[bullet.end() :] if bullet else words, maxsplit=1)
        name = name.rstrip()
        if not name:
            raise GoalError(f"{where}, line {number} has no name.", "Write: name, or name: description.")
        if len(subgoals) == _MOST:
            raise GoalError(f"{where} has more than {_MOST} subgoals.", "Give a list of subgoals, one a line.")
        subgoal = Subgoal(slug(name, subgoals), name, "".join(rest))
        if subgoal.digest in lines:
            problem = f"{where}: lines {lines[subgoal.digest]} and {number} have the same text."
            raise GoalError(problem, "Remove one, or say how they differ.")
        subgoals[subgoal.id], lines[subgoal.digest] = subgoal, number
    if not subgoals:
        raise GoalError(f"{where} has no subgoals.", "Write one a line: name, or name: description.")
    return tuple(subgoals.values())


def _cut(word: str, length: int) -> str:
    """As many of a word's hyphenated parts as have room, or what has room of the first."""
    if len(word) <= length:
        return word
    return word[: length + 1].rpartition("-")[0] or word[:length]
