"""How much memory a training will need, reckoned before anything is loaded, and how much is free.

Shapes come from a model's config.json, numbers of weights from the headers of its safetensors. What is reckoned follows
TRL 1.16: an adapter in float32, Adam's two moments in float32, a head whose logits are made tile by tile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..cards import Card, weights_folder
from ..errors import ModelError
from ..model_folder import Absent, read_json_object
from ..weights import read_manifest

Number = Literal["float32", "bfloat16", "float16"]
"""What weights are held as."""

_BYTES: Mapping[Number, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOAT32 = 4
_STORED_BITS = re.compile(r"[A-Z]+(\d+)")
_STATED = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([KMBT])\b")
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

_TILE = 4096, 32768
"""Tokens and vocabulary of the tile in which TRL makes logits."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_EXPERTS_LEFT_ALONE = {"gpt_oss"}
"""Models of whose layers peft adapts the attention alone."""


class Stored(NamedTuple):
    """What a folder's safetensors hold: how many numbers, and in how many bytes."""

    n_parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training needs, in bytes by what for; `unknown` names the parts that could not be reckoned."""

    parts: Mapping[str, int]
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All parts together, in bytes: the most, since those of writing and those of learning take turns."""
        return sum(self.parts.values())

    def lines(self) -> list[str]:
        """The plan in words: a line for each part that takes any memory, the total, and what is not in it."""
        lines = [f"{name} {_in_words(size)}" for name, size in self.parts.items() if size]
        lines.append(f"{'at least' if self.unknown else 'together'} {_in_words(self.total)}")
        if self.unknown:
            lines.append(f"not reckoned: {', '.join(self.unknown)}")
        return lines


def plan(
    config: Mapping[str, Any],
    *,
    n_parameters: int,
    trainable: int | None,
    precision: Number,
    sequences: int,
    micro_batch: int,
    prompt_tokens: int,
    completion_tokens: int,
    reference: bool = False,
    checkpointing: bool = True,
    judge: int = 0,
) -> Plan:
    """The memory for a policy of that config.json, held as `precision`, of whose `n_parameters` some are trained.

    `trainable` counts an adapter's weights (see `lora_parameters`), or is `n_parameters` for full tuning; None if it is
    not known. `sequences` are written at once and learnt from in micro-batches; each has at most so many tokens.
    `reference`: the KL divergence is counted, which takes a copy of a policy that is tuned in full, and nothing with an
    adapter, which is switched off. `checkpointing`: activations are made again for the backward pass. `judge` is the
    size of a judge's weights in bytes, 0 if it is the policy's own base or runs in a server. Parts that need shapes
    which the config does not tell are left out and named.
    """
    width = _BYTES[precision]
    full = trainable == n_parameters
    shapes = _Shapes.of(config)
    learnt = None if trainable is None else trainable * (width if full else _FLOAT32)
    tokens = prompt_tokens + completion_tokens
    parts: dict[str, int | None] = {
        "policy weights": n_parameters * width,
        "adapter": 0 if full else learnt,
        "gradients": learnt,
        "optimizer": None if trainable is None else trainable * 2 * _FLOAT32,
        "reference model": n_parameters * width if full and reference else 0,
        "key-value cache": shapes.cache(tokens * sequences, width) if shapes else None,
        "activations": shapes.activations(tokens * micro_batch, width, full, checkpointing) if shapes else None,
        "logits": shapes.logits(completion_tokens * micro_batch) if shapes else None,
        "judge": judge,
    }
    known = {name: size for name, size in parts.items() if size is not None}
    return Plan(known, tuple(name for name in parts if name not in known))


def lora_parameters(config: Mapping[str, Any], rank: int) -> int | None:
    """How many weights a LoRA adapter of that rank has on every linear layer but the head: rank x (inputs + outputs).

    None if the config does not tell the shapes, or for experts, which peft adapts in a way of its own.
    """
    shapes = _Shapes.of(config)
    left_alone = config.get("model_type") in _EXPERTS_LEFT_ALONE
    if shapes is None or (shapes.experts and not left_alone):
        return None
    h, q, kv, i = shapes.hidden, shapes.queries, shapes.keys, shapes.intermediate
    attention = (h + q) + 2 * (h + kv) + (q + h)
    return shapes.layers * rank * (attention + (0 if left_alone else 3 * (h + i)))


def stored(directory: Path) -> Stored:
    """How many weights a folder's safetensors hold and in how many bytes, by their headers alone.

    Raises ModelError if there are none, or if one cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    n_parameters = n_bytes = 0
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as tensors:
                slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118, it is no mapping
                sizes = [(math.prod(each.get_shape()), _bits(each.get_dtype())) for each in slices]
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read as safetensors.", "Copy it again.") from error
        n_parameters += sum(n for n, _ in sizes)
        n_bytes += sum(n * bits // 8 for n, bits in sizes)
    if not n_parameters:
        raise ModelError(f"{directory} holds no safetensors weights.", "Copy the whole model, with its safetensors.")
    return Stored(n_parameters, n_bytes)


def config_of(card: Card) -> Mapping[str, Any]:
    """The config.json of a card's weights; empty if they are not on this machine, so a plan leaves out what needs it.

    Raises WeightsError if they are here and cannot be read.
    """
    try:
        manifest = read_manifest(card.name, card.mend)
        return read_json_object(Path(manifest.location or weights_folder(card.name)) / "config.json")
    except (Absent, FileNotFoundError):
        return {}


def parameters_of(card: Card) -> int:
    """How many weights a card says its model has: "135M", "46.7B, 12.9B active", or "8x7B" for eight times seven.

    Raises ModelError if it states no number.
    """
    found = _STATED.match(card.parameters)
    if found is None:
        raise ModelError(f"The card of {card.name} states no number of parameters.", "Write it like 14B or 135M.")
    times, number, unit = found.groups()
    return round(int(times or 1) * float(number) * _UNITS[unit])


def held_as(precision: str, device: str) -> Number:
    """What weights of a card's precision are held as on a device; "auto" is resolved as an engine does."""
    from ..engines.transformers_engine import resolve_precision

    named = str(resolve_precision(precision, device)).removeprefix("torch.")
    return next(number for number in _BYTES if number == named)


def count_of(card: Card) -> int:
    """How many weights a card's model has: counted where they are here, else as the card states.

    Raises ModelError if neither tells.
    """
    try:
        return stored(Path(read_manifest(card.name).location or weights_folder(card.name))).n_parameters
    except Absent:
        return parameters_of(card)


def weight_bytes(card: Card) -> int:
    """The bytes of a card's weights: as stored where they are here, else two for each of the parameters it states."""
    try:
        return sum(record.bytes for name, record in read_manifest(card.name).files.items() if "safetensors" in name)
    except ModelError:
        return 2 * parameters_of(card)


def available(device: str) -> int | None:
    """Bytes that are free on "cpu", "cuda" or "cuda:N"; None if that cannot be told, or if there is no such device."""
    if device == "cpu":
        return _free_memory()
    if not device.startswith("cuda"):
        return None
    import torch

    try:
        return int(torch.cuda.mem_get_info(device)[0])
    except (RuntimeError, AssertionError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Shapes:
    """The widths of a decoder's layers; `intermediate` is what a token passes, of all its experts together."""

    layers: int
    hidden: int
    queries: int
    keys: int
    intermediate: int
    vocabulary: int
    experts: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Shapes | None:
        """The shapes that a config.json tells; None if one is missing."""
        told = config.get("text_config") or config
        try:
            heads, hidden = int(told["num_attention_heads"]), int(told["hidden_size"])
            head = int(told.get("head_dim") or hidden // heads)
            wide = int(told.get("moe_intermediate_size") or told["intermediate_size"])
            return cls(
                layers=int(told["num_hidden_layers"]),
                hidden=hidden,
                queries=heads * head,
                keys=int(told.get("num_key_value_heads") or heads) * head,
                intermediate=wide * int(told.get("num_experts_per_tok") or 1),
                vocabulary=int(told["vocab_size"]),
                experts=any((told.get(key) or 0) > 1 for key in _EXPERTS),
            )
        except KeyError:
            return None

    def cache(self, tokens: int, width: int) -> int:
        """Bytes of the keys and values of every token in every layer."""
        return self.layers * 2 * self.keys * tokens * width

    def activations(self, tokens: int, width: int, full: bool, checkpointing: bool) -> int:
        """Bytes kept for the backward pass: what each layer's parts are given, which an adapter reads in float32."""
        layer = (10 * self.hidden + 2 * (self.queries + self.keys) + 4 * self.intermediate) * width
        if not full and width < _FLOAT32:
            layer += (5 * self.hidden + self.queries + self.intermediate) * _FLOAT32
        if checkpointing:
            return tokens * (self.layers * self.hidden * width + layer)
        return tokens * self.layers * layer

    def logits(self, tokens: int) -> int:
        """Bytes of a tile of logits and of its gradient, in float32."""
        return 2 * min(tokens, _TILE[0]) * min(self.vocabulary, _TILE[1]) * _FLOAT32


def _bits(number: str) -> int:
    """The bits of a number as a safetensors header names it: "BF16", "F8_E4M3", "I32", "BOOL"."""
    found = _STORED_BITS.match(number)
    return int(found[1]) if found else 8


def _free_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _in_words(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10**7 else f"{size / 1e6:.2f} MB"
