"""Merging: the model that is written answers as base and adapter do, loads as any other, and is whole or not there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from goalcover_local.errors import EngineError, ModelError, StoreError
from goalcover_local.finetune import merge as merging
from goalcover_local.finetune.merge import merge
from goalcover_local.model_folder import model_files

IDS = [[0, 5, 9, 40, 77, 120, 3, 8], [1, 2, 3, 4, 5, 6, 7, 8]]


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor(IDS)).logits.float()


def distance(one: Any, other: Any) -> float:
    return float((one - other).abs().max())


def write_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """The folder, with a LoRA adapter whose weights are random, as a training writes it."""
    import torch
    from peft import LoraConfig, get_peft_model

    wanted = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    torch.manual_seed(11)
    model = get_peft_model(loaded(base), LoraConfig(**wanted))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("base"), initializer_range=0.1)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(base, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "merged"


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    """The adapter, to be spoilt."""
    return Path(shutil.copytree(adapter, tmp_path / "copied"))


def test_a_merged_model_answers_as_base_and_adapter_do(base: Path, adapter: Path, output: Path) -> None:
    from peft import PeftModel

    merge(base, adapter, output)
    plain = logits(loaded(base))
    together = logits(PeftModel.from_pretrained(loaded(base), str(adapter)).eval())
    assert distance(logits(loaded(output)), together) < 1e-5
    assert distance(plain, together) > 0.1, "the adapter changes something"


def test_what_is_written_is_a_model_like_any_other(base: Path, adapter: Path, output: Path) -> None:
    from transformers import AutoTokenizer

    digests = merge(base, adapter, output)
    assert set(digests) == {path.name for path in output.iterdir()} == set(model_files(output))
    assert digests.keys() >= {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"}
    for name, digest in digests.items():
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == digest
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (output / name).read_bytes() == (base / name).read_bytes()
    assert AutoTokenizer.from_pretrained(output).chat_template == tiny.TEMPLATE
    config = json.loads((output / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    told = "".join(path.read_text("utf-8") for path in output.glob("*.json"))
    assert str(base) not in told and str(output.parent) not in told, "no paths of this machine"


def test_merging_again_gives_the_same_bytes(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert merge(base, adapter, tmp_path / "a") == merge(base, adapter, tmp_path / "b")


def test_base_and_adapter_are_left_as_they_were(base: Path, adapter: Path, output: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for folder in (base, adapter) for path in folder.iterdir()}

    before = contents()
    merge(base, adapter, output)
    assert contents() == before


@pytest.mark.parametrize(("precision", "name"), [("auto", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_weights_have_the_precision_that_is_named(
    base: Path, adapter: Path, output: Path, precision: Any, name: str
) -> None:
    import torch

    merge(base, adapter, output, precision=precision)
    assert {parameter.dtype for parameter in loaded(output).parameters()} == {getattr(torch, name)}


def test_tied_and_split_weights_are_merged_too(tmp_path: Path, output: Path) -> None:
    from peft import PeftModel

    base = tiny.write_checkpoint(tmp_path / "base", tie_word_embeddings=True, initializer_range=0.1)
    split = tmp_path / "split"
    loaded(base).save_pretrained(split, max_shard_size="40KB")
    shutil.copy(base / "tokenizer.json", split)
    adapter = write_adapter(split, tmp_path / "adapter", target_modules=["q_proj", "down_proj"], use_rslora=True)
    digests = merge(split, adapter, output)
    assert "model.safetensors.index.json" not in digests
    assert distance(logits(loaded(output)), logits(PeftModel.from_pretrained(loaded(base), str(adapter)))) < 1e-5


def test_an_empty_folder_may_be_written_to(base: Path, adapter: Path, output: Path) -> None:
    output.mkdir()
    merge(base, adapter, output)
    assert (output / "model.safetensors").is_file()
    assert output.stat().st_mode & 0o777 == 0o700


# Policies that were tuned in full


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    """A policy of the same shapes with other weights, as a training leaves it: with another chat template."""
    folder = tiny.write_checkpoint(tmp_path / "tuned", initializer_range=0.3)
    (folder / "tokenizer.json").unlink()
    (folder / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    return folder


def test_a_policy_tuned_in_full_is_copied_with_the_words_of_its_base(base: Path, tuned: Path, output: Path) -> None:
    digests = merge(base, tuned, output)
    for folder, names in (
        (tuned, ("model.safetensors", "config.json")),
        (base, ("tokenizer.json", "chat_template.jinja")),
    ):
        for name in names:
            assert digests[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert distance(logits(loaded(output)), logits(loaded(tuned))) == 0


def test_a_policy_tuned_in_full_is_converted_to_another_precision(base: Path, tuned: Path, output: Path) -> None:
    import torch

    merge(base, tuned, output, precision="bfloat16")
    before, after = (dict(loaded(folder).named_parameters()) for folder in (tuned, output))
    assert all(torch.equal(after[name], before[name].to(torch.bfloat16)) for name in before)
    assert (output / "tokenizer.json").is_file()


# What is refused


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.bin", "model.py", "optimizer.pt", "notes"])
def test_an_adapter_with_anything_else_beside_it_is_refused(base: Path, copied: Path, output: Path, name: str) -> None:
    (copied / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(ModelError, match=rf"{name} is no part of an adapter\. Remove it"):
        merge(base, copied, output)
    assert not output.exists()


def test_a_link_is_refused(base: Path, copied: Path, adapter: Path, output: Path) -> None:
    (copied / "adapter_model.safetensors").unlink()
    (copied / "adapter_model.safetensors").symlink_to(adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="is no part of an adapter"):
        merge(base, copied, output)


@pytest.mark.parametrize("name", sorted(merging.ADAPTER))
def test_an_adapter_in_part_is_refused(base: Path, copied: Path, output: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ModelError, match=f"holds no {name}"):
        merge(base, copied, output)
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json and adapter_model\.safetensors"):
        merge(base, copied / "nowhere", output)


def rename_a_weight(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = min(tensors)
    save_file({(f"{key}.else" if key == name else key): tensor for key, tensor in tensors.items()}, file)


def leave_a_weight_out(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file)


def cut_short(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def spoil(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(file).items()}, file)


def set_rank(folder: Path) -> None:
    change(folder, r=5)


def change(folder: Path, **changed: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changed), "utf-8")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", [rename_a_weight, leave_a_weight_out, cut_short, spoil, set_rank])
def test_an_adapter_that_does_not_fit_is_refused(
    base: Path, copied: Path, output: Path, fault: Callable[[Path], None]
) -> None:
    fault(copied)
    with pytest.raises(ModelError, match=r"does not fit .*\n?.*Merge it into the base that it was trained on"):
        merge(base, copied, output)
    assert list(output.parent.iterdir()) == [copied], "nothing is left behind"


def test_an_adapter_of_another_kind_is_refused(base: Path, copied: Path, output: Path) -> None:
    change(copied, peft_type="IA3")
    with pytest.raises(ModelError, match="adapter of the kind IA3"):
        merge(base, copied, output)


def test_a_base_that_cannot_be_loaded_is_told(base: Path, adapter: Path, tmp_path: Path, output: Path) -> None:
    strange = Path(shutil.copytree(base, tmp_path / "strange"))
    config = json.loads((strange / "config.json").read_text("utf-8")) | {"model_type": "unheard-of"}
    (strange / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(EngineError, match=r"transformers cannot load the model in .*strange") as refused:
        merge(strange, adapter, output)
    assert refused.value.mend and not output.exists()


def test_a_base_that_brings_code_or_is_quantised_is_refused(
    base: Path, adapter: Path, tmp_path: Path, output: Path
) -> None:
    for entry, said in (({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"), ({"quantization_config": {}}, "quantised")):
        base = Path(shutil.copytree(base, tmp_path / said))
        config = json.loads((base / "config.json").read_text("utf-8")) | entry
        (base / "config.json").write_text(json.dumps(config), "utf-8")
        with pytest.raises(ModelError, match=said):
            merge(base, adapter, output)


def test_an_output_that_holds_anything_is_refused(base: Path, adapter: Path, output: Path) -> None:
    output.mkdir()
    (output / "dataset_info.json").write_text("{}")
    with pytest.raises(StoreError, match="is there already"):
        merge(base, adapter, output)
    with pytest.raises(StoreError, match="is there already"):
        merge(base, adapter, output / "dataset_info.json")
    assert (output / "dataset_info.json").read_text() == "{}"


def test_an_output_inside_what_is_merged_is_refused(base: Path, adapter: Path) -> None:
    for folder in (base, adapter):
        with pytest.raises(StoreError, match="lies in a folder that is merged"):
            merge(base, adapter, folder / "merged")
        assert not (folder / "merged").exists()


def test_a_failure_half_way_leaves_nothing(
    base: Path, adapter: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "_copy", full)
    with pytest.raises(KeyboardInterrupt):
        merge(base, adapter, output)
    assert list(output.parent.iterdir()) == []
