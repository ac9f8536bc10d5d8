"""`goalcover clarify` as people and scripts use it: clumsy, hostile, interrupted anywhere, and on a real terminal."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from clarifier import Clarifier
from command import GOAL, Goalcover, Said, WordsEngine, many, rows
from terminal import CTRL_C, ENTER, Terminal

from goalcover_local.cards import models_home
from goalcover_local.cli.terminal import plain
from goalcover_local.drafts import DraftFile
from goalcover_local.engines.base import Prompt
from goalcover_local.errors import EngineError
from goalcover_local.goal_files.reading import read_goal
from goalcover_local.phases.clarify import Stage
from goalcover_local.resources import shipped
from goalcover_local.weights import Weights

SAILORS = "Help sailors"
ANSWERS = """\
[[exchanges]]
aspect = "topics"
answer = "knots, splices, sails"

[[exchanges]]
aspect = "users"
answer = "sailors use it"

[[exchanges]]
aspect = "inputs"
answer = "it is given a question"

[[exchanges]]
aspect = "outputs"
answer = "answers are short"

[[exchanges]]
aspect = "limits"
"""
ACCEPTED = """
[[accepted]]
constraint = "disjointness"
subgoals = ["sail-repair", "sail-trim"]
reason = "A sailmaker does the one, a sailor the other."
"""
TYPED = ("knots, splices, sails", "sailors use it", "it is given a question", "answers are short", "/skip", "/skip")
"""What a person types where the file says ANSWERS."""
REASON = "A sailmaker does the one, a sailor the other."


class Person:
    """Somebody at the terminal: types the lines, one at each prompt; an exception among them is raised instead."""

    def __init__(self, *lines: str | type[BaseException] | BaseException) -> None:
        self.lines = list(lines)
        self.stopped = False

    def __call__(self, prompt: str = "") -> str:
        assert self.lines, "it asks for more than was typed"
        line = self.lines.pop(0)
        self.stopped = not isinstance(line, str)
        print(prompt)
        if isinstance(line, str):
            return line
        raise line


class Keyboard:
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clarifier(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clarifier:
    """The model of every interview in this test: it proposes a compound, and a pair that overlaps and stays so."""
    return opened(monkeypatch, tmp_path)


def opened(monkeypatch: pytest.MonkeyPatch, folder: Path, engine: Clarifier | None = None) -> Clarifier:
    """That engine, or a sailor's, as the model that the command opens; with a models home of its own."""
    engine = engine or Clarifier()
    engine.written["subgoals"] = lambda _: {"names": ["Knots and splices", "Sail trim", "Sail repair"]}
    engine.written["repair"] = repaired
    monkeypatch.setenv("GOALCOVER_HOME", str(folder / "home"))
    monkeypatch.setattr("goalcover_local.asking.open_engine", lambda *_, **__: engine)
    return engine


def repaired(texts: Mapping[str, str]) -> Mapping[str, Any]:
    """A compound split; of a pair that overlaps, the names that it has."""
    first = texts["subgoals"].removeprefix("- ").partition(":")[0]
    return {"names": first.split(" and ") if " and " in first else ["Sail trim", "Sail repair"]}


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Person]:
    """Puts a person who types these lines before the terminal."""

    def put(*lines: str | type[BaseException] | BaseException) -> Person:
        person = Person(*lines)
        monkeypatch.setattr(sys, "stdin", Keyboard())
        monkeypatch.setattr("builtins.input", person)
        return person

    return put


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Sets $EDITOR to a Python program, in which `text` is the file's text before and after."""

    def put(program: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(
            "import sys, pathlib\npath = pathlib.Path(sys.argv[-1])\ntext = path.read_text(encoding='utf-8')\n"
            f"{program}\npath.write_text(text, encoding='utf-8')\n",
            encoding="utf-8",
        )
        monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")

    monkeypatch.delenv("VISUAL", raising=False)
    return put


def file(path: str, text: str) -> Path:
    """That file in the test's folder, with this text."""
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def flat(text: str) -> str:
    """That text on one line, however it was wrapped."""
    return " ".join(text.split())


def ids(path: str = "goal.toml") -> list[str]:
    return [subgoal.id for subgoal in read_goal(path).subgoals]


def really(asked: Sequence[tuple[str, Mapping[str, str]]]) -> Counter[str]:
    """How often each question was asked, without those by which an engine is tried out when it is opened."""
    return Counter(json.dumps([name, texts]) for name, texts in asked if "the sea" not in texts.values())


def scripted(goalcover: Goalcover, *more: object, answers: str = ANSWERS, code: int = 3, to: str = "goal.toml") -> Said:
    """What an interview without a person says."""
    file("answers.toml", answers)
    return goalcover("clarify", SAILORS, "--answers", "answers.toml", "--yes", "-o", to, *more, code=code)


# By a script


def test_answers_give_a_goal_with_its_transcript_and_checks(goalcover: Goalcover, clarifier: Clarifier) -> None:
    said = scripted(goalcover)
    assert "goal.toml: 4 subgoals, 6 questions." in said.err
    assert "Nobody accepted 1 violation." in said.err
    goal = read_goal("goal.toml")
    assert goal.text == SAILORS
    assert [exchange.aspect for exchange in goal.exchanges] == [
        *("topics", "users", "inputs", "outputs", "limits", "quality")
    ]
    assert [exchange.answer for exchange in goal.exchanges][-2:] == ["", ""]
    statements = [exchange.statement for exchange in goal.exchanges if exchange.answer]
    assert goal.specification.splitlines() == statements and len(statements) == 4
    assert ids() == ["knots", "splices", "sail-trim", "sail-repair"]
    assert goal.checks is not None and goal.checks.subgoals == goal.decomposition
    [violated] = [finding for finding in goal.checks.findings if finding.outcome == "violated"]
    assert violated.subgoals == ("sail-trim", "sail-repair") and violated.note == "They share a word."
    assert [(repair.before, repair.after, repair.kept) for repair in goal.checks.repairs] == [
        (("knots-and-splices",), ("knots", "splices"), True),
        (("sail-trim", "sail-repair"), (), False),
    ]
    assert set(goal.checks.fitness.values()) == {1.0}


def test_the_same_inputs_give_the_same_file(goalcover: Goalcover, clarifier: Clarifier) -> None:
    scripted(goalcover)
    scripted(goalcover, to="again.toml")
    assert Path("again.toml").read_bytes() == Path("goal.toml").read_bytes()
    scripted(goalcover, "--overwrite")
    assert Path("again.toml").read_bytes() == Path("goal.toml").read_bytes()


def test_an_accepted_violation_is_recorded_and_is_no_failure(goalcover: Goalcover, clarifier: Clarifier) -> None:
    said = scripted(goalcover, answers=ANSWERS + ACCEPTED, code=0)
    assert f"accepted: “Sail trim” and “Sail repair” overlap (90%): They share a word. Reason: {REASON}" in flat(
        said.out
    )
    assert "stand" not in said.err
    checks = read_goal("goal.toml").checks
    assert checks is not None
    [finding] = [finding for finding in checks.findings if finding.outcome != "holds"]
    assert (finding.outcome, finding.reason) == ("accepted", REASON)


def test_an_earlier_goal_is_a_file_of_answers(goalcover: Goalcover, clarifier: Clarifier) -> None:
    scripted(goalcover, answers=ANSWERS + ACCEPTED, code=0)
    goalcover("clarify", SAILORS, "--answers", "goal.toml", "--yes", "-o", "again.toml")
    assert Path("again.toml").read_bytes() == Path("goal.toml").read_bytes()


def test_an_answer_to_that_very_question_goes_before_one_on_its_aspect(
    goalcover: Goalcover, clarifier: Clarifier
) -> None:
    scripted(goalcover)
    question = read_goal("goal.toml").exchanges[1].question
    wanted = f'\n[[exchanges]]\nquestion = "{question}"\nanswer = "cooks use it"\n'
    said = scripted(goalcover, "--overwrite", answers=ANSWERS + wanted)
    assert read_goal("goal.toml").exchanges[1].answer == "cooks use it"
    assert "answers.toml: answers not asked for: users." in said.err


def test_a_draft_stands_for_its_owner_alone_and_is_gone_at_the_end(goalcover: Goalcover, clarifier: Clarifier) -> None:
    modes: set[int] = set()
    clarifier.before = lambda _: modes.add(stat.S_IMODE(Path("goal.toml.draft").stat().st_mode))
    scripted(goalcover)
    assert modes == {0o600}
    assert not [path.name for path in Path().iterdir() if "draft" in path.name]


def test_a_goal_of_several_sentences_begins_its_specification(goalcover: Goalcover, clarifier: Clarifier) -> None:
    goal = "Help sailors. Sailors use it!\nIt is given a question. It knows knots."
    goalcover("clarify", goal, "--yes", "-o", "goal.toml", code=3)
    written = read_goal("goal.toml")
    assert written.text == "Help sailors."
    assert written.specification.splitlines() == ["Sailors use it!", "It is given a question.", "It knows knots."]
    assert not {"topics", "users", "inputs"} & {exchange.aspect for exchange in written.exchanges}


def test_steps_are_switched_off_one_by_one(goalcover: Goalcover, clarifier: Clarifier) -> None:
    scripted(goalcover, "--no-questions", to="1.toml")
    scripted(goalcover, "--no-refinement", to="2.toml")
    said = scripted(goalcover, "--no-checks", to="3.toml", code=0)
    goals = [read_goal(f"{n}.toml") for n in (1, 2, 3)]
    assert goals[0].exchanges == () and goals[0].specification == ""
    assert all(e.statement == f"{e.question} {e.answer}." for e in goals[1].exchanges if e.answer)
    assert goals[2].checks is None and ids("3.toml") == ["knots-and-splices", "sail-trim", "sail-repair"]
    assert "Nothing was checked (--no-checks)." in said.err and "Nothing was checked." in said.out
    assert "one thing?" not in said.out


def test_what_the_model_fails_to_answer_is_counted(goalcover: Goalcover, clarifier: Clarifier) -> None:
    clarifier.fails_on = "Sail trim"
    file("set.toml", "".join(f'[[subgoals]]\nname = "{name}"\n' for name in ("Sail trim", "Knots", "Waves")))
    said = goalcover("clarify", SAILORS, "--subgoals", "set.toml", "--yes", "-o", "goal.toml", code=3)
    assert "Undecided: atomicity, disjointness, coverage." in said.err
    assert "1 of 3 pairs are apart, 2 undecided." in said.out
    goal = read_goal("goal.toml")
    assert goal.subgoals[0].description == "Sail trim", "its name must do"
    assert goal.checks is not None
    missing = [finding for finding in goal.checks.findings if finding.probability is None]
    assert [finding.constraint for finding in missing] == ["atomicity", "disjointness", "disjointness", "coverage"]
    assert {finding.outcome for finding in missing} == {"undecided"}
    assert "The model failed to answer 7 times: scripted failure." in said.err
    assert "Without an answer: 4 checks; `goalcover clarify --check` asks again." in said.err
    assert "Without an answer: 4 checks" in goalcover("clarify", "--check", "goal.toml", code=3).err


def test_an_unfit_model_says_so_and_leaves_it_to_the_person(
    goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unfit = Clarifier(unfit=("completeness", "atomicity", "overlap", "uncovered"))
    opened(monkeypatch, tmp_path, unfit)
    said = scripted(goalcover, code=0)
    warned = [line for line in said.out.splitlines() if line.startswith("This model is not fit for ")]
    assert len(warned) == 4
    assert "it decides 50% of 24 reference cases well, where guessing gives 50%." in flat(said.out)
    assert "Undecided: atomicity, disjointness, coverage." in said.err
    assert ids() == ["knots", "splices", "sails"], "the topics that the person named"
    checks = read_goal("goal.toml").checks
    assert checks is not None and {finding.outcome for finding in checks.findings} == {"undecided"}
    assert not [name for name, _ in unfit.asked if name in ("clarifying-question", "subgoals")]


def test_no_subgoal_found_is_an_error_that_a_person_can_mend(
    goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, types: Callable[..., Person]
) -> None:
    opened(monkeypatch, tmp_path, Clarifier(unfit=("completeness",)))
    said = goalcover("clarify", SAILORS, "--yes", "-o", "goal.toml", code=1)
    assert "Error: No subgoal was found." in said.err
    types("done", "add Knots: How ropes are joined.", "done")
    assert "There is no subgoal yet: add one." in goalcover("clarify", "--resume", "-o", "goal.toml").out
    assert ids() == ["knots"]


def test_handwritten_subgoals_are_described_checked_and_left_as_they_are(
    goalcover: Goalcover, clarifier: Clarifier
) -> None:
    file("set.txt", "# mine\n- Heart: Diseases of the heart.\n- Heart failure\n2. Drugs and imaging: Both of them.\n")
    said = goalcover("clarify", "Help nurses", "--subgoals", "set.txt", "--yes", "-o", "goal.toml", code=3)
    assert "“Heart” and “Heart failure” overlap" in said.out
    assert "“Drugs and imaging” is more than one capability (90%): Drugs, Imaging." in said.out
    goal = read_goal("goal.toml")
    assert [subgoal.description for subgoal in goal.subgoals] == [
        *("Diseases of the heart.", "All about Heart failure.", "Both of them.")
    ]
    assert goal.exchanges == () and goal.checks is not None and goal.checks.repairs == ()
    file("set.toml", '[[subgoals]]\nname = "Heart"\n\n[[subgoals]]\nid = "x"\nname = "Lungs"\ntarget_share = 0.2\n')
    goalcover("clarify", "Help nurses", "--subgoals", "set.toml", "--yes", "-o", "other.toml")
    assert [(s.id, s.target_share) for s in read_goal("other.toml").subgoals] == [("heart", 0.05), ("x", 0.2)]


def test_handwritten_subgoals_of_a_goal_file_are_held_against_its_specification(
    goalcover: Goalcover, clarifier: Clarifier
) -> None:
    scripted(goalcover, answers=ANSWERS + ACCEPTED, code=0)
    before = read_goal("goal.toml")
    names = ("sail-trim", "sail-repair")
    text = "\n".join(f'[[subgoals]]\nid = "{i}"\nname = "Sails in {i}"\ndescription = "Sails."' for i in names)
    file("set.toml", text)
    goalcover("clarify", "goal.toml", "--subgoals", "set.toml", "--yes", "-o", "goal.toml", code=3)
    after = read_goal("goal.toml")
    assert after.specification == before.specification and after.exchanges == before.exchanges
    assert ids() == list(names), "what was accepted of other texts is not accepted of these"


def test_a_goal_file_is_worked_on_where_it_stands(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    scripted(goalcover)
    text = Path("goal.toml").read_text(encoding="utf-8").replace('goal = "', '# mine\ntau = 0.7\ngoal = "', 1)
    file("goal.toml", text.replace("tau = 0.6\n", ""))
    types("drop sail-trim", "done")
    goalcover("clarify", "goal.toml", "-o", "goal.toml")
    assert ids() == ["knots", "splices", "sail-repair"] and read_goal("goal.toml").tau == 0.7
    assert "# mine\n" in Path("goal.toml").read_text(encoding="utf-8")


# A person


def test_a_person_types_an_interview(goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]) -> None:
    types(
        *("", "/help", "/nonsense", "99", "0", ",", "9" * 5000, "1,2,1", "/back"),
        *("2", "/undo", "knots, splices, sails", "sailors use it", "it is given a question"),
        *("/back", "/back", "sailors use it", "it is given a question"),
        *("answers are short", "/enough"),
        *(
            "undo",
            "undo",
            "/enough",
            "",
            "bogus",
            "done",
            "accept",
            "accept 1",
            "accept 2 why",
            "accept x why",
            "accept 1 Both.",
        ),
        *("show", "done"),
    )
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert said.out.count("An answer, a number, or /help.") == 1
    assert said.out.count("There is no /nonsense.") == 1
    assert said.out.count("There are suggestions 1 to 1; or answer in words.") == 6
    assert (said.out.count("Taken back."), said.out.count("There is nothing to take back.")) == (4, 2)
    assert "There is no 'bogus'." in said.out
    assert "1 violation left: mend or accept each, with a reason (accept N REASON)." in said.out
    assert said.out.count("There is no such number among 1 violation.") == 3
    assert "Give the reason too: accept N REASON." in said.out
    goal = read_goal("goal.toml")
    assert [exchange.answer for exchange in goal.exchanges] == list(TYPED[:4])
    assert goal.checks is not None
    assert [f.reason for f in goal.checks.findings if f.outcome == "accepted"] == ["Both."]


def test_numbers_pick_suggestions(goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]) -> None:
    clarifier.written["clarifying-question"] = lambda texts: {
        "question": f"What of {texts['aspect'][:20]}?",
        "suggestions": ["Knots", "Splices", "Sails"],
    }
    types("1,3", " 2 ", "3 and more", "/enough", "accept 1 Yes.", "done")
    goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert [e.answer for e in read_goal("goal.toml").exchanges] == ["Knots; Sails", "Splices", "3 and more"]


def test_a_person_edits_the_set(goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]) -> None:
    types(
        *("/enough", "drop nothing", "drop", "drop sail-repair", "undo", "merge knots", "merge knots knots"),
        *("merge knots splices ...", "merge knots splices Sail trim", "merge knots splices Baker's ropes"),
        *("split sail-trim", "split sail-trim Wind", "split sail-trim ;;", "split sail-trim Wind; wind"),
        *("split sail-trim Wind; Sail repair", "split sail-trim Wind; Waves [bold]", "add", "add :x", "add ---"),
        *("add Wind", "add “Ärger” & Ö: Über alles: wirklich.", "repair", "SHOW", "/done"),
    )
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    for refusal in (
        "There is no subgoal 'nothing': knots, splices, sail-trim, sail-repair.",
        "There is no subgoal ''",
        "Write it so: merge ID ID [NAME].",
        "Name two different subgoals.",
        "'...' is no name.",
        "There is a subgoal 'Sail trim' already.",
        "Name the parts: split ID NAME; NAME.",
        "There is a subgoal 'wind' already.",
        "There is a subgoal 'Sail repair' already.",
        "Name it: add NAME, or add NAME: DESCRIPTION.",
        "'---' is no name.",
        "There is a subgoal 'Wind' already.",
        "Nothing is violated.",
    ):
        assert refusal in said.out
    told = [(s.id, s.name, s.description) for s in read_goal("goal.toml").subgoals]
    assert told == [
        ("baker-s-ropes", "Baker's ropes", "All about Baker's ropes."),
        ("wind", "Wind", "All about Wind."),
        ("waves-bold", "Waves [bold]", "All about Waves [bold]."),
        ("sail-repair", "Sail repair", "All about Sail repair."),
        ("arger-o", "“Ärger” & Ö", "Über alles: wirklich."),
    ]
    assert "Waves [bold]" in said.out


def test_repairs_are_tried_again_and_taken_back(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    types("/enough", "drop sail-trim", "add Ropes and chains: Both.", "repair", "undo", "done", "repair", "done")
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert "Not mended: Sail trim and Sail repair" in said.out
    assert said.out.count("Mended: Ropes and chains → Ropes; Chains") == 2 and "1 violation left" in said.out
    assert ids() == ["knots", "splices", "sail-repair", "ropes", "chains"]


def test_back_from_settling_asks_the_last_question_again_and_can_be_undone(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    types(*TYPED, "drop sail-trim", "back", "/undo", "back", "good if right", "drop sail-trim", "done")
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert said.out.count("Taken back.") == 1
    exchanges = read_goal("goal.toml").exchanges
    assert [exchange.aspect for exchange in exchanges] == [
        *("topics", "users", "inputs", "outputs", "limits", "quality")
    ]
    assert [exchange.answer for exchange in exchanges] == [*TYPED[:4], "", "good if right"]


def test_undo_reaches_back_over_rounds_and_from_settling(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    types(*TYPED, *["undo"] * 2, *["/undo"] * 6, *TYPED, "drop sail-trim", "done")
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert said.out.count("Taken back.") == 7 and said.out.count("There is nothing to take back.") == 1
    assert [exchange.answer for exchange in read_goal("goal.toml").exchanges] == [*TYPED[:4], "", ""]


def test_a_scripted_acceptance_can_be_taken_back(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    file("answers.toml", ANSWERS + ACCEPTED)
    types("/skip", "undo", "done", "undo", "undo", "/skip", "drop sail-trim", "done")
    said = goalcover("clarify", SAILORS, "--answers", "answers.toml", "-o", "goal.toml")
    assert said.out.count("Taken back.") == 3 and "1 violation left" in said.out
    assert ids() == ["knots", "splices", "sail-repair"]


def test_the_editor_opens_specification_and_set(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person], editor: Callable[[str], None]
) -> None:
    editor(
        "text = text.replace('Sail repair', 'Mending cloth') + 'Anchors are never asked about.\\n' * ('[[' not in text)"
    )
    types(*TYPED[:3], "/spec", "/enough", "edit", "spec", "done")
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert "+ Anchors are never asked about." in said.out
    goal = read_goal("goal.toml")
    assert "Mending cloth" in [subgoal.name for subgoal in goal.subgoals]
    assert goal.specification.splitlines()[-1] == "Anchors are never asked about."


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("text = text.replace('name', '[name')", "subgoals.toml is not valid TOML"),
        ("text = ''", "subgoals.toml has no subgoals."),
        ("text = text.replace('Sail trim', 'Sail repair').replace('sail-trim', 'sail-repair')", "have the same id"),
        ("sys.exit(1)", "Editing failed"),
        ("path.write_bytes(b'\\xff'); sys.exit()", "not UTF-8"),
        ("path.unlink(); sys.exit()", "subgoals.toml cannot be read"),
    ],
)
def test_what_goes_wrong_in_the_editor_leaves_the_set_as_it_was(
    goalcover: Goalcover,
    clarifier: Clarifier,
    types: Callable[..., Person],
    editor: Callable[[str], None],
    program: str,
    told: str,
) -> None:
    editor(program)
    types("/enough", "edit", "drop sail-trim", "done")
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert told in flat(said.out) and "as it was" in said.out
    assert ids() == ["knots", "splices", "sail-repair"]


@pytest.mark.parametrize("command", ["no-such-editor-is-here", "'open quote"])
def test_an_editor_that_is_not_there_ends_nothing(
    goalcover: Goalcover,
    clarifier: Clarifier,
    types: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setenv("VISUAL", command)
    types("/spec", "/enough", "spec", "edit", "drop sail-trim", "done")
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert flat(said.out).count("All is as it was; $EDITOR names the editor.") == 3


STEERING = "\x1b[31mred\x1b]0;title\x07 \x9b2Jrest\x00"


def test_what_steers_a_terminal_is_neither_shown_nor_kept(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person], editor: Callable[[str], None]
) -> None:
    escaped = json.dumps(STEERING)
    file(
        "answers.toml", f'[[exchanges]]\naspect = "users"\nanswer = {escaped}\n{ACCEPTED.replace("The", escaped[1:-1])}'
    )
    editor("text += '\\x1b[31mwritten in red.'")
    types(
        f"knots {STEERING}",
        f"given {STEERING}\t[bold]x[/bold] :smile:",
        "/spec",
        "/enough",
        f"add {STEERING}: {STEERING}",
        "done",
    )
    said = goalcover("clarify", f"Help {STEERING}", "--answers", "answers.toml", "-o", "goal.toml", code=0)
    text = Path("goal.toml").read_text(encoding="utf-8")
    for shown in (said.out, said.err, text):
        assert not {"\x1b", "\x07", "\x9b", "\x00"} & {*shown}
        assert "\\u00" not in shown and "\\b" not in shown
    assert "[bold]x[/bold] :smile:" in text and "[bold]x[/bold] :smile:" in said.out
    assert "red]0;title 2Jrest" in text and "written in red." in text


@pytest.mark.parametrize("sign", [*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))])
def test_what_turns_the_direction_of_a_text_is_left_out(sign: str) -> None:
    """Else a text reads as another: the Trojan Source attack."""
    assert plain(f"{sign}ropes{sign} {sign}") == "ropes "


@pytest.mark.parametrize(
    "text", ["می\u200cروم", "👩\u200d🚒", "क\u094d\u200dष", "עברית العربية", "one\ntwo", "a\u00adb"]
)
def test_what_joins_letters_or_reads_from_the_right_stays(text: str) -> None:
    assert plain(text) == text


def test_what_a_file_or_the_model_says_steers_no_terminal(goalcover: Goalcover, clarifier: Clarifier) -> None:
    quoted = json.dumps(STEERING)
    lines = (f"name = {quoted}", f"description = {quoted}", f'evidence = "Knots and {quoted[1:]}')
    file(
        "set.toml", "\n".join(("[[subgoals]]", *lines, "[[subgoals]]", lines[2].replace("evidence", "name"), lines[1]))
    )
    clarifier.written["atomicity"] = lambda _: {"kind": "several", "parts": ["One", "Another"]}
    said = goalcover("clarify", SAILORS, "--subgoals", "set.toml", "--yes", "-o", "goal.toml", code=3)
    again = goalcover("clarify", "--check", "goal.toml", code=3)
    assert "more than one capability" in said.out and "more than one capability" in again.out
    assert not {"\x1b", "\x07", "\x9b", "\x00"} & {*said.out, *said.err, *again.out, *again.err}


def test_long_and_foreign_answers_stay_whole(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    long = "знания, 結び目, عقدة, 🪢, é " * 2000
    types(long, "\tÄrger \u2028 \"quoted\" 'and' \\\\back $HOME ${goal} %s {x}", "/enough", "done")
    goalcover("clarify", "Помогай морякам", "--no-checks", "-o", "goal.toml")
    first, second = read_goal("goal.toml").exchanges
    assert first.answer == " ".join(long.split())
    assert second.answer == "Ärger \"quoted\" 'and' \\\\back $HOME ${goal} %s {x}"


def test_what_is_no_utf_8_is_typed_again(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    broken = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")
    types(broken, "half\udcff a character", "/enough", "drop sail-trim", "done")
    said = goalcover("clarify", "Help sailors\udcfe", "-o", "goal.toml")
    assert "That is no UTF-8: type it again." in said.out
    assert read_goal("goal.toml").text == "Help sailors"
    assert read_goal("goal.toml").exchanges[0].answer == "half a character"


# Interrupted

LINES = (
    *("knots, splices, sails", "/back", "knots, splices, sails", "sailors use it", "it is given a question"),
    *("answers are short", "nothing is never answered", "/skip", "drop splices", "undo", "merge knots splices"),
    *("split sail-trim Sail wind; Waves and tides", "add Anchors", "repair", "accept 1 It may.", "done"),
)


def canary(prompts: Sequence[Prompt]) -> bool:
    """Whether an engine is being tried out, as it is when it is opened."""
    return any(word in prompt.messages[-1].content for prompt in prompts for word in ("poem about the sea", "the sea"))


def test_interrupted_before_every_batch_and_at_every_prompt_it_ends_as_if_unbroken(
    goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, types: Callable[..., Person]
) -> None:
    """One batch, or one line, and then Ctrl-C, until it is done: every state is resumed in."""
    unbroken = opened(monkeypatch, tmp_path / "unbroken")
    types(*LINES)
    goalcover("clarify", SAILORS, "-o", "unbroken.toml")

    broken = opened(monkeypatch, tmp_path / "broken")
    person = types(*(each for line in LINES for each in (KeyboardInterrupt, line)))
    waiting = [1]

    def one_batch(prompts: Sequence[Prompt]) -> None:
        if not canary(prompts):
            waiting[0] -= 1
            if waiting[0] < 0:
                raise KeyboardInterrupt

    broken.before = one_batch
    stages = ["asking"]
    n_sessions, shown = 0, ""
    while person.lines != ["done"]:
        waiting[0], n_sessions, person.stopped = int(stages[-1] != "answering"), n_sessions + 1, False
        begun = ["--resume"] if n_sessions > 1 else [SAILORS]
        said = goalcover("clarify", *begun, "-o", "goal.toml", code=130)
        assert "Saved. `goalcover clarify --resume -o goal.toml` goes on from here." in said.err
        assert shown in said.out, "the same question, or the same set, is shown again"
        shown = re.split("(?m)^.*> $", said.out)[-2].strip().split("\n\n")[-1] if person.stopped else ""
        stages.append(DraftFile.resume(Path("goal.toml.draft")).draft.stage)
    assert {*stages} == {*get_args(Stage)} - {"done"}
    waiting[0] = 1
    goalcover("clarify", "--resume", "-o", "goal.toml")
    assert Path("goal.toml").read_bytes() == Path("unbroken.toml").read_bytes()
    assert really(broken.asked) == really(unbroken.asked), "nothing is asked of the model twice"
    assert n_sessions > 2 * len(LINES)


def test_a_move_that_is_interrupted_was_not_made(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    def stop(prompts: Sequence[Prompt]) -> None:
        if any("Cordage" in message.content for prompt in prompts for message in prompt.messages):
            raise KeyboardInterrupt

    clarifier.before = stop
    types("/enough", "merge knots splices Cordage")
    goalcover("clarify", SAILORS, "-o", "goal.toml", code=130)
    clarifier.before = len
    types("drop sail-trim", "done")
    goalcover("clarify", "--resume", "-o", "goal.toml")
    assert ids() == ["knots", "splices", "sail-repair"]


def test_interrupted_while_the_model_loads(goalcover: Goalcover, clarifier: Clarifier) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    clarifier.before = stop
    said = scripted(goalcover, code=130)
    assert "Saved. `goalcover clarify --resume --answers answers.toml --yes -o goal.toml` goes on" in said.err
    clarifier.before = len
    goalcover("clarify", "--resume", "--answers", "answers.toml", "--yes", "-o", "goal.toml", code=3)
    scripted(goalcover, to="unbroken.toml")
    assert Path("goal.toml").read_bytes() == Path("unbroken.toml").read_bytes()


def test_answers_that_were_given_before_are_not_given_again(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    """The rules do not see that the second answer tells of users, so they ask about them a second time."""
    answers = ANSWERS.replace("sailors use it", "sailors")
    scripted(goalcover, answers=answers, to="unbroken.toml")
    types(KeyboardInterrupt)
    interrupted: list[object] = []

    def stop(prompts: Sequence[Prompt]) -> None:
        if Path("goal.toml.draft").exists() and not interrupted and "sailors." in prompts[-1].messages[-1].content:
            interrupted.append(1)
            raise KeyboardInterrupt

    clarifier.before = stop
    scripted(goalcover, answers=answers, code=130)
    goalcover("clarify", "--resume", "--answers", "answers.toml", "--yes", "-o", "goal.toml", code=3)
    assert Path("goal.toml").read_bytes() == Path("unbroken.toml").read_bytes()
    assert [e.answer for e in read_goal("goal.toml").exchanges if e.aspect == "users"] == ["sailors", ""]


@pytest.mark.parametrize("way", ["/quit", EOFError])
def test_other_ways_to_stop(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person], way: str | type[BaseException]
) -> None:
    types("knots", way)
    assert "--resume -o 'my goal.toml'" in goalcover("clarify", SAILORS, "-o", "my goal.toml", code=130).err
    types("/enough", "quit" if way == "/quit" else way)
    goalcover("clarify", "--resume", "-o", "my goal.toml", code=130)
    types("drop sail-trim", "done")
    goalcover("clarify", SAILORS, "--resume", "-o", "my goal.toml")
    assert [e.answer for e in read_goal("my goal.toml").exchanges] == ["knots"]


def test_undo_reaches_back_beyond_a_resumption(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    types("wrong", KeyboardInterrupt)
    goalcover("clarify", SAILORS, "-o", "goal.toml", code=130)
    types("/undo", "/undo", "knots", "/enough", "drop sail-trim", "done")
    said = goalcover("clarify", "--resume", "-o", "goal.toml")
    assert "There is nothing to take back." in said.out
    assert [e.answer for e in read_goal("goal.toml").exchanges] == ["knots"]


def test_a_goal_that_cannot_be_written_is_not_lost(
    goalcover: Goalcover, clarifier: Clarifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise EngineError("The disk is full.", "Make room for it.")

    with monkeypatch.context() as patched:
        patched.setattr("goalcover_local.goal_files.writing.save_goal", full)
        scripted(goalcover, code=1)
    assert Path("goal.toml.draft").exists() and not Path("goal.toml").exists()
    n_asked = len(really(clarifier.asked))
    goalcover("clarify", "--resume", "--yes", "-o", "goal.toml", code=3)
    assert len(really(clarifier.asked)) == n_asked and len(ids()) == 4


# Resuming what is not there, or otherwise


def test_resuming_without_a_draft(goalcover: Goalcover, clarifier: Clarifier) -> None:
    told = goalcover.refused("clarify", "--resume", "--yes", "-o", "goal.toml")
    assert "There is no draft goal.toml.draft." in told


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff", b"[]", b"{}", b'{"version": 1}', b'{"version": 1, "history": [], "memory": {}, "options": {}}'),
        b'{"version": 1, "history": [{"goal": 3}], "memory": {}, "options": {}}',
        b'{"version": 99, "history": [], "memory": {}, "options": {}}',
    ],
)
def test_resuming_a_damaged_draft(goalcover: Goalcover, clarifier: Clarifier, content: bytes) -> None:
    Path("goal.toml.draft").write_bytes(content)
    told = goalcover.refused("clarify", "--resume", "--yes", "-o", "goal.toml")
    assert "goal.toml.draft" in told and Path("goal.toml.draft").read_bytes() == content


def test_resuming_with_another_judge(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person], tmp_path: Path
) -> None:
    cards = tmp_path / "home" / "cards"
    cards.mkdir(parents=True)
    text = (shipped("models") / "smollm2-135m-instruct.toml").read_text(encoding="utf-8")
    (cards / "other.toml").write_text(text.replace("smollm2-135m-instruct", "other"), encoding="utf-8")
    types("knots", KeyboardInterrupt)
    goalcover("clarify", SAILORS, "-o", "goal.toml", code=130)
    assert "Error:" in goalcover("clarify", "--resume", "--judge", "nobody", "-o", "goal.toml", code=1).err
    types("/enough", KeyboardInterrupt)
    said = goalcover("clarify", "--resume", "--judge", "other", "-o", "goal.toml", code=130)
    assert "Loading other." in said.err
    types("drop sail-trim", "done")
    assert "Loading other." in goalcover("clarify", "--resume", "-o", "goal.toml").err
    checks = read_goal("goal.toml").checks
    assert checks is not None and checks.judge == "other"


# Options, and files that are there or cannot be


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Give a goal, in quotes."),
        (["", "-o", "goal.toml"], "Give a goal, in quotes."),
        ([" \t\n", "--yes", "-o", "goal.toml"], "The goal is empty."),
        (["\x1b[0m\x07", "--yes", "-o", "goal.toml"], "The goal is empty."),
        ([SAILORS, "--yes"], "Name the file to write: -o FILE."),
        (["--check"], "Name the goal file."),
        ([SAILORS, "--check", "--review", "-o", "x"], "--check and --review do not go together."),
        (["--check", "--resume", "-o", "x"], "--check and --resume do not go together."),
        ([SAILORS, "--marks", "sheet.md", "-o", "x"], "--marks goes with --review."),
        ([SAILORS, "--run", "run", "-o", "x"], "--run goes with --check."),
        (["--resume", "--subgoals", "set.txt", "-o", "x"], "--resume goes on with the draft's own set"),
        (["--resume", "--no-checks", "-o", "x"], "--no-checks does not go with --resume."),
        (["medical", "--check", "--answers", "answers.toml"], "--answers does not go with --check."),
        (["medical", "--check", "--no-checks"], "--no-checks does not go with --check."),
        (["medical", "--review", "--subgoals", "set.txt", "-o", "x"], "--subgoals does not go with --review."),
        ([SAILORS, "--yes", "-o", "."], "is a directory"),
        (["one", "two", "--yes", "-o", "x"], "unexpected extra argument"),
    ],
)
def test_options_that_make_no_sense(
    goalcover: Goalcover, clarifier: Clarifier, arguments: Sequence[str], told: str
) -> None:
    said = goalcover("clarify", *arguments, code=2)
    assert told in flat(said.err) and said.out == ""
    assert {path.name for path in Path().iterdir()} <= {"home"} and not clarifier.asked


def test_without_a_terminal_nothing_is_begun_and_nothing_lost(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = "This needs a terminal; give --yes, and --answers FILE, to do without one."
    assert needs in goalcover("clarify", SAILORS, "-o", "goal.toml", code=2).err
    assert not list(Path().glob("*draft*"))
    types("knots", KeyboardInterrupt)
    goalcover("clarify", SAILORS, "-o", "goal.toml", code=130)
    draft = Path("goal.toml.draft").read_bytes()
    monkeypatch.setattr(sys, "stdin", None)
    assert needs in goalcover("clarify", "--resume", "-o", "goal.toml", code=2).err
    assert Path("goal.toml.draft").read_bytes() == draft


def test_a_draft_is_neither_lost_nor_left_behind(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = goalcover("clarify", SAILORS, "--answers", "nowhere.toml", "--yes", "-o", "goal.toml", code=1)
    assert "nowhere.toml cannot be read" in said.err

    def broken(*_: object, **__: object) -> None:
        raise EngineError("The engine does not start.", "Start it.")

    with monkeypatch.context() as patched:
        patched.setattr("goalcover_local.asking.open_engine", broken)
        goalcover("clarify", SAILORS, "--yes", "-o", "goal.toml", code=1)
    assert not list(Path().glob("*draft*")), "nothing was begun: the same command works once that is mended"

    types("knots", KeyboardInterrupt)
    goalcover("clarify", SAILORS, "-o", "goal.toml", code=130)
    draft = Path("goal.toml.draft").read_bytes()
    told = goalcover("clarify", SAILORS, "--yes", "-o", "goal.toml", code=2).err
    assert "go on with --resume, or begin anew with --overwrite" in flat(told)
    told = goalcover("clarify", "Help cooks", "--resume", "--yes", "-o", "goal.toml", code=2).err
    assert "goal.toml.draft is of another goal" in flat(told)
    with monkeypatch.context() as patched:
        patched.setattr("goalcover_local.asking.open_engine", broken)
        goalcover("clarify", "--resume", "-o", "goal.toml", code=1)
    assert Path("goal.toml.draft").read_bytes() == draft
    goalcover("clarify", "Help cooks", "--overwrite", "--yes", "-o", "goal.toml", code=3)
    assert read_goal("goal.toml").text == "Help cooks" and not Path("goal.toml.draft").exists()


def test_no_file_is_replaced_unasked(goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]) -> None:
    types("/enough", KeyboardInterrupt)
    goalcover("clarify", SAILORS, "-o", "begun.toml", code=130)
    scripted(goalcover)
    for name in ("other.toml", "begun.toml"):
        file(name, GOAL)
    sheet = file("sheet.md", "marks")
    for arguments in (
        (SAILORS, "--yes", "-o", "other.toml"),
        ("goal.toml", "--yes", "-o", "other.toml"),
        ("--resume", "--yes", "-o", "begun.toml"),
        ("--check", "goal.toml", "-o", "other.toml"),
        ("--review", "goal.toml", "-o", "sheet.md"),
        ("--review", "goal.toml", "--marks", "sheet.md", "-o", "other.toml"),
        ("--review", "goal.toml", "--marks", "sheet.md", "-o", "sheet.md"),
    ):
        told = goalcover("clarify", *arguments, code=2).err
        assert f"{arguments[-1]} is there already: name another file, or give --overwrite." in flat(told)
    told = goalcover("clarify", "--review", "goal.toml", "-o", "goal.toml", "--overwrite", code=2).err
    assert "goal.toml is the goal file" in told
    assert sheet.read_text(encoding="utf-8") == "marks"
    assert {Path(name).read_text(encoding="utf-8") for name in ("other.toml", "begun.toml")} == {GOAL}
    goalcover("clarify", "--resume", "--yes", "--overwrite", "-o", "begun.toml", code=3)
    assert read_goal("begun.toml").text == SAILORS


def test_what_was_begun_to_overwrite_is_resumed_to_overwrite(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    file("goal.toml", GOAL)
    types("/enough", KeyboardInterrupt)
    goalcover("clarify", SAILORS, "--overwrite", "-o", "goal.toml", code=130)
    assert ids() == ["ropes", "bread"]
    types("drop sail-trim", "done")
    goalcover("clarify", "--resume", "-o", "goal.toml")
    assert ids() == ["knots", "splices", "sail-repair"]


@pytest.mark.parametrize("place", ["nowhere/goal.toml", "file/goal.toml"])
def test_a_folder_that_cannot_be_written(goalcover: Goalcover, clarifier: Clarifier, place: str) -> None:
    file("file", "")
    assert "cannot be written" in goalcover.refused("clarify", SAILORS, "--yes", "-o", place)
    assert not clarifier.asked


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read(goalcover: Goalcover, clarifier: Clarifier, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written" in goalcover.refused("clarify", SAILORS, "--yes", "-o", "locked/goal.toml")


def test_a_goal_file_that_is_not_there_is_not_taken_for_a_goal(goalcover: Goalcover, clarifier: Clarifier) -> None:
    told = goalcover.refused("clarify", "gaol.toml", "--yes", "-o", "new.toml")
    assert "'gaol.toml' is neither a file nor a shipped goal." in told
    goalcover("clarify", "Explain pyproject.toml", "--yes", "-o", "new.toml", code=3)
    assert read_goal("new.toml").text == "Explain pyproject.toml"


# Checking


def test_a_preset_is_checked_by_name(
    goalcover: Goalcover, clarifier: Clarifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clarifier, "_missing", lambda _: [])
    said = goalcover("clarify", "--check", "medical")
    for subgoal in read_goal(shipped("goals") / "medical.toml").subgoals:
        assert subgoal.id in said.out
    assert "3 of 3 pairs are apart." in said.out and "“" not in said.out
    assert not [path.name for path in Path().iterdir() if path.name != "home"], "nothing is written"


def test_a_check_is_written_and_keeps_comments(goalcover: Goalcover, clarifier: Clarifier) -> None:
    file("goal.toml", GOAL.replace("[[subgoals]]", "# mine\n[[subgoals]]") + "# the end\n")
    before = Path("goal.toml").read_bytes()
    said = goalcover("clarify", "--check", "goal.toml", code=3)
    assert "“Knots and ropes” is more than one capability (90%): Knots, Ropes." in said.out
    assert Path("goal.toml").read_bytes() == before
    goalcover("clarify", "goal.toml", "--check", "-o", "goal.toml", code=3)
    text = Path("goal.toml").read_text(encoding="utf-8")
    assert text.count("# mine\n") == 2 and "# the end\n" in text and "[checks]" in text
    assert ids() == ["ropes", "bread"], "a check repairs nothing"
    goalcover("clarify", "--check", "goal.toml", "-o", "goal.toml", code=3)
    assert Path("goal.toml").read_text(encoding="utf-8") == text
    goalcover("clarify", "--check", "goal.toml", "-o", "new.toml", code=3)
    assert read_goal("new.toml") == read_goal("goal.toml")


def test_what_was_accepted_stays_accepted_when_checked_again(goalcover: Goalcover, clarifier: Clarifier) -> None:
    scripted(goalcover, answers=ANSWERS + ACCEPTED, code=0)
    before = read_goal("goal.toml")
    said = goalcover("clarify", "--check", "goal.toml", "-o", "goal.toml")
    assert f"Reason: {REASON}" in flat(said.out)
    after = read_goal("goal.toml")
    assert after.specification == before.specification and after.exchanges == before.exchanges
    assert after.checks is not None and before.checks is not None
    assert after.checks.findings == before.checks.findings


def test_exchanges_written_by_hand_are_no_statements_of_a_check(goalcover: Goalcover, clarifier: Clarifier) -> None:
    exchange = '\n[[exchanges]]\nquestion = "For whom?"\nanswer = "Cooks."\n'
    file("goal.toml", GOAL + exchange)
    goalcover("clarify", "--check", "goal.toml", "-o", "goal.toml", code=3)
    goal = read_goal("goal.toml")
    assert goal.specification == "" and goal.exchanges[0].statement == ""


def test_measured_overlap_stands_beside_the_models_opinion(
    goalcover: Goalcover, clarifier: Clarifier, words: WordsEngine, monkeypatch: pytest.MonkeyPatch, home_of_words: Path
) -> None:
    described = 'name = "Cooking bread"\ndescription = "Explains how bread is made and baked."'
    more = f'\n[[subgoals]]\nid = "cooking"\n{described}\n'
    file("goal.toml", GOAL + more)
    data = rows(Path("data.jsonl"), *many(12))
    with monkeypatch.context() as patched:
        patched.setenv("GOALCOVER_HOME", str(home_of_words))
        goalcover("assess", "goal.toml", data, "--run", "run")
    said = goalcover("clarify", "--check", "goal.toml", "--run", "run", code=3)
    table = said.out.partition("Measured overlap")[2]
    told = {line.split("  ")[0].strip(): line.split() for line in table.splitlines() if " / " in line}
    assert list(told) == ["ropes / bread", "ropes / cooking", "bread / cooking"]
    bread = told["bread / cooking"]
    assert float(bread[3]) > 0.6 > float(told["ropes / bread"][3]) and "NO" in bread and "yes" in told["ropes / bread"]
    assert "12" in bread
    file("goal.toml", GOAL + more.replace("and baked", "and sold"))
    clarifier.asked.clear()
    told_error = goalcover("clarify", "--check", "goal.toml", "--run", "run", code=1).err
    assert "Error: The run run did not assess cooking as this goal file states it." in told_error
    assert "There is no run in nowhere." in goalcover("clarify", "--check", "goal.toml", "--run", "nowhere", code=1).err
    assert not clarifier.asked


def test_checks_that_are_interrupted(goalcover: Goalcover, clarifier: Clarifier) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    file("goal.toml", GOAL)
    clarifier.before = stop
    goalcover("clarify", "--check", "goal.toml", "-o", "goal.toml", code=130)
    assert Path("goal.toml").read_text(encoding="utf-8") == GOAL


# Reviews


def marked(text: str, reviewer: str, *yes: str) -> Path:
    """A sheet filled in: yes for the lines that begin so, no for all others."""
    lines = [
        line.replace("[ ] yes", "[x] yes") if line.startswith(tuple(f"- {each}" for each in yes)) else line
        for line in text.replace("\nReviewer:", f"\nReviewer: {reviewer}").splitlines()
    ]
    return file("marks.md", "\n".join(line if "[x]" in line else line.replace("[ ] no", "[x] no") for line in lines))


def test_a_sheet_is_written_marked_and_read_back(goalcover: Goalcover, clarifier: Clarifier) -> None:
    scripted(goalcover)
    n_asked = len(clarifier.asked)
    assert "sheet.md: 4 subgoals to review." in goalcover("clarify", "--review", "goal.toml", "-o", "sheet.md").err
    sheet = Path("sheet.md").read_text(encoding="utf-8")
    assert "is there already" in flat(goalcover("clarify", "--review", "goal.toml", "-o", "sheet.md", code=2).err)
    goalcover("clarify", "--review", "goal.toml", "-o", "sheet.md", "--overwrite")
    assert Path("sheet.md").read_text(encoding="utf-8") == sheet

    read = ("clarify", "--review", "goal.toml", "--marks", "marks.md", "-o", "goal.toml")
    marked(sheet, "Dr A", "One capability", "Needed")
    said = goalcover(*read)
    assert "goal.toml: the review by Dr A is in it." in said.err
    assert said.out.splitlines() == [
        "atomicity: the model agrees with 4 of 4 marks.",
        "disjointness: the model agrees with 1 of 6 marks.",
    ]
    marked(sheet, "Dr B", "`", "Needed")
    assert goalcover(*read).out.splitlines() == [
        "atomicity: the model agrees with 4 of 8 marks.",
        "disjointness: the model agrees with 6 of 12 marks.",
    ]
    marked(sheet, "Dr A", "`", "One capability")
    goalcover(*read)
    goal = read_goal("goal.toml")
    assert [review.reviewer for review in goal.reviews] == ["Dr B", "Dr A"]
    assert set(goal.reviews[1].disjoint.values()) == {"yes"} and set(goal.reviews[1].needed.values()) == {"no"}
    assert len(clarifier.asked) == n_asked, "no model is asked"


def test_a_sheet_that_cannot_be_read_back_changes_nothing(goalcover: Goalcover, clarifier: Clarifier) -> None:
    file("goal.toml", GOAL)
    goalcover("clarify", "--review", "goal.toml", "-o", "sheet.md")
    read = ("clarify", "--review", "goal.toml", "-o", "goal.toml", "--marks")
    assert "no reviewer is named" in goalcover.refused(*read, "sheet.md")
    assert "gone.md cannot be read" in goalcover.refused(*read, "gone.md")
    marked(Path("sheet.md").read_text(encoding="utf-8"), "A\x1b[31m", "One")
    file("other.toml", GOAL.replace("Baking bread", "Baking"))
    other = ("clarify", "--review", "other.toml", "-o", "other.toml", "--marks", "marks.md")
    assert "another decomposition" in goalcover.refused(*other)
    assert Path("goal.toml").read_text(encoding="utf-8") == GOAL
    assert "\x1b" not in goalcover(*read, "marks.md").err
    assert read_goal("goal.toml").reviews


# On a real terminal

SLOW = """\
import sys, time
sys.path.insert(0, {tests!r})
from clarifier import Clarifier
from goalcover_local import asking
from goalcover_local.cli.main import run
engine = Clarifier()
engine.before = lambda prompts: time.sleep(60 * any("Whips" in prompt.messages[-1].content for prompt in prompts))
asking.open_engine = lambda *_, **__: engine
run()
"""
"""The command with a model that needs a minute to say anything of whips."""


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts `goalcover clarify` in a terminal; what still runs at the end is killed."""
    started: list[Terminal] = []

    def start(*arguments: str, slow: bool = False) -> Terminal:
        program = ["-c", SLOW.format(tests=str(Path(__file__).parent))] if slow else ["-m", "goalcover_local.cli.main"]
        home = tmp_path / "home" if slow else models_home()
        environment = {**os.environ, "GOALCOVER_HOME": str(home), "PYTHONUTF8": "1"}
        command = [sys.executable, *program, "clarify", *arguments]
        started.append(Terminal(command, folder=tmp_path, environment=environment))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def test_ctrl_c_while_the_model_works(terminals: Callable[..., Terminal], tmp_path: Path) -> None:
    first = terminals(SAILORS, "-o", "goal.toml", slow=True)
    first.wait_for("> ")
    first.type(f"\x1b[200~knots, \x1b[31mred\x1b]0;x\x07 splices\x1b[201~{ENTER}")
    first.wait_for("> ")
    first.type(f"/enough{ENTER}")
    first.wait_for("(done, help) > ")
    first.type(f"add Whips{ENTER}")
    first.wait_for("Describing subgoals")
    first.type(CTRL_C)
    assert first.end() == 130 and first.has_cursor
    assert first.shown.endswith("\nSaved. `goalcover clarify --resume -o goal.toml` goes on from here.\n")

    second = terminals("--resume", "-o", "goal.toml", slow=True)
    second.wait_for("Describing subgoals")
    second.type(CTRL_C)
    assert second.end() == 130 and second.has_cursor
    draft = DraftFile.resume(tmp_path / "goal.toml.draft").draft
    assert draft.stage == "proposing" and draft.subgoals[-1].name == "Whips"
    assert draft.exchanges[0].answer == "knots, red]0;x splices"


@pytest.mark.weights
def test_a_person_at_a_terminal_stops_and_goes_on(
    weights: Weights, terminals: Callable[..., Terminal], tmp_path: Path
) -> None:
    first = terminals("Help with ropes", "-o", "goal.toml", "--threads", "1")
    first.wait_for("Which subjects and tasks must it master?")
    first.wait_for("> ")
    first.type(f"knots, splices and ladders{ENTER}")
    question = first.wait_for("?\n").strip().splitlines()[-1]
    first.wait_for("> ")
    first.type(f"half an answ{CTRL_C}")
    assert first.end() == 130
    assert "Saved. `goalcover clarify --resume -o goal.toml` goes on from here." in " ".join(first.shown.split())
    assert "Traceback" not in first.shown

    second = terminals("--resume", "-o", "goal.toml", "--threads", "1")
    assert question in second.wait_for("> ")
    second.type(f"2{ENTER}")
    second.wait_for("> ")
    second.type(f"/enough{ENTER}")
    for line in ("add Whips: Binding the end of a rope.", "drop ladders", "done"):
        second.wait_for("(done, help) > ")
        second.type(f"{line}{ENTER}")
    assert second.end() == 0
    goal = read_goal(tmp_path / "goal.toml")
    assert [subgoal.id for subgoal in goal.subgoals] == ["knots", "splices", "whips"]
    assert [exchange.answer for exchange in goal.exchanges] == ["knots, splices and ladders", "Beginners"]
    assert goal.checks is not None and not (tmp_path / "goal.toml.draft").exists()


# What attackers and newcomers found


def test_a_goal_that_no_sentence_asks_for_is_itself_to_be_covered(goalcover: Goalcover, clarifier: Clarifier) -> None:
    file("set.txt", "Cooking\nGardening\n")
    text = "It knows sails and ropes. Sailors use it."
    goalcover("clarify", text, "--subgoals", "set.txt", "--yes", "-o", "goal.toml", code=3)
    checks = read_goal("goal.toml").checks
    assert checks is not None
    assert [(each.statement, each.outcome) for each in checks.findings if each.constraint == "coverage"] == [
        ("It knows sails and ropes.", "violated")
    ]


def test_failed_checks_are_made_again_by_whoever_resumes(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    clarifier.fails_on = "Sail trim"
    file("set.toml", "".join(f'[[subgoals]]\nname = "{name}"\n' for name in ("Sail trim", "Sail repair", "Ropes")))
    types(KeyboardInterrupt)
    goalcover("clarify", SAILORS, "--subgoals", "set.toml", "-o", "goal.toml", code=130)
    clarifier.fails_on = ""
    goalcover("clarify", "--resume", "--yes", "-o", "goal.toml", code=3)
    checks = read_goal("goal.toml").checks
    assert checks is not None and all(each.probability is not None for each in checks.findings)
    assert {each.outcome for each in checks.findings if each.subgoals == ("sail-trim", "sail-repair")} == {"violated"}


def test_answers_of_an_edited_goal_file_bring_no_acceptance_back(goalcover: Goalcover, clarifier: Clarifier) -> None:
    scripted(goalcover, answers=ANSWERS + ACCEPTED, code=0)
    before = Path("goal.toml").read_text(encoding="utf-8")
    edited = before.replace("All about Sail trim.", "Something else altogether.")
    assert edited != before
    file("goal.toml", edited)
    told = goalcover("clarify", "--check", "goal.toml", code=3).err
    assert "The set was edited since it was checked: 1 acceptance no longer hold; accept again." in told
    goalcover("clarify", "goal.toml", "--answers", "goal.toml", "--yes", "-o", "goal.toml", code=3)


def test_undo_brings_back_the_set_before_it_was_mended(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    clarifier.written["subgoals"] = lambda _: {"names": ["Knots and splices", "Ropes", "Waves"]}
    types("knots, splices and ropes", "/enough", "undo", "accept 1 So be it.", "done")
    said = goalcover("clarify", SAILORS, "-o", "goal.toml")
    assert "Proposed: Knots and splices; Ropes; Waves" in said.out
    assert "Mended: Knots and splices → Knots; Splices" in said.out
    assert ids()[0] == "knots-and-splices"


def test_a_bare_command_is_no_answer(goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]) -> None:
    types("quit", "undo", KeyboardInterrupt)
    said = goalcover("clarify", SAILORS, "-o", "goal.toml", code=130)
    assert "If you mean the command, type /quit" in said.out and "type /undo" in said.out


def test_what_came_into_the_output_meanwhile_is_not_lost(
    goalcover: Goalcover, clarifier: Clarifier, types: Callable[..., Person]
) -> None:
    types(KeyboardInterrupt)
    goalcover("clarify", SAILORS, "-o", "goal.toml", code=130)
    file("goal.toml", GOAL)
    told = flat(goalcover("clarify", "--resume", "--yes", "-o", "goal.toml", code=2).err)
    assert "goal.toml is there already" in told and Path("goal.toml").read_text(encoding="utf-8") == GOAL
    goalcover("clarify", "--resume", "--yes", "--overwrite", "-o", "goal.toml", code=3)
    assert read_goal("goal.toml").text == SAILORS


def test_a_draft_is_worked_on_by_one_process(goalcover: Goalcover, clarifier: Clarifier) -> None:
    from goalcover_local.drafts import alone

    with alone(Path("goal.toml.draft")):
        told = goalcover.refused("clarify", SAILORS, "--yes", "-o", "goal.toml")
    assert "is being worked on by another process" in told
    goalcover("clarify", SAILORS, "--yes", "-o", "goal.toml", code=3)


def test_a_preset_is_worked_on_by_its_name_and_steps_left_out_are_told(
    goalcover: Goalcover, clarifier: Clarifier
) -> None:
    goalcover("clarify", "medical", "--no-checks", "--yes", "-o", "mine.toml")
    assert read_goal("mine.toml").subgoals == read_goal(shipped("goals") / "medical.toml").subgoals
    goalcover("clarify", SAILORS, "--no-questions", "--no-checks", "--yes", "-o", "goal.toml")
    assert read_goal("goal.toml").without == ("questions", "checks")
