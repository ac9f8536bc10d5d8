"""The memory plan: its numbers are those that real models, adapters and optimizers take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from goalcover_local.cards import list_cards, load_card
from goalcover_local.errors import ModelError
from goalcover_local.finetune import memory
from goalcover_local.finetune.memory import Plan, available, config_of, lora_parameters, parameters_of, plan, stored
from goalcover_local.model_folder import read_json_object

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
N_PARAMETERS = 134_515_008
BYTES = {"float32": 4, "bfloat16": 2}


def planned(config: Mapping[str, Any] = SMOLLM2, **changed: Any) -> Plan:
    """The plan of a small training, but for what is changed."""
    usual: dict[str, Any] = {
        "n_parameters": N_PARAMETERS,
        "trainable": lora_parameters(config, 16),
        "precision": "bfloat16",
        "sequences": 16,
        "micro_batch": 4,
        "prompt_tokens": 300,
        "completion_tokens": 100,
    }
    return plan(config, **(usual | changed))


def model(kind: str, precision: str = "float32", **settings: Any) -> Any:
    """A small random model of an architecture."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **{**SMALL, **settings})
    return AutoModelForCausalLM.from_config(config).to(getattr(torch, precision))


def with_adapter(built: Any, rank: int) -> Any:
    """The model with a LoRA adapter on every linear layer."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(built, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))


def kept(built: Any, n_sequences: int, n_tokens: int) -> int:
    """Bytes that a forward pass without its head keeps for the backward pass, weights aside."""
    import torch

    weights = {each.untyped_storage().data_ptr() for each in (*built.parameters(), *built.buffers())}
    sizes: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    inner = getattr(built, "base_model", built)
    body = inner.model.model if hasattr(built, "peft_config") else built.model
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        body(torch.zeros((n_sequences, n_tokens), dtype=torch.long))
    return sum(size for size, _ in sizes.values())


# What real models take


@pytest.mark.parametrize("rank", [1, 16])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("llama", {"head_dim": 16}),
        ("mistral", {"num_key_value_heads": 1}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
        ("gemma2", {}),
        ("gpt_oss", {"num_local_experts": 4}),
    ],
)
def test_an_adapter_has_as_many_weights_as_peft_makes(kind: str, settings: dict[str, Any], rank: int) -> None:
    built = with_adapter(model(kind, **settings), rank)
    real = sum(each.numel() for each in built.parameters() if each.requires_grad)
    assert lora_parameters(built.config.to_dict(), rank) == real


def test_an_adapter_on_experts_is_not_reckoned() -> None:
    config = model("mixtral", num_local_experts=4).config.to_dict()
    assert lora_parameters(config, 16) is None
    assert planned(config).unknown == ("adapter", "gradients", "optimizer")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_are_counted_by_the_headers_alone(tmp_path: Path, precision: str) -> None:
    built = model("llama", precision, hidden_size=256, intermediate_size=512)
    built.save_pretrained(tmp_path, max_shard_size="1MB")
    files = list(tmp_path.glob("*.safetensors"))
    found = stored(tmp_path)
    assert len(files) > 1
    assert found.n_parameters == sum(each.numel() for each in built.parameters())
    assert found.bytes == found.n_parameters * BYTES[precision]
    assert found.bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.01)
    told = planned(read_json_object(tmp_path / "config.json"), n_parameters=found.n_parameters, precision=precision)
    assert told.parts["policy weights"] == found.bytes


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "full"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_activations_are_near_what_a_forward_pass_keeps(kind: str, precision: str, adapter: bool) -> None:
    built = model(kind, precision)
    trained = with_adapter(built, 8) if adapter else built
    told = planned(
        built.config.to_dict(),
        trainable=1 if adapter else N_PARAMETERS,
        precision=precision,
        micro_batch=2,
        prompt_tokens=60,
        completion_tokens=40,
        checkpointing=False,
    )
    assert 0.7 < told.parts["activations"] / kept(trained, 2, 100) < 1.5


def test_the_cache_is_what_a_model_fills() -> None:
    import torch

    built = model("llama")
    cache = built(torch.zeros((3, 50), dtype=torch.long), use_cache=True).past_key_values
    real = sum(each.numel() * 4 for layer in cache.layers for each in (layer.keys, layer.values))
    told = planned(built.config.to_dict(), precision="float32", sequences=3, prompt_tokens=30, completion_tokens=20)
    assert told.parts["key-value cache"] == real


def test_adam_keeps_what_is_planned() -> None:
    import torch

    built = model("llama")
    optimizer = torch.optim.AdamW(built.parameters())
    built(torch.zeros((1, 4), dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    states = (each for state in optimizer.state.values() for key, each in state.items() if key != "step")
    n = sum(each.numel() for each in built.parameters())
    told = planned(built.config.to_dict(), n_parameters=n, trainable=n, precision="float32")
    assert told.parts["optimizer"] == sum(each.numel() * 4 for each in states)
    assert told.parts["gradients"] == sum(each.grad.numel() * 4 for each in built.parameters())


# The plan


def test_an_adapter_needs_no_copy_of_the_policy() -> None:
    adapter, full = planned(reference=True), planned(trainable=N_PARAMETERS, reference=True)
    assert adapter.parts["reference model"] == 0 < adapter.parts["adapter"]
    assert full.parts["reference model"] == full.parts["policy weights"] == N_PARAMETERS * 2
    assert full.parts["adapter"] == 0
    assert planned(trainable=N_PARAMETERS).parts["reference model"] == 0


def test_an_adapter_is_trained_in_float32_and_a_policy_as_it_is_held() -> None:
    n = lora_parameters(SMOLLM2, 16) or 0
    assert n == 30 * 16 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
    assert [planned().parts[name] for name in ("adapter", "gradients", "optimizer")] == [4 * n, 4 * n, 8 * n]
    assert planned(trainable=N_PARAMETERS).parts["gradients"] == 2 * N_PARAMETERS
    assert planned(trainable=N_PARAMETERS).parts["optimizer"] == 8 * N_PARAMETERS


@pytest.mark.parametrize("name", ["sequences", "micro_batch", "prompt_tokens", "completion_tokens", "judge"])
def test_more_takes_more(name: str) -> None:
    assert planned(**{name: 50}).total < planned(**{name: 100}).total


def test_logits_are_those_of_completions_up_to_a_tile() -> None:
    assert planned().parts["logits"] == 2 * 400 * 32768 * 4
    assert planned(micro_batch=400).parts["logits"] == 2 * 4096 * 32768 * 4
    assert planned({**SMOLLM2, "vocab_size": 1000}).parts["logits"] == 2 * 400 * 1000 * 4


def test_checkpointing_keeps_the_bounds_of_layers_and_one_layer() -> None:
    with_it, without = planned().parts["activations"], planned(checkpointing=False).parts["activations"]
    assert with_it == 4 * 400 * 30 * 576 * 2 + without / 30


def test_the_total_is_the_sum_and_lines_tell_every_part() -> None:
    told = planned(judge=2_000_000_000)
    assert told.total == sum(told.parts.values())
    assert told.lines()[0] == "policy weights 0.27 GB"
    assert told.lines()[-2:] == ["judge 2.00 GB", f"together {told.total / 1e9:.2f} GB"]
    assert not any("reference model" in line for line in told.lines()), "what takes nothing is not told"
    assert Plan({"adapter": 1_234_000}).lines() == ["adapter 1.23 MB", "together 1.23 MB"]


def test_what_shapes_are_needed_for_is_left_out_and_named() -> None:
    told = planned({}, n_parameters=14_800_000_000)
    assert told.parts == {"policy weights": 29_600_000_000, "reference model": 0, "judge": 0}
    assert told.lines() == [
        "policy weights 29.60 GB",
        "at least 29.60 GB",
        "not reckoned: adapter, gradients, optimizer, key-value cache, activations, logits",
    ]
    assert planned({}, trainable=N_PARAMETERS).unknown == ("key-value cache", "activations", "logits")


def test_shapes_of_a_model_that_sees_and_reads_are_those_of_its_reading() -> None:
    assert planned({"text_config": SMOLLM2, "vision_config": {"hidden_size": 9}}) == planned()


# Cards


@pytest.mark.parametrize(
    ("stated", "n"),
    [("135M", 135e6), ("14B", 14e9), ("8x7B", 56e9), ("46.7B, 12.9B active", 46.7e9), ("1.5B", 1.5e9), ("1T", 1e12)],
)
def test_a_card_states_its_parameters(stated: str, n: float) -> None:
    assert parameters_of(replace(load_card("qwen3-14b"), parameters=stated)) == n


def test_every_card_that_ships_states_them() -> None:
    assert all(10**8 < parameters_of(card) < 10**12 for card in list_cards())


def test_a_card_that_states_none_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no number of parameters.*14B"):
        parameters_of(replace(load_card("qwen3-14b"), parameters="large"))


def test_the_config_of_a_card_is_that_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card("qwen3-14b")
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path))
    assert config_of(card) == {}
    folder = tiny.write_checkpoint(tmp_path / "weights")
    manifest = SimpleNamespace(location=str(folder))
    monkeypatch.setattr(memory, "read_manifest", lambda *_: manifest)
    assert config_of(card)["hidden_size"] == 32
    assert planned(config_of(card)).unknown == ()


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no safetensors weights"):
        stored(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        stored(tmp_path)


# What is free


def test_free_memory_of_a_cpu_is_between_none_and_all() -> None:
    import psutil

    free = available("cpu")
    assert free is not None and 0 < free < psutil.virtual_memory().total


def test_free_memory_of_what_is_not_there_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def missing(device: str) -> None:
        raise AssertionError(f"Torch not compiled with CUDA enabled: {device}")

    monkeypatch.setattr(torch.cuda, "mem_get_info", missing)
    assert available("cuda") is available("cuda:1") is available("mps") is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(device[-1]), 9))
    assert available("cuda:1") == 1
