"""Phase 3, gap analysis: what the explanations of low scores have in common (paper, section 3.4, Eqs. 7 and 8).

Thousands of explanations fit no prompt, so they are reduced in stages: equal ones are taken once, each is parted into
what a sample is about and what it lacks, those that share a word are grouped, a model names what each group lacks or
has instead, and names that mean the same are merged. Evidence is then counted without a model: an explanation names a
thing if it holds enough of the name's words in its part. A name that none holds goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..asking import Asker
from ..grouping import NAMES, alike, index, parts, shares, themes
from ..questions import one_line
from ..terms import Coverage, Explanation, Gap, MissingCapability, Subgoal

REMARKS = 8
"""Explanations that a model reads at once."""

MOST = 8
"""The most capabilities that are told of a gap, those with the most evidence."""

QUOTATIONS = 3

_LONGEST = 300
"""Characters of an explanation that are read and quoted."""

_CONSIDERED = 300
"""The most names that are merged and held against explanations: those given most often."""

_TOKENS = 48


@dataclass(frozen=True, slots=True)
class _Remark:
    """One text, the samples whose explanations it is, and how many rows hold them."""

    text: str
    samples: tuple[str, ...]
    n_rows: int


def analyze(
    asker: Asker,
    subgoal: Subgoal,
    covered: Coverage,
    low: Mapping[str, int],
    explanations: Sequence[Explanation],
) -> Gap:
    """The gap of a subgoal: its recurring missing capabilities, each with its evidence.

    `low` maps the digest of each low-scoring sample to the rows that hold it; explanations of other samples are passed
    over. What a model cannot summarise is left out and counted by the asker. What it echoes from its examples has no
    evidence, and goes.
    """
    remarks = _distinct([each for each in explanations if each.sample in low], low)
    parted = [parts(remark.text) for remark in remarks]
    said = {"missing": [lacks for _, lacks in parted], "instead": [about for about, _ in parted]}
    asked = [(field, group) for field in said for group in _groups(remarks, said[field])]
    answers = asker.write("missing-capability", [_texts(subgoal, group) for _, group in asked], max_tokens=_TOKENS)
    named: dict[str, list[str]] = {field: [] for field in said}
    for (field, _), answer in zip(asked, answers, strict=True):
        if answer.fields:
            named[field].append(one_line(str(answer.fields[field])))
    return Gap(
        subgoal=subgoal.id,
        n_judged=covered.n_judged,
        n_support=covered.n_support,
        n_low=sum(low.values()),
        n_explained=len({sample for remark in remarks for sample in remark.samples}),
        missing=_evident(named["missing"], remarks, said["missing"]),
        instead=_evident(named["instead"], remarks, said["instead"]),
    )


def _distinct(explanations: Sequence[Explanation], low: Mapping[str, int]) -> list[_Remark]:
    """The explanations, those that differ in case and space alone taken together: the most frequent first."""
    held: dict[str, dict[str, str]] = {}
    for each in sorted(explanations, key=lambda each: each.sample):
        text = one_line(each.text).encode("utf-8", "replace").decode()
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        if text:
            held.setdefault(text.casefold(), {})[each.sample] = text
    remarks = [
        _Remark(next(iter(found.values())), tuple(found), sum(low[sample] for sample in found))
        for found in held.values()
    ]
    return sorted(remarks, key=lambda remark: (-remark.n_rows, remark.text))


def _groups(remarks: Sequence[_Remark], said: Sequence[str]) -> list[list[_Remark]]:
    """Remarks whose parts share a word, at most so many together as a model reads at once; equal parts once."""
    held: dict[str, list[_Remark]] = {}
    for remark, part in zip(remarks, said, strict=True):
        held.setdefault(part.casefold(), []).append(remark)
    firsts = [found[0] for found in held.values()]
    sizes = [sum(len(remark.samples) for remark in found) for found in held.values()]
    return [
        [firsts[place] for place in theme[start : start + REMARKS]]
        for theme in themes([*held], sizes)
        for start in range(0, len(theme), REMARKS)
    ]


def _texts(subgoal: Subgoal, remarks: Sequence[_Remark]) -> dict[str, str]:
    return {
        "name": one_line(subgoal.name),
        "description": one_line(subgoal.description),
        "remarks": "\n".join(f"- {remark.text}" for remark in remarks),
    }


def _evident(names: Sequence[str], remarks: Sequence[_Remark], said: Sequence[str]) -> tuple[MissingCapability, ...]:
    """The capabilities of these names, merged, that parts of remarks name: those with the most evidence first.

    Where some recur, those that a single sample's explanation names are left out.
    """
    held = index(said)
    found = [capability for name in _merged(names) if (capability := _backed(shares(name, held), name, remarks))]
    recurring = [capability for capability in found if len(capability.samples) > 1]
    return tuple(sorted(recurring or found, key=lambda each: (-each.n_rows, each.name))[:MOST])


def _merged(names: Sequence[str]) -> list[str]:
    """Names that mean the same, once: by the one given most often, the shortest of equals."""
    counted: dict[str, int] = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    kept: list[str] = []
    for name in sorted(counted, key=lambda name: (-counted[name], len(name), name))[:_CONSIDERED]:
        if not any(alike(name, other) for other in kept):
            kept.append(name)
    return kept


def _backed(share: Mapping[int, float], name: str, remarks: Sequence[_Remark]) -> MissingCapability | None:
    """A capability with the remarks whose parts name it, by the share of its words in them; None if none does."""
    ranked = sorted(
        (place for place, held in share.items() if held >= NAMES - 1e-9),
        key=lambda place: (-share[place], -remarks[place].n_rows, len(remarks[place].text), remarks[place].text),
    )
    if not ranked:
        return None
    samples = sorted({sample for place in ranked for sample in remarks[place].samples})
    quotations = tuple((remarks[place].samples[0], remarks[place].text) for place in ranked[:QUOTATIONS])
    return MissingCapability(name, tuple(samples), sum(remarks[place].n_rows for place in ranked), quotations)
