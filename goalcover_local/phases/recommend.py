"""Phase 4, recommendation: what would close a gap, in words and in rows (paper, section 3.5, Eq. 9).

A model writes issue and fix, in the manner of the paper's section 5.4; every number is counted, none is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .. import stats
from ..asking import Asker
from ..grouping import alike
from ..questions import one_line
from ..terms import Action, Coverage, Gap, Recommendation

NAMED = 4
"""How many missing capabilities a recommendation names."""

TELLS_APART = "overlap"
"""The question that a model must be fit to decide before its words on a gap are worth reading."""

_TOKENS = 160

_NUMBER = re.compile(r"\d|\bper ?cent\b|\bhundreds?\b|\bthousands?\b", re.IGNORECASE)
"""A number that a model must not make up: every one that is told is counted."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a dataset holds beside a gap: rows in all and drawn, rows that support no subgoal, and near samples.

    `n_drawn` are the rows that the assessment drew, failed judgements and all. `near` are digests of samples whose
    value comes closest to support without reaching it, nearest first.
    """

    n_rows: int
    n_drawn: int
    n_idle: int
    near: tuple[str, ...]


def recommend(
    asker: Asker | None, author: str, gaps: Sequence[tuple[Gap, Coverage, Surroundings]]
) -> list[Recommendation]:
    """A recommendation for each gap, in their order; without an asker, or where it fails, in plain set words."""
    texts = [_texts(gap, covered) for gap, covered, _ in gaps]
    answers = asker.write("recommendation", texts, max_tokens=_TOKENS) if asker else []
    shown = _shown(asker)
    recommended = []
    for place, (gap, covered, around) in enumerate(gaps):
        fields = (answers[place].fields if answers else None) or {}
        written = {name: one_line(str(text)) for name, text in fields.items()}
        well = all(written.get(name) for name in ("issue", "fix")) and not any(
            text in shown or _NUMBER.search(text) for text in written.values()
        )
        missing = missing_rows(gap, covered, around)
        recommended.append(
            Recommendation(
                subgoal=gap.subgoal,
                issue=written["issue"] if well else issue(gap, covered),
                fix=written["fix"] if well else _fix(gap, covered),
                n_missing=missing,
                actions=tuple(_actions(gap, covered, around, missing, written.get("sources", "") if well else "")),
                near=around.near,
                author=author if well else "",
            )
        )
    return recommended


def _shown(asker: Asker | None) -> set[str]:
    """What the question's examples answer: a model that says the same echoes them."""
    examples = asker.question("recommendation").examples if asker else ()
    return {text for example in examples for text in example["answer"].values()}


def missing_rows(gap: Gap, covered: Coverage, around: Surroundings) -> int:
    """How many supporting rows the whole dataset lacks to reach the target share, taking the rows judged for all."""
    n_hits = round(gap.n_support / gap.n_judged * around.n_rows) if gap.n_judged else 0
    return stats.rows_to_share(n_hits, around.n_rows, covered.subgoal.target_share)


def issue(gap: Gap, covered: Coverage) -> str:
    """What is wrong, in a sentence of counted facts."""
    if not gap.n_judged:
        return f"No row was judged for “{covered.subgoal.name}”."
    if gap.absent:
        told = f"No row of {gap.n_judged} supports “{covered.subgoal.name}”"
    else:
        told = f"{gap.n_support} of {gap.n_judged} rows support “{covered.subgoal.name}”"
    instead = _listed([each.name for each in gap.instead])
    return f"{told}; low rows are about {instead}." if instead else f"{told}."


def _fix(gap: Gap, covered: Coverage) -> str:
    named = _listed(_finer(gap, covered))
    return f"Add examples of “{covered.subgoal.name}”{f', above all of: {named}' if named else ''}."


def _texts(gap: Gap, covered: Coverage) -> dict[str, str]:
    subgoal = covered.subgoal
    return {
        "name": one_line(subgoal.name),
        "description": one_line(subgoal.description),
        "support": f"{gap.n_support} of {gap.n_judged}",
        "missing": _listed([each.name for each in gap.missing]) or one_line(subgoal.name),
        "instead": _listed([each.name for each in gap.instead]) or "other subjects",
    }


def _actions(gap: Gap, covered: Coverage, around: Surroundings, n_missing: int, sources: str) -> list[Action]:
    """What to do, most certain first: judge more, collect, have written, leave out."""
    subgoal, found = covered.subgoal, []
    if left := around.n_rows - around.n_drawn:
        text = f"Judge the {_rows(left)} that the assessment did not draw before you trust the numbers below."
        found.append(Action("assess", left, text))
    if n_missing:
        named = _listed(_finer(gap, covered))
        what = f" on {named}" if named else ""
        where = f" Where they are usually found: {sources.rstrip('.')}." if sources else ""
        near = f" Look where those came from that come near ({len(around.near)})." if around.near else ""
        target = f"the target share of {100 * subgoal.target_share:g}%"
        text = f"Collect {_rows(n_missing)} or more that support it{what}, to reach {target}.{where}{near}"
        found.append(Action("curate", n_missing, text))
        sure = stats.rows_to_share(gap.n_support, gap.n_judged, subgoal.target_share, surely=True)
        scaled = -(-sure * around.n_rows // gap.n_judged) if gap.n_judged else sure
        text = (
            f"Or have them written (`goalcover synthesize RUN --subgoal {subgoal.id} -n {n_missing}`): "
            f"{n_missing} reach the target, about {scaled} make the verdict “covered”."
        )
        found.append(Action("synthesize", n_missing, text))
    elif gap.n_judged:
        share = 100 * gap.n_support / gap.n_judged
        text = (
            f"Nothing need be added for the target share of {100 * subgoal.target_share:g}%: {share:.1f}% support it. "
            "Only its mean is low, as that of any subgoal is among many; collect more if the goal asks for more."
        )
        found.append(Action("curate", 0, text))
    if around.n_idle and gap.n_support:
        before = gap.n_support / gap.n_judged
        after = gap.n_support / max(1, gap.n_judged - around.n_idle)
        text = (
            f"Leave out the {_rows(around.n_idle)} judged that support no subgoal (`goalcover filter RUN -o FILE`): "
            f"that adds none and leaves {gap.n_judged - around.n_idle}, "
            f"and its share rises from {100 * before:.1f}% to {100 * after:.1f}%."
        )
        found.append(Action("filter", around.n_idle, text))
    return found


def _finer(gap: Gap, covered: Coverage) -> list[str]:
    """The missing capabilities that say more than the subgoal's own name does."""
    return [each.name for each in gap.missing if not alike(each.name, covered.subgoal.name)]


def _rows(n: int) -> str:
    return f"{n} row{'' if n == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names[:NAMED])
