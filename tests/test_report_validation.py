"""A validation's tables in Markdown and its figure: exact, the same each time, safe whatever names hold."""

from __future__ import annotations

import re
import warnings
from xml.etree import ElementTree

import matplotlib
import pytest
from validated import IDS, cell_by_hand, mix, record, small

from goalcover_local.report import validation
from goalcover_local.report.figures import OTHER, TARGET, dumbbells
from goalcover_local.report.records import outcomes
from goalcover_local.report.validation import percent
from goalcover_local.studies.corruption import LEAST_BASE

HOSTILE = (
    "a | b",
    "a \\| b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](file:///etc/passwd)",
    "**bold** _it_ `code` ~~gone~~",
    "&lt;b&gt;",
    "--> <!--",
    "$ amounts and $x^$",
    "# heading",
)


# In words


def test_cells_pair_alignment_with_what_is_lost() -> None:
    found = list(validation.cells(mix("natural", None)))
    assert [(removal["removal"], cell["subgoal"]) for removal, cell, _ in found] == [
        (name, subgoal) for name in ("Heart rows", "Half of them") for subgoal in IDS
    ]
    assert all(cell["subgoal"] == loss["subgoal"] for _, cell, loss in found)
    assert found[1][1]["original"] == 0.44 and found[1][2]["original"] == 0.4


GOLDEN = r"""# Validation: hearts

Judge by hand (digest 0123456789ab), value corrected, 10 rows judged. A star marks the subgoal that should fall; p is the share of random removals of as many rows that lower it as much.

Whatever was removed, its target fell by more than chance, and no other subgoal fell as far: this judge sees these capabilities in these data.

3 of 20 judgements failed and are left out.

## Natural mix, 10 rows

| subgoal | alignment | change (95% interval) | p | graded support | change (95% interval) |
|---|---|---|---|---|---|
| Heart rows: 4 of 10 rows taken, 60.0% kept |  |  |  |  |  |
| - hearts \* | 0.440 → 0.200 | -54.5% (-60.0, -40.0) | 0.0005 | 0.400 → 0.000 | -100.0% (-100.0, -100.0) |
| - drugs | 0.010 → 0.012 | +0.002 (-0.001, +0.005) | 0.7000 | – → – | – (–, –) |

- removals: the target falls by more than chance (p < 0.01) in 1 of 1, and the most of all subgoals in 1 of 1
- removals, alignment: targets change by -54.5% (-60.0% to -40.0%), others change by -2.1% (– to –); n = 1

## Strategic sample, seed 0, 8 rows

| subgoal | alignment | change (95% interval) | p | graded support | change (95% interval) |
|---|---|---|---|---|---|
| Heart rows: 4 of 8 rows taken, 60.0% kept |  |  |  |  |  |
| - hearts \* | 0.440 → 0.200 | -54.5% (-60.0, -40.0) | 0.0005 | 0.400 → 0.000 | -100.0% (-100.0, -100.0) |
| - drugs | 0.010 → 0.012 | +0.002 (-0.001, +0.005) | 0.7000 | – → – | – (–, –) |

- removals: the target falls by more than chance (p < 0.01) in 1 of 1, and the most of all subgoals in 1 of 1
- removals, alignment: targets change by -54.5% (-60.0% to -40.0%), others change by -2.1% (– to –); n = 1

## Over 2 strategic samples

| removed | target | alignment | over seeds | most affected | p \< 0.01 | graded support | over seeds |
|---|---|---|---|---|---|---|---|
| Heart rows | hearts | -54.5% | -54.5% to -54.5% | 2 of 2 | 2 of 2 | -100.0% | -100.0% to -100.0% |
"""  # noqa: E501


def test_markdown_is_as_it_was() -> None:
    assert validation.markdown(small()) == GOLDEN


def test_sentences_tell_removals_and_natural_gaps_apart() -> None:
    told = validation.sentences(mix("natural", None))
    assert [line.split(":")[0] for line in told] == [
        "removals",
        "removals, alignment",
        "removals, graded support",
        "natural gaps",
        "natural gaps, alignment",
        "natural gaps, graded support",
    ]
    assert "falls by more than chance (p < 0.01) in 1 of 1, and the most of all subgoals in 1 of 1" in told[0]
    assert "targets change by -100.0%" in told[2]
    assert "falls by more than chance (p < 0.01) in 0 of 1" in told[3]


def test_sentences_leave_controls_and_what_is_not_there_out() -> None:
    found = mix("natural", None)
    for measure in found["measures"].values():
        measure["removals"][1]["kind"] = "control"
        measure["natural_gaps"] = None
    assert [line.split(":")[0].split(",")[0] for line in validation.sentences(found)] == ["removals"] * 3


def test_seeds_are_of_the_strategic_samples() -> None:
    lines = validation.seeds(record())
    assert [line[:2] for line in lines] == [["Heart rows", "hearts"], ["Half of them", "hearts"]]
    assert lines[0][2:4] == ["-54.5%", "-54.5% to -54.5%"] and lines[0][4] == "2 of 2"
    assert all(len(line) == len(validation.SEEDS_HEADER) for line in lines)
    assert validation.seeds({"mixes": [mix("natural", None)]}) == []


def test_a_table_has_a_line_for_each_removal_and_each_cell() -> None:
    lines = validation.rows(mix("natural", None))
    assert [line[0] for line in lines] == [
        "Heart rows: 4 of 10 rows taken, 60.0% kept",
        "- plain",
        "- hearts *",
        "- drugs",
        "Half of them: 2 of 10 rows taken, 80.0% kept",
        "- plain",
        "- hearts *",
        "- drugs",
    ]
    assert all(len(line) == len(validation.HEADER) for line in lines)
    assert [any(line[1:]) for line in lines] == 2 * [False, True, True, True]


def test_the_mixes_shown_are_the_natural_one_and_the_first_strategic_sample() -> None:
    assert [(title, found["seed"]) for title, found in validation.shown(record())] == [
        ("Natural mix, 10 rows", None),
        ("Strategic sample, seed 3, 10 rows", 3),
    ]


def test_failed_judgements_are_told_and_only_if_there_are_any() -> None:
    found = small()
    *said, last = validation.told(found)
    assert last == "3 of 20 judgements failed and are left out."
    assert said and validation.told({**found, "n_failed": 0}) == said


def test_nothing_is_less_than_zero_by_no_percent() -> None:
    assert [percent(value) for value in (-0.0, -0.0004, 0.0004, -0.0006)] == ["+0.0%", "+0.0%", "+0.0%", "-0.1%"]
    assert percent(-0.0, signed=False) == "0.0%" and percent(None) == "–"
    found = mix("natural", None)
    for measure in found["measures"].values():
        measure["separation"]["target"] = measure["separation"]["others"] = 0.0
        measure["separation"]["target_interval"] = [0.0, 0.0001]
        for removal in measure["removals"]:
            removal["subgoals"] = [
                cell_by_hand("plain", 0.5, 0.5, -1e-6, -1e-6, -1e-5, -0.0, 1.0),
                cell_by_hand("hearts", LEAST_BASE / 2, 0.01, -1e-6, None, -1e-5, -0.0, 1.0, target=True),
            ]
    told = [*validation.sentences(found), *(text for line in validation.rows(found) for text in line)]
    said = "\n".join(
        [*told, *(text for line in validation.seeds({"mixes": [{**found, "mix": "strategic"}]}) for text in line)]
    )
    assert "+0.0% (+0.0, +0.0)" in said and "+0.000 (+0.000, +0.000)" in said
    assert not re.search(r"-0\.0+(?!\d)", said), said


# Names that would be more than names


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table, as a reader of Markdown splits them: an escaped letter is text."""
    parts = [""]
    for found in re.finditer(r"\\.|.", line.strip()):
        if found[0] == "|":
            parts.append("")
        else:
            parts[-1] += found[0][-1]
    return [part.strip() for part in parts[1:-1]]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_markdown(name: str) -> None:
    found = record((name, "Half of them"), study=name, card=name)
    for each in found["mixes"]:
        for removal in each["measures"]["alignment"]["removals"]:
            removal["flagged"] = False
    text = validation.markdown({**found, "outcomes": outcomes(found["mixes"])})
    assert "NOT NOTICED: " in text
    tables = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    widths = [len(cells_of(line)) for line in tables]
    assert widths == 18 * [len(validation.HEADER)] + 3 * [len(validation.SEEDS_HEADER)]
    assert sum(cells_of(line)[0] == f"{name}: 4 of 10 rows taken, 60.0% kept" for line in tables) == 2
    assert sum(cells_of(line)[0] == name for line in tables) == 1
    bare = re.sub(r"\\.", "", text).replace("(p < 0.01)", "")
    assert not re.search(r"[<>`\[\]*_~]", bare), bare
    assert text.count("\n# ") == 0 and text.startswith("# Validation: ")


def test_a_name_stays_on_its_line() -> None:
    assert validation.escaped("a\n\n# b\r\nc") == "a \\# b c"
    assert validation.table(["x"], [["a\nb"]]) == "| x |\n|---|\n| a b |"


# The figure


SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """The texts of a figure, as a reader sees them."""
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_figure_is_the_same_each_time() -> None:
    before = dict(matplotlib.rcParams)
    told = record()
    svg = validation.figure(told)
    assert svg == validation.figure(record())
    assert dict(matplotlib.rcParams) == before, "settings of the process stay as they were"
    assert "Heart rows (4 of 10 rows)" in texts(svg) and "Half of them (2 of 10 rows)" in texts(svg)
    assert texts(svg).count("hearts") == texts(svg).count("plain") == 2
    assert TARGET in svg and OTHER in svg
    assert "graded support: before (hollow) and after (filled)" in texts(svg)
    assert validation.figure(told, "strategic") == svg, "these mixes are equal"


def test_the_figure_needs_no_network_and_runs_nothing() -> None:
    root = ElementTree.fromstring(validation.figure(record()))
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not names & {"script", "image", "foreignObject", "a", "iframe"}
    for element in root.iter():
        for key, value in element.attrib.items():
            assert not key.startswith("on")
            if key.endswith("href"):
                assert value.startswith("#")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_the_figure(name: str) -> None:
    svg = validation.figure(record((name, "Half of them"), study=name, card="$\\undefined$"))
    root = ElementTree.fromstring(svg)
    assert not {element.tag.rpartition("}")[2] for element in root.iter()} & {"script", "img", "image", "b"}
    assert f"{name} (4 of 10 rows)" in texts(svg) and f"{name}, $\\undefined$" in texts(svg)


def test_settings_of_ones_own_do_not_matter() -> None:
    svg = validation.figure(small())
    own = {"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "black", "text.usetex": True, "svg.hashsalt": "x"}
    with matplotlib.rc_context({**own, "font.family": "cursive", "axes.grid": True, "savefig.transparent": True}):
        assert validation.figure(small()) == svg


@pytest.mark.parametrize("name", ["心臓と血管", "القلب", "a 🫀 b", "heart " * 200])
def test_letters_that_the_font_lacks_and_long_names_stay_as_they_are_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = dumbbells({name: [("hearts", 0.5, 0.1, True)]}, title=name, label="graded support")
    assert texts(svg).count(name) == 2


def test_a_figure_of_nothing_is_empty_and_says_so_without_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = dumbbells({}, title="hearts, by hand", label="graded support")
    assert "hearts, by hand" in texts(svg)
    ElementTree.fromstring(svg)


def test_a_subgoal_named_like_a_removal_is_no_heading() -> None:
    def bold(svg: str) -> int:
        return len(re.findall(r"<text[^>]*font-weight: 700", svg))

    one = dumbbells({"hearts": [("drugs", 0.5, 0.1, True)]}, title="", label="")
    other = dumbbells({"hearts": [("hearts", 0.5, 0.1, True)]}, title="", label="")
    assert bold(one) == bold(other) == 1


def test_effect_size_and_tests_are_told_from_three_removals_on() -> None:
    found = {
        "n": 3,
        "target": 0.5,
        "target_interval": [0.4, 0.6],
        "others": -0.01,
        "others_interval": [-0.02, 0.0],
        "d": 3.214,
        "d_interval": [2.5, 3.7],
        "p": 0.0123,
        "p_ranks": 0.25,
    }
    told = "targets change by -50.0% (-60.0% to -40.0%), others change by +1.0% (0.0% to +2.0%)"
    sized = "; Cohen's d, pooled, 3.21 (2.50 to 3.70), paired t-test p = 0.0123, Wilcoxon p = 0.25"
    assert validation.apart(found).replace("+0.0%", "0.0%") == f"{told}{sized}; n = 3"
    assert validation.apart({**found, "n": 2}).replace("+0.0%", "0.0%") == f"{told}; n = 2"
