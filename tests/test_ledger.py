"""The ledger: nothing that was written can be changed or cut off unseen, and no crash or full disk stops a command."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalcover_local import ledger, resources
from goalcover_local.errors import StoreError

N = 6


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "state"
    monkeypatch.setenv("GOALCOVER_STATE", str(place))
    return place


@pytest.fixture
def file(state: Path) -> Path:
    """A ledger of six events."""
    for number in range(N):
        ledger.append("step", {"n": number}, "goalcover test")
    return state / ledger.FILE


def test_events_come_back_and_belong_to_the_user_alone(file: Path) -> None:
    found = ledger.read()
    assert [event.told["n"] for event in found.events] == list(range(N))
    assert (found.problems, found.torn) == ([], 0)
    assert found.head == (N, found.events[-1].hash)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}


def test_where_there_is_none_there_is_nothing(state: Path) -> None:
    assert ledger.read() == ledger.Reading((), (), 0, None)
    assert ledger.read().problems == [] and not state.exists()


def test_it_lies_with_the_user_and_not_with_models_that_users_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "shared"))
    monkeypatch.setenv("GOALCOVER_STATE", str(tmp_path / "mine"))
    assert ledger.path() == tmp_path / "mine" / "ledger.jsonl" and resources.home() == tmp_path / "shared"
    monkeypatch.delenv("GOALCOVER_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert resources.state() == tmp_path / "state" / "goalcover"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resources.state() == tmp_path / ".local" / "state" / "goalcover"
    (tmp_path / "shared").mkdir(mode=0o500)
    ledger.append("step", {}, "goalcover test")
    assert stat.S_IMODE(resources.state().stat().st_mode) == 0o700 and len(ledger.read().events) == 1
    assert [*(tmp_path / "shared").iterdir()] == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120)
@given(place=st.integers(0, 10**6), put=st.sampled_from([b"0", b"a", b'"', b"}", b"{", b"\n", b"\0", b" ", b"\xff"]))
def test_every_byte_counts(file: Path, place: int, put: bytes) -> None:
    whole = file.read_bytes()
    at = place % len(whole)
    changed = whole[:at] + put + whole[at + 1 :]
    file.write_bytes(changed)
    assert bool(ledger.read().problems) == (changed != whole)
    file.write_bytes(whole)


@pytest.mark.parametrize("n", range(N))
@pytest.mark.parametrize(
    "change",
    [
        lambda lines, n: lines[:n] + lines[n + 1 :],
        lambda lines, n: [*lines[:n], lines[n], *lines[n:]],
        lambda lines, n: [*lines[:n], *reversed(lines[n : n + 2]), *lines[n + 2 :]] if n + 1 < N else lines[::-1],
        lambda lines, n: lines[:n],
        lambda lines, n: [*lines[:n], lines[n][:-1]],
        lambda lines, n: [*lines[:n], lines[n][:10]],
    ],
    ids=["deleted", "duplicated", "reordered", "cut", "cut before the line's end", "cut within the line"],
)
def test_no_line_can_be_moved_or_cut_off(file: Path, n: int, change: Callable[[list[bytes], int], list[bytes]]) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(change(lines, n)))
    assert ledger.read().problems
    ledger.append("step", {"n": "later"})
    assert ledger.read().problems, "going on heals nothing"


def test_what_a_crash_tore_is_kept_aside_and_told(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b'{"at":"2026')
    before = ledger.read()
    assert (before.problems, before.torn) == ([], 11)
    ledger.append("step", {"n": N})
    found = ledger.read()
    assert [event.kind for event in found.events[N:]] == [ledger.MENDED, "step"]
    assert (found.problems, found.torn, found.events[N].told["bytes"]) == ([], 0, 11)
    [aside] = file.parent.glob("ledger.torn-*")
    assert aside.read_bytes() == b'{"at":"2026' and aside.name[12:] == found.events[N].told["sha256"][:16]
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_a_ledger_that_is_all_rubbish_is_kept_aside_too(state: Path) -> None:
    state.mkdir()
    (state / ledger.FILE).write_bytes(b"\0" * 100_000)
    ledger.append("step", {})
    assert [event.kind for event in ledger.read().events] == [ledger.MENDED, "step"] and ledger.read().problems == []


def test_a_kill_between_a_line_and_its_head_is_no_alarm(file: Path) -> None:
    head = file.with_name(ledger.HEAD).read_bytes()
    ledger.append("step", {"n": N})
    file.with_name(ledger.HEAD).write_bytes(head)
    assert ledger.read().problems == []
    ledger.append("step", {"n": N + 1})
    assert ledger.read().problems == [] and len(ledger.read().events) == N + 2


def test_a_head_that_is_gone_is_missed(file: Path) -> None:
    file.with_name(ledger.HEAD).unlink()
    assert "ledger.head is missing" in ledger.read().problems[0]
    ledger.append("step", {"n": N})
    assert ledger.read().problems == [f"Event {N + 1} tells that ledger.head was missing."]


def test_a_chain_that_was_written_anew_does_not_fit_the_head(file: Path, tmp_path: Path) -> None:
    head = file.with_name(ledger.HEAD).read_bytes()
    file.unlink()
    file.with_name(ledger.HEAD).unlink()
    for number in range(N):
        ledger.append("step", {"n": -number}, "goalcover test")
    file.with_name(ledger.HEAD).write_bytes(head)
    assert ledger.read().problems == [f"Event {N} is not the one that ledger.head names."]


def test_a_long_event_is_found_again(state: Path) -> None:
    ledger.append("step", {str(n): "x" * 150 for n in range(1000)})
    ledger.append("step", {})
    assert (len(ledger.read().events), ledger.read().problems) == (2, [])


CHILD = """
import sys
from goalcover_local import ledger
for n in range(int(sys.argv[1])):
    ledger.append("step", {"n": n}, "goalcover test")
    print(n, flush=True)
"""


def start(state: Path, n: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "GOALCOVER_STATE": str(state), "PYTHONPATH": str(Path(ledger.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(n)], env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_one_chain_and_a_kill_tears_nothing(state: Path) -> None:
    other, doomed = start(state, 15), start(state, 10_000)
    assert doomed.stdout is not None and other.stdout is not None
    for _ in range(5):
        doomed.stdout.readline()
    time.sleep(0.01)
    doomed.kill()
    assert doomed.wait() == -signal.SIGKILL
    assert other.wait() == 0
    doomed.stdout.close()
    other.stdout.close()
    ledger.append("step", {})
    found = ledger.read()
    assert found.problems == [] and len(found.events) >= 15 + 5 + 1


def test_a_note_never_stops_its_caller_and_warns_once(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write_text("a file where the folder should be")
    for _ in range(2):
        assert ledger.note("step", {}) is None
    assert capsys.readouterr().err.count("Warning: The ledger ") == 1
    assert ledger.note("step", {"note": "secret " * 99}) is None
    assert "secret" not in capsys.readouterr().err
    with pytest.raises(StoreError, match="cannot be written"):
        ledger.append("step", {})
    with pytest.raises(StoreError, match="cannot be read"):
        ledger.read()


def test_what_does_not_fit_on_the_disk_is_taken_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="cannot be written"):
        patch.setattr("os.fsync", fails)
        ledger.append("step", {})
    assert file.read_bytes() == whole and ledger.read().problems == []


def fails(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_process_that_holds_the_lock_is_not_waited_for_without_end(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(ledger, "PATIENCE", 0.05)
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="Another process has been writing"):
            ledger.append("step", {})
    assert json.loads(file.read_bytes().splitlines()[-1])["seq"] == N
