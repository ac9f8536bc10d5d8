"""`goalcover purge`: not a byte of a text is left in the folder, all numbers are; killed, it is finished."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command import Goalcover
from terminal import Terminal
from writer import Writer, named, opened, sampled

from goalcover_local import purging
from goalcover_local.cli.purge import LEFT
from goalcover_local.errors import StoreError
from goalcover_local.folder import DATABASE
from goalcover_local.scales import reference_samples
from goalcover_local.store import Run
from goalcover_local.terms import Explanation, Refusal, Sample
from goalcover_local.trainings import Trainings

GOAL = """\
goal = "Answer questions about ropes and bread"

[[subgoals]]
id = "ropes"
name = "Knots and ropes"
description = "Explains how to tie knots and join ropes."
target_share = 0.3

[[subgoals]]
id = "bread"
name = "Baking bread"
description = "Explains how dough for bread is made, proved and baked."
target_share = 0.3
"""
ASKED, SAID, READ = "Zwiebelkuchen4711", "Apfelstrudel0815", "Kaiserschmarrn42"
NAME, PATH = "Mustermann1968", "Musterklinik"
TOLD, WRITTEN, NEAR = "Dampfnudel77", "Germknoedel99", "Palatschinke11"
TEXTS = (ASKED, SAID, READ, TOLD, WRITTEN, NEAR)
"""Words of inputs, outputs, other columns, explanations, candidates and what an analyst wrote."""
N_ROWS = 12
PURGE = ("purge", "run", "--samples", "--yes")


def row(n: int) -> dict[str, str]:
    text = f"Which knots join ropes, {ASKED}, on ship {n}?"
    return {"id": f"{NAME}-{n}", "question": text, "answer": f"Tie both ropes {n} times, {SAID}.", "note": READ}


def planted(folder: Path) -> dict[str, list[str]]:
    """By word, the files under a folder that hold it, in their names or in any byte."""
    found: dict[str, list[str]] = {}
    for path in (each for each in folder.rglob("*") if each.is_file()):
        raw = path.read_bytes() + os.fsencode(path)
        for word in (*TEXTS, NAME, PATH):
            if word.encode() in raw or word.encode("utf-16-le") in raw:
                found.setdefault(word, []).append(path.name)
    return found


@pytest.fixture
def writer(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """The model of every command, whose words give away what it wrote."""
    engine = opened(monkeypatch, Writer())
    engine.named = lambda texts, seed: [f"{topic} {NEAR}" for topic in named(texts, seed)]
    engine.sampled = lambda texts, columns, seed: {
        column: f"{text} {WRITTEN}" for column, text in sampled(texts, columns, seed).items()
    }
    return engine


@pytest.fixture
def data(tmp_path: Path, goalcover: Goalcover) -> Path:
    place = tmp_path / PATH
    place.mkdir()
    path = place / "rows.jsonl"
    lines = [json.dumps(row(n)) for n in range(N_ROWS)]
    lines += [json.dumps(row(0)), json.dumps({"id": f"{NAME}-x", "question": ASKED, "answer": ""}), f'{{"{READ}']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run(goalcover: Goalcover, writer: Writer, data: Path) -> Path:
    """A run that went through every phase, and holds every kind of text."""
    Path("goal.toml").write_text(GOAL, encoding="utf-8")
    goalcover("assess", "goal.toml", data, "--run", "run", "--value", "expectation", "--explain", "all")
    goalcover("analyze", "run")
    goalcover("recommend", "run")
    goalcover("synthesize", "run", "-n", 3)
    with Run.open("run", write=True) as open_run:
        judge, bread = next(iter(open_run.judges())), open_run.goal().subgoals[1].digest
        first = next(open_run.rows()).digest
        open_run.append_explanations(judge, [Explanation(first, bread, f"It tells {TOLD}.", f'{{"x": "{TOLD}"}}')])
        open_run.remember(
            {
                "a": {"text": f"{TOLD} wrote this", "n_tokens": 3},
                "b": {"dimensions": {"truth": 2.5}, "failure": "token limit"},
                "c": [0.25, None, 0.75],
                "d": {"probabilities": None, "failure": "scripted failure"},
            }
        )
    return Path("run").absolute()


def shown(goalcover: Goalcover, *arguments: object) -> Any:
    return json.loads(goalcover(*arguments).out)


def judgements(goalcover: Goalcover) -> list[dict[str, Any]]:
    return [json.loads(line) for line in goalcover("export", "run").out.splitlines()]


# What goes


def test_every_kind_of_text_is_there_before_it_is_purged(run: Path) -> None:
    assert {*TEXTS, NAME, PATH} == set(planted(run)), "else its absence afterwards would prove nothing"


def test_not_a_byte_of_a_text_is_left(goalcover: Goalcover, run: Path) -> None:
    told = shown(goalcover, *PURGE, "--json")["runs"][0]
    assert set(planted(run)) == {NAME, PATH}
    assert told["removed"]["samples"] >= N_ROWS and told["removed"]["rows"] == N_ROWS
    assert told["removed"]["explanations"] and told["removed"]["candidates"] and told["removed"]["answers"]


def test_with_ids_not_a_byte_of_a_name_is_left_either(goalcover: Goalcover, run: Path) -> None:
    goalcover(*PURGE, "--ids")
    assert planted(run) == {}
    ids = {each["id"] for each in judgements(goalcover)}
    assert len(ids) == N_ROWS and all(len(each) == 39 and each.startswith("sha256:") for each in ids)
    goalcover(*PURGE, "--ids")
    assert {each["id"] for each in judgements(goalcover)} == ids, "a digest of a digest would be another name"


def test_free_pages_and_the_log_are_looked_through_too(goalcover: Goalcover, run: Path) -> None:
    """Texts that were overwritten long before lie in free pages, and all that was written lately in the log."""
    with closing(sqlite3.connect(run / DATABASE, isolation_level=None)) as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE old(text)")
        database.executemany("INSERT INTO old VALUES (?)", ((f"{TOLD} " * 3000,) for _ in range(20)))
        database.execute("DROP TABLE old")
        assert database.execute("PRAGMA freelist_count").fetchone()[0] > 20
        goalcover(*PURGE, "--ids")
        assert planted(run) == {}
    with closing(sqlite3.connect(run / DATABASE)) as database:
        assert database.execute("PRAGMA freelist_count").fetchone() == (0,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_answers_that_are_numbers_stay(goalcover: Goalcover, run: Path) -> None:
    goalcover(*PURGE)
    with Run.open(run, write=False) as after:
        assert {"b", "c", "d"} <= set(after.memory()) and "a" not in after.memory()


def test_reference_samples_stay_for_they_ship(goalcover: Goalcover, run: Path) -> None:
    with Run.open(run, write=True) as before:
        before.put_samples(reference_samples())
    goalcover(*PURGE)
    with Run.open(run, write=False) as after:
        for sample in reference_samples():
            assert after.sample(sample.digest).input == sample.input


def test_every_table_is_known_to_the_purge(tmp_path: Path) -> None:
    """A table that is added must be thought of here: does it hold text?"""
    with Run.open(tmp_path / "new", write=True, create=True) as new:
        tables = {name for (name,) in new._read("SELECT name FROM sqlite_master WHERE type = 'table'")}
    known = {*purging.CHANGED, *purging.NAMED, *purging.KEPT}
    assert {name for name in tables if not name.startswith("sqlite_")} == known


# What stays


def test_numbers_are_what_they_were(goalcover: Goalcover, run: Path) -> None:
    def numbers() -> Any:
        exported = [
            {key: value for key, value in each.items() if key != "explanation"} for each in judgements(goalcover)
        ]
        return exported, shown(goalcover, "show", "run", "--json")

    before = numbers()
    status = shown(goalcover, "status", "run", "--json")
    goalcover(*PURGE)
    assert numbers() == before
    assert all(each["explanation"] is None for each in judgements(goalcover))
    after = shown(goalcover, "status", "run", "--json")
    same = ("rows", "assess", "verdicts", "analyze", "recommend")
    assert {name: after[name] for name in same} == {name: status[name] for name in same}
    assert after["texts"].startswith("purged") and after["explanations"] == 0 and "texts" not in status


def test_gaps_and_recommendations_are_still_counted_and_exported(goalcover: Goalcover, run: Path) -> None:
    before = [json.loads(line) for line in goalcover("export", "run", "--what", "gaps").out.splitlines()]
    goalcover(*PURGE)
    after = [json.loads(line) for line in goalcover("export", "run", "--what", "gaps").out.splitlines()]
    for one, other in zip(before, after, strict=True):
        assert [each["n_rows"] for each in one["missing"]] == [each["n_rows"] for each in other["missing"]]
        assert [each["ids"] for each in one["missing"]] == [each["ids"] for each in other["missing"]]
        assert {each["name"] for each in other["missing"]} == {purging.REMOVED}
    written = goalcover("export", "run", "--what", "recommendations").out
    assert purging.REMOVED in written and '"n_missing"' in written
    assert goalcover("export", "run", "--what", "candidates").out == ""


def test_the_chain_is_whole_and_tells_of_the_purge(goalcover: Goalcover, run: Path) -> None:
    with Run.open(run, write=False) as before:
        old = before.events()
    told = shown(goalcover, *PURGE, "--json")["runs"][0]
    with Run.open(run, write=False) as after:
        assert after.verify_events() == []
        events = after.events()
    assert events[: len(old)] == old
    ours = [event for event in events if event.kind in (purging.BEGUN, purging.ENDED)]
    assert [event.kind for event in ours] == [purging.BEGUN, purging.ENDED]
    details = json.loads(ours[-1].details)
    assert details == {**told["removed"], "ids": False, "files": 0}


def test_what_needs_a_text_says_plainly_that_it_was_purged(goalcover: Goalcover, run: Path) -> None:
    goalcover(*PURGE)
    for command in (
        ("analyze", "run"),
        ("filter", "run", "-o", "kept.jsonl"),
        ("mix", "run", "-o", "mix"),
        ("calibrate", "run", "--sheet", "labels.csv"),
        ("synthesize", "run", "-n", 3),
    ):
        said = goalcover(*command, code=1).err
        assert "were purged." in said and "goalcover assess" in said, command
    assert not Path("kept.jsonl").exists() and not Path("labels.csv").exists()


# Given again


@pytest.mark.parametrize("how", [(), ("--ids",)])
def test_given_the_data_again_texts_come_back_and_nothing_is_judged_again(
    goalcover: Goalcover, writer: Writer, run: Path, data: Path, how: tuple[str, ...]
) -> None:
    with Run.open(run, write=False) as before:
        rows, refusals, n_asked = list(before.rows()), before.refusals(), before.n_asked()
    goalcover(*PURGE, *how)
    writer.forget()
    said = goalcover("assess", "goal.toml", data, "--run", "run", "--value", "expectation", "--explain", "none")
    assert f"{len(rows)} rows that were purged have their texts again." in said.err
    with Run.open(run, write=False) as after:
        assert list(after.rows()) == rows and after.refusals() == refusals and after.n_asked() == n_asked
        assert not purging.is_purged(after) and after.verify_events() == []
        assert [event.kind for event in after.events()].count(purging.GIVEN) == 1
    assert not [name for name, _ in writer.asked if name == "alignment"]
    goalcover("analyze", "run")
    goalcover("filter", "run", "-o", "kept.jsonl")


def test_other_data_bring_nothing_back(goalcover: Goalcover, run: Path, data: Path) -> None:
    goalcover(*PURGE)
    data.write_text(data.read_text(encoding="utf-8").replace("ship 3", "ship 4"), encoding="utf-8")
    assert "holds other data" in goalcover("assess", "goal.toml", data, "--run", "run", code=1).err
    with Run.open(run, write=False) as after:
        assert purging.is_purged(after)


def test_rows_that_are_not_those_of_then_are_refused_whole(run: Path) -> None:
    with Run.open(run, write=True) as held:
        rows: list[Sample | Refusal] = [*held.rows()]
        purging.purge(held)
        rows[5] = Sample("other", "other", "other", "rows.jsonl", 6)
        with pytest.raises(StoreError, match=r"Line 6 of rows.jsonl is not what the run"):
            purging.give_again(held, rows)
        assert purging.is_purged(held)
        with pytest.raises(StoreError, match="were purged"):
            next(held.rows())


# Killed in the middle


class Killed(BaseException):
    """The end of a process in its middle."""


@pytest.mark.parametrize("stop", ["_remove_texts", "_remove_ids", "_remove_file", "_shrink"])
def test_killed_anywhere_the_same_command_finishes(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    rows = run / "data"
    rows.mkdir()
    (rows / "train.jsonl").write_text(ASKED, encoding="utf-8")

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(purging, stop, kill)
        with Run.open(run, write=True) as held, pytest.raises(Killed):
            purging.purge(held, ids=True)
    assert "PURGE NOT FINISHED" in goalcover("status", "run").out
    goalcover(*PURGE, "--ids")
    assert planted(run) == {} and not rows.exists()
    assert "PURGE NOT FINISHED" not in goalcover("status", "run").out


def test_another_program_that_reads_keeps_the_purge_from_its_end(goalcover: Goalcover, run: Path) -> None:
    with closing(sqlite3.connect(run / DATABASE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM samples").fetchall()
        said = goalcover.refused(*PURGE)
        assert "Another program reads the run" in said
        assert "PURGE NOT FINISHED" in goalcover("status", "run").out
    goalcover(*PURGE, "--ids")
    assert planted(run) == {}


# What lies beside


def test_rows_of_experiments_go_and_unknown_files_are_named(goalcover: Goalcover, run: Path) -> None:
    for name in ("data/train.jsonl", "mix/original.jsonl"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(ASKED, encoding="utf-8")
    (run / "mine.txt").write_text(f"{ASKED}", encoding="utf-8")
    (run / "experiment.json").write_text("{}", encoding="utf-8")
    told = json.loads(goalcover(*PURGE, "--json", code=LEFT).out)["runs"][0]
    assert [Path(path).name for path in told["files"]] == ["train.jsonl", "original.jsonl"]
    assert [Path(path).name for path in told["left"]] == ["mine.txt"]
    assert planted(run)[ASKED] == ["mine.txt"]
    assert "May hold sample text, and was left: run/mine.txt." in goalcover(*PURGE, code=LEFT).err
    goalcover(*PURGE, "--files")
    assert set(planted(run)) == {NAME, PATH}
    assert {path.name for path in run.iterdir() if not path.name.startswith("run.")} == {"experiment.json"}


def test_links_are_never_followed(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file.txt").write_text("mine", encoding="utf-8")
    (run / "data").symlink_to(outside)
    (run / "policies").symlink_to(outside)
    goalcover(*PURGE, code=LEFT)
    goalcover(*PURGE, "--files")
    assert (outside / "file.txt").read_text(encoding="utf-8") == "mine"
    assert not (run / "data").is_symlink() and not (run / "policies").is_symlink()


def test_what_was_trained_stays_and_is_named(goalcover: Goalcover, run: Path) -> None:
    with Run.open(run, write=True) as held:
        folder = Trainings(held).make_folder("original")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "answers.jsonl").write_text(ASKED, encoding="utf-8")
    said = goalcover(*PURGE, "--files").err
    assert "Trained on the samples, and kept: run/policies/original. Weights may repeat" in said
    assert (folder / "adapter" / "adapter_model.safetensors").exists() and not (folder / "answers.jsonl").exists()


def test_runs_inside_the_folder_are_purged_too(goalcover: Goalcover, run: Path) -> None:
    shutil.copytree(run, run / "without-bread")
    told = shown(goalcover, *PURGE, "--ids", "--json")["runs"]
    assert [Path(each["run"]).name for each in told] == ["without-bread", "run"]
    assert planted(run) == {}
    with Run.open(run / "without-bread", write=False) as inner:
        assert inner.verify_events() == [] and purging.is_purged(inner)


def test_a_file_that_cannot_be_removed_ends_in_words(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "data").mkdir()
    (run / "data" / "train.jsonl").write_text(ASKED, encoding="utf-8")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with Run.open(run, write=True) as held, pytest.raises(StoreError, match=r"cannot be removed \(Permission denied\)"):
        purging.purge(held)


# Asking first


def test_without_a_terminal_it_must_be_told(goalcover: Goalcover, run: Path) -> None:
    assert "add --yes" in goalcover("purge", "run", "--samples", code=2).err
    assert "--samples" in goalcover("purge", "run", code=2).err
    with Run.open(run, write=False) as after:
        assert not purging.is_purged(after)


@pytest.fixture
def typed(run: Path) -> Iterator[Callable[[str], tuple[int, str]]]:
    """Runs the command in a terminal, answers its question, and tells its exit code and what it showed."""
    root = str(Path(__file__).parents[1])
    terminals: list[Terminal] = []

    def type_(answer: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "goalcover_local.cli.main", "purge", str(run), "--samples"]
        terminal = Terminal(command, folder=run.parent, environment={**os.environ, "PYTHONPATH": root})
        terminals.append(terminal)
        terminal.wait_for("Remove these for good?")
        terminal.type(f"{answer}\r")
        return terminal.end(), terminal.shown

    yield type_
    for terminal in terminals:
        terminal.close()


def test_on_a_terminal_it_asks_and_takes_no_for_an_answer(run: Path, typed: Callable[[str], tuple[int, str]]) -> None:
    code, said = typed("n")
    assert code == 130 and "texts of" in said and not set(TEXTS) & set(said.split())
    assert set(TEXTS) <= set(planted(run))
    code, said = typed("y")
    assert code == 0 and f"{N_ROWS} rows" in said
    assert set(planted(run)) == {NAME, PATH}
