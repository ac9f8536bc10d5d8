"""Runs of older formats: read as they stand, completed when they are written to.

Format 1 was made before gaps were kept, format 2 before trainings were, format 3 before decisions and the events'
versions were.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from analyst import Analyst
from command import GOAL as GOAL_FILE
from command import Goalcover, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import GOAL, SUBGOALS, probabilities

from goalcover_local import chain
from goalcover_local.cli.results import STARTED
from goalcover_local.errors import StoreError
from goalcover_local.folder import APPLICATION, DATABASE, TABLES_1, TABLES_2, TABLES_3, TABLES_4, VERSION
from goalcover_local.store import Origin, Run
from goalcover_local.terms import (
    Action,
    Candidate,
    Gap,
    MissingCapability,
    Recommendation,
    Sample,
    canonical_json,
    digest_of,
)
from goalcover_local.trainings import Trainings

N_ROWS = 12
IDENTITY = {"card": "by hand"}
ADDED = {table.partition("(")[0] for table in (*TABLES_2, *TABLES_3, *TABLES_4)}
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@contextlib.contextmanager
def direct(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody else would open it."""
    database = sqlite3.connect(folder / DATABASE, isolation_level=None)
    try:
        yield database
    finally:
        database.close()


def sample(n: int) -> Sample:
    return Sample(f"row-{n}", f"question {n}", f"answer {n}", "data.jsonl", n + 1, b"{}")


def started(judge: str) -> dict[str, Any]:
    """What an assessment put on record."""
    about = {"judge": judge, "goal": GOAL.digest, "data": "data", "seed": 0, "limit": 0, "tau": 0.6}
    return {**about, "value": "expectation"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of format 1 as its program left it: a goal, twelve judged rows, an explanation, an event."""
    home = tmp_path / "old"
    home.mkdir(mode=0o700)
    with direct(home) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(TABLES_1)
        database.execute("PRAGMA user_version = 1")
        fields = {"text": GOAL.text, "specification": "", "tau": GOAL.tau, "exchanges": []}
        database.execute("INSERT INTO goals VALUES (?, ?, 1)", (GOAL.digest, json.dumps(fields)))
        for key, subgoal in enumerate(SUBGOALS, 1):
            read = {"name": subgoal.name, "description": subgoal.description, "evidence": subgoal.evidence}
            database.execute("INSERT INTO subgoals VALUES (?, ?, ?)", (key, subgoal.digest, json.dumps(read)))
            place = (GOAL.digest, key - 1, subgoal.id, subgoal.target_share, key)
            database.execute("INSERT INTO goal_subgoals VALUES (?, ?, ?, ?, ?)", place)
        judge = digest_of(IDENTITY)
        database.execute("INSERT INTO data VALUES ('data')")
        database.execute("INSERT INTO judges VALUES (1, ?, ?)", (judge, json.dumps(IDENTITY)))
        for n in range(N_ROWS):
            one = sample(n)
            held = bytes.fromhex(one.digest), one.input.encode(), one.output.encode()
            database.execute("INSERT INTO samples VALUES (?, ?, ?, ?)", (n + 1, *held))
            row = (n, n + 1, one.id.encode(), one.source.encode(), one.line, one.raw)
            database.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", row)
            for key in (1, 2):
                found = probabilities(0.8 if key == 1 else 0.2)
                database.execute(
                    "INSERT INTO judgements VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", (key, n + 1, *found)
                )
        database.execute("INSERT INTO explanations VALUES (1, 2, 1, ?, ?)", (b"No causes.", b"{}"))
        told = canonical_json(started(judge))
        bare = chain.Event(1, "2026-01-01T00:00:00+00:00", "u", "h", "test", STARTED, told, chain.BEGINNING, "")
        values = list(replace(bare, hash=bare.seal).record.values())
        database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    return home


def tables(folder: Path) -> set[str]:
    with direct(folder) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def version(folder: Path) -> int:
    with direct(folder) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def everything(run: Run) -> list[Any]:
    """All that a run of format 1 tells."""
    judge = digest_of(IDENTITY)
    told = [run.goal(), run.counts(), list(run.rows()), run.judges(), run.events(), run.verify_events()]
    return [*told, list(run.export(judge)), run.explanations(judge, SUBGOALS[1].digest), run.n_stored()]


def made() -> tuple[Gap, Recommendation, Candidate]:
    """A record for each table that format 2 added."""
    capability = MissingCapability("why it comes", (sample(0).digest,), 1, ((sample(0).digest, "No causes."),))
    gap = Gap("causes", 12, 0, 12, 1, (capability,), ())
    advice = Recommendation(
        "causes", "No causes.", "Add.", 3, (Action("curate", 3, "Collect."),), (sample(1).digest,), "x"
    )
    fields = {"question": "Why?", "answer": "So."}
    written = Candidate(
        "causes", fields, sample(99), 0, quality={"correctness": 0.8, "completeness": None}, fate="kept"
    )
    return gap, advice, written


TRAINED = (["original"], {"beta": 0.1}, [{"reward": 3.5, "step": 1}], {1: {"adapter": "ab"}}, {"reward": 3.5})


def train(run: Run) -> None:
    """A record for each table that format 3 added."""
    trainings = Trainings(run)
    trainings.begin("original", {"beta": 0.1})
    trainings.add_step("original", 1, {"reward": 3.5})
    trainings.add_checkpoint("original", 1, {"adapter": "ab"})
    trainings.finish("original", {"reward": 3.5})


def trained(run: Run) -> tuple[Any, ...]:
    held = Trainings(run)
    told = held.names(), held.settings("original"), held.steps("original")
    return *told, held.checkpoints("original"), held.result("original")


@pytest.fixture
def later(folder: Path) -> Path:
    """The run of format 1 as the program of format 2 completed it: with gaps, advice, a candidate and an answer."""
    gap, advice, written = made()
    with Run.open(folder, write=True) as run:
        run.put_gaps([gap])
        run.put_recommendations([advice])
        run.put_candidates("causes", [written])
        run.remember({"key": "answer"})
    with direct(folder) as database:
        for table in (*TABLES_3, *TABLES_4):
            database.execute(f"DROP TABLE {table.partition('(')[0]}")
        database.execute("ALTER TABLE events DROP COLUMN version")
        database.execute("PRAGMA user_version = 2")
    return folder


def everything_later(run: Run) -> list[Any]:
    """All that a run of format 2 tells."""
    return [*everything(run), run.origin(), run.gaps(), run.recommendations(), run.candidates(), dict(run.memory())]


def test_it_is_read_as_it_stands(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Run.open(folder, write=False) as run:
        assert run.goal() == GOAL and run.verify_events() == []
        assert (run.counts().rows, run.n_stored(), len(run.events())) == (N_ROWS, 2 * N_ROWS, 1)
        assert run.origin() is None and run.memory() == {}
        assert (run.gaps(), run.recommendations(), run.candidates()) == ([], [], [])
        assert Trainings(run).names() == []
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".sqlite"} == before
    assert (version(folder), tables(folder) & ADDED) == (1, set())


def test_it_is_read_where_nobody_may_write(folder: Path) -> None:
    """As on a mounted archive: the tables that it lacks are not made there."""
    before = (folder / DATABASE).read_bytes()
    (folder / DATABASE).chmod(0o400)
    folder.chmod(0o500)
    try:
        with Run.open(folder, write=False) as run:
            assert run.gaps() == [] and run.counts().rows == N_ROWS
    finally:
        folder.chmod(0o700)
    assert (folder / DATABASE).read_bytes() == before


def test_a_reader_cannot_write_to_what_is_not_there(folder: Path) -> None:
    gap, _, _ = made()
    with Run.open(folder, write=False) as run:
        with pytest.raises(StoreError):
            run.put_gaps([gap])
        with pytest.raises(StoreError):
            run.remember({"a": 1})
        with pytest.raises(StoreError):
            run.count("n", 1)
        with pytest.raises(StoreError):
            Trainings(run).begin("original", {})
        assert run.gaps() == []
    assert version(folder) == 1


def test_a_writer_completes_it_and_nothing_in_it_changes(folder: Path) -> None:
    with Run.open(folder, write=False) as run:
        before = everything(run)
    with Run.open(folder, write=True) as run:
        assert everything(run) == before
    assert (version(folder), tables(folder) >= ADDED) == (VERSION, True)
    assert VERSION == 4
    with Run.open(folder, write=False) as run:
        assert everything(run) == before
    assert stat.S_IMODE((folder / DATABASE).stat().st_mode) == 0o600


def test_a_completed_run_holds_what_a_new_one_holds(folder: Path, tmp_path: Path) -> None:
    gap, advice, written = made()
    origin = Origin("/data/cafe.jsonl", "ab" * 32, {"format": "jsonl", "input": ["question"]})
    kept = []
    with Run.open(tmp_path / "new", write=True, create=True) as new:
        new.put_goal(GOAL)
        new.put_rows(map(sample, range(N_ROWS)), "data")
    for place in (folder, tmp_path / "new"):
        with Run.open(place, write=True) as run:
            run.put_rows([], "data", origin)
            run.put_gaps([gap])
            run.put_recommendations([advice])
            run.put_candidates("causes", [written])
            memory = run.memory()
            memory["key"] = {"missing": "why it comes"}
            memory.keep()
            train(run)
        with Run.open(place, write=False) as run:
            told = [run.origin(), run.gaps(), run.recommendations(), run.candidates(), dict(run.memory())]
            kept.append([*told, trained(run)])
    told = [origin, [gap], [advice], [written], {"key": {"missing": "why it comes"}}, TRAINED]
    assert kept[0] == kept[1] == told
    assert tables(folder) == tables(tmp_path / "new")


def test_completing_that_was_cut_off_is_done_again(folder: Path) -> None:
    """Some of the tables are there and the version is still the old one."""
    with direct(folder) as database:
        database.execute(f"CREATE TABLE {TABLES_2[2]}")
    with Run.open(folder, write=False) as run:
        assert run.gaps() == [] and run.candidates() == []
    with Run.open(folder, write=True) as run:
        run.put_gaps([made()[0]])
    assert version(folder) == VERSION


def test_a_run_that_was_cut_off_before_its_version_was_written_is_one_of_format_1(folder: Path) -> None:
    with direct(folder) as database:
        database.execute("PRAGMA user_version = 0")
    with Run.open(folder, write=False) as run:
        assert run.gaps() == []
    with Run.open(folder, write=True) as run:
        assert run.goal() == GOAL
    assert version(folder) == VERSION


def test_a_newer_format_and_another_programs_file_are_refused_untouched(folder: Path) -> None:
    for pragma, told in (
        (f"user_version = {VERSION + 1}", "newer GoalCover"),
        ("application_id = 7", "another program"),
    ):
        with direct(folder) as database:
            database.execute(f"PRAGMA {pragma}")
        for write in (False, True):
            with pytest.raises(StoreError, match=told):
                Run.open(folder, write=write)
        assert tables(folder) & ADDED == set()
    assert APPLICATION != 7


def test_a_reader_goes_on_while_a_writer_completes_it(folder: Path) -> None:
    with Run.open(folder, write=False) as reader:
        with Run.open(folder, write=True) as writer:
            writer.put_gaps([made()[0]])
        assert reader.goal() == GOAL and len(reader.events()) == 1
    with Run.open(folder, write=False) as reader:
        assert reader.gaps() == [made()[0]]


# Format 2


def test_of_format_2_only_what_it_lacks_is_read_as_empty(later: Path) -> None:
    gap, advice, written = made()
    before = (later / DATABASE).read_bytes()
    with Run.open(later, write=False) as run:
        assert (run.gaps(), run.recommendations(), run.candidates()) == ([gap], [advice], [written])
        assert (run.memory(), Trainings(run).names()) == ({"key": "answer"}, [])
        with pytest.raises(StoreError, match="holds no training 'original'"):
            Trainings(run).settings("original")
        with pytest.raises(StoreError, match="may not be written to"):
            Trainings(run).begin("original", {})
    assert ((later / DATABASE).read_bytes(), version(later)) == (before, 2)


def test_a_writer_completes_format_2_and_nothing_in_it_changes(later: Path) -> None:
    with Run.open(later, write=False) as run:
        before = everything_later(run)
    with Run.open(later, write=True) as run:
        assert everything_later(run) == before
        train(run)
    assert (version(later), tables(later) >= ADDED) == (VERSION, True)
    with Run.open(later, write=False) as run:
        assert everything_later(run) == before
        assert trained(run) == TRAINED


def test_completing_format_2_that_was_cut_off_is_done_again(later: Path) -> None:
    with direct(later) as database:
        database.execute(f"CREATE TABLE {TABLES_3[1]}")
    with Run.open(later, write=False) as run:
        assert (run.gaps(), Trainings(run).names()) == ([made()[0]], [])
    with Run.open(later, write=True) as run:
        train(run)
    with Run.open(later, write=False) as run:
        assert (run.gaps(), trained(run)) == ([made()[0]], TRAINED)
    assert version(later) == VERSION


def test_a_completed_run_is_not_completed_again(later: Path) -> None:
    with Run.open(later, write=True) as run:
        train(run)
    with direct(later) as database:
        before = database.execute("PRAGMA schema_version").fetchone()
    for write in (False, True):
        with Run.open(later, write=write) as run:
            assert trained(run) == TRAINED
            assert run._read("SELECT name FROM sqlite_temp_master") == []
    with direct(later) as database:
        assert database.execute("PRAGMA schema_version").fetchone() == before


# What somebody put there


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_of_every_format_nothing_but_its_tables_is_opened(request: pytest.FixtureRequest, number: int) -> None:
    place: Path = request.getfixturevalue("folder" if number == 1 else "later")
    if number > 2:
        Run.open(place, write=True).close()
    if number == 3:
        with direct(place) as database:
            database.execute(f"DROP TABLE {TABLES_4[0].partition('(')[0]}")
            database.execute("ALTER TABLE events DROP COLUMN version")
            database.execute("PRAGMA user_version = 3")
    Run.open(place, write=False).close()
    assert version(place) == number
    with direct(place) as database:
        database.execute("CREATE TRIGGER forge AFTER INSERT ON events BEGIN DELETE FROM judgements; END")
    before = (place / DATABASE).read_bytes()
    for write in (False, True):
        with pytest.raises(StoreError, match=r"holds trigger forge\."):
            Run.open(place, write=write)
    assert (place / DATABASE).read_bytes() == before
    with direct(place) as database:
        database.execute("DROP TRIGGER forge")
    with Run.open(place, write=True) as run:
        run.event("step", {})
        assert run.n_stored() == 2 * N_ROWS


def test_a_table_of_a_later_format_must_be_as_that_format_has_it(folder: Path) -> None:
    with direct(folder) as database:
        database.execute("CREATE TABLE gaps(position INTEGER PRIMARY KEY, json TEXT DEFAULT 'other')")
    for write in (False, True):
        with pytest.raises(StoreError, match=r"holds table gaps\."):
            Run.open(folder, write=write)
    assert version(folder) == 1


def test_a_run_that_says_it_is_older_than_its_tables_is_refused(later: Path) -> None:
    Run.open(later, write=True).close()
    with direct(later) as database:
        database.execute("PRAGMA user_version = 3")
    for write in (False, True):
        with pytest.raises(StoreError, match=r"holds table events\."):
            Run.open(later, write=write)


# Its records


@settings(max_examples=25, deadline=None)
@given(name=TEXT, text=TEXT, n=st.integers(0, 9))
def test_records_come_back_whatever_they_hold(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str, n: int
) -> None:
    gap = Gap("a", n, n, n, n, (MissingCapability(name, (name,), n, ((name, text),)),), ())
    advice = Recommendation("a", text, name, n, (Action("filter", n, text),), (name,), text)
    fields = {name: text, "number": 0.1, "none": None, "list": [1, {"deep": name}]}
    written = Candidate(
        "a", fields, Sample(name, text, name, text, n), n, provenance={"seed": n, name: [text]}, rank=0.1
    )
    with Run.open(tmp_path_factory.mktemp("run"), write=True, create=True) as run:
        run.put_gaps([gap, gap])
        run.put_recommendations([advice])
        run.put_candidates("a", [written])
        assert (run.gaps(), run.recommendations(), run.candidates()) == ([gap, gap], [advice], [written])


def test_an_answer_once_kept_stays(folder: Path) -> None:
    with Run.open(folder, write=True) as run:
        run.remember({"a": {"missing": "first"}})
        run.remember({"a": {"missing": "second"}, "b": [0.1, -2.5]})
        memory = run.memory()
        assert memory == {"a": {"missing": "first"}, "b": [0.1, -2.5]}
        memory["c"] = {"missing": "not kept"}
        assert "c" not in run.memory()
        memory.keep()
        assert run.memory()["c"] == {"missing": "not kept"}


def test_gaps_replace_gaps_and_take_their_recommendations_away(folder: Path) -> None:
    gap, advice, written = made()
    with Run.open(folder, write=True) as run:
        run.put_gaps([gap])
        run.put_recommendations([advice])
        run.put_candidates("causes", [written, written])
        run.put_candidates("treatment", [written])
        run.put_candidates("causes", [written])
        run.put_gaps([])
        assert (run.gaps(), run.recommendations(), len(run.candidates())) == ([], [], 2)


# At the command line


def test_status_and_show_read_it(goalcover: Goalcover, folder: Path) -> None:
    before = (folder / DATABASE).read_bytes()
    told = json.loads(goalcover("status", folder, "--json").out)
    assert (told["data"], told["analyze"], told["recommend"]) == ("", "none", 0)
    assert told["next"].startswith("goalcover analyze") and told["audit trail"]["problems"] == []
    assert told["assess"] == {"judged": 24, "failed": 0, "of": 24}
    goalcover("show", folder)
    assert goalcover("export", folder, "--what", "gaps").out == ""
    assert ((folder / DATABASE).read_bytes(), version(folder)) == (before, 1)
    assert "were not analyzed" in goalcover.refused("recommend", folder)


def test_it_is_analyzed_like_any_other(goalcover: Goalcover, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Analyst()
    engine.written["missing-capability"] = lambda _: {"missing": "causes", "instead": "nothing"}
    monkeypatch.setattr("goalcover_local.asking.open_engine", lambda *_, **__: engine)
    how = ("--no-explain", "--analyst", "smollm2-135m-instruct", "--subgoal", "causes", "--json")
    [gap] = json.loads(goalcover("analyze", folder, *how).out)["gaps"]
    assert gap["absent"] and (gap["n_judged"], gap["n_low"], gap["n_explained"]) == (12, 12, 1)
    assert gap["missing"][0]["quotations"] == [{"id": "row-0", "text": "No causes."}]
    assert version(folder) == VERSION
    told = json.loads(goalcover("recommend", folder, "--analyst", "smollm2-135m-instruct", "--json").out)
    assert told["recommendations"][0]["n_missing"] == 1


def test_a_run_of_format_1_goes_on_and_learns_where_its_data_are(
    goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new tables taken away, a run is as the older program left it."""
    engine = Analyst()
    monkeypatch.setattr("goalcover_local.judges.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: None)
    Path("goal.toml").write_text(GOAL_FILE, encoding="utf-8")
    rows(Path("data.jsonl"), ("Which knots?", "These ropes."), ("Where?", "There."))
    goalcover("assess", "goal.toml", "data.jsonl", "--run", "run", "--explain", "none")
    n_asked = len(engine.asked)
    with direct(Path("run")) as database:
        for table in ADDED:
            database.execute(f"DROP TABLE {table}")
        database.execute("ALTER TABLE events DROP COLUMN version")
        database.execute("PRAGMA user_version = 1")
    goalcover("assess", "goal.toml", "data.jsonl", "--run", "run", "--explain", "none")
    assert len(engine.asked) == n_asked
    assert json.loads(goalcover("status", "run", "--json").out)["data"] == str(Path("data.jsonl").absolute())
