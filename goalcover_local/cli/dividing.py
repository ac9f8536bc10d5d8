"""The first stage of an experiment: the data divided into rows to train on and rows to test on, kept in the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .training import samples_of

if TYPE_CHECKING:
    from ..cards import Card
    from ..finetune.rubric import Rubric
    from ..store import Run
    from ..studies.downstream import Division, Study
    from ..terms import Sample

DIVIDED = "data divided"
FOLDER = "data"
COLUMNS = ("input_column", "output_column", "template", "id_column")


def columns_of(study: Study, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that name columns: those given, else the study's if the data have them.

    Raises DataError as `readers.recognise` does, if the data lack the columns of a study that does not ship.
    """
    from ..errors import DataError
    from ..readers import recognise

    given = {name: options[name] for name in COLUMNS}
    if any(given[name] for name in COLUMNS[:3]) or not (study.data.input or study.data.output):
        return given
    named = {**given, "input_column": ",".join(study.data.input), "output_column": ",".join(study.data.output)}
    try:
        recognise(options["data"], format=options["file_format"], split=options["split"], **named)
    except DataError:
        if not study.ships:
            raise
        return given
    return named


def read_data(study: Study, options: Mapping[str, Any]) -> tuple[list[Sample], str]:
    """All rows of the data, and the digest of data and columns. Raises DataError if no row can be used."""
    return samples_of({**options, **columns_of(study, options), "seed": 0, "limit": None})


def prompt_lengths(policy: Card, rubric: Rubric, samples: Sequence[Sample]) -> list[int]:
    """How many tokens the policy is asked in about each sample. Raises ModelError if its weights are not here."""
    from ..engines.base import Message, Prompt
    from ..engines.tokens import PromptTokenizer
    from ..weights import verify

    prompts = PromptTokenizer.load(
        verify(policy).directory,
        template_options=dict(policy.chat.template_options),
        markers=tuple(policy.chat.markers),
        system_role=policy.chat.system_role,
        opening=policy.chat.opening,
    )
    asked = (Prompt((Message("user", rubric.prompt(sample.input, sample.output)),)) for sample in samples)
    return [len(prompts.ids(prompts.text(prompt))) for prompt in asked]


def divided(
    study: Study, policy: Card, rubric: Rubric, folder: Path, options: Mapping[str, Any]
) -> tuple[dict[str, Path], str]:
    """The files of the parts, in the run's folder `data`, and the digest of what they hang on.

    What is there already stays. Raises DataError if the data have too few rows, StoreError if the run was begun with
    other data or another division of them.
    """
    from ..errors import StoreError
    from ..store import Run
    from ..studies.downstream import PARTS
    from ..terms import digest_of

    samples, data = read_data(study, options)
    asked = [policy.name, rubric.digest] if study.data.max_prompt_tokens else []
    key = digest_of([data, asdict(study.data), asked])
    files = {part: folder / FOLDER / f"{part}.jsonl" for part in PARTS if study.data.sizes[part]}
    with Run.open(folder, write=True, create=True) as run:
        held = _held(run)
        if held and held["key"] != key:
            raise StoreError(
                f"The run {folder} was begun with other data, or with another division of them.",
                "Name a new folder with --run, or give the study and the data it was begun with.",
            )
        if held and _whole(files, held["files"]):
            click.echo("divide the data: done before.", err=True)
            return files, key
        lengths = prompt_lengths(policy, rubric, samples) if study.data.max_prompt_tokens else [0] * len(samples)
        division = division_of(study, samples, lengths)
        _refuse_lacking(division, study)
        tell_division(division, study)
        digests = _write(division, files, options["data"])
        if held is None:
            sizes = {part: len(division.parts[part]) for part in files}
            run.event(DIVIDED, {"key": key, "files": digests, "sizes": sizes}, "goalcover experiment")
    return files, key


def division_of(study: Study, samples: Sequence[Sample], lengths: Sequence[int]) -> Division:
    """The samples in parts; `lengths` are the tokens of what the policy is asked, 0 where that is not known."""
    from ..studies.downstream import divide

    most = study.data.max_prompt_tokens
    return divide(samples, study.data, [not most or length <= most for length in lengths])


def tell_division(division: Division, study: Study) -> None:
    """Nothing; says how many rows are in each part, and why the others are in none."""
    parts = ", ".join(f"{part} {len(rows)}" for part, rows in division.parts.items() if study.data.sizes[part])
    click.echo(
        f"{parts}; {division.n_double} rows repeat others, {division.n_unfit} are too short or too long, "
        f"{division.n_spare} were not drawn.",
        err=True,
    )


def _held(run: Run) -> dict[str, Any] | None:
    """What the run knows of its division; None if it has none yet."""
    return next((json.loads(event.details) for event in run.events() if event.kind == DIVIDED), None)


def _whole(files: Mapping[str, Path], digests: Mapping[str, str]) -> bool:
    from ..formats import content_digest

    return all(path.is_file() and content_digest(path) == digests[part] for part, path in files.items())


def _refuse_lacking(division: Division, study: Study) -> None:
    from ..errors import DataError

    if lacking := division.lacking(study.data):
        told = ", ".join(f"{n} for {part}" for part, n in lacking.items())
        n_fit = division.n_spare + sum(map(len, division.parts.values()))
        raise DataError(
            f"The data have {n_fit} rows that fit the study, too few: it lacks {told}.",
            "Give more data, or lower the sizes under [data] in a study file of your own.",
        )


def _write(division: Division, files: Mapping[str, Path], data: Path) -> dict[str, str]:
    """The digests of the files, which hold the rows as they were, for the owner alone."""
    from ..formats import content_digest
    from ..outputs import failures_told

    for part, path in files.items():
        with failures_told(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.parent.chmod(0o700)
        write_rows(path, division.parts[part], [data])
    return {part: content_digest(path) for part, path in files.items()}


def write_rows(path: Path, samples: Sequence[Sample], data: Sequence[Path] = ()) -> None:
    """Nothing; the file holds the rows byte for byte, a line each, with mode 0600; it is never one of `data`."""
    from ..outputs import failures_told, placed

    with placed(path, "jsonl", data) as place, failures_told(path), place.path.open("wb") as stream:
        stream.writelines(sample.raw + b"\n" for sample in samples)
