"""Goal files written: what is read back, what stays of a file that a person edits, and what a failure leaves."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.errors import GoalError
from goalcover_local.goal_files import writing
from goalcover_local.goal_files.reading import parse_goal, read_goal, read_subgoals, shipped_goals
from goalcover_local.goal_files.writing import save_goal, written, written_subgoals
from goalcover_local.terms import (
    CONSTRAINTS,
    Checks,
    Constraint,
    Exchange,
    Finding,
    Goal,
    Outcome,
    Repair,
    Review,
    Subgoal,
)

NASTY = [
    '"',
    '"""',
    "'''",
    "\\",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\x00",
    "\x1b",
    "\x7f",
    "\x85",
    "\u2028",
    "#",
    "\n[x]\n",
    "🫀",
]
CHARACTERS = st.text(st.characters(codec="utf-8"), max_size=8)
TEXTS = st.lists(CHARACTERS | st.sampled_from(NASTY), min_size=1, max_size=5).map("".join).map(str.strip).filter(bool)
MAYBE = st.just("") | TEXTS
IDS = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
SHARES = st.floats(0, 1, exclude_min=True)
ROUNDED = st.integers(0, 10_000).map(lambda number: round(number / 10_000, 4))
MARKS = st.sampled_from(("yes", "no"))
SETS_OF_IDS = st.lists(IDS, max_size=3, unique=True).map(tuple)


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    constraint: Constraint = draw(st.sampled_from(CONSTRAINTS))
    outcome: Outcome = draw(st.sampled_from(("holds", "violated", "accepted", "undecided")))
    number = {"atomicity": 1, "disjointness": 2}.get(constraint)
    return Finding(
        constraint=constraint,
        subgoals=tuple(draw(st.lists(IDS, min_size=number or 0, max_size=number or 3, unique=True))),
        statement=draw(MAYBE) if constraint == "coverage" else "",
        probability=draw(st.none() | ROUNDED),
        outcome=outcome,
        note=draw(MAYBE),
        reason=draw(TEXTS) if outcome == "accepted" else "",
    )


EXCHANGES = st.builds(Exchange, TEXTS, MAYBE, MAYBE, st.lists(TEXTS, max_size=3).map(tuple), MAYBE)
REPAIRS = st.builds(Repair, st.sampled_from(CONSTRAINTS), SETS_OF_IDS, SETS_OF_IDS, st.booleans())
CHECKS = st.builds(
    Checks,
    judge=TEXTS,
    digest=TEXTS,
    subgoals=TEXTS,
    fitness=st.dictionaries(st.sampled_from(CONSTRAINTS), ROUNDED),
    findings=st.lists(findings(), max_size=2).map(tuple),
    repairs=st.lists(REPAIRS, max_size=2).map(tuple),
)
PAIRS = st.lists(IDS, min_size=2, max_size=2, unique=True).map(lambda pair: tuple(sorted(pair)))
REVIEWS = st.builds(
    Review,
    reviewer=TEXTS,
    subgoals=TEXTS,
    atomic=st.dictionaries(IDS, MARKS, max_size=2),
    needed=st.dictionaries(IDS, MARKS, max_size=2),
    disjoint=st.dictionaries(PAIRS, MARKS, max_size=2),
    missing=st.lists(TEXTS, max_size=2).map(tuple),
    comments=st.dictionaries(IDS, TEXTS, max_size=2),
)
SUBGOALS = st.builds(Subgoal, IDS, TEXTS, TEXTS, MAYBE, SHARES)
GOALS = st.builds(
    Goal,
    text=TEXTS,
    specification=MAYBE,
    exchanges=st.lists(EXCHANGES, max_size=2).map(tuple),
    subgoals=st.lists(SUBGOALS, min_size=1, max_size=4, unique_by=(lambda s: s.id, lambda s: s.digest)).map(tuple),
    tau=SHARES,
    checks=st.none() | CHECKS,
    reviews=st.lists(REVIEWS, max_size=2).map(tuple),
)


def read(text: str) -> Goal:
    return parse_goal(text, "goal.toml")


FILE = """\
# Ward 3, second draft.
goal   =  'Answer clinicians'   # as agreed
# Ask Ann before this changes.
specification = \"\"\"
Short answers \\
  with evidence.
[[subgoals]]
# no comment\"\"\"

# The set.

# From the first meeting:
[[subgoals]]   # ours
  id = "drugs"
  # Not their prices.
  name = 'Drug information'
  description = "Doses"  # and interactions?

# From the second meeting:
[["subgoals"]]
description = '''Diseases
of the heart'''
id = "heart"
name = "Cardiology"
target_share = 0.10

# Checked on Monday.
[checks]
judge = "smol" # small
digest = "3f"
subgoals = "9a"
fitness.coverage = 0.91239

[[checks.findings]]
constraint = "atomicity"
subgoals = ["drugs"]
outcome = "holds"

# Nobody reviewed it yet.
"""
GOAL = read(FILE)
DRUGS, HEART = GOAL.subgoals
NEW = Subgoal("scans", "Imaging", "Reading scans", "A scan is named.")
NEW_TEXT = """\
[[subgoals]]
id = "scans"
name = "Imaging"
description = "Reading scans"
evidence = "A scan is named."
target_share = 0.05
"""
REVIEWED = Review("Ann", "9a", {"drugs": "yes"}, {}, {("drugs", "heart"): "no"}, ("Diets",), {"heart": "Good."})


def between(text: str, start: str, end: str) -> str:
    return text[text.index(start) : text.index(end)]


def test_a_fresh_file_can_be_read_by_a_person() -> None:
    goal = Goal(
        text="Answer clinicians",
        specification='Short answers.\nSay "why".',
        exchanges=(
            Exchange("Who asks?", ""),
            Exchange("Which topics?", "Drugs", "topics", ("Drugs", "Diets"), "Drugs are covered."),
        ),
        subgoals=(DRUGS, NEW),
        checks=Checks(
            judge="smol",
            digest="3f",
            subgoals="9a",
            fitness={"coverage": 2 / 3},
            findings=(Finding("coverage", ("drugs",), "Short answers.", 0.123456, "accepted", "", "So be it."),),
            repairs=(Repair("atomicity", ("all",), ("drugs", "scans"), True),),
        ),
        reviews=(REVIEWED,),
    )
    text = written(goal)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert (
        "\n".join(lines)
        == '''\
goal = "Answer clinicians"
specification = """
Short answers.
Say "why".
"""
tau = 0.6

[[subgoals]]
id = "drugs"
name = "Drug information"
description = "Doses"
target_share = 0.05

[[subgoals]]
id = "scans"
name = "Imaging"
description = "Reading scans"
evidence = "A scan is named."
target_share = 0.05

[[exchanges]]
question = "Who asks?"

[[exchanges]]
question = "Which topics?"
answer = "Drugs"
aspect = "topics"
suggestions = ["Drugs", "Diets"]
statement = "Drugs are covered."

[checks]
judge = "smol"
digest = "3f"
subgoals = "9a"

[checks.fitness]
coverage = 0.6667

[[checks.findings]]
constraint = "coverage"
subgoals = ["drugs"]
statement = "Short answers."
probability = 0.1235
outcome = "accepted"
reason = "So be it."

[[checks.repairs]]
constraint = "atomicity"
before = ["all"]
after = ["drugs", "scans"]
kept = true

[[reviews]]
reviewer = "Ann"
subgoals = "9a"
missing = ["Diets"]

[reviews.atomic]
drugs = "yes"

[reviews.comments]
heart = "Good."

[[reviews.disjoint]]
subgoals = ["drugs", "heart"]
mark = "no"'''
    )
    for header in ("goal =", "[[subgoals]]", "[[exchanges]]", "[checks]", "[[reviews]]"):
        assert text[: text.index(header)].splitlines()[-1].startswith("# ")
    assert max(map(len, text.splitlines())) <= 120


@settings(max_examples=50)
@given(goal=GOALS)
def test_any_goal_is_read_back_equal_and_its_file_is_left_as_it_is(goal: Goal) -> None:
    text = written(goal)
    assert read(text) == goal
    assert written(goal, onto=text) == text
    crlf = text.replace("\n", "\r\n")
    assert written(read(crlf), onto=crlf) == crlf


@settings(max_examples=50)
@given(first=GOALS, second=GOALS)
def test_any_goal_is_written_onto_any_other_and_comments_stay(first: Goal, second: Goal) -> None:
    kept = first.subgoals[-1:] + tuple(each for each in second.subgoals if each.id != first.subgoals[-1].id)
    wanted = replace(second, subgoals=kept) if len({each.digest for each in kept}) == len(kept) else second
    # Between the sections of a fresh file, a comment of its own paragraph.
    parts = written(first).split("\n\n#")
    onto = "\n\n#".join(f"{part}\n\n# Note {number}.\n" for number, part in enumerate(parts))
    if read(onto) != first:  # a text with the same look was cut
        return
    text = written(wanted, onto=onto)
    assert read(text) == wanted
    assert [line for line in text.split("\n") if line.startswith("# Note ")] == [
        f"# Note {number}." for number in range(len(parts))
    ]


@settings(max_examples=50)
@given(goal=GOALS)
def test_subgoals_alone_are_read_back_equal(goal: Goal, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "subgoals.toml"
    drafts = (*goal.subgoals, Subgoal("not-described", "not described", ""))
    file.write_bytes(written_subgoals(drafts).encode())
    assert read_subgoals(file) == drafts


@pytest.mark.parametrize("name", shipped_goals())
def test_every_shipped_goal_is_written_onto_its_file_unchanged(name: str) -> None:
    text = shipped_goals()[name].read_text(encoding="utf-8")
    assert written(read(text), onto=text) == text


DRUGS_TEXT = between(FILE, "[[subgoals]]   #", "\n# From the second")
HEART_TEXT = between(FILE, '[["', "\n# Checked")
EDITS = {
    "nothing": (GOAL, FILE),
    "the goal": (
        replace(GOAL, text='Say "so"'),
        FILE.replace("'Answer clinicians'", r'"Say \"so\""'),
    ),
    "the specification": (
        replace(GOAL, specification="Short.\nPlain."),
        FILE.replace(between(FILE, '"""\nShort', "\n\n# The set"), '"""\nShort.\nPlain.\n"""'),
    ),
    "no specification": (
        replace(GOAL, specification=""),
        FILE.replace(between(FILE, "specification", "\n# The set"), ""),
    ),
    "tau, which was left out": (
        replace(GOAL, tau=0.5),
        FILE.replace('comment"""\n', 'comment"""\ntau = 0.5\n'),
    ),
    "a description": (
        replace(GOAL, subgoals=(replace(DRUGS, description="Side effects"), HEART)),
        FILE.replace('"Doses"', '"Side effects"'),
    ),
    "a share and an evidence": (
        replace(GOAL, subgoals=(DRUGS, replace(HEART, evidence="The heart.", target_share=0.2))),
        FILE.replace("target_share = 0.10\n", 'target_share = 0.2\nevidence = "The heart."\n'),
    ),
    "the first subgoal, gone": (
        replace(GOAL, subgoals=(HEART,)),
        FILE.replace(between(FILE, "[[subgoals]]   #", "# From the second"), ""),
    ),
    "the last subgoal, gone": (
        replace(GOAL, subgoals=(DRUGS,)),
        FILE.replace(between(FILE, "# From the second", "# Checked"), ""),
    ),
    "a subgoal at the end": (
        replace(GOAL, subgoals=(DRUGS, HEART, NEW)),
        FILE.replace("\n# Checked", f"\n{NEW_TEXT}\n# Checked"),
    ),
    "a subgoal between": (
        replace(GOAL, subgoals=(DRUGS, NEW, HEART)),
        FILE.replace("\n# From the second", f"\n{NEW_TEXT}\n# From the second"),
    ),
    "a subgoal at the start": (
        replace(GOAL, subgoals=(NEW, DRUGS, HEART)),
        FILE.replace("[[subgoals]]   #", f"{NEW_TEXT}\n[[subgoals]]   #"),
    ),
    "all subgoals": (
        replace(GOAL, subgoals=(NEW,)),
        FILE.replace(between(FILE, "[[subgoals]]   #", "\n# Checked"), NEW_TEXT),
    ),
    "the order": (
        replace(GOAL, subgoals=(HEART, DRUGS)),
        FILE.replace(
            between(FILE, "[[subgoals]]   #", "\n# Checked"),
            f"# From the second meeting:\n{HEART_TEXT}\n{DRUGS_TEXT}",
        ),
    ),
    "no checks": (
        replace(GOAL, checks=None),
        FILE.replace(between(FILE, "\n# Checked", "\n# Nobody"), ""),
    ),
    "other checks": (
        replace(GOAL, checks=Checks("qwen", "4e", "9b", {}, (Finding("coverage", (), "All.", 1.0, "holds"),))),
        FILE.replace(
            between(FILE, "[checks]", "\n# Nobody"),
            '[checks]\njudge = "qwen"\ndigest = "4e"\nsubgoals = "9b"\n\n[[checks.findings]]\n'
            'constraint = "coverage"\nstatement = "All."\nprobability = 1.0\noutcome = "holds"\n',
        ),
    ),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_edit_changes_nothing_else(edit: str, newline: str) -> None:
    goal, expected = EDITS[edit]
    text = written(goal, onto=FILE.replace("\n", newline))
    assert text == expected.replace("\n", newline)
    assert read(text) == goal


def test_sections_that_are_new_stand_in_the_order_of_a_fresh_file() -> None:
    wanted = replace(GOAL, exchanges=(Exchange("Who asks?", "Nurses"),), reviews=(REVIEWED, REVIEWED))
    text = written(wanted, onto=FILE)
    assert read(text) == wanted
    places = [text.index(mark) for mark in ("[[exchanges]]", "# Checked", "[checks]", "[[reviews]]", "# Nobody")]
    assert places == sorted(places)
    assert written(GOAL, onto=text) == FILE


ODD = {
    "inline": 'tau = 0.6 # inline\nreviews = []\nsubgoals = [\n  {id = "a", name = "A", description = "a"}, # first\n'
    '  {id = "b", name = "B", description = "b"},\n]\ngoal = "g" # the goal',
    "dotted": 'checks.judge = "j" # dotted\nchecks.digest = "d"\nchecks.subgoals = "s"\n# the goal\ngoal = "g"\n'
    'checks.fitness = {coverage = 1}\nexchanges = [{question = "q"}]\n\n[[subgoals]]\nid = "a"\nname = "A"\n'
    'description = "a"\n',
    "interleaved": 'goal = "g"\n\n[[checks.findings]]\nconstraint = "coverage"\noutcome = "holds"\n\n[[subgoals]]\n'
    'id = "a"\nname = "A"\ndescription = "a"\n\n[checks.fitness]\natomicity = 1\n\n# second\n[[subgoals]]\nid = "b"\n'
    'name = "B"\ndescription = "b"\n\n[checks]\njudge = "j"\ndigest = "d"\nsubgoals = "s"\n\n[[reviews]]\n'
    'reviewer = "Ann"\nsubgoals = "s"\n\n[[exchanges]]\nquestion = "q"\n\n[reviews.atomic]\na = "yes"\n# end',
    "crowded": '"g\\u006fal"="g"\n[[subgoals]]\n"id"="a"\nname="A"\ndescription=\'\'\'\n[[subgoals]]\n# x\'\'\'\n'
    '[[ subgoals ]]\nid="b"\nname="B"\ndescription="""\\\n   b\\"""""" # y\n[checks]\n[[exchanges]]\nquestion="q"',
}
ODDS = {name: (text, read(text)) for name, text in ODD.items()}


@pytest.mark.parametrize("name", ODDS)
def test_an_odd_file_stays_as_it_is_where_nothing_differs(name: str) -> None:
    text, goal = ODDS[name]
    assert written(goal, onto=text) == text
    crlf = text.replace("\n", "\r\n")
    assert written(read(crlf), onto=crlf) == crlf


@settings(max_examples=50)
@given(name=st.sampled_from(sorted(ODDS)), other=GOALS, parts=st.sets(st.sampled_from(sorted(Goal.__slots__))))
def test_any_part_of_an_odd_file_can_be_replaced(name: str, other: Goal, parts: set[str]) -> None:
    text, goal = ODDS[name]
    wanted: Goal = replace(goal, **{part: getattr(other, part) for part in parts})
    changed = written(wanted, onto=text)
    assert read(changed) == wanted
    if not parts & {"exchanges", "subgoals", "checks", "reviews"}:
        assert all(line[line.index("#") :] in changed for line in text.split("\n") if "#" in line)


@pytest.mark.parametrize("name", ODDS)
def test_subgoals_of_an_odd_file_are_edited(name: str) -> None:
    text, goal = ODDS[name]
    first, *rest = goal.subgoals
    for subgoals in ((replace(first, name="Other"), *rest), (*rest, first), (NEW, *goal.subgoals), (*rest, NEW)):
        wanted = replace(goal, subgoals=subgoals)
        assert read(written(wanted, onto=text)) == wanted


def test_probabilities_of_a_file_are_rounded_only_where_checks_are_written() -> None:
    assert "0.91239" in written(replace(GOAL, tau=0.1), onto=FILE)
    assert GOAL.checks is not None
    checked = replace(GOAL.checks, judge="qwen")
    assert "0.91239" not in (text := written(replace(GOAL, checks=checked), onto=FILE))
    assert "coverage = 0.9124\n" in text


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (replace(GOAL, subgoals=()), "the goal to write has no subgoals"),
        (replace(GOAL, subgoals=(replace(DRUGS, description=""),)), r"\('drugs'\) has no 'description'"),
        (replace(GOAL, text="a\ud800"), "half a character"),
    ],
)
def test_a_goal_that_could_not_be_read_back_is_refused(goal: Goal, said: str) -> None:
    with pytest.raises(GoalError, match=said):
        written(goal)


def test_a_text_that_is_no_goal_file_is_not_written_onto() -> None:
    with pytest.raises(GoalError, match="the goal file to change has no subgoals"):
        written(GOAL, onto='goal = "g"\n')


@pytest.mark.parametrize("spoilt", ["goal =", FILE, tomlkit.exceptions.TOMLKitError()])
def test_an_edit_that_fails_gives_way_to_a_fresh_file(spoilt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def edited(*_: object) -> str:
        if isinstance(spoilt, Exception):
            raise spoilt
        return str(spoilt)

    monkeypatch.setattr(writing, "edited", edited)
    wanted = replace(GOAL, text="Other", checks=None)
    text = written(wanted, onto=FILE)
    assert text != FILE
    assert read(text) == wanted


def test_a_goal_is_saved_onto_its_file(tmp_path: Path) -> None:
    file, link = tmp_path / "goal.toml", tmp_path / "link.toml"
    save_goal(GOAL, file)
    assert file.read_bytes().decode() == written(GOAL)
    file.write_bytes(FILE.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    link.symlink_to(file)
    save_goal(replace(GOAL, tau=0.5), link)
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o640)
    assert file.read_bytes().decode() == written(replace(GOAL, tau=0.5), onto=FILE).replace("\n", "\r\n")
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_a_file_that_is_no_goal_file_gives_way_to_a_fresh_one(tmp_path: Path) -> None:
    file = tmp_path / "goal.toml"
    file.write_bytes(b"goal = \xff")
    save_goal(GOAL, file)
    assert read_goal(file) == read(written(GOAL))


def test_a_rename_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "goal.toml"
    file.write_text(FILE)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(GoalError, match=r"goal\.toml cannot be written: No space left on device") as caught:
        save_goal(replace(GOAL, tau=0.5), file)
    assert caught.value.mend
    assert (file.read_text(), list(tmp_path.iterdir())) == (FILE, [file])


def test_what_may_not_be_written_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "goal.toml"
    file.write_text(FILE)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(GoalError, match=r"goal\.toml may only be read"):
        save_goal(replace(GOAL, tau=0.5), file)
    assert file.read_text() == FILE
    with pytest.raises(GoalError, match="cannot be written"):
        save_goal(GOAL, tmp_path / "absent" / "goal.toml")
    with pytest.raises(GoalError, match="the goal to write has no subgoals"):
        save_goal(replace(GOAL, subgoals=()), tmp_path / "other.toml")
    assert list(tmp_path.iterdir()) == [file]
