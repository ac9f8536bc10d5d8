"""Processes that train together, a GPU each, as accelerate starts them: who speaks, what they agree on and gather."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

INTERRUPTED = 130


def is_main() -> bool:
    """Whether this process writes the run: the only one, or the first of several that train together."""
    return n_processes() < 2 or os.environ.get("RANK", "0") == "0"


def n_processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def only_main_speaks() -> Iterator[None]:
    """A context in which the others that train together print nothing, and leave without a word when interrupted.

    What is raised in it is raised: each process tells of errors of its own.
    """
    if is_main():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


def join(device: str) -> None:
    """Nothing; this process joins those that train together on such a device, if there are several."""
    if n_processes() < 2:
        return
    from accelerate import PartialState

    on_cpu = device == "cpu"
    if on_cpu:
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # accelerate would say cpu:0, which torch.load does not know
    PartialState(cpu=on_cpu)


def done_by_main(work: Callable[[], T]) -> T:
    """What the first process's work gives, told to every process that trains together and has joined.

    Where it raises, the first process raises that, and the others leave with 1, for the error is not theirs to tell.
    """
    told: list[T] = []
    if is_main():
        try:
            told = [work()]
        except Exception:
            agreed(told)
            raise
    told = agreed(told)
    if not told:
        raise SystemExit(1)
    return told[0]


def agreed(value: T) -> T:
    """What the first process says, told to every process that trains together and has joined."""
    if n_processes() < 2:
        return value
    from accelerate.utils import broadcast_object_list

    held = [value]
    broadcast_object_list(held)
    return held[0]


def gathered(values: Sequence[T]) -> list[T]:
    """The values of all processes that train together, in the order of the processes."""
    if n_processes() < 2:
        return list(values)
    from accelerate.utils import gather_object

    found: list[T] = gather_object(list(values))
    return found
