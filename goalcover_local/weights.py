"""The weights a card stands for: what was verified when they came, and every byte of them checked again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .cards import Card, models_home, partial_folder, validated, weights_folder
from .errors import ModelError
from .headers import Mark, mark_of, opened
from .model_folder import MANIFEST, Absent, Altered, Incomplete, State, WeightsError, is_read, json_of, model_files
from .terms import canonical_json, digest_of

_STRICT = {"extra": "forbid"}
_ELSEWHERE = "Set GOALCOVER_HOME to where models are"


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
    """Verified weights: where they lie, one digest for all, the SHA-256 of each file, and its mark as it was then."""

    directory: Path
    digest: str
    files: Mapping[str, str]
    marks: Mapping[str, Mark] = field(default_factory=dict, compare=False)


class Digests:
    """SHA-256 of files, kept in `verified.json` while a file's size, times and inode stay the same."""

    def __init__(self) -> None:
        self._path = models_home() / "verified.json"
        try:
            self._known: dict[str, Any] = dict(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            self._known = {}

    def of(self, file: Path, again: bool = False) -> str:
        """The file's SHA-256; `again` reads it even if it is known. Raises ModelError if it is no regular file."""
        return self.marked(file, again)[1]

    def marked(self, file: Path, again: bool = False) -> tuple[Mark, str]:
        """The file's mark and its SHA-256, taken while the mark stayed the same. Raises as `of`."""
        known = self._known.get(str(file))
        with opened(file) as stream:
            mark = mark_of(os.fstat(stream.fileno()))
            if not again and isinstance(known, list) and known[:-1] == list(mark):
                return mark, str(known[-1])
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if mark_of(os.fstat(stream.fileno())) != mark:
                raise Altered(f"{file} changed while it was read.", "Wait until it is whole, then run this again.")
        self._known[str(file)] = [*mark, digest]
        return mark, digest

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
        return validated(Manifest, json_of(folder / MANIFEST), folder / MANIFEST)
    except FileNotFoundError:
        if folder.exists():
            mend = f"Run `goalcover models add {folder} --card {name}`, or remove the folder."
            raise Incomplete(f"{folder} holds no {MANIFEST}.", mend) from None
        if partial_folder(name).exists():
            raise Incomplete(f"The weights of {name} arrived only in part.", mend) from None
        mend = f"{_ELSEWHERE}, or {mend[0].lower()}{mend[1:]}" if mend else f"{_ELSEWHERE}."
        raise Absent(f"There are no weights of {name} in {folder}.", mend) from None
    except (OSError, ValueError, ModelError) as error:
        raise Altered(f"{folder / MANIFEST} is unreadable.", mend) from error


def verify(card: Card, full: bool = False) -> Weights:
    """The card's weights, after checking each file's size and SHA-256 against the manifest. Fetches nothing.

    A digest is taken again only if the file changed since it was last taken, or if `full`. Raises
    WeightsError, a ModelError, naming the file that is absent, incomplete, altered or unsafe.
    """
    manifest = read_manifest(card.name, card.mend)
    home = weights_folder(card.name)
    directory = Path(manifest.location or home)
    if manifest.card != card.name:
        raise Altered(f"{home} holds the weights of {manifest.card}.", card.mend)
    if card.source.sha256 and manifest.source_sha256 not in ("", card.source.sha256):
        raise Altered(f"The weights of {card.name} come from another file than its card pins.", card.mend)
    if not _is_folder(directory):
        raise Absent(f"The weights of {card.name} lie in {str(directory)[:200]!r}, which is not there.", card.mend)
    if directory.is_symlink() or (manifest.location and directory.resolve() != directory):
        raise Altered(f"{directory} now lies behind a symbolic link.", "Add the weights again from where they lie.")
    digests = Digests()
    marks: dict[str, Mark] = {}
    try:
        found = model_files(directory)
        if unknown := set(found) - set(manifest.files):
            raise Altered(f"{directory / min(unknown)} came after the weights were added.", "Remove the file.")
        for name, record in manifest.files.items():
            if not is_read(PurePosixPath(name)):
                raise Altered(f"{home / MANIFEST} names {name!r}, which is no file of a model.", card.mend)
            if name not in found:
                raise Incomplete(f"{directory / name} is missing.", card.mend)
            marks[name] = _compare(directory / name, record, digests, full, card.mend)
    except OSError as error:
        raise Altered(f"{error.filename} cannot be read: {error.strerror}.", card.mend) from error
    finally:
        digests.save()
    sums = {name: record.sha256 for name, record in manifest.files.items()}
    return Weights(directory, manifest.digest, sums, marks)


def refuse_swapped(weights: Weights) -> None:
    """Nothing; the folder's files are those that were verified, by their marks. Call it once a loader has read them.

    Raises WeightsError if one changed, came or went in between. What stays possible: whoever can set this machine's
    clock or write to its disk beneath the file system can forge a mark; and a loader that maps a file into memory
    reads later changes of it.
    """
    try:
        now = {name: mark_of((weights.directory / name).lstat()) for name in model_files(weights.directory)}
    except OSError as error:
        raise Altered(f"{error.filename} went while it was loaded.", "Load it again.") from error
    changed = sorted(name for name in {*weights.marks, *now} if weights.marks.get(name) != now.get(name))
    if weights.marks and changed:
        problem = f"{weights.directory / changed[0]} changed between being verified and being loaded."
        raise Altered(problem, "Find out what writes there, then run this again.")


def state(card: Card) -> State:
    """Whether the card's weights are ready, absent, incomplete or altered."""
    try:
        verify(card)
    except ModelError as error:
        return error.state if isinstance(error, WeightsError) else "altered"
    return "ready"


def _is_folder(directory: Path) -> bool:
    """Whether that is a folder; False for what can be no path, too, which a manifest may hold."""
    try:
        return directory.is_absolute() and directory.is_dir()
    except (OSError, ValueError):
        return False


def _compare(file: Path, record: FileRecord, digests: Digests, full: bool, mend: str) -> Mark:
    size = file.lstat().st_size
    if size != record.bytes:
        kind = Incomplete if size < record.bytes else Altered
        raise kind(f"{file} has {size} bytes instead of {record.bytes}.", mend)
    mark, digest = digests.marked(file, again=full)
    if digest != record.sha256:
        raise Altered(f"{file} was altered: expected SHA-256 {record.sha256}, found {digest}.", mend)
    return mark
