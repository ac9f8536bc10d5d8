"""What lies in a run's folder beside the run itself, and of which of it the content is certain.

A name proves nothing: a file counts as numbers or weights only where the run holds the digest of its content, or all
that the file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import StoreError
from .files import digest_of_file
from .folder import DATABASE, LOCK
from .store import Run
from .trainings import Trainings

WRITTEN = ("data", "mix")
"""Folders in a run's that `goalcover experiment` makes, and fills with rows."""

TRAINED = "policies"
"""The folder in a run's that holds a folder for each training."""

OWN = (LOCK, DATABASE, *(f"{DATABASE}-{more}" for more in ("wal", "shm", "journal")))
"""The files that are the run itself."""

CONCLUDED = "experiment ended"
"""The kind of the events whose `files` in the run's folder hold numbers alone. What any event has `drawn` does too."""

ADAPTER, CHECKPOINTS, CARD = "adapter", "checkpoints", "card.json"
"""What lies in a training's folder."""


class Files(NamedTuple):
    """What lies in a run's folder beside the run itself.

    `rows` are files that an experiment filled with rows, `others` those whose content is not certain, `policies` the
    trainings whose weights lie there, `runs` the folders of other runs.
    """

    rows: tuple[Path, ...]
    others: tuple[Path, ...]
    policies: tuple[Path, ...]
    runs: tuple[Path, ...]


def files(run: Run) -> Files:
    """What lies in the run's folder beside the run itself; links are never followed."""
    found: dict[str, list[Path]] = {name: [] for name in Files._fields}
    known = _known(run)
    for path in sorted(run.folder.iterdir()):
        if path.name in OWN and not path.is_symlink():
            continue
        if _is_folder(path) and (path / DATABASE).is_file():
            found["runs"].append(path)
        elif _is_folder(path) and path.name in WRITTEN:
            found["rows"] += _inside(path)
        else:
            found["others"] += [file for file in _inside(path) if not _is_certain(run, file, known)]
            if _is_folder(path) and path.name == TRAINED:
                found["policies"] += filter(_is_folder, sorted(path.iterdir()))
    return Files(**{name: tuple(paths) for name, paths in found.items()})


def _known(run: Run) -> dict[Path, str]:
    """By path, the digests that the run holds of files in its folder: of an experiment, of policies and checkpoints."""
    events = run.events()
    told = [event.told.get("files") for event in events if event.kind == CONCLUDED]
    told += [event.told.get("drawn") for event in events]
    known = {run.folder / name: str(digest) for each in told if isinstance(each, dict) for name, digest in each.items()}
    trainings = Trainings(run)
    for training in trainings.names():
        place = trainings.folder(training)
        result = trainings.result(training) or {}
        known |= {place / ADAPTER / name: digest for name, digest in result.get("files", {}).items()}
        for step, files in trainings.checkpoints(training).items():
            known |= {place / CHECKPOINTS / f"checkpoint-{step}" / name: digest for name, digest in files.items()}
    return known


def _is_certain(run: Run, path: Path, known: Mapping[Path, str]) -> bool:
    """Whether a file's content is known to be no text of a sample. Raises StoreError if it cannot be read."""
    try:
        if path.is_symlink() or not path.is_file():
            return False
        return known.get(path) == digest_of_file(path) if path in known else _is_card(run, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}).", "Have its permissions changed.") from error


def _is_card(run: Run, path: Path) -> bool:
    """Whether this is a training's card, and says nothing that the run does not hold of that training."""
    name = path.parent.parent.name
    trainings = Trainings(run)
    if path != run.folder / TRAINED / name / ADAPTER / CARD or name not in trainings.names():
        return False
    text = path.read_bytes()
    held = {"name": name, **trainings.settings(name), **(trainings.result(name) or {})}
    held["reward_name"] = held.get("judge", {}).get("reward")
    try:
        card = json.loads(text)
    except (ValueError, RecursionError):
        return False
    whole = isinstance(card, dict) and text == (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()
    return whole and all(key in held and held[key] == value for key, value in card.items())


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _inside(path: Path) -> list[Path]:
    """The path itself, or all that is in the folder that it is and is no folder itself."""
    return [each for each in sorted(path.rglob("*")) if not _is_folder(each)] if _is_folder(path) else [path]
