"""A validation's record, its tables in Markdown and its figure: exact, the same each time, safe whatever names hold."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from goalcover_local.report import validation
from goalcover_local.report.figures import OTHER, TARGET, dumbbells
from goalcover_local.studies.corruption import Corruption, corrupt, measured

IDS = ("plain", "hearts", "drugs")
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


def values() -> np.ndarray:
    """Ten rows whose first four teach hearts, and whose first and fifth teach drugs."""
    found = np.full((10, 3), 0.2)
    found[:, 0] = 0.6
    found[:4, 1] = 0.8
    found[[0, 4], 2] = [0.6, 1.0]
    return found


def mix(name: str, seed: int | None, names: tuple[str, ...] = ("Heart rows", "Half of them")) -> dict[str, Any]:
    """A mix with a whole removal and a natural gap, both of hearts."""
    removed = np.array([np.arange(10) < 4, np.arange(10) < 2])
    found: Mapping[str, Corruption] = {
        measure: corrupt(
            measured(values(), measure),
            removed,
            IDS,
            [1, 1],
            names=names,
            kinds=["removal", "natural gap"],
            n_draws=999,
            n_replicates=200,
        )
        for measure in ("alignment", "graded support", "support")
    }
    return validation.mix_record(name, seed, found)


def record(names: tuple[str, ...] = ("Heart rows", "Half of them"), **more: Any) -> dict[str, Any]:
    mixes = [mix("natural", None, names), mix("strategic", 3, names), mix("strategic", 4, names)]
    told = {"study": "hearts", "card": "by hand", "judge": "0123456789abcdef", "value": "corrected", "seed": 3}
    return {**told, "n_seeds": 2, "n_rows": 10, "mixes": mixes, **more}


# The record


def test_the_record_is_what_was_found() -> None:
    found = mix("natural", None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["mix"], found["seed"], found["n_rows"]) == ("natural", None, 10)
    assert list(found["measures"]) == ["alignment", "graded support", "support"]
    first, second = found["measures"]["alignment"]["removals"]
    assert first == first | {
        "removal": "Heart rows",
        "target": "hearts",
        "kind": "removal",
        "n_removed": 4,
        "retention": 0.6,
        "most_affected": True,
    }
    assert (second["kind"], second["n_removed"], second["retention"]) == ("natural gap", 2, 0.8)
    told = {cell["subgoal"]: cell for cell in first["subgoals"]}
    assert list(told) == list(IDS) and [cell["target"] for cell in told.values()] == [False, True, False]
    assert told["hearts"] == told["hearts"] | {
        "original": 0.44,
        "after": 0.2,
        "absolute": -0.24,
        "relative": -0.545455,
    }
    assert told["plain"] == told["plain"] | {"original": 0.6, "after": 0.6, "relative": 0.0, "p": 1.0}
    # Of 210 ways to remove four of ten rows one takes all that teach hearts.
    assert told["hearts"]["p"] == pytest.approx(1 / 210, abs=0.006)
    apart = found["measures"]["alignment"]["separation"]
    assert (apart["n"], apart["n_most_affected"]) == (1, 1)
    assert apart["target"] == 0.545455
    assert apart["others"] == pytest.approx((0.0 + (0.32 - 2 / 6) / 0.32) / 2, abs=1e-6)
    assert apart["d"] is None and apart["p"] is None, "one removal has no spread"
    assert found["measures"]["alignment"]["natural_gaps"]["n"] == 1
    lost = {cell["subgoal"]: cell for cell in found["measures"]["graded support"]["removals"][0]["subgoals"]}
    assert (lost["hearts"]["original"], lost["hearts"]["after"], lost["hearts"]["relative"]) == (0.4, 0.0, -1.0)


@pytest.mark.parametrize(
    ("value", "told"),
    [(float("nan"), None), (1 / 3, 0.333333), (1 / 10001, 9.999e-05), (1.5e-9, 1.5e-09), (1.85e-16, 0.0)],
)
def test_numbers_keep_six_digits_however_small(value: float, told: float | None) -> None:
    assert validation.number(value) == told


def test_cells_pair_alignment_with_what_is_lost() -> None:
    found = list(validation.cells(mix("natural", None)))
    assert [(removal["removal"], cell["subgoal"]) for removal, cell, _ in found] == [
        (name, subgoal) for name in ("Heart rows", "Half of them") for subgoal in IDS
    ]
    assert all(cell["subgoal"] == loss["subgoal"] for _, cell, loss in found)
    assert found[1][1]["original"] == 0.44 and found[1][2]["original"] == 0.4


# In words


def cell(subgoal: str, *numbers: float | None, target: bool = False) -> dict[str, Any]:
    names = ("original", "after", "absolute", "relative", "low", "high", "p")
    return {"subgoal": subgoal, "target": target, **dict(zip(names, numbers, strict=True))}


def small() -> dict[str, Any]:
    """A record written by hand: a removal that is noticed, and one whose rows were not there."""

    def removals(hearts: dict[str, Any], drugs: dict[str, Any], flagged: bool) -> list[dict[str, Any]]:
        told = {"target": "hearts", "kind": "removal", "n_removed": 4, "retention": 0.6, "most_affected": True}
        return [{"removal": "Heart rows", **told, "flagged": flagged, "subgoals": [hearts, drugs]}]

    aligned = removals(
        cell("hearts", 0.44, 0.2, -0.24, -0.545455, -0.6, -0.4, 0.0005, target=True),
        cell("drugs", 0.01, 0.012, 0.002, None, -0.001, 0.005, 0.7),
        True,
    )
    lost = removals(
        cell("hearts", 0.4, 0.0, -0.4, -1.0, -1.0, -1.0, 0.0005, target=True),
        cell("drugs", None, None, None, None, None, None, None),
        True,
    )
    separation = {
        "n": 1,
        "n_most_affected": 1,
        "n_flagged": 1,
        "target": 0.545455,
        "target_interval": [0.4, 0.6],
        "others": 0.021,
        "others_interval": [None, None],
        "p": None,
        "p_ranks": None,
        "d": 1.236,
        "d_paired": None,
        "d_interval": [0.9, 1.5],
    }
    both = {
        "alignment": {"removals": aligned, "separation": separation, "natural_gaps": None},
        "graded support": {"removals": lost, "separation": None, "natural_gaps": None},
    }
    mixes = [
        {"mix": "natural", "seed": None, "n_rows": 10, "measures": both},
        {"mix": "strategic", "seed": 0, "n_rows": 8, "measures": both},
    ]
    told = {"study": "hearts", "card": "by hand", "judge": "0123456789abcdef", "value": "corrected", "seed": 0}
    return {**told, "n_seeds": 1, "n_rows": 10, "mixes": mixes}


GOLDEN = r"""# Validation: hearts

Judge by hand (digest 0123456789ab), value corrected, 10 rows judged. A star marks the subgoal that should fall. `chance` is the share of random removals of as many rows that lower it as much.

## Natural mix, 10 rows

| removed | subgoal | alignment | after | change | 95% interval | chance | support | after | change | 95% interval | kept |
|---|---|---|---|---|---|---|---|---|---|---|---|
| Heart rows | hearts \* | 0.440 | 0.200 | -54.5% | -60.0% to -40.0% | 0.0005 | 0.400 | 0.000 | -100.0% | -100.0% to -100.0% | 60.0% |
|  | drugs | 0.010 | 0.012 | +0.002 | -0.001 to +0.005 | 0.7000 | – | – | – | – to – |  |

- removals: the target is the most affected in 1 of 1, and falls by more than chance (p < 0.01) in 1 of 1
- removals, alignment: targets lose 54.5% (40.0% to 60.0%), others 2.1% (– to –); Cohen's d, pooled, 1.24 (0.90 to 1.50), n = 1

## Strategic sample, seed 0, 8 rows

| removed | subgoal | alignment | after | change | 95% interval | chance | support | after | change | 95% interval | kept |
|---|---|---|---|---|---|---|---|---|---|---|---|
| Heart rows | hearts \* | 0.440 | 0.200 | -54.5% | -60.0% to -40.0% | 0.0005 | 0.400 | 0.000 | -100.0% | -100.0% to -100.0% | 60.0% |
|  | drugs | 0.010 | 0.012 | +0.002 | -0.001 to +0.005 | 0.7000 | – | – | – | – to – |  |

- removals: the target is the most affected in 1 of 1, and falls by more than chance (p < 0.01) in 1 of 1
- removals, alignment: targets lose 54.5% (40.0% to 60.0%), others 2.1% (– to –); Cohen's d, pooled, 1.24 (0.90 to 1.50), n = 1

## Over 1 strategic samples

| removed | target | alignment | over seeds | most affected | p \< 0.01 | support | over seeds |
|---|---|---|---|---|---|---|---|
| Heart rows | hearts | -54.5% | -54.5% to -54.5% | 1 of 1 | 1 of 1 | -100.0% | -100.0% to -100.0% |

Whatever was removed, its target fell by more than chance, and no other subgoal fell as far: this judge sees these capabilities in these data.
"""  # noqa: E501


def test_markdown_is_as_it_was() -> None:
    assert validation.markdown(small()) == GOLDEN


def test_the_natural_mix_decides_what_to_believe() -> None:
    told = small()
    [whole] = validation.judgement(told)
    assert "more than chance" in whole
    for removal in told["mixes"][0]["measures"]["alignment"]["removals"]:
        removal["flagged"] = False
    assert validation.judgement(told) == [
        "NOT NOTICED: Heart rows. Its removal does not lower hearts by more than chance: do not trust this judge's "
        "coverage of hearts on these data."
    ]


def test_what_could_not_be_tested_is_not_held_against_the_judge() -> None:
    told = json.loads(json.dumps(small()))
    [removal] = told["mixes"][0]["measures"]["alignment"]["removals"]
    removal["flagged"] = False
    removal["subgoals"][0]["p"] = None
    [said] = validation.judgement(told)
    assert said.startswith("NOT TESTED: Heart rows.")


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
    assert "the target is the most affected in 1 of 1" in told[0]
    assert "targets lose 100.0%" in told[2]


def test_seeds_are_of_the_strategic_samples() -> None:
    lines = validation.seeds(record())
    assert [line[:2] for line in lines] == [["Heart rows", "hearts"], ["Half of them", "hearts"]]
    assert lines[0][2:4] == ["-54.5%", "-54.5% to -54.5%"] and lines[0][4] == "2 of 2"
    assert all(len(line) == len(validation.SEEDS_HEADER) for line in lines)
    assert validation.seeds({"mixes": [mix("natural", None)]}) == []


def test_a_table_has_a_line_for_each_cell() -> None:
    lines = validation.rows(mix("natural", None))
    assert [line[0] for line in lines] == ["Heart rows", "", "", "Half of them", "", ""]
    assert [line[1] for line in lines[:3]] == ["plain", "hearts *", "drugs"]
    assert all(len(line) == len(validation.HEADER) for line in lines)


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
    told = record((name, "Half of them"), study=name, card=name)
    for each in told["mixes"]:
        for measure in each["measures"].values():
            for removal in measure["removals"]:
                removal["flagged"] = False
    text = validation.markdown(told)
    tables = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    widths = [len(cells_of(line)) for line in tables]
    assert widths == 14 * [len(validation.HEADER)] + 3 * [len(validation.SEEDS_HEADER)]
    assert sum(cells_of(line)[0] == name for line in tables) == 3
    bare = re.sub(r"\\.", "", re.sub(r"(?m)^(#+ |- |\|).*", lambda line: line[0].lstrip("#-|"), text))
    bare = bare.replace("`chance`", "").replace("(p < 0.01)", "").replace("|", "")
    assert not re.search(r"[<>`\[\]*_~]", bare.replace("removals, ", "")), bare
    assert text.count("\n# ") == 0 and text.startswith("# Validation: ")


def test_a_name_stays_on_its_line() -> None:
    assert validation.escaped("a\n\n# b\r\nc") == "a \\# b c"
    assert validation.table(["x"], [["a\nb"]]) == "| x |\n|---|\n| a b |"


# The figure


def texts(svg: str) -> list[str]:
    """What stands in the comments with which matplotlib tells its texts."""
    return [found.strip() for found in re.findall(r"<!--(.*?)-->", svg, re.DOTALL)]


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
    if "--" not in name and "&" not in name and "<" not in name:
        assert f"{name} (4 of 10 rows)" in texts(svg)


def test_a_figure_of_nothing_is_empty_and_says_so_without_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = dumbbells({}, title="hearts, by hand", label="graded support")
    assert "hearts, by hand" in texts(svg)
    ElementTree.fromstring(svg)


def test_a_subgoal_named_like_a_removal_is_no_heading() -> None:
    def bold(svg: str) -> int:
        return len(re.findall(r'id="DejaVuSans-Bold', svg))

    one = dumbbells({"hearts": [("drugs", 0.5, 0.1, True)]}, title="", label="")
    other = dumbbells({"hearts": [("hearts", 0.5, 0.1, True)]}, title="", label="")
    assert bold(one) == bold(other) == len(set("hearts"))
