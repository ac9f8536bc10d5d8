"""What a program can tell of a response: bullets, length, terms, copying, repetition. Pure functions, no model.

Each value is graded between 0 and 1, so that a better response always earns a little more. Texts are compared in small
letters and in Unicode's compatible form, without marks; in scripts that put no space between words, each sign is one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import QuestionError

_COPIED = 6
_REPEATED = 3

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u9fff\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, kana, bopomofo and Han: scripts that put no space between words."""
_LETTER = rf"[^\W_{_UNSPACED}]"
_WORD = re.compile(rf"(?!_)(?=\w)[{_UNSPACED}]|{_LETTER}+(?:(?:'|(?<=\d)[.,](?=\d)){_LETTER}+)*")
"""A sign of a script without spaces, or letters and digits in a row: "isn't", "1,200" and "3.5" are one word each."""
_ENDS_WORD = re.compile(_LETTER)

_BULLET = re.compile(r"\s*(?:•|\*(?=\s|$)|(?:[-–]|\d{1,3}[.)])(?=\s|$|[^\W\d_]))")
"""What a bullet point begins with; not "-5%", "**bold**", "2023." or "3.5", with which a sentence may begin."""


class Kind(NamedTuple):
    """A check: what a response is that gets 1, the keys that it takes, and those of which it needs one or more."""

    expects: str
    value: Callable[[str, str, int, int, Sequence[str]], float]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def check(kind: str, response: str, source: str, *, least: int = 0, most: int = 0, terms: Sequence[str] = ()) -> float:
    """What the response gets in one of `KINDS`, in [0, 1], whatever the text; 0 for one without words.

    `source` is the text it was written about. `least` and `most` are counts, 0 for no limit. Takes time in proportion
    to the texts' lengths. Raises QuestionError if there is no such check.
    """
    if kind not in KINDS:
        raise QuestionError(f"There is no check {kind!r}.", f"There are {', '.join(KINDS)}.")
    return KINDS[kind].value(_folded(response), source, least, most, terms)


def is_findable(term: str) -> bool:
    """Whether a text can mention a term: one of its alternatives has a letter, a digit or a sign such as % or +."""
    return any(
        each.isalnum() or each in "%&#@§" or unicodedata.category(each) in ("Sc", "Sm")
        for each in _folded(term).replace("|", "")
    )


def _bullets(response: str, source: str, least: int, most: int, terms: Sequence[str]) -> float:
    inside, outside = _bullet_words(response.splitlines())
    n_bullets, n_words = sum(map(bool, inside)), sum(inside) + outside
    return _closeness(n_bullets, least, most) * sum(inside) / n_words if n_words else 0.0


def _number_of_words(response: str, source: str, least: int, most: int, terms: Sequence[str]) -> float:
    n_words = len(_words(response))
    return _closeness(n_words, least, most) if n_words else 0.0


def _mentions(response: str, source: str, least: int, most: int, terms: Sequence[str]) -> float:
    if not _WORD.search(response):
        return 0.0
    text = " ".join(response.split())
    n_found = sum(any(_stands(each, text) for each in _folded(term).split("|")) for term in terms)
    return min(1.0, n_found / wanted) if (wanted := least or len(terms)) else 1.0


def _own_words(response: str, source: str, least: int, most: int, terms: Sequence[str]) -> float:
    words = _words(response)
    if not words:
        return 0.0
    size = min(_COPIED, len(words))
    runs = list(_runs(words, size))
    copied = set(runs).intersection(_runs(_words(_folded(source)), size))
    return 1 - sum(run in copied for run in runs) / len(runs)


def _no_repetition(response: str, source: str, least: int, most: int, terms: Sequence[str]) -> float:
    words = _words(response)
    if len(words) <= _REPEATED:
        return float(bool(words))
    runs = list(_runs(words, _REPEATED))
    return len(set(runs)) / len(runs)


KINDS: dict[str, Kind] = {
    "bullets": Kind(
        "The response is a list of `least` to `most` bullet points, and little else.",
        _bullets,
        takes=("least", "most"),
        needs=("least", "most"),
    ),
    "words": Kind(
        "The response has `least` to `most` words.", _number_of_words, takes=("least", "most"), needs=("least", "most")
    ),
    "mentions": Kind(
        "The response mentions `least` of the `terms`, or all; a term may list alternatives: rate|yield.",
        _mentions,
        takes=("least", "terms"),
        needs=("terms",),
    ),
    "own-words": Kind("The response does not copy runs of six words from its source.", _own_words),
    "no-repetition": Kind("The response does not say the same three words again.", _no_repetition),
}
"""Every check, and what `reward.toml` may and must say of it."""


def _closeness(n: int, least: int, most: int) -> float:
    """1 for a number within the limits, less the farther it is beyond them, 0 for none where one is wanted."""
    if n < least:
        return n / least
    return most / n if most and n > most else 1.0


def _bullet_words(lines: Iterable[str]) -> tuple[list[int], int]:
    """How many words each bullet point has, without its sign, and how many stand outside.

    A line without a sign belongs to the bullet point before it, unless a blank line parts them and it is not indented.
    """
    inside: list[int] = []
    outside = 0
    belongs = parted = False
    for line in lines:
        if not line.strip():
            parted = True
            continue
        if sign := _BULLET.match(line):
            inside.append(0)
            belongs = True
        else:
            belongs = belongs and (not parted or line[0].isspace())
        n_words = len(_words(line[sign.end() :] if sign else line))
        if belongs:
            inside[-1] += n_words
        else:
            outside += n_words
        parted = False
    return inside, outside


def _stands(term: str, text: str) -> bool:
    """Whether a term stands in a text as whole words; both are folded, and the text has single spaces."""
    plain = " ".join(term.split())
    if not plain:
        return False
    before = rf"(?<!{_LETTER})" if _ENDS_WORD.match(plain[0]) else ""
    after = rf"(?!{_LETTER})" if _ENDS_WORD.match(plain[-1]) else ""
    return re.search(before + re.escape(plain) + after, text) is not None


def _runs(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """Every so many words in a row."""
    return zip(*(words[start:] for start in range(size)), strict=False)


def _words(folded: str) -> list[str]:
    return _WORD.findall(folded)


def _folded(text: str) -> str:
    """The text in small letters, in Unicode's compatible form (NFKD), without marks and signs that are not seen.

    Marks go first: to sort a long row of them, as Unicode wants it, takes time in proportion to its square.
    """
    if text.isascii():
        return text.casefold()
    return _seen(unicodedata.normalize("NFKD", _seen(text)).casefold()).replace("’", "'")


def _seen(text: str) -> str:
    unseen = [
        ord(each) for each in set(text) if unicodedata.category(each)[0] == "M" or unicodedata.category(each) == "Cf"
    ]
    return text.translate(dict.fromkeys(unseen))
