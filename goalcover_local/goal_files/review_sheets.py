"""The sheet on which an expert reviews a decomposition (paper, section 7.2): written, read back, held against checks.

A sheet is Markdown for any editor. What comes from the goal stands in quotations and behind the numbers of headings,
with Markdown's marks escaped, so that none of it can pass for a box, an id, a heading, a comment or a tag.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..errors import GoalError
from ..terms import Constraint, Goal, Mark, Review

_ONE = "One capability"
_NEEDED = "Needed for the goal"
_PAIRS = "Pairs"
_MISSING = "Missing capabilities"
_HOW = """\
A goal for fine-tuning was split into the capabilities below. Please say what you think of the split.

- Put an x into one of the two boxes of a line: `[x] yes [ ] no`.
- Leave both empty where you have no opinion: that counts as no opinion, never as no.
- One capability: it is a single thing to master, and not several that should be tested apart.
- Needed for the goal: a model that lacks it falls short of the goal.
- Two are apart: what teaches the one hardly ever teaches the other.
- Write your name behind "Reviewer:", remarks below "Comment:", and at the end the capabilities that you miss.
- Leave all other lines as they are."""
_ANEW = "Write the sheet anew from the goal file, and copy the marks over."
_AS_IT_WAS = "Restore the line as it was in the sheet; remarks go below Comment:"

_LINE_END = re.compile(r"\r\n|\r|\n")
_DIGEST = re.compile(r"<!--\s*decomposition:\s*(\S+)\s*-->")
_REVIEWER = re.compile(r"Reviewer:\s*(.*)")
_HEADING = re.compile(rf"##\s+(?:(?P<title>{_PAIRS}|{_MISSING})|\d+\.\s.*\(`(?P<id>[^`]*)`\))")
_BOXES = re.compile(r"[-*+]\s+(?P<ask>\S.*?):\s*\[(?P<yes>[^\[\]]*)\]\s*yes\s+\[(?P<no>[^\[\]]*)\]\s*no")
_COMMENT = re.compile(r"Comment:\s*(.*)")
_ITEM = re.compile(r"[-*+](?:\s+(.*))?")

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in "\\`*_[]{}|~$"})
_BLOCK_START = re.compile(r"^(\d+(?=[.)])|(?=[-+#=:]))")
_TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How experts' marks agree with the checks on one constraint.

    `n_marked` marks could be compared, and `n_agree` of them say what the checks say. Of the others, `judge_only` stand
    where the judge alone saw a violation, and `expert_only` where the expert alone did.
    """

    constraint: Constraint
    n_marked: int
    n_agree: int
    judge_only: int
    expert_only: int


def sheet(goal: Goal) -> str:
    """The sheet of a goal, in Markdown with empty boxes; it tells nothing of the goal's checks and earlier reviews.

    Ids are trusted to be those of a goal file. Raises GoalError if the goal has no subgoals.
    """
    if not goal.subgoals:
        raise GoalError("The goal has no subgoals to review.", "Add [[subgoals]] to its file first.")
    blocks = ["# Review sheet", f"<!-- decomposition: {goal.decomposition} -->", "The goal:", _quoted(goal.text)]
    if goal.specification:
        blocks += ["Its specification:", _quoted(goal.specification)]
    blocks += ["## How to fill it in", _HOW, "Reviewer:"]
    for place, subgoal in enumerate(goal.subgoals, 1):
        shown_by = f"\n>\n> *Shown by:* {_escaped(subgoal.evidence)}" if subgoal.evidence else ""
        blocks += [
            f"## {place}. {_escaped(subgoal.name)} (`{subgoal.id}`)",
            _quoted(subgoal.description) + shown_by,
            f"{_boxes(_ONE)}\n{_boxes(_NEEDED)}",
            "Comment:",
        ]
    if pairs := _pairs(goal):
        blocks += [f"## {_PAIRS}", "\n".join(map(_boxes, pairs))]
    blocks += [f"## {_MISSING}", "- \n- \n- "]
    return "\n\n".join(blocks) + "\n"


def read_sheet(text: str, goal: Goal, source: str) -> Review:
    """The marks, remarks and missing capabilities of a sheet that was filled in for this very decomposition.

    A box holds x, X or nothing. Line ends, blank lines, spaces, bullets and what is quoted may change; a remark
    reaches down to the next heading of the sheet, and an unused `Comment:` may be gone. Raises GoalError, naming source
    and line, if the sheet is of another decomposition or names no reviewer, if a line is gone, repeated or cannot be
    understood, if both boxes of a line are marked, or if nothing at all is filled in.
    """
    lines = [_Line(source, number, raw) for number, raw in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), 1)]
    head, *parts = _split(lines)
    _refuse_other(goal, head, lines[0])
    reviewer = _reviewer(head, lines[0])
    ids = [subgoal.id for subgoal in goal.subgoals]
    pairs = _pairs(goal)
    sections = _sections(parts, [*ids, *([_PAIRS] if pairs else []), _MISSING], lines[-1])
    comments: dict[str, str] = {}
    marks: dict[str, dict[str, Mark]] = {}
    for id in ids:
        boxes, comment = _divided(sections[id])
        marks[id] = _marks(boxes, (_ONE, _NEEDED), ids)
        if comment:
            comments[id] = comment
    review = Review(
        reviewer=reviewer,
        subgoals=goal.decomposition,
        atomic={id: marks[id][_ONE] for id in ids if _ONE in marks[id]},
        needed={id: marks[id][_NEEDED] for id in ids if _NEEDED in marks[id]},
        disjoint={pairs[ask]: mark for ask, mark in _marks(sections[_PAIRS], pairs, ids).items()} if pairs else {},
        missing=_items(sections[_MISSING]),
        comments=comments,
    )
    if not (review.atomic or review.needed or review.disjoint or review.missing or review.comments):
        raise parts[0][0].error("nothing is filled in from here on", "Put an x into the boxes, and save the sheet.")
    return review


def agreement(goal: Goal) -> list[Agreement]:
    """How the experts' marks agree with the checks: of atomicity, then of disjointness; empty without current checks.

    Counts run over the marks of all reviews of the present decomposition. A violation is the judge's no, even if a
    person accepted it; what the judge left undecided is not compared. Coverage is left out, since the two say different
    things of it: the judge speaks of each sentence of the specification, the expert lists what the whole set lacks, and
    an empty list is no mark.
    """
    if goal.current_checks is None:
        return []
    judged: dict[tuple[Constraint, frozenset[str]], Mark] = {
        (finding.constraint, frozenset(finding.subgoals)): "yes" if finding.outcome == "holds" else "no"
        for finding in goal.current_checks.findings
        if finding.outcome != "undecided"
    }
    reviews = [review for review in goal.reviews if review.subgoals == goal.decomposition]
    atomic = [((id,), mark) for review in reviews for id, mark in review.atomic.items()]
    disjoint = [(pair, mark) for review in reviews for pair, mark in review.disjoint.items()]
    return [_agreement("atomicity", atomic, judged), _agreement("disjointness", disjoint, judged)]


def _agreement(
    constraint: Constraint,
    marks: Iterable[tuple[tuple[str, ...], Mark]],
    judged: Mapping[tuple[Constraint, frozenset[str]], Mark],
) -> Agreement:
    said = ((judged.get((constraint, frozenset(ids))), mark) for ids, mark in marks)
    both = [(judge, expert) for judge, expert in said if judge is not None]
    judge_only, expert_only = both.count(("no", "yes")), both.count(("yes", "no"))
    return Agreement(constraint, len(both), len(both) - judge_only - expert_only, judge_only, expert_only)


def _pairs(goal: Goal) -> dict[str, tuple[str, str]]:
    """Each pair of ids, in the goal's order, under what the sheet asks of it."""
    ids = [subgoal.id for subgoal in goal.subgoals]
    return {f"`{first}` and `{second}` are apart": (first, second) for first, second in combinations(ids, 2)}


def _boxes(ask: str) -> str:
    return f"- {ask}: [ ] yes [ ] no"


def _quoted(text: str) -> str:
    """A text as a Markdown quotation, a line for each of its own; no line can begin a list, a heading or a rule."""
    lines = (_escaped(line) for line in text.splitlines() if line.strip())
    return "\n".join("> " + _BLOCK_START.sub(r"\1\\", line) for line in lines)


def _escaped(text: str) -> str:
    """A text on one line, free of Markdown, HTML, control characters and ones that turn the direction of writing."""
    seen = ("\N{REPLACEMENT CHARACTER}" if _is_hidden(character) else character for character in " ".join(text.split()))
    return "".join(seen).translate(_ESCAPES)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _TURNING


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a sheet, and where it stands: `number` counts from 1."""

    source: str
    number: int
    raw: str

    @property
    def text(self) -> str:
        return self.raw.strip()

    def error(self, problem: str, mend: str) -> GoalError:
        return GoalError(f"{self.source}, line {self.number}: {problem}.", mend)


def _split(lines: Iterable[_Line]) -> list[list[_Line]]:
    """The lines above the first heading of a section, then each section's, its heading first."""
    parts: list[list[_Line]] = [[]]
    for line in lines:
        if _HEADING.fullmatch(line.text):
            parts.append([])
        parts[-1].append(line)
    return parts


def _refuse_other(goal: Goal, head: Iterable[_Line], first: _Line) -> None:
    """Raises GoalError unless the head holds one digest, and that of the goal's decomposition."""
    found = [(line, match[1]) for line in head if (match := _DIGEST.fullmatch(line.text))]
    if not found:
        raise first.error("the sheet has no line that says which decomposition it is of", _ANEW)
    for line, digest in found:
        if digest != goal.decomposition:
            raise line.error("the sheet is of another decomposition than the goal now has", _ANEW)
    if len(found) > 1:
        raise found[1][0].error("the decomposition stands there a second time", "Remove this line.")


def _reviewer(head: Iterable[_Line], first: _Line) -> str:
    """Who filled in the sheet."""
    found = [(line, " ".join(match[1].split())) for line in head if (match := _REVIEWER.fullmatch(line.text))]
    if not found:
        raise first.error("the sheet has no line for the reviewer", "Add above the first capability: Reviewer: NAME")
    if len(found) > 1:
        raise found[1][0].error("a reviewer stands there a second time", "Give each reviewer a sheet of their own.")
    line, name = found[0]
    if not name:
        raise line.error("no reviewer is named", "Write a name behind Reviewer:, on the same line.")
    return name


def _sections(parts: Iterable[list[_Line]], expected: Sequence[str], last: _Line) -> dict[str, list[_Line]]:
    """The lines of each section by its id or title. Raises GoalError for one that is unknown, repeated or gone."""
    found: dict[str, list[_Line]] = {}
    for part in parts:
        heading = _HEADING.fullmatch(part[0].text)
        key = (heading["title"] or heading["id"]) if heading else ""
        if key not in expected:
            raise part[0].error(f"the goal has no subgoal {key!r}", _AS_IT_WAS)
        if key in found:
            raise part[0].error(f"the section {key!r} stands there a second time", "Remove one of the two.")
        found[key] = part
    for key in expected:
        if key not in found:
            raise last.error(f"the sheet ends without the section {key!r}", _ANEW)
    return found


def _divided(section: list[_Line]) -> tuple[list[_Line], str]:
    """A section's lines up to `Comment:`, and what stands behind and below that."""
    for place, line in enumerate(section):
        if match := _COMMENT.fullmatch(line.text):
            remark = [match[1], *(below.raw.rstrip() for below in section[place + 1 :])]
            return section[:place], "\n".join(remark).strip()
    return section, ""


def _marks(section: Sequence[_Line], asks: Collection[str], ids: Collection[str]) -> dict[str, Mark]:
    """The marks of a section by what was asked; asks whose boxes are empty are absent."""
    seen: dict[str, Mark | None] = {}
    for line in section[1:]:
        if not line.text or line.text.startswith(">"):
            continue
        boxes = _BOXES.fullmatch(line.text.replace("\\[", "[").replace("\\]", "]"))
        if boxes is None:
            raise line.error("this is no line of the sheet with a box for yes and one for no", _AS_IT_WAS)
        ask = " ".join(boxes["ask"].split())
        for id in re.findall("`([^`]*)`", ask):
            if id not in ids:
                raise line.error(f"the goal has no subgoal {id!r}", _AS_IT_WAS)
        if ask not in asks:
            raise line.error("the sheet does not ask this here", _AS_IT_WAS)
        if ask in seen:
            raise line.error("this line stands there a second time", "Remove one of the two.")
        seen[ask] = _mark(line, boxes["yes"].strip(), boxes["no"].strip())
    for ask in asks:
        if ask not in seen:
            raise section[0].error(f"the line {ask!r} is gone below this heading", f"Add it: {_boxes(ask)}")
    return {ask: mark for ask, mark in seen.items() if mark}


def _mark(line: _Line, yes: str, no: str) -> Mark | None:
    """The mark that the contents of two boxes make; None if both are empty."""
    if not {yes, no} <= {"", "x", "X"}:
        raise line.error("a box holds another mark than x", "Put an x into one box, and leave the other empty.")
    if yes and no:
        raise line.error("both boxes are marked", "Leave the x in one of them, or in none if you have no opinion.")
    return "yes" if yes else "no" if no else None


def _items(section: Sequence[_Line]) -> tuple[str, ...]:
    """The items of a list, each on one line; a paragraph without a bullet is one, too."""
    items = [""]
    for line in section[1:]:
        item = _ITEM.fullmatch(line.text)
        if item or not line.text:
            items.append("")
        items[-1] = f"{items[-1]} {(item[1] or '') if item else line.text}".strip()
    return tuple(" ".join(item.split()) for item in items if item)
