"""Near-duplicates: what a new sample repeats of the dataset, of a held-out file or of another new sample.

Texts are compared by the share of words that both have in the same order (rapidfuzz's normalised Indel similarity over
lists of words), in small letters and without differences of space and punctuation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .terms import Sample

AT = 0.9
"""The similarity from which two texts are near-duplicates."""

SHORT = 80
"""Characters below which an output alone tells nothing: many rows may rightly be answered "yes"."""

FEW = 8
"""Words below which a text is a near-duplicate only of its equal: one word of seven changes what is said."""

_SHORT_INPUT = 20
_SIGNS = 0x110000
_WORD = re.compile(r"[\u0E00-\u0EFF\u3040-\u30FF\u3400-\u9FFF]|[^\W\u0E00-\u0EFF\u3040-\u30FF\u3400-\u9FFF]+")
"""A run of letters and digits; a single sign in scripts that put no space between words."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Of what a sample is a near-duplicate: where that stands, its id, which part is alike, and how much, in [0, 1]."""

    of: str
    id: str
    part: str
    similarity: float


class Known:
    """Samples that new ones must not repeat."""

    def __init__(self, at: float = AT) -> None:
        self._at = at
        self._ids: list[tuple[str, str]] = []
        self._signs: dict[str, int] = {}
        self._equal: dict[str, dict[str, int]] = {"sample": {}, "output": {}, "input": {}}
        self._long: dict[str, list[str | None]] = {"sample": [], "output": [], "input": []}

    def add(self, of: str, samples: Iterable[Sample], *, inputs: bool = False) -> None:
        """Nothing; these samples are known from now on.

        With `inputs` their questions may not be asked again either, as for a held-out file; inputs that stand more
        than once among them are taken for instructions and may.
        """
        asked: Counter[str] = Counter()
        if inputs:
            samples = list(samples)
            asked = Counter(" ".join(_words(sample.input)) for sample in samples)
        for sample in samples:
            for part, words in _parts(sample).items():
                text = " ".join(words)
                if part == "input" and (asked[text] != 1 or len(text) < _SHORT_INPUT):
                    text = ""
                if text:
                    self._equal[part].setdefault(text, len(self._ids))
                self._long[part].append(self._coded(words) if text and len(words) >= FEW else None)
            self._ids.append((of, sample.id))

    def like(self, sample: Sample) -> Likeness | None:
        """The known sample that this one repeats, or None: as a whole, in its output, or in a held-out input."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        for part, words in _parts(sample).items():
            place, similarity = self._equal[part].get(" ".join(words)), 1.0
            if place is None and len(words) >= FEW:
                found = process.extractOne(
                    self._coded(words), self._long[part], scorer=Indel.normalized_similarity, score_cutoff=self._at
                )
                if found:
                    _, similarity, place = found
            if place is not None:
                return Likeness(*self._ids[place], part, similarity)
        return None

    def _coded(self, words: Iterable[str]) -> str:
        """A text with one character for each word: to compare these is to compare lists of words, only faster.

        Words share a character only where more than a million different ones are known.
        """
        return "".join(chr(self._signs.setdefault(word, len(self._signs)) % _SIGNS) for word in words)


def _parts(sample: Sample) -> dict[str, list[str]]:
    """The words of what is compared: of the whole, of an output that is not short, of the input."""
    asked, said = _words(sample.input), _words(sample.output)
    return {"sample": asked + said, "output": said if len(" ".join(said)) >= SHORT else [], "input": asked}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
