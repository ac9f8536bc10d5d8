"""A command in a terminal of its own: keys are typed, and what is shown is waited for."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

CTRL_C = "\x03"
ENTER = "\r"
LINES, COLUMNS = 40, 100
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>])")


class Terminal:
    """A command that runs in a pseudo-terminal of 100 columns. `shown` is all that it has written, escapes removed."""

    def __init__(self, arguments: Sequence[str], *, folder: os.PathLike[str], environment: Mapping[str, str]) -> None:
        self._process, self._master = pty.fork()
        if self._process == 0:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background
                os.chdir(folder)
                os.execve(arguments[0], list(arguments), {**environment, "TERM": "xterm"})
            finally:
                os._exit(127)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._begun = time.monotonic()
        self._moments: list[tuple[float, bytes]] = []
        self._written = b""
        self._seen = 0
        self._code: int | None = None

    @property
    def shown(self) -> str:
        """What it has written so far, without escape sequences and carriage returns."""
        return _ESCAPE.sub("", self._written.decode("utf-8", "replace")).replace("\r", "")

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor is shown."""
        return self._written.rfind(b"\x1b[?25l") <= self._written.rfind(b"\x1b[?25h")

    def recording(self, title: str) -> str:
        """What was shown and when, as an asciinema cast (version 2); pauses are played for two seconds at most."""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        head = {"version": 2, "width": COLUMNS, "height": LINES, "idle_time_limit": 2, "title": title}
        lines = [json.dumps(head)]
        lines += [json.dumps([round(at, 3), "o", decode(came)], ensure_ascii=False) for at, came in self._moments]
        return "".join(f"{line}\n" for line in lines)

    def type(self, keys: str) -> None:
        """Nothing; types these keys."""
        os.write(self._master, keys.encode("utf-8"))

    def wait_for(self, text: str, *, seconds: float = 120) -> str:
        """What it has written since the last wait, up to and with that text, which must come in time."""
        ends = time.monotonic() + seconds
        while (place := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < ends, f"{text!r} did not come: {self.shown[self._seen :]!r}"
            assert self._read(0.2), f"it ended before {text!r} came: {self.shown[self._seen :]!r}"
        since, self._seen = self._seen, place + len(text)
        return self.shown[since : self._seen]

    def end(self, *, seconds: float = 120) -> int:
        """The exit code of the command, which must end by itself in time."""
        ends = time.monotonic() + seconds
        while self._read(0.2):
            assert time.monotonic() < ends, f"it did not end: {self.shown[self._seen :]!r}"
        return self._reaped()

    def close(self) -> None:
        """Nothing; the command is killed if it still runs."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            self._reaped()
        os.close(self._master)

    def _reaped(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        return self._code

    def _read(self, seconds: float) -> bool:
        """Whether there may be more to come, after reading what came within so many seconds."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return True
        try:
            came = os.read(self._master, 65536)
        except OSError:
            return False
        self._written += came
        self._moments.append((time.monotonic() - self._begun, came))
        return bool(came)
