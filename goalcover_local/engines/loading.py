"""The kinds of engine that run a model themselves, how one is loaded into this process, and how its weights are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ..errors import EngineError
from .base import Engine

Kind = Literal["transformers", "vllm", "server"]


def load(kind: Kind, **options: Any) -> Engine:
    """An engine of that kind in this process, on one device."""
    if kind == "vllm":
        from . import vllm_engine

        return vllm_engine.load(**options)
    from .transformers_engine import TransformersEngine

    return TransformersEngine.load(**options)


def causal_model(directory: Path, *, dtype: Any, device: str = "cpu", **options: Any) -> Any:
    """The causal language model of a safetensors folder, in transformers; nothing is fetched, no code of it is run.

    Raises what transformers does: see `failures_told`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **safe, **options).to(device)


@contextmanager
def failures_told(what: str, device: str = "cpu") -> Iterator[None]:
    """Turns what transformers and its kin raise while they load into an EngineError; `what`: "the model in DIR"."""
    import torch
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"The memory of {device} does not hold {what}.", "Use a smaller model, or another device."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise EngineError(
            f"transformers cannot load {what}: {error}",
            "Run `goalcover models verify` on it; a newer architecture may need a newer transformers.",
        ) from error
