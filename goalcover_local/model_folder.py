"""What lies in a model's folder: the files that a loader reads, and nothing that could run code or points elsewhere.

safetensors only. Chat templates are Jinja: transformers renders them in its sandbox, `engines.template` within bounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from . import bounded
from .errors import ModelError
from .headers import CutShort, check_safetensors, opened, refuse_special
from .model_configs import refuse_code, refuse_oversized, refuse_tokenizer

MANIFEST = "goalcover-manifest.json"
"""What GoalCover itself writes beside a model's files."""

State = Literal["ready", "absent", "incomplete", "altered"]

_READ_BY_LOADERS = {".safetensors", ".json", ".jinja", ".model", ".tiktoken"}
_RUNS_CODE = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".dill", ".ckpt", ".py", ".pyc", ".pyd", ".so"}
_TOKENIZERS = {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}
_NOT_THE_MODEL = {".git", ".cache"}
_DEEPEST = 16  # folders within folders
_LONGEST_JSON = 20_000_000  # bytes
_LFS_POINTER = b"version https://git-lfs"


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


def model_files(directory: Path, copying: bool = False) -> list[str]:
    """The names of a folder's files that a loader reads, sorted. Takes no digest.

    With `copying` the folder's other files do not matter: they will be left out. Raises WeightsError naming
    the first file that could run code, points elsewhere, is no regular file, is a git-LFS pointer, has an unsound
    header, is cut short, or is missing.
    """
    try:
        found = {path.relative_to(directory).as_posix(): path for path in _walk(directory)}
        chosen = {name: path for name, path in sorted(found.items()) if is_read(PurePosixPath(name))}
        looked_at = chosen if copying else found
        for path in looked_at.values():
            _refuse_unsafe(path)
        n_tensors = sum(_count_tensors(path) for path in chosen.values())
        _refuse_missing(chosen, directory)
        with _altered():
            for name, path in looked_at.items():
                if fnmatch(name, "*config.json") or fnmatch(name, "config*.json"):
                    config = read_json_object(path)
                    refuse_code(path, config)
                    if name == "config.json":
                        refuse_oversized(path, config, n_tensors)
            if "tokenizer.json" in chosen:
                refuse_tokenizer(chosen["tokenizer.json"])
    except OSError as error:
        raise Altered(f"{error.filename} cannot be read: {error.strerror}.", "Check its permissions.") from error
    return list(chosen)


def _walk(directory: Path) -> Iterator[Path]:
    """All that is in a folder, but for what version control and download tools keep there and for plain folders.

    A folder is told only if it is a link, or has the name of a file that a loader reads. Raises OSError for a folder
    that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(directory, onerror=fail):
        within = Path(root).relative_to(directory)
        if len(within.parts) > _DEEPEST:
            raise Altered(f"{directory} holds folders within folders, more than {_DEEPEST} deep.", "Take them out.")
        folders[:] = [name for name in folders if name not in _NOT_THE_MODEL]
        yield from (Path(root, name) for name in files)
        for name in folders:
            if Path(root, name).is_symlink() or is_read(PurePosixPath(within / name)):
                yield Path(root, name)


def is_read(name: PurePosixPath) -> bool:
    if name.parent == PurePosixPath("additional_chat_templates"):
        return name.suffix == ".jinja"
    at_top = len(name.parts) == 1 and name.name != MANIFEST
    return at_top and (name.suffix in _READ_BY_LOADERS or name.name in ("merges.txt", "vocab.txt"))


def _refuse_unsafe(path: Path) -> None:
    if not path.name.isprintable():
        raise Altered(f"{path.parent} holds a file of the unprintable name {path.name!r}.", "Remove it.")
    if path.is_symlink():
        raise Altered(f"{path} is a symbolic link: its content lies elsewhere.", "Copy with `cp -rL`, add the copy.")
    with _altered():
        refuse_special(path, path.lstat().st_mode)
    if path.name == "adapter_config.json":
        raise Altered(f"{path} makes this an adapter on other weights.", "Merge it into its base model first.")
    if path.suffix.lower() in _RUNS_CODE:
        raise Altered(f"{path} can run code when it is loaded.", "Remove it, or add with --copy, which leaves it out.")


def _count_tensors(path: Path) -> int:
    """How many tensors a file holds. Raises WeightsError if it is a pointer to one, or cut short, or unsound."""
    with opened(path) as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            mend = "Run `git lfs pull` where it was cloned, and copy it again."
            raise Incomplete(f"{path} is a git-LFS pointer instead of the file.", mend)
    with _altered():
        return check_safetensors(path) if path.suffix == ".safetensors" else 0


@contextmanager
def _altered() -> Iterator[None]:
    """A context in which what is found unsound is said of the weights: Incomplete where a file is cut short."""
    try:
        yield
    except WeightsError:
        raise
    except CutShort as error:
        raise Incomplete(error.problem, error.mend) from None
    except ModelError as error:
        raise Altered(error.problem, error.mend) from None


def _refuse_missing(chosen: Mapping[str, Path], directory: Path) -> None:
    index = "model.safetensors.index.json"
    shards = read_json_object(chosen[index]).get("weight_map") if index in chosen else {}
    if not isinstance(shards, dict):
        raise Incomplete(f"{directory / index} maps no weights.", "Copy it again.")
    named = {str(shard) for shard in shards.values()}
    for shard in sorted(named):
        if not shard.endswith(".safetensors") or not shard.isprintable():
            raise Altered(f"{directory / index} names {shard[:200]!r}, no safetensors file.", "Do not use it.")
        if shard in chosen:
            continue
        raise Incomplete(f"{directory / index} names {shard}, which is not in the folder.", "Copy it whole.")
    _refuse_second(directory, {name for name in chosen if name.endswith(".safetensors")}, named)
    needs = {
        "safetensors weights": any(name.endswith(".safetensors") for name in chosen),
        "config.json": "config.json" in chosen,
        "tokenizer": not _TOKENIZERS.isdisjoint(chosen),
    }
    for need, there in needs.items():
        if not there:
            raise Incomplete(f"{directory} holds no {need}.", "Copy the whole model, with its safetensors.")


def _refuse_second(directory: Path, held: Set[str], named: Set[str]) -> None:
    """Raises Altered if there are weights of which transformers would take these and vLLM those."""
    single = "model.safetensors"
    beside = {single} if named else held - {single}
    if single in held and beside and named != {single}:
        kept = "its index names" if named else f"are in {single}"
        raise Altered(f"{directory} holds {min(beside)} beside the weights that {kept}.", "Take one of them out.")


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a model's JSON file of at most 20 MB. Raises WeightsError if it holds none."""
    try:
        value = json_of(path)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Incomplete(f"{path} is no JSON object, or one too large.", "Copy it again.")
    return value


def json_of(path: Path) -> Any:
    """The value in a JSON file. Raises ValueError if it is malformed, too large, too deep or of too many parts."""
    with opened(path) as stream:
        text = stream.read(_LONGEST_JSON + 1)
    if len(text) > _LONGEST_JSON:
        raise ValueError("it is too large")
    return bounded.json_of(text)
