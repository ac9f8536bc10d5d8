"""A causal language model in transformers, from a folder of safetensors; and what is said where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import EngineError


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
