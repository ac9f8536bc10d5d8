"""Tables 3 to 5 in Markdown and the figures of trainings: exact, the same each time, safe whatever names hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from math import isnan, nan
from xml.etree import ElementTree

import matplotlib
import pytest
from test_report_validation import HOSTILE, cells_of, texts

from goalcover_local.finetune.evaluate import Comparison, Standing, SubgoalStanding
from goalcover_local.report.training import (
    COLOURS,
    Curve,
    curve,
    interval_figure,
    moving_mean,
    subgoal_figure,
    table_3,
    table_4,
    table_5,
)
from goalcover_local.terms import Estimate

NONE = Estimate(nan, nan, nan, 0)


def standing(policy: str, score: float, checked: float | None = 0.5) -> Standing:
    return Standing(
        policy=policy,
        n=62,
        n_failed=2,
        score=Estimate(score, score - 0.1, score + 0.1, 62),
        judged=Estimate(score - 0.2, score - 0.25, score - 0.15, 62),
        checked=None if checked is None else Estimate(checked, checked - 0.05, checked + 0.05, 64),
        length=48.6,
    )


def comparison(policy: str, p: float) -> Comparison:
    return Comparison(policy, "base", 61, Estimate(0.56, 0.4, 0.7, 61), p, 0.0201, 1.236, 0.75, 0.1)


def subgoal(name: str, n: int = 9) -> SubgoalStanding:
    means = (Estimate(3.728, 3.5, 3.9, 9), Estimate(4.267, 4.1, 4.4, 8))
    return SubgoalStanding(name, n, means, (None, Estimate(0.539, 0.3, 0.8, 8)))


def training(name: str, n: int = 12, checked: bool = True) -> Curve:
    score = [3 + 0.05 * step for step in range(n)]
    return Curve(
        name=name,
        steps=range(1, n + 1),
        score=[None if step == 4 else value for step, value in enumerate(score)],
        spread=[0.3] * n,
        judged=[value - 0.2 for value in score],
        checked=[0.5 if checked else None] * n,
    )


# Tables


def test_table_3_counts_samples() -> None:
    assert table_3({"original": 9216, "base": None}) == (
        "| dataset | samples |\n|---|---|\n| original | 9,216 |\n| base | – |"
    )


TABLE_4 = r"""| policy | score, 1–5 (95% interval) | judged, 1–5 (95% interval) | checks, 0–1 (95% interval) | n | failed | words |
|---|---|---|---|---|---|---|
| base | 3.210 (3.110, 3.310) | 3.010 (2.960, 3.060) | – | 62 | 2 | 49 |
| original | 3.770 (3.670, 3.870) | 3.570 (3.520, 3.620) | 0.500 (0.450, 0.550) | 62 | 2 | 49 |

| difference | score (95% interval) | wins | ties | d | p | p of ranks | p, Holm | n |
|---|---|---|---|---|---|---|---|---|
| original − base | +0.560 (+0.400, +0.700) | 75.0% | 10.0% | 1.24 | 0.0123 | 0.0201 | 0.0246 | 61 |
| aligned − base | +0.560 (+0.400, +0.700) | 75.0% | 10.0% | 1.24 | \< 0.0001 | 0.0201 | \< 0.0001 | 61 |
| synthetic − base | +0.560 (+0.400, +0.700) | 75.0% | 10.0% | 1.24 | 0.0400 | 0.0201 | 0.0400 | 61 |
| both − base | +0.560 (+0.400, +0.700) | 75.0% | 10.0% | 1.24 | – | 0.0201 | – | 61 |"""  # noqa: E501


def test_table_4_tells_parts_apart_and_adjusts_for_several() -> None:
    standings = [standing("base", 3.21, None), standing("original", 3.77)]
    chances = {"original": 0.0123, "aligned": 1e-9, "synthetic": 0.04, "both": nan}
    compared = [comparison(policy, p) for policy, p in chances.items()]
    assert table_4(standings, compared) == TABLE_4
    assert table_4(standings) == TABLE_4.split("\n\n")[0]


def test_what_is_missing_is_a_dash() -> None:
    empty = Standing("base", 0, 64, NONE, NONE, None, nan)
    nothing = Comparison("a", "b", 0, NONE, nan, nan, nan, nan, nan)
    first, second = table_4([empty], [nothing]).split("\n\n")
    assert cells_of(first.splitlines()[-1]) == ["base", "–", "–", "–", "0", "64", "–"]
    assert cells_of(second.splitlines()[-1]) == ["a − b", *["–"] * 7, "0"]
    one = Standing("base", 1, 0, Estimate(3.5, nan, nan, 1), NONE, None, 4.0)
    assert "| 3.500 (–, –) |" in table_4([one])


def test_nothing_is_less_than_zero_by_nothing() -> None:
    told = table_4([], [Comparison("a", "b", 2, Estimate(-0.0, -1e-6, 1e-6, 2), 1.0, 1.0, -1e-5, 0.0, 0.0)])
    assert "+0.000 (+0.000, +0.000)" in told and "-0.0" not in told


TABLE_5 = """| subgoal | n | original, 1–5 (95% interval) | aligned, 1–5 (95% interval) |
|---|---|---|---|
| P1 | 9 | 3.728 (3.500, 3.900) | 4.267 (4.100, 4.400), n = 8 |
| R1 | 0 | – | – |

| subgoal | n | aligned − original (95% interval) |
|---|---|---|
| P1 | 9 | +0.539 (+0.300, +0.800), n = 8 |
| R1 | 0 | – |"""


def test_table_5_is_by_subgoal_and_keeps_those_without_samples() -> None:
    rows = [subgoal("P1"), SubgoalStanding("R1", 0, (None, None), (None, None))]
    assert table_5(rows, ["original", "aligned"]) == TABLE_5


def test_one_policy_is_compared_with_none() -> None:
    row = SubgoalStanding("P1", 9, (Estimate(3.728, 3.5, 3.9, 9),), (None,))
    assert "\n\n" not in table_5([row], ["base"]) and "| P1 | 9 | 3.728 (3.500, 3.900) |" in table_5([row], ["base"])


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_markdown(name: str) -> None:
    told = [
        table_3({name: 3}),
        *table_4([standing(name, 3.0)], [comparison(name, 0.5)]).split("\n\n"),
        *table_5([subgoal(name)], [name, "base"]).split("\n\n"),
    ]
    for each in told:
        header, _, line = each.splitlines()
        assert len(cells_of(header)) == len(cells_of(line))
        assert cells_of(line)[0] in (name, f"{name} − base")
        assert not re.search(r"[<>`\[\]*_~]", re.sub(r"\\.", "", each))


# Figures


def drawings(name: str = "hearts") -> dict[str, Callable[[], str]]:
    """Each figure, its names and its title being the one given."""
    return {
        "curve": lambda: curve([training(name), training("control")], title=name),
        "intervals": lambda: interval_figure([standing(name, 3.2), standing("base", 3.0, None)], title=name),
        "subgoals": lambda: subgoal_figure([subgoal(name), subgoal("R1")], [name, "base"], title=name),
    }


KINDS = sorted(drawings())


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_the_same_each_time_whatever_ones_own_settings(kind: str) -> None:
    before = dict(matplotlib.rcParams)
    svg = drawings()[kind]()
    assert dict(matplotlib.rcParams) == before, "settings of the process stay as they were"
    assert drawings()[kind]() == svg and "<dc:date>" not in svg
    own = {"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "black", "svg.hashsalt": "x"}
    with matplotlib.rc_context({**own, "axes.grid": True, "savefig.transparent": True}):
        assert drawings()[kind]() == svg


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*HOSTILE, "_underscored", "心臓と血管", "heart " * 100])
def test_names_are_text_in_a_figure_without_a_warning(kind: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = drawings(name)[kind]()
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert not names & {"script", "img", "image", "b", "a", "foreignObject"}
    assert sum(name in text for text in texts(svg)) == (3 if kind == "subgoals" else 2)


@pytest.mark.parametrize(
    "draw", [lambda: curve([], title="x"), lambda: interval_figure([], title="x"), lambda: subgoal_figure([], [])]
)
def test_a_figure_of_nothing_is_empty_without_a_warning(draw: Callable[[], str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ElementTree.fromstring(draw())


def test_the_curve_has_a_panel_for_each_part_that_there_is() -> None:
    labels = ["score (1–5)", "judged part (1–5)", "checks (0–1)"]
    svg = curve([training("original"), training("control")])
    assert [text for text in texts(svg) if text in labels] == labels
    assert [text for text in texts(curve([training("original", checked=False)])) if text in labels] == labels[:2]
    assert {"original", "control"} <= set(texts(svg))
    assert all(colour in svg for colour in COLOURS[:2]) and COLOURS[2] not in svg


def test_the_band_is_the_spread_to_either_side() -> None:
    def band(spread: float) -> tuple[set[float], float]:
        """The heights of the band's corners, and that of the line."""
        each = training("original", n=2, checked=False)
        svg = curve([Curve(each.name, each.steps, [3.0, 3.0], [spread] * 2, [None] * 2, each.checked)], window=1)
        found = re.search(r'"FillBetweenPolyCollection_1">.*? d="([^"]*)".*?<use [^>]* y="([^"]*)"', svg, re.DOTALL)
        assert found
        line, *_ = re.findall(r'<path d="([^"]*)"[^>]*stroke-width: 1.8', svg)
        corners, (middle,) = ({float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)} for path in (found[1], line))
        return {round(y + float(found[2]), 3) for y in corners}, round(middle, 3)

    heights, middle = band(0.4)
    assert len(heights) == 2 and sum(heights) / 2 == pytest.approx(middle, abs=0.01)
    heights, middle = band(0.0)
    assert heights == {middle}


def test_a_moving_mean_is_of_the_last_numbers_there_are() -> None:
    found = moving_mean([None, 1.0, 3.0, None, 5.0, 7.0], 2)
    assert isnan(found[0]) and found[1:] == [1.0, 2.0, 2.0, 4.0, 6.0]
    assert moving_mean([1.0, 2.0, 6.0], 1) == [1.0, 2.0, 6.0] and moving_mean([], 3) == []


def test_what_was_not_checked_or_not_known_is_not_drawn() -> None:
    assert "checks (0–1)" not in texts(interval_figure([standing("base", 3.0, None)]))
    assert "checks (0–1)" in texts(interval_figure([standing("base", 3.0), standing("x", 3.0, None)]))
    known = subgoal("P1")
    half = SubgoalStanding("P1", 9, (known.means[0], None), (None, None))
    both, one = (subgoal_figure([row], ["original", "aligned"]) for row in (known, half))
    assert both.count(COLOURS[1]) > one.count(COLOURS[1]) and both.count(COLOURS[0]) == one.count(COLOURS[0])


def test_an_interval_figure_names_policies_with_their_numbers() -> None:
    assert {"base (n = 62)", "original (n = 62)"} <= set(
        texts(interval_figure([standing("base", 3.2), standing("original", 3.7)]))
    )
    svg = subgoal_figure([subgoal("P1"), SubgoalStanding("R1", 0, (None, None), (None, None))], ["original", "aligned"])
    assert {"P1 (n = 9)", "R1 (n = 0)", "original", "aligned"} <= set(texts(svg))


def test_intervals_are_drawn_from_end_to_end() -> None:
    def drawn(low: float, high: float) -> str:
        row = SubgoalStanding("P1", 9, (Estimate(3.0, low, high, 9), Estimate(3.0, 2.0, 4.0, 9)), (None, None))
        return subgoal_figure([row], ["original", "aligned"])

    assert len({drawn(2.5, 3.5), drawn(2.6, 3.5), drawn(2.5, 3.4), drawn(nan, nan)}) == 4
