"""What trainings came to: tables in Markdown (the paper's Tables 3 to 5), and figures of curves and of intervals.

A policy or a training keeps its colour and its mark by its place, the colours being those that the colour-blind tell
apart (Okabe and Ito 2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..finetune.evaluate import Comparison, Standing, SubgoalStanding, holm
from ..terms import Estimate
from .figures import drawn
from .validation import percent, table

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")

GRADES, CHECKS = "1–5", "0–1"
"""The units of the score and its judged part, and of the checks."""

Numbers = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A training step by step: the mean score and its judged part, 1–5, and what the checks found, 0–1.

    `spread` is the standard deviation of a step's scores. All are as long as `steps`; None where a number is missing.
    """

    name: str
    steps: Sequence[int]
    score: Numbers
    spread: Numbers
    judged: Numbers
    checked: Numbers


def table_3(sizes: Mapping[str, int | None]) -> str:
    """The paper's Table 3 in Markdown: how many samples each dataset has."""
    return table(("dataset", "samples"), [[name, "–" if n is None else f"{n:,}"] for name, n in sizes.items()])


def table_4(standings: Sequence[Standing], comparisons: Sequence[Comparison] = ()) -> str:
    """The paper's Table 4 in Markdown: each policy's score and its parts, and below it what comparisons say, if any.

    The last p is Student's, adjusted for there being several comparisons (Holm 1979).
    """
    lines = [
        [
            each.policy,
            within(each.score),
            within(each.judged),
            within(each.checked),
            str(each.n),
            str(each.n_failed),
            number(each.length, 0),
        ]
        for each in standings
    ]
    parts = (f"score, {GRADES} (95% interval)", f"judged, {GRADES} (95% interval)", f"checks, {CHECKS} (95% interval)")
    header = ("policy", *parts, "n", "failed", "words")
    told = table(header, lines)
    return f"{told}\n\n{compared(comparisons)}" if comparisons else told


def compared(comparisons: Sequence[Comparison], part: str = "score") -> str:
    """Comparisons of that part of the grades in Markdown; the last p is adjusted for how many there are."""
    lines = [
        [
            f"{each.policy} − {each.against}",
            within(each.difference, signed=True),
            share(each.wins),
            share(each.ties),
            number(each.d, 2),
            chance(each.p),
            chance(each.p_ranks),
            chance(adjusted),
            str(each.n),
        ]
        for each, adjusted in zip(comparisons, holm([each.p for each in comparisons]), strict=True)
    ]
    header = ("difference", f"{part} (95% interval)", "wins", "ties", "d", "p", "p of ranks", "p, Holm", "n")
    return table(header, lines)


def table_5(rows: Sequence[SubgoalStanding], policies: Sequence[str]) -> str:
    """The paper's Table 5 in Markdown: each policy's score by subgoal, and how far it lies above the first policy.

    An estimate that rests on fewer samples than the subgoal has says on how many.
    """
    first, *others = policies
    means, apart = [], []
    for row in rows:
        means.append([row.subgoal, str(row.n), *(_within_row(found, row.n) for found in row.means)])
        apart.append([row.subgoal, str(row.n), *(_within_row(found, row.n, True) for found in row.differences[1:])])
    told = table(("subgoal", "n", *(f"{policy}, {GRADES} (95% interval)" for policy in policies)), means)
    if not others:
        return told
    return f"{told}\n\n{table(('subgoal', 'n', *(f'{policy} − {first} (95% interval)' for policy in others)), apart)}"


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """A number without what rounding leaves of zero; a dash where it is missing."""
    if value is None or math.isnan(value):
        return "–"
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def within(found: Estimate | None, signed: bool = False) -> str:
    """An estimate with its interval; without it where there is none."""
    if found is None or math.isnan(found.value):
        return "–"
    value, low, high = (number(each, 3, signed) for each in (found.value, found.low, found.high))
    return f"{value} ({low}, {high})"


def _within_row(found: Estimate | None, n: int, signed: bool = False) -> str:
    told = within(found, signed)
    return told if found is None or found.n == n else f"{told}, n = {found.n}"


def share(value: float) -> str:
    return percent(None if math.isnan(value) else value, signed=False)


def chance(p: float) -> str:
    return "< 0.0001" if p < 0.00005 else number(p, 4)


def curve(series: Sequence[Curve], *, title: str = "", window: int = 10) -> str:
    """An SVG of trainings over each other: the score with its spread, its judged part, and the checks, by step.

    Dots are single steps; lines are means of the last `window` steps that have a number, and the band is the mean
    spread to either side. A part that no training has is left out.
    """

    def draw(drawing: Any) -> None:
        parts: list[tuple[str, Callable[[Curve], Numbers]]] = [
            (f"score ({GRADES})", lambda each: each.score),
            (f"judged part ({GRADES})", lambda each: each.judged),
            (f"checks ({CHECKS})", lambda each: each.checked),
        ]
        told = [part for part in parts if any(_there(part[1](each)) for each in series)] or parts[:1]
        drawing.set_size_inches(7.5, 1.2 + 2.3 * len(told))
        panels = drawing.subplots(len(told), 1, sharex=True, squeeze=False)[:, 0]
        for place, (axes, (label, values_of)) in enumerate(zip(panels, told, strict=True)):
            for number, each in enumerate(series):
                _trace(axes, each, values_of(each), number, window, banded=place == 0)
            axes.set_ylabel(label)
            _tidy(axes, "both")
        panels[0].set_title(title, loc="left", fontsize=11)
        panels[-1].locator_params(axis="x", integer=True)
        panels[-1].set_xlabel(f"step (line: mean of the last {window}; band: standard deviation of a step's scores)")
        _legend(drawing, [each.name for each in series], lines=True)

    return drawn(draw)


def _trace(axes: Any, each: Curve, values: Numbers, number: int, window: int, banded: bool) -> None:
    """Draws one training's part: its steps as dots, their moving mean as a line, and the spread as a band."""
    colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    smooth = moving_mean(values, window)
    axes.scatter(each.steps, _filled(values), s=6, color=colour, alpha=0.35, linewidths=0)
    axes.plot(each.steps, smooth, color=colour, linestyle=dashes, linewidth=1.8)
    if banded:
        spread = moving_mean(each.spread, window)
        low = [middle - around for middle, around in zip(smooth, spread, strict=True)]
        high = [middle + around for middle, around in zip(smooth, spread, strict=True)]
        axes.fill_between(each.steps, low, high, color=colour, alpha=0.13, linewidth=0)


def moving_mean(values: Numbers, window: int) -> list[float]:
    """At each place the mean of the last `window` numbers up to it; NaN before the first one."""
    known: list[float] = []
    found = []
    for value in _filled(values):
        known = [*known, value][-window:] if not math.isnan(value) else known
        found.append(sum(known) / len(known) if known else math.nan)
    return found


def _filled(values: Numbers) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _there(values: Numbers) -> bool:
    return not all(map(math.isnan, _filled(values)))


def interval_figure(standings: Sequence[Standing], *, title: str = "") -> str:
    """An SVG of Table 4: each policy's score and judged part with their intervals, and the checks beside them."""

    def draw(drawing: Any) -> None:
        checked = any(each.checked for each in standings)
        drawing.set_size_inches(7.5, 1.6 + 0.5 * len(standings))
        panels = drawing.subplots(1, 1 + checked, sharey=True, squeeze=False, width_ratios=[2, 1][: 1 + checked])[0]
        for at, each in enumerate(standings):
            _point(panels[0], each.score, at - 0.13, 0)
            _point(panels[0], each.judged, at + 0.13, 1)
            if checked:
                _point(panels[1], each.checked, at, 2)
        panels[0].set_xlabel(f"grade ({GRADES}), 95% interval")
        if checked:
            panels[1].set_xlabel(f"checks ({CHECKS})")
        _rows(panels, [f"{each.policy} (n = {each.n})" for each in standings], title)
        _legend(drawing, ["score", "judged part", "checks"][: 2 + checked])

    return drawn(draw)


def subgoal_figure(rows: Sequence[SubgoalStanding], policies: Sequence[str], *, title: str = "") -> str:
    """An SVG of Table 5: a line for each subgoal, on it each policy's score with its interval."""

    def draw(drawing: Any) -> None:
        step = 0.7 / max(1, len(policies))
        drawing.set_size_inches(7.5, 1.6 + (0.3 + 0.13 * len(policies)) * len(rows))
        axes = drawing.subplots()
        for at, row in enumerate(rows):
            for number, found in enumerate(row.means):
                _point(axes, found, at + (number - (len(policies) - 1) / 2) * step, number)
        axes.set_xlabel(f"score ({GRADES}), 95% interval")
        _rows([axes], [f"{row.subgoal} (n = {row.n})" for row in rows], title)
        _legend(drawing, policies)

    return drawn(draw)


def _point(axes: Any, found: Estimate | None, at: float, number: int) -> None:
    """Draws an estimate as a mark with its interval; without one where there is none."""
    if found is None or math.isnan(found.value):
        return
    colour = COLOURS[number % len(COLOURS)]
    axes.plot([found.low, found.high], [at, at], color=colour, linewidth=1.6)
    axes.plot([found.value], [at], marker=MARKS[number % len(MARKS)], color=colour, markersize=6)


def _rows(panels: Sequence[Any], names: Sequence[str], title: str) -> None:
    """Names the rows of the panels, the first one on top."""
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(max(len(names), 1) - 0.5, -0.5)
    panels[0].set_title(title, loc="left", fontsize=11)
    for axes in panels:
        _tidy(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)


def _tidy(axes: Any, grid: str) -> None:
    axes.grid(axis=grid, color="#e5e7e9", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(drawing: Any, names: Sequence[str], *, lines: bool = False) -> None:
    """Names the colours below the figure, whatever was drawn in them: of lines, or of marks with their intervals."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[number % len(COLOURS)],
            linestyle=DASHES[number % len(DASHES)] if lines else "-",
            marker="" if lines else MARKS[number % len(MARKS)],
        )
        for number in range(len(names))
    ]
    if handles:
        drawing.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), frameon=False, fontsize=9)
