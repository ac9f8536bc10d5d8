"""Texts are made alike as Unicode says, and however long their runs of marks are, in no time."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local import duplicates, grouping
from goalcover_local.terms import Sample
from goalcover_local.words import folded


def plain(text: str, without: tuple[str, ...]) -> str:
    """What is meant, with no heed of time."""
    whole = unicodedata.normalize("NFKC", text).casefold()
    return "".join(each for each in whole if not unicodedata.category(each).startswith(without))


@given(st.text(max_size=30), st.sampled_from([("M",), ("Mn", "Cf"), ("Zs",)]))
def test_a_text_is_folded_as_unicode_says(text: str, without: tuple[str, ...]) -> None:
    assert folded(text, without) == (text.casefold() if text.isascii() else plain(text, without))


@given(st.text(st.characters(categories=["Mn", "Mc", "Me", "Lm"]), max_size=30))
def test_so_are_marks_of_every_kind(text: str) -> None:
    assert folded(f"é{text}a", ("Mn",)) == plain(f"é{text}a", ("Mn",))


def test_both_ways_to_write_a_letter_are_one() -> None:
    assert folded("cafe\u0301", ("M",)) == folded("CAFÉ", ("M",)) == "café"


RUNS = ["a" + "\u0301\u0316" * 200_000, "カ" + "\uff9e\u0334" * 200_000, "\u0f73\u0f71" * 200_000]


@pytest.mark.parametrize("run", RUNS)
def test_long_runs_of_marks_take_no_time(run: str) -> None:
    started = time.process_time()
    folded(run, ("M",))
    grouping.stems(run)
    duplicates.Known().like(Sample("s", run, run))
    assert time.process_time() - started < 5, "sorting one of these runs takes minutes"
