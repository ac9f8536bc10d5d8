"""A validation's record as tables (the paper's Table 2), sentences, Markdown and a dumbbell figure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..studies.corruption import ALPHA
from .records import Record, judgement

LOST = "graded support"
"""The measure that says how much is lost; whether anything is, the alignment says."""


def cells(mix: Record) -> Iterator[tuple[Record, Record, Record]]:
    """Of every removal and subgoal of a mix: the removal, the alignment's cell, and that of the graded support."""
    aligned, lost = mix["measures"]["alignment"]["removals"], mix["measures"][LOST]["removals"]
    for removal, other in zip(aligned, lost, strict=True):
        for cell, loss in zip(removal["subgoals"], other["subgoals"], strict=True):
            yield removal, cell, loss


HEADER = ("subgoal", "alignment", "change (95% interval)", "p", "graded support", "change (95% interval)")
"""The columns of the table that `rows` fills."""


def rows(mix: Record) -> list[list[str]]:
    """The table of a mix: a line for each removal and what it takes, then one for each subgoal; targets have a star."""
    found = []
    before = ""
    for removal, cell, loss in cells(mix):
        if removal["removal"] != before:
            before = removal["removal"]
            left = percent(removal["retention"], signed=False)
            taken = f"{removal['n_removed']} of {mix['n_rows']} rows taken, {left} kept"
            found.append([f"{before}: {taken}", *[""] * (len(HEADER) - 1)])
        star = " *" if cell["target"] else ""
        p = "–" if cell["p"] is None else f"{cell['p']:.4f}"
        found.append([f"- {cell['subgoal']}{star}", *_change(cell), p, *_change(loss)])
    return found


def _change(cell: Record) -> tuple[str, str]:
    """From what to what, and the relative change with its interval; the absolute one where there is too little."""
    told = percent if cell["relative"] is not None else _signed
    change = cell["relative"] if cell["relative"] is not None else cell["absolute"]
    between = ", ".join(told(cell[end]).removesuffix("%") for end in ("low", "high"))
    return f"{_plain(cell['original'])} → {_plain(cell['after'])}", f"{told(change)} ({between})"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 3) + 0.0:+.3f}"


def percent(value: float | None, signed: bool = True) -> str:
    """A share in percent; a dash where it is missing."""
    if value is None:
        return "–"
    rounded = round(100 * value, 1) + 0.0
    return f"{rounded:+.1f}%" if signed else f"{rounded:.1f}%"


def sentences(mix: Record) -> list[str]:
    """What a mix says of the judge: in how many removals it was noticed, and how far targets and others changed."""
    said = []
    for kind, key in (("removal", "separation"), ("natural gap", "natural_gaps")):
        own = [each for each in mix["measures"]["alignment"]["removals"] if each["kind"] == kind]
        if not own:
            continue
        flagged = sum(each["flagged"] for each in own)
        most = sum(each["most_affected"] for each in own)
        said.append(
            f"{kind}s: the target falls by more than chance (p < {ALPHA:g}) in {flagged} of {len(own)}, and the most "
            f"of all subgoals in {most} of {len(own)}"
        )
        for measure in ("alignment", LOST):
            if (found := mix["measures"][measure][key]) is not None:
                said.append(f"{kind}s, {measure}: {apart(found)}")
    return said


def apart(found: Record) -> str:
    """How far targets changed, how far others, and the size of that effect, in words."""
    changes = [
        f"{who} change by {_fallen(found[name])} ({_fallen(high)} to {_fallen(low)})"
        for who, name in (("targets", "target"), ("others", "others"))
        for low, high in [found[f"{name}_interval"]]
    ]
    told = ", ".join(changes)
    if found["n"] > 2:
        if found["d"] is not None and None not in found["d_interval"]:
            low, high = found["d_interval"]
            told += f"; Cohen's d, pooled, {found['d']:.2f} ({low:.2f} to {high:.2f})"
        told += "" if found["p"] is None else f", paired t-test p = {found['p']:.3g}"
        told += "" if found["p_ranks"] is None else f", Wilcoxon p = {found['p_ranks']:.3g}"
    return f"{told}; n = {found['n']}"


def _fallen(loss: float | None) -> str:
    """A loss as the change that it is, in percent."""
    return percent(None if loss is None else -loss)


def seeds(record: Record) -> list[list[str]]:
    """Over the strategic samples: for each removal the target's loss, from least to most, and how often it was seen."""
    drawn = [mix for mix in record["mixes"] if mix["mix"] == "strategic"]
    found = []
    for place, removal in enumerate(drawn[0]["measures"]["alignment"]["removals"] if drawn else ()):
        line = [removal["removal"], removal["target"]]
        for measure in ("alignment", LOST):
            each = [mix["measures"][measure]["removals"][place] for mix in drawn]
            told = [next(c for c in one["subgoals"] if c["target"])["relative"] for one in each]
            known = [value for value in told if value is not None]
            line.append(percent(sum(known) / len(known)) if known else "–")
            line.append(f"{percent(min(known))} to {percent(max(known))}" if known else "–")
            if measure == "alignment":
                line.append(f"{sum(one['most_affected'] for one in each)} of {len(each)}")
                line.append(f"{sum(one['flagged'] for one in each)} of {len(each)}")
        found.append(line)
    return found


SEEDS_HEADER = (
    "removed",
    "target",
    "alignment",
    "over seeds",
    "most affected",
    f"p < {ALPHA:g}",
    "graded support",
    "over seeds",
)
"""The columns of the table that `seeds` fills."""


def markdown(record: Record) -> str:
    """The whole validation in Markdown: a table for the natural mix, one over strategic samples, and what they say."""
    parts = [
        f"# Validation: {escaped(record['study'])}",
        f"Judge {escaped(record['card'])} (digest {record['judge'][:12]}), value {record['value']}, {record['n_rows']} "
        "rows judged. A star marks the subgoal that should fall; p is the share of random removals of as many rows "
        "that lower it as much.",
        "\n\n".join(map(escaped, told(record))),
    ]
    for title, mix in shown(record):
        parts += [f"## {title}", table(HEADER, rows(mix))]
        parts.append("\n".join(f"- {sentence}" for sentence in sentences(mix)))
    if record["n_seeds"] > 1:
        over = seeds(record)
        parts += [f"## Over {record['n_seeds']} strategic samples", table(SEEDS_HEADER, over)]
    return "\n\n".join(parts) + "\n"


def told(record: Record) -> list[str]:
    """What to take from a validation: what it says of the judge, and how many judgements failed."""
    found = judgement(record["outcomes"], len(record["subgoals"]))
    if record["n_failed"]:
        found.append(f"{record['n_failed']} of {record['n_pairs']} judgements failed and are left out.")
    return found


def shown(record: Record) -> Iterator[tuple[str, Record]]:
    """The mixes whose tables are shown, each with its title: the natural one, and the first strategic sample."""
    for mix in record["mixes"]:
        if mix["mix"] == "natural":
            yield f"Natural mix, {mix['n_rows']} rows", mix
        elif mix["seed"] == record["seed"]:
            yield f"Strategic sample, seed {mix['seed']}, {mix['n_rows']} rows", mix


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; whatever its cells hold, they are text."""
    marked = ["| " + " | ".join(map(escaped, line)) + " |" for line in (header, *lines)]
    return "\n".join([marked[0], "|" + "---|" * len(header), *marked[1:]])


def escaped(text: str) -> str:
    """A text on one line of Markdown in which nothing is read as markup, HTML's neither."""
    return re.sub(r"([\\|`*_\[\]<>&#~])", r"\\\1", " ".join(text.split()))


def figure(record: Record, mix: str = "natural") -> str:
    """An SVG of each subgoal's graded support before and after each removal, as dumbbells."""
    from .figures import dumbbells

    chosen = next(each for each in record["mixes"] if each["mix"] == mix)
    groups: dict[str, list[tuple[str, float, float, bool]]] = {}
    for removal, _, loss in cells(chosen):
        if loss["original"] is not None and loss["after"] is not None:
            name = f"{removal['removal']} ({removal['n_removed']} of {chosen['n_rows']} rows)"
            groups.setdefault(name, []).append((loss["subgoal"], loss["original"], loss["after"], loss["target"]))
    return dumbbells(groups, title=f"{record['study']}, {record['card']}", label="graded support")
