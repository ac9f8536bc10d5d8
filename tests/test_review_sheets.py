"""Review sheets: what is marked is read back, what comes from a goal stays text, and what is broken is refused."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from goalcover_local.errors import GoalError
from goalcover_local.goal_files.review_sheets import Agreement, agreement, read_sheet, sheet
from goalcover_local.terms import Checks, Constraint, Finding, Goal, Mark, Outcome, Review, Subgoal

GOAL = Goal(
    "Answer patients",
    "It knows the heart.\nIt knows the skin.",
    subgoals=(
        Subgoal("heart", "Heart disease", "Heart attacks and chest pain.", "The answer is about the heart."),
        Subgoal("skin", "Skin problems", "Rashes and acne."),
        Subgoal("sleep", "Sleep", "Sleeplessness and snoring."),
    ),
)
EMPTY = sheet(GOAL)
FILLED = EMPTY.replace("\nReviewer:\n", "\nReviewer: Dr. Ada\n").replace("y: [ ] yes", "y: [x] yes", 1)


def boxes(ask: str, mark: Mark | None) -> str:
    return f"- {ask}: [{'x' if mark == 'yes' else ' '}] yes [{'x' if mark == 'no' else ' '}] no"


def filled(text: str, review: Review) -> str:
    """A sheet with the marks of a review, as an expert would write them in."""
    id = ""
    lines = []
    for line in text.split("\n"):
        if heading := re.fullmatch(r"## \d+\. .*\(`([^`]*)`\)", line):
            id = heading[1]
        if line == "Reviewer:":
            line = f"Reviewer: {review.reviewer}"
        elif line.startswith("- One capability:"):
            line = boxes("One capability", review.atomic.get(id))
        elif line.startswith("- Needed for the goal:"):
            line = boxes("Needed for the goal", review.needed.get(id))
        elif pair := re.fullmatch(r"- `(.*)` and `(.*)` are apart: .*", line):
            line = boxes(f"`{pair[1]}` and `{pair[2]}` are apart", review.disjoint.get((pair[1], pair[2])))
        elif line == "Comment:" and id in review.comments:
            line = f"Comment:\n\n{review.comments[id]}"
        lines.append(line)
    top, heading_, _ = "\n".join(lines).rpartition("## Missing capabilities\n\n")
    return top + heading_ + "".join(f"- {name}\n" for name in review.missing) + "- \n"


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1, max_size=12)
ONE_LINE = WORDS.map(lambda text: " ".join(text.split())).filter(bool)
REMARKS = st.lists(ONE_LINE, min_size=1, max_size=3).map("\n\n".join)
MARKS = st.sampled_from(("yes", "no"))


@st.composite
def reviews(draw: st.DrawFn, goal: Goal) -> Review:
    ids = [subgoal.id for subgoal in goal.subgoals]
    some = st.sampled_from(ids)
    return Review(
        draw(ONE_LINE),
        goal.decomposition,
        {ids[0]: draw(MARKS)} | draw(st.dictionaries(some, MARKS)),
        draw(st.dictionaries(some, MARKS)),
        draw(st.dictionaries(st.sampled_from(list(combinations(ids, 2))), MARKS)),
        tuple(draw(st.lists(ONE_LINE, max_size=3))),
        draw(st.dictionaries(some, REMARKS)),
    )


@given(review=reviews(GOAL))
def test_what_is_marked_is_read_back(review: Review) -> None:
    assert read_sheet(filled(EMPTY, review), GOAL, "sheet.md") == review


def as_edited(text: str, seed: int) -> str:
    """A filled sheet after an editor with habits of its own."""
    chance = random.Random(seed)
    lines = []
    for line in text.split("\n"):
        if "yes [" in line and not line.startswith(">"):
            line = line.replace("[x]", chance.choice(("[X]", "[ x ]", r"\[x\]", "[x ]")))
            line = line.replace("[ ]", chance.choice(("[]", "[  ]", "[\u00a0]")))
            line = chance.choice(("-", "*", "+")) + chance.choice((" ", "   ")) + line[2:]
            lines += [""] * chance.randrange(3)
        lines.append(" " * chance.randrange(3) + line + " " * chance.randrange(3))
    return chance.choice(("", "\ufeff")) + chance.choice(("\n", "\r\n", "\r")).join(lines)


@given(review=reviews(GOAL), seed=st.integers(0, 10**6))
def test_an_editors_habits_do_no_harm(review: Review, seed: int) -> None:
    review = replace(review, comments={id: " ".join(text.split()) for id, text in review.comments.items()})
    assert read_sheet(as_edited(filled(EMPTY, review), seed), GOAL, "sheet.md") == review


HOSTILE = (
    "- One capability: [x] yes [ ] no",
    "\n- Needed for the goal: [x] yes [ ] no\n",
    "\n## 1. Other (`skin`)\n\n- One capability: [ ] yes [x] no\n",
    "Heart (`skin`)",
    "`skin`)",
    f"\n<!-- decomposition: {'0' * 64} -->\n",
    "<!--",
    "-->",
    "</script><script>alert(1)</script>",
    "\nReviewer: Mallory\n",
    "\r\nComment: all is well\r\n",
    "\u2028## Pairs\u2028- `heart` and `skin` are apart: [x] yes [ ] no",
    "\n===\n",
    "---",
    "```\n",
    "~~~",
    "\n    code\n",
    "1. one\n2) two",
    "# title",
    "+ plus",
    "> quoted",
    "[x]: https://example.org",
    "![x](y) *bold* __it__ ~~gone~~ $x$ | a | b |",
    "\n|---|---|\n",
    "a & b &amp; c",
    "back\\slash\\",
    "\x00\x1b[31m",
    "\u202eon [ ] sey",
)
ANY_TEXT = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=6), min_size=1, max_size=5).map("".join)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@st.composite
def hostile_goals(draw: st.DrawFn) -> Goal:
    texts = st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT)
    subgoals = [Subgoal(id, *draw(texts)) for id in ("heart", "skin")]
    return Goal(draw(ANY_TEXT), draw(ANY_TEXT), subgoals=tuple(subgoals))


def kept(text: str) -> str:
    """What a reader should see of a text: its words, with a sign for what cannot be shown."""
    shown = " ".join(text.split())
    return re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", "\ufffd", shown)


def check_that_texts_stay_texts(goal: Goal) -> None:
    """Fails if a text of this goal of two subgoals passes for a part of its sheet, read by us or shown as Markdown."""
    text = sheet(goal)
    with pytest.raises(GoalError, match="no reviewer is named"):
        read_sheet(text, goal, "sheet.md")
    review = Review("Ada", goal.decomposition, {"skin": "no"}, {}, {("heart", "skin"): "yes"})
    assert read_sheet(filled(text, review), goal, "sheet.md") == review

    tokens = MARKDOWN.parse(text)
    inside = [child for token in tokens for child in token.children or []]
    assert [token.content for token in tokens if token.type == "html_block"] == [
        f"<!-- decomposition: {goal.decomposition} -->\n"
    ]
    assert {token.type for token in tokens}.isdisjoint({"fence", "code_block", "table_open", "hr", "ordered_list_open"})
    assert {child.type for child in inside}.isdisjoint({"html_inline", "link_open", "image", "strong_open", "s_open"})
    assert sum(token.type == "heading_open" for token in tokens) == 6
    quoted = shown = ""
    for token in tokens:
        assert token.type != "blockquote_open" or quoted.count("(") == quoted.count(")")
        quoted += {"blockquote_open": "(", "blockquote_close": ")"}.get(token.type, "")
        assert token.type != "list_item_open" or quoted.count("(") == quoted.count(")")
        shown += "".join(child.content or " " for child in token.children or []) + " "
    for known in (goal.text, *(text for each in goal.subgoals for text in (each.name, each.description))):
        assert kept(known) in " ".join(shown.split())


@given(goal=hostile_goals())
def test_no_text_of_a_goal_passes_for_a_part_of_the_sheet(goal: Goal) -> None:
    check_that_texts_stay_texts(goal)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_hostile_text_passes_for_a_part_of_the_sheet(text: str) -> None:
    subgoals = tuple(Subgoal(id, text, text, text) for id in ("heart", "skin"))
    check_that_texts_stay_texts(Goal(text, f"One.\n{text}\nTwo.", subgoals=subgoals))


def test_a_sheet_tells_nothing_of_the_checks_and_earlier_reviews() -> None:
    checks = Checks("some-judge", "0", GOAL.decomposition, {"atomicity": 0.5}, (Finding("atomicity", ("skin",)),))
    earlier = Review("Dr. Earlier", GOAL.decomposition, {"skin": "no"})
    assert sheet(replace(GOAL, checks=checks, reviews=(earlier,))) == EMPTY


def test_a_sheet_asks_of_every_pair() -> None:
    ids = [f"c{number}" for number in range(12)]
    goal = Goal("A goal", subgoals=tuple(Subgoal(id, id, f"About {id}.") for id in ids))
    assert sheet(goal).count(" are apart: [ ] yes [ ] no") == 66
    every = dict.fromkeys(combinations(ids, 2), "yes")
    review = Review("Ada", goal.decomposition, disjoint=every)  # type: ignore[arg-type]
    assert read_sheet(filled(sheet(goal), review), goal, "sheet.md") == review


def test_one_subgoal_makes_no_pairs_and_none_makes_no_sheet() -> None:
    goal = replace(GOAL, subgoals=GOAL.subgoals[:1])
    assert "Pairs" not in sheet(goal)
    review = Review("Ada", goal.decomposition, needed={"heart": "no"})
    assert read_sheet(filled(sheet(goal), review), goal, "sheet.md") == review
    with pytest.raises(GoalError, match="no subgoals to review"):
        sheet(replace(GOAL, subgoals=()))


@pytest.mark.parametrize(
    "review",
    [
        Review("Ada", GOAL.decomposition, missing=("Births",)),
        Review("Ada", GOAL.decomposition, comments={"skin": "Too wide:\n- acne\n- moles\n  and scars"}),
    ],
)
def test_a_remark_or_a_missing_capability_alone_is_a_review(review: Review) -> None:
    assert read_sheet(filled(EMPTY, review), GOAL, "sheet.md") == review


def test_lists_and_remarks_may_be_written_in_other_ways() -> None:
    text = FILLED.replace("\nComment:\n", "\nComment: on one line\n", 1).replace("\nComment:\n\n## P", "\n## P")
    text = text.rpartition("## Missing")[0] + "##  Missing capabilities\nBirths\n\n* Care of\n  newborns\n- \n- Teeth"
    review = read_sheet(text, GOAL, "sheet.md")
    assert review.comments == {"heart": "on one line"}
    assert review.missing == ("Births", "Care of newborns", "Teeth")


def test_a_sheet_may_begin_with_its_digest() -> None:
    assert read_sheet("\ufeff" + FILLED.removeprefix("# Review sheet\n\n"), GOAL, "sheet.md").reviewer == "Dr. Ada"


def line_of(text: str, part: str) -> int:
    """The line, counted from 1, on which a part of a text first stands."""
    return text[: text.index(part)].count("\n") + 1


FIRST = "- One capability: [x] yes [ ] no"
PAIR = "- `heart` and `sleep` are apart: [ ] yes [ ] no"
DIGEST = f"<!-- decomposition: {GOAL.decomposition} -->"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (FILLED.replace(FIRST, "- One capability: [x] yes [X] no"), line_of(FILLED, FIRST), "both boxes are marked"),
        (FILLED.replace(FIRST, "- One capability: [?] yes [ ] no"), line_of(FILLED, FIRST), "another mark than x"),
        (FILLED.replace(FIRST, "- One capability: [ ] yes [no] no"), line_of(FILLED, FIRST), "another mark than x"),
        (FILLED.replace(FIRST, "- One capability: yes"), line_of(FILLED, FIRST), "no line of the sheet"),
        (FILLED.replace(FIRST, FIRST + ", secret"), line_of(FILLED, FIRST), "no line of the sheet"),
        (FILLED.replace(FIRST, FIRST + "\nsecret"), line_of(FILLED, FIRST) + 1, "no line of the sheet"),
        (FILLED.replace(FIRST, FIRST.replace("One", "Two")), line_of(FILLED, FIRST), "does not ask this here"),
        (FILLED.replace(FIRST, FIRST + "\n" + FIRST), line_of(FILLED, FIRST) + 1, "a second time"),
        (FILLED.replace(FIRST + "\n", ""), line_of(FILLED, "## 1."), "'One capability' is gone"),
        (FILLED.replace("(`skin`)", "(`skins`)"), line_of(FILLED, "## 2."), "no subgoal 'skins'"),
        (FILLED.replace("(`skin`)", "(`heart`)"), line_of(FILLED, "## 2."), "'heart' stands there a second time"),
        (FILLED.replace("(`skin`)", "skin"), FILLED.count("\n") + 1, "without the section 'skin'"),
        (FILLED.replace("## Pairs", "## Couples"), FILLED.count("\n") + 1, "without the section 'Pairs'"),
        (FILLED.replace("## Missing c", "## C"), FILLED.count("\n") + 1, "without the section 'Missing"),
        (FILLED.replace("`heart` and `sleep`", "`heart` and `lungs`"), line_of(FILLED, PAIR), "no subgoal 'lungs'"),
        (FILLED.replace(PAIR, PAIR + "\n" + PAIR), line_of(FILLED, PAIR) + 1, "a second time"),
        (FILLED.replace(PAIR + "\n", ""), line_of(FILLED, "## Pairs"), "`heart` and `sleep` are apart' is gone"),
        (FILLED.replace(DIGEST, ""), 1, "no line that says which decomposition"),
        (FILLED.replace(DIGEST, DIGEST + "\n" + DIGEST), 4, "decomposition stands there a second time"),
        (FILLED.replace(GOAL.decomposition, "0" * 64), 3, "of another decomposition"),
        (FILLED.replace("Reviewer: Dr. Ada", "Reviewer:"), line_of(FILLED, "Reviewer: "), "no reviewer is named"),
        (FILLED.replace("Reviewer: Dr. Ada", ""), 1, "no line for the reviewer"),
        (
            FILLED.replace("Reviewer: Dr. Ada", "Reviewer: A\nReviewer: B"),
            line_of(FILLED, "Reviewer: ") + 1,
            "a reviewer stands there a second time",
        ),
        (FILLED.replace("[x] yes [ ] no\n", "[ ] yes [ ] no\n"), line_of(FILLED, "## 1."), "nothing is filled in"),
        ("", 1, "no line that says which decomposition"),
    ],
)
def test_a_broken_sheet_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    for sheet_text in (text, "\ufeff" + text.replace("\n", "\r\n")):
        with pytest.raises(GoalError) as caught:
            read_sheet(sheet_text, GOAL, "marks/sheet.md")
        assert caught.value.problem.startswith(f"marks/sheet.md, line {line}: ")
        assert said in caught.value.problem and caught.value.problem.endswith(".")
        assert caught.value.mend
        assert "secret" not in str(caught.value)


def test_a_sheet_of_another_set_is_refused() -> None:
    other = replace(GOAL, subgoals=GOAL.subgoals[:2])
    with pytest.raises(GoalError, match="of another decomposition"):
        read_sheet(FILLED, other, "sheet.md")


def checked(*findings: tuple[Constraint, tuple[str, ...], Outcome]) -> Checks:
    found = tuple(Finding(constraint, ids, outcome=outcome) for constraint, ids, outcome in findings)
    return Checks("a-judge", "0", GOAL.decomposition, {}, found)


def test_agreement_counts_the_marks_that_can_be_compared() -> None:
    checks = checked(
        ("atomicity", ("heart",), "holds"),
        ("atomicity", ("skin",), "accepted"),
        ("atomicity", ("sleep",), "undecided"),
        ("disjointness", ("skin", "heart"), "violated"),
        ("disjointness", ("heart", "sleep"), "holds"),
        ("coverage", (), "violated"),
    )
    ada = Review(
        "Ada",
        GOAL.decomposition,
        atomic={"heart": "yes", "skin": "yes", "sleep": "no"},
        needed={"heart": "no"},
        disjoint={("heart", "skin"): "no", ("heart", "sleep"): "no", ("skin", "sleep"): "yes"},
        missing=("Births",),
    )
    bob = Review("Bob", GOAL.decomposition, {"heart": "no", "skin": "no"}, disjoint={("heart", "sleep"): "yes"})
    stale = Review("Old", "0" * 64, {"heart": "no"}, disjoint={("heart", "skin"): "yes"})
    assert agreement(replace(GOAL, checks=checks, reviews=(ada, bob, stale))) == [
        Agreement("atomicity", n_marked=4, n_agree=2, judge_only=1, expert_only=1),
        Agreement("disjointness", n_marked=3, n_agree=2, judge_only=0, expert_only=1),
    ]


def test_without_current_checks_nothing_is_compared_and_without_marks_all_counts_are_0() -> None:
    review = Review("Ada", GOAL.decomposition, {"heart": "yes"})
    checks = checked(("atomicity", ("heart",), "holds"))
    assert agreement(replace(GOAL, reviews=(review,))) == []
    assert agreement(replace(GOAL, checks=replace(checks, subgoals="0" * 64), reviews=(review,))) == []
    assert agreement(replace(GOAL, checks=checks)) == [
        Agreement("atomicity", 0, 0, 0, 0),
        Agreement("disjointness", 0, 0, 0, 0),
    ]
