"""Texts that say alike: their words, groups of them, and which of them name a thing. Pure functions, no model.

Words are compared by their first five letters, in which languages with endings put the meaning: "treated" and
"treatment" are one. Scripts that put no space between words, such as Chinese and Thai, are compared by pairs of
characters. A word counts for more the fewer texts hold it (Spärck Jones, 1972).
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

ALIKE = 0.35
"""The least cosine at which a text joins a group."""

NAMES = 0.5
"""The least share of a name's weight that a text must hold to name the thing."""

_STEM = 5

_CHAMPIONS = 32
"""Groups that a text is compared with for each of its stems: those of whose first text that stem is the most."""

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u9fff\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, kana, bopomofo and Han: scripts that put no space between words."""
_WORD = re.compile(rf"((?:(?!_)(?=\w)[{_UNSPACED}])+)|[^\W_{_UNSPACED}]{{2,}}")
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
    """The stems of a text's words in their order, without common words and words of one or two letters.

    Forms of a character that Unicode holds to be the same are one, and marks such as vowel signs are left out.
    """
    return list(_stems(text))


@lru_cache(maxsize=1 << 16)
def _stems(text: str) -> tuple[str, ...]:
    """The same, remembered: every name is held against every text."""
    found: list[str] = []
    for word in _WORD.finditer(_folded(text)):
        if run := word[1]:
            found += [run[start : start + 2] for start in range(max(1, len(run) - 1))]
        elif word[0] not in _COMMON and (len(word[0]) > 2 or not word[0].isascii()):
            found.append(word[0][:_STEM])
    return tuple(found)


def _folded(text: str) -> str:
    """The text in small letters, in Unicode's compatible form (NFKC), without marks."""
    if text.isascii():
        return text.casefold()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(each for each in folded if not unicodedata.category(each).startswith("M"))


def weights(texts: Sequence[str]) -> Mapping[str, float]:
    """What each stem is worth, above 0, by the share of the texts that hold it."""
    held = Counter(stem for text in texts for stem in set(stems(text)))
    return {stem: math.log((1 + len(texts)) / (1 + n)) + 1 for stem, n in held.items()}


def groups(texts: Sequence[str], most: int) -> list[list[int]]:
    """The places of texts that say alike, each text in one group of at most `most`; in the order of their first.

    Each text joins the group whose first text is most like it, or begins one: one pass, and the same every time. It is
    held against a bounded number of groups, so that the time grows with the number of texts, whatever they share.
    """
    worth = weights(texts)
    members: dict[int, list[int]] = {}
    champions: dict[str, list[tuple[float, int]]] = {}
    for place, text in enumerate(texts):
        vector = _vector(text, worth)
        near: dict[int, float] = {}
        for stem, weight in vector.items():
            for less, leader in champions.get(stem, ()):
                near[leader] = near.get(leader, 0.0) - weight * less
        most_alike = round(max(near.values(), default=0.0), 9)
        if most_alike >= ALIKE:
            best = min(leader for leader, cosine in near.items() if round(cosine, 9) == most_alike)
        else:
            best = place
            for stem, weight in vector.items():
                insort(champions.setdefault(stem, []), (-weight, place))
                del champions[stem][_CHAMPIONS:]
        members.setdefault(best, []).append(place)
    return [group[start : start + most] for group in members.values() for start in range(0, len(group), most)]


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
