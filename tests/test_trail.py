"""What goes on record of a command: none that does something is left out, and each run that it reads is named."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from command import Goalcover, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import judged_run

from goalcover_local import audit, folder, ledger
from goalcover_local.cli import decide, main, models, status, trail
from goalcover_local.cli.trail import BEGAN, ENDED, RUN_OPENED, RUN_READ, RUN_SEALED
from goalcover_local.errors import StoreError
from goalcover_local.store import Run

CANARY = "PRIVATE-CANARY"


@pytest.fixture
def run(goalcover: Goalcover, tmp_path: Path) -> Path:
    """A run that no command has written to yet."""
    data = rows(tmp_path / "data.jsonl", ("What?", "yes"), (f"{CANARY}?", "no"))
    return judged_run(tmp_path / "run", data, {"yes": (0.2, 0.9), "no": (0.4, None)})


def noted() -> list[tuple[str, str]]:
    """Kind and command of each event in the ledger."""
    return [(event.kind, event.command) for event in ledger.read().events]


def first(place: Path) -> str:
    with Run.open(place, write=False) as opened:
        return opened.events()[0].hash


# Which commands


@pytest.mark.parametrize("reason", ["-h", "--help", "--version", "--debug"])
def test_a_value_that_looks_like_a_request_for_help_hides_nothing(goalcover: Goalcover, run: Path, reason: str) -> None:
    said = goalcover("decide", "run", "causes", "--verdict", "gap", "--reason", reason)
    assert "causes: gap by your decision" in said.out and "Audit: 4 events" in said.err
    assert noted() == [(kind, "goalcover decide") for kind in (BEGAN, RUN_OPENED, RUN_SEALED, ENDED)]


@pytest.mark.parametrize(
    ("arguments", "n"),
    [
        (("show", "--help"), 0),
        (("--debug", "decide", "-h"), 0),
        (("models", "list", "--help"), 0),
        (("models", "-h"), 0),
        (("--version", "show", "run"), 0),
        (("show", "run", "--help"), 2),
    ],
)
def test_help_that_is_asked_for_first_is_not_on_record(
    goalcover: Goalcover, run: Path, arguments: tuple[str, ...], n: int
) -> None:
    goalcover(*arguments)
    assert len(noted()) == n


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The commands whose work began, of those that are made to do nothing here."""
    begun: list[str] = []
    for name, command in {
        "goalcover decide": decide.command,
        "goalcover status": status.command,
        "goalcover models list": models.command.commands["list"],
        "goalcover models verify": models.command.commands["verify"],
    }.items():
        monkeypatch.setattr(command, "callback", lambda *, _told=name, **_: begun.append(_told))
    yield begun


def on_record(done: list[str], arguments: list[str]) -> None:
    """Fails if click lets a command begin with these arguments that the trail would leave out, or misname."""
    done.clear()
    with suppress(click.ClickException):
        main.main.main(arguments, prog_name="goalcover", standalone_mode=False)
    words = trail._words(arguments, main.COMMANDS)
    assert not done or done == [f"goalcover {' '.join(words)}"], arguments


def test_no_arrangement_of_words_takes_a_command_off_the_record(done: list[str]) -> None:
    words = ("--debug", "-h", "--help", "--version", "--", "-", "models", "list", "verify", "status")
    seen = set()
    for n in range(1, 4):
        for arguments in itertools.product(words, repeat=n):
            on_record(done, [*arguments])
            seen |= {*done}
    assert seen == {"goalcover status", "goalcover models list", "goalcover models verify"}, "else it proves nothing"


@settings(max_examples=300)
@given(data=st.data())
def test_no_value_takes_a_decision_off_the_record(data: st.DataObject) -> None:
    value = st.sampled_from(["-h", "--help", "--version", "--debug", "--", "audit", "run", "--reason"])
    pairs = [
        ["--verdict", "gap"],
        ["--reason", data.draw(value)],
        [data.draw(value)],
        ["run"],
        data.draw(st.lists(value)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        begun: list[str] = []
        patch.setattr(decide.command, "callback", lambda **_: begun.append("goalcover decide"))
        on_record(begun, ["decide", *itertools.chain(*data.draw(st.permutations(pairs)))])


# What is read


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "run", "--json"),
        ("status", "run"),
        ("export", "run", "-o", "out.jsonl"),
        ("filter", "run", "-o", "kept.jsonl", "--dry-run"),
    ],
)
def test_a_run_that_is_read_is_named_by_its_first_event_and_its_place(
    goalcover: Goalcover, run: Path, arguments: tuple[str, ...]
) -> None:
    goalcover(*arguments)
    began, read, ended = ledger.read().events
    assert (began.kind, read.kind, ended.kind) == (BEGAN, RUN_READ, ENDED)
    assert read.command == f"goalcover {arguments[0]}"
    assert read.told == {"run": first(run), "place": trail.place(run)}
    assert CANARY not in read.line and str(run) not in read.line


def test_it_is_on_record_before_anything_is_read(
    goalcover: Goalcover, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_run: Run) -> None:
        assert [kind for kind, _ in noted()] == [BEGAN, RUN_READ]
        raise RuntimeError

    monkeypatch.setattr(Run, "goal", killed)
    goalcover("show", "run", code=1)
    assert [kind for kind, _ in noted()] == [BEGAN, RUN_READ, ENDED]


def test_a_command_names_each_run_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = judged_run(tmp_path / "other", tmp_path / "data.jsonl", {"yes": (0.2, 0.9)})
    monkeypatch.setattr("sys.argv", ["goalcover", "show"])
    with trail.recorded(main.COMMANDS):
        for place in (run, other, run, tmp_path / "run" / ".." / "run"):
            Run.open(place, write=False).close()
    read = [event.told["place"] for event in ledger.read().events if event.kind == RUN_READ]
    assert read == [trail.place(run), trail.place(other)]


def test_what_reads_without_a_command_or_verifies_is_not_on_record(goalcover: Goalcover, run: Path) -> None:
    Run.open(run, write=False).close()
    goalcover("audit", "show", "run")
    goalcover("audit", "export", "run")
    assert noted() == [] and (folder.on_reading, audit.recording) == (None, None)


def test_a_text_in_place_of_a_hash_is_not_on_record(goalcover: Goalcover, run: Path) -> None:
    with sqlite3.connect(run / folder.DATABASE) as database:
        database.execute("UPDATE events SET hash = ?", (CANARY,))
    goalcover("status", "run")
    [read] = [event for event in ledger.read().events if event.kind == RUN_READ]
    assert read.told == {"run": "", "place": trail.place(run)}


def test_a_ledger_that_cannot_be_written_stops_no_reading_and_is_told_once(
    goalcover: Goalcover, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GOALCOVER_STATE", str(tmp_path / "file"))
    monkeypatch.setattr(ledger, "_warned", set())
    said = goalcover("show", "run")
    assert said.err.count("Warning: The ledger ") == 1 and "treatment" in said.out
    with pytest.raises(StoreError, match="cannot be read"):
        ledger.read()
