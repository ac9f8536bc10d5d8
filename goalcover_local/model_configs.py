"""What a model's configuration and tokenizer may say: no code, no other files, and nothing that grows without end.

Libraries obey these files when they load a model, long after its folder was found sound: a configuration can name
another model to load, a tokenizer can make a thousand letters of one. All that is refused here was tried on them.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .bounded import json_of
from .errors import ModelError
from .headers import CutShort, Mark, mark_of, opened

_NAMES_OTHERS = {
    "transformers_weights": "other weights than those beside it",
    "configuration_files": "another configuration",
    "fast_tokenizer_files": "another tokenizer",
    "speculators_config": "another model",
    "speculators_model_type": "another model",
}
"""Keys by which transformers and vLLM load another file than the one that was looked at, or another model."""

_LAYERS = re.compile(r"layers$|^n(um)?_(\w+_)?(layer|blocks?)$")
_HEADS = re.compile(r"(experts|labels)$")
_MOST_LAYERS = 2000
_MOST_HEADS = 10_000
"""Experts or labels: each of them becomes an object before a weight is read."""

_LONGEST_TOKENIZER = 50_000_000  # bytes; the largest published have 35 million
_MOST_BRACKETS, _MOST_COMMAS = 2_000_000, 4_000_000
_MOST_TOKENS = 1 << 24  # a library makes room for every number up to the largest
_MOST_STEPS = 32
_MOST_GROWTH = 64  # times
_LONGEST_CHARACTER = 256  # bytes that a table of Unicode forms makes of one; the standard's own longest has 33
_DISTRUST = "Do not use it: no model in use needs that."


def refuse_code(path: Path, config: Mapping[str, Any]) -> None:
    """Nothing; raises ModelError if a configuration names code or another file, wherever in it."""
    for key, held in _entries(config):
        if key == "auto_map":
            raise ModelError(f"{path} has an `auto_map`: the model brings code.", "Use a model that needs none.")
        if "_implementation" in key and "/" in json.dumps(held):
            problem = f"{path} has an `{key[:60]}` of another place: the model brings code."
            raise ModelError(problem, "Use a model that needs none.")
        if key in _NAMES_OTHERS:
            raise ModelError(f"{path} names {_NAMES_OTHERS[key]} (`{key}`).", "Take the entry out.")


def refuse_oversized(path: Path, config: Mapping[str, Any], n_tensors: int) -> None:
    """Nothing; raises ModelError if config.json declares more layers than there are tensors, or very many of anything
    that is made before a weight is read.
    """
    for key, held in _entries(config):
        most = min(n_tensors, _MOST_LAYERS) if _LAYERS.search(key) else _MOST_HEADS if _HEADS.search(key) else math.inf
        if isinstance(held, int | float) and held > most:
            raise ModelError(f"{path} has a `{key[:60]}` of more than {most:,}.", _DISTRUST)


def refuse_tokenizer(path: Path) -> None:
    """Nothing; raises ModelError if a tokenizer.json is chance's, has numbers without end, or makes texts far longer.

    A file that did not change is looked at once in a process.
    """
    _refuse_tokenizer(path, mark_of(path.lstat()))


@lru_cache(maxsize=64)
def _refuse_tokenizer(path: Path, _mark: Mark) -> None:
    with opened(path) as stream:
        text = stream.read(_LONGEST_TOKENIZER + 1)
    try:
        if len(text) > _LONGEST_TOKENIZER:
            raise ValueError("it is too large")
        found = json_of(text, most_brackets=_MOST_BRACKETS, most_commas=_MOST_COMMAS)
        model = found.get("model") or {}
        added = found.get("added_tokens") or []
        vocabulary = model.get("vocab") or {}
        ids = [*(vocabulary.values() if isinstance(vocabulary, dict) else ()), *(token["id"] for token in added)]
        largest = max(ids, default=0)
    except (ValueError, TypeError, AttributeError, LookupError):
        raise CutShort(f"{path} is no tokenizer, or one too large.", "Copy it again.") from None
    if not isinstance(largest, int) or largest >= _MOST_TOKENS:
        raise ModelError(f"{path} numbers a token above {_MOST_TOKENS:,}.", _DISTRUST)
    if model.get("dropout"):
        raise ModelError(f"{path} has a `dropout`: it would part a text another way each time.", "Take the entry out.")
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        _refuse_growth(path, part, found.get(part))


def _refuse_growth(path: Path, part: str, steps: Any) -> None:
    """Raises ModelError if a tokenizer's part has very many steps, or if they make a text far longer."""
    growth, n_steps = 1, 0
    for key, held in _entries({part: steps}):
        if key == "type":
            n_steps += 1
        elif key in ("content", "prepend", "replacement") and isinstance(held, str):
            growth *= max(len(held), 1)
        elif key == "precompiled_charsmap" and _longest_form(held) > _LONGEST_CHARACTER:
            growth = _MOST_GROWTH + 1
    if n_steps > _MOST_STEPS or growth > _MOST_GROWTH:
        what = "makes texts far longer" if growth > _MOST_GROWTH else f"has {n_steps} steps"
        raise ModelError(f"{path} has a `{part}` that {what}.", _DISTRUST)


def _longest_form(table: Any) -> int:
    """The bytes of the longest form in a table of sentencepiece's: a trie with its size before it, then the forms."""
    try:
        raw = base64.b64decode(table or "", validate=True)
    except (ValueError, TypeError):
        return _LONGEST_CHARACTER + 1
    forms = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max(map(len, forms.split(b"\0")))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with what it holds, however deep."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            yield from value.items()
            left += value.values()
        elif isinstance(value, list):
            left += value
