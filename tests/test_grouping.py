"""Texts that say alike: words by their stems, groups of a bounded size, and what it takes to name a thing."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.grouping import ALIKE, NAMES, alike, groups, naming, stems, weights

WORDS = "dosage tablets storage warnings pregnancy allergy surgery bandage the and in".split()
SENTENCES = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=30)
ANYTHING = st.lists(st.text(max_size=30), max_size=15)


def test_endings_and_case_do_not_part_words() -> None:
    assert stems("Treated TREATMENT treating") == ["treat"] * 3
    assert stems("Behandlung behandelt") == ["behan"] * 2


def test_words_of_every_remark_and_of_two_letters_are_left_out() -> None:
    assert stems("The answer does not mention any information of it.") == []
    assert stems("an MRI at 9 p.m., 250 mg") == ["mri", "250"]
    assert stems("_under_score_") == ["score"], "an underline parts words"


@pytest.mark.parametrize(
    "text", ["лечение астмы", "θεραπεία του άσθματος", "천식의 치료", "ぜんそく 治療", "علاج الربو"]
)
def test_other_scripts_have_words_too(text: str) -> None:
    assert len(stems(text)) >= 2
    assert naming(text, [text, "dosage"], weights([text, "dosage"])) == [pytest.approx(1), 0]


def test_a_rare_word_counts_for_more() -> None:
    worth = weights(["dosage tablets", "dosage storage", "dosage dosage"])
    assert worth["stora"] == worth["table"] > worth["dosag"] > 0
    assert weights([]) == {}


@settings(deadline=None)
@given(texts=SENTENCES | ANYTHING, most=st.integers(1, 9))
def test_every_text_is_in_one_group_and_none_is_too_large(texts: list[str], most: int) -> None:
    found = groups(texts, most)
    assert sorted(place for group in found for place in group) == list(range(len(texts)))
    assert all(0 < len(group) <= most and group == sorted(group) for group in found)
    assert groups(texts, most) == found


@settings(deadline=None)
@given(texts=SENTENCES)
def test_groups_stand_in_the_order_of_their_first_texts(texts: list[str]) -> None:
    firsts = [group[0] for group in groups(texts, len(texts) + 1)]
    assert firsts == sorted(firsts)


def test_what_says_alike_is_together_and_the_rest_apart() -> None:
    texts = ["Lacks the dosage of tablets", "Tablets: their dosage is missing", "Storage in summer", "", "", "Dosages?"]
    assert groups(texts, 8) == [[0, 1, 5], [2], [3], [4]]
    assert groups(texts, 2) == [[0, 1], [5], [2], [3], [4]]
    assert 0 < ALIKE < 1


def test_no_texts_have_no_groups() -> None:
    assert groups([], 8) == []


@settings(deadline=None)
@given(name=st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join) | st.text(max_size=20), texts=SENTENCES)
def test_how_much_of_a_name_a_text_holds_is_a_share(name: str, texts: list[str]) -> None:
    worth = weights(texts)
    shares = naming(name, [*texts, name, f"Dosage {name} storage"], worth)
    assert all(0 <= share <= 1 + 1e-9 for share in shares)
    whole = 1 if stems(name) else 0
    assert shares[-2:] == pytest.approx([whole, whole])
    for share, text in zip(shares, texts, strict=False):
        assert (share > 0) == bool(set(stems(name)) & set(stems(text)))


def test_the_rare_word_of_a_name_decides() -> None:
    texts = ["dosage", *["tablets"] * 20, "tablets dosage"]
    shares = naming("dosage of tablets", texts, weights(texts))
    assert shares[0] >= NAMES > shares[1] > 0
    assert shares[-1] == pytest.approx(1)


def test_a_name_of_common_words_is_held_by_none() -> None:
    assert naming("the information", ["the information"], weights(["the information"])) == [0]
    assert naming("", ["dosage"], weights(["dosage"])) == [0]
    assert naming("dosage", [], {}) == []


def test_names_are_alike_if_one_holds_the_other() -> None:
    assert alike("dosage of tablets", "Dosages") and alike("Dosages", "dosage of tablets")
    assert not alike("dosage of tablets", "dosage in pregnancy")
    assert not alike("", "dosage") and not alike("the", "the")


@pytest.mark.parametrize(("n", "shared"), [(5000, ""), (1500, "Lacks the dosage of tablets for storage.")])
def test_thousands_of_texts_of_which_no_two_are_alike_take_seconds(n: int, shared: str) -> None:
    """Which is the most work, above all where all share words."""
    made = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"{shared} " + " ".join("".join(made.choices(letters, k=7)) for _ in range(30)) for _ in range(n)]
    started = time.perf_counter()
    assert len(groups(texts, 8)) == n
    assert time.perf_counter() - started < 20
