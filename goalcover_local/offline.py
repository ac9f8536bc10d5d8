"""The air gap: switches set before any heavy import, and a guard that refuses what would leave the machine.

The switches ask libraries to stay offline; the guard does not ask. It is an audit hook (PEP 578), so it sees the
sockets that Python opens in this process. CPython looks a name up before it audits a `connect` to it, and never audits
`listen`: so the methods of `socket.socket` ask the guard first as well, and an Internet socket of another class, such
as the C type `socket.SocketType`, is refused.

Every Python that is started with this process's environment shuts itself (`for_children`): workers that are spawned or
come from a fork server, compilers' and vLLM's processes, programs of others. What is forked inherits the guard. Not
covered are a Python older than 3.8, or started with -I, -E, -S or another environment; programs that are not Python;
and native code (gloo, NCCL, torch's TCPStore, ZeroMQ, uvloop): only an empty network namespace holds those. The guard
is against libraries and mistakes, not against Python code that means harm: it can reach libc, or call the C type's
methods on a socket of ours. Loopback and Unix sockets are let be, whoever listens there, such as a proxy or a tunnel;
but for port 53 of loopback, where a resolver would pass every question on. One that is asked over a Unix socket or
over D-Bus (nscd, systemd-resolved) is not seen.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import operator
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from .errors import NetworkRefused

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""Environment variables that keep the libraries we use offline, quiet, and off the GPUs until one is chosen."""

SHUT_IN_WORKERS = "GOALCOVER_SHUT"
"""The environment variable by which other processes learn that they are to shut the network too."""

GUARD_PLUGIN = "goalcover_network_guard"
"""The name under which pyproject.toml gives `shut_in_worker` to vLLM as a plugin."""

GUARD_FOLDER = Path(__file__).resolve().parent / "guard"
"""Holds the sitecustomize.py that a Python runs at its start if this folder is on its PYTHONPATH."""

MOST_TOLD = 1000
"""How many refusals of one process witnesses hear of: a library that tries for ever must not fill a disk."""

NAME_SERVER = 53
"""The port of DNS: what is asked there leaves the machine, even where the resolver listens on loopback."""

Witness = Callable[[str, str], object]
"""Is told of a refused attempt: the audit event, such as "socket.connect", and for which host, as `_named` tells it."""

refused: list[str] = []
"""Attempts that the guard refused, as `event host`."""

_guard = {"installed": False, "shut": False}
_witnesses: list[Witness] = []
_aside = threading.local()

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_MULTIPATH_TCP = 262
_PROTOCOLS = (0, -1, socket.IPPROTO_TCP, socket.IPPROTO_UDP, _MULTIPATH_TCP)
_SOCKET = socket.socket
_LABEL = "[A-Za-z0-9-]{1,63}"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*({_LABEL}\.{_LABEL})")
"""A host's name, its last two labels as a group."""

_NO_NAMES = ("", "<broadcast>")
"""What Python itself takes for every address and for all neighbours."""

_TYPE = 0xF
"""The bits of a socket's type that are not flags."""
_ADDRESS_AT = {"bind": 0, "connect": 0, "connect_ex": 0, "sendto": -1, "sendmsg": 3}
"""Which argument of a socket's method is the address."""


def switch_offline() -> None:
    """Nothing; sets every switch. Call it before transformers, datasets or vllm are imported."""
    os.environ.update(SWITCHES)


def shut() -> None:
    """Nothing; from now on what would leave the machine raises NetworkRefused, here and in Python children.

    Refused are: connecting, sending and listening anywhere but on loopback, and to a name server even there; looking up
    any name but "localhost", and every reverse lookup; sockets that are neither TCP, UDP nor Unix, or that are not of
    the class `socket.socket`. There is no way back but `opened`.
    """
    if not _guard["installed"]:
        sys.addaudithook(_hook)
        for method in (*_ADDRESS_AT, "listen"):
            setattr(socket.socket, method, _asking_first(method))
        _guard["installed"] = True
    _guard["shut"] = True
    os.environ.update(for_children())


def for_children() -> dict[str, str]:
    """The variables with which another Python shuts its network before it does anything else."""
    others = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = dict.fromkeys([str(GUARD_FOLDER), *others])
    return {SHUT_IN_WORKERS: "1", "PYTHONPATH": os.pathsep.join(path)}


def shut_in_worker() -> None:
    """Nothing; shuts the network in a process that was told to by `for_children` (vLLM calls it as a plugin, too)."""
    if os.environ.get(SHUT_IN_WORKERS) == "1":
        shut()


@contextmanager
def opened() -> Iterator[None]:
    """A context in which this process and children started in it may use the network: for `models pull` alone."""
    was, _guard["shut"] = _guard["shut"], False
    told = os.environ.pop(SHUT_IN_WORKERS, None)
    try:
        yield
    finally:
        _guard["shut"] = was
        if told is not None:
            os.environ[SHUT_IN_WORKERS] = told


def is_shut() -> bool:
    """Whether the guard refuses connections now."""
    return _guard["shut"]


def watch(witness: Witness) -> None:
    """Nothing; this witness is told of every attempt that is refused from now on. If it fails, the refusal stands.

    Where nobody watches, as in a worker process, the user's ledger is told.
    """
    _witnesses.append(witness)


@contextmanager
def knocking() -> Iterator[None]:
    """A context in which this thread tries the guard on purpose: refusals stand, and are no attempts to be recorded."""
    _aside.knocking = True
    try:
        yield
    finally:
        _aside.knocking = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guard["shut"] or not event.startswith("socket."):
        return
    if event == "socket.__new__":
        _check_kind(*arguments[:4])
    elif event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        _check_address(event, *arguments[:2])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if arguments[0] is not None and not _loopback(arguments[0]):
            _refuse(event, "look up", _named(arguments[0]))
    elif event == "socket.gethostbyaddr":
        _refuse(event, "look up", _named(arguments[0]))
    elif event == "socket.getnameinfo":
        _refuse(event, "look up", _named(_host(arguments[0])))


def _asking_first(method: str) -> Callable[..., Any]:
    """The socket's method, which lets the guard look at the address before anything is done with it."""
    original = getattr(socket.socket, method)
    place = _ADDRESS_AT.get(method)

    @functools.wraps(original)
    def asked(self: socket.socket, *arguments: Any) -> Any:
        if _guard["shut"]:
            if place is None:
                _check_address(f"socket.{method}", self, self.getsockname())
            elif len(arguments) > abs(place):
                _check_address(f"socket.{method}", self, arguments[place])
        return original(self, *arguments)

    return asked


def _check_kind(made: Any, family: int, kind: int, protocol: int) -> None:
    """Nothing; raises NetworkRefused for a socket that is neither TCP, UDP nor Unix, or whose methods ask nobody.

    -1 stands for what is not said: a socket that is adopted says nothing.
    """
    if family == socket.AF_UNIX:
        return
    if not issubclass(type(made), _SOCKET):
        _refuse("socket.__new__", "open", "a socket past Python's own class")
    if family == -1:
        return
    plain = kind == -1 or kind & _TYPE in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    if family not in _INTERNET or not plain or protocol not in _PROTOCOLS:
        _refuse("socket.__new__", "open", f"a socket of family {family:d}, type {kind:d}, protocol {protocol:d}")


def _check_address(event: str, opened: socket.socket, address: Any) -> None:
    """Nothing; raises NetworkRefused unless the address is on this machine; what is none is left to the socket."""
    if address is None or opened.family == socket.AF_UNIX:
        return
    host = _host(address)
    listens = event in ("socket.bind", "socket.listen")
    if opened.family in _INTERNET and (not isinstance(address, tuple) or _loopback(host)):
        if not listens and _port(address) == NAME_SERVER:
            _refuse(event, "ask", f"the name server at {_named(host)}")
        return
    if event == "socket.bind" and _looks_for_a_port(opened, address):
        return
    _refuse(event, "listen at" if listens else "reach", _named(host))


def _looks_for_a_port(opened: socket.socket, address: Any) -> bool:
    """Whether a free TCP port is being looked for, as vLLM and TRL do: bound to every address, it may not listen."""
    anywhere = _host(address) in ("", "0.0.0.0", "::")
    return opened.type == socket.SOCK_STREAM and anywhere and tuple.__getitem__(address, slice(1, 2)) == (0,)


def _host(address: Any) -> Any:
    return tuple.__getitem__(address, 0) if isinstance(address, tuple) and address else None


def _port(address: Any) -> int | None:
    try:
        return int(operator.index(tuple.__getitem__(address, 1)))
    except (TypeError, IndexError):
        return None


def _loopback(host: Any) -> bool:
    """Whether this is the text of a loopback address, or "localhost"; in doubt it is not."""
    if isinstance(host, bytes | bytearray):
        name = bytes(host).decode("ascii", "replace")
    elif isinstance(host, str):
        name = str.__str__(host)
    else:
        return False
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inside = (address.ipv4_mapped or address).is_loopback
        return inside and (address.scope_id is None or address.scope_id.isalnum())
    return address.is_loopback


def _named(host: Any) -> str:
    """What is told of a host: an address, or a name's last two labels; of anything else its length and digest.

    A name may have been made of a sample's words.
    """
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "backslashreplace")
    if not isinstance(host, str):
        return f"<{type(host).__name__}>"
    text = str.__str__(host)
    if text in _NO_NAMES:
        return text
    try:
        return str(ipaddress.ip_address(text)).partition("%")[0]
    except ValueError:
        if found := _HOST_NAME.fullmatch(text):
            return found[1]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"a name of {len(text)} characters (SHA-256 {digest[:12]})"


def _refuse(event: str, what: str, host: str) -> NoReturn:
    """Never returns: puts the attempt on record, and raises NetworkRefused."""
    if not getattr(_aside, "knocking", False):
        refused.append(f"{event} {host}")
        _tell(event, host)
    raise NetworkRefused(
        f"Something tried to {what} {host or 'every address'} while the network is shut.",
        "Nothing was sent. Only `goalcover models pull` may use the network; please report what you ran.",
    )


def _tell(event: str, host: str) -> None:
    """Nothing; the witnesses know. One that reaches for the network itself is refused, and not told of that."""
    if len(refused) > MOST_TOLD or getattr(_aside, "telling", False):
        return
    _aside.telling = True
    try:
        for witness in _witnesses or [_tell_ledger]:
            with suppress(Exception):
                witness(event, host)
    finally:
        _aside.telling = False


def _tell_ledger(event: str, host: str) -> None:
    from .ledger import note

    note("network refused", {"event": event, "host": host})
