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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("用量不明", ["用量", "量不", "不明"]),
        ("薬", ["薬"]),
        ("MRI検査、CT。", ["mri", "検査"]),
        ("ダイエット", ["ダイ", "イエ", "エッ", "ット"]),
        ("人々", ["人々"]),
        ("ยาเม็ด", ["ยา", "าเ", "เม", "มด"]),
        ("ຢາເມັດ", ["ຢາ", "າເ", "ເມ", "ມດ"]),
        ("ថ្នាំ", ["ថន"]),
        ("𠮷野家", ["𠮷野", "野家"]),
        ("用_量", ["用", "量"]),
    ],
)
def test_scripts_without_spaces_are_cut_into_pairs(text: str, found: list[str]) -> None:
    assert stems(text) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ﾀﾞｲｴｯﾄ", "ダイエット"),
        ("ＤＯＳＡＧＥ", "dosage"),
        ("cafe\u0301 crème", "CAFÉ CRÈME"),
        ("Straße", "STRASSE"),
        ("ﬁbres", "fibres"),
        ("한글 치료", "한글 치료"),
        ("حَسَن", "حسن"),
        ("İlaç", "i̇laç"),
    ],
)
def test_forms_of_a_character_do_not_part_words(one: str, other: str) -> None:
    assert stems(one) == stems(other) != []


def test_texts_without_spaces_are_grouped_and_named_by_what_they_share() -> None:
    texts = ["药物剂量没有说明", "没有说明药物的剂量", "产品如何储存", "ขนาดยาไม่ได้บอก", "ไม่ได้บอกขนาดยา"]
    assert groups(texts, 8) == [[0, 1], [2], [3, 4]]
    shares = naming("药物剂量", texts, weights(texts))
    assert shares[0] == pytest.approx(1) and shares[1] >= NAMES > shares[2] == shares[3] == 0
    assert alike("剂量", "药物剂量") and not alike("储存", "药物剂量")


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


def test_a_text_finds_its_group_among_many_that_share_its_words() -> None:
    """Of the groups that hold a word, those are looked at first of which it is the most."""
    made = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    noise = [" ".join("".join(made.choices(letters, k=7)) for _ in range(20)) for _ in range(500)]
    texts = [
        *(f"Tablets dosage {each}" for each in noise),
        "Tablets: dosage?",
        "dosage of TABLETS",
        "a tablet's dosages",
    ]
    assert groups(texts, 8)[-1] == [500, 501, 502] and len(groups(texts, 8)) == 501


@pytest.mark.parametrize(
    ("shared", "n_words", "n_known"),
    [("", 10, 0), ("Lacks the dosage of tablets for storage.", 10, 0), ("", 15, 60), ("", 15, 3000)],
    ids=["nothing shared", "a beginning shared", "few words", "many words"],
)
def test_twenty_thousand_texts_take_seconds(shared: str, n_words: int, n_known: int) -> None:
    """Whatever they share: each text is held against a bounded number of groups."""
    made = random.Random(0)

    def word() -> str:
        return "".join(made.choices("abcdefghijklmnopqrstuvwxyz", k=7))

    known = [word() for _ in range(n_known)]
    texts = [
        " ".join([shared, *(made.choice(known) if known else word() for _ in range(n_words))]) for _ in range(20_000)
    ]
    started = time.perf_counter()
    found = groups(texts, 8)
    assert time.perf_counter() - started < 20
    assert sorted(place for group in found for place in group) == list(range(len(texts)))
    assert known or len(found) == len(texts), "no two are alike"
