"""The headers of safetensors and GGUF files, read within bounds before any library trusts a number in them.

A header is written by a stranger: every length is held against the file's size before anything is read or kept.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .bounded import json_of
from .errors import ModelError

_LONGEST_SAFETENSORS = 10_000_000
_LONGEST_GGUF = 1 << 26
"""Bytes of a header: several times what the largest models published have in one file."""

_MOST_DIMENSIONS = 8
_MOST_TENSORS = 100_000
_MOST_KEYS = 10_000
_MOST_VALUES = 2_000_000
"""Values in all lists of a GGUF, each of which its library keeps as two arrays."""

_LONGEST_KEY = 65_535
_LARGEST_ALIGNMENT = 1 << 16
_COPY = "Copy it again from where it comes from."
_DISTRUST = "Do not use it: no tool that is in use writes such a file."

_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}
"""How many bits a number of each safetensors type has."""

_MASKED = {
    b"PK\x03\x04": "a zip archive, as PyTorch writes its pickles",
    **{bytes((0x80, protocol)): "a pickle" for protocol in range(2, 6)},
    b"GGUF": "a GGUF",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
}
"""What a file is that begins so, whatever its name."""

_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a GGUF value by the number of its type; texts (8) and lists (9) have a length of their own."""
_U32, _TEXT, _LIST = 4, 8, 9


Mark = tuple[int, int, int, int]
"""A file's size, the times of its last change and of its status' in nanoseconds, and its inode."""


class CutShort(ModelError):
    """A file that ends before its header says so."""


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a regular file; a link is not followed, a pipe is not waited for, a device is not opened.

    Raises ModelError naming what else it is, OSError if it cannot be opened.
    """
    refuse_special(path, path.lstat().st_mode)
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(path, "rb", opener=lambda *_: handle) as stream:
        refuse_special(path, os.fstat(handle).st_mode)
        yield stream


def mark_of(status: os.stat_result) -> Mark:
    """The mark of a file: while it stays the same, the file was not written to."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def refuse_special(path: Path, mode: int) -> None:
    """Nothing; raises ModelError naming the file unless its mode is that of a regular one."""
    kinds = {
        stat.S_IFLNK: "is a symbolic link: its content lies elsewhere",
        stat.S_IFDIR: "is a folder where a file belongs",
        stat.S_IFIFO: "is a pipe, not a file",
        stat.S_IFSOCK: "is a socket, not a file",
        stat.S_IFBLK: "is a device, not a file",
        stat.S_IFCHR: "is a device, not a file",
    }
    if not stat.S_ISREG(mode):
        raise ModelError(f"{path} {kinds.get(stat.S_IFMT(mode), 'is no regular file')}.", "Put the file itself there.")


def check_safetensors(path: Path) -> int:
    """How many tensors the file holds: its header is sound, and they fill the rest of the file without a hole.

    Raises ModelError naming the file and what is wrong: CutShort if bytes are missing at its end. Reads the header
    alone, at most 10 MB (https://github.com/huggingface/safetensors, "Format").
    """
    with _explained(path), opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _LONGEST_SAFETENSORS):
            _refuse_masked(path, start)
            if len(start) < 8 or length > size - 8:
                raise CutShort(f"{path} has a header that is cut short or unreadable.", _COPY)
            raise ModelError(f"{path} has a header of {length} bytes, above {_LONGEST_SAFETENSORS}.", _DISTRUST)
        text = stream.read(length)
    if not text.startswith(b"{"):
        raise ModelError(f"{path} has a header that is no JSON object.", _DISTRUST)
    try:
        tensors = json_of(text, object_pairs_hook=_once, parse_float=_no_number, parse_constant=_no_number)
    except ValueError as error:
        what = str(error) if isinstance(error, _Twice) else "is no valid JSON, or has too many parts"
        raise ModelError(f"{path} has a header that {what}.", _DISTRUST) from None
    notes = tensors.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ModelError(f"{path} has a header whose __metadata__ is not of texts.", _DISTRUST)
    end = _filled(path, (_span(path, name, tensor) for name, tensor in tensors.items()), gaps=False)
    if 8 + length + end != size:
        kind = CutShort if 8 + length + end > size else ModelError
        raise kind(f"{path} has {size} bytes; its header declares {8 + length + end}.", _COPY)
    return len(tensors)


class _Twice(ValueError):
    """A key that stands twice in an object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice("names a tensor or a key twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _span(path: Path, name: str, tensor: Any) -> tuple[int, int]:
    """Where a tensor begins and ends behind the header. Raises ModelError unless that is what its numbers take."""
    fields: dict[str, Any] = tensor if isinstance(tensor, dict) else {}
    kind = fields.get("dtype")
    bits = _BITS.get(kind) if isinstance(kind, str) else None
    if set(fields) != {"dtype", "shape", "data_offsets"} or bits is None:
        raise _unsound(path, name, "has not a known dtype, a shape and data_offsets, and nothing else")
    shape, offsets = _counts(fields["shape"]), _counts(fields["data_offsets"])
    if shape is None or offsets is None or len(shape) > _MOST_DIMENSIONS or len(offsets) != 2:
        raise _unsound(path, name, "has a shape or data_offsets that are no such numbers")
    begin, end = offsets
    if 8 * (end - begin) != math.prod(shape) * bits:
        raise _unsound(path, name, "has not as many bytes as its shape takes")
    return begin, end


def _counts(numbers: Any) -> list[int] | None:
    """The list, if it is one of whole numbers from 0 that fit into 63 bits."""
    fits = isinstance(numbers, list) and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    return numbers if fits else None


def _unsound(path: Path, name: str, what: str) -> ModelError:
    return ModelError(f"{path} has an unsound header: its tensor {name[:60]!r} {what}.", _DISTRUST)


def _filled(path: Path, spans: Iterable[tuple[int, int]], *, gaps: bool) -> int:
    """Where the last of these spans ends. Raises ModelError if two overlap, or if there are gaps and may be none."""
    at = 0
    for begin, end in sorted(spans):
        if begin < at:
            raise ModelError(f"{path} has an unsound header: two of its tensors overlap.", _DISTRUST)
        if begin > at and not gaps:
            raise ModelError(f"{path} has an unsound header: {begin - at} bytes belong to no tensor.", _DISTRUST)
        at = end
    return at


def _refuse_masked(path: Path, start: bytes) -> None:
    for mark, kind in _MASKED.items():
        if start.startswith(mark):
            raise ModelError(f"{path} is {kind}, not safetensors: it can run code when it is loaded.", _DISTRUST)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}.", "Check its permissions, or copy it again."
        ) from None


def check_gguf(path: Path) -> None:
    """Nothing; the file's header is sound, within bounds, and its tensors lie in the file without overlap.

    Raises ModelError naming the file and what is wrong: CutShort if bytes are missing at its end. Reads the header
    alone, at most 64 MB (https://github.com/ggml-org/ggml, docs/gguf.md; versions 2 and 3, little-endian).
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    sizes = {int(kind): GGML_QUANT_SIZES[kind] for kind in GGMLQuantizationType if kind in GGML_QUANT_SIZES}
    with _explained(path), opened(path) as stream:
        header = _Header(path, stream)
        if header.take(4) != b"GGUF":
            raise ModelError(f"{path} is no GGUF.", _DISTRUST)
        version = header.number(4)
        if version not in (2, 3):
            raise ModelError(f"{path} is a GGUF of version {version} or of another byte order.", "Convert it anew.")
        n_tensors, n_keys = header.number(8), header.number(8)
        header.refuse_more(n_tensors, _MOST_TENSORS, 24, "tensors")
        header.refuse_more(n_keys, _MOST_KEYS, 13, "keys")
        alignment = _alignment(path, header, n_keys, n_tensors)
        spans = _gguf_spans(path, header, n_tensors, alignment, sizes)
    end = -(-header.at // alignment) * alignment + _filled(path, spans, gaps=True)
    if n_tensors and end > header.size:
        raise CutShort(f"{path} has {header.size} bytes; its header declares {end}.", _COPY)


class _Header:
    """The header of a GGUF, read forward; nothing is read that the file or the bound has no room for."""

    def __init__(self, path: Path, stream: io.BufferedReader) -> None:
        self._path, self._stream = path, stream
        self.size = os.fstat(stream.fileno()).st_size
        self.at = 0
        self.n_values = 0

    def take(self, length: int) -> bytes:
        """The next bytes. Raises ModelError if there are not as many."""
        self.pass_by(length)
        return self._stream.read(length)

    def pass_by(self, length: int) -> None:
        """Nothing; that many bytes count as read. Raises ModelError if there are not as many."""
        if length > self.size - self.at:
            raise CutShort(f"{self._path} has a header that is cut short or unreadable.", _COPY)
        self.at += length
        if self.at > _LONGEST_GGUF:
            raise ModelError(f"{self._path} has a header above {_LONGEST_GGUF} bytes.", _DISTRUST)

    def skip(self, length: int) -> None:
        """Nothing; that many bytes are left out."""
        self.pass_by(length)
        self._stream.seek(length, os.SEEK_CUR)

    def number(self, length: int) -> int:
        """The next whole number, of 4 or 8 bytes."""
        return int.from_bytes(self.take(length), "little")

    def text(self, longest: int = _LONGEST_GGUF) -> str:
        """The next text."""
        length = self.number(8)
        if longest < length <= self.size - self.at:
            raise ModelError(f"{self._path} has a name of {length} bytes in its header.", _DISTRUST)
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise ModelError(f"{self._path} has a text in its header that is not UTF-8.", _DISTRUST) from None

    def refuse_more(self, n: int, most: int, least_bytes: int, what: str) -> None:
        """Nothing; so many of these, of so many bytes at least, have room. Raises ModelError if they have not."""
        if n > most:
            raise ModelError(f"{self._path} has a header that declares {n} {what}, above {most}.", _DISTRUST)
        if n * least_bytes > self.size - self.at:
            raise CutShort(f"{self._path} declares {n} {what}, for which it is too short.", _COPY)

    def value(self, kind: int) -> bytes | None:
        """The next value of that type, passed; its bytes if it is of fixed size. Lists hold no lists."""
        if kind in _FIXED:
            return self.take(_FIXED[kind])
        if kind == _TEXT:
            self.text()
        elif kind == _LIST:
            inner, n = self.number(4), self.number(8)
            if inner not in _FIXED and inner != _TEXT:
                raise ModelError(f"{self._path} has a list of lists, or of no known type, in its header.", _DISTRUST)
            self.refuse_more(self.n_values + n, _MOST_VALUES, 0, "values in lists")
            self.refuse_more(n, _MOST_VALUES, _FIXED.get(inner, 8), "values in a list")
            self.n_values += n
            if inner == _TEXT:
                for _ in range(n):
                    self.text()
            else:
                self.skip(n * _FIXED[inner])
        else:
            raise ModelError(f"{self._path} has a value of the unknown type {kind} in its header.", _DISTRUST)
        return None


def _alignment(path: Path, header: _Header, n_keys: int, n_tensors: int) -> int:
    """The alignment of the data, in bytes, once all keys are passed. Raises ModelError if a key is unsound."""
    alignment, seen = 32, set()
    for _ in range(n_keys):
        key, kind = header.text(_LONGEST_KEY), header.number(4)
        value = header.value(kind)
        if key in seen:
            raise ModelError(f"{path} names the key {key[:60]!r} twice in its header.", _DISTRUST)
        seen.add(key)
        if key == "general.alignment":
            alignment = struct.unpack("<I", value)[0] if kind == _U32 and value else 0
            if not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
                raise ModelError(f"{path} has an alignment that is no power of two up to 65536.", _DISTRUST)
        if key.endswith(".block_count") and int.from_bytes(value or b"", "little") > n_tensors:
            raise ModelError(f"{path} declares more layers than it has tensors.", _DISTRUST)
    return alignment


def _gguf_spans(
    path: Path, header: _Header, n_tensors: int, alignment: int, sizes: Mapping[int, tuple[int, int]]
) -> list[tuple[int, int]]:
    """Where each tensor begins and ends in the data. Raises ModelError if one is unsound. `sizes`: numbers, bytes."""
    spans, names = [], set()
    for _ in range(n_tensors):
        name, n_dimensions = header.text(_LONGEST_KEY), header.number(4)
        if name in names:
            raise _unsound(path, name, "stands there twice")
        names.add(name)
        if n_dimensions > _MOST_DIMENSIONS:
            raise _unsound(path, name, f"has {n_dimensions} dimensions")
        shape = [header.number(8) for _ in range(n_dimensions)]
        kind, begin = header.number(4), header.number(8)
        if kind not in sizes:
            raise _unsound(path, name, f"is of the unknown type {kind}")
        block, n_bytes = sizes[kind]
        if not all(0 < n < 1 << 63 for n in shape) or (shape[0] if shape else block) % block or begin % alignment:
            raise _unsound(path, name, "has a shape or a place that its type cannot have")
        spans.append((begin, begin + math.prod(shape) // block * n_bytes))
    return spans
