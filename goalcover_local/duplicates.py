"""Near-duplicates: what a new sample repeats of the dataset, of a held-out file or of another new sample.

Texts are compared by the share of characters that both have in the same order (rapidfuzz's normalised Indel
similarity), in small letters and without differences of space and punctuation.
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

_SHORT_INPUT = 20


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
        self._at = 100 * at
        self._ids: list[tuple[str, str]] = []
        self._texts: dict[str, list[str]] = {"sample": [], "output": [], "input": []}

    def add(self, of: str, samples: Iterable[Sample], *, inputs: bool = False) -> None:
        """Nothing; these samples are known from now on.

        With `inputs` their questions may not be asked again either, as for a held-out file; inputs that stand more
        than once among them are taken for instructions and may.
        """
        samples = list(samples)
        asked = Counter(_plain(sample.input) for sample in samples)
        for sample in samples:
            whole, said, question = _parts(sample)
            self._ids.append((of, sample.id))
            self._texts["sample"].append(whole)
            self._texts["output"].append(said if len(said) >= SHORT else "")
            alone = inputs and asked[question] == 1 and len(question) >= _SHORT_INPUT
            self._texts["input"].append(question if alone else "")

    def like(self, sample: Sample) -> Likeness | None:
        """The known sample that this one repeats, or None: as a whole, in its output, or in a held-out input."""
        from rapidfuzz import fuzz, process

        whole, said, question = _parts(sample)
        wanted = {"sample": whole, "output": said if len(said) >= SHORT else "", "input": question}
        for part, text in wanted.items():
            found = text and process.extractOne(text, self._texts[part], scorer=fuzz.ratio, score_cutoff=self._at)
            if found:
                of, identity = self._ids[found[2]]
                return Likeness(of, identity, part, found[1] / 100)
        return None


def _parts(sample: Sample) -> tuple[str, str, str]:
    asked, said = _plain(sample.input), _plain(sample.output)
    return f"{asked} {said}".strip(), said, asked


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
