"""`goalcover doctor --prove-offline`: the executable on a tiny judge, and what it makes of a machine that leaks."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tiny
from command import Goalcover

from goalcover_local import __version__, ledger, pulling
from goalcover_local.cards import Card, Source, load_card
from goalcover_local.cli import proving, sealed
from goalcover_local.cli.proving import Finding
from goalcover_local.cli.sealed import EXPORT, REPORT, Sealed
from goalcover_local.weights import verify

GUARDS = ["guard, this process", "guard, forked worker", "guard, spawned worker", "guard, another program"]
OPTIONS = {
    "engine": "transformers",
    "url": "",
    "devices": "",
    "threads": 1,
    "verify": "full",
    "question": None,
    "order": None,
    "as_json": False,
}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Card]:
    """The card of a random judge of a few kilobytes, in a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOALCOVER_HOME", str(tmp_path_factory.mktemp("home")))
        pulling.add(tiny.write_checkpoint(tmp_path_factory.mktemp("tiny"), max_position_embeddings=8192), "tiny")
        yield load_card("tiny")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card whose weights are taken to be there: nothing opens them."""
    monkeypatch.setattr("goalcover_local.weights.verify", lambda _: None)
    return Card("tiny", "Tiny", ("judge",), "20k", "Apache-2.0", "random", 600, Source("directory"))


def doctor(*options: str, code: int = 0) -> Any:
    """What `goalcover doctor --prove-offline --json` prints; it must leave with that code."""
    command = [sys.executable, "-m", "goalcover_local.cli.main", "doctor", "--prove-offline", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def outcomes(told: Any) -> dict[str, str]:
    """The outcome of each finding, by its name."""
    return {finding["name"]: finding["outcome"] for finding in told["findings"]}


def test_the_executable_proves_what_can_be_proved_here(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    began = datetime.now(UTC).replace(microsecond=0)
    told = doctor("--judge", card.name, "--threads", "1", "--engine", "transformers")
    assert began <= datetime.fromisoformat(told["at"]) <= datetime.now(UTC)
    assert (told["judge"], told["weights"], told["version"]) == (card.name, verify(card).digest, __version__)
    assert told["host"] == os.uname().nodename and told["kernel"] == f"Linux {os.uname().release}"
    found = outcomes(told)
    assert told["namespace"] == (found["empty network namespace"] == "proved")
    assert told["well"] and all(found[name] == "proved" for name in ("switches", *GUARDS, "assessment"))
    assert all(found[name] == "not proved" for name in proving.LIMITS)
    details = {finding["name"]: finding["details"] for finding in told["findings"]}
    assert details["assessment"]["pairs"] == 16 and details["assessment"]["attempts"] == []
    assert list(tmp_path.iterdir()) == [], "the run is gone"
    assert all(event.kind != "network refused" for event in ledger.read().events), "knocking is no attempt"
    if found["empty network namespace"] == "not proved":
        pytest.skip(f"the kernel gives no namespace: {details['empty network namespace']['kernel']}")
    assert details["empty network namespace"] == {"devices": ["lo"], "routes": 0, "native": "ENETUNREACH"}
    assert found["same judgements"] == found["assessment, sealed"] == "proved"
    assert details["same judgements"]["export"] == details["assessment"]["export"]


def test_without_weights_it_says_so_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "empty"))
    told = doctor(code=1)
    found = outcomes(told)
    assert not told["well"] and found["assessment"] == "failed" and all(found[name] == "proved" for name in GUARDS)
    [assessment] = [finding for finding in told["findings"] if finding["name"] == "assessment"]
    assert "goalcover models pull smollm2-135m-instruct" in assessment["found"]
    assert str(tmp_path / "empty" / "models" / "smollm2-135m-instruct") in assessment["found"]
    assert told["weights"] is None and told["namespace"] is sealed_already()


def sealed_already() -> bool:
    """Whether these tests run where there is nothing but a loopback."""
    return [path.name for path in Path("/sys/class/net").iterdir()] == ["lo"]


@pytest.mark.parametrize("options", [("--run", "runs"), ("--repeat",)])
def test_options_without_meaning_are_refused(goalcover: Goalcover, options: tuple[str, ...]) -> None:
    assert (
        f"{options[0]} has no meaning with --prove-offline"
        in goalcover("doctor", "--prove-offline", *options, code=2).err
    )


def test_a_sealed_process_has_a_loopback_of_its_own_and_stays_its_user() -> None:
    code = """
import os, socket
from goalcover_local.cli import sealed
user = os.getuid(), os.getgid()
try:
    sealed.seal()
except OSError as error:
    print("refused", error)
    raise SystemExit
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
    print((os.getuid(), os.getgid()) == user, sealed.devices(), sealed.routes(), sealed.native_answer())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if told.startswith("refused"):
        pytest.skip(f"the kernel gives no namespace: {told}")
    assert told == "True ['lo'] 0 ENETUNREACH"


def test_a_kernel_without_namespaces_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Forbidding:
        def unshare(self, flags: int) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Forbidding())
    assert sealed._prove(tmp_path, True, []) == Sealed(kernel="Operation not permitted")


# What is made of a machine that leaks

PAIR = {"row": 0, "subgoal": "skin", "score": 0.4}


class Child:
    """Stands for the process that judges: leaves what it is told to have seen, guarded and sealed."""

    def __init__(self, guarded: Sealed | None, inside: Sealed | None = None, *, said: str = "", same: bool = True):
        self.seen, self.said, self.same = {"guarded": guarded, "sealed": inside}, said, same
        self.asked: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        folder, how = Path(command[3]), command[4]
        assert folder.stat().st_mode & 0o777 == 0o700 and folder.name == how
        seen = self.seen[how]
        if seen is not None:
            (folder / REPORT).write_text(json.dumps(asdict(seen)), "utf-8")
            if not seen.kernel and not seen.code:
                row = 0 if self.same or how == "guarded" else 1
                (folder / EXPORT).write_text(json.dumps({**PAIR, "row": row}) + "\n", "utf-8")
        return subprocess.CompletedProcess(command, 0 if seen else 1, "", self.said)


ALONE = Sealed(devices=["lo"], native="ENETUNREACH")


@pytest.mark.parametrize(
    ("child", "names"),
    [
        (Child(Sealed(), ALONE), ""),
        (Child(Sealed(), Sealed(kernel="Operation not permitted")), ""),
        (Child(Sealed(refused=["socket.connect 192.0.2.1"])), "assessment"),
        (Child(Sealed(code=1), said="Error: It is broken.\n"), "assessment"),
        (Child(None, said="Killed"), "assessment"),
        (Child(Sealed(), Sealed(devices=["lo", "eth0"], native="ENETUNREACH")), "empty network namespace"),
        (Child(Sealed(), Sealed(devices=["lo"], routes=1, native="ENETUNREACH")), "empty network namespace"),
        (Child(Sealed(), Sealed(devices=["lo"])), "empty network namespace"),
        (Child(Sealed(), ALONE, same=False), "same judgements"),
        (Child(Sealed(), Sealed(devices=["lo"], native="ENETUNREACH", code=1)), "assessment, sealed"),
        (Child(Sealed(), None), "empty network namespace; assessment, sealed"),
    ],
)
def test_what_is_amiss_is_a_failure_and_what_cannot_be_tried_is_none(
    named: Card, monkeypatch: pytest.MonkeyPatch, child: Child, names: str
) -> None:
    monkeypatch.setattr(subprocess, "run", child)
    found = list(proving._assessments(named, OPTIONS))
    assert "; ".join(finding.name for finding in found if finding.outcome == "failed") == names
    told = " ".join(finding.found for finding in found)
    assert ("It is broken." in told) == bool(child.said.startswith("Error"))
    assert ("Operation not permitted" in told) == (child.seen["sealed"] == Sealed(kernel="Operation not permitted"))


def test_the_judge_is_asked_as_the_options_say(named: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(Sealed(), ALONE)
    monkeypatch.setattr(subprocess, "run", child)
    options = {**OPTIONS, "order": "score-first", "engine": "server", "url": "http://127.0.0.1:8000"}
    [_, namespace] = proving._assessments(named, options)
    assert (namespace.name, namespace.outcome) == ("empty network namespace", "not proved")
    [asked] = child.asked
    expected = {
        "--verify": "full",
        "--judge": "tiny",
        "--order": "score-first",
        "--url": options["url"],
        "--threads": "1",
    }
    assert {option: asked[asked.index(option) + 1] for option in expected} == expected
    assert "--question" not in asked


def test_a_way_out_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: Card) -> None:
    from goalcover_local.errors import NetworkRefused

    def refused() -> None:
        raise NetworkRefused("It is shut.")

    def failing() -> None:
        raise OSError(errno.ENETUNREACH, "no way")

    monkeypatch.setattr(proving, "_WAYS", {"out": lambda: None, "far": failing, "shut": refused, "wide": lambda: None})
    assert proving.escapes() == ["out", "far", "wide"]
    told = [proving._guarded("guard", proving.escapes), proving._guarded("worker", lambda: None)]
    assert [finding.outcome for finding in told] == ["failed", "failed"] and "not refused: out, far" in told[0].found
    monkeypatch.setattr(proving, "findings_of", lambda *_: [*told, Finding("root", "not proved", "whoever is root")])
    assert not proving.prove(named, OPTIONS)
    guard, worker, root = capsys.readouterr().out.splitlines()
    assert guard == "FAIL  guard: not refused: out, far, wide" and worker == "FAIL  worker: it ended without an answer"
    assert root == "not   root: whoever is root"


def test_switches_that_are_not_set_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goalcover_local.offline.is_shut", lambda: True)
    assert proving._switches().outcome == "proved"
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "0")
    found = proving._switches()
    assert (found.outcome, found.details) == ("failed", {"unset": ["HF_HUB_OFFLINE"]})
    monkeypatch.undo()
    assert proving._switches().outcome == "failed", "this process is not shut"
