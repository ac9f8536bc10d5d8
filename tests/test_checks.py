"""Programmatic checks: each value is right for what it looks at, graded, and safe on any text."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.errors import QuestionError
from goalcover_local.finetune.checks import KINDS, check, is_findable

SOURCE = "The central bank raised its key rate by a quarter point in March, and lending slowed within weeks."
ANYTHING = st.text(max_size=300) | st.text(alphabet="-*•–1.) \n\t'ab%٣用ー\u0301\u200b", max_size=300)
LIMITS = st.integers(0, 9)


def value(kind: str, response: str, source: str = SOURCE, **limits: Any) -> float:
    return check(kind, response, source, **limits)


def bullets(response: str, least: int = 1, most: int = 0) -> float:
    return value("bullets", response, least=least, most=most)


def words(n: int) -> str:
    return " ".join(f"word{k}" for k in range(n))


@pytest.mark.parametrize("kind", KINDS)
@given(response=ANYTHING, source=ANYTHING, least=LIMITS, most=LIMITS, terms=st.lists(ANYTHING, max_size=3))
def test_any_text_gets_a_share(kind: str, response: str, source: str, least: int, most: int, terms: list[str]) -> None:
    assert 0 <= check(kind, response, source, least=least, most=most, terms=terms) <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("response", ["", " \n\t", "…", "-\n- \n•", "\u0301\u200b", "***"])
def test_a_response_without_words_gets_nothing(kind: str, response: str) -> None:
    assert value(kind, response, least=0, most=5, terms=("rate",)) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0300\u0316" * 500_000,
        "- a\n" * 250_000,
        " " * 1_000_000,
        "a'" * 500_000,
        "1." * 500_000,
        "\ufdfa" * 300_000,
    ],
    ids=["marks", "bullets", "spaces", "apostrophes", "numbers", "ligatures"],
)
def test_a_megabyte_takes_seconds(kind: str, text: str) -> None:
    begun = time.process_time()
    check(kind, text, text, least=3, most=5, terms=("a|b c", "1"))
    assert time.process_time() - begun < 10


def test_an_unknown_check_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(QuestionError, match="bullets, words, mentions, own-words, no-repetition"):
        value("rhymes", "text")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_needs_only_what_it_takes_and_takes_what_a_check_knows(kind: str) -> None:
    takes = KINDS[kind].takes
    assert set(KINDS[kind].needs) <= set(takes) <= {"least", "most", "terms"}
    assert all(f"`{key}`" in KINDS[kind].expects for key in takes), "what it takes is told"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_does_not_take_changes_nothing(kind: str) -> None:
    given: dict[str, Any] = {"least": 4, "most": 5, "terms": ("bank", "jobs")}
    response = "- The bank raised its rate in March, and jobs became fewer soon after it\n- So it goes"
    taken = {key: value for key, value in given.items() if key in KINDS[kind].takes}
    assert value(kind, response, **given) == value(kind, response, **taken)


# Bullets


@pytest.mark.parametrize(
    "response",
    [
        "- one\n- two\n- three",
        "* one\n\n* two\n\n* three",
        "•one\n• two\n  •\tthree",
        "– one\n– two\n– three",
        "1. one\n2. two\n3. three",
        "1) one\n 2) two\n10) three",
        "-One\n-Two\n3.Three",
        "- **One**: a\n- two\nwhich goes on\n- three\n\n  and on",
        "－ one\n－ two\n٣. three",
    ],
)
def test_signs_of_bullet_points(response: str) -> None:
    assert bullets(response, 3, 3) == 1
    assert bullets(response, 6) == 0.5


@pytest.mark.parametrize(
    "response",
    [
        "-5% in a year",
        "**Bold** words",
        "*slanted* words",
        "2023. A year",
        "3.5 million",
        "---\nline",
        "a - b",
        "(1) one",
    ],
)
def test_what_only_looks_like_a_bullet_point(response: str) -> None:
    assert bullets(response) == 0


@pytest.mark.parametrize(("n", "expected"), [(1, 1 / 3), (2, 2 / 3), (3, 1), (4, 1), (5, 1), (6, 5 / 6), (10, 0.5)])
def test_closeness_to_the_number_asked(n: int, expected: float) -> None:
    assert bullets("\n".join(f"- point {k}" for k in range(n)), 3, 5) == pytest.approx(expected)


def test_words_outside_bullet_points_cost_their_share() -> None:
    assert bullets("Here they are\n- one\n- two\n- three", 3, 5) == pytest.approx(3 / 6)
    assert bullets("- one\n- two\n- three\n\nThat is all", 3, 5) == pytest.approx(3 / 6)
    assert bullets("Rates rose. Lending slowed. Prices fell.", 3, 5) == 0


def test_an_empty_bullet_point_is_none() -> None:
    assert bullets("- one\n-\n- …\n- two", 4) == 0.5


# Words


@given(n=st.integers(1, 60), least=st.integers(1, 30), more=st.integers(0, 20))
def test_length_is_graded_by_its_distance_from_the_range(n: int, least: int, more: int) -> None:
    most = least + more
    found = value("words", words(n), least=least, most=most)
    if n < least:
        assert found == n / least > value("words", words(n - 1), least=least, most=most)
    elif n > most:
        assert found == most / n > value("words", words(n + 1), least=least, most=most)
    else:
        assert found == 1


@pytest.mark.parametrize(
    ("response", "n"),
    [
        ("It isn't; it’s 3.5% of 1,200.", 6),
        ("well-known, e\u0301te\u0301 été", 4),
        ("हिन्दी में उत्तर", 3),
        ("لا أعرف", 2),
        ("한국어 문장", 2),
        ("金利は上昇", 5),
        ("snake_case", 2),
    ],
)
def test_words_of_other_scripts(response: str, n: int) -> None:
    assert value("words", response, least=n, most=n) == 1


def test_no_limit_is_no_limit() -> None:
    assert value("words", words(500)) == value("words", words(500), least=9) == value("words", "one", most=9) == 1


# Mentions


@pytest.mark.parametrize(
    ("term", "response", "found"),
    [
        ("rate|yield", "The YIELD rose.", True),
        ("rate|yield", "Rates rose in a crate.", False),
        ("interest rate", "The interest\n rate rose.", True),
        ("interest rate", "Interest in the rate rose.", False),
        ("c++", "Written in C++.", True),
        ("c++", "Written in C.", False),
        ("%", "5% more", True),
        ("r.te", "The rate rose.", False),
        ("S&P 500", "the s&p 500 fell", True),
        ("利率", "央行提高利率。", True),
        ("café|", "CAFE\u0301 and tea", True),
        ("|", "Anything.", False),
    ],
)
def test_a_term_is_mentioned_as_whole_words(term: str, response: str, found: bool) -> None:
    assert value("mentions", response, terms=(term,)) == found


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("rate", True), ("利率|", True), ("%", True), ("c++", True), ("€", True), ("q&a", True),
        ("", False), (" ", False), ("|", False), (" | ", False), ("…", False), ("-|.", False), ("\u0301\u200b", False),
    ],
)  # fmt: skip
def test_a_term_that_says_nothing_is_known(term: str, found: bool) -> None:
    assert is_findable(term) == found
    if found:
        assert value("mentions", f"Of this: {term.strip('|')} as it is", terms=(term,)) == 1


def test_mentions_are_counted_up_to_the_number_asked() -> None:
    terms = ("rate", "inflation", "lending|credit", "jobs")
    assert value("mentions", "rate rate", terms=terms, least=2) == 0.5
    assert value("mentions", "rate, credit", terms=terms, least=2) == 1
    assert value("mentions", "rate, credit, jobs", terms=terms, least=2) == 1
    assert value("mentions", "rate, credit, jobs", terms=terms) == 0.75


# Copies and repetitions


def test_copied_runs_are_counted_whatever_the_case_and_signs() -> None:
    assert value("own-words", "Borrowing became dearer in spring, so fewer loans were made.") == 1
    assert value("own-words", SOURCE) == 0
    assert value("own-words", "THE CENTRAL BANK raised: its key... rate!") == pytest.approx(0)
    assert value("own-words", "The central bank raised its key rate and people noticed") == pytest.approx(3 / 5)


def test_a_short_response_is_its_only_run() -> None:
    assert value("own-words", "The central bank") == 0
    assert value("own-words", "A central bank") == 1


def test_order_of_words_makes_the_copy() -> None:
    assert value("own-words", " ".join(reversed(SOURCE.split()))) == 1


def test_what_is_said_again_is_counted() -> None:
    assert value("no-repetition", words(30)) == 1
    assert value("no-repetition", "rate rate rate") == 1
    assert value("no-repetition", "the rate rose " * 10) == pytest.approx(3 / 28)
    assert value("no-repetition", "a b c d a b c") == pytest.approx(4 / 5)


@given(n=st.integers(4, 40), again=st.integers(1, 5))
def test_repetition_costs_more_the_more_there_is(n: int, again: int) -> None:
    fewer, more = (" ".join([words(n)] * times) for times in (again, again + 1))
    assert value("no-repetition", more) < value("no-repetition", fewer)
