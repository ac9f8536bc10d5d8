"""Texts that say alike: their words, their themes, and which of them name a thing. Pure functions, no model.

Words are compared by their first five letters, in which languages with endings put the meaning: "treated" and
"treatment" are one. Scripts that put no space between words, such as Chinese and Thai, are compared by pairs of
characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush

from .words import folded

NAMES = 0.5
"""The least share of a name's words that a text must hold to name the thing."""

_STEM = 5

_DENIAL = re.compile(
    r"(?<!-)\b(?:but|yet|though|not|no|nothing|none|neither|without|lacks?|lacking|missing|absent|never|cannot|\w+n['’]t)\b(?!-)",
    re.IGNORECASE,
)
"""The words at which a remark turns from what there is to what there is not."""

_DENIED = re.compile(r"\b(?:is|are|was|were|be|been|does|do|did|has|have|had|can|could|will|would)\s+$", re.IGNORECASE)
"""What stands before a denial of what was said before it."""

_CONTRACTED = re.compile(r"\w+n['’]t$")
_CLAUSE = re.compile(r"[;:]|[,.](?!\d)|\b(?:and|while|whereas)\b", re.IGNORECASE)
"""Where a clause begins."""

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
    "related relate describe describes described explain explains explained information specific absent cannot lack "
    "lacking lacks missing neither never none though yet doesn don isn aren wasn".split()
)
"""Words that tell nothing of a matter: the language's own, denial's, and those of every remark."""


def stems(text: str) -> list[str]:
    """The stems of a text's words in their order, without common words and words of one or two letters.

    Forms of a character that Unicode holds to be the same are one, and marks such as vowel signs are left out.
    """
    return list(_stems(text))


@lru_cache(maxsize=1 << 16)
def _stems(text: str) -> tuple[str, ...]:
    """The same, remembered: every name is held against every text."""
    found: list[str] = []
    for word in _WORD.finditer(folded(text, ("M",))):
        if run := word[1]:
            found += [run[start : start + 2] for start in range(max(1, len(run) - 1))]
        elif word[0] not in _COMMON and (len(word[0]) > 2 or not word[0].isascii()):
            found.append(word[0][:_STEM])
    return tuple(found)


def themes(texts: Sequence[str], n_samples: Sequence[int]) -> list[list[int]]:
    """The places of texts that share a word, a list for each theme; the theme of most samples first.

    The word that most samples' texts hold makes the first theme of all texts that hold it, and so on with those that
    are left, as long as a theme is of at least two samples. Where nothing recurs, each text is a theme of its own.
    """
    held = index(texts)
    left = [True] * len(texts)

    def size(stem: str) -> int:
        return sum(n_samples[place] for place in held[stem] if left[place])

    found: list[list[int]] = []
    waiting = [(-size(stem), stem) for stem in held]
    heapify(waiting)
    while waiting:
        expected, stem = heappop(waiting)
        now = size(stem)
        if now < 2:
            continue
        if now < -expected:
            heappush(waiting, (-now, stem))
            continue
        found.append([place for place in held[stem] if left[place]])
        for place in found[-1]:
            left[place] = False
    return found or [[place] for place, text in enumerate(texts) if stems(text)]


def parts(remark: str) -> tuple[str, str]:
    """What a remark says that a sample is about, and what it says that is lacking; the whole twice if it does not tell.

    It parts at the first word of denial, as in "It is about tyres, not about brakes"; where that denies what stands
    before it, as in "It is about tyres; brakes are absent", at the clause that does.
    """
    denial = _DENIAL.search(remark)
    if not denial:
        return remark, remark
    place = denial.start()
    if _CONTRACTED.match(denial[0]) or _DENIED.search(remark[:place]):
        place = max((clause.start() for clause in _CLAUSE.finditer(remark[:place])), default=0)
    return remark[:place], remark[place:]


def index(texts: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """By stem, the places of the texts that hold it."""
    held: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        for stem in dict.fromkeys(stems(text)):
            held.setdefault(stem, []).append(place)
    return held


def shares(name: str, held: Mapping[str, Sequence[int]]) -> Mapping[int, float]:
    """What share of a name's words each text holds, in (0, 1], by its place in an `index`; none if it holds no word."""
    wanted = set(stems(name))
    counted = Counter(place for stem in wanted for place in held.get(stem, ()))
    return {place: n / len(wanted) for place, n in counted.items()}


def alike(first: str, second: str) -> bool:
    """Whether one of two names holds all of the other's words."""
    one, other = set(stems(first)), set(stems(second))
    return bool(one and other) and (one <= other or other <= one)
