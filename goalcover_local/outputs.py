"""Files of data to be: which format a name means, and a place that becomes the file whole or not at all.

What is written stands beside its output as a draft until it is whole. A process that is killed leaves its draft, which
holds text of rows: the next one that writes the same output removes it. A draft in use is locked by who writes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .errors import DataError
from .formats import SUFFIXES

_SUFFIXES = {**SUFFIXES, "": "datasets"}
_DRAFT = ".goalcover-draft"
FORMATS: tuple[str, ...] = tuple(dict.fromkeys(_SUFFIXES.values()))
"""The formats that can be written; "datasets" is a folder."""


def format_of(output: Path, named: str | None = None) -> str:
    """The format named, else that of the name's suffix; without a suffix, a folder of `datasets`."""
    found = named or _SUFFIXES.get(output.suffix.lower())
    if found is None:
        mend = f"End it with {', '.join(filter(None, _SUFFIXES))} or nothing, or name a format with --format."
        raise DataError(f"{output} has a suffix that is not known.", mend)
    return found


class Place(NamedTuple):
    """Where to write what will be `output`: a file, or for datasets a folder, that stands under no name of its own."""

    output: Path
    kind: str
    path: Path


@contextmanager
def placed(output: Path, kind: str, data: Sequence[Path] = ()) -> Iterator[Place]:
    """A place that takes the output's name when the block ends well, and is removed if it does not.

    Files have mode 0600, folders 0700. What has the name already is replaced, but never `data`, a run's own file, or a
    folder that holds anything but a saved dataset: then, or where nothing can be written, raises DataError.
    """
    target = output.resolve()
    path = _begun(output, target, kind, data)
    lock = _locked(path)
    try:
        yield Place(output, kind, path)
        with failures_told(output):
            _settle(path, target)
        with suppress(OSError):
            _remove_abandoned(target)
    finally:
        _remove(path)
        if lock is not None:
            os.close(lock)


def check(output: Path, kind: str, data: Sequence[Path] = ()) -> None:
    """Nothing; raises DataError where `placed` would, and leaves everything as it was."""
    _remove(_begun(output, output.resolve(), kind, data))


def _begun(output: Path, target: Path, kind: str, data: Sequence[Path]) -> Path:
    """The file or folder beside an output that is written to before it takes its name."""
    with failures_told(output):
        _refuse(output, target, kind, data)
        if kind == "datasets":
            return Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target), suffix=_DRAFT))
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=_DRAFT)
        os.close(descriptor)
        return Path(name)


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}."


def _locked(path: Path) -> int | None:
    """A descriptor that locks a draft until it is closed, by us or by our death; None where that cannot be had."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(target: Path) -> None:
    """Nothing; now that the output is whole, its drafts that no living process writes are gone."""
    for path in target.parent.iterdir():
        ours = path.name.startswith(_prefix(target)) and path.name.endswith(_DRAFT)
        if ours and (lock := _locked(path)) is not None:
            _remove(path)
            os.close(lock)


@contextmanager
def failures_told(output: Path) -> Iterator[None]:
    """Turns what the operating system raises into a DataError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        mend = "Check its folder, the permissions and the free space, or name another."
        raise DataError(f"{output} cannot be written: {why}.", mend) from None


def _refuse(output: Path, target: Path, kind: str, data: Sequence[Path]) -> None:
    """Raises DataError for an output that would take the place of something else."""
    mend = "Choose another name for the output."
    if target.name.startswith("run."):
        raise DataError(f"{output} is named like a file of a run.", mend)
    for file in filter(Path.exists, data):
        same = target.exists() and target.samefile(file)
        if same or (file.is_dir() and target.is_relative_to(file.resolve())):
            raise DataError(f"{output} is the data of this run, or a part of them.", mend)
    if not target.exists():
        return
    if kind != "datasets" and not target.is_file():
        raise DataError(f"{output} is there already, and is no file.", mend)
    if kind == "datasets" and not (target.is_dir() and all(_saved(part) for part in target.iterdir())):
        raise DataError(f"{output} is there already, and is no folder that `datasets` saved.", mend)


def _saved(part: Path) -> bool:
    """Whether this is a file that `datasets` writes into a folder."""
    named = part.name in ("state.json", "dataset_info.json")
    return part.is_file() and (named or (part.name.startswith("data-") and part.suffix == ".arrow"))


def _settle(path: Path, target: Path) -> None:
    """Gives what was written its name, once it is on the disk."""
    for part in [*(path.iterdir() if path.is_dir() else ()), path]:
        part.chmod(0o700 if part.is_dir() else 0o600)
        _sync(part)
    if target.is_dir():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target), suffix=_DRAFT))
        target.replace(old)
        path.replace(target)
        _remove(old)
    else:
        path.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
