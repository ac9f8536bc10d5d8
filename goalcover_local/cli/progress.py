"""Progress on stderr: a bar with rate and time left on a terminal, plain lines every half minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

_SECONDS_BETWEEN_LINES = 30.0

WORK = {
    "clarifying-question": "Thinking of questions",
    "completeness": "Looking for what is still open",
    "refinement": "Refining the specification",
    "subgoals": "Proposing subgoals",
    "description": "Describing subgoals",
    "atomicity": "Is each one capability?",
    "overlap": "Is each pair apart?",
    "uncovered": "Is everything covered?",
    "repair": "Mending the set",
    "missing-capability": "Reading explanations",
    "recommendation": "Writing recommendations",
    "topics": "Thinking of topics",
    "sample": "Writing samples",
    "criticism": "Criticizing what fell short",
    "revision": "Refining samples",
    "quality": "Scoring what was written",
    "ranking": "Ranking what was written",
}
"""What the model is doing while it answers a question."""


class Progress:
    """Counts steps of one piece of work and tells how it goes."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self.done = 0
        self.failed = 0
        self.note = ""
        self._started = self._told = time.monotonic()

    def advance(self, n: int, n_failed: int = 0) -> None:
        """Nothing; n more steps are done, of which some failed."""
        self.done += n
        self.failed += n_failed
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES and self.done < self._total:
            self._told = time.monotonic()
            click.echo(self.line(), err=True)

    def line(self) -> str:
        """How it goes in one line: done of all, rate, time left, failures."""
        seconds = max(1e-9, time.monotonic() - self._started)
        rate = self.done / seconds
        left = f", {duration((self._total - self.done) / rate)} left" if 0 < self.done < self._total else ""
        failed = f", {self.failed} failed" if self.failed else ""
        note = f": {self.note}" if self.note else ""
        return f"{self._what}: {self.done} of {self._total} {self._unit}, {pace(rate)}{left}{failed}{note}"


class _Bar(Progress):
    def __init__(self, what: str, total: int, unit: str) -> None:
        super().__init__(what, total, unit)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + " {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(what, total=total, rate="")

    def advance(self, n: int, n_failed: int = 0) -> None:
        self.done += n
        self.failed += n_failed
        rate = pace(self.done / max(1e-9, time.monotonic() - self._started))
        told = [rate, f"{self.failed} failed" if self.failed else "", self.note]
        self._bar.update(self._task, advance=n, rate=", ".join(filter(None, told)))


@contextmanager
def progress(what: str, total: int, unit: str, *, passing: bool = False) -> Iterator[Progress]:
    """A context with a Progress to advance; its last line stays, unless it is in passing on a terminal."""
    if sys.stderr.isatty():
        bar = _Bar(what, total, unit)
        with bar._bar:
            yield bar
        if not passing:
            click.echo(bar.line(), err=True)
        return
    lines = Progress(what, total, unit)
    yield lines
    click.echo(lines.line(), err=True)


@contextmanager
def watched(what: str, n: int) -> Iterator[Callable[[int], None]]:
    """A context that shows the model at work on n answers to a question; what it gives is called as they come."""
    with progress(WORK.get(what, what), n, "answers", passing=True) as bar:
        yield bar.advance


def pace(rate: float) -> str:
    """A rate as people say it: "8.1 a second", or "38 s each" where that is slow."""
    return f"{rate:.1f} a second" if rate >= 0.3 or not rate else f"{1 / rate:.0f} s each"


def duration(seconds: float) -> str:
    """Seconds as people say them: "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
