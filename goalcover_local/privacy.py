"""Privacy of a process: what it writes is its owner's alone, and what it says of a failure quotes no sample.

Messages of errors, warnings and log lines may quote what a program was working on. What is said is therefore the kind
of an error and nothing of its text, unless a person asks for more with `--debug`.
"""

from __future__ import annotations

import logging
import os
import resource
import stat
import sys
import threading
import warnings
from pathlib import Path
from types import TracebackType
from typing import TextIO

DEBUG = "Debug: what follows may show sample text. Give it to nobody who may not read the data."
"""What is said before anything that may quote a sample."""


class PrivacyWarning(UserWarning):
    """A warning in our own words, which may be shown whole."""


def begin(*, debug: bool = False) -> None:
    """Nothing; from now on this process keeps to itself what it writes and what it works on.

    Files and folders are made for their owner alone (umask 0077), and no core is dumped, which would hold the texts in
    memory. Unless `debug`, libraries do not log, their warnings are not shown, and an error that nobody catches, in
    any thread, is told by its kind. Processes that this one starts inherit the umask and the limit, not the rest.
    """
    os.umask(0o077)
    _dump_no_core()
    if debug:
        return
    logging.disable(logging.CRITICAL)
    warnings.showwarning = _show_warning
    sys.excepthook = _tell_kind
    threading.excepthook = lambda failed: _tell_kind(failed.exc_type, None, None)
    sys.unraisablehook = lambda failed: None


def unforeseen(kind: type[BaseException]) -> tuple[str, str]:
    """What is said of an error that was not foreseen, and how to see more; its message may quote a sample."""
    return (
        f"Error: {kind.__name__}, which was not foreseen.",
        "Nothing stored is lost. Run `goalcover --debug …` for the traceback (it may show sample text).",
    )


def check_folder(folder: Path) -> None:
    """Nothing; warns if others than the owner may look into a folder that holds sample text."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        return
    if mode & 0o077:
        warnings.warn(
            f"Other users may look into the run {folder} (mode {mode:04o}): close it with `chmod 700`.",
            PrivacyWarning,
            stacklevel=2,
        )


def _dump_no_core() -> None:
    """Nothing; a crash leaves no core.

    The limit is 1 byte and not 0: no core fits into either, but a core that the kernel pipes to a program, as on most
    distributions, is only held back by 1 (core(5) tells of the pipe, fs/coredump.c of the 1). PR_SET_DUMPABLE is too
    much: workers on GPUs could no longer read each other's memory, nor a debugger of the user, who may read the run.
    """
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, PrivacyWarning):
        _say(f"Warning: {message}")


def _tell_kind(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    _say(*unforeseen(kind))


def _say(*lines: str) -> None:
    """Nothing; says this on stderr, if there still is one."""
    if sys.stderr is not None and not sys.stderr.closed:
        print(*lines, sep="\n", file=sys.stderr)
