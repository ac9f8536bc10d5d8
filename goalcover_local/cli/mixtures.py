"""The datasets of an experiment: those that a run mixed, or those that lie in a folder, and which can be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .stages import Stages

_ENDINGS = (".jsonl", ".parquet", "")


@dataclass(frozen=True)
class Dataset:
    """A dataset that may be trained on: its file, how many samples it has (None if it is not there), why it is not
    trained on (empty if it is), and the stages that a training of it comes after."""

    path: Path
    n_samples: int | None
    why: str
    stages: Stages


def in_run(stages: Stages, folder: Path) -> dict[str, Dataset]:
    """The datasets that `goalcover mix` made in a run, by row. Raises StoreError if the run does not tell of them."""
    from ..errors import StoreError
    from ..store import Run
    from ..studies.downstream import DATASETS
    from .results import latest

    with Run.open(stages.folder, write=False) as run:
        told = latest(run, "mixed")
    if told is None:
        raise StoreError(f"The run {stages.folder} does not tell what its mix holds.", "Run `goalcover mix` on it.")
    sizes: Mapping[str, int] = told["sizes"]
    found = {}
    for row in DATASETS:
        n = sizes.get(row, 0)
        none = "no rows: no synthetic sample was kept" if row.startswith("synthetic") else "no rows: none is kept"
        found[row] = Dataset(folder / f"{row}.jsonl", n, "" if n else none, stages)
    return found


def in_folder(run: Path, folder: Path, columns: Mapping[str, Any], ends: float) -> dict[str, Dataset]:
    """The datasets that lie in a folder under the names that `goalcover mix` gives them, by row.

    Raises DataError for one that cannot be read, and if there is none at all.
    """
    from ..errors import DataError
    from ..formats import content_digest
    from ..studies.downstream import DATASETS

    found = {}
    for row in DATASETS:
        places = [folder / f"{row}{ending}" for ending in _ENDINGS]
        path = next((place for place in places if place.exists()), None)
        if path is None:
            found[row] = Dataset(places[0], None, "no such file in the folder", Stages(run, "", ends))
            continue
        n = _n_samples(path, columns)
        found[row] = Dataset(path, n, "" if n else "no rows", Stages(run, content_digest(path), ends))
    if all(each.n_samples is None for each in found.values()):
        raise DataError(
            f"{folder} holds no dataset.", f"Name a folder with {', '.join(f'{row}.jsonl' for row in found)}."
        )
    return found


def _n_samples(path: Path, columns: Mapping[str, Any]) -> int:
    """How many rows of a file are samples; 0 for an empty file."""
    from ..readers import read, recognise
    from ..terms import Sample

    if path.is_file() and not path.stat().st_size:
        return 0
    return sum(isinstance(row, Sample) for row in read(path, recognise(path, **columns)))
