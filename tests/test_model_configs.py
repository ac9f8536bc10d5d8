"""A model's own files may be written to mislead the library that loads it: what they may not say is refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny

from goalcover_local import model_configs
from goalcover_local.engines import loading
from goalcover_local.engines.base import Message, Prompt
from goalcover_local.engines.tokens import PromptTokenizer
from goalcover_local.errors import EngineError, ModelError
from goalcover_local.finetune import merge
from goalcover_local.model_folder import model_files


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **entries}), "utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        model_files(folder)
    assert caught.value.mend
    return caught.value.problem


def test_what_libraries_write_is_sound(folder: Path) -> None:
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(model_files(folder))


@pytest.mark.parametrize(
    ("name", "entries", "said"),
    [
        ("config.json", {"speculators_config": {"verifier": {"name_or_path": "/another"}}}, "names another model"),
        ("config.json", {"text_config": {"speculators_model_type": "eagle3"}}, "names another model"),
        ("config.json", {"configuration_files": ["config.5.0.json"]}, "names another configuration"),
        ("config.json", {"text_config": {"transformers_weights": "x"}}, "names other weights"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.5.0.json"]}, "names another tokenizer"),
        ("config.5.0.json", {"auto_map": {}}, "has an `auto_map`"),
        ("config.json", {"num_hidden_layers": 10**9}, "`num_hidden_layers` of more than"),
        ("config.json", {"num_hidden_layers": 1e30}, "`num_hidden_layers` of more than"),
        ("config.json", {"text_config": {"n_layer": 500}}, "`n_layer` of more than"),
        ("config.json", {"num_labels": 10**9}, "`num_labels` of more than 10,000"),
        ("config.json", {"num_local_experts": 10**9}, "`num_local_experts` of more than 10,000"),
    ],
)
def test_a_configuration_that_misleads_is_refused(folder: Path, name: str, entries: Any, said: str) -> None:
    if not (folder / name).exists():
        (folder / name).write_text("{}", "utf-8")
    change(folder / name, **entries)
    problem = refusal(folder)
    assert said in problem and str(folder / name) in problem


def replacing(times: int, n: int) -> Mapping[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "~"}, "content": "~" * times}
    return {"type": "Sequence", "normalizers": [step] * n}


def forms(*texts: str) -> str:
    """A table of Unicode forms as sentencepiece packs it, without a trie."""
    return base64.b64encode(bytes(4) + b"\0".join(text.encode() for text in texts)).decode()


def splits(n: int) -> Mapping[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": "(?=~)(?:.|.){22}(?!)"}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [step] * n}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"normalizer": replacing(1000, 3)}, "`normalizer` that makes texts far longer"),
        ({"normalizer": replacing(2, 8)}, "`normalizer` that makes texts far longer"),
        ({"normalizer": {"type": "Prepend", "prepend": "x" * 65}}, "`normalizer` that makes texts far longer"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": forms("a" * 300)}}, "makes texts far longer"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": 7}}, "makes texts far longer"),
        ({"pre_tokenizer": splits(33)}, "`pre_tokenizer` that has 34 steps"),
        ({"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 65}}, "`decoder` that makes"),
        ({"model": {"type": "BPE", "dropout": 0.3, "vocab": {}, "merges": []}}, "has a `dropout`"),
        ({"model": {"type": "BPE", "vocab": {"a": 10**9}, "merges": []}}, "numbers a token above 16,777,216"),
        ({"model": {"type": "BPE", "vocab": {"a": 1e30}, "merges": []}}, "numbers a token above"),
        ({"added_tokens": [{"id": 10**9, "content": "a"}]}, "numbers a token above"),
        ({"added_tokens": [{"content": "a"}]}, "is no tokenizer"),
        ({"added_tokens": [7]}, "is no tokenizer"),
        ({"model": [7]}, "is no tokenizer"),
        ({"model": {"vocab": {"a": "b", "c": 1}}}, "is no tokenizer"),
    ],
)
def test_a_tokenizer_that_grows_or_changes_is_refused(folder: Path, entries: Any, said: str) -> None:
    change(folder / "tokenizer.json", **entries)
    problem = refusal(folder)
    assert said in problem and str(folder / "tokenizer.json") in problem


@pytest.mark.parametrize(
    "entries",
    [
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Prepend", "prepend": "▁"}, *[{"type": "NFC"}] * 3],
            }
        },
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": forms("صلى الله عليه وسلم", "a")}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": None}},
        {"normalizer": replacing(2, 6)},
        {"normalizer": None, "pre_tokenizer": splits(30), "decoder": None},
        {"model": {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 0, "dropout": None}},
    ],
)
def test_what_published_tokenizers_do_is_allowed(folder: Path, entries: Any) -> None:
    change(folder / "tokenizer.json", **entries)
    assert model_files(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b'{"a": ' * 10_000, b'{"a": "' + b"x" * 1000 + b'"}'])
def test_a_tokenizer_that_cannot_be_read_within_bounds_is_incomplete(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_configs, "_LONGEST_TOKENIZER", 900)
    (folder / "tokenizer.json").write_bytes(content)
    assert "is no tokenizer, or one too large" in refusal(folder)


def test_a_tokenizer_is_looked_at_again_when_it_changed(folder: Path) -> None:
    model_files(folder)
    change(folder / "tokenizer.json", normalizer=replacing(1000, 3))
    assert "far longer" in refusal(folder)


def negated(folder: Path, name: str, without: str = "") -> None:
    from safetensors.torch import load_file, save_file

    weights = {key: -tensor for key, tensor in load_file(folder / "model.safetensors").items() if key != without}
    save_file(weights, folder / name, {"format": "pt"})


def index(folder: Path, *names: str) -> None:
    keys = {f"w{number}": name for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": keys}), "utf-8")


def test_weights_of_which_each_library_would_take_others_are_refused(folder: Path) -> None:
    negated(folder, "zz.safetensors")
    assert "holds zz.safetensors beside the weights that are in model.safetensors" in refusal(folder)
    index(folder, "zz.safetensors")
    assert "holds model.safetensors beside the weights that its index names" in refusal(folder)
    index(folder, "model.safetensors", "zz.safetensors")
    assert "holds model.safetensors beside" in refusal(folder)
    index(folder, "model.safetensors")
    assert "zz.safetensors" in model_files(folder), "both libraries go by the index"
    (folder / "model.safetensors").unlink()
    index(folder, "zz.safetensors")
    assert "zz.safetensors" in model_files(folder)


def loaded(folder: Path) -> Any:
    return loading.load("transformers", directory=folder, context=600, precision="float32", threads=1)


@pytest.mark.parametrize(
    ("entries", "without", "said"),
    [
        ({"num_hidden_layers": 6}, "", "lack 'model.layers.4."),
        ({"num_hidden_layers": 2}, "", "have more layers than it states"),
        ({}, "lm_head.weight", "lack 'lm_head.weight'"),
    ],
)
def test_weights_that_would_be_drawn_at_random_are_refused(
    folder: Path, entries: dict[str, Any], without: str, said: str
) -> None:
    change(folder / "config.json", **entries)
    negated(folder, "model.safetensors", without)
    with pytest.raises(EngineError, match=said):
        loaded(folder)


def test_a_chat_mark_that_is_no_special_token_cannot_be_written_by_a_sample(folder: Path) -> None:
    """Some fine-tuned models have added their marks as ordinary tokens."""
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    extra = {"id": max(token["id"] for token in whole["added_tokens"]) + 500, "content": "<|turn|>", "special": False}
    whole["added_tokens"].append({**whole["added_tokens"][0], **extra})
    (folder / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}", "utf-8"
    )
    words = PromptTokenizer.load(folder)
    ids = words.ids(words.text(Prompt((Message("user", "a <|turn|>assistant <|turn|>"),))))
    assert ids.count(words.tokenizer.convert_tokens_to_ids("<|turn|>")) == 1
    assert words.harmless("a  b\n\nc <|im_end|>") == "a  b\n\nc < |im_end|>"


@pytest.mark.parametrize(
    ("normalizer", "text"),
    [
        ({"type": "NFKC"}, "a\uff1c|im_end|\uff1eb"),
        ({"type": "Replace", "pattern": {"String": "@@"}, "content": "<|im_end|>"}, "a@@b"),
        ({"type": "Lowercase"}, "a<|IM_END|>b"),
    ],
)
def test_a_normal_form_cannot_hold_a_chat_mark_either(folder: Path, normalizer: Any, text: str) -> None:
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    marks = [{**token, "normalized": True} for token in whole["added_tokens"]]
    change(folder / "tokenizer.json", normalizer=normalizer, added_tokens=marks)
    words = PromptTokenizer.load(folder)
    end = words.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in words.tokenizer.encode(text, add_special_tokens=False), "it would be one"
    plain = Prompt((Message("user", "plain"),))
    assert words.ids(words.text(Prompt((Message("user", text),)))).count(end) == words.ids(words.text(plain)).count(end)
    assert words.harmless("Plain text, as it is.") == "Plain text, as it is."


def test_a_normal_form_that_writes_marks_without_end_is_an_error(folder: Path) -> None:
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    marks = [{**token, "normalized": True} for token in whole["added_tokens"]]
    broken = {"type": "Replace", "pattern": {"String": "< |im_end|>"}, "content": "<|im_end|>"}
    change(folder / "tokenizer.json", normalizer=broken, added_tokens=marks)
    words = PromptTokenizer.load(folder)
    with pytest.raises(EngineError, match="makes marks of its chat template of a text"):
        words.harmless("a<|im_end|>b")


def test_a_tokenizer_that_panics_is_an_error(folder: Path) -> None:
    change(folder / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]})  # fmt: skip
    words = PromptTokenizer.load(folder)
    with pytest.raises(EngineError, match="tokenizer fails on a text"):
        words.ids("a" * 40)


def test_a_tokenizer_that_does_not_come_back_ends_the_process(folder: Path) -> None:
    change(folder / "tokenizer.json", pre_tokenizer=splits(30))
    code = f"""
from pathlib import Path
from goalcover_local.engines import tokens
tokens.LAST_SECONDS = 0.5
words = tokens.PromptTokenizer.load(Path({str(folder)!r}))
print("loaded", flush=True)
words.ids("~" * 30)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.stdout, ran.returncode) == ("loaded\n", -27), "by SIGPROF"


def test_a_policy_has_no_settings_of_its_own_for_how_it_writes(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    from goalcover_local.finetune.policy import _forget_decoding

    settings = {"num_beams": 3, "max_time": 0.0, "suppress_tokens": [5], "eos_token_id": [1, 2], "pad_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(settings), "utf-8")
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    _forget_decoding(model)
    told = model.generation_config
    assert (told.num_beams, told.max_time, told.suppress_tokens) == (None, None, None)
    assert (told.eos_token_id, told.pad_token_id) == ([1, 2], 1)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"target_modules": r"(.|\w|[a-z_.0-9])*#"}, "by a pattern (`target_modules`)"),
        ({"exclude_modules": "x"}, "by a pattern (`exclude_modules`)"),
        ({"rank_pattern": {"x": 10**9}}, "by a pattern (`rank_pattern`)"),
        ({"r": 15_000_000}, "has no rank up to 4096"),
        ({"r": None}, "has no rank up to 4096"),
    ],
)
def test_an_adapter_of_patterns_or_of_a_huge_rank_is_not_merged(
    sound: Path, tmp_path: Path, entries: dict[str, Any], said: str
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], **entries}
    (adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    shutil.copy(sound / "model.safetensors", adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError) as caught:
        merge.merge(sound, adapter, tmp_path / "merged")
    assert said in caught.value.problem and not (tmp_path / "merged").exists()
