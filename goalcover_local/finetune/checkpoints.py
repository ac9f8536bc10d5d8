"""A training's checkpoints: what is in them, and which of them a resume may load.

The trainer's optimizer and random states are pickles. They are loaded weights-only, and only from a checkpoint whose
every file has the digest that this run wrote down when the checkpoint was whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..files import digest_of_file
from ..outputs import failures_told

_DESCRIBED = ("adapter_config.json", "config.json", "generation_config.json", "model.safetensors.index.json")
"""How a policy's weights are read."""

_NAME = re.compile(r"checkpoint-(\d+)")


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a checkpoint, by its name relative to the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {
        path.relative_to(folder).as_posix(): "a link" if path.is_symlink() else digest_of_file(path) for path in files
    }


def sound(folder: Path, known: Mapping[int, Mapping[str, str]]) -> tuple[int, Path] | None:
    """The latest checkpoint in `folder` that is whole and unaltered by the digests `known` of each step, and its step.

    None if there is none: the training then begins anew.
    """
    for step in sorted(known, reverse=True):
        place = folder / f"checkpoint-{step}"
        if place.is_dir() and not place.is_symlink() and known[step] and digests(place) == dict(known[step]):
            return step, place
    return None


def clear(folder: Path, keep: Path | None) -> None:
    """Nothing; removes every checkpoint in `folder` but one: what a kill left half written, and what came after it."""
    for path in folder.glob("checkpoint-*"):
        if path != keep and _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def policy_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of the files in a folder that make a policy: its safetensors, and how they are read."""
    return {name: digest for name, digest in digests(folder).items() if _of_policy(name)}


def keep_policy(checkpoint: Path, place: Path) -> dict[str, str]:
    """The digests of the files of `place`, which now holds the policy of a checkpoint and nothing that is a pickle.

    A policy of the same files that lies there already stays. Raises DataError if it cannot be written.
    """
    wanted = policy_files(checkpoint)
    if place.is_dir() and policy_files(place) == wanted:
        return wanted
    draft = place.with_name(f"{place.name}.partial")
    with failures_told(place):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        for name in wanted:
            shutil.copyfile(checkpoint / name, draft / name)
        if place.exists():
            shutil.rmtree(place)
        draft.rename(place)
    return wanted


def _of_policy(name: str) -> bool:
    return name.endswith(".safetensors") or name in _DESCRIBED
