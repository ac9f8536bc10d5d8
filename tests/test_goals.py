"""Goal files: what is accepted, what is refused and in which words."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.errors import GoalError
from goalcover_local.goal_files import reading
from goalcover_local.goal_files.reading import find_goal, read_goal, read_subgoals, shipped_goals, slug
from goalcover_local.terms import Checks, Exchange, Finding, Goal, Repair, Review, Subgoal

HEAD = 'goal = "Answer clinicians"\n'
DRUGS = '[[subgoals]]\nid = "drugs"\nname = "Drug information"\ndescription = "Doses and interactions"\n'
CHECKS = '[checks]\njudge = "smol"\ndigest = "3f"\nsubgoals = "9a"\n'
REVIEW = '[[reviews]]\nreviewer = "Ann"\nsubgoals = "9a"\n'
HEART = '[[subgoals]]\nid = "heart"\nname = "Cardiology"\ndescription = "Diseases of the heart"\n'


def write(folder: Path, content: str | bytes) -> Path:
    file = folder / "goal.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def refusal(folder: Path, content: str | bytes) -> GoalError:
    """The error that a goal file of this content meets; it names the file and a mend."""
    with pytest.raises(GoalError) as caught:
        read_goal(write(folder, content))
    assert "goal.toml" in caught.value.problem
    assert caught.value.mend
    return caught.value


def test_a_small_goal_gets_the_defaults(tmp_path: Path) -> None:
    assert read_goal(write(tmp_path, HEAD + DRUGS)) == Goal(
        text="Answer clinicians",
        specification="",
        exchanges=(),
        subgoals=(Subgoal("drugs", "Drug information", "Doses and interactions", "", 0.05),),
        tau=0.6,
    )


def test_a_full_goal_is_read_whole_and_its_texts_are_trimmed(tmp_path: Path) -> None:
    content = (
        HEAD
        + 'specification = """\nBy the bedside.\n"""\ntau = 1\n'
        + '[[exchanges]]\nquestion = "Who asks?"\nanswer = "Nurses"\n'
        + DRUGS
        + 'evidence = " names a dose "\ntarget_share = 0.2\n'
        + HEART
    )
    goal = read_goal(write(tmp_path, content))
    assert (goal.specification, goal.tau) == ("By the bedside.", 1.0)
    assert goal.exchanges == (Exchange("Who asks?", "Nurses"),)
    assert [subgoal.id for subgoal in goal.subgoals] == ["drugs", "heart"]
    assert (goal.subgoals[0].evidence, goal.subgoals[0].target_share) == ("names a dose", 0.2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEAD, "no subgoals"),
        (DRUGS, "no 'goal'"),
        ('goal = "  "\n' + DRUGS, "'goal' is empty"),
        ("goal = 3\n" + DRUGS, "'goal' is a number"),
        (HEAD + "specification = []\n" + DRUGS, "'specification' is a list"),
        (HEAD + "tau = 0\n" + DRUGS, "'tau' is 0"),
        (HEAD + "tau = 1.01\n" + DRUGS, "'tau' is 1.01"),
        (HEAD + "tau = nan\n" + DRUGS, "'tau' is nan"),
        (HEAD + "tau = true\n" + DRUGS, "'tau' is true or false"),
        (HEAD + 'tau = "0.6"\n' + DRUGS, "'tau' is a text"),
        (HEAD + "tau = 2026-01-01\n" + DRUGS, "'tau' is a date"),
        (HEAD + "checks = 1\n" + DRUGS, "'checks' is a number"),
        (HEAD + 'subgoals = "drugs"\n', "'subgoals' is not a list of tables"),
        (HEAD + 'subgoals = ["drugs"]\n', "'subgoals' is not a list of tables"),
        (HEAD + "[subgoals]\nid = 'drugs'\n", "'subgoals' is not a list of tables"),
        (HEAD + '[[exchanges]]\nanswer = "Nurses"\n' + DRUGS, "exchange 1 has no 'question'"),
        (HEAD + '[[exchanges]]\nquestion = "Who?"\nanswer = ""\n' + DRUGS, "exchange 1: 'answer' is empty"),
        (HEAD + '[[exchanges]]\nreply = "a"\n' + DRUGS, "exchange 1 has an unknown key 'reply'"),
        (HEAD + DRUGS.replace('id = "drugs"\n', ""), "subgoal 1 has no 'id'"),
        (HEAD + DRUGS + HEART.replace('"heart"', '"Heart"'), "subgoal 2: 'Heart' cannot be an id"),
        (HEAD + DRUGS + HEART.replace('"heart"', '"2nd"'), "subgoal 2: '2nd' cannot be an id"),
        (HEAD + DRUGS.replace('"drugs"', '"drugs\\n"'), r"subgoal 1: 'drugs\n' cannot be an id"),
        (HEAD + DRUGS.replace('"drugs"', "7"), "subgoal 1: 'id' is a number"),
        (HEAD + DRUGS.replace('"Drug information"', '" "'), "subgoal 1 ('drugs'): 'name' is empty"),
        (HEAD + DRUGS + HEART.replace("description", "evidence"), "subgoal 2 ('heart') has no 'description'"),
        (HEAD + DRUGS + "evidence = 3\n", "('drugs'): 'evidence' is a number"),
        (HEAD + DRUGS + "target_share = 0.0\n", "('drugs'): 'target_share' is 0.0"),
        (HEAD + DRUGS + "target_share = 5\n", "('drugs'): 'target_share' is 5"),
        (HEAD + DRUGS + HEART.replace('"heart"', '"drugs"'), "subgoals 1 and 2 have the same id 'drugs'"),
        (HEAD + DRUGS + DRUGS.replace('"drugs"', '"more"'), "subgoals 'drugs' and 'more' have the same text"),
        (HEAD + "x = [\n", "at line"),
        ('goal = "a"\ngoal "b"\n', "at line 2"),
        ('goal = "never closed', "at line 1"),
        pytest.param("goal = " + "[" * 5000, "not valid TOML", id="deep"),
        pytest.param("a." * 20_000 + "a = 1", "a key of 64 parts", id="dotted"),
        pytest.param("x = {" + "' '\t. \"b\".c ." * 20_000 + "a = 1}", "a key of 64 parts", id="dotted and spaced"),
        pytest.param(HEAD + DRUGS + "#" * 4_000_000, "larger than 4000000 bytes", id="large"),
        pytest.param(HEAD + "[[subgoals]]\n" * 1001, "more than 1000 subgoals", id="many"),
        (b"\xef\xbb\xbf" + HEAD.encode(), "byte-order mark"),
        (HEAD.encode("utf-16"), "byte-order mark"),
        (HEAD.encode() + 'specification = "Ménière"\n'.encode("latin-1"), "not UTF-8: line 2"),
    ],
)
def test_a_bad_goal_is_refused_in_plain_words(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, content).problem


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        (HEAD + "tua = 0.5\n" + DRUGS, "'tau'"),
        (HEAD + DRUGS + 'desciption = "x"\n', "'description'"),
        (HEAD + "zzz = 1\n" + DRUGS, "subgoals"),
    ],
)
def test_an_unknown_key_is_mended_by_the_closest_known_one(tmp_path: Path, content: str, mend: str) -> None:
    error = refusal(tmp_path, content)
    assert "unknown key" in error.problem
    assert mend in error.mend


def test_texts_that_differ_only_in_evidence_are_two_subgoals(tmp_path: Path) -> None:
    content = HEAD + DRUGS + DRUGS.replace('"drugs"', '"more"') + 'evidence = "a dose"\n'
    assert len(read_goal(write(tmp_path, content)).subgoals) == 2


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(GoalError, match="cannot be read") as caught:
            read_goal(path)
        assert str(path) in caught.value.problem


def finding(constraint: str, **keys: object) -> str:
    """A file with one finding of this constraint, which holds unless keys say otherwise."""
    values = {"constraint": constraint, "subgoals": ["drugs"], "outcome": "holds", **keys}
    rows = "".join(f"{key} = {tomlkit.item(value).as_string()}\n" for key, value in values.items())
    return f"{HEAD}{DRUGS}{CHECKS}[[checks.findings]]\n{rows}"


def test_exchanges_checks_and_reviews_are_read_whole(tmp_path: Path) -> None:
    content = """
[[exchanges]]
question = "Who asks?"

[[exchanges]]
question = "Which topics?"
answer = " Drugs "
aspect = "topics"
suggestions = ["Drugs ", "Diets"]
statement = "Drugs are covered."

[checks]
judge = "smol"
digest = "3f"
subgoals = "9a"

[[checks.findings]]
constraint = "atomicity"
subgoals = ["long-gone"]
probability = 1
outcome = "violated"
note = "It has two parts."

[[checks.findings]]
constraint = "disjointness"
subgoals = ["heart", "drugs"]
outcome = "accepted"
reason = "Both are wanted."

[[checks.findings]]
constraint = "coverage"
statement = "Drugs are covered."
probability = 0.25
outcome = "undecided"

[checks.fitness]
coverage = 0.5
atomicity = 1

[[checks.repairs]]
constraint = "atomicity"
before = ["long-gone"]
after = ["drugs", "heart"]
kept = false

[[reviews]]
reviewer = "Ann"
subgoals = "9a"
missing = [" Diets"]
atomic.drugs = "yes"

[reviews.comments]
long-gone = "Well gone."

[[reviews.disjoint]]
subgoals = ["heart", "drugs"]
mark = "no"

[[reviews]]
reviewer = "Bob"
subgoals = "9a"
"""
    goal = read_goal(write(tmp_path, HEAD + DRUGS + HEART + content))
    assert goal.exchanges == (
        Exchange("Who asks?", ""),
        Exchange("Which topics?", "Drugs", "topics", ("Drugs", "Diets"), "Drugs are covered."),
    )
    assert goal.checks == Checks(
        judge="smol",
        digest="3f",
        subgoals="9a",
        fitness={"atomicity": 1.0, "coverage": 0.5},
        findings=(
            Finding("atomicity", ("long-gone",), "", 1.0, "violated", "It has two parts."),
            Finding("disjointness", ("heart", "drugs"), "", None, "accepted", "", "Both are wanted."),
            Finding("coverage", (), "Drugs are covered.", 0.25, "undecided"),
        ),
        repairs=(Repair("atomicity", ("long-gone",), ("drugs", "heart"), False),),
    )
    assert goal.reviews == (
        Review("Ann", "9a", {"drugs": "yes"}, {}, {("heart", "drugs"): "no"}, ("Diets",), {"long-gone": "Well gone."}),
        Review("Bob", "9a"),
    )


@pytest.mark.parametrize("content", ["", "[checks]\n", "checks = {}\n"])
def test_empty_checks_are_none(tmp_path: Path, content: str) -> None:
    assert read_goal(write(tmp_path, HEAD + content + DRUGS)).checks is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CHECKS + "atomic = true\n", "goal.toml, checks has an unknown key 'atomic'"),
        (CHECKS.replace('judge = "smol"\n', ""), "checks has no 'judge'"),
        (CHECKS.replace('"3f"', '""'), "checks: 'digest' is empty"),
        (CHECKS.replace('"9a"', "9"), "checks: 'subgoals' is a number"),
        (CHECKS + "fitness = 1\n", "checks: 'fitness' is a number, not a table"),
        (CHECKS + "fitness.clarity = 1\n", "checks, fitness has an unknown key 'clarity'"),
        (CHECKS + "fitness.coverage = 1.01\n", "checks, fitness: 'coverage' is 1.01"),
        (CHECKS + "fitness.coverage = -0.1\n", "checks, fitness: 'coverage' is -0.1"),
        (CHECKS + "fitness.coverage = nan\n", "checks, fitness: 'coverage' is nan"),
        (CHECKS + "fitness.coverage = true\n", "checks, fitness: 'coverage' is true or false"),
        (CHECKS + "findings = 1\n", "checks: 'findings' is not a list of tables"),
        (CHECKS + "[[checks.repairs]]\nconstraint = 'coverage'\n", "checks, repair 1 has no 'kept'"),
        (CHECKS + "[[checks.repairs]]\nconstraint = 'coverage'\nkept = 1\n", "'kept' is a number, not true or false"),
        (CHECKS + "[[checks.repairs]]\nafter = ['A']\nconstraint = 'coverage'\n", "repair 1: 'A' cannot be an id"),
        (CHECKS + "[[checks.repairs]]\nfate = 1\n", "repair 1 has an unknown key 'fate'"),
        (REVIEW.replace('"Ann"', "' '"), "review 1: 'reviewer' is empty"),
        (REVIEW + "mood = 1\n", "review 1 has an unknown key 'mood'"),
        (REVIEW + "missing = 'Diets'\n", "review 1: 'missing' is a text, not a list of texts"),
        (REVIEW + "missing = ['Diets', 3]\n", "review 1: 'missing' holds a number at place 2"),
        (REVIEW + "missing = ['']\n", "review 1: 'missing' is empty at place 1"),
        (REVIEW + "atomic.drugs = 'perhaps'\n", "review 1, atomic: 'drugs' is 'perhaps'"),
        (REVIEW + "needed.drugs = true\n", "review 1, needed: 'drugs' is true or false, not a text"),
        (REVIEW + "needed.Drugs = 'yes'\n", "review 1, needed: 'Drugs' cannot be an id"),
        (REVIEW + "comments.drugs = ''\n", "review 1, comments: 'drugs' is empty"),
        (REVIEW + "disjoint = [{subgoals = ['a'], mark = 'yes'}]\n", "review 1, pair 1: 'subgoals' names 1, not 2"),
        (REVIEW + "disjoint = [{subgoals = ['a', 'a'], mark = 'yes'}]\n", "pair 1: 'subgoals' names one twice"),
        (REVIEW + "disjoint = [{subgoals = ['a', 'b']}]\n", "review 1, pair 1 has no 'mark'"),
        (REVIEW + "disjoint = [{subgoals = ['a', 'b'], mark = 'yes', by = 1}]\n", "pair 1 has an unknown key 'by'"),
        (
            REVIEW + 2 * "[[reviews.disjoint]]\nsubgoals = ['a', 'b']\nmark = 'no'\n",
            "pair 2: 'a' and 'b' are marked twice",
        ),
        ("[[exchanges]]\nquestion = 'a'\nsuggestions = 'b'\n", "exchange 1: 'suggestions' is a text, not a list"),
        ("[[exchanges]]\nquestion = 'a'\naspect = []\n", "exchange 1: 'aspect' is a list"),
    ],
)
def test_a_bad_transcript_check_or_review_is_refused_in_plain_words(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(tmp_path, HEAD + DRUGS + content).problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (finding("clarity"), "checks, finding 1: 'constraint' is 'clarity'"),
        (finding("atomicity", outcome="fine"), "finding 1: 'outcome' is 'fine'"),
        (finding("atomicity", subgoals=[]), "finding 1: 'subgoals' names 0, not 1"),
        (finding("disjointness"), "finding 1: 'subgoals' names 1, not 2"),
        (finding("coverage", subgoals="drugs"), "finding 1: 'subgoals' is a text, not a list"),
        (finding("coverage", subgoals=["drugs\n"]), r"finding 1: 'drugs\n' cannot be an id"),
        (finding("atomicity", statement="Drugs."), "finding 1: 'statement' stands with atomicity"),
        (finding("atomicity", probability=1.5), "finding 1: 'probability' is 1.5"),
        (finding("atomicity", probability="1"), "finding 1: 'probability' is a text"),
        (finding("atomicity", outcome="accepted"), "finding 1 has no 'reason'"),
        (finding("atomicity", outcome="accepted", reason=" "), "finding 1: 'reason' is empty"),
        (finding("atomicity", reason="So be it."), "finding 1: 'reason' stands with outcome 'holds'"),
        (finding("atomicity", judge="smol"), "finding 1 has an unknown key 'judge'"),
    ],
)
def test_a_bad_finding_is_refused_in_plain_words(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(tmp_path, content).problem


def test_a_table_in_the_wrong_form_is_told_its_header(tmp_path: Path) -> None:
    assert "[checks.fitness]" in refusal(tmp_path, HEAD + DRUGS + CHECKS + "fitness = 1\n").mend
    assert "[[reviews.disjoint]]" in refusal(tmp_path, HEAD + DRUGS + REVIEW + "disjoint = 1\n").mend


def test_the_goal_file_of_the_guide_can_be_read(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "guide.md").read_text(encoding="utf-8")
    shown = guide.partition("```toml\n")[2].partition("```\n")[0]
    goal = read_goal(write(tmp_path, shown))
    assert goal.checks is not None
    assert all((goal.exchanges, goal.checks.findings, goal.checks.repairs, goal.reviews))
    listed = tmp_path / "subgoals.txt"
    listed.write_text(guide.partition("```text\n")[2].partition("```\n")[0], encoding="utf-8")
    assert [subgoal.id for subgoal in read_subgoals(listed)] == ["drug-information", "diagnosis"]


def hand_written(folder: Path, content: str, name: str = "set.txt") -> tuple[Subgoal, ...]:
    file = folder / name
    file.write_bytes(content.encode())
    return read_subgoals(file)


def test_subgoals_are_read_from_plain_lines(tmp_path: Path) -> None:
    content = "# Ours\r\n\r\nDrugs\r\n  - Heart : ratios such as 1:2\n12. Heart\n3) 2D images:\n* café"
    assert hand_written(tmp_path, content) == (
        Subgoal("drugs", "Drugs", ""),
        Subgoal("heart", "Heart", "ratios such as 1:2"),
        Subgoal("heart-2", "Heart", ""),
        Subgoal("s-2d-images", "2D images", ""),
        Subgoal("cafe", "café", ""),
    )
    assert hand_written(tmp_path, "Knots - and 2. ropes")[0].name == "Knots - and 2. ropes"


@pytest.mark.parametrize("line", ["a" + " " * 999_999 + "b", "1" * 1_000_000, "a:" * 500_000 + "a"], ids=len)
def test_a_long_line_takes_linear_time(tmp_path: Path, line: str) -> None:
    started = time.process_time()
    assert hand_written(tmp_path, line)[0].name == line
    assert time.process_time() - started < 5, "looking for its parts at each place takes minutes"


def test_subgoals_are_read_from_toml_that_leaves_ids_and_descriptions_out(tmp_path: Path) -> None:
    content = '[[subgoals]]\nname = "Heart"\ntarget_share = 0.1\n' + HEART + DRUGS.replace("description", "evidence")
    assert hand_written(tmp_path, content, "set.TOML") == (
        Subgoal("heart-2", "Heart", "", "", 0.1),
        Subgoal("heart", "Cardiology", "Diseases of the heart"),
        Subgoal("drugs", "Drug information", "", "Doses and interactions"),
    )
    assert hand_written(tmp_path, HEAD + CHECKS + DRUGS, "goal.toml")[0].id == "drugs"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("set.txt", "\n# none\n", "set.txt has no subgoals"),
        ("set.txt", "Drugs\n\n - : doses\n", "set.txt, line 3 has no name"),
        ("set.txt", "Drugs\n-\n", "set.txt, line 2 has no name"),
        pytest.param("set.txt", "\n".join(map(str, range(1001))), "more than 1000 subgoals", id="many"),
        ("set.txt", "# a\nDrugs: doses\n1. Drugs:  doses\n", "set.txt: lines 2 and 3 have the same text"),
        ("set.txt", "\ufeffDrugs", "set.txt begins with a byte-order mark"),
        ("set.toml", "Drugs\n", "set.toml is not valid TOML"),
        ("set.toml", HEAD, "set.toml has no subgoals"),
        ("set.toml", "[[subgoals]]\n", "set.toml, subgoal 1 has no 'name'"),
        ("set.toml", "[[subgoals]]\nid = 'a'\n", "set.toml, subgoal 1 ('a') has no 'name'"),
        ("set.toml", "[[subgoals]]\nid = 'A'\n", "set.toml, subgoal 1: 'A' cannot be an id"),
        ("set.toml", "[[subgoals]]\nname = 'a'\nshare = 1\n", "subgoal 1 ('a') has an unknown key 'share'"),
        ("set.toml", "[[subgoal]]\nname = 'a'\n", "set.toml has an unknown key 'subgoal'"),
        ("set.toml", DRUGS + DRUGS, "subgoals 1 and 2 have the same id 'drugs'"),
        ("set.toml", 2 * "[[subgoals]]\nname = 'a'\n", "subgoals 'a' and 'a-2' have the same text"),
    ],
)
def test_a_bad_set_is_refused_in_plain_words(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(GoalError) as caught:
        hand_written(tmp_path, content, name)
    assert said in caught.value.problem
    assert caught.value.mend


@pytest.mark.parametrize(
    ("name", "taken", "said"),
    [
        ("Drugs & imaging", (), "drugs-imaging"),
        ("  Ménière's disease", (), "meniere-s-disease"),
        ("Straße", (), "strasse"),
        ("ℌeart", (), "heart"),
        ("καρδιά", (), "subgoal"),
        ("2D images", (), "s-2d-images"),
        ("Heart", ("heart", "heart-3"), "heart-2"),
        ("Heart", ("heart", "heart-2"), "heart-3"),
        ("a" * 50, (), "a" * 40),
        ("a" * 50, ("a" * 40,), "a" * 38 + "-2"),
        ("Diagnosis and differential diagnosis of murmurs", (), "diagnosis-and-differential-diagnosis-of"),
        ("Diagnosis of congenital heart disease in the young", (), "diagnosis-of-congenital-heart-disease-in"),
    ],
)
def test_an_id_is_made_from_a_name(name: str, taken: tuple[str, ...], said: str) -> None:
    assert slug(name, taken) == said


@given(names=st.lists(st.text(max_size=60) | st.sampled_from(["Heart", "heart!", "1", "a-" * 30]), max_size=12))
def test_ids_made_from_names_are_valid_and_unlike(names: list[str]) -> None:
    taken: list[str] = []
    for name in names:
        made = slug(name, taken)
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,39}", made) and made not in taken
        taken.append(made)


TRIMMED = st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool)
IDS = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
SHARES = st.floats(0, 1, exclude_min=True)


@st.composite
def whole_goals(draw: st.DrawFn) -> Goal:
    ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    subgoals = [Subgoal(id, draw(TRIMMED), draw(TRIMMED), draw(st.just("") | TRIMMED), draw(SHARES)) for id in ids]
    kept = {subgoal.digest: subgoal for subgoal in subgoals}
    exchanges = draw(st.lists(st.builds(Exchange, TRIMMED, TRIMMED), max_size=2))
    return Goal(draw(TRIMMED), draw(TRIMMED), tuple(exchanges), tuple(kept.values()), draw(SHARES))


def as_table(goal: Goal) -> dict[str, Any]:
    return {
        "goal": goal.text,
        "specification": goal.specification,
        "tau": goal.tau,
        "exchanges": [{"question": each.question, "answer": each.answer} for each in goal.exchanges],
        "subgoals": [
            {
                "id": each.id,
                "name": each.name,
                "description": each.description,
                "evidence": each.evidence,
                "target_share": each.target_share,
            }
            for each in goal.subgoals
        ],
    }


@given(goal=whole_goals())
def test_any_goal_that_is_written_is_read_back_equal(goal: Goal, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "round_trip.toml"
    file.write_bytes(tomlkit.dumps(as_table(goal)).encode())
    assert read_goal(file) == goal


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two shipped goals, in the place of the real one."""
    folder = tmp_path / "goals"
    folder.mkdir()
    for name in ("heart", "bills"):
        (folder / f"{name}.toml").write_text(HEAD + DRUGS)
    monkeypatch.setattr(reading, "shipped", lambda name: folder)
    return folder


def test_a_goal_is_found_by_path_before_name(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_goal("heart") == shelf / "heart.toml"
    assert list(shipped_goals()) == ["bills", "heart"]
    monkeypatch.chdir(tmp_path)
    Path("heart").mkdir()
    assert find_goal("heart") == shelf / "heart.toml"
    Path("bills").write_text(HEAD + DRUGS)
    assert find_goal("bills") == Path("bills")
    assert find_goal(str(shelf / "heart.toml")) == shelf / "heart.toml"


@pytest.mark.parametrize("name", ["hart", "heart.toml", "../goals/hart", ""])
def test_a_goal_that_is_not_there_is_answered_with_those_that_are(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GoalError) as caught:
        find_goal(name)
    assert repr(name) in caught.value.problem
    assert "bills, heart" in caught.value.mend
    assert ("Did you mean 'heart'" in caught.value.mend) == (name != "")


def test_a_folder_is_no_goal(shelf: Path) -> None:
    with pytest.raises(GoalError, match="is a folder"):
        find_goal(shelf)


@pytest.mark.parametrize("name", shipped_goals())
def test_every_shipped_goal_can_be_read(name: str) -> None:
    assert read_goal(find_goal(name)).subgoals
