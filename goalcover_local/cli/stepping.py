"""A training while it goes on: its steps stored and shown, and when it is to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .assessing import deadline

if TYPE_CHECKING:
    from ..trainings import Trainings
    from .progress import Progress


class Told:
    """Stores what a training tells, unless there is nowhere to, and shows it; due after `max_hours`."""

    def __init__(self, trainings: Trainings | None, name: str, bar: Progress, max_hours: float | None) -> None:
        self._trainings = trainings
        self._name = name
        self._bar = bar
        self._ends = deadline(max_hours)

    def stepped(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """The step's numbers are stored and shown."""
        if self._trainings:
            self._trainings.add_step(self._name, step, metrics)
        self._bar.note = step_line(metrics)
        self._bar.advance(1)

    def saved(self, step: int, files: Mapping[str, str]) -> None:
        """The checkpoint's digests are stored."""
        if self._trainings:
            self._trainings.add_checkpoint(self._name, step, files)

    def due(self) -> bool:
        """Whether time is up."""
        return time.monotonic() >= self._ends


class Timed(Told):
    """Keeps how many seconds each step took; stores nothing."""

    def __init__(self, bar: Progress) -> None:
        super().__init__(None, "", bar, None)
        self.seconds: list[float] = []
        self._since = time.monotonic()

    def stepped(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """The step is shown, and its time kept."""
        super().stepped(step, metrics)
        self.seconds.append(time.monotonic() - self._since)
        self._since = time.monotonic()


def step_line(metrics: Mapping[str, float | None]) -> str:
    """A step's numbers in a line: reward and its spread, its parts, equal groups, divergence, speed."""

    def told(name: str, form: str) -> str:
        value = metrics.get(name)
        return "–" if value is None else form.format(value)

    parts = [
        f"reward {told('score', '{:.3f}')} ± {told('spread', '{:.3f}')}",
        f"judged {told('judged', '{:.3f}')}",
        f"checks {told('checked', '{:.2f}')}",
        f"equal groups {told('zero_variance', '{:.0%}')}",
        f"KL {told('kl', '{:.4f}')}",
        f"{told('tokens_per_second', '{:.0f}')} tokens/s",
    ]
    if metrics.get("failed"):
        parts.append(f"failed {told('failed', '{:.0%}')}")
    return ", ".join(parts)
