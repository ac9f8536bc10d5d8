"""The air gap: switches set before any heavy import, and a guard that refuses every connection but loopback.

The switches ask libraries to stay offline; the guard does not ask. It is an audit hook (PEP 578), so it sees every
socket that Python opens in this process, not those of native code: only an empty network namespace proves that.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
"""The environment variable by which vLLM's worker processes learn that they are to shut the network too."""

GUARD_PLUGIN = "goalcover_network_guard"
"""The name under which pyproject.toml gives `shut_in_worker` to vLLM as a plugin."""

_guard = {"installed": False, "shut": False}
refused: list[str] = []
"""Attempts that the guard refused, as `event host`."""


def switch_offline() -> None:
    """Nothing; sets every switch. Call it before transformers, datasets or vllm are imported."""
    os.environ.update(SWITCHES)


def shut() -> None:
    """Nothing; from now on every connection and name lookup that leaves the machine raises NetworkRefused."""
    if not _guard["installed"]:
        sys.addaudithook(_hook)
        _guard["installed"] = True
    _guard["shut"] = True


def shut_in_worker() -> None:
    """Nothing; shuts the network in a process that GoalCover's vLLM started (vLLM calls its plugins in each)."""
    if os.environ.get(SHUT_IN_WORKERS) == "1":
        shut()


@contextmanager
def opened() -> Iterator[None]:
    """A context in which the network may be used: for `goalcover models pull` alone."""
    was, _guard["shut"] = _guard["shut"], False
    try:
        yield
    finally:
        _guard["shut"] = was


def is_shut() -> bool:
    """Whether the guard refuses connections now."""
    return _guard["shut"]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guard["shut"] or not event.startswith("socket."):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1] if len(arguments) > 1 else None
        host = address[0] if isinstance(address, tuple) and address else None
    elif event == "socket.getnameinfo":
        host = arguments[0][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    if host is not None and not _loopback(host):
        refused.append(f"{event} {host}")
        raise NetworkRefused(
            f"Something tried to reach {host} while the network is shut.",
            "Nothing was sent. Only `goalcover models pull` may use the network; please report what you ran.",
        )


def _loopback(host: Any) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if name in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False
