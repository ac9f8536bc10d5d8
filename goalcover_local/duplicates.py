"""Near-duplicates: what a new sample repeats of the dataset, of a held-out file or of another new sample.

Texts are compared by the share of words that both have in the same order (rapidfuzz's normalised Indel similarity over
lists of words), in small letters, in Unicode's compatible form, and without differences of space and punctuation or
signs that are not seen. Of held-out rows, a part that stands anywhere in a longer text is found too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .terms import Sample
from .words import folded

AT = 0.9
"""The similarity from which two texts are near-duplicates."""

SHORT = 80
"""Characters below which an output alone tells nothing: many rows may rightly be answered "yes"."""

FEW = 8
"""Words below which a text is a near-duplicate only of its equal: one word of seven changes what is said."""

COMMON = 5, 0.05
"""In how many different held-out rows, and in what share of them, words are an instruction that may be given again."""

CONTAINED = 0.7
"""The share of a held-out row's runs of words from which a sample holds the row."""

_RUN = 8
_RUNS = 5
"""Words in a run, and the runs that a row must have to be looked for in longer texts: those of twelve words."""

_SHORT_INPUT = 20
_LITTLE = 1e-9
_NEARLY = 0.01
"""By how much rapidfuzz is asked for less than is wanted: at the very limit it misses some (3.14)."""
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
        self._runs: dict[str, list[int]] = {}
        self._n_runs: dict[int, int] = {}

    def add(self, of: str, samples: Iterable[Sample], *, inputs: bool = False) -> None:
        """Nothing; these samples are known from now on.

        With `inputs` they are a held-out file: their questions may not be asked again either, nor may they stand in a
        longer text. What many of them share (see `COMMON`) is an instruction and may be given again.
        """
        instructions: set[str] = set()
        if inputs:
            samples = list(samples)
            instructions = _instructions(samples)
            self._hold(samples)
        for sample in samples:
            for part, words in _parts(sample).items():
                text = " ".join(words)
                if part == "input" and (not inputs or text in instructions or len(text) < _SHORT_INPUT):
                    text = ""
                if text:
                    self._equal[part].setdefault(text, len(self._ids))
                self._long[part].append(self._coded(words) if text and len(words) >= FEW else None)
            self._ids.append((of, sample.id))

    def like(self, sample: Sample) -> Likeness | None:
        """The known sample that this one repeats, or None: as a whole, in its output, or as a held-out row does.

        That is in its input, or as an excerpt, whose similarity is the share of the held-out row that it holds.
        """
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        for part, words in _parts(sample).items():
            place, similarity = self._equal[part].get(" ".join(words)), 1.0
            if place is None and len(words) >= FEW:
                found = process.extractOne(
                    self._coded(words),
                    self._long[part],
                    scorer=Indel.normalized_similarity,
                    score_cutoff=self._at - _NEARLY,
                )
                if found and found[1] >= self._at - _LITTLE:
                    _, similarity, place = found
            if place is not None:
                return Likeness(*self._ids[place], part, similarity)
        return self._holding(sample)

    def _hold(self, samples: Sequence[Sample]) -> None:
        """Nothing; the runs of words that are these samples' own are known, for rows that have enough of them."""
        rows = {place: set(self._runs_of(sample)) for place, sample in enumerate(samples, len(self._ids))}
        different = {frozenset(runs) for runs in rows.values()}
        common = _common(Counter(run for runs in different for run in runs), len(different))
        for place, runs in rows.items():
            own = runs - common
            if len(own) >= _RUNS:
                self._n_runs[place] = len(own)
                for run in own:
                    self._runs.setdefault(run, []).append(place)

    def _holding(self, sample: Sample) -> Likeness | None:
        """The held-out row most of which stands in this sample, if one does."""
        if not self._runs:
            return None
        held = Counter(place for run in set(self._runs_of(sample)) for place in self._runs.get(run, ()))
        shares = [(n / self._n_runs[place], -place) for place, n in held.items()]
        share, place = max(shares, default=(0.0, 0))
        return Likeness(*self._ids[-place], "excerpt", share) if share >= CONTAINED - _LITTLE else None

    def _runs_of(self, sample: Sample) -> Iterator[str]:
        """Every eight words in a row of a sample, input and output as one text, a character for each word."""
        coded = self._coded(_parts(sample)["sample"])
        return (coded[start : start + _RUN] for start in range(len(coded) - _RUN + 1))

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
    """The words in small letters, in Unicode's compatible form, without marks and signs that are not seen."""
    return _WORD.findall(folded(text, ("Mn", "Cf")))


def _instructions(samples: Sequence[Sample]) -> set[str]:
    """The inputs that many different ones of these samples share."""
    pairs = {(" ".join(_words(sample.input)), " ".join(_words(sample.output))) for sample in samples}
    return _common(Counter(asked for asked, _ in pairs), len(pairs))


def _common(found: Counter[str], n_rows: int) -> set[str]:
    """What is found in so many rows that it belongs to none of them."""
    least, share = COMMON
    return {each for each, n in found.items() if n >= least and n >= share * n_rows}
