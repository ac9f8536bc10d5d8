"""What a chat template may take while it renders, and a tokenizer: programs of a stranger that no sandbox bounds.

A template may turn in circles or multiply a text only when it meets a certain message, so every rendering is bounded,
not a trial of it. It can also hide in one long step of C, such as comparing lists of lists of lists: what refuses it is
Python's, and never gets its turn. So a second limit stands behind the first, the kernel's, which ends the process.
"""

from __future__ import annotations

import mmap
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..errors import EngineError

SECONDS = 5
"""Seconds of the processor for one conversation; real templates take milliseconds."""

LAST_SECONDS = 4 * SECONDS
"""Seconds of the processor after which the process is ended, should a template never come back to Python."""

BYTES = 1 << 30
"""Bytes of memory for one conversation, beyond what the process has."""

LONGEST_FRAME = 1_000_000
"""Characters that a template may put around the messages."""

_MEND = "Do not use it, or exchange its chat_template for that of the model it was tuned from."


_alone = threading.RLock()
"""Who renders: the limits are the whole process's, and two at once would put back each other's."""


class _TooLong(BaseException):
    """The time is up. Beside Exception, so that nothing on the way takes it for an error of its own."""


@contextmanager
def bounded() -> Iterator[None]:
    """A context in which a template may render for 5 s of the processor's time, within 1 GB more of memory.

    Raises EngineError where it takes more. A template that never comes back to Python ends the process after 20 s, by
    SIGPROF and without a word. The time is bounded in the main thread alone, and the memory on Linux alone, where it is
    the whole process's while the context lasts; one thread at a time is in it.
    """
    try:
        with _alone, _within_memory(), ending(LAST_SECONDS), _within_time():
            yield
    except (_TooLong, MemoryError):
        problem = f"The model's chat template takes more than {SECONDS} s or {BYTES >> 30} GB to render a conversation."
        raise EngineError(problem, _MEND) from None


@contextmanager
def ending(seconds: float) -> Iterator[None]:
    """A context whose process is ended, by SIGPROF and without a word, if it takes more seconds of the processor.

    For what never comes back to Python, such as a tokenizer's patterns. In the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGPROF) is None:
        yield  # None: a profiler's own handler, which Python could not put back
        return
    left, interval = signal.setitimer(signal.ITIMER_PROF, 0)
    before, began = signal.signal(signal.SIGPROF, signal.SIG_DFL), time.process_time()
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if left:
            signal.setitimer(signal.ITIMER_PROF, max(left - (time.process_time() - began), 1e-6), interval)


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
