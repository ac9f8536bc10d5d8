"""Study files and the rows that their removals choose: whole words, labels, shares, ids, at random, and what stays."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.errors import DataError, GoalError
from goalcover_local.goal_files.reading import read_goal
from goalcover_local.resampling import drawn
from goalcover_local.resources import shipped
from goalcover_local.studies.removals import (
    Computed,
    Labelled,
    Listed,
    Longest,
    Pattern,
    Random,
    Removal,
    Shifted,
    Study,
    Way,
    check_columns,
    find_study,
    read_study,
    whole_words,
)
from goalcover_local.terms import Sample

GOAL = """\
goal = "Answer patients"

[[subgoals]]
id = "drugs"
name = "Drugs"
description = "Tells of drugs."

[[subgoals]]
id = "hearts"
name = "Hearts"
description = "Tells of hearts."
"""
REMOVAL = '[[removals]]\nname = "Drug rows"\ntarget = "drugs"\n'
TABLE_1: Mapping[str, Mapping[str, str]] = {
    "medical": {
        "Cardiology questions": "cardiac, cardio, heart, cardiovascular, ECG, EKG, myocardial, coronary",
        "Drug questions": "drug, medication, dosage, mg, ml, pharmaceutical, prescription",
    },
    "legal": {
        "Monetary bills": "$, million, billion, thousand, budget, funding, appropriation",
        "Healthcare bills": "health, medical, medicare, medicaid, hospital, patient, doctor",
    },
    "code": {
        "ML instructions": "machine learning, sklearn, tensorflow, pytorch, keras, model, train",
        "Web instructions": "web, API, HTTP, REST, endpoint, flask, django, fastapi",
    },
}
"""The patterns of the paper's Table 1, by study and removal."""


def study(folder: Path, text: str = "", **files: str) -> Study:
    """The study of that text beside the goal and other files, by their stems."""
    (folder / "goal.toml").write_text(GOAL, encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.txt").write_text(content, encoding="utf-8")
    path = folder / "study.toml"
    path.write_text('goal = "goal.toml"\n' + text, encoding="utf-8")
    return read_study(path)


def removal(folder: Path, text: str, **files: str) -> Removal:
    [found] = study(folder, REMOVAL + text, **files).removals
    return found


def samples(*texts: str) -> list[Sample]:
    return [Sample(f"data:{n}", text, f"answer {n}") for n, text in enumerate(texts, 1)]


def chosen(way: Way, *rows: Mapping[str, Any], seed: int = 0) -> list[int]:
    return list(np.flatnonzero(way.chosen(samples(*[""] * len(rows)), rows, seed)))


# Words


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("drug", "A drug.", True),
        ("drug", "A DRUG-induced rash", True),
        ("drug", "Drugs.", False),
        ("drug", "antidrug", False),
        ("drug", "drug_2", False),
        ("ECG", "an ecg (normal)", True),
        ("ml", "5 ml daily", True),
        ("ml", "5ml", False),
        ("ml", "html", False),
        ("machine learning", "Machine learning:", True),
        ("machine learning", "machine-learning", False),
        ("c++", "In C++ and C", True),
        ("c++", "In c, plus", False),
        ("$", "$5", True),
        ("$", "$ 5", True),
        ("$", "US$5 million", True),
        ("$", "US$", False),
        ("$", "$", False),
        ("$", "5 $", False),
        ("$", "$  5", False),
    ],
)
def test_terms_are_whole_words_in_any_case(term: str, text: str, found: bool) -> None:
    assert chosen(Pattern(whole_words(["zebra", term]), ("text",)), {"text": text}) == [0] * found


def test_a_pattern_reads_its_fields_with_all_that_lists_and_tables_hold() -> None:
    rows: list[dict[str, Any]] = [
        {"a": "drug", "b": ""},
        {"b": ["none", {"deep": ["a drug"]}]},
        {"b": {"LABELS": ["x", "drug"]}},
        {"c": "drug"},
        {"a": None, "b": 7},
        {"a": ["dr", "ug"]},
    ]
    assert chosen(Pattern("drug", ("a", "b")), *rows) == [0, 1, 2]
    assert chosen(Pattern("7", ("b",)), *rows) == [4]
    assert chosen(Pattern("true", ("a",)), {"a": True}, {"a": False}) == [0]


def test_a_pattern_without_fields_reads_what_a_judge_reads() -> None:
    read = [Sample("1", "drug", ""), Sample("2", "", "A drug."), Sample("3", "", "")]
    rows = [{}, {}, {"note": "drug"}]
    assert Pattern("drug").chosen(read, rows, 0).tolist() == [True, True, False]


# Labels


def test_labels_are_whole_values_or_any_of_a_list() -> None:
    rows: list[dict[str, Any]] = [
        {"area": "Health"},
        {"area": "Health care"},
        {"area": ["Tax", "Health"]},
        {"area": []},
        {"area": None},
        {},
        {"area": "health"},
        {"area": 3},
        {"area": True},
    ]
    assert chosen(Labelled("area", ("Health", "Finance")), *rows) == [0, 2]
    assert chosen(Labelled("area", ("3",)), *rows) == [7]
    assert chosen(Labelled("area", ("true",)), *rows) == [8]


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=120),
    st.fixed_dictionaries({label: st.integers(0, 10) for label in "abc"}),
    st.integers(0, 1000),
)
def test_labels_get_their_shares_within_one_row(labels: list[str], parts: dict[str, int], seed: int) -> None:
    parts = {label: part for label, part in parts.items() if part == 0 or label in labels}
    if not sum(parts.values()):
        return
    shares = {label: part / sum(parts.values()) for label, part in parts.items()}
    removed = set(chosen(Shifted("label", shares), *[{"label": label} for label in labels], seed=seed))
    left = Counter(label for n, label in enumerate(labels) if n not in removed)
    before = Counter(labels)
    assert all(left[label] == before[label] for label in before if label not in shares)
    whole = sum(left[label] for label in shares)
    for label, share in shares.items():
        assert abs(left[label] - share * whole) < 1 + share * len(shares)
    wanted = {label: before[label] / share for label, share in shares.items() if share}
    scarcest = min(wanted, key=wanted.__getitem__)
    assert left[scarcest] == before[scarcest], "no more than needed is removed"


def test_a_share_for_a_label_that_no_row_has_is_refused() -> None:
    with pytest.raises(DataError, match="No row has the label 'perhaps' in its column 'label'"):
        chosen(Shifted("label", {"yes": 0.5, "perhaps": 0.5}), {"label": "yes"}, {"label": "no"})
    assert chosen(Shifted("label", {"yes": 1.0, "perhaps": 0.0}), {"label": "yes"}) == []


# Ids, at random, by length, by a function


def test_ids_choose_their_rows() -> None:
    way = Listed(frozenset({"data:2", "data:9", "data:10"}))
    assert chosen(way, {}, {}, {}) == [1]
    assert (way.n_unknown(samples("a", "b", "c")), way.n_unknown(samples(*"abcdefghij"))) == (2, 0)


@given(st.integers(1, 300), st.floats(0.01, 1), st.integers(0, 10**6))
def test_random_takes_its_share(n: int, share: float, seed: int) -> None:
    assert len(chosen(Random(share), *[{}] * n, seed=seed)) == round(share * n)


def test_random_is_fixed_by_the_seed_and_apart_from_what_is_drawn() -> None:
    null = Removal("null", "drugs", Random(0.1))
    rows: list[dict[str, Any]] = [{}] * 200
    read = samples(*[""] * 200)
    taken = [np.flatnonzero(null.removed(read, rows, seed)).tolist() for seed in range(20)]
    assert taken[0] == np.flatnonzero(null.removed(read, rows, 0)).tolist() and taken[0] != taken[1]
    begun = [set(drawn(200, seed, 20).tolist()) for seed in range(20)]
    shared = [len(begun[seed].intersection(taken[seed])) for seed in range(20)]
    assert sum(shared) < 100, "a strategic sample's base would be what is removed"


def test_longest_takes_the_longest() -> None:
    read = samples("four", "longest of all", "", "nearly the longest")
    assert np.flatnonzero(Longest(0.5).chosen(read, [{}] * 4, 0)).tolist() == [1, 3]
    assert Longest(0.25).chosen(samples("a", "a", "a", "a"), [{}] * 4, 0).tolist() == [True, False, False, False]


def test_a_function_of_sample_and_row_chooses() -> None:
    way = Computed(lambda sample, row: sample.input == "b" or row.get("n", 0) > 2)
    assert way.chosen(samples("a", "b", "c"), [{"n": 1}, {}, {"n": 3}], 0).tolist() == [False, True, True]


@given(st.integers(1, 200), st.floats(0.01, 1), st.integers(0, 1000))
def test_a_thinned_class_keeps_its_share(n: int, keep: float, seed: int) -> None:
    rows = [{"label": "x" if k % 3 else "y"} for k in range(n)]
    thinned = Removal("thin", "drugs", Labelled("label", ("x",)), keep)
    whole = Removal("all", "drugs", Labelled("label", ("x",)))
    read = samples(*[""] * n)
    every, some = whole.removed(read, rows, seed), thinned.removed(read, rows, seed)
    assert not (some & ~every).any()
    assert every.sum() - some.sum() == round(keep * every.sum())
    assert (thinned.kind, whole.kind) == ("natural gap", "removal")


# Study files


def test_a_study_says_everything(tmp_path: Path) -> None:
    text = """\
input = ["question"]
output = ["answer", "note"]

[[removals]]
name = "Words"
target = "drugs"
fields = ["question"]
terms = ["drug", "$"]
pattern = "mg/[km]l"

[[removals]]
name = "Labels"
target = "hearts"
column = "area"
values = ["Heart"]
keep = 0.25

[[removals]]
name = "Shifted"
target = "hearts"
column = "area"
shares = {Heart = 0.1, Lung = 0.9}

[[removals]]
name = "Ids"
target = "hearts"
ids = "ids.txt"

[[removals]]
name = "Null"
target = "hearts"
random = 0.2

[[removals]]
name = "Long"
target = "hearts"
longest = 0.3
"""
    found = study(tmp_path, text, ids="a\n\n b \n")
    assert (found.name, found.input, found.output, found.ships) == ("study", ("question",), ("answer", "note"), False)
    assert [subgoal.id for subgoal in found.goal.subgoals] == ["drugs", "hearts"]
    words, labels, shifted, ids, null, longest = found.removals
    assert (words.name, words.target, words.keep, words.kind) == ("Words", "drugs", 0.0, "removal")
    assert chosen(
        words.way, {"question": "$3"}, {"question": "2 mg/kl"}, {"question": "drugs"}, {"answer": "drug"}
    ) == [
        0,
        1,
    ]
    assert (labels.way, labels.keep, labels.kind) == (Labelled("area", ("Heart",)), 0.25, "natural gap")
    assert shifted.way == Shifted("area", {"Heart": 0.1, "Lung": 0.9}) and shifted.kind == "natural gap"
    assert ids.way == Listed(frozenset({"a", "b"}))
    assert (null.way, longest.way) == (Random(0.2), Longest(0.3))


BROKEN = {
    "is not valid TOML": "goal",
    "removes nothing. Add at least one": "",
    "has an unknown key 'removal'. Did you mean 'removals'": "[[removal]]\n",
    "removal 1 has an unknown key 'term'. Did you mean 'terms'": REMOVAL + 'term = ["x"]',
    "removal 1 has no 'target'": '[[removals]]\nname = "x"',
    "removal 1: there is no subgoal 'lungs'. Choose among drugs, hearts.": (
        '[[removals]]\nname = "x"\ntarget = "lungs"\nrandom = 0.1'
    ),
    "removal 1 has no 'name'": '[[removals]]\ntarget = "drugs"\nrandom = 0.1',
    "removal 1: 'name' holds a line break": '[[removals]]\nname = "a\\nb"\ntarget = "drugs"\nrandom = 0.1',
    "removal 1: 'name' holds a line break or a control": (
        '[[removals]]\nname = "a\\u001b[31m"\ntarget = "drugs"\nrandom = 1'
    ),
    "removal 1 does not say which rows it removes. Give one of terms, pattern": REMOVAL,
    "removal 1 says both column and terms": REMOVAL + 'terms = ["x"]\ncolumn = "a"\nvalues = ["b"]',
    "removal 1: 'terms' is a text, not a list": REMOVAL + 'terms = "x"',
    "removal 1: 'terms' holds a number at place 2": REMOVAL + 'terms = ["x", 1]',
    "removal 1: 'pattern' is no regular expression": REMOVAL + 'pattern = "(x"',
    "removal 1: 'pattern' is no regular expression: the repetition number": REMOVAL + 'pattern = "x{99999999999}"',
    "removal 1: 'pattern' is no regular expression: maximum": (
        REMOVAL + 'pattern = "' + 5000 * "(" + "x" + 5000 * ")" + '"'
    ),
    "removal 1: 'pattern' matches an empty text, so it would remove every row. Let it need": (
        REMOVAL + 'pattern = "x*"'
    ),
    "removal 1: 'pattern' matches an empty text": REMOVAL + 'terms = ["x"]\npattern = "y?"',
    "removal 1: 'terms' is empty. Name at least one word.": REMOVAL + "terms = []",
    "removal 1: 'terms' is empty": REMOVAL + 'terms = []\npattern = "x"',
    "removal 1: keep is 1: nothing would be removed. Give a share below 1.": REMOVAL + 'terms = ["x"]\nkeep = 1',
    "removal 1: 'column' needs 'values' or 'shares'": REMOVAL + 'column = "a"',
    "removal 1: 'column' needs 'values' or 'shares'.": REMOVAL + 'column = "a"\nvalues = ["b"]\nshares = {b = 1}',
    "removal 1: the shares do not sum to 1": REMOVAL + 'column = "a"\nshares = {b = 0.5, c = 0.4}',
    "removal 1: the shares do not": REMOVAL + 'column = "a"\nshares = {}',
    "removal 1, shares: 'b' is 2": REMOVAL + 'column = "a"\nshares = {b = 2, c = -1}',
    "removal 1: 'random' is 0. Give a number above 0": REMOVAL + "random = 0",
    "removal 1: 'longest' is a text, not a number": REMOVAL + 'longest = "all"',
    "removal 1: 'keep' is 1.5": REMOVAL + "random = 0.1\nkeep = 1.5",
    "ids.txt cannot be read": REMOVAL + 'ids = "ids.txt"',
    "removal 1: 'fields' goes with terms or pattern only": REMOVAL + 'column = "a"\nvalues = ["b"]\nfields = ["c"]',
    "removal 1: 'values' goes with column only": REMOVAL + 'random = 0.1\nvalues = ["b"]',
    "removal 1: 'shares' goes with column only": REMOVAL + 'terms = ["x"]\nshares = {b = 1}',
    "two removals are named 'Drug rows'": (REMOVAL + "random = 0.1\n") * 2,
    "removal 2: 'random' is 7": REMOVAL + 'random = 0.1\n[[removals]]\nname = "b"\ntarget = "drugs"\nrandom = 7',
}


@pytest.mark.parametrize("told", BROKEN)
def test_what_is_wrong_with_a_study_is_told_with_its_place(tmp_path: Path, told: str) -> None:
    with pytest.raises(GoalError) as caught:
        study(tmp_path, BROKEN[told])
    assert told in str(caught.value)
    assert str(tmp_path) in caught.value.problem and caught.value.mend


def test_a_goal_is_no_study_and_a_study_no_goal(tmp_path: Path) -> None:
    study(tmp_path, REMOVAL + "random = 0.1")
    with pytest.raises(GoalError) as caught:
        read_study(tmp_path / "goal.toml")
    assert caught.value.problem == f"{tmp_path / 'goal.toml'} is a goal, not a study."
    assert caught.value.mend == "Write a study.toml that names it; docs/guide.md has one."
    with pytest.raises(GoalError) as caught:
        read_goal(tmp_path / "study.toml")
    assert caught.value.problem == f"{tmp_path / 'study.toml'} is a study, not a goal."
    (tmp_path / "other.toml").write_text('goal = "study.toml"\n' + REMOVAL + "random = 0.1", encoding="utf-8")
    with pytest.raises(GoalError, match=r"study\.toml is a study, not a goal"):
        read_study(tmp_path / "other.toml")


@pytest.mark.parametrize("name", ["two\nlines.toml", "a\x1b[31m.toml", "no\udcfftext.toml"])
def test_the_name_of_a_study_is_one_line_of_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(GoalError) as caught:
        read_study(tmp_path / name)
    assert "holds a line break or a control character" in caught.value.problem and caught.value.mend
    assert caught.value.problem.isprintable()


def test_what_python_may_read_otherwise_one_day_is_not_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        way = removal(tmp_path, "pattern = '[[a]b'").way
        re.purge()
        assert chosen(way, {}, {}) == []
        assert way.chosen(samples("a b", "A [B "), [{}, {}], 0).tolist() == [False, True]


def test_a_goal_that_is_nowhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('goal = "medcal"\n' + REMOVAL, encoding="utf-8")
    with pytest.raises(GoalError, match=r"'medcal' is neither a file nor a shipped goal\. Did you mean 'medical'"):
        read_study(path)
    with pytest.raises(GoalError, match=r"none\.toml cannot be read"):
        read_study(tmp_path / "none.toml")


def test_studies_are_found_by_path_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    assert find_study("code") == shipped("studies") / "code.toml", "a folder is no study"
    (tmp_path / "legal").write_text("")
    assert find_study("legal") == Path("legal")
    assert find_study("deep/none.toml") == Path("deep/none.toml")
    with pytest.raises(GoalError, match=r"no study named 'medcial'\. Did you mean 'medical'"):
        find_study("medcial")
    with pytest.raises(GoalError, match="There are code, legal, medical; or give a path"):
        find_study("x")


# Those that ship


@pytest.mark.parametrize("name", TABLE_1)
def test_the_studies_that_ship_have_the_papers_patterns(name: str) -> None:
    found = read_study(find_study(name))
    assert found.ships and found.goal.subgoals
    by_name = {each.name: each for each in found.removals}
    for title, terms in TABLE_1[name].items():
        way = by_name[title].way
        assert isinstance(way, Pattern) and by_name[title].kind == "removal"
        assert way.expression == whole_words(terms.split(", "))
        assert way.columns
    natural = [each for each in found.removals if each.name not in TABLE_1[name]]
    assert natural and all(each.kind == "natural gap" for each in natural)


def test_six_removals_have_six_targets() -> None:
    told = [
        (name, each.target)
        for name in TABLE_1
        for each in read_study(find_study(name)).removals
        if each.name in TABLE_1[name]
    ]
    assert told == [
        ("medical", "cardiology-expertise"),
        ("medical", "drug-information"),
        ("legal", "monetary-preservation"),
        ("legal", "healthcare-terminology"),
        ("code", "ml-libraries"),
        ("code", "web-frameworks"),
    ]


# Columns


def test_a_column_that_one_row_has_is_there(tmp_path: Path) -> None:
    found = study(tmp_path, REMOVAL + 'column = "area"\nvalues = ["x"]')
    assert check_columns(found, [{"text": "a"}, {"area": "x"}]) == (list(found.removals), [])


def test_a_study_of_ones_own_must_fit_its_data_without_a_word_of_them(tmp_path: Path) -> None:
    found = study(tmp_path, REMOVAL + 'terms = ["drug"]\nfields = ["question", "note"]')
    rows = [{"question": "a", "My wife has taken Zwiebelkuchen4711 since May": "b"}]
    with pytest.raises(DataError) as caught:
        check_columns(found, rows)
    assert caught.value.problem == "The removal 'Drug rows' reads note, which no row has."
    assert "Zwiebelkuchen4711" not in str(caught.value), "a table without a header has a row's text for names"


def test_a_study_that_ships_leaves_out_what_does_not_fit() -> None:
    legal = read_study(find_study("legal"))
    fit, lacking = check_columns(legal, [{"title": "", "summary": ""}])
    assert [each.name for each in fit] == ["Monetary bills", "Healthcare bills"]
    assert [(each.name, absent) for each, absent in lacking] == [
        ("Policy area Health thinned to a fifth", ["policy_area"])
    ]
    with pytest.raises(DataError, match="'Monetary bills' reads title, summary, which no row has"):
        check_columns(legal, [json.loads('{"question": "a"}')])
