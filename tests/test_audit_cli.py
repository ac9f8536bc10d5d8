"""`goalcover audit` and `decide`: what was done is on record, and whoever changes a run or its record is found out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from command import Goalcover, checked_show, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged import GOAL, SUBGOALS, judged_run
from test_chain import verified_by_anyone

from goalcover_local import __version__, audit, chain, ledger
from goalcover_local.cli import trail
from goalcover_local.cli.trail import BEGAN, ENDED, RUN_OPENED, RUN_SEALED, outcome
from goalcover_local.decisions import ACCEPTED, DECIDED, acceptances, note_acceptances
from goalcover_local.folder import DATABASE, TABLES_4
from goalcover_local.store import Run
from goalcover_local.terms import Candidate, Checks, Finding, Gap, Judgement, Recommendation, Sample, canonical_json
from goalcover_local.trainings import Trainings
from goalcover_local.weights import Weights

CANARY = "PRIVATE-CANARY"
VOUCHES = "It vouches for the chain up to there"
DECIDE = ("decide", "run", "causes", "--verdict", "gap", "--reason", f"{CANARY} says so.")


@pytest.fixture
def run(goalcover: Goalcover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that a command wrote to last, with a ledger of its own."""
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    data = rows(tmp_path / "data.jsonl", ("What?", "yes"), (f"{CANARY}?", "no"))
    judged_run(tmp_path / "run", data, {"yes": (0.2, 0.9), "no": (0.4, None)})
    goalcover(*DECIDE)
    return tmp_path / "run"


def change(folder: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    """Somebody else changes the file."""
    database = sqlite3.connect(folder / DATABASE, isolation_level=None)
    for statement in statements:
        database.execute(statement, values)
    database.close()


def events(folder: Path = Path("run")) -> list[Any]:
    with Run.open(folder, write=False) as opened:
        return opened.events()


def kinds() -> list[str]:
    return [event.kind for event in ledger.read().events]


# What is on record


def test_a_command_is_on_record_in_the_run_and_in_the_ledger(goalcover: Goalcover, run: Path) -> None:
    said = goalcover(*DECIDE)
    found = events()[-3:]
    assert [event.kind for event in found] == [audit.OPENED, DECIDED, audit.SEALED]
    assert {(event.command, event.version) for event in found} == {("goalcover decide", __version__)}
    assert found[-1].told["outcome"] == "ended" and found[-1].told["counts"]["judgements"] == 4
    assert said.err.endswith(f"Audit: {found[-1].seq} events, head {found[-1].hash}\n")
    assert kinds() == [BEGAN, RUN_OPENED, RUN_SEALED, ENDED] * 2
    opened, sealed, ended = ledger.read().events[-3:]
    assert sealed.told == opened.told | {"events": found[-1].seq, "head": found[-1].hash}
    assert sealed.told["run"] == events()[0].hash and ended.told == {"code": 0}
    record = (ledger.path().read_text() + "".join(event.line for event in events())).replace("goalcover", "")
    assert CANARY not in record and str(run) not in record and run.name not in sealed.told.values()


def test_a_command_that_only_reads_is_in_the_ledger_alone(goalcover: Goalcover, run: Path) -> None:
    n = len(events())
    assert "Audit: " not in goalcover("show", "run", "--json").err
    goalcover("show", "nowhere", code=1)
    goalcover("show", "run", "--no-such", code=2)
    assert len(events()) == n and [kind for kind in kinds()[4:] if kind in (BEGAN, ENDED)] == [BEGAN, ENDED] * 3
    assert not {RUN_OPENED, RUN_SEALED} & set(kinds()[4:])
    assert [event.told["code"] for event in ledger.read().events if event.kind == ENDED] == [0, 0, 1, 2]


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"], [CANARY], [], ["--version"], ["audit", "show"]])
def test_what_is_no_command_or_only_looks_is_not_on_record(
    goalcover: Goalcover, run: Path, arguments: list[str]
) -> None:
    before = kinds()
    goalcover(*arguments, code=2 if arguments in ([CANARY], []) else 0)
    assert kinds() == before


def test_a_verified_model_is_in_the_ledger_by_card_and_digest(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Weights(run, "ab" * 32, {})
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: held)
    goalcover("models", "verify", "smollm2-135m-instruct")
    began, told, _ = ledger.read().events[-3:]
    assert (told.kind, told.command, began.command) == ("model verified", *["goalcover models verify"] * 2)
    assert told.told == {"card": "smollm2-135m-instruct", "digest": held.digest, "files": 0}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, "ended"),
        (click.exceptions.Exit(3), "ended"),
        (click.exceptions.Exit(130), "interrupted"),
        (click.exceptions.Exit(1), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (ValueError(), "failed"),
    ],
)
def test_how_it_ended_is_told(error: BaseException | None, told: str) -> None:
    assert outcome(error) == told


def test_a_command_that_fails_midway_is_sealed_as_failed(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(run: Run, decision: object) -> None:
        run.count("steps", 1)
        raise RuntimeError(CANARY)

    monkeypatch.setattr("goalcover_local.decisions.decide", breaks)
    said = goalcover.refused(*DECIDE)
    assert said.startswith("Audit: 6 events, head ") and CANARY not in said
    assert events()[-1].told["outcome"] == "failed"
    assert goalcover("audit", "verify", "run").out.count("WRONG") == 0


def test_a_home_that_cannot_be_written_stops_no_command(
    goalcover: Goalcover, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GOALCOVER_STATE", str(tmp_path / "file"))
    said = goalcover(*DECIDE)
    assert said.err.count("Warning: The ledger ") == 1 and "Audit: 7 events" in said.err


# Edits


def everything(folder: Path) -> None:
    """A row in every table of the run."""
    with Run.open(folder, write=True) as opened:
        [judge] = opened.judges()
        opened.put_scale(judge, {"reference": "of another version"})
        opened.append(judge, [], [], [(opened.sample(1).digest, 7)])
        opened.remember({"key": "answer"})
        opened.put_gaps([Gap("causes", 1, 0, 1, 0)])
        opened.put_recommendations([Recommendation("causes", "issue", "fix", 1, ())])
        opened.put_candidates("causes", [Candidate("causes", {"a": 1}, Sample("", "", ""), 0)])
        opened.count("seconds", 2)
        held = Trainings(opened)
        held.begin("one", {"steps": 1})
        held.add_step("one", 1, {"reward": 1.0})
        held.add_checkpoint("one", 1, {"adapter": "ab"})
    change(folder, "INSERT INTO refusals(source, line, reason) VALUES (x'00', 1, x'00')")
    change(folder, "INSERT INTO explanations VALUES (1, 1, 1, x'00', x'00')")


EDITS = {
    "UPDATE judgements SET p0 = p5, p5 = p0 WHERE sample = 1 AND subgoal = 2": "judgements",
    "UPDATE judgements SET failure = 'x' WHERE failure IS NOT NULL": "judgements",
    "DELETE FROM judgements WHERE sample = 2": "judgements",
    "UPDATE truncations SET tokens = 8": "judgements",
    "UPDATE goals SET json = replace(json, 'patients', 'doctors')": "goal",
    "UPDATE subgoals SET json = replace(json, 'Why', 'How') WHERE key = 2": "goal",
    "UPDATE goal_subgoals SET target_share = 0.9": "goal",
    "UPDATE samples SET output = x'00' WHERE key = 1": "rows",
    "UPDATE rows SET raw = x'00' WHERE position = 0": "rows",
    "DELETE FROM refusals": "rows",
    "UPDATE data SET digest = 'other'": "rows",
    "UPDATE origin SET path = x'00'": "rows",
    "UPDATE judges SET json = '{}'": "judges",
    "UPDATE scales SET json = CAST(x'ff' AS TEXT)": "judges",
    "UPDATE explanations SET text = x'01'": "explanations",
    "UPDATE answers SET json = '\"other\"'": "answers",
    "UPDATE gaps SET json = replace(json, '1', '2')": "gaps",
    "DELETE FROM recommendations": "recommendations",
    "UPDATE candidates SET position = 1": "candidates",
    "UPDATE trainings SET result = '{}'": "trainings",
    "UPDATE steps SET step = 2": "trainings",
    "DELETE FROM checkpoints": "trainings",
    "UPDATE decisions SET json = replace(json, 'gap', 'covered')": "decisions",
    "UPDATE counters SET value = 3": "counters",
}


def test_whatever_is_edited_is_named_and_an_unedited_run_is_not(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    everything(run)
    assert "UNSEALED" not in goalcover("audit", "verify", "run", code=1).out
    goalcover(*DECIDE)
    whole = (run / DATABASE).read_bytes()
    with Run.open(run, write=False) as opened:
        assert opened.edited() == []
        held = {name for (name,) in opened._read("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert held - {"events", "sqlite_sequence"} == {table for tables in audit.KINDS.values() for table in tables}
        assert all(opened._one(f"SELECT count(*) FROM {table}") for table in held), "an edit changes something"
    for statement, kind in EDITS.items():
        change(run, statement)
        with Run.open(run, write=False) as opened:
            assert opened.edited() == [kind], statement
        (run / DATABASE).write_bytes(whole)
    assert set(EDITS.values()) == set(audit.KINDS)


def test_an_edit_is_a_finding_and_stays_one_when_commands_go_on(goalcover: Goalcover, run: Path) -> None:
    assert "WRONG" not in goalcover("audit", "verify", "run").out
    change(run, "DELETE FROM judgements WHERE sample = 2")
    assert "WRONG: Since event 4 sealed them, somebody edited: judgements." in verified(goalcover, code=1)
    goalcover(*DECIDE)
    assert "WRONG: When event 5 was written, judgements were not as sealed before it." in verified(goalcover, code=1)


def test_what_was_never_sealed_is_told_and_is_no_alarm(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path / "more.jsonl", ("What?", "yes"))
    judged_run(tmp_path / "library", data, {"yes": (0.2, 0.9)})
    said = verified(goalcover, "library", code=3)
    assert "UNSEALED: No command sealed the contents" in said and "WRONG" not in said
    assert "The ledger of this user does not know this run: made by another user or on another machine?" in said


def verified(goalcover: Goalcover, *arguments: object, code: int = 0) -> str:
    return goalcover("audit", "verify", *(arguments or ("run",)), code=code).out


def exchange_in_an_index(folder: Path) -> None:
    """Somebody changes two bytes of the file, so that the digests of subgoals 2 and 3 find each other's row."""
    with sqlite3.connect(folder / DATABASE) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(size,)] = database.execute("PRAGMA page_size")
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_subgoals_1'"
        [(page,)] = database.execute(query)
        digests = dict(database.execute("SELECT key, digest FROM subgoals"))
    database.close()
    held = bytearray((folder / DATABASE).read_bytes())
    two, three = (held.index(digests[key].encode(), (page - 1) * size, page * size) + 64 for key in (2, 3))
    assert (held[two], held[three]) == (2, 3)
    held[two], held[three] = 3, 2
    (folder / DATABASE).write_bytes(held)


def test_an_index_that_was_edited_is_wrong_and_stays_so_when_commands_go_on(goalcover: Goalcover, run: Path) -> None:
    with Run.open(run, write=True) as opened:
        opened.put_subgoals([replace(SUBGOALS[0], id=name, description=name) for name in ("more", "most")])
    goalcover(*DECIDE)
    exchange_in_an_index(run)
    with Run.open(run, write=False) as opened:
        assert opened.edited() == [audit.INDEXES]
    seq = len(events())
    assert f"WRONG: Since event {seq} sealed them, somebody edited: indexes." in verified(goalcover, code=1)
    goalcover(*DECIDE)
    wrong = f"WRONG: When event {seq + 1} was written, indexes were not as sealed before it."
    assert wrong in verified(goalcover, code=1)


def test_an_index_that_was_edited_is_wrong_without_a_seal_too(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    judged_run(tmp_path / "library", tmp_path / "data.jsonl", {"yes": (0.2, 0.9)})
    with Run.open(tmp_path / "library", write=True) as opened:
        opened.put_subgoals([replace(SUBGOALS[0], id=name, description=name) for name in ("more", "most")])
    assert "WRONG" not in verified(goalcover, "library", code=3)
    exchange_in_an_index(tmp_path / "library")
    assert "WRONG: The file was edited or is damaged: indexes." in verified(goalcover, "library", code=1)


@pytest.mark.parametrize("kind", ["BLOB", "TEXT"])
@pytest.mark.parametrize("column", ["sample", "p0"])
def test_a_number_that_became_bytes_or_text_is_an_edit(goalcover: Goalcover, run: Path, column: str, kind: str) -> None:
    only = "failure IS NULL"
    as_text = f"CAST({column} AS {kind})" if kind == "BLOB" else f"CAST({column} AS TEXT) || ' '"
    change(
        run,
        "PRAGMA ignore_check_constraints = ON",
        f"UPDATE judgements SET {column} = CAST({as_text} AS BLOB) WHERE {only}",
    )
    assert "somebody edited: judgements" in verified(goalcover, code=1)


# The chain


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    seq=st.integers(1, 4),
    field=st.sampled_from(["at", "who", "host", "command", "kind", "details", "previous", "hash", "version"]),
    place=st.integers(0, 500),
    put=st.sampled_from([b"0", b"f", b'"', b"}", b"\n", b"\0", b"\xff", b"\xc3\xa9", b""]),
)
def test_no_byte_of_an_event_can_be_changed(run: Path, seq: int, field: str, place: int, put: bytes) -> None:
    whole = (run / DATABASE).read_bytes()
    value = getattr(events(run)[seq - 1], field).encode()
    at = place % (len(value) or 1)
    changed = value[:at] + put + value[at + 1 :]
    change(run, f"UPDATE events SET {field} = CAST(? AS TEXT) WHERE seq = ?", values=(changed, seq))
    with Run.open(run, write=False) as opened:
        assert bool(opened.verify_events()) == (changed != value)
    (run / DATABASE).write_bytes(whole)


@pytest.mark.parametrize("n", range(4))
def test_a_chain_that_is_cut_short_is_found_by_the_ledger(goalcover: Goalcover, run: Path, n: int) -> None:
    change(run, f"DELETE FROM events WHERE seq > {n}", f"UPDATE sqlite_sequence SET seq = {n} WHERE name = 'events'")
    with Run.open(run, write=False) as opened:
        assert opened.verify_events() == [], "the chain alone cannot tell"
    said = verified(goalcover, code=1)
    told = "The ledger knows this run with 4 events" if n else "The ledger knows another run in this folder"
    assert f"WRONG: {told}" in said


def test_a_run_that_was_rolled_back_is_found_by_the_ledger_and_by_a_head_kept_elsewhere(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "backup")
    early = events()[-1].hash
    goalcover(*DECIDE)
    head = events()[-1].hash
    assert f"7, its last. {VOUCHES}, and for the contents that it seals.\n" in verified(
        goalcover, "run", "--head", head
    )
    said = verified(goalcover, "run", "--head", early[:12])
    alone = "for the contents, the last seal and the ledger alone do"
    assert f"Head: given, stands as event 4, and 3 events came after. {VOUCHES}; {alone}." in said
    shutil.rmtree(run)
    shutil.copytree(tmp_path / "backup", run)
    assert "cut off, rolled back or rewritten" in verified(goalcover, code=1)
    ledger.path().unlink()
    ledger.path().with_name(ledger.HEAD).unlink()
    assert "does not know it: it was removed or cut" in verified(goalcover, "run", code=1)
    assert f"WRONG: The head {head} is not in the chain" in verified(goalcover, "run", "--head", head, code=1)


def test_a_copy_that_goes_on_elsewhere_is_no_alarm_for_either(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    goalcover(*DECIDE)
    goalcover("decide", "copy", *DECIDE[2:])
    said = verified(goalcover, "run", "copy")
    assert "WRONG" not in said and said.count("all in its chain") == 2


def test_another_run_in_its_place_is_found_and_a_new_one_is_known(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    shutil.rmtree(run)
    judged_run(run, tmp_path / "data.jsonl", {"yes": (0.9, 0.9)})
    assert "WRONG: The ledger knows another run in this folder" in verified(goalcover, code=1)
    goalcover(*DECIDE)
    assert "WRONG" not in verified(goalcover)


def test_the_ledger_is_verified_without_a_run_and_its_own_head_too(goalcover: Goalcover, run: Path) -> None:
    head = ledger.read().events[-1].hash
    assert "Chain: 4 events, whole, head " in verified(goalcover, "--ledger")
    assert "its last" in verified(goalcover, "--head", head, "--ledger")
    lines = ledger.path().read_bytes().splitlines(keepends=True)
    ledger.path().write_bytes(b"".join(lines[:1] + lines[2:]))
    assert "WRONG: Event 2 is missing." in verified(goalcover, "--ledger", code=1)
    assert "Event 2" in verified(goalcover, "run", "--ledger", code=1)
    ledger.path().write_bytes(b"".join(lines[:2]))
    assert "WRONG: Events 3 to 4 are missing." in verified(goalcover, "--ledger", code=1)


@pytest.mark.parametrize("arguments", [("run", "run", "--head", "0" * 64), ("run", "--head", "0" * 11)])
def test_a_head_is_a_hash_of_one_run(goalcover: Goalcover, run: Path, arguments: tuple[str, ...]) -> None:
    goalcover("audit", "verify", *arguments, code=2)


def test_a_run_that_is_known_elsewhere_in_the_place_of_another_is_found(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    judged_run(tmp_path / "other", tmp_path / "data.jsonl", {"yes": (0.9, 0.9)})
    goalcover("decide", "other", *DECIDE[2:])
    shutil.rmtree(tmp_path / "other")
    shutil.copytree(run, tmp_path / "other")
    said = verified(goalcover, "other", code=1)
    assert (
        "WRONG: The ledger knows another run in this folder, and this one elsewhere: it was put in its place." in said
    )
    assert "WRONG" not in verified(goalcover)


def test_a_run_that_comes_back_after_another_lay_there_has_a_note(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    run.rename(tmp_path / "kept")
    judged_run(run, tmp_path / "data.jsonl", {"yes": (0.9, 0.9)})
    goalcover(*DECIDE)
    shutil.rmtree(run)
    (tmp_path / "kept").rename(run)
    said = verified(goalcover)
    assert "since this run was last written to here, it knows another run in this folder" in said


def test_a_copy_of_an_earlier_state_is_no_alarm_and_not_taken_for_the_newest(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "copy")
    goalcover(*DECIDE)
    head = events()[-1].hash
    said = verified(goalcover, "copy", code=3)
    told = "UNSEALED: This is an earlier state of the run at another place, which the ledger knows with 7 events"
    assert f"{told}, head {head}." in said
    assert told in said and "WRONG" not in said and "knows 1 head of this run, all in its chain" in said
    killed(tmp_path / "copy")
    said = verified(goalcover, "copy", code=3)
    assert told in said and "WRONG" not in said, "it may go on"
    goalcover("decide", "copy", *DECIDE[2:])
    assert "WRONG" not in verified(goalcover, "copy", "run")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_copy_that_was_cut_where_the_ledger_knows_no_head_is_wrong(
    goalcover: Goalcover, run: Path, tmp_path: Path, n: int
) -> None:
    shutil.copytree(run, tmp_path / "copy")
    goalcover(*DECIDE)
    seqs = f"UPDATE sqlite_sequence SET seq = {n} WHERE name = 'events'"
    change(tmp_path / "copy", f"DELETE FROM events WHERE seq > {n}", seqs)
    said = verified(goalcover, "copy", code=3 if n == 2 else 1)
    assert n != 2 or "UNSEALED: goalcover decide began at event 2" in said, "the ledger saw it begin"
    assert ("cut off, rolled back or rewritten" in said) == (n != 2)


@pytest.mark.parametrize("name", [DATABASE, "run.lock"])
def test_a_file_of_the_run_that_is_a_link_is_refused(
    goalcover: Goalcover, run: Path, tmp_path: Path, name: str
) -> None:
    (run / name).rename(tmp_path / name)
    (run / name).symlink_to(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    assert f"WRONG: {Path('run') / name} is a link." in verified(goalcover, code=1)
    assert f"{Path('run') / name} is a link." in goalcover.refused(*DECIDE)
    assert (tmp_path / name).read_bytes() == whole


# Kills

KILLED = """
import os, signal, sys
from goalcover_local import ledger
from goalcover_local.cli import main, trail
def dies(at):
    def note(kind, *arguments):
        if at.startswith("before ") and kind == at[7:]:
            os.kill(os.getpid(), signal.SIGKILL)
        event = whole(kind, *arguments)
        if at.startswith("after ") and kind == at[6:]:
            os.kill(os.getpid(), signal.SIGKILL)
        return event
    whole, ledger.note = ledger.note, note
dies(sys.argv.pop(1))
main.run()
"""


@pytest.mark.parametrize("at", [f"{when} {kind}" for kind in (RUN_OPENED, RUN_SEALED) for when in ("before", "after")])
def test_killed_between_the_ledger_and_the_run_nothing_false_is_told(goalcover: Goalcover, run: Path, at: str) -> None:
    command = [sys.executable, "-c", KILLED, at, *DECIDE]
    environment = {**os.environ, "PYTHONPATH": str(Path(audit.__file__).parents[1])}
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told = NOT_SEALED.get(at, "")
    said = verified(goalcover, "run", "--ledger", code=3 if told else 0)
    assert "WRONG" not in said and f"Chain: {4 if RUN_OPENED in at else 7} events, whole" in said
    assert told in said and ("UNSEALED" in said) == bool(told)
    goalcover(*DECIDE)
    said = verified(goalcover, "run", "--ledger")
    assert "WRONG" not in said and "UNSEALED" not in said
    if told:
        assert f"  {told.removeprefix('UNSEALED: ')}" in said, "told for ever"


NOT_SEALED = {
    f"after {RUN_OPENED}": "UNSEALED: A command was killed before its first change (goalcover decide, ",
    f"before {RUN_SEALED}": "UNSEALED: goalcover decide was killed as it sealed, and the ledger does not know event 7:",
}
"""What is told where a kill struck."""


def killed(folder: Path, command: str = "goalcover assess", *statements: str) -> None:
    """A command begins, changes the run, and is killed before it seals."""
    with sqlite3.connect(folder / DATABASE) as database:
        first, opened = audit.begin(database, command)
        trail._opening(folder, first, opened)
        for statement in statements:
            database.execute(statement)
    database.close()


def test_killed_while_it_writes_the_contents_are_not_vouched_for_until_the_next_seal(
    goalcover: Goalcover, run: Path
) -> None:
    killed(run)
    said = verified(goalcover, code=3)
    assert "UNSEALED: goalcover assess began at event 5 (20" in said and "WRONG" not in said
    goalcover(*DECIDE)
    said = verified(goalcover)
    assert "Contents: as event 8 sealed them" in said and "UNSEALED" not in said


def test_what_was_changed_between_a_kill_and_the_next_command_is_bounded_and_told_for_ever(
    goalcover: Goalcover, run: Path
) -> None:
    killed(run)
    goalcover(*DECIDE)
    nothing = "A command was killed between events 5 and 6 ("
    assert nothing in verified(goalcover) and "; what was changed there (in the end, nothing) cannot" in verified(
        goalcover
    )
    killed(run, "goalcover assess", "INSERT INTO counters VALUES ('n', 1)")
    change(run, "UPDATE judgements SET p0 = p5, p5 = p0 WHERE sample = 1 AND subgoal = 2")
    for _ in range(2):
        goalcover(*DECIDE)
        said = verified(goalcover)
        assert "between events 9 and 10 (" in said and "changed there (judgements, counters) cannot" in said
    opened, sealed = events()[-3], events()[-4]
    assert (opened.kind, sealed.kind) == (audit.OPENED, audit.SEALED)
    assert {name: opened.told[name] for name in ("format", "contents", "counts")}.items() <= sealed.told.items()


def test_a_new_run_that_is_killed_before_its_first_change_is_no_alarm(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    with Run.open(new, write=True, create=True) as opened:
        first = chain.next_event(None, audit.OPENED, {}, "goalcover assess")
        trail._opening(new, first, first)
        assert opened.events() == []
    said = verified(goalcover, "new", code=3)
    assert (
        "UNSEALED: A command was killed before its first change (goalcover assess, 20" in said and "WRONG" not in said
    )


@pytest.mark.parametrize("seals", [False, True])
def test_a_command_that_begins_or_seals_while_it_is_verified_is_no_alarm(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch, seals: bool
) -> None:
    if seals:
        killed(run)
    whole = ledger.read
    read_once: list[ledger.Reading] = []

    def read() -> ledger.Reading:
        reading = whole()
        if not read_once:
            read_once.append(reading)
            with sqlite3.connect(run / DATABASE) as database:
                if seals:
                    trail._sealed(run, *audit.seal(database, "goalcover assess", "ended"))
                else:
                    trail._opening(run, *audit.begin(database, "goalcover assess"))
            database.close()
        return reading

    monkeypatch.setattr(ledger, "read", read)
    assert "WRONG" not in verified(goalcover, code=0 if seals else 3) and read_once


def test_a_run_that_is_killed_before_its_tables_are_made_is_no_alarm(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / DATABASE).touch()
    said = verified(goalcover, "new", code=3)
    assert "UNSEALED: The file is empty: a command was killed before its first change." in said and "WRONG" not in said
    assert "is not in the chain" in verified(goalcover, "new", "--head", "0" * 64, code=1)


def test_a_run_whose_file_was_emptied_is_wrong(goalcover: Goalcover, run: Path) -> None:
    head = events()[-1].hash
    for path in run.glob(f"{DATABASE}*"):
        path.write_bytes(b"")
    said = verified(goalcover, code=1)
    assert f"WRONG: The ledger knows a run here, with head {head}, of 20" in said and "; its file is empty." in said


def test_events_and_contents_are_read_as_they_stood_at_one_moment(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(run)
    whole = audit.events
    added = []

    def writes_meanwhile(database: sqlite3.Connection) -> list[chain.Event]:
        found = whole(database)
        with sqlite3.connect(run / DATABASE) as other:
            added.append(audit.add(other, "step", {}, "goalcover assess"))
        other.close()
        return found

    monkeypatch.setattr(audit, "events", writes_meanwhile)
    said = verified(goalcover, code=3)
    assert "WRONG" not in said and "Chain: 5 events, whole" in said and len(added) > 1


def test_a_run_to_which_commands_never_stop_writing_is_said_to_be_at_work(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ledger.read

    def read() -> ledger.Reading:
        reading = whole()
        with sqlite3.connect(run / DATABASE) as database:
            trail._opening(run, *audit.begin(database, "goalcover assess"))
            trail._sealed(run, *audit.seal(database, "goalcover assess", "ended"))
        database.close()
        return reading

    monkeypatch.setattr(ledger, "read", read)
    said = verified(goalcover, code=3)
    assert "UNSEALED: Commands are at work here" in said and "WRONG" not in said


# Forgery


def forged(folder: Path, *kinds_of_events: str) -> None:
    """Somebody edits the run, and appends events to its chain as a command of ours would."""
    with sqlite3.connect(folder / DATABASE) as database:
        for kind in kinds_of_events:
            if kind == audit.OPENED:
                audit.add(database, kind, {}, "goalcover decide")
            database.execute("UPDATE judgements SET p0 = p5, p5 = p0 WHERE sample = 1 AND subgoal = 2")
            if kind == audit.SEALED:
                audit.seal(database, "goalcover decide", "ended")
            elif kind != audit.OPENED:
                audit.add(database, kind, {}, "goalcover decide")
    database.close()


@pytest.mark.parametrize(
    ("kinds_of_events", "told"),
    [
        ((audit.OPENED,), "Event 5 says that a command began to write, of which the ledger does not know"),
        ((audit.OPENED, audit.SEALED), "Event 5 says that a command began to write"),
        ((audit.OPENED, audit.SEALED, audit.OPENED), "Events 5, 7 say that a command began"),
        ((audit.SEALED,), "Event 5 (sealed) was written by no command that had begun."),
        ((DECIDED,), "Event 5 (verdict decided) was written by no command that had begun."),
    ],
)
@pytest.mark.parametrize("who", ["", "somebody-else"])
def test_what_is_appended_to_hide_an_edit_is_wrong_and_no_later_command_washes_it(
    goalcover: Goalcover,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    kinds_of_events: tuple[str, ...],
    told: str,
    who: str,
) -> None:
    with monkeypatch.context() as patch:
        if who:
            patch.setattr(chain, "author", lambda: (who, "elsewhere"))
        forged(run, *kinds_of_events)
    assert f"WRONG: {told}" in verified(goalcover, code=1)
    goalcover(*DECIDE)
    assert f"WRONG: {told}" in verified(goalcover, code=1)


@pytest.mark.parametrize("kind", [DECIDED, audit.SEALED])
def test_an_event_after_the_seal_hides_no_edit(goalcover: Goalcover, run: Path, kind: str) -> None:
    forged(run, kind)
    assert "WRONG: Since event 4 sealed them, somebody edited: judgements." in verified(goalcover, code=1)
    goalcover(*DECIDE)
    assert "WRONG: When event 6 was written, judgements were not as sealed before it." in verified(goalcover, code=1)


def test_after_a_kill_only_that_users_events_may_follow(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(run)
    with sqlite3.connect(run / DATABASE) as database:
        audit.add(database, "step", {}, "goalcover assess")
    assert "WRONG" not in verified(goalcover, code=3)
    with monkeypatch.context() as patch, sqlite3.connect(run / DATABASE) as database:
        patch.setattr(chain, "author", lambda: ("somebody-else", "here"))
        audit.add(database, "step", {}, "goalcover assess")
    assert "WRONG: Event 7 (step) was written by no command that had begun." in verified(goalcover, code=1)


def test_a_run_of_another_user_is_a_caution_and_one_of_this_user_is_wrong(
    goalcover: Goalcover, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("GOALCOVER_STATE", str(tmp_path / "other"))
    said = verified(goalcover, code=1)
    assert f"{ledger.path()} does not know it: it was removed or cut" in said
    author = chain.author
    monkeypatch.setattr(chain, "author", lambda: ("somebody-else", author()[1]))
    said = verified(goalcover)
    assert "does not know this run: made by another user or on another machine?" in said and "WRONG" not in said
    goalcover(*DECIDE)
    said = verified(goalcover)
    assert "Ledger: does not know what others wrote up to event 5" in said and "WRONG" not in said


def test_a_ledger_that_is_not_whole_makes_every_run_wrong(goalcover: Goalcover, run: Path) -> None:
    lines = ledger.path().read_bytes().splitlines(keepends=True)
    ledger.path().write_bytes(b"".join(lines[1:]))
    wrong = f"WRONG: The ledger {ledger.path()}, by which runs are verified: Event 1 is missing."
    assert wrong in verified(goalcover, code=1)


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"run": 7, "place": "x"},
        {"run": "x", "place": None, "events": 1, "head": "x"},
        {"run": "x", "place": "x", "events": "1", "head": "x"},
        {"run": "x", "place": "x", "events": 1, "head": None},
    ],
)
@pytest.mark.parametrize("kind", [RUN_OPENED, RUN_SEALED])
def test_details_of_the_ledger_that_are_not_as_they_are_written_are_a_finding(
    goalcover: Goalcover, run: Path, kind: str, details: dict[str, Any]
) -> None:
    seq = ledger.append(kind, details).seq
    assert f"event {seq} tells of a run, and not what it must." in verified(goalcover, code=1)
    assert f"WRONG: Event {seq} tells of a run, and not what it must." in verified(goalcover, "--ledger", code=1)


def test_a_run_that_is_gone_is_wrong_and_the_ledger_lists_what_it_knows(
    goalcover: Goalcover, run: Path, tmp_path: Path
) -> None:
    head = events()[-1].hash
    run.rename(tmp_path / "moved")
    said = verified(goalcover, code=1)
    assert f"WRONG: The ledger knows a run here, with head {head}, of 20" in said and said.endswith("; it is gone.\n")
    assert "WRONG" not in verified(goalcover, "moved")
    said = verified(goalcover, "--ledger")
    place = trail.place(run)
    assert f"Knows a run at place {place[:12]}, with head {head}, of 20" in said and "WRONG" not in said


def test_a_new_run_that_is_killed_at_once_in_the_place_of_another_is_no_alarm(goalcover: Goalcover, run: Path) -> None:
    shutil.rmtree(run)
    told: list[str] = []
    recording = audit.Recording(
        "goalcover test",
        outcome,
        lambda folder, first, _: told.append(first.hash),
        lambda *_: pytest.fail("it was killed"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "recording", recording)
        with Run.open(run, write=True, create=True) as opened:
            opened.count("n", 1)
            patch.setattr(opened, "_recorded", None)
    assert told == [events()[0].hash], "the ledger knows it before it is on the disk"


# Show and export


def test_events_are_shown_and_exported_for_anyone_to_check(goalcover: Goalcover, run: Path) -> None:
    shown = json.loads(goalcover("audit", "show", "run", "--json").out)
    assert [each["seq"] for each in shown] == [1, 2, 3, 4] and shown[-1]["details"]["outcome"] == "ended"
    table = goalcover("audit", "show", "run").out
    assert "verdict decided" in table and CANARY not in table
    assert BEGAN in goalcover("audit", "show").out
    said = goalcover("audit", "export", "run", "-o", "events.jsonl")
    assert said.err == "4 events written.\n" and stat.S_IMODE(Path("events.jsonl").stat().st_mode) == 0o600
    text = Path("events.jsonl").read_text(encoding="utf-8")
    assert verified_by_anyone(text) == 4 and goalcover("audit", "export", "run").out == text
    assert verified_by_anyone(ledger.path().read_text(encoding="utf-8")) == 4
    with pytest.raises(AssertionError):
        verified_by_anyone(text.replace('"opened"', '"closed"', 1))


def test_the_ledger_is_exported_too_and_never_overwritten(goalcover: Goalcover, run: Path) -> None:
    whole = ledger.path().read_bytes()
    assert goalcover("audit", "export").out.encode() == whole
    goalcover("audit", "export", "-o", "ledger.jsonl")
    assert Path("ledger.jsonl").read_bytes() == whole
    goalcover.refused("audit", "export", "run", "-o", ledger.path())
    ledger.path().write_bytes(whole + b"no event\n")
    assert "1 line of the ledger was left out: no event." in goalcover("audit", "export").err
    assert goalcover("audit", "export").out.encode() == whole


def test_the_table_tells_what_matters_first_and_all_of_the_run_and_its_head(goalcover: Goalcover, run: Path) -> None:
    first, *_, last = events()
    lines = goalcover("audit", "show", "run").out.splitlines()
    assert lines[0] == f"Run {first.hash}" and lines[-1] == f"Head {last.hash}"
    [decided] = [line for line in lines if "verdict decided" in line]
    assert "subgoal causes, verdict gap" in decided
    [sealed] = [line for line in lines if " sealed " in line]
    assert "outcome ended, counts: " in sealed and last.hash[:12] in sealed
    assert "contents" not in sealed, "no list of digests"
    [ended] = [line for line in goalcover("audit", "show").out.splitlines() if ENDED in line]
    assert " code 0" in ended
    [began] = [line for line in goalcover("audit", "show").out.splitlines() if BEGAN in line]
    assert " python 3." in began and "…" in began, "a detail that does not fit is left out whole"
    [noted] = [line for line in goalcover("audit", "show").out.splitlines() if RUN_SEALED in line]
    assert f"run {first.hash[:12]}" in noted and first.hash[:13] not in noted


def test_what_was_verified_is_told_to_machines(goalcover: Goalcover, run: Path) -> None:
    told = json.loads(verified(goalcover, "run", "--ledger", "--json"))
    assert (told["code"], told["host"], told["version"]) == (0, chain.author()[1], __version__)
    assert told["at"].endswith("+00:00")
    one, other = told["verified"]
    assert (one["name"], one["code"], one["head"]) == ("run", 0, events()[-1].hash)
    assert one["findings"] == one["unsealed"] == [] and any("Contents: as event 4" in note for note in one["notes"])
    assert (other["name"], other["head"]) == (str(ledger.path()), ledger.read().events[-1].hash)
    change(run, "DELETE FROM judgements WHERE sample = 2")
    told = json.loads(verified(goalcover, "run", "--json", code=1))
    assert told["code"] == 1 and told["verified"][0]["findings"] == [
        "Since event 4 sealed them, somebody edited: judgements."
    ]


def test_steering_characters_of_an_altered_event_reach_no_terminal(goalcover: Goalcover, run: Path) -> None:
    change(run, "UPDATE events SET who = char(27) || '[31mroot' || char(10), details = char(155) WHERE seq = 2")
    for arguments in (("show", "run"), ("show", "run", "--json")):
        out = goalcover("audit", *arguments).out
        assert "\x1b" not in out and "\x9b" not in out
    assert "Event 2 was altered" in verified(goalcover, code=1)
    told = replace(events()[1], who="root", details=canonical_json({"edited": ["\x1b[31m\n  Chain: whole"]}))
    change(run, "UPDATE events SET who = ?, details = ?, hash = ?", values=(told.who, told.details, told.seal))
    said = verified(goalcover, code=1)
    assert "\x1b" not in said and "\n  Chain: whole" not in said and "Chain: whole were not as sealed" in said


def test_a_damaged_run_a_foreign_file_and_none_are_findings(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    (run / DATABASE).write_bytes(b"no database at all, but long enough" * 100)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    change(foreign, "CREATE TABLE recipes(name)")
    before = {path: path.read_bytes() for place in (run, foreign) for path in place.iterdir()}
    said = verified(goalcover, "run", "foreign", "nowhere", code=1)
    for told in ("is damaged, or is no run", "another program's file", "There is no run in nowhere"):
        assert told in said
    assert {path: path.read_bytes() for place in (run, foreign) for path in place.iterdir()} == before


def test_a_run_of_an_older_format_is_verified_as_it_stands(goalcover: Goalcover, tmp_path: Path) -> None:
    judged_run(tmp_path / "old", rows(tmp_path / "d.jsonl", ("What?", "yes")), {"yes": (0.2, 0.9)})
    [table] = TABLES_4
    change(tmp_path / "old", f"DROP TABLE {table.partition('(')[0]}", "ALTER TABLE events DROP COLUMN version")
    change(tmp_path / "old", "PRAGMA user_version = 3")
    [event] = events(Path("old"))
    bare = replace(event, version="")
    change(tmp_path / "old", "UPDATE events SET hash = ?", values=(bare.seal,))
    whole = (tmp_path / "old" / DATABASE).read_bytes()
    assert "Chain: 1 event, whole" in verified(goalcover, "old", code=3)
    assert verified_by_anyone(goalcover("audit", "export", "old").out) == 1
    assert (tmp_path / "old" / DATABASE).read_bytes() == whole
    goalcover("decide", "old", *DECIDE[2:])
    assert [each.version for each in events(Path("old"))] == ["", *[__version__] * 3]
    assert "Chain: 4 events, whole" in verified(goalcover, "old")


# Decisions


def decision(goalcover: Goalcover, place: int = 1) -> Any:
    return checked_show(goalcover("show", "run", "--json").out)["subgoals"][place]["decision"]


def test_a_decision_stands_beside_the_verdict_until_it_is_withdrawn(goalcover: Goalcover, run: Path) -> None:
    shown = checked_show(goalcover("show", "run", "--json").out)["subgoals"]
    assert shown[0]["decision"] is None and shown[1]["verdict"] != "gap"
    told = shown[1]["decision"]
    assert told == told | {"verdict": "gap", "judged": shown[1]["verdict"], "reason": f"{CANARY} says so."}
    assert (told["event"], told["outdated"]) == (3, False)
    assert f"causes is gap (the judge says {shown[1]['verdict']}). Reason: {CANARY}" in goalcover("show", "run").out
    assert "decided           causes: gap" in goalcover("status", "run").out
    goalcover("decide", "run", "causes", "--withdraw", "--reason", "It was wrong.")
    assert decision(goalcover) is None and "\ndecided" not in goalcover("status", "run").out
    found = [json.loads(line) for line in goalcover("export", "run", "--what", "decisions").out.splitlines()]
    assert [(each["verdict"], each["stands"]) for each in found] == [("gap", False), (None, False)]
    assert [event.kind for event in events()][-2] == "decision withdrawn"
    refused = goalcover.refused("decide", "run", "causes", "--withdraw", "--reason", "Again.")
    assert "No decision on causes stands" in refused


def test_a_decision_of_before_the_judgements_says_so(goalcover: Goalcover, run: Path) -> None:
    with Run.open(run, write=True) as opened:
        [judge] = opened.judges()
        opened.append(judge, [Judgement(opened.sample(2).digest, SUBGOALS[1].digest, (1.0, 0, 0, 0, 0, 0))])
    assert decision(goalcover)["outdated"] is True
    assert "before the judgements that stand now: causes is gap" in goalcover("show", "run").out
    assert "causes: gap (before the judgements that stand now)" in goalcover("status", "run").out
    goalcover(*DECIDE)
    assert decision(goalcover)["outdated"] is False


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "causes", "--verdict", "gap", "--withdraw", "--reason", "x"), 2),
        (("run", "causes", "--reason", "x"), 2),
        (("run", "causes", "--verdict", "gap"), 2),
        (("run", "causes", "--verdict", "gap", "--reason", " "), 2),
        (("run", "nothing", "--verdict", "gap", "--reason", "x"), 1),
    ],
)
def test_what_is_no_decision_is_refused_and_leaves_no_trace(
    goalcover: Goalcover, run: Path, arguments: tuple[str, ...], code: int
) -> None:
    goalcover("decide", *arguments, code=code)
    assert len(events()) == 4 and decision(goalcover)["event"] == 3


def test_accepted_violations_are_on_record_once_by_digests(run: Path) -> None:
    let_be = Finding("disjointness", ("causes", "treatment"), outcome="accepted", reason=f"{CANARY} allows it")
    stands = Finding("coverage", (), f"{CANARY} in a statement", outcome="violated")
    goal = replace(GOAL, checks=Checks("judge", "ab", GOAL.decomposition, {}, (let_be, stands)))
    with Run.open(run, write=True) as opened:
        for _ in range(2):
            note_acceptances(opened, goal, "goalcover assess")
    [event] = [each for each in events(run) if each.kind == ACCEPTED]
    assert [event.told] == acceptances(goal) and CANARY not in event.details
    assert event.told["subgoals"] == ["causes", "treatment"] and len(event.told["reason"]) == 64
