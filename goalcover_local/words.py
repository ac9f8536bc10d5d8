"""Texts made alike before they are compared, in time in proportion to their length, whatever they hold."""

from __future__ import annotations

import re
import unicodedata

_MARKS = 30
"""The longest run of marks that is kept: no writing has more (Unicode Standard Annex 15, "Stream-Safe Text Format")."""


def folded(text: str, without: tuple[str, ...]) -> str:
    """The text in small letters, in Unicode's compatible form (NFKC), without the categories that begin so.

    Of a longer run of marks the first 30 are kept: to sort a run, as Unicode wants it, takes time in proportion to the
    square of its length.
    """
    if text.isascii():
        return text.casefold()
    plain = unicodedata.normalize("NFKC", _bounded(text)).casefold()
    unwanted = [ord(each) for each in set(plain) if unicodedata.category(each).startswith(without)]
    return plain.translate(dict.fromkeys(unwanted))


def _bounded(text: str) -> str:
    """The text with at most so many characters in a row that sort among each other."""
    sorts = "".join(each for each in sorted(set(text)) if unicodedata.combining(unicodedata.normalize("NFKD", each)[0]))
    return re.sub(f"([{sorts}]{{{_MARKS}}})[{sorts}]+", r"\1", text) if sorts else text
