"""Figures, drawn by matplotlib without a display, the same for everybody: no settings or fonts of one's own matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

TARGET, OTHER = "#c0392b", "#7f8c8d"
"""The colours of what should fall, and of what should stay."""

_SETTINGS = {
    "svg.hashsalt": "goalcover",
    "svg.fonttype": "none",
    "text.parse_math": False,
}
"""The same ids each time; texts left as texts, for whatever script; and a "$" that is a dollar, not a formula."""


def dumbbells(groups: Mapping[str, Sequence[tuple[str, float, float, bool]]], *, title: str, label: str) -> str:
    """An SVG with, group by group, a line from a first value (hollow) to a second (filled) for each name.

    Each name comes with both values and whether it is a target, which is drawn in another colour.
    """

    def draw(drawing: Any) -> None:
        n_lines = sum(len(lines) + 1 for lines in groups.values())
        drawing.set_size_inches(7.5, 1 + 0.34 * n_lines)
        axes = drawing.subplots()
        names: list[str] = []
        heads = set()
        for group, lines in groups.items():
            heads.add(len(names))
            names.append(group)
            for name, before, after, target in lines:
                colour, at = TARGET if target else OTHER, len(names)
                axes.plot([before, after], [at, at], color=colour, linewidth=2, zorder=1)
                axes.scatter([before], [at], s=42, facecolors="white", edgecolors=colour, linewidths=1.6, zorder=2)
                axes.scatter([after], [at], s=42, color=colour, zorder=3)
                names.append(name)
        axes.set_yticks(range(len(names)), names)
        for place, tick in enumerate(axes.get_yticklabels()):
            if place in heads:
                tick.set_fontweight("bold")
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{label}: before (hollow) and after (filled)")
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(axis="x", color="#e5e7e9", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)

    return drawn(draw)


def drawn(draw: Callable[[Any], None]) -> str:
    """The SVG of what is drawn on a figure, the same each time and everywhere, of whatever names."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _SETTINGS]), warnings.catch_warnings():
        # It warns of letters that its own font lacks, which a reader's has, and of names that are too long for it.
        warnings.simplefilter("ignore", UserWarning)
        drawing = Figure(layout="constrained")
        draw(drawing)
        file = BytesIO()
        drawing.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue().decode()
