"""A GGUF made into safetensors, with its configuration, its tokenizer made good, and its chat template."""

from __future__ import annotations

import contextlib
import io
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .cards import Precision
from .errors import ModelError
from .headers import check_gguf
from .offline import switch_offline

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL, _USER_DEFINED = 3, 4
"""Kinds of token in a GGUF that the tokenizer must find whole."""


def convert_gguf(gguf_path: Path, out_dir: Path, precision: Precision) -> dict[str, str]:
    """The versions that turned a GGUF into a folder of safetensors, configuration, tokenizer and template.

    Weights are dequantised to float32, or to bfloat16 for any other precision. Raises ModelError if the file's header
    is unsound, or if the installed transformers cannot read it.
    """
    check_gguf(gguf_path.resolve())
    switch_offline()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    where, file = str(gguf_path.parent), gguf_path.name
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file, local_files_only=True)
            _restore_special_tokens(tokenizer, gguf_path)
            model = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=dtype, local_files_only=True)
            del model.config.quantization_config
            del model.hf_quantizer
            model.save_pretrained(out_dir)
            tokenizer.save_pretrained(out_dir)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{gguf_path.name} cannot be converted: {said}", "Use a model as safetensors.") from error
    return {"precision": str(dtype).removeprefix("torch.")} | {
        package: version(package) for package in ("gguf", "torch", "transformers")
    }


def _restore_special_tokens(tokenizer: PreTrainedTokenizerBase, gguf_path: Path) -> None:
    """Makes good what transformers 5.17 loses of a GGUF's tokenizer.

    It takes the beginning token for the end token, drops most of Qwen's special tokens, and forgets that
    SmolLM splits numbers into digits before anything else.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, pre_tokenizers

    fields = {key.removeprefix("tokenizer.ggml."): field for key, field in GGUFReader(gguf_path).fields.items()}
    texts, kinds = fields["tokens"].contents(), fields["token_type"].contents()
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False, special=kind == _CONTROL)
            for text, kind in zip(texts, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    for role, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items():
        if field := fields.get(f"{key}_token_id"):
            setattr(tokenizer, f"{role}_token", texts[field.contents()])
    if (pre := fields.get("pre")) and pre.contents() == "smollm":
        backend = tokenizer.backend_tokenizer
        digits_first = [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        backend.pre_tokenizer = pre_tokenizers.Sequence(digits_first)
    tokenizer.clean_up_tokenization_spaces = False
