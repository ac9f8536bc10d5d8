"""Which engine answers, by its name or by what suits this machine, and how it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ..errors import EngineError
from .base import Engine
from .loading import Kind, load


def suited(devices: Sequence[str]) -> Kind:
    """vLLM where it is installed and a GPU is to be used; else transformers, which is the faster one on a CPU."""
    if find_spec("vllm") is None:
        return "transformers"
    from .transformers_engine import found_device

    first = devices[0] if devices else found_device()
    return "vllm" if first.startswith("cuda") else "transformers"


def open_engine(
    kind: Kind,
    *,
    devices: Sequence[str] = (),
    url: str = "",
    settings: Mapping[str, Mapping[str, Any]],
    threads: int | None = None,
    precision: str = "auto",
    **model: Any,
) -> Engine:
    """The engine of that kind, on one device or on a process for each of several; a server has its own devices.

    `settings` are the card's own, by kind of engine; `model` says which model, and how it is prompted. Raises
    EngineError if the engine cannot be opened.
    """
    options = dict(settings.get(kind, {}))
    if kind == "server":
        from . import server_engine

        if not url:
            raise EngineError("The engine `server` needs an address.", "Add --url http://127.0.0.1:PORT.")
        return server_engine.load(url=url, **model)
    if url:
        raise EngineError(f"The engine `{kind}` has no address.", "Add --engine server, or leave --url out.")
    if kind == "vllm" and devices and int(options.get("tensor_parallel_size", 1)) > 1:
        raise EngineError(
            f"The card splits this model over {options['tensor_parallel_size']} GPUs by itself.",
            "Leave --devices out; choose the GPUs with CUDA_VISIBLE_DEVICES.",
        )
    here = {**model, "threads": threads, "precision": precision, "options": options}
    if len(devices) > 1:
        from .pool import Pool

        return Pool(kind, devices, here)
    from .transformers_engine import found_device

    return load(kind, device=devices[0] if devices else found_device(), **here)
