"""Workers that read one case at a time under limits of time and memory, and the count of how their cases ended."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from .mutations import Kind, made

SECONDS = 5
BYTES = 1 << 30
PATIENCE = 120
"""Seconds after which a case that waits without working, such as on a pipe, is a hang, however busy the machine is."""

OUTCOMES = ("accepted", "refused", "unforeseen", "crash", "hang", "memory")


@dataclass
class Tally:
    """How many cases of each kind ended how, and the numbers of those that failed, with what was seen."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[tuple[int, str, str, str]] = field(default_factory=list)


def _work(kinds: Sequence[Kind], seed: int, home: Path, wire: Connection) -> None:
    """Answers each number with how the case ended and what was seen, until there is none."""
    os.environ["GOALCOVER_HOME"] = os.environ["GOALCOVER_STATE"] = str(home)
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    held = int(re.search(r"VmData:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_DATA, (held + BYTES, held + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in iter(wire.recv, None):
        kind, content = made(kinds, seed, number)
        with tempfile.TemporaryDirectory(dir=home) as place:
            folder = Path(place) / "case"
            folder.mkdir()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            outcome, seen = read_case(kind, folder, content)
            signal.setitimer(signal.ITIMER_PROF, 0)
        wire.send((outcome, seen))


def read_case(kind: Kind, folder: Path, content: bytes) -> tuple[str, str]:
    from goalcover_local.errors import GoalCoverError

    try:
        kind.read(folder, content)
    except GoalCoverError:
        return "refused", ""
    except MemoryError:
        return "memory", "MemoryError"
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "unforeseen",
            f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(error)[:100]!r}",
        )
    return "accepted", ""


class Worker:
    """A process that reads one case at a time, replaced when it dies."""

    def __init__(self, kinds: Sequence[Kind], seed: int, home: Path) -> None:
        context = multiprocessing.get_context("fork")
        self.wire, other = context.Pipe()
        self.process = context.Process(target=_work, args=(kinds, seed, home, other), daemon=True)
        self.process.start()
        other.close()
        self.number: int | None = None
        self.since = 0.0

    def give(self, number: int) -> None:
        self.number, self.since = number, time.monotonic()
        self.wire.send(number)

    def told(self) -> tuple[str, str] | None:
        """How its case ended; None if it goes on. A worker that died says by how."""
        if self.wire.poll():
            try:
                outcome, seen = self.wire.recv()
            except EOFError:
                self.process.join()
                code = self.process.exitcode or 0
                if code == -signal.SIGPROF:
                    return "hang", f"above {SECONDS} s"
                return "crash", signal.Signals(-code).name if code < 0 else f"left with {code}"
            return str(outcome), str(seen)
        if time.monotonic() - self.since > PATIENCE:
            self.process.kill()
            return "hang", f"waits, above {PATIENCE} s"
        return None


def fuzz(kinds: Sequence[Kind], numbers: Sequence[int], seed: int, home: Path, jobs: int) -> Tally:
    """How the cases ended."""
    tally, waiting = Tally(), iter(numbers)
    workers: list[Worker] = []
    left = len(numbers)
    for _ in range(min(jobs, left)):
        workers.append(Worker(kinds, seed, home))
        workers[-1].give(next(waiting))
    while left:
        wait([worker.wire for worker in workers if worker.number is not None], timeout=1)
        for place, worker in enumerate(workers):
            if worker.number is None or (told := worker.told()) is None:
                continue
            outcome, seen = told
            number, kind = worker.number, kinds[worker.number % len(kinds)].name
            tally.counts[kind, outcome] += 1
            left -= 1
            if outcome not in OUTCOMES[:2]:
                tally.failures.append((number, kind, outcome, seen))
            if outcome in ("crash", "hang", "memory"):
                worker.process.kill()
                worker.process.join()
                workers[place] = worker = Worker(kinds, seed, home)
            worker.number = None
            if (following := next(waiting, None)) is not None:
                worker.give(following)
    for worker in workers:
        worker.wire.send(None)
        worker.process.join()
    tally.failures.sort()
    return tally


def table(tally: Tally, kinds: Sequence[Kind]) -> str:
    """The counts, a line for each kind."""
    lines = [f"{'':16}{'cases':>8}" + "".join(f"{outcome:>12}" for outcome in OUTCOMES)]
    for name in [*(kind.name for kind in kinds), "all"]:
        counts = [
            sum(n for (k, o), n in tally.counts.items() if o == outcome and name in (k, "all")) for outcome in OUTCOMES
        ]
        lines.append(f"{name:16}{sum(counts):>8}" + "".join(f"{n:>12}" for n in counts))
    return "\n".join(lines)
