"""Near-duplicates: copies are found however lightly they were edited, and what merely resembles is let be."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Indel
from writer import sentence

from goalcover_local.duplicates import AT, FEW, SHORT, Known
from goalcover_local.terms import Sample

QUESTION = "How is the dough of a rye bread proved overnight in a cold kitchen?"
ANSWER = (
    "Cover the bowl with a damp cloth, set it on the lowest shelf of the fridge, and take it out an hour before "
    "baking. It has then doubled, smells a little sour, and holds the mark of a finger."
)
ROW = Sample("bakery-17", QUESTION, ANSWER, "rows.jsonl", 17)


def sample(asked: str, said: str, name: str = "new") -> Sample:
    return Sample(name, asked, said)


@pytest.fixture
def known() -> Known:
    found = Known()
    others = [Sample(f"other-{n}", f"{sentence(n, n=9)}?", sentence(-n - 1, n=30)) for n in range(20)]
    found.add("row", [*others[:10], ROW, *others[10:]])
    return found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (QUESTION, ANSWER),
        (QUESTION.upper(), ANSWER.upper()),
        (f"  {QUESTION}\n", ANSWER.replace(" ", "\n  ")),
        (QUESTION.replace("?", ""), ANSWER.replace(",", ";").replace(".", "!")),
        (QUESTION.replace("cold", "cool"), ANSWER.replace("damp", "wet").replace("finger", "thumb")),
        (QUESTION.removeprefix("How is the "), ANSWER.replace("a little ", "")),
    ],
    ids=["verbatim", "capitals", "space", "punctuation", "words", "cuts"],
)
def test_a_copy_is_found_and_named_however_lightly_it_was_edited(known: Known, asked: str, said: str) -> None:
    found = known.like(sample(asked, said))
    assert found is not None
    assert (found.of, found.id, found.part) == ("row", "bakery-17", "sample")
    assert AT <= found.similarity <= 1


def test_a_verbatim_copy_is_alike_to_the_last_sign(known: Known) -> None:
    found = known.like(sample(QUESTION, ANSWER))
    assert found is not None and found.similarity == 1


def test_the_same_output_under_another_question_is_found(known: Known) -> None:
    found = known.like(sample("What did grandmother write on the card in the red tin about her loaf?", ANSWER))
    assert found is not None and (found.id, found.part) == ("bakery-17", "output")


def test_a_split_of_input_and_output_elsewhere_does_not_hide_a_copy(known: Known) -> None:
    """As a row of a text-only file: the whole text is one part."""
    found = known.like(sample("", f"{QUESTION} {ANSWER}"))
    assert found is not None and found.id == "bakery-17"


def test_what_is_new_is_like_nothing(known: Known) -> None:
    assert known.like(sample("Which knot joins two ropes?", "The reef knot, but not for a load that moves.")) is None
    assert known.like(sample(QUESTION, "Leave it out of doors beneath a stone, and eat it with a spoon. " * 3)) is None


@pytest.mark.parametrize(
    ("row", "new"),
    [
        (("What is 12 times 7, as a whole number?", "84"), ("What is 13 times 9, as a whole number?", "117")),
        (
            ("A train travels at 60 km/h for 3 hours. How far does it go?", "60 km/h for 3 hours make 180 kilometres."),
            ("A train travels at 80 km/h for 5 hours. How far does it go?", "80 km/h for 5 hours make 400 kilometres."),
        ),
        (("What are the symptoms of Fabry disease?", "Pain."), ("What are the symptoms of Farber disease?", "Lumps.")),
    ],
    ids=["sum", "story", "name"],
)
def test_one_form_with_other_contents_is_no_copy(row: tuple[str, str], new: tuple[str, str]) -> None:
    known = Known()
    known.add("row", [Sample("r", *row)])
    assert known.like(sample(*new)) is None


@pytest.mark.parametrize("other", ["Lung Cancer", "Colon Cancer", "Kidney Stones"])
def test_a_question_in_the_form_of_a_held_out_one_may_be_asked(other: str) -> None:
    known = Known()
    known.add("held-out row", [Sample("h", "What are the treatments for Kidney Cancer?", "Surgery.")], inputs=True)
    assert known.like(sample(f"What are the treatments for {other}?", "It depends on the stage.")) is None


@pytest.mark.parametrize(("n", "is_found"), [(FEW - 1, False), (FEW, True), (FEW + 10, True)])
def test_few_words_are_like_their_equals_alone(n: int, is_found: bool) -> None:
    """With a looser measure than ours, one word in seven would be within it."""
    asked = [f"word{place}" for place in range(n)]
    known = Known(0.8)
    known.add("row", [Sample("r", " ".join(asked), "")])
    assert known.like(sample(" ".join(asked).upper(), "")) is not None
    assert (known.like(sample(" ".join([*asked[:-1], "other"]), "")) is not None) == is_found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=FEW, max_size=20), st.lists(st.sampled_from("abc"), max_size=20))
def test_the_similarity_is_that_of_the_lists_of_words(row: list[str], new: list[str]) -> None:
    known = Known(0.6)
    known.add("row", [Sample("r", " ".join(row), "")])
    found = known.like(sample(" ".join(new), ""))
    similarity = Indel.normalized_similarity(row, new)
    assert (found is not None) == (len(new) >= FEW and similarity >= 0.6)
    assert found is None or found.similarity == pytest.approx(similarity)


def test_nothing_is_like_what_nothing_is_known_of() -> None:
    empty = Known()
    empty.add("row", [])
    assert empty.like(ROW) is None


@pytest.mark.parametrize("said", ["yes", "No.", "B", "", "x" * (SHORT - 1)])
def test_short_outputs_are_no_duplicates_by_themselves(said: str) -> None:
    known = Known()
    known.add("row", [Sample("r1", "Does rye rise as high as wheat when it is baked in a tin?", said)])
    assert known.like(sample("Is it true that a knot weakens the rope that it is tied in?", said)) is None


def test_outputs_that_are_long_enough_are() -> None:
    known = Known()
    known.add("row", [Sample("r1", "Does rye rise?", "x" * SHORT)])
    assert known.like(sample("Is a rope weakened by its knot?", "x" * SHORT)) is not None


def test_a_question_of_the_held_out_file_may_not_be_asked_again() -> None:
    known = Known()
    known.add("held-out row", [ROW], inputs=True)
    found = known.like(sample(QUESTION.replace("rye", "rye-"), "Leave it alone."))
    assert found is not None
    assert (found.of, found.id, found.part) == ("held-out row", "bakery-17", "input")


def test_a_question_of_the_dataset_may_be_asked_again_with_another_answer(known: Known) -> None:
    assert known.like(sample(QUESTION, "Leave it alone, somewhere out of the draught.")) is None


def test_instructions_that_the_held_out_file_repeats_may_be_given_again() -> None:
    instruction = "Classify the sentiment of the review that follows."
    known = Known()
    held_out = [Sample(f"h{n}", instruction, sentence(n, n=20)) for n in range(5)]
    known.add("held-out row", [*held_out, ROW], inputs=True)
    assert known.like(sample(instruction, sentence("new", n=20))) is None
    assert known.like(sample(instruction.upper(), sentence("newer", n=20))) is None
    assert known.like(sample(QUESTION, "Leave it alone.")) is not None, "the others are still asked once"


@pytest.mark.parametrize(
    ("n", "others", "is_found"), [(1, 0, True), (4, 0, True), (5, 0, False), (5, 95, False), (5, 96, True)]
)
def test_a_held_out_question_is_an_instruction_where_many_different_rows_share_it(
    n: int, others: int, is_found: bool
) -> None:
    known = Known()
    held_out = [Sample(f"h{k}", QUESTION, sentence("said", k, n=20)) for k in range(n)]
    held_out += [Sample(f"o{k}", f"{sentence('asked', k, n=12)}?", sentence(k, n=20)) for k in range(others)]
    known.add("held-out row", held_out * 2, inputs=True)
    assert (known.like(sample(QUESTION, "Leave it alone.")) is not None) == is_found


GERMAN = (
    "Wie wird eine schwere Hypoglykämie bei älteren Patienten während der Nacht zu Hause überwacht?",
    "Führen Sie häufigere Messungen durch, erklären Sie Angehörigen die Gefährdung, prüfen Sie Übelkeit und Schwäche.",
)


@pytest.mark.parametrize(
    "how",
    [
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: " ".join(word[:2] + "\u00ad" + word[2:] for word in text.split()),
        lambda text: " ".join(word[:2] + "\u200c" + word[2:] for word in text.split()),
        lambda text: "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text),
        lambda text: text.replace("ss", "ß"),
    ],
    ids=["composed otherwise", "soft hyphens", "joiners", "full width", "sharp s"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_looks_alike_is_alike(how: Callable[[str], str], whole: bool) -> None:
    known = Known()
    known.add("held-out row", [Sample("h", *GERMAN)], inputs=True)
    found = known.like(sample(how(GERMAN[0]), how(GERMAN[1]) if whole else "Fragen Sie den Arzt."))
    assert found is not None and (found.part, found.similarity) == ("sample" if whole else "input", 1)


LOOSE = " ".join(sentence("loose", n, n=40) for n in range(3))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("Read this.", f"{LOOSE} {QUESTION} {ANSWER} {LOOSE}"),
        (f"{LOOSE} {QUESTION} {ANSWER}", "Learn it."),
        (f"{LOOSE} {QUESTION}", f"{ANSWER} {LOOSE}"),
        ("Read this.", f"{LOOSE} {QUESTION} {ANSWER.replace('little', 'trifle')}"),
    ],
    ids=["in the output", "in the input", "across both", "edited"],
)
def test_a_held_out_row_that_stands_within_a_longer_text_is_found(asked: str, said: str) -> None:
    known = Known()
    known.add("held-out row", [Sample("other", sentence(1), sentence(2)), ROW], inputs=True)
    found = known.like(sample(asked, said))
    assert found is not None and (found.of, found.id, found.part) == ("held-out row", "bakery-17", "excerpt")
    assert 0.7 <= found.similarity <= 1
    known = Known()
    known.add("row", [ROW])
    assert known.like(sample(asked, said)) is None, "rows of the data may be told of"


@pytest.mark.parametrize(("n", "is_found"), [(11, False), (12, True)])
def test_held_out_rows_of_few_words_are_not_looked_for_in_longer_texts(n: int, is_found: bool) -> None:
    short = " ".join(f"word{place}" for place in range(n))
    known = Known()
    known.add("held-out row", [Sample("h", short, "")], inputs=True)
    assert (known.like(sample(LOOSE, f"{LOOSE} {short} {LOOSE}")) is not None) == is_found


@pytest.mark.parametrize(("n", "is_found"), [(30, False), (35, True)])
def test_so_much_of_a_held_out_row_must_stand_there(n: int, is_found: bool) -> None:
    """Of 40 runs of words, in a row of 47, the first n + 7 words hold n: at least 28 are 70%."""
    row = [f"word{place}" for place in range(47)]
    known = Known()
    known.add("held-out row", [Sample("h", " ".join(row), "")], inputs=True)
    found = known.like(sample(LOOSE, " ".join([*row[:n], LOOSE])))
    assert (found is not None) == is_found


def test_a_long_instruction_that_held_out_rows_share_is_no_excerpt_of_one() -> None:
    instruction = f"{sentence('instruction', n=30)} Is it so?"
    known = Known()
    known.add("held-out row", [Sample(f"h{n}", instruction, sentence(n, n=3)) for n in range(6)], inputs=True)
    assert known.like(sample(instruction, "Quite so, I should think.")) is None


def test_a_short_question_of_the_held_out_file_may_be_asked_again() -> None:
    known = Known()
    known.add("held-out row", [Sample("h", "Why?", ANSWER)], inputs=True)
    assert known.like(sample("Why?", "Because it is so.")) is None


def test_what_was_added_later_is_known_too(known: Known) -> None:
    new = sample("Which knot joins two ropes of one thickness?", "The reef knot, but not for a load that moves.", "w1")
    assert known.like(new) is None
    known.add("another sample written", [new])
    found = known.like(new)
    assert found is not None and (found.of, found.id) == ("another sample written", "w1")


def test_a_stricter_or_looser_measure() -> None:
    edited = sample(QUESTION.replace("rye bread", "white loaf"), ANSWER.replace("lowest shelf", "top board"))
    for at, is_found in ((1.0, False), (0.5, True)):
        known = Known(at)
        known.add("row", [ROW])
        assert (known.like(edited) is not None) == is_found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "?!…",
        "\ud800 half a pair \udfff",
        "\x1b[31mred\x07\x00",
        "😀🏳️‍🌈" * 40,
        "日本語の質問です。" * 20,
        "ab " * 20_000,
    ],
    ids=["empty", "space", "signs", "surrogates", "controls", "emoji", "no spaces", "50k"],
)
def test_texts_that_are_hardly_texts_break_nothing(known: Known, text: str) -> None:
    known.like(sample(text, text))
    known.add("row", [Sample("odd", text, text)])
    found = known.like(sample(text, text))
    assert found is None or found.similarity >= AT


@pytest.mark.parametrize("text", ["日本語の質問です。" * 20, "Привет, как дела? " * 10, "ab " * 20_000])
def test_copies_are_found_in_any_script(text: str) -> None:
    known = Known()
    known.add("row", [Sample("odd", text, text)])
    assert known.like(sample(text, text)) is not None


@pytest.mark.parametrize(
    "text", ["パン生地を一晩冷たい台所で発酵させる方法を教えてください", "วิธีหมักแป้งขนมปังข้ามคืนในครัวที่เย็น"]
)
def test_lightly_edited_copies_are_found_where_no_space_parts_words(text: str) -> None:
    known = Known()
    known.add("row", [Sample("r", text, "")])
    assert known.like(sample(text[:-1], "")) is not None
    assert known.like(sample(text[::-1], "")) is None


def test_texts_of_signs_alone_are_no_copies_of_each_other() -> None:
    """They hold no word, so nothing is left to compare."""
    known = Known()
    known.add("row", [Sample("r", "?", "!"), Sample("s", "", "")])
    assert known.like(sample("…", "—")) is None


@settings(max_examples=50, deadline=None)
@given(asked=st.text(max_size=60), said=st.text(max_size=200))
def test_every_sample_with_a_word_is_like_itself(asked: str, said: str) -> None:
    known = Known()
    known.add("row", [Sample("itself", asked, said)])
    found = known.like(sample(asked, said))
    shown = unicodedata.normalize("NFKC", f"{asked} {said}").casefold()
    assert (found is not None) == any(each.isalnum() or each == "_" for each in shown)
