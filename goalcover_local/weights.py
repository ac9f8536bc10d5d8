"""The weights a card stands for: what was verified when they came, and every byte of them checked again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from .cards import Card, models_home, partial_folder, validated, weights_folder
from .errors import ModelError
from .files import digest_of_file
from .terms import canonical_json, digest_of

MANIFEST = "goalcover-manifest.json"

State = Literal["ready", "absent", "incomplete", "altered"]

_READ_BY_LOADERS = {".safetensors", ".json", ".jinja", ".model", ".tiktoken"}
_RUNS_CODE = {".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py"}
_TOKENIZERS = {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}
_NOT_THE_MODEL = {".git", ".cache"}
_LONGEST_HEADER = 100_000_000
_LFS_POINTER = b"version https://git-lfs"
_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's size in bytes and its SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was verified when a card's weights arrived; the last file to be written.

    `location` is the folder of weights that stay where the user keeps them; empty if they lie beside the
    manifest. `source_sha256` is the digest of the GGUF that was converted, `converter` the versions used.
    """

    card: str
    written: str
    files: Mapping[str, FileRecord]
    location: str = ""
    source_sha256: str = ""
    converter: Mapping[str, str] = field(default_factory=dict)
    __pydantic_config__ = _STRICT

    @property
    def digest(self) -> str:
        """Digest of the weights: of every file that a loader reads, by name."""
        return digest_of({name: record.sha256 for name, record in self.files.items()})


@dataclass(frozen=True, slots=True)
class Weights:
    """Verified weights: where they lie, one digest for all, and the SHA-256 of each file."""

    directory: Path
    digest: str
    files: Mapping[str, str]


class WeightsError(ModelError):
    """Weights that cannot be used; `state` says why."""

    state: State


class Absent(WeightsError):
    """Weights that are not on this machine."""

    state: State = "absent"


class Incomplete(WeightsError):
    """Weights of which a part is missing."""

    state: State = "incomplete"


class Altered(WeightsError):
    """Weights that are not what was verified once, or that are unsafe to load."""

    state: State = "altered"


class Digests:
    """SHA-256 of files, kept in `verified.json` while a file's size, times and inode stay the same."""

    def __init__(self) -> None:
        self._path = models_home() / "verified.json"
        try:
            self._known: dict[str, Any] = dict(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def of(self, file: Path, again: bool = False) -> str:
        """The file's SHA-256; `again` reads it even if it is known."""
        status = file.stat()
        mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(str(file))
        if not again and isinstance(known, list) and known[:-1] == mark:
            return str(known[-1])
        digest = digest_of_file(file)
        self._known[str(file)] = [*mark, digest]
        return digest

    def moved(self, old: Path, new: Path) -> None:
        """Keeps what is known of the files in a folder that was renamed."""
        for name in [name for name in self._known if Path(name).is_relative_to(old)]:
            self._known[str(new / Path(name).relative_to(old))] = self._known.pop(name)

    def save(self) -> None:
        """Writes what is known. Where the home cannot be written, files are merely read again."""
        known = {name: mark for name, mark in self._known.items() if Path(name).exists()}
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_text(canonical_json(known), "utf-8")
            draft.replace(self._path)
        except OSError:
            draft.unlink(missing_ok=True)


def read_manifest(name: str, mend: str = "") -> Manifest:
    """The manifest of that card's weights. Raises WeightsError if there is none, or if it is unreadable."""
    folder = weights_folder(name)
    try:
        return validated(Manifest, json.loads((folder / MANIFEST).read_text("utf-8")), folder / MANIFEST)
    except FileNotFoundError:
        if folder.exists():
            mend = f"Run `goalcover models add {folder} --card {name}`, or remove the folder."
            raise Incomplete(f"{folder} holds no {MANIFEST}.", mend) from None
        if partial_folder(name).exists():
            raise Incomplete(f"The weights of {name} arrived only in part.", mend) from None
        raise Absent(f"The weights of {name} are not on this machine.", mend) from None
    except (OSError, ValueError, ModelError) as error:
        raise Altered(f"{folder / MANIFEST} is unreadable.", mend) from error


def verify(card: Card, full: bool = False) -> Weights:
    """The card's weights, after checking each file's size and SHA-256 against the manifest. Fetches nothing.

    A digest is taken again only if the file changed since it was last taken, or if `full`. Raises
    WeightsError, a ModelError, naming the file that is absent, incomplete, altered or unsafe.
    """
    manifest = read_manifest(card.name, card.mend)
    directory = Path(manifest.location or weights_folder(card.name))
    if manifest.card != card.name:
        raise Altered(f"{weights_folder(card.name)} holds the weights of {manifest.card}.", card.mend)
    if card.source.sha256 and manifest.source_sha256 not in ("", card.source.sha256):
        raise Altered(f"The weights of {card.name} come from another file than its card pins.", card.mend)
    if not directory.is_dir():
        raise Absent(f"The weights of {card.name} lie in {directory}, which is not there.", card.mend)
    digests = Digests()
    try:
        unknown = set(model_files(directory)) - set(manifest.files)
        if unknown:
            raise Altered(f"{directory / min(unknown)} came after the weights were added.", "Remove the file.")
        for name, record in manifest.files.items():
            _compare(directory / name, record, digests, full, card.mend)
    except OSError as error:
        raise Altered(f"{error.filename} cannot be read: {error.strerror}.", card.mend) from error
    finally:
        digests.save()
    return Weights(directory, manifest.digest, {name: record.sha256 for name, record in manifest.files.items()})


def state(card: Card) -> State:
    """Whether the card's weights are ready, absent, incomplete or altered."""
    try:
        verify(card)
    except WeightsError as error:
        return error.state
    return "ready"


def model_files(directory: Path, copying: bool = False) -> list[str]:
    """The names of a folder's files that a loader reads, sorted. Takes no digest.

    With `copying` the folder's other files do not matter: they will be left out. Raises WeightsError naming
    the first file that could run code, points elsewhere, is a git-LFS pointer, is cut short, or is missing.
    """
    found = {path.relative_to(directory).as_posix(): path for path in _walk(directory)}
    chosen = {name: path for name, path in sorted(found.items()) if _is_read(PurePosixPath(name))}
    for path in (chosen if copying else found).values():
        _refuse_unsafe(path)
    for path in chosen.values():
        _refuse_cut_short(path)
    for name in chosen.keys() & {"config.json", "tokenizer_config.json"}:
        if "auto_map" in read_json_object(chosen[name]):
            raise Altered(f"{chosen[name]} has an `auto_map`: the model brings code.", "Use one that needs none.")
        if "transformers_weights" in read_json_object(chosen[name]):
            raise Altered(f"{chosen[name]} names other weights than those beside it.", "Take the entry out.")
    _refuse_missing(chosen, directory)
    return list(chosen)


def _compare(file: Path, record: FileRecord, digests: Digests, full: bool, mend: str) -> None:
    if not file.is_file():
        raise Incomplete(f"{file} is missing.", mend)
    size = file.stat().st_size
    if size != record.bytes:
        kind = Incomplete if size < record.bytes else Altered
        raise kind(f"{file} has {size} bytes instead of {record.bytes}.", mend)
    digest = digests.of(file, again=full)
    if digest != record.sha256:
        raise Altered(f"{file} was altered: expected SHA-256 {record.sha256}, found {digest}.", mend)


def _walk(directory: Path) -> Iterator[Path]:
    """Every file and every link in a folder, but for what version control and download tools keep there."""
    for root, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if name not in _NOT_THE_MODEL]
        yield from (path for name in (*folders, *files) if (path := Path(root, name)).is_symlink() or name in files)


def _is_read(name: PurePosixPath) -> bool:
    if name.parent == PurePosixPath("additional_chat_templates"):
        return name.suffix == ".jinja"
    at_top = len(name.parts) == 1 and name.name != MANIFEST
    return at_top and (name.suffix in _READ_BY_LOADERS or name.name in ("merges.txt", "vocab.txt"))


def _refuse_unsafe(path: Path) -> None:
    if path.is_symlink():
        raise Altered(f"{path} is a symbolic link: its content lies elsewhere.", "Copy with `cp -rL`, add the copy.")
    if path.name == "adapter_config.json":
        raise Altered(f"{path} makes this an adapter on other weights.", "Merge it into its base model first.")
    if path.suffix.lower() in _RUNS_CODE:
        raise Altered(f"{path} can run code when it is loaded.", "Remove it, or add with --copy, which leaves it out.")


def _refuse_cut_short(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            mend = "Run `git lfs pull` where it was cloned, and copy it again."
            raise Incomplete(f"{path} is a git-LFS pointer instead of the file.", mend)
        if path.suffix != ".safetensors":
            return
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        try:
            tensors = json.loads(stream.read(min(length, _LONGEST_HEADER)))
            tensors.pop("__metadata__", None)
            declared = 8 + length + max(tensor["data_offsets"][1] for tensor in tensors.values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Incomplete(f"{path} has a header that is cut short or unreadable.", "Copy it again.") from None
    if declared != size:
        raise Incomplete(f"{path} has {size} bytes; its header declares {declared}.", "Copy it again.")


def _refuse_missing(chosen: Mapping[str, Path], directory: Path) -> None:
    index = "model.safetensors.index.json"
    shards = read_json_object(chosen[index]).get("weight_map") if index in chosen else {}
    if not isinstance(shards, dict):
        raise Incomplete(f"{directory / index} maps no weights.", "Copy it again.")
    for shard in sorted({str(shard) for shard in shards.values()}):
        if not shard.endswith(".safetensors"):
            raise Altered(f"{directory / index} names {shard}, which is no safetensors file.", "Do not use it.")
        if shard in chosen:
            continue
        raise Incomplete(f"{directory / index} names {shard}, which is not in the folder.", "Copy it whole.")
    needs = {
        "safetensors weights": any(name.endswith(".safetensors") for name in chosen),
        "config.json": "config.json" in chosen,
        "tokenizer": not _TOKENIZERS.isdisjoint(chosen),
    }
    for need, there in needs.items():
        if not there:
            raise Incomplete(f"{directory} holds no {need}.", "Copy the whole model, with its safetensors.")


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a model's JSON file. Raises WeightsError if it holds none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Incomplete(f"{path} is no JSON object.", "Copy it again.")
    return value
