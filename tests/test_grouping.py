"""Texts that say alike: words by their stems, themes by shared words, and what it takes to name a thing."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.grouping import NAMES, alike, index, parts, shares, stems, themes

WORDS = "dosage tablets storage warnings pregnancy allergy surgery bandage the and in".split()
SENTENCES = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=30)
ANYTHING = st.lists(st.text(max_size=30), max_size=15)


def naming(name: str, texts: list[str]) -> list[float]:
    """What share of a name's words each text holds."""
    held = shares(name, index(texts))
    return [held.get(place, 0) for place in range(len(texts))]


def test_endings_and_case_do_not_part_words() -> None:
    assert stems("Treated TREATMENT treating") == ["treat"] * 3
    assert stems("Behandlung behandelt") == ["behan"] * 2


def test_words_of_every_remark_and_of_two_letters_are_left_out() -> None:
    assert stems("The answer does not mention any information of it.") == []
    assert stems("an MRI at 9 p.m., 250 mg") == ["mri", "250"]
    assert stems("_under_score_") == ["score"], "an underline parts words"


def test_words_of_denial_make_no_theme() -> None:
    for text in ("It lacks it, yet it isn't absent.", "There's none; it never does, though it doesn't lack any."):
        assert stems(text) == []


@pytest.mark.parametrize(
    "text", ["лечение астмы", "θεραπεία του άσθματος", "천식의 치료", "ぜんそく 治療", "علاج الربو"]
)
def test_other_scripts_have_words_too(text: str) -> None:
    assert len(stems(text)) >= 2
    assert naming(text, [text, "dosage"]) == [1, 0]


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
    assert themes(texts, [1] * 5) == [[3, 4], [0, 1]]
    shares = naming("药物剂量", texts)
    assert shares[0] == 1 and 1 > shares[1] >= NAMES > shares[2] == shares[3] == 0
    assert alike("剂量", "药物剂量") and not alike("储存", "药物剂量")


# Themes


@settings(deadline=None)
@given(texts=SENTENCES | ANYTHING, data=st.data())
def test_a_theme_is_of_texts_that_share_a_word_and_no_text_has_two(texts: list[str], data: st.DataObject) -> None:
    n_samples = [data.draw(st.integers(1, 4)) for _ in texts]
    found = themes(texts, n_samples)
    placed = [place for theme in found for place in theme]
    assert len(set(placed)) == len(placed)
    sizes = [sum(n_samples[place] for place in theme) for theme in found]
    recurring = any(size > 1 for size in sizes)
    assert not recurring or (min(sizes) > 1 and sizes == sorted(sizes, reverse=True))
    for theme in found:
        assert theme == sorted(theme) and set.intersection(*(set(stems(texts[place])) for place in theme))
    left = [stems(text) for place, text in enumerate(texts) if place not in placed]
    words = [word for held in left for word in set(held)]
    assert len(set(words)) == len(words), "what is left shares nothing"
    assert recurring or placed == [place for place, text in enumerate(texts) if stems(text)]
    assert themes(texts, n_samples) == found


def test_the_word_of_most_samples_makes_the_first_theme() -> None:
    texts = ["dosage tablets", "Dosages!", "tablets storage", "storage", "allergy", "the dosage", ""]
    assert themes(texts, [1] * 7) == [[0, 1, 5], [2, 3]]
    assert themes(texts, [1, 1, 9, 1, 1, 1, 1]) == [[2, 3], [0, 1, 5]], "storage and tablets are equal: the alphabet"
    assert themes(texts, [1, 1, 1, 1, 2, 1, 1]) == [[0, 1, 5], [4], [2, 3]], "a text of two samples recurs"


def test_where_nothing_recurs_each_text_is_a_theme() -> None:
    assert themes(["dosage", "", "storage", "the information"], [1] * 4) == [[0], [2]]
    assert themes([], []) == themes(["", "and"], [1, 1]) == []


@pytest.mark.parametrize(
    ("shared", "n_words", "n_known"),
    [("", 10, 0), ("Lacks the dosage of tablets for storage.", 10, 0), ("", 15, 60), ("", 15, 3000)],
    ids=["nothing shared", "a beginning shared", "few words", "many words"],
)
def test_twenty_thousand_texts_take_seconds(shared: str, n_words: int, n_known: int) -> None:
    made = random.Random(0)

    def word() -> str:
        return "".join(made.choices("abcdefghijklmnopqrstuvwxyz", k=7))

    known = [word() for _ in range(n_known)]
    texts = [
        " ".join([shared, *(made.choice(known) if known else word() for _ in range(n_words))]) for _ in range(20_000)
    ]
    started = time.perf_counter()
    found = themes(texts, [1] * len(texts))
    assert time.perf_counter() - started < 20
    assert not known or sum(map(len, found)) > 19_000
    assert not shared or found == [list(range(20_000))]


# Parts


@pytest.mark.parametrize(
    ("about", "lacks"),
    [
        ("It is about tyres, ", "not about brakes."),
        ("It tells of tyres ", "but of no brakes."),
        ("It is about tyres. It ", "lacks brakes."),
        ("Tyres ", "without brakes"),
        ("It is about knots, ", "and it doesn't tell of sails."),
        ("It is about knots, ", "and it doesn’t tell of sails."),
        ("Tyres, ", "NOT brakes"),
        ("It is about tyres ", "and does not tell of brakes."),
        ("It is about tyres", "; brakes are absent."),
        ("It is about tyres, ", "while brakes do not appear in it."),
        ("It is about tyres", "; brakes aren't told of."),
        ("It is about tyres. ", "Nothing is told of brakes."),
        ("It is about tablets", "; 2.5 mg are not told of."),
        ("", "It is not about brakes."),
        ("", "No brakes are in it."),
    ],
)
def test_a_remark_parts_at_its_first_denial(about: str, lacks: str) -> None:
    assert parts(about + lacks) == (about, lacks)


@pytest.mark.parametrize("remark", ["", "It is about nowhere notable.", "Knots of Norway, butter and yetis.", "轮胎"])
def test_a_remark_that_denies_nothing_is_whole_in_both_parts(remark: str) -> None:
    assert parts(remark) == (remark, remark)


@given(remark=st.text(max_size=40) | st.lists(st.sampled_from([*WORDS, "not", "no", ","])).map(" ".join))
def test_nothing_of_a_remark_is_lost(remark: str) -> None:
    about, lacks = parts(remark)
    assert about + lacks == remark or about == lacks == remark


# Names


@settings(deadline=None)
@given(name=st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join) | st.text(max_size=20), texts=SENTENCES)
def test_how_much_of_a_name_a_text_holds_is_a_share(name: str, texts: list[str]) -> None:
    shares = naming(name, [*texts, name, f"Dosage {name} storage"])
    wanted = set(stems(name))
    assert shares[-2:] == ([1, 1] if wanted else [0, 0])
    for share, text in zip(shares, texts, strict=False):
        assert share == (len(wanted & set(stems(text))) / len(wanted) if wanted else 0)


def test_half_of_a_names_words_name_the_thing() -> None:
    shares = naming("dosage of tablets", ["Dosages?", "tablet", "storage", "tablets, dosage"])
    assert shares == [0.5, 0.5, 0, 1] and NAMES == 0.5
    assert naming("dosage dosage tablets", ["dosage"]) == [0.5], "a word counts once"


def test_a_name_of_common_words_is_held_by_none() -> None:
    assert naming("the information", ["the information"]) == [0]
    assert naming("", ["dosage"]) == [0]
    assert naming("dosage", []) == []


def test_names_are_alike_if_one_holds_the_other() -> None:
    assert alike("dosage of tablets", "Dosages") and alike("Dosages", "dosage of tablets")
    assert not alike("dosage of tablets", "dosage in pregnancy")
    assert not alike("", "dosage") and not alike("the", "the")
