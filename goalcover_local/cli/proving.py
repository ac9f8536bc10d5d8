"""`goalcover doctor --prove-offline`: what can be proved of the air gap on this machine, and what can not."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import click

from .sealed import EXPORT, NOBODY, REPORT, Sealed, devices, routes
from .terminal import one_line

if TYPE_CHECKING:
    from ..cards import Card

GOAL, N_ROWS = "family-clinic", 4
"""The goal that ships, and how many of its rows are judged: enough for every capability, few enough for a CPU."""

NAMESPACE = "empty network namespace"
"""The name of the finding that the kernel gave an assessment no way out."""

Outcome = Literal["proved", "failed", "not proved"]

_SIGNS: Mapping[Outcome, str] = {"proved": "ok    ", "failed": "FAIL  ", "not proved": "not   "}

LIMITS: Mapping[str, str] = {
    "native code": "the guard sees the sockets that Python opens; what C++, Rust or CUDA code opens by itself only a "
    "namespace or a firewall stops (`unshare --user --map-current-user --net goalcover …` puts any command in one)",
    "other programs": "what is not Python, or is Python started with -I, -E or -S, is not guarded",
    "this machine's own": "servers on loopback and on Unix sockets that others started (proxies, name caches, "
    "containers) can be reached, and may pass on what they are given",
    "below the guard": "the kernel, the GPU's driver and firmware, and whoever is root here",
    "ill will": "Python code that means harm can call libc past the guard; it stops libraries and mistakes",
}
"""What no check of ours can prove on any machine."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is proved, failed, or can not be proved here, and what was found, in words."""

    name: str
    outcome: Outcome
    found: str
    details: Mapping[str, Any] = field(default_factory=dict)


def prove(card: Card, options: Mapping[str, Any]) -> bool:
    """Whether nothing failed. Prints each finding as it comes, or all of them as JSON."""
    findings = []
    for finding in findings_of(card, options):
        findings.append(finding)
        if not options["as_json"]:
            click.echo(one_line(f"{_SIGNS[finding.outcome]}{finding.name}: {finding.found}"))
    well = all(finding.outcome != "failed" for finding in findings)
    if options["as_json"]:
        alone = is_alone() or any(each.name == NAMESPACE and each.outcome == "proved" for each in findings)
        told = {**circumstances(card, options), "namespace": alone, "well": well}
        click.echo(json.dumps({**told, "findings": [asdict(finding) for finding in findings]}, indent=2))
    return well


def circumstances(card: Card, options: Mapping[str, Any]) -> dict[str, Any]:
    """When and where something was found: time (UTC), host, kernel, GoalCover's version, judge, digest of its weights.

    The digest is None where the weights are not here, or are a server's, which nobody verified.
    """
    from .. import __version__
    from ..errors import ModelError
    from ..weights import verify

    try:
        weights = None if options["engine"] == "server" else verify(card).digest
    except ModelError:
        weights = None
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "kernel": f"{platform.system()} {platform.release()}",
        "version": __version__,
        "judge": card.name,
        "weights": weights,
    }


def is_alone() -> bool:
    """Whether this process sees no network but a loopback, as in a namespace of its own."""
    return devices() == ["lo"] and routes() == 0


def findings_of(card: Card, options: Mapping[str, Any]) -> Iterator[Finding]:
    """What is found, one after the other: switches, the guard in every kind of process, two assessments, the limits."""
    yield _switches()
    yield _guarded("guard, this process", escapes)
    yield _guarded("guard, forked worker", lambda: _in_worker("fork"))
    yield _guarded("guard, spawned worker", lambda: _in_worker("spawn"))
    yield _guarded("guard, another program", _in_program)
    yield from _assessments(card, options)
    for name, limit in LIMITS.items():
        yield Finding(name, "not proved", limit)


def escapes() -> list[str]:
    """The ways out of this process that the guard does not refuse; none if it holds. They lead to nobody."""
    from ..errors import NetworkRefused
    from ..offline import knocking

    escaped = []
    with knocking():
        for name, way in _WAYS.items():
            try:
                way()
            except NetworkRefused:
                continue
            except OSError:
                pass
            escaped.append(name)
    return escaped


def _datagram(address: str, family: int = socket.AF_INET) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        opened.connect((address, 9))


def _send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"", (NOBODY, 9))


def _listen() -> None:
    with socket.socket() as opened:
        opened.listen()


_WAYS: Mapping[str, Callable[[], object]] = {
    "connect (IPv4)": lambda: _datagram(NOBODY),
    "connect (IPv6)": lambda: _datagram("2001:db8::1", socket.AF_INET6),
    "connect (name)": lambda: _datagram("goalcover.invalid"),
    "send": _send,
    "look up a name": lambda: socket.getaddrinfo("goalcover.invalid", 9),
    "look up an address": lambda: socket.gethostbyaddr(NOBODY),
    "listen": _listen,
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW).close(),
}


def _switches() -> Finding:
    from ..offline import SWITCHES, is_shut

    unset = [name for name, value in SWITCHES.items() if os.environ.get(name) != value]
    if unset or not is_shut():
        return Finding("switches", "failed", f"not set: {', '.join(unset) or 'the guard'}", {"unset": unset})
    return Finding("switches", "proved", f"{len(SWITCHES)} set, by which libraries are told to stay offline")


def _guarded(name: str, look: Callable[[], list[str] | None]) -> Finding:
    """Whether every way out is refused where `look` looks; it gives None if the process ended without an answer."""
    escaped = look()
    if escaped is None:
        return Finding(name, "failed", "it ended without an answer")
    if escaped:
        return Finding(name, "failed", f"not refused: {', '.join(escaped)}", {"escaped": escaped})
    return Finding(name, "proved", f"refuses {', '.join(_WAYS)}")


def _in_worker(method: Literal["fork", "spawn"]) -> list[str] | None:
    """`escapes` of a worker process, which is told nothing of the guard."""
    context = multiprocessing.get_context(method)
    here, there = context.Pipe(duplex=False)
    worker = context.Process(target=_tell_escapes, args=(there,))  # type: ignore[attr-defined]
    worker.start()
    there.close()
    try:
        escaped: list[str] = here.recv()
    except EOFError:
        return None
    finally:
        worker.join()
    return escaped


def _tell_escapes(connection: Connection) -> None:
    connection.send(escapes())


def _in_program() -> list[str] | None:
    """`escapes` of a Python that is started as any program is, with this process's environment."""
    code = f"import json; from {__name__} import escapes; print(json.dumps(escapes()))"
    ran = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode != 0:
        return None
    escaped: list[str] = json.loads(ran.stdout)
    return escaped


def _assessments(card: Card, options: Mapping[str, Any]) -> Iterator[Finding]:
    """A real assessment under the guard, the same in an empty network namespace, and whether both say the same."""
    from ..errors import ModelError
    from ..weights import verify

    try:
        verify(card)
    except ModelError as error:
        yield Finding("assessment", "failed", f"nothing could be judged. {error}")
        return
    with TemporaryDirectory(prefix="goalcover-proof-") as folder:
        outside, inside = Path(folder) / "guarded", Path(folder) / "sealed"
        finding = _assessment("assessment", card, outside, options)
        yield finding
        if finding.outcome == "failed":
            return
        if options["engine"] == "server":
            yield Finding(NAMESPACE, "not proved", "the server that judges would be outside of it")
            return
        yield from _in_namespace(card, inside, options, str(finding.details["export"]))


def _in_namespace(card: Card, folder: Path, options: Mapping[str, Any], export: str) -> Iterator[Finding]:
    finding = _assessment("assessment, sealed", card, folder, options)
    seen = _seen(folder)
    if seen.kernel:
        found = f"the kernel gives none to this user: {seen.kernel}"
        yield Finding(NAMESPACE, "not proved", found, {"kernel": seen.kernel})
        return
    told = asdict(seen)
    details = {key: told[key] for key in ("devices", "routes", "native")}
    if seen.devices == ["lo"] and not seen.routes and seen.native:
        found = f"the process sees lo and no route; the kernel refuses libc's own connect with {seen.native}"
        yield Finding(NAMESPACE, "proved", found, details)
    else:
        found = f"it holds {', '.join(seen.devices)}, {seen.routes} routes, and answers {seen.native or 'no error'}"
        yield Finding(NAMESPACE, "failed", found, details)
    yield finding
    if finding.outcome == "failed":
        return
    other = finding.details["export"]
    if other == export:
        yield Finding("same judgements", "proved", f"both exports have SHA-256 {export[:16]}…", {"export": export})
    else:
        found = f"the export is {export[:16]}… outside and {other[:16]}… inside"
        yield Finding("same judgements", "failed", found, {"outside": export, "inside": other})


def _assessment(name: str, card: Card, folder: Path, options: Mapping[str, Any]) -> Finding:
    """What came of judging the rows that ship, in a process of its own that leaves what it saw in the folder."""
    from ..files import digest_of_file

    folder.mkdir(mode=0o700)
    began = time.monotonic()
    command = [sys.executable, "-m", f"{__package__}.sealed", str(folder), folder.name, *_arguments(card, options)]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    seconds = time.monotonic() - began
    seen = _seen(folder)
    if ran.returncode != 0 or seen.code or not (folder / EXPORT).exists():
        said = [line for line in ran.stderr.splitlines() if line.startswith("Error: ")]
        reason = said[-1].removeprefix("Error: ") if said else f"it ended with {ran.returncode or seen.code}"
        return Finding(name, "failed", f"it did not come to its end: {reason}")
    pairs = [json.loads(line) for line in (folder / EXPORT).read_text("utf-8").splitlines()]
    n_failed = sum(pair["score"] is None for pair in pairs)
    details = {
        "pairs": len(pairs),
        "failed": n_failed,
        "attempts": seen.refused,
        "seconds": round(seconds, 1),
        "export": digest_of_file(folder / EXPORT),
    }
    found = f"{len(pairs)} pairs judged by {card.name} in {seconds:.0f} s, {n_failed} failed; "
    found += f"the process that judged made {len(seen.refused)} attempts to reach the network"
    return Finding(name, "failed" if seen.refused else "proved", found, details)


def _seen(folder: Path) -> Sealed:
    """What the process left behind; one that left nothing failed."""
    try:
        return Sealed(**json.loads((folder / REPORT).read_text("utf-8")))
    except FileNotFoundError:
        return Sealed(code=1)


def _arguments(card: Card, options: Mapping[str, Any]) -> list[str]:
    """What `goalcover assess` is told: rows that ship, this judge, and no reference pairs, which would take longer."""
    from ..resources import shipped

    told = [GOAL, str(shipped("goals") / f"{GOAL}.jsonl"), "--judge", card.name, "--limit", str(N_ROWS)]
    told += ["--value", "expectation", "--explain", "none"]
    for name in ("engine", "url", "devices", "threads", "verify", "question", "order"):
        if options[name]:
            told += [f"--{name}", str(options[name])]
    return told
