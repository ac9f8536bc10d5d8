"""Headers are believed only where every number in them holds; a file that is none is never opened."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goalcover_local.errors import ModelError
from goalcover_local.headers import CutShort, check_gguf, check_safetensors, opened
from goalcover_local.model_folder import read_json_object

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors(header: object, data: int = 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def refusal(tmp_path: Path, content: bytes, check: Callable[[Path], None] = check_safetensors) -> ModelError:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check(path)
    assert str(path) in caught.value.problem and caught.value.mend
    return caught.value


def test_what_the_library_writes_is_sound(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {"a": np.zeros((3, 2), np.float16), "b": np.ones(5, np.int64), "c": np.array(True), "d": np.zeros((0, 4))}
    save_file(arrays, tmp_path / "model.safetensors", {"format": "np"})
    check_safetensors(tmp_path / "model.safetensors")


def test_padding_and_packed_numbers_are_sound(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}).encode() + b"   "
    (tmp_path / "m").write_bytes(safetensors(header))
    check_safetensors(tmp_path / "m")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"w": {**TENSOR, "data_offsets": [0, 7]}}, "not as many bytes as its shape"),
        ({"w": {**TENSOR, "shape": [1 << 62, 1 << 62]}}, "not as many bytes as its shape"),
        ({"w": {**TENSOR, "shape": [1] * 9}}, "no such numbers"),
        ({"w": {**TENSOR, "shape": [-2]}}, "no such numbers"),
        ({"w": {**TENSOR, "shape": [True, 2]}}, "no such numbers"),
        ({"w": {**TENSOR, "data_offsets": [0, 1 << 64]}}, "no such numbers"),
        ({"w": {**TENSOR, "data_offsets": [0, 4, 8]}}, "no such numbers"),
        ({"w": {**TENSOR, "dtype": "F33"}}, "has not a known dtype"),
        ({"w": {**TENSOR, "dtype": ["F32"]}}, "has not a known dtype"),
        ({"w": {**TENSOR, "more": 1}}, "and nothing else"),
        ({"w": 7}, "has not a known dtype"),
        ({"w": TENSOR, "v": TENSOR}, "two of its tensors overlap"),
        ({"w": {**TENSOR, "data_offsets": [8, 16]}}, "8 bytes belong to no tensor"),
        ({"w": TENSOR, "__metadata__": {"format": 1}}, "__metadata__ is not of texts"),
        ({"w": TENSOR, "__metadata__": []}, "__metadata__ is not of texts"),
        (b'{"w": 1, "w": 2}', "names a tensor or a key twice"),
        (b'{"w": {"dtype": "F32", "dtype": "F32"}}', "names a tensor or a key twice"),
        (b'{"w": 1.5}', "is no valid JSON"),
        (b'{"w": NaN}', "is no valid JSON"),
        (b'{"w": %s}' % (b"9" * 5000), "is no valid JSON"),
        (b'{"w": ' + b"[" * 100_000, "is no valid JSON"),
        (b'{"w": ' + b'{"a":' * 100_000, "is no valid JSON"),
        (b'{"\xff": 1}', "is no valid JSON"),
        (b'["w"]', "is no JSON object"),
        (b' {"w": 1}', "is no JSON object"),
    ],
)
def test_an_unsound_header_is_refused(tmp_path: Path, header: object, said: str) -> None:
    error = refusal(tmp_path, safetensors(header))
    assert said in error.problem
    assert not isinstance(error, CutShort)


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    error = refusal(tmp_path, safetensors({"\x1b[2J" + "x" * 1000: 1}))
    assert error.problem.isprintable() and len(error.problem) < 400


@pytest.mark.parametrize(
    "content",
    [b"", b"\x01", safetensors({"w": TENSOR}, 7), safetensors({"w": TENSOR})[:30], b"\xff" * 8 + b"{}"],
)
def test_what_lacks_its_end_is_cut_short(tmp_path: Path, content: bytes) -> None:
    assert isinstance(refusal(tmp_path, content), CutShort)


def test_bytes_behind_the_tensors_are_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, safetensors({"w": TENSOR}, 9))
    assert "its header declares" in error.problem and not isinstance(error, CutShort)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04\x14\x00\x00\x08", "is a zip archive, as PyTorch writes"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a pickle"),
        (b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00", "is a pickle"),
        (b"GGUF\x03\x00\x00\x00", "is a GGUF"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, start: bytes, said: str) -> None:
    assert said in refusal(tmp_path, start + bytes(100)).problem


def test_a_header_is_not_read_beyond_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        stream.write((1 << 31).to_bytes(8, "little"))
        stream.truncate(1 << 32)
    tracemalloc.start()
    with pytest.raises(ModelError, match="above 10000000"):
        check_safetensors(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


CROWDS = {
    "lists": b"[]," * 3_300_000,
    "open lists": b"[" * 9_900_000,
    "objects": b"{}," * 3_300_000,
    "numbers": b"1000," * 1_900_000,
    "texts": b'"ab",' * 1_900_000,
}
"""Values that take many times the memory of their text."""


@pytest.mark.parametrize("name", CROWDS)
def test_a_header_of_too_many_parts_takes_no_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(b'{"w":[' + CROWDS[name] + b"1]}"))
    tracemalloc.start()
    with pytest.raises(ModelError, match="has too many parts"):
        check_safetensors(path)
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", CROWDS)
def test_so_does_no_other_json_file_of_a_model(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"w":[' + CROWDS[name] + b"1]}")
    tracemalloc.start()
    with pytest.raises(ModelError, match="no JSON object, or one too large"):
        read_json_object(path)
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_a_header_of_fifty_thousand_tensors_is_read(tmp_path: Path) -> None:
    header = {
        f"model.layers.{n // 800}.mlp.experts.{n}.up_proj.weight": {**TENSOR, "data_offsets": [8 * n, 8 * n + 8]}
        for n in range(50_000)
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(header, 400_000))
    check_safetensors(path)


@pytest.mark.parametrize("check", [check_safetensors, check_gguf])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a pipe"),
        (Path.mkdir, "is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "is a symbolic link"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, check: Callable[[Path], None], make: Callable[[Path], Any], said: str
) -> None:
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(ModelError, match=said):
        check(path)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    before = path.lstat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "lstat", lambda _: before)
    with pytest.raises(ModelError, match="is a pipe"), opened(path):
        pass


# GGUF


def text(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str = "w", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(*parts: bytes, version: int = 3, n_tensors: int = 0, n_keys: int = 0, data: int = 0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(parts)
    return head + (bytes(-len(head) % 32) + bytes(data) if data else b"")


def test_what_the_gguf_library_writes_is_sound(tmp_path: Path) -> None:
    writer = pytest.importorskip("gguf").GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "é", "日本"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_custom_alignment(64)
    writer.add_bool("flag", True)
    writer.add_tensor("one", np.zeros((3, 32), np.float32))
    writer.add_tensor("two", np.zeros(7, np.float16))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    check_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGML" + bytes(20), "is no GGUF"),
        (gguf(version=1), "version 1"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "another byte order"),
        (gguf(n_tensors=1 << 60), "tensors, above"),
        (gguf(n_keys=1 << 63), "keys, above"),
        (gguf(key("a", 99, b""), n_keys=1, data=32), "unknown type 99"),
        (gguf(key("a", 9, struct.pack("<IQ", 9, 1)), n_keys=1, data=32), "list of lists"),
        (gguf(key("a", 9, struct.pack("<IQ", 7, 1 << 40)), n_keys=1, data=32), "values in lists, above"),
        (gguf(text("a" * 70_000), n_keys=1, data=32), "a name of 70000 bytes"),
        (gguf(key("a", 8, text(b"\xff")), n_keys=1, data=32), "not UTF-8"),
        (gguf(key("a", 7, b"\1"), key("a", 7, b"\1"), n_keys=2, data=32), "the key 'a' twice"),
        (gguf(key("general.alignment", 4, bytes(4)), n_keys=1, data=32), "no power of two"),
        (gguf(key("general.alignment", 4, struct.pack("<I", 48)), n_keys=1, data=32), "no power of two"),
        (gguf(key("general.alignment", 10, struct.pack("<Q", 32)), n_keys=1, data=32), "no power of two"),
        (
            gguf(key("x.block_count", 4, struct.pack("<I", 9)), n_keys=1, n_tensors=1, data=64),
            "more layers than it has",
        ),
        (gguf(key("x.block_count", 11, struct.pack("<q", -1)), n_keys=1, n_tensors=1, data=64), "more layers than it"),
        (gguf(tensor(), tensor(offset=128), n_tensors=2, data=256), "stands there twice"),
        (gguf(tensor(), tensor("v", offset=64), n_tensors=2, data=256), "two of its tensors overlap"),
        (gguf(tensor(shape=(1,) * 9), n_tensors=1, data=256), "has 9 dimensions"),
        (gguf(tensor(kind=77), n_tensors=1, data=256), "unknown type 77"),
        (gguf(tensor(shape=(33,), kind=2), n_tensors=1, data=256), "its type cannot have"),
        (gguf(tensor(shape=(0,)), n_tensors=1, data=256), "its type cannot have"),
        (gguf(tensor(offset=8), n_tensors=1, data=256), "its type cannot have"),
    ],
)
def test_an_unsound_gguf_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    error = refusal(tmp_path, content, check_gguf)
    assert said in error.problem
    assert not isinstance(error, CutShort)


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF",
        gguf(n_keys=1),
        gguf(n_tensors=9),
        gguf(key("a", 8, struct.pack("<Q", 1 << 50)), n_keys=1, data=32),
        gguf(key("a", 9, struct.pack("<IQ", 8, 100)), n_keys=1, data=32),
        gguf(tensor(), n_tensors=1, data=127),
        gguf(tensor(shape=(1 << 62, 1 << 62)), n_tensors=1, data=128),
        gguf(tensor(offset=1 << 62), n_tensors=1, data=128),
    ],
)
def test_a_gguf_without_its_end_is_cut_short(tmp_path: Path, content: bytes) -> None:
    assert isinstance(refusal(tmp_path, content, check_gguf), CutShort)
