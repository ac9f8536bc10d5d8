"""A causal language model in transformers, from a folder of safetensors; and what is said where that fails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import EngineError

_RAISED = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError)
"""What libraries raise of a model that they cannot load."""


def causal_model(directory: Path, *, dtype: Any, device: str = "cpu", **options: Any) -> Any:
    """The causal language model of a safetensors folder, in transformers; nothing is fetched, no code of it is run.

    Raises EngineError if the configuration wants weights that the folder lacks, which transformers would draw at
    random, or has fewer layers than the folder; else what transformers does: see `failures_told`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    model, found = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, output_loading_info=True, **safe, **options
    )
    _refuse_unfit(directory, model.config, found)
    return model.to(device)


def _refuse_unfit(directory: Path, config: Any, found: Mapping[str, Any]) -> None:
    """Raises EngineError unless each of the model's weights came from the folder, and all of its layers were taken."""
    lacking = sorted(found["missing_keys"])
    n_layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    layers = [re.search(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.", name) for name in found["unexpected_keys"]]
    if lacking or (n_layers is not None and any(layer and int(layer[1]) >= n_layers for layer in layers)):
        what = f"lack {lacking[0]!r}, which its configuration wants" if lacking else "have more layers than it states"
        mend = "Copy the model again, whole; it may have been converted wrongly."
        raise EngineError(f"The weights in {directory} {what}.", mend)


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
    except (*_RAISED, SafetensorError) as error:
        raise EngineError(
            f"transformers cannot load {what}: {error}",
            "Run `goalcover models verify` on it; a newer architecture may need a newer transformers.",
        ) from error
