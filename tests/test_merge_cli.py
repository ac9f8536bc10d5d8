"""`goalcover merge` as users run it: a policy of a run as a plain model, or a sentence on why it is not."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from command import Goalcover

import goalcover_local.weights
from goalcover_local import pulling
from goalcover_local.audit import OPENED, SEALED
from goalcover_local.cli.merge import MERGED
from goalcover_local.finetune.checkpoints import digests, policy_files
from goalcover_local.model_folder import model_files
from goalcover_local.store import Run
from goalcover_local.trainings import Trainings

CARD = """
name = "{name}"
title = "Tiny"
roles = ["judge", "policy"]
parameters = "0.02M"
licence = "Apache-2.0"
provenance = "Random numbers."
context = 2048
precision = "float32"
[source]
kind = "directory"
"""
IDS = [[0, 5, 9, 40, 77, 120, 3, 8], [1, 2, 3, 4, 5, 6, 7, 8]]
MERGE = ("merge", "run", "original", "-o", "merged")


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor(IDS)).logits.float()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("base"), initializer_range=0.1)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of random weights, as a training leaves it, its card beside it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(loaded(base), config)
    with torch.no_grad():
        for parameter in (each for name, each in model.named_parameters() if "lora_B" in name):
            parameter.normal_(0, 0.2)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    (folder / "card.json").write_text("{}", "utf-8")
    return folder


@pytest.fixture
def home(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> Path:
    """A models home of one's own, with the policy's base."""
    place = tmp_path / "home"
    monkeypatch.setenv("GOALCOVER_HOME", str(place))
    (place / "cards").mkdir(parents=True)
    (place / "cards" / "tiny-policy.toml").write_text(CARD.format(name="tiny-policy"), "utf-8")
    pulling.add(base, "tiny-policy")
    return place


def train(name: str, files: Path, weights: str, *, ended: bool = True) -> Path:
    """The folder of a policy in the run, as `goalcover train` leaves it."""
    with Run.open("run", write=True, create=True) as run:
        trainings = Trainings(run)
        trainings.begin(name, {"policy": {"card": "tiny-policy", "weights": weights}})
        place = trainings.make_folder(name) / "adapter"
        shutil.copytree(files, place)
        if ended:
            trainings.finish(name, {"files": policy_files(place)})
    return place


@pytest.fixture
def trained(home: Path, adapter: Path, base: Path) -> Path:
    """The folder of the policy "original" in the run; a training "begun" has not ended."""
    digest = pulling.add(base, "tiny-policy").digest
    train("begun", adapter, digest, ended=False)
    return train("original", adapter, digest)


def events() -> list[Any]:
    with Run.open("run", write=False) as run:
        assert run.verify_events() == []
        return [event for event in run.events() if event.kind not in (OPENED, SEALED)]


def test_a_merged_policy_answers_as_base_and_adapter_do(goalcover: Goalcover, trained: Path, base: Path) -> None:
    from peft import PeftModel

    said = goalcover(*MERGE, "--json")
    merged = logits(loaded(Path("merged")))
    together = logits(PeftModel.from_pretrained(loaded(base), str(trained)).eval())
    assert float((merged - together).abs().max()) < 1e-5
    assert float((merged - logits(loaded(base))).abs().max()) > 0.1, "the adapter changes something"

    told = json.loads(said.out)
    assert set(told) == {"run", "name", "folder", "files"}
    assert (told["run"], told["name"], told["folder"]) == ("run", "original", "merged")
    assert told["files"] == digests(Path("merged"))
    assert set(told["files"]) == set(model_files(Path("merged"))), "and nothing but what a loader reads"
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (Path("merged") / name).read_bytes() == (base / name).read_bytes()
    assert stat.S_IMODE(Path("merged").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path("merged").iterdir()} == {0o600}


def test_it_is_on_record(goalcover: Goalcover, trained: Path, base: Path) -> None:
    said = goalcover(*MERGE)
    [event] = events()
    details = json.loads(event.details)
    assert (event.kind, event.command) == (MERGED, "goalcover merge")
    assert details["name"] == "original" and details["files"] == digests(Path("merged"))
    assert details["base"] == pulling.add(base, "tiny-policy").digest
    assert said.err.startswith("Audit: ")
    lines = said.out.splitlines()
    assert lines[:-1] == [f"{digest}  {name}" for name, digest in details["files"].items()]
    assert lines[-1] == "written to merged"


def test_the_precision_may_be_another(goalcover: Goalcover, trained: Path) -> None:
    import torch

    goalcover(*MERGE, "--precision", "bfloat16")
    assert {parameter.dtype for parameter in loaded(Path("merged")).parameters()} == {torch.bfloat16}


def test_a_merged_policy_becomes_a_card_of_its_own(goalcover: Goalcover, trained: Path) -> None:
    told = json.loads(goalcover(*MERGE, "--json").out)
    goalcover("models", "add", "merged", "--card", "lay-original")
    goalcover("models", "verify", "lay-original")
    assert told["files"] == digests(Path("merged")), "it is left as it was"


def test_a_policy_tuned_in_full_is_written_with_the_words_of_its_base(
    goalcover: Goalcover, home: Path, base: Path, tmp_path: Path
) -> None:
    tuned = tiny.write_checkpoint(tmp_path / "tuned", initializer_range=0.3)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tuned / name).unlink(missing_ok=True)
    train("full", tuned, pulling.add(base, "tiny-policy").digest)
    goalcover("merge", "run", "full", "-o", "merged")
    assert float((logits(loaded(Path("merged"))) - logits(loaded(tuned))).abs().max()) == 0
    assert (Path("merged") / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_an_empty_folder_may_be_written_to(goalcover: Goalcover, trained: Path) -> None:
    Path("merged").mkdir()
    goalcover(*MERGE)
    assert (Path("merged") / "model.safetensors").is_file()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("run", "nobody"), "holds no training 'nobody'"),
        (("run", "base"), "Name a policy that `goalcover train` made"),
        (("run", "../original"), "holds no training '../original'"),
        (("run", "begun"), "The training begun has not ended."),
        (("nowhere", "original"), "There is no run in nowhere."),
        (("nowhere", "original"), "`goalcover train`"),
    ],
)
def test_what_is_no_trained_policy_is_refused(
    goalcover: Goalcover, trained: Path, arguments: tuple[str, str], problem: str
) -> None:
    assert problem in goalcover.refused("merge", *arguments, "-o", "merged")
    assert not Path("merged").exists() and not Path("nowhere").exists() and events() == []


def spoil(place: Path) -> None:
    file = place / "adapter_model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def resize(place: Path) -> None:
    file = place / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"lora_alpha": 80}), "utf-8")


def lose(place: Path) -> None:
    (place / "adapter_model.safetensors").unlink()


def lose_all(place: Path) -> None:
    shutil.rmtree(place)


def enlarge(place: Path) -> None:
    shutil.copy(place / "adapter_model.safetensors", place / "model.safetensors")


@pytest.mark.parametrize("change", [spoil, resize, lose, lose_all, enlarge])
def test_a_policy_that_was_altered_is_refused(
    goalcover: Goalcover, trained: Path, change: Callable[[Path], None]
) -> None:
    change(trained)
    said = goalcover.refused(*MERGE)
    assert "The files of the policy original are not those that its training wrote." in said
    assert not Path("merged").exists() and events() == []


def test_another_base_than_it_was_trained_on_is_refused(goalcover: Goalcover, trained: Path, tmp_path: Path) -> None:
    """The card's weights are others since: the shapes fit, and the result would be nobody's policy."""
    other = tiny.write_checkpoint(tmp_path / "other", initializer_range=0.3)
    pulling.add(other, "tiny-policy", replace=True)
    said = goalcover.refused(*MERGE)
    assert "tiny-policy" in said and "original" in said
    assert not Path("merged").exists() and events() == []


def test_a_base_that_was_altered_is_refused(goalcover: Goalcover, home: Path, base: Path, adapter: Path) -> None:
    stored = pulling.add(base, "tiny-policy", copy=True)
    train("original", adapter, stored.digest)
    weights = stored.directory / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert "model.safetensors" in goalcover.refused(*MERGE)
    assert not Path("merged").exists()


def test_every_byte_of_the_base_is_read_again_when_asked(
    goalcover: Goalcover, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    verify = goalcover_local.weights.verify

    def noting(card: Any, full: bool = False) -> Any:
        asked.append(full)
        return verify(card, full)

    monkeypatch.setattr("goalcover_local.weights.verify", noting)
    goalcover(*MERGE)
    assert asked and not any(asked)
    goalcover(*MERGE[:-1], "again", "--verify", "full")
    assert any(asked)


def test_a_card_that_is_not_here_is_named(goalcover: Goalcover, trained: Path, home: Path) -> None:
    (home / "cards" / "tiny-policy.toml").unlink()
    assert "There is no card named 'tiny-policy'." in goalcover.refused(*MERGE)


@pytest.mark.parametrize("output", ["merged", "home", "run", "run/policies/original/adapter/merged"])
def test_an_output_that_would_replace_something_is_refused(goalcover: Goalcover, trained: Path, output: str) -> None:
    Path("merged").mkdir()
    Path("merged/notes").write_text("mine", "utf-8")
    before = digests(trained)
    said = goalcover.refused("merge", "run", "original", "-o", output)
    assert "Name a folder that does not exist yet." in said
    assert digests(trained) == before and events() == []
    assert Path("merged/notes").read_text("utf-8") == "mine"


def test_an_output_is_needed(goalcover: Goalcover, trained: Path) -> None:
    assert "'-o'" in goalcover("merge", "run", "original", code=2).err
