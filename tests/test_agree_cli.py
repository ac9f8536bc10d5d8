"""`goalcover agree` as users run it: judges beside each other and beside labels, a queue for people, and probes."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import GOAL, Goalcover, WordsEngine, many, rows
from judged import SUBGOALS, Values, judged_run, probabilities

from goalcover_local.cards import DEFAULT_CARD
from goalcover_local.cli.labelling import labelled
from goalcover_local.cli.results import results
from goalcover_local.errors import DataError
from goalcover_local.store import Run
from goalcover_local.terms import Judgement

CANARY = "Zwiebelkuchen4711"
FIRST: dict[str, Values] = {
    "a0": [0.8, 0.2],
    "a1": [0.2, 0.0],
    "a2": [1.0, 0.6],
    "a3": [0.0, 0.4],
    f"=a4 {CANARY}": [0.4, None],
    "a5": [0.6, 0.2],
}
SECOND: dict[str, Values] = {
    "a0": [0.8, 0.2],
    "a1": [0.4, 0.2],
    "a2": [0.8, 0.6],
    "a3": [1.0, 0.6],
    f"=a4 {CANARY}": [0.6, 0.2],
}
LABELS = "id,subgoal,label,drawn\ndata:1,treatment,1,random\ndata:2,treatment,no,random\ndata:3,treatment,yes,random\n"
LABELS += "data:4,causes,0.4,random\ndata:6,causes,0,disagreement\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    lines = [{"question": f"q{n}", "answer": answer} for n, answer in enumerate(FIRST)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return with_judge(judged_run(tmp_path / "run", data, FIRST), {"card": "another"}, SECOND)


def with_judge(folder: Path, identity: Mapping[str, Any], said: Mapping[str, Values]) -> Path:
    """The run's folder, another judge having judged in it."""
    with Run.open(folder, write=True) as opened:
        judge = opened.put_judge(identity)
        digests = {row.output: row.digest for row in opened.rows()}
        opened.append(
            judge,
            [
                Judgement(digests[output], subgoal.digest, None if value is None else probabilities(value), failure)
                for output, found in said.items()
                for subgoal, value in zip(SUBGOALS, found, strict=True)
                for failure in ["token limit" if value is None else None]
            ],
        )
    return folder


def labels_file(folder: Path, text: str = LABELS) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def as_json(goalcover: Goalcover, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(goalcover("agree", *arguments, "--json").out)
    return found


def sheet(path: Path) -> Sequence[Mapping[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_judges_of_one_run(goalcover: Goalcover, run: Path) -> None:
    found = as_json(goalcover, run)
    assert [judge["name"] for judge in found["judges"]] == ["by hand", "another"]
    [pair] = found["pairs"]
    assert (pair["first"], pair["second"], pair["n"], pair["exact"]) == (
        "by hand",
        "another",
        9,
        pytest.approx(1 / 3, abs=1e-6),
    )
    assert pair["within_one"] == pytest.approx(8 / 9, abs=1e-6)
    assert pair["difference"] == pytest.approx(-1.6 / 9, abs=1e-6)
    assert pair["kappa"]["low"] <= pair["kappa"]["value"] <= pair["kappa"]["high"]
    assert found["alpha"]["n"] == 9 and -1 < found["alpha"]["value"] < 1
    milder = next(each for each in found["bias"] if each["judge"] == "another")
    assert milder["beside"] == "by hand" and milder["counts"] == [2, 2, 2, 1, 1, 1]
    assert milder["means"] == pytest.approx([0.6, 0.1, 0.2, 0, 0, -0.2], abs=1e-6)
    assert (found["value"], found["labels"], found["queue"], found["probes"]) == ("expectation", None, None, [])
    assert found["recorded"] is True


def test_the_tables_say_it_in_words(goalcover: Goalcover, run: Path) -> None:
    said = goalcover("agree", run)
    [line] = [line.split() for line in said.out.splitlines() if "by hand – another" in line]
    assert line[4] == "9" and line[-1] == "-0.178"
    assert "Krippendorff's alpha of all 2 judges: 0." in said.out and "on 9 pairs" in said.out
    assert "another above by hand" in said.out and "+0.600 (2)" in said.out
    assert CANARY not in said.out + said.err


def test_pairs_of_several_runs_meet_by_digest(goalcover: Goalcover, run: Path, data: Path, tmp_path: Path) -> None:
    """Other ids, another order, rows of its own: the same pairs agree all the same."""
    lines = data.read_text(encoding="utf-8").splitlines()
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(['{"question": "new", "answer": "new"}', *reversed(lines)]), encoding="utf-8")
    alone = judged_run(tmp_path / "first", data, FIRST)
    apart = with_judge(judged_run(tmp_path / "second", other, {"new": [1, 1]}), {"card": "another"}, SECOND)
    together, found = as_json(goalcover, run), as_json(goalcover, alone, apart)
    assert found["pairs"][0]["n"] == together["pairs"][0]["n"] == 9
    assert found["judges"] == together["judges"] and found["pairs"][0]["exact"] == together["pairs"][0]["exact"]
    assert found["pairs"][0]["kappa"]["value"] == pytest.approx(together["pairs"][0]["kappa"]["value"])
    assert found["alpha"] == together["alpha"] and found["bias"] == together["bias"]
    assert len(found["runs"]) == 2
    for folder in (alone, apart):
        with Run.open(folder, write=False) as opened:
            assert opened.events()[-2].kind == "agreement measured" and opened.verify_events() == []


def test_cards_that_repeat_are_told_apart_by_digest(goalcover: Goalcover, run: Path) -> None:
    with_judge(run, {"card": "another", "precision": "float16"}, SECOND)
    found = as_json(goalcover, run)
    assert [j["name"] for j in found["judges"][1:]] == [f"another {j['digest'][:8]}" for j in found["judges"][1:]]
    assert len(found["pairs"]) == 3 and len(found["bias"]) == 6


def test_one_judge_alone_is_told_what_to_add(goalcover: Goalcover, data: Path, tmp_path: Path) -> None:
    alone = judged_run(tmp_path / "alone", data, FIRST)
    said = goalcover.refused("agree", alone)
    assert "nobody to agree with" in said and "--labels FILE, or --probes" in said
    assert "no disputed pairs" in goalcover.refused("agree", alone, "--queue", "q.csv", "--probes")
    assert not (tmp_path / "q.csv").exists()
    assert "All these runs are of one judge, by hand" in goalcover.refused("agree", alone, alone)


def test_a_judge_without_the_value_is_left_out(goalcover: Goalcover, run: Path) -> None:
    assert "another has no corrected values" in goalcover("agree", run, "--value", "corrected", code=1).err
    assert as_json(goalcover, run, "--value", "score")["value"] == "score"


def test_judges_beside_labels(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    said = goalcover("agree", run, "--labels", labels_file(tmp_path), "--json")
    labels = json.loads(said.out)["labels"]
    assert "1 of the labelled pairs was not drawn at random" in said.err
    assert (labels["n"], labels["mean"], labels["base_rate"]["value"]) == (5, pytest.approx(0.48), pytest.approx(0.4))
    by_hand, another, constant = labels["fits"]
    assert [fit["name"] for fit in labels["fits"]] == ["by hand", "another", "always the subgoal's mean"]
    assert (by_hand["n"], another["n"], constant["n"]) == (5, 4, 5)
    assert by_hand["error"]["value"] == pytest.approx((0.2 + 0.2 + 0 + 0 + 0.2) / 5)
    assert by_hand["auc"]["value"] == 1 and constant["auc"]["value"] == 0.5
    assert by_hand["support"]["value"] == 1 and constant["support"]["value"] == pytest.approx(0.8)
    assert constant["error"]["value"] == pytest.approx((3 * 4 / 9 + 0.2 + 0.2) / 5) and labels["alike"] is False
    pairs = {(each["first"], each["second"]): each["n"] for each in json.loads(said.out)["pairs"]}
    assert pairs == {("by hand", "another"): 9, ("by hand", "labels"): 5, ("another", "labels"): 4}
    beside = [each["judge"] for each in json.loads(said.out)["bias"] if each["beside"] == "labels"]
    assert beside == ["by hand", "another"]


def test_one_judge_beside_labels_in_words(goalcover: Goalcover, data: Path, tmp_path: Path) -> None:
    alone = judged_run(tmp_path / "alone", data, FIRST)
    said = goalcover("agree", alone, "--labels", labels_file(tmp_path))
    assert (
        "always the subgoal's mean" in said.out
        and "alike" not in said.out
        and "Base rate: 0.400 (" in said.out
        and "alpha" not in said.out
    )
    assert "by hand above labels" in said.out


def test_labels_that_fit_nothing_are_told_by_line(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    bad = f"{LABELS}{CANARY},treatment,1,\ndata:1,{CANARY},1,\ndata:1,causes,{CANARY},\n"
    said = goalcover("agree", run, "--labels", labels_file(tmp_path, bad))
    assert "3 rows of labels.csv were refused and are no labels:" in said.err
    assert "refused labels.csv:7: its id is that of no row that was assessed" in said.err
    assert "refused labels.csv:8: its subgoal is none of the goal's" in said.err
    assert "refused labels.csv:9: column 'label' must be yes, no or a number" in said.err
    assert CANARY not in said.out + said.err
    useless = labels_file(tmp_path, f"id,subgoal,label\n{CANARY},treatment,1\ndata:1,treatment,\n")
    said = goalcover("agree", run, "--labels", useless, code=1)
    assert "has no label that can be used" in said.err and CANARY not in said.err
    assert "1 row of labels.csv was refused and is no label:" in said.err


def test_where_only_the_column_drawn_is_wrong_nothing_is_said_of_labels(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    lines = "".join(f"data:{n},treatment,1,{CANARY}\n" for n in range(1, 7))
    said = goalcover.refused("agree", run, "--labels", labels_file(tmp_path, f"id,subgoal,label,drawn\n{lines}"))
    assert "refused labels.csv:2, 3, 4, 5, 6, 7: column 'drawn' must be random, disagreement or empty" in said
    assert "Mend the rows refused." in said and "column 'label'" not in said and CANARY not in said
    empty = labels_file(tmp_path, "id,subgoal,label\ndata:1,treatment,\n")
    assert "Fill its column 'label'" in goalcover.refused("agree", run, "--labels", empty)


def test_of_many_refusals_ten_lines_and_ten_reasons_are_told(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    unknown = "".join(f"no:{n},treatment,1,random\n" for n in range(12))
    twice = "data:1,treatment,1,random\n" * 2 + "data:2,treatment,1,random\n" * 2
    short = "".join("x" + "," * (4 + n) + "\n" for n in range(9))
    text = f"id,subgoal,label,drawn\n{unknown}{twice}{short}"
    told = goalcover("agree", run, "--labels", labels_file(tmp_path, text)).err.splitlines()
    assert "23 rows of labels.csv were refused and are no labels:" in told
    assert "  refused labels.csv:2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more: its id is that of no row" in told[1]
    assert told[11] == "  and 2 more" and sum(line.startswith("  refused") for line in told) == 10


def test_labels_that_are_all_alike_are_said_to_tell_nothing(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    alike = labels_file(tmp_path, "id,subgoal,label\ndata:1,treatment,1\ndata:2,causes,1\n")
    assert (
        "All labels are alike: they cannot tell a good judge from a bad one."
        in goalcover("agree", run, "--labels", alike).out
    )
    assert as_json(goalcover, run, "--labels", alike)["labels"]["alike"] is True


# Ids of different rows


@pytest.fixture
def two_files(tmp_path: Path) -> tuple[Path, Path]:
    """Runs of two judges over files of one name that share rows at other lines, so that ids are of different rows."""
    folders = []
    for name, card, order, said in (("one", "", [0, 1, 2, 3], FIRST), ("two", "another", [0, 2, 1], SECOND)):
        path = tmp_path / name / "data.jsonl"
        path.parent.mkdir()
        answers = list(FIRST)
        path.write_text(
            "".join(json.dumps({"question": f"q{n}", "answer": answers[n]}) + "\n" for n in order), encoding="utf-8"
        )
        folders.append(judged_run(path.parent / "run", path, {} if card else said))
        if card:
            with_judge(folders[-1], {"card": card}, {answers[n]: said[answers[n]] for n in order})
    return folders[0], folders[1]


def test_labels_of_an_id_that_is_of_different_rows_are_refused(
    goalcover: Goalcover, two_files: tuple[Path, Path], tmp_path: Path
) -> None:
    text = "id,subgoal,label\n" + "".join(f"data:{n},treatment,{n % 2}\n" for n in range(1, 5))
    said = goalcover("agree", *two_files, "--labels", labels_file(tmp_path, text), "--json")
    assert "refused labels.csv:3, 4: its id is that of different rows" in said.err
    assert json.loads(said.out)["labels"]["n"] == 2
    alone = goalcover("agree", two_files[0], "--labels", labels_file(tmp_path, text), "--json")
    assert json.loads(alone.out)["labels"]["n"] == 4, "in one run no id is of two rows"


def test_pairs_without_an_id_of_their_own_are_not_queued(
    goalcover: Goalcover, two_files: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = two_files
    with_judge(one, {"card": "another"}, {"a0": [0.2, 0.2]})
    said = goalcover("agree", one, two, "--queue", "queue.csv", "--json")
    assert "3 disputed pairs cannot be queued: ids are those of different rows" in said.err
    told = json.loads(said.out)["queue"]
    assert (told["n"], told["n_left_out"]) == (1, 3)
    assert [(row["id"], row["output"]) for row in sheet(tmp_path / "queue.csv")] == [("data:1", "a0")]


def test_the_queue_holds_what_is_most_disputed(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    found = as_json(goalcover, run, "--queue", "queue.csv", "--queue-rows", 3)
    assert found["queue"]["n"] == 3 and stat.S_IMODE((tmp_path / "queue.csv").stat().st_mode) == 0o600
    first, *others = sheet(tmp_path / "queue.csv")
    assert (first["id"], first["subgoal"], first["input"], first["output"]) == ("data:4", "treatment", "q3", "a3")
    assert first["capability"] == "Treatment: How it is treated."
    assert (first["label"], first["drawn"], first["spread"]) == ("", "disagreement", "1.0")
    assert (first["by hand"], first["another"]) == ("0.0", "1.0")
    assert [float(each["spread"]) for each in others] == pytest.approx([0.2, 0.2])
    with Run.open(run, write=False) as opened:
        event = opened.events()[-2]
    told = json.loads(event.details)
    assert told["n_queue"] == 3 and told["queue"] == found["queue"]["digest"] and CANARY not in event.details


def test_a_queue_filled_by_people_is_read_as_labels(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    goalcover("agree", run, "--queue", "queue.csv")
    queued = sheet(tmp_path / "queue.csv")
    assert len(queued) == 6 and f"'=a4 {CANARY}" in [each["output"] for each in queued]
    filled = [{**each, "label": "yes"} for each in queued[:2]] + list(queued[2:])
    with (tmp_path / "filled.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, queued[0])
        table.writeheader()
        table.writerows(filled)
    said = goalcover("agree", run, "--labels", "filled.csv", "--queue", "more.csv", "--json")
    assert "2 of the labelled pairs were not drawn at random" in said.err
    assert json.loads(said.out)["labels"]["n"] == 2
    assert [row["id"] for row in sheet(tmp_path / "more.csv")] == [row["id"] for row in queued[2:]]


def test_the_queue_never_takes_the_place_of_data_or_labels(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    labels = labels_file(tmp_path)
    goalcover("agree", run, "--labels", labels, "--queue", "labels.csv", code=1)
    assert labels.read_text(encoding="utf-8") == LABELS
    assert "end its name with .csv" in goalcover("agree", run, "--queue", "data.jsonl", code=2).err
    goalcover("agree", run, "--queue", "queue.csv")
    goalcover("agree", run, "--queue", "queue.csv", "--queue-rows", 2)
    filled = (tmp_path / "queue.csv").read_text(encoding="utf-8").replace(",,disagreement", ",yes,disagreement", 1)
    (tmp_path / "queue.csv").write_text(filled, encoding="utf-8")
    assert "has labels in it" in goalcover.refused("agree", run, "--queue", "queue.csv")
    assert (tmp_path / "queue.csv").read_text(encoding="utf-8") == filled


@pytest.mark.parametrize(
    ("idle", "told"),
    [
        (["--queue-rows", "50"], "--queue-rows does nothing without --queue"),
        (["--probe-rows", "50"], "--probe-rows does nothing without --probes"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    goalcover: Goalcover, run: Path, idle: list[str], told: str
) -> None:
    assert told in goalcover("agree", run, *idle, code=2).err


def test_labels_of_rows_as_an_assessment_drew_them(run: Path, tmp_path: Path) -> None:
    with Run.open(run, write=False) as opened:
        found = results(opened)
        labels = labelled(opened, found, labels_file(tmp_path))
    place = {int(position): row for row, position in enumerate(found.positions)}
    assert labels.values.shape == labels.random.shape == (7, 2) and labels.n_labels == 5 and len(labels.digest) == 64
    assert labels.values[place[0]].tolist()[0] == 1 and labels.values[place[3], 1] == pytest.approx(0.4)
    assert (labels.values == labels.values).sum() == 5
    assert not labels.random[place[5], 1] and labels.random.sum() == 13


def test_labels_of_rows_that_were_not_drawn_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = judged_run(tmp_path / "part", data, FIRST, limit=2)
    with Run.open(folder, write=False) as opened:
        found = results(opened)
        drawn = {f"data:{position + 1}" for position in found.positions}
        text = "".join(f"data:{n},treatment,1\n" for n in range(1, 8))
        labels = labelled(opened, found, labels_file(tmp_path, f"id,subgoal,label\n{text}"))
        assert labels.n_labels == len(drawn) == 2 and labels.values[:, 0].tolist() == [1, 1]
        assert "5 rows of labels.csv were refused" in capsys.readouterr().err
        others = "".join(f"data:{n},treatment,1\n" for n in range(1, 8) if f"data:{n}" not in drawn)
        with pytest.raises(DataError, match="no label that can be used"):
            labelled(opened, found, labels_file(tmp_path, f"id,subgoal,label\n{others}"))


def test_equal_rows_share_the_mean_of_their_labels(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    text = "id,subgoal,label\ndata:1,treatment,1\ndata:7,treatment,0\ndata:2,treatment,0\n"
    labels = as_json(goalcover, run, "--labels", labels_file(tmp_path, text))["labels"]
    assert (labels["n"], labels["mean"]) == (2, pytest.approx(0.25))


# Probes


@pytest.fixture
def assessed(goalcover: Goalcover, words: WordsEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run that the judge of words assessed, under the name of a card that is known."""
    described = {**words.describe(), "card": DEFAULT_CARD}
    monkeypatch.setattr(words, "describe", lambda: described)
    (tmp_path / "goal.toml").write_text(GOAL, encoding="utf-8")
    data = rows(tmp_path / "rows.jsonl", *many(12))
    goalcover("assess", "goal.toml", data, "--run", "assessed", "--explain", "none", "--value", "expectation")
    return tmp_path / "assessed"


def test_probes_ask_the_runs_judge(goalcover: Goalcover, assessed: Path, words: WordsEngine) -> None:
    before = len(words.history)
    [probed] = as_json(goalcover, assessed, "--probes", "--probe-rows", 6)["probes"]
    asked = [text for text in words.samples[before:] if "Ignore the rubric" in text]
    assert len(asked) == 6 * 2
    assert probed["name"] == DEFAULT_CARD and [each["subgoal"] for each in probed["lengths"]] == ["ropes", "bread"]
    moves = {each["probe"]: each for each in probed["moves"]}
    assert list(moves) == ["output twice", "subgoals reversed", "samples shuffled", "order", "forged fences"]
    assert all((each["n"], each["n_failed"]) == (12, 0) for each in probed["moves"])
    for name in ("subgoals reversed", "samples shuffled"):
        assert (moves[name]["distance"], moves[name]["biased"]) == (0, False)
    with Run.open(assessed, write=False) as opened:
        told = json.loads(opened.events()[-2].details)
    assert told["probed"] == [probed["digest"]] and told["probe_rows"] == 6


def test_probes_in_words_and_the_same_again(goalcover: Goalcover, assessed: Path) -> None:
    said = goalcover("agree", assessed, "--probes", "--probe-rows", 4, "--seed", 3)
    assert f"Probes of {DEFAULT_CARD}:" in said.out and "Spearman with length" in said.out
    assert said.out == goalcover("agree", assessed, "--probes", "--probe-rows", 4, "--seed", 3).out


def test_failures_of_a_probe_leave_with_3(goalcover: Goalcover, assessed: Path, words: WordsEngine) -> None:
    words.fails_on = "Ignore the rubric"
    said = goalcover("agree", assessed, "--probes", "--probe-rows", 4, "--json", code=3)
    [probed] = json.loads(said.out)["probes"]
    assert {each["probe"]: each["n_failed"] for each in probed["moves"]}["order"] == 8
