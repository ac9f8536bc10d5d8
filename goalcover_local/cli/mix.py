"""`goalcover mix`: the datasets that the paper trains on, from one run (section 6.1, Table 3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .selecting import chosen, record, selection_options

if TYPE_CHECKING:
    import numpy as np

    from ..store import Run
    from ..terms import Candidate
    from .selecting import Choice

_ENDINGS = {"jsonl": ".jsonl", "parquet": ".parquet", "datasets": ""}
PROVENANCE = "provenance.jsonl"
_FILES = ("original", "goal-aligned", "synthetic", "synthetic-original", "synthetic-goal-aligned")


@dataclass(frozen=True)
class _Mixture:
    """A dataset to be: the rows of the data in it, boolean, (n_rows,), the samples added, and how many were doubles."""

    name: str
    rows: np.ndarray
    added: Sequence[Candidate]
    n_doubles: int

    @property
    def file(self) -> str:
        """The name of its file, without an ending."""
        return self.name.lower().replace(" + ", "-")

    @property
    def size(self) -> int:
        """How many samples it has."""
        return int(self.rows.sum()) + len(self.added)


@click.command("mix", short_help="Write the original, goal-aligned and synthetic datasets to train on.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write to.")
@selection_options
@click.option(
    "--original",
    "n_original",
    type=click.IntRange(1),
    metavar="N",
    help="Take N rows, drawn by --seed, as the original dataset, duplicates among them left out; the goal-aligned rows "
    "still come from all.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes which rows --original draws.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(_ENDINGS)),
    default="jsonl",
    show_default=True,
    help="The format of the datasets.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the sizes as JSON.")
def command(run: Path, **options: Any) -> None:
    """Write the datasets that the paper compares, from the run in folder RUN; no model is asked.

    They are original, goal-aligned (see `goalcover filter`), synthetic (what `goalcover synthesize` kept),
    synthetic-original and synthetic-goal-aligned. Of samples with the same input and output the first stays. Rows of
    the data come first, as they were and in their order, then the synthetic ones as columns of the data: shuffle when
    you train. provenance.jsonl tells of each row of synthetic, in its order, where it comes from.

    With --json: run, value, rule, n_rows, n_refused, folder, recorded, and for each of datasets its name, file,
    n_samples and n_duplicates, those left out.

    \b
    Example:
      goalcover mix runs/first -o runs/first/mix
      goalcover mix runs/first -o mix --keep "top 50%" --stratify --original 1000 --format parquet
    """
    from ..store import Run
    from .table import as_text
    from .terminal import plain

    _refuse_file(options["output"])
    with Run.open(run, write=False) as opened:
        choice = chosen(opened, options)
        mixtures = _mixtures(opened, choice.selection.kept, options)
        n_refused = opened.counts().refusals
        digests = _write(mixtures, choice, options)
    sizes = {mixture.file: mixture.size for mixture in mixtures}
    kept = choice.selection.kept
    counts = {"n_rows": len(kept), "n_kept": int(kept.sum()), "sizes": sizes, "files": digests}
    drawn = {"seed": options["seed"], "original": options["n_original"] or 0}
    recorded = record(run, "mixed", choice, {**counts, **drawn})
    shown = {
        "run": str(run),
        "value": choice.results.value,
        "rule": str(choice.criteria.rule),
        "n_rows": len(kept),
        "n_refused": n_refused,
        "folder": str(options["output"]),
        "recorded": recorded,
        "datasets": [
            {
                "name": mixture.name,
                "file": f"{mixture.file}{_ENDINGS[options['file_format']]}",
                "n_samples": mixture.size,
                "n_duplicates": mixture.n_doubles,
            }
            for mixture in mixtures
        ],
    }
    if options["as_json"]:
        click.echo(as_text(shown))
    else:
        _print(shown)
    if len(mixtures) == 2:
        click.echo(f"There are no synthetic samples: `goalcover synthesize {plain(str(run))}` writes them.", err=True)
    _tell_what_is_older(options["output"], digests, options["file_format"])


def _refuse_file(folder: Path) -> None:
    """Raises DataError if what is to be a folder is a file."""
    from ..errors import DataError

    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; -o names a folder.", "Name a folder; it is made if it is not there.")


def _mixtures(run: Run, kept: np.ndarray, options: Mapping[str, Any]) -> list[_Mixture]:
    """The five datasets of the paper; the two without synthetic samples where none was kept."""
    import numpy as np

    from .written import candidates

    samples = run.row_samples()
    written = [candidate for candidate in candidates(run) if candidate.fate == "kept"]
    digests = [candidate.sample.digest for candidate in written]
    keys = dict(zip(digests, run.keys(digests), strict=True))
    original = np.isin(np.arange(len(samples)), run.draw(options["seed"], options["n_original"]))

    def mixed(name: str, rows: np.ndarray, added: Sequence[Candidate]) -> _Mixture:
        positions = np.flatnonzero(rows)
        held, first = np.unique(samples[positions], return_index=True)
        new: dict[str, Candidate] = {}
        for candidate in added:
            if keys[candidate.sample.digest] not in held:
                new.setdefault(candidate.sample.digest, candidate)
        n_doubles = len(positions) - len(held) + len(added) - len(new)
        return _Mixture(name, np.isin(np.arange(len(samples)), positions[first]), tuple(new.values()), n_doubles)

    none = np.zeros(len(samples), dtype=bool)
    found = [mixed("Original", original, ()), mixed("Goal-aligned", kept, ())]
    if written:
        found.append(mixed("Synthetic", none, written))
        found.append(mixed("Synthetic + original", original, written))
        found.append(mixed("Synthetic + goal-aligned", kept, written))
    return found


def _write(mixtures: Sequence[_Mixture], choice: Choice, options: Mapping[str, Any]) -> Mapping[str, str]:
    """The digests of the files, all of them written or none."""
    from ..formats import content_digest
    from ..outputs import failures_told, placed
    from ..writers import write, write_records

    folder, kind = options["output"], options["file_format"]
    with failures_told(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {mixture.file: folder / f"{mixture.file}{_ENDINGS[kind]}" for mixture in mixtures}
    with ExitStack() as held:
        places = [held.enter_context(placed(path, kind, choice.data)) for path in files.values()]
        for place, mixture in zip(places, mixtures, strict=True):
            write(place, choice.source, mixture.rows, [candidate.fields for candidate in mixture.added])
        for mixture in mixtures:
            if mixture.file == "synthetic":
                files["provenance"] = folder / PROVENANCE
                place = held.enter_context(placed(files["provenance"], "jsonl", choice.data))
                write_records(place, map(_provenance, mixture.added))
    return {name: content_digest(path) for name, path in files.items()}


def _provenance(candidate: Candidate) -> Mapping[str, Any]:
    return {
        "digest": candidate.sample.digest,
        "subgoal": candidate.subgoal,
        "number": candidate.number,
        "round": candidate.round,
        "quality": dict(candidate.quality),
        "alignment": candidate.alignment,
        "rank": candidate.rank,
        "provenance": dict(candidate.provenance),
    }


def _print(shown: Mapping[str, Any]) -> None:
    from .table import print_table
    from .terminal import plain

    rows = [[each["name"], str(each["n_samples"]), str(each["n_duplicates"])] for each in shown["datasets"]]
    print_table(["Dataset", "#Samples", "duplicates left out"], rows, right=(1, 2))
    click.echo(f"rule: {shown['rule']}, value: {shown['value']}; written to {plain(shown['folder'])}.")


def _tell_what_is_older(folder: Path, written: Collection[str], kind: str) -> None:
    """Nothing; says which files stand there from before, of any format, beside those `written` in this one."""
    from .terminal import plain

    new = {f"{name}{_ENDINGS[kind]}" for name in written if name in _FILES}
    old = [f"{name}{ending}" for ending in _ENDINGS.values() for name in _FILES]
    if "provenance" not in written:
        old.append(PROVENANCE)
    for path in (folder / name for name in old if name not in new):
        if path.exists():
            click.echo(f"{plain(str(path))} is of an earlier mix.", err=True)
