"""A trained policy as a model of its own: plain safetensors that transformers and vLLM load without an adapter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..cards import Precision
from ..errors import ModelError, StoreError
from ..files import digest_of_file
from ..model_folder import model_files, read_json_object
from ..offline import switch_offline
from ..outputs import failures_told, placed

ADAPTER = frozenset({"adapter_config.json", "adapter_model.safetensors"})

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_WORDS = frozenset(
    "tokenizer.json tokenizer_config.json tokenizer.model special_tokens_map.json added_tokens.json vocab.json "
    "vocab.txt merges.txt chat_template.jinja".split()
)
_BESIDE = _WORDS | {"README.md", "card.json", "card.toml"}
"""What a training may leave beside its weights; not read here."""

_NAMED = ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern")
"""What an adapter may list; a text in place of a list is a pattern."""

_LARGEST_RANK = 4096


def merge(base: Path, adapter: Path, output: Path, *, precision: Precision = "auto") -> dict[str, str]:
    """The SHA-256 of each file of the model that was written to `output`: the base with the adapter's weights added.

    Tokenizer and chat template come from the base. `adapter` may be a policy that was tuned in full, whose weights are
    written as they are. Weights have the precision they are stored in, the base's for an adapter, or the one named.
    The folder appears whole or not at all. Raises ModelError for a base or an adapter that is incomplete or unsafe, or
    if they do not fit each other; EngineError if transformers cannot load one; StoreError if `output` holds anything;
    DataError if it cannot be written.
    """
    names = model_files(base, copying=True)
    if "quantization_config" in read_json_object(base / "config.json"):
        raise ModelError(f"The weights in {base} are quantised.", "Merge into the model that is not.")
    whole = _check(adapter)
    _refuse(output, (base, adapter))
    with placed(output, "datasets") as place, failures_told(output):
        if whole and precision == "auto":
            _copy(adapter, place.path, [path.name for path in adapter.iterdir() if _is_model(path.name)])
        else:
            _save(_loaded(adapter, precision) if whole else _merged(base, adapter, precision), place.path)
        if "generation_config.json" in names:  # a training's own has no settings
            (place.path / "generation_config.json").unlink(missing_ok=True)
        _copy(base, place.path, [name for name in names if not _WEIGHTS.fullmatch(name)])
        return {name: digest_of_file(place.path / name) for name in model_files(place.path)}


def _check(adapter: Path) -> bool:
    """Whether this is a policy that was tuned in full. Raises ModelError unless it is that or a LoRA adapter."""
    found = sorted(adapter.iterdir()) if adapter.is_dir() else []
    names = {path.name for path in found}
    whole = not names & ADAPTER and any(_WEIGHTS.fullmatch(name) for name in names)
    for path in found:
        known = path.name in _BESIDE or (_is_model(path.name) if whole else path.name in ADAPTER)
        if not known or path.is_symlink() or not path.is_file():
            raise ModelError(f"{path} is no part of an adapter.", "Remove it, or name the folder of the adapter alone.")
    if not whole and not names >= ADAPTER:
        missing = " and ".join(sorted(ADAPTER - names))
        raise ModelError(f"{adapter} holds no {missing}.", "Name the folder of an adapter that a training wrote.")
    if not whole:
        _refuse_strange(adapter, read_json_object(adapter / "adapter_config.json"))
    return whole


def _refuse_strange(adapter: Path, config: Mapping[str, Any]) -> None:
    """Raises ModelError unless it is a LoRA of a plain rank over modules that it names: a pattern may never end."""
    if (kind := config.get("peft_type")) != "LORA":
        raise ModelError(f"{adapter} is an adapter of the kind {kind}.", "Only LoRA adapters can be merged.")
    patterns = [name for name in _NAMED if isinstance(config.get(name), str)]
    patterns += [name for name in ("rank_pattern", "alpha_pattern") if config.get(name)]
    rank = config.get("r")
    if patterns or not isinstance(rank, int) or not 0 < rank <= _LARGEST_RANK:
        what = f"names modules by a pattern (`{patterns[0]}`)" if patterns else f"has no rank up to {_LARGEST_RANK}"
        raise ModelError(f"The adapter in {adapter} {what}.", "Merge one that `goalcover train` wrote.")


def _is_model(name: str) -> bool:
    """Whether a file of that name is a model's weights or configuration."""
    return name in ("config.json", "generation_config.json") or _WEIGHTS.fullmatch(name) is not None


def _refuse(output: Path, read: Collection[Path]) -> None:
    """Raises StoreError for an output that would take the place of something, or change what is read."""
    mend = "Name a folder that does not exist yet."
    target = output.resolve()
    if any(target.is_relative_to(folder.resolve()) for folder in read):
        raise StoreError(f"{output} lies in a folder that is merged.", mend)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StoreError(f"{output} is there already.", mend)


def _loaded(directory: Path, precision: Precision) -> Any:
    """The model in a folder, on the CPU. Raises EngineError if transformers cannot load it."""
    switch_offline()
    import torch

    from ..engines import causal

    with causal.failures_told(f"the model in {directory}"):
        return causal.causal_model(directory, dtype=precision if precision == "auto" else getattr(torch, precision))


def _merged(base: Path, adapter: Path, precision: Precision) -> Any:
    """The base with the adapter's weights added to its own. Raises ModelError unless each of them has its place."""
    model = _loaded(base, precision)
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        adapted = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu", local_files_only=True)
        with safe_open(adapter / "adapter_model.safetensors", framework="np") as tensors:
            strange = set(tensors.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        if strange:
            raise ValueError(f"{min(strange)} is in one of them alone")
        return adapted.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"The adapter in {adapter} does not fit {base}: {_first_line(error)}",
            "Merge it into the base that it was trained on.",
        ) from error


def _save(model: Any, directory: Path) -> None:
    """Writes configuration and weights. Raises ModelError if the configuration is one that transformers refuses."""
    try:
        model.save_pretrained(directory)
    except ValueError as error:
        raise ModelError(
            f"transformers cannot save the model: {_first_line(error)}", "Mend its configuration."
        ) from error


def _copy(source: Path, target: Path, names: Collection[str]) -> None:
    """Copies those of the files that are not there yet."""
    for name in names:
        if not (target / name).exists():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
