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
from writer import GOAL, Writer, named, opened, sampled

from goalcover_local import beside, purging
from goalcover_local.audit import SEALED
from goalcover_local.chain import digest_of_text
from goalcover_local.cli.purge import LEFT
from goalcover_local.decisions import DECIDED, REASON_PURGED
from goalcover_local.errors import StoreError
from goalcover_local.files import digest_of_file
from goalcover_local.folder import DATABASE
from goalcover_local.scales import reference_samples
from goalcover_local.store import Run
from goalcover_local.terms import Explanation, Refusal, Sample
from goalcover_local.trainings import Trainings

ASKED, SAID, READ = "Zwiebelkuchen4711", "Apfelstrudel0815", "Kaiserschmarrn42"
NAME, PATH = "Mustermann1968", "Musterklinik"
TOLD, WRITTEN, NEAR, REASON = "Dampfnudel77", "Germknoedel99", "Palatschinke11", "Marillenknoedel5"
TEXTS = (ASKED, SAID, READ, TOLD, WRITTEN, NEAR, REASON)
"""Words of inputs, outputs, other columns, explanations, candidates, what an analyst wrote, and a person's reason."""
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
    goalcover("decide", "run", "bread", "--verdict", "covered", "--reason", f"One row says {REASON}.")
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


def trained(run: Run) -> Path:
    """The folder of a training that the run holds: an adapter with its card, and a checkpoint."""
    trainings = Trainings(run)
    settings = {"policy": "tiny", "judge": {"reward": "letters"}, "settings": {"steps": 2}, "rows": ["0" * 64]}
    trainings.begin("original", settings)
    folder = trainings.make_folder("original")
    weights, checkpoint = folder / "adapter" / "adapter_model.safetensors", folder / "checkpoints" / "checkpoint-2"
    for path in (weights, checkpoint / "optimizer.pt", checkpoint / "config.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    trainings.add_checkpoint("original", 2, {path.name: digest_of_file(path) for path in checkpoint.iterdir()})
    result = {"files": {weights.name: digest_of_file(weights)}, "n_steps": 2}
    trainings.finish("original", result)
    card = {"name": "original", "reward_name": "letters", "policy": "tiny", **result}
    (folder / "adapter" / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return folder


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
        told = goalcover("show", "run", "--json").out.replace(f"One row says {REASON}.", REASON_PURGED)
        return exported, json.loads(told)

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


def test_the_head_that_is_told_is_the_last(goalcover: Goalcover, run: Path) -> None:
    said = goalcover(*PURGE, "--json")
    [told] = json.loads(said.out)["runs"]
    with Run.open(run, write=False) as after:
        last = after.events()[-1]
    assert (told["event"], told["hash"]) == (last.seq, last.hash)
    assert last.kind == SEALED and f"{last.seq} events, head {last.hash}" in said.err


def test_a_reason_goes_and_its_digest_stays(goalcover: Goalcover, run: Path) -> None:
    def decided() -> Any:
        return json.loads(goalcover("export", "run", "--what", "decisions").out)

    before = decided()
    assert REASON in before["reason"] and REASON in goalcover("show", "run").out
    told = shown(goalcover, *PURGE, "--json")["runs"][0]
    assert told["removed"]["reasons"] == 1
    assert decided() == {**before, "reason": "(reason purged)"}
    assert "bread is covered" in (said := goalcover("show", "run").out) and "Reason: (reason purged)" in said
    with Run.open(run, write=False) as after:
        [event] = [event for event in after.events() if event.kind == DECIDED]
    assert event.told["reason"] == digest_of_text(before["reason"])
    assert shown(goalcover, *PURGE, "--json")["runs"][0]["removed"]["reasons"] == 0


def test_a_text_that_is_there_afterwards_is_an_error(run: Path) -> None:
    """Such as one that a trigger puts back, should a run that has one ever be opened."""
    with Run.open(run, write=True) as held:
        digest, output = held._read("SELECT hex(digest), hex(output) FROM samples LIMIT 1")[0]
        put_back = f"UPDATE samples SET output = x'{output}' WHERE digest = x'{digest}'"
        held._read(f"CREATE TEMP TRIGGER back AFTER INSERT ON main.events BEGIN {put_back}; END")
        with pytest.raises(StoreError, match=r"still holds texts \(1 samples\), so the purge is not finished"):
            purging.purge(held)
        assert purging.is_begun(held)


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
    with Run.open(run, write=True) as held:
        held.event(beside.CONCLUDED, {"files": {"experiment.json": digest_of_file(run / "experiment.json")}})
    told = json.loads(goalcover(*PURGE, "--json", code=LEFT).out)["runs"][0]
    assert [Path(path).name for path in told["files"]] == ["train.jsonl", "original.jsonl"]
    assert [Path(path).name for path in told["left"]] == ["mine.txt"]
    assert planted(run)[ASKED] == ["mine.txt"]
    assert "May hold sample text, and was left: run/mine.txt." in goalcover(*PURGE, code=LEFT).err
    goalcover(*PURGE, "--files")
    assert set(planted(run)) == {NAME, PATH}
    assert {path.name for path in run.iterdir() if not path.name.startswith("run.")} == {"experiment.json"}


@pytest.mark.parametrize(
    "name",
    [
        *("run.sqlite.bak", "run.sqlite-wal.old", "run.lock~", "experiment.md", "experiment.json", "validation.svg"),
        *("policies/original/adapter/notes.txt", "policies/original/adapter/adapter_model.safetensors"),
        *("policies/original/adapter/card.json", "policies/original/curve.svg", "policies/notes.txt"),
        *("policies/original/checkpoints/completions.jsonl", "policies/original/checkpoints/checkpoint-2/rows.txt"),
        "policies/original/checkpoints/checkpoint-2/config.json",
    ],
)
def test_a_name_alone_makes_no_file_one_of_ours(goalcover: Goalcover, name: str) -> None:
    run = Path("run")
    with Run.open(run, write=True, create=True) as held:
        held.event(beside.CONCLUDED, {"files": {"experiment.json": "0" * 64}})
        trained(held)
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ASKED, encoding="utf-8")
    told = json.loads(goalcover(*PURGE, "--json", code=LEFT).out)["runs"][0]
    assert told["left"] == [f"run/{name}"] and told["files"] == []
    goalcover(*PURGE, "--files")
    assert not path.exists() and planted(run) == {}


def test_a_link_that_is_named_like_a_file_of_the_run_is_none_of_ours(tmp_path: Path) -> None:
    with Run.open(tmp_path / "new", write=True, create=True) as held:
        link = held.folder / "run.sqlite-journal"
        link.symlink_to(tmp_path / "nowhere")
        assert beside.files(held).others == (link,)


def test_a_journal_that_another_program_left_goes_too(tmp_path: Path) -> None:
    journal = tmp_path / "new" / "run.sqlite-journal"
    with Run.open(tmp_path / "new", write=True, create=True) as held:
        held.event("made", {})
    with closing(sqlite3.connect(tmp_path / "new" / DATABASE, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = PERSIST")
        other.execute("CREATE TABLE mine (text)")
        other.execute("INSERT INTO mine VALUES (?)", (ASKED,))
        other.executescript("BEGIN; UPDATE mine SET text = ''; DROP TABLE mine; COMMIT;")
    assert journal.read_bytes()[:28] == bytes(28) and ASKED.encode() in journal.read_bytes()
    left = journal.read_bytes()
    with Run.open(tmp_path / "new", write=True) as held:  # which may remove it
        journal.write_bytes(left)
    with Run.open(tmp_path / "new", write=True) as held:
        assert journal.read_bytes() == left
        purging.purge(held)
        assert not journal.exists()
    assert planted(tmp_path / "new") == {}
    with Run.open(tmp_path / "new", write=False) as held:
        assert [event.kind for event in held.events()][-2:] == [purging.BEGUN, purging.ENDED]


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
        folder = trained(held)
    kept = {path for path in folder.rglob("*") if path.is_file()}
    assert len(kept) == 4
    (folder / "answers.jsonl").write_text(ASKED, encoding="utf-8")
    said = goalcover(*PURGE, "--files").err
    assert "Trained on the samples, and kept: run/policies/original. Weights may repeat" in said
    assert {path for path in folder.rglob("*") if path.is_file()} == kept


@pytest.mark.parametrize(
    "change",
    [
        lambda card: json.dumps({**card, "note": ASKED}, indent=2) + "\n",
        lambda card: json.dumps({**card, "policy": ASKED}, indent=2) + "\n",
        lambda card: json.dumps(card),
        lambda card: json.dumps(card, indent=2).replace("{", f'{{"name": "{ASKED}", ', 1) + "\n",
        lambda card: "[" * 100_000,
        lambda card: '["name"]',
    ],
)
def test_a_card_that_says_more_than_the_run_is_none_of_ours(tmp_path: Path, change: Callable[[Any], str]) -> None:
    with Run.open(tmp_path / "new", write=True, create=True) as held:
        card = trained(held) / "adapter" / "card.json"
        assert beside.files(held).others == ()
        card.write_text(change(json.loads(card.read_bytes())), encoding="utf-8")
        assert beside.files(held).others == (card,)


def test_a_file_that_cannot_be_read_ends_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with Run.open(tmp_path / "new", write=True, create=True) as held:
        trained(held)
        monkeypatch.setattr(beside, "digest_of_file", refuse)
        with pytest.raises(StoreError, match=r"cannot be read \(Permission denied\)"):
            purging.purge(held)


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
