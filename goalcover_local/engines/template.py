"""What a chat template may take while it renders: it is a program of a stranger, which its sandbox does not bound.

A template may turn in circles or multiply a text only when it meets a certain message, so every rendering is bounded,
not a trial of it.
"""

from __future__ import annotations

import mmap
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..errors import EngineError

SECONDS = 5
"""Seconds of the processor for one conversation; real templates take milliseconds."""

BYTES = 1 << 30
"""Bytes of memory for one conversation, beyond what the process has."""

LONGEST_FRAME = 1_000_000
"""Characters that a template may put around the messages."""

_MEND = "Do not use it, or exchange its chat_template for that of the model it was tuned from."


class _TooLong(BaseException):
    """The time is up. Beside Exception, so that nothing on the way takes it for an error of its own."""


@contextmanager
def bounded() -> Iterator[None]:
    """A context in which a template may render for 5 s of the processor's time, within 1 GB more of memory.

    Raises EngineError where it takes more. The time is bounded in the main thread alone, and the memory on Linux alone,
    where it is the whole process's while the context lasts.
    """
    try:
        with _within_memory(), _within_time():
            yield
    except (_TooLong, MemoryError):
        problem = f"The model's chat template takes more than {SECONDS} s or {BYTES >> 30} GB to render a conversation."
        raise EngineError(problem, _MEND) from None


def refuse_swollen(rendered: str, n_said: int) -> None:
    """Nothing; raises EngineError if a template wrote far more than the `n_said` characters of its messages."""
    if len(rendered) > 2 * n_said + LONGEST_FRAME:
        raise EngineError(f"The model's chat template makes {len(rendered):,} characters of {n_said:,}.", _MEND)


@contextmanager
def _within_time() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _end)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1)  # again each second, should a destructor swallow the first
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _end(number: int, frame: FrameType | None) -> None:
    raise _TooLong


@contextmanager
def _within_memory() -> Iterator[None]:
    try:
        held = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * mmap.PAGESIZE
    except OSError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    finite = [each for each in (soft, hard, held + BYTES) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(finite), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
