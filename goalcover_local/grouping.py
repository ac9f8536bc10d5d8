"""Texts that say alike: their words, groups of them, and which of them name a thing. Pure functions, no model.

Words are compared by their first five letters, in which languages with endings put the meaning: "treated" and
"treatment" are one. A word counts for more the fewer texts hold it (Spärck Jones, 1972).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

ALIKE = 0.35
"""The least cosine at which a text joins a group."""

NAMES = 0.5
"""The least share of a name's weight that a text must hold to name the thing."""

_STEM = 5
_COMMON = frozenset(
    "about above after again all also and any are asked because been before being below between both but can could "
    "did does doing each few for from further had has have having her here hers his how into its just more most nor "
    "not nothing now off once only other our out over own said same says she should some such than that the their them "
    "then there these they this those through too under until very was were what when where which while who whom why "
    "will with without would you your answer answers capability input mention mentioned mentions output provide "
    "provides provided question remark sample samples tell tells topic text rather instead focuses focus discusses "
    "related relate describe describes described explain explains explained information specific".split()
)
"""Words that tell nothing of a matter: the language's own, and those of every remark."""


def stems(text: str) -> list[str]:
    """The stems of a text's words in their order, without common words and words of one or two letters."""
    words = re.findall(r"[^\W_]{2,}", text.casefold())
    return [word[:_STEM] for word in words if word not in _COMMON and (len(word) > 2 or not word.isascii())]


def weights(texts: Sequence[str]) -> Mapping[str, float]:
    """What each stem is worth, above 0, by the share of the texts that hold it."""
    held = Counter(stem for text in texts for stem in set(stems(text)))
    return {stem: math.log((1 + len(texts)) / (1 + n)) + 1 for stem, n in held.items()}


def groups(texts: Sequence[str], most: int) -> list[list[int]]:
    """The places of texts that say alike, each text in one group of at most `most`; in the order of their first.

    Each text joins the group whose first text is most like it, or begins one: one pass, and the same every time.
    """
    worth = weights(texts)
    vectors = [_vector(text, worth) for text in texts]
    leaders: list[int] = []
    holding: dict[str, list[int]] = {}
    members: dict[int, list[int]] = {}
    for place, vector in enumerate(vectors):
        near: Counter[int] = Counter()
        for stem, weight in vector.items():
            for leader in holding.get(stem, ()):
                near[leader] += weight * vectors[leader][stem]  # type: ignore[assignment]
        best = min(near, key=lambda leader: (-round(near[leader], 9), leader), default=None)
        if best is None or near[best] < ALIKE:
            leaders.append(place)
            members[place] = []
            for stem in vector:
                holding.setdefault(stem, []).append(place)
            best = place
        members[best].append(place)
    return [
        members[leader][start : start + most] for leader in leaders for start in range(0, len(members[leader]), most)
    ]


def naming(name: str, texts: Sequence[str], worth: Mapping[str, float]) -> list[float]:
    """How much of a name's weight each text holds, in [0, 1]; a name of common words alone is held by none."""
    wanted = set(stems(name))
    rare = max(worth.values(), default=1.0)
    total = sum(worth.get(stem, rare) for stem in wanted)
    return [
        sum(worth.get(stem, rare) for stem in wanted & set(stems(text))) / total if total else 0.0 for text in texts
    ]


def alike(first: str, second: str) -> bool:
    """Whether two names mean the same by their words: those of the shorter one all stand in the other."""
    one, other = set(stems(first)), set(stems(second))
    return bool(one and other) and (one <= other or other <= one)


def _vector(text: str, worth: Mapping[str, float]) -> dict[str, float]:
    """The weights of a text's stems, of length 1."""
    counted = Counter(stems(text))
    vector = {stem: n * worth[stem] for stem, n in counted.items()}
    length = math.sqrt(sum(weight**2 for weight in vector.values()))
    return {stem: weight / length for stem, weight in vector.items()}
