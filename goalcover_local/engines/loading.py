"""The kinds of engine that run a model themselves, and how one is loaded into this process."""

from __future__ import annotations

from typing import Any, Literal

from .base import Engine

Kind = Literal["transformers", "vllm", "server"]


def load(kind: Kind, **options: Any) -> Engine:
    """An engine of that kind in this process, on one device."""
    if kind == "vllm":
        from . import vllm_engine

        return vllm_engine.load(**options)
    from .transformers_engine import TransformersEngine

    return TransformersEngine.load(**options)
