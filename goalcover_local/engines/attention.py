"""Attention over trees: a registered attention function that lets every node see the trunk and its own ancestors.

Transformers hands each layer's queries, keys and values to a function found by name; ours asks the pass under way
(`Canopy` for prompts, `Tips` for decoding) to attend. So any architecture that uses the standard interface works
unchanged, position ids and rotary embeddings included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from .prefix_tree import Tree

NAME = "goalcover"

KeyValues = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Per layer: keys and values, each of shape (n_key_value_heads, n_tokens, head_size)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a layer asks of attention beside the mask."""

    scale: float
    softcap: float | None
    window: int | None
    sinks: torch.Tensor | None


class Pass(Protocol):
    """One forward pass under way."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule
    ) -> torch.Tensor:
        """Attention's output, shape (n_heads, n_tokens, head_size), for inputs without their batch dimension."""
        ...


def register() -> None:
    """Nothing; makes `attn_implementation="goalcover"` known to transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    goalcover_pass: Pass | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    if goalcover_pass is None:
        raise RuntimeError("the model's layers did not pass the forward pass on to attention")
    rule = Rule(scaling or query.shape[-1] ** -0.5, softcap, sliding_window, s_aux)
    out = goalcover_pass.attend(module.layer_idx, query[0], key[0], value[0], rule)
    return out.transpose(0, 1)[None], None


def plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, rule: Rule
) -> torch.Tensor:
    """Attention's output, shape (n_heads, n_queries, head_size), of keys (n_key_value_heads, n_keys, head_size).

    `bias` of shape (n_queries, n_last) is added to the scores of the last `n_last` keys. On a CPU two batched products
    around a softmax are two to three times as fast as torch's fused kernel at these sizes.
    """
    heads, n, size = query.shape
    groups = key.shape[0]
    if query.device.type != "cpu" and rule.softcap is None and rule.sinks is None:
        mask = None if bias is None else F.pad(bias, (key.shape[1] - bias.shape[1], 0))
        return F.scaled_dot_product_attention(
            query[None], key[None], value[None], attn_mask=mask, scale=rule.scale, enable_gqa=heads != groups
        )[0]
    scores = torch.bmm((query * rule.scale).reshape(groups, -1, size), key.transpose(1, 2))
    if rule.softcap is not None:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    if bias is not None:
        scores.view(heads, n, -1)[:, :, -bias.shape[1] :] += bias
    if rule.sinks is not None:
        sinks = rule.sinks.to(scores.dtype).view(groups, -1, 1).expand(-1, -1, n).reshape(groups, -1, 1)
        weights = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[:, :, :-1]
    else:
        weights = torch.softmax(scores, dim=-1)
    return torch.bmm(weights, value).view(heads, n, size)


class Canopy:
    """A pass over trees that stand side by side on one trunk. With `keep`, their keys and values stay for decoding."""

    def __init__(
        self,
        trees: Sequence[Tree],
        trunk: KeyValues,
        trunk_length: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        keep: bool,
    ) -> None:
        self.trunk = trunk
        self.trunk_length = trunk_length
        self.kept: KeyValues = {}
        self._keep = keep
        ends = np.cumsum([len(tree.tokens) for tree in trees])
        self.spans = [(int(end) - len(tree.tokens), int(end)) for tree, end in zip(trees, ends, strict=True)]
        self.tokens = torch.from_numpy(np.concatenate([tree.tokens for tree in trees])).to(device)
        depths = np.concatenate([tree.depths for tree in trees])
        self.positions = torch.from_numpy(depths + trunk_length).to(device)
        self._depths = [torch.from_numpy(tree.depths) for tree in trees]
        self._visible = [torch.from_numpy(tree.visible()) for tree in trees]
        self._dtype, self._device = dtype, device
        self._biases: dict[int | None, list[torch.Tensor | None]] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule
    ) -> torch.Tensor:
        """Attention's output for every node, shape (n_heads, n_tokens, head_size)."""
        if self._keep:
            self.kept[layer] = (key, value)
        out = torch.empty_like(query)
        trunk_key, trunk_value = self.trunk.get(layer, (key[:, :0], value[:, :0]))
        for (start, end), bias in zip(self.spans, self._bias(rule.window), strict=True):
            keys = torch.cat([trunk_key[:, : self.trunk_length], key[:, start:end]], dim=1)
            values = torch.cat([trunk_value[:, : self.trunk_length], value[:, start:end]], dim=1)
            out[:, start:end] = plain_attention(query[:, start:end], keys, values, bias, rule)
        return out

    def _bias(self, window: int | None) -> list[torch.Tensor | None]:
        """For each tree what is added to its scores: 0 where a node sees, minus infinity where it does not."""
        if window not in self._biases:
            self._biases[window] = [self._tree_bias(k, window) for k in range(len(self.spans))]
        return self._biases[window]

    def _tree_bias(self, k: int, window: int | None) -> torch.Tensor:
        seen, depths = self._visible[k], self._depths[k]
        if window is not None and self.trunk_length + int(depths.max()) >= window:
            seen = seen & (depths[:, None] - depths[None, :] < window)
            trunk = torch.arange(self.trunk_length)
            seen = torch.cat([(depths[:, None] + self.trunk_length - trunk[None, :]) < window, seen], dim=1)
        bias = torch.zeros(seen.shape, dtype=self._dtype)
        return bias.masked_fill_(~seen, float("-inf")).to(self._device)


class Tips:
    """Decoding one token a step at the tip of each path, over the keys and values that a canopy kept.

    `lengths` are the numbers of nodes of each path beyond the trunk; shorter paths are padded on the left.
    """

    def __init__(self, canopy: Canopy, paths: Sequence[np.ndarray], n_steps: int) -> None:
        self.trunk, self.trunk_length = canopy.trunk, canopy.trunk_length
        device = canopy.tokens.device
        longest = max(len(path) for path in paths)
        index = np.zeros((len(paths), longest), dtype=np.int64)
        self._blind = torch.zeros((len(paths), longest + n_steps), dtype=torch.bool)
        for row, path in enumerate(paths):
            index[row, longest - len(path) :] = path
            self._blind[row, : longest - len(path)] = True
        self._blind = self._blind.to(device)
        self._offsets = torch.tensor([self.trunk_length + len(path) - longest for path in paths], device=device)
        self.n_seen = longest
        flat = torch.from_numpy(index.reshape(-1)).to(device)
        self._own: KeyValues = {}
        for layer, (key, value) in canopy.kept.items():
            stores = []
            for kept in (key, value):
                store = kept.new_zeros((len(paths), kept.shape[0], longest + n_steps, kept.shape[2]))
                store[:, :, :longest] = kept[:, flat].view(kept.shape[0], len(paths), longest, -1).transpose(0, 1)
                stores.append(store)
            self._own[layer] = (stores[0], stores[1])

    @property
    def positions(self) -> torch.Tensor:
        """The position of the token that each path decodes next, shape (n_paths,)."""
        return self._offsets + self.n_seen

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Nothing; goes on with these paths only (the others are finished)."""
        self._blind, self._offsets = self._blind[rows], self._offsets[rows]
        self._own = {layer: (key[rows], value[rows]) for layer, (key, value) in self._own.items()}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule
    ) -> torch.Tensor:
        """Attention's output for one new token a path, shape (n_heads, n_paths, head_size)."""
        heads, n, size = query.shape
        groups = key.shape[0]
        own_key, own_value = self._own[layer]
        own_key[:, :, self.n_seen] = key.transpose(0, 1)
        own_value[:, :, self.n_seen] = value.transpose(0, 1)
        end = self.n_seen + 1
        trunk_key, trunk_value = self.trunk.get(layer, (key[:, :0], value[:, :0]))
        trunk_key, trunk_value = trunk_key[:, : self.trunk_length], trunk_value[:, : self.trunk_length]
        grouped = (query * rule.scale).view(groups, heads // groups, n, size)
        on_trunk = torch.einsum("ghns,gts->nght", grouped, trunk_key)
        on_own = torch.einsum("ghns,ngts->nght", grouped, own_key[:, :, :end])
        scores = torch.cat([on_trunk, on_own], dim=-1).float()
        if rule.softcap is not None:
            scores = torch.tanh(scores / rule.softcap) * rule.softcap
        hidden = torch.cat([self._blind.new_zeros((n, self.trunk_length)), self._blind[:, :end]], dim=1)
        if rule.window is not None:
            own = torch.arange(end, device=query.device) + self._offsets[:, None]
            trunk = torch.arange(self.trunk_length, device=query.device).expand(n, -1)
            hidden = hidden | (self.positions[:, None] - torch.cat([trunk, own], dim=1) >= rule.window)
        scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
        if rule.sinks is not None:
            sinks = rule.sinks.float().view(1, groups, -1, 1).expand(n, -1, -1, -1)
            weights = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]
        else:
            weights = torch.softmax(scores, dim=-1)
        weights = weights.to(value.dtype)
        out = torch.einsum("nght,gts->nghs", weights[..., : self.trunk_length], trunk_value)
        out = out + torch.einsum("nght,ngts->nghs", weights[..., self.trunk_length :], own_value[:, :, :end])
        return out.reshape(n, heads, size).transpose(0, 1)
