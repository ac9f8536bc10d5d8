"""One assessment for `goalcover doctor --prove-offline`, in a process of its own: sealed off by the kernel if asked.

The process is given a folder, "sealed" or "guarded", and the options of `goalcover assess`; it leaves `Sealed` as JSON.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

NOBODY = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737)."""

REPORT, RUN, EXPORT = "report.json", "run", "export.jsonl"
"""What the process leaves in its folder."""

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1


@dataclass
class Sealed:
    """What a process saw: what the kernel said against a namespace (empty if nothing), network devices, routes.

    `native` is the name of the error with which the kernel answered libc's own connect, empty if it did not refuse.
    `code` is that of the command that came last, `refused` are the attempts that the guard refused while they ran.
    """

    kernel: str = ""
    devices: list[str] = field(default_factory=list)
    routes: int = 0
    native: str = ""
    code: int = 0
    refused: list[str] = field(default_factory=list)


def seal() -> None:
    """Nothing; this process is alone in a network namespace with nothing but a loopback of its own.

    Raises OSError with what the kernel says, as it does where user namespaces are forbidden. Only while the process has
    one thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEW_USER | _NEW_NETWORK) == 0:
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{user} {user} 1")
        (own / "gid_map").write_text(f"{group} {group} 1")
    elif libc.unshare(_NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh22x", b"lo", _UP))


def devices() -> list[str]:
    """The names of the network devices that this process can see."""
    return [line.partition(":")[0].strip() for line in _lines("/proc/self/net/dev")[2:]]


def routes() -> int:
    """How many routes of this process lead anywhere but to loopback."""
    n_four = sum(line.split()[0] != "lo" for line in _lines("/proc/self/net/route")[1:])
    return n_four + sum(line.split()[-1] != "lo" for line in _lines("/proc/self/net/ipv6_route"))


def native_answer() -> str:
    """The name of the error with which the kernel refuses libc's own connect, which no guard in Python sees; else "".

    It is the connect of a datagram socket: nothing is sent even where it succeeds.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 9, socket.inet_aton(NOBODY))
    opened = libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)
    try:
        refused = libc.connect(opened, address, len(address)) != 0
        return errno.errorcode[ctypes.get_errno()] if refused else ""
    finally:
        os.close(opened)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("ascii").splitlines()
    except OSError:
        return []  # a kernel without IPv6, or one that is not Linux


def _commanded(*arguments: str) -> int:
    """The exit code of a `goalcover` command, run in this process as the executable runs it."""
    from . import main

    sys.argv = ["goalcover", *arguments]
    try:
        main.run()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    return 0


def _prove(folder: Path, sealed: bool, arguments: list[str]) -> Sealed:
    from .. import offline

    found = Sealed()
    if sealed:
        try:
            seal()
        except OSError as error:
            found.kernel = error.strerror or str(error)
            return found
        found.devices, found.routes, found.native = devices(), routes(), native_answer()
    found.code = _commanded("assess", *arguments, "--run", str(folder / RUN))
    if found.code in (0, 3):
        found.code = _commanded("export", str(folder / RUN), "-o", str(folder / EXPORT))
    found.refused = list(offline.refused)
    return found


if __name__ == "__main__":
    _folder = Path(sys.argv[1])
    _found = _prove(_folder, sys.argv[2] == "sealed", sys.argv[3:])
    (_folder / REPORT).write_text(json.dumps(asdict(_found)), "utf-8")
