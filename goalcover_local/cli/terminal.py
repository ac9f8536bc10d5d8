"""Words as a terminal may show them: nothing in them steers it, and counts are words."""

from __future__ import annotations

import unicodedata

import click

_STEERING = ("Cc", "Cs")
"""Unicode's categories of control characters and of surrogates."""

_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""What embeds, isolates or overrides the direction of a text, so that it reads as another."""


def plain(text: str) -> str:
    """A text without what steers a terminal, turns its direction or fits into no file; what joins letters stays."""
    shown = (each for each in click.unstyle(text) if each not in _TURNING)
    return "".join(each for each in shown if each == "\n" or unicodedata.category(each) not in _STEERING)


def one_line(text: str) -> str:
    """A text as one line without what steers a terminal: a stranger's file may have a part in what an error says."""
    return " ".join(plain(text).split("\n"))


def counted(n: int, noun: str) -> str:
    """How many there are of something, in words: "1 violation", "2 violations"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
