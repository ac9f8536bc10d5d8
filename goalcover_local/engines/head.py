"""Logits in float32 from a model of lower precision: what bfloat16 would round off is a tenth of a probability.

A logit of 20 has a step of 0.125 in bfloat16, so anchors that the model tells apart would tie. Multiplying the last
hidden states by the head in float32 costs a few per cent of a pass on a CPU, and next to nothing on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class ExactHead:
    """A causal language model's output layer, computed in float32."""

    def __init__(self, model: Any) -> None:
        self._layer = _Float32(model.get_output_embeddings())

    @contextmanager
    def on(self, model: Any) -> Iterator[None]:
        """A context in which the logits of a 16-bit model are float32. Its own layer is back afterwards."""
        own = model.get_output_embeddings()
        if getattr(own, "weight", None) is None or own.weight.dtype not in (torch.bfloat16, torch.float16):
            yield
            return
        model.set_output_embeddings(self._layer)
        try:
            yield
        finally:
            model.set_output_embeddings(own)


class _Float32(torch.nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._own = (layer,)  # in a tuple, so that it is no submodule of this one
        self._copied: tuple[Any, torch.Tensor | None] = (None, None)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = self._own[0].weight, getattr(self._own[0], "bias", None)
        if hidden.is_cuda:
            flat = hidden.reshape(-1, hidden.shape[-1])
            logits = torch.mm(flat, weight.t(), out_dtype=torch.float32).view(*hidden.shape[:-1], -1)
            return logits if bias is None else logits + bias.float()
        bias = None if bias is None else bias.float()
        return torch.nn.functional.linear(hidden.float(), self._as_float32(weight), bias)

    def _as_float32(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights as float32, copied again only after they changed, as a policy's do."""
        state = (weight.data_ptr(), weight._version)
        if self._copied[0] != state:
            self._copied = state, weight.detach().float()
        copy = self._copied[1]
        assert copy is not None
        return copy
