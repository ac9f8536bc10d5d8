"""Goal files: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local import goals
from goalcover_local.errors import GoalError
from goalcover_local.goals import find_goal, read_goal, shipped_goals
from goalcover_local.terms import Exchange, Goal, Subgoal

HEAD = 'goal = "Answer clinicians"\n'
DRUGS = '[[subgoals]]\nid = "drugs"\nname = "Drug information"\ndescription = "Doses and interactions"\n'
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
        + "[checks]\natomic = true\n"
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
        (HEAD + '[[exchanges]]\nquestion = "Who?"\n' + DRUGS, "exchange 1 has no 'answer'"),
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
    monkeypatch.setattr(goals, "shipped", lambda name: folder)
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
