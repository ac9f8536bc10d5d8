"""What `experiment` does once policies are trained: they are graded, and what that comes to is written and shown."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .assessing import value_for
from .belonging import Belonging, by_judge, tell_belonging
from .evaluating import choose, graded, respond, stop
from .judging import Models
from .stages import flags
from .standings import Answered
from .trained import averages
from .training import grader_of, samples_of

if TYPE_CHECKING:
    from ..finetune.grpo import Settings
    from ..finetune.rubric import Rubric
    from ..report.downstream import Evaluation
    from ..store import Run
    from ..studies.downstream import Study
    from ..studies.outcome import Grades
    from ..terms import Sample
    from .mixtures import Dataset

ENDED = "experiment ended"
JSON, MARKDOWN = "experiment.json", "experiment.md"

_NO_TIMES = ("score", "judged", "checked", "kl", "tokens", "truncated", "zero_variance", "failed", "length_correlation")
"""What is told of a training's steps: nothing that another run of the same would have otherwise."""


def conclude(
    study: Study,
    rubric: Rubric,
    settings: Settings,
    datasets: Mapping[str, Dataset],
    test: Path,
    options: Mapping[str, Any],
) -> int:
    """How many answers of judges are missing; the run holds the tables and figures, which are printed.

    What was concluded before of the same trainings, judges and test rows is not done again.
    """
    from ..chain import digest_of_text
    from ..files import replace_file
    from ..report import downstream
    from ..store import Run

    trained = {
        row: [study.training_name(row, seed) for seed in study.seeds] for row in datasets if not datasets[row].why
    }
    folder: Path = options["run_folder"]
    with Run.open(folder, write=True) as run, Models(options) as models:
        key = _key(run, study, rubric, trained, datasets, test, options)
        if (n_failed := _concluded(run, key)) is not None and not (n_failed and options["retry_failed"]):
            click.echo("evaluate: done before.", err=True)
            _show(folder, options)
            return n_failed
        samples, evaluations, belonging = _evaluated(run, models, study, rubric, settings, trained, test, options)
        facts = _facts(run, study, rubric, settings, datasets, trained, samples, belonging)
        n_failed = belonging.n_failed + sum(sum(each.failures.values()) for each in evaluations)
        figures = downstream.figures(evaluations[0])
        for name, svg in figures.items():
            replace_file(folder / name, svg, mode=0o600)
        replace_file(folder / MARKDOWN, downstream.markdown(facts, evaluations), mode=0o600)
        text = json.dumps(downstream.record(facts, evaluations), indent=2, ensure_ascii=False) + "\n"
        replace_file(folder / JSON, text, mode=0o600)
        details = {
            "key": key,
            "files": _digests(folder),
            "drawn": {name: digest_of_text(svg) for name, svg in figures.items()},
            "n_failed": n_failed,
            "sizes": facts["sizes"],
            "means": {standing.policy: _number(standing.score.value) for standing in evaluations[0].outcome.standings},
        }
        run.event(ENDED, details, "goalcover experiment")
    click.echo(f"Kept: {JSON}, {MARKDOWN} and figures in {folder}.", err=True)
    _show(folder, options)
    return n_failed


def _number(value: float) -> float | None:
    return None if value != value else round(value, 6)


def _key(
    run: Run,
    study: Study,
    rubric: Rubric,
    trained: Mapping[str, Sequence[str]],
    datasets: Mapping[str, Dataset],
    test: Path,
    options: Mapping[str, Any],
) -> str:
    """What decides the conclusion: trainings and their files, datasets, test rows, judges, reward, goal, version."""
    from .. import __version__
    from ..cards import load_card
    from ..formats import content_digest
    from ..goal_files.reading import find_goal, read_goal
    from ..terms import digest_of
    from ..trainings import Trainings

    trainings = Trainings(run)
    names = [name for those in trained.values() for name in those]
    return digest_of(
        [
            __version__,
            study.title,
            {name: trainings.result(name) for name in names},
            {row: [each.n_samples, each.why] for row, each in datasets.items()},
            [content_digest(test), *(options[name] for name in ("input_column", "output_column", "template"))],
            [repr(load_card(name)) for name in (study.policy, *study.judges, study.alignment_judge)],
            [rubric.digest, read_goal(find_goal(study.goal)).digest, *(options[name] for name in ("engine", "device"))],
        ]
    )


def _concluded(run: Run, key: str) -> int | None:
    """How many answers were missing when this was concluded; None if it was not, or if what was written is gone."""
    from .results import latest

    told = latest(run, ENDED)
    if told is None or told["key"] != key or told["files"] != _digests(run.folder):
        return None
    return int(told["n_failed"])


def _digests(folder: Path) -> dict[str, str]:
    """The digests of what is written, of those files that are there."""
    from ..formats import content_digest

    return {name: content_digest(folder / name) for name in (JSON, MARKDOWN) if (folder / name).is_file()}


def _show(folder: Path, options: Mapping[str, Any]) -> None:
    click.echo((folder / (JSON if options["as_json"] else MARKDOWN)).read_text(encoding="utf-8"), nl=False)


def _evaluated(
    run: Run,
    models: Models,
    study: Study,
    rubric: Rubric,
    settings: Settings,
    trained: Mapping[str, Sequence[str]],
    test: Path,
    options: Mapping[str, Any],
) -> tuple[list[Sample], list[Evaluation], Belonging]:
    """The test samples, what each judge's grades of every policy come to, and which subgoals the samples belong to."""
    from ..cards import load_card
    from ..goal_files.reading import find_goal, read_goal
    from ..terms import UNTUNED
    from ..trainings import Trainings

    trainings, memory, ends = Trainings(run), run.memory(), options["ends"]
    named = {UNTUNED: [UNTUNED], **trained}
    names = [name for those in named.values() for name in those]
    asked = {
        **options,
        "names": names,
        "against": None,
        "policy_card": study.policy,
        "reward": study.reward,
        "card_name": study.judges[0],
        "data": test,
        "file_format": None,
        "split": None,
        "seed": study.data.seed,
        "limit": None,
        "max_prompt_tokens": study.data.max_prompt_tokens or None,
        "temperature": 0.0,
    }
    for judge in study.judges:
        _tell_command(run.folder, test, {**asked, "card_name": judge}, study)
    chosen = replace(choose(trainings, asked), max_tokens=settings.max_tokens)
    samples, written = respond(trainings, chosen, rubric, samples_of(asked)[0], memory, asked, ends)
    answers = []
    for name in study.judges:
        grader = grader_of(load_card(name), study.reward, models)
        found = graded(grader, samples, written, memory, ends, retry_failed=options["retry_failed"])
        answers.append((name, grader.digest, grader.agreement, found))
        if name != study.alignment_judge or name != study.judges[-1]:
            models.close()
    card = load_card(study.alignment_judge)
    aligning, goal = models.judge(card), read_goal(find_goal(study.goal))
    value = value_for([card], {"value": None})
    retry = options["retry_failed"]
    belonging = by_judge(aligning, goal, samples, memory, value=value, retry_failed=retry, ends=ends) or stop()
    tell_belonging(belonging, len(samples))
    models.close()
    evaluations = [
        _evaluation(study, name, digest, agreement, answered, named, belonging)
        for name, digest, agreement, answered in answers
    ]
    return samples, evaluations, belonging


def _tell_command(folder: Path, test: Path, options: Mapping[str, Any], study: Study) -> None:
    """Nothing; shows what is done as it would be typed."""
    from .evaluate import command

    told = {name: value for name, value in options.items() if name not in ("max_hours", "as_json", "policy_card")}
    told |= {"goal": study.goal, "alignment_judge": study.alignment_judge}
    click.echo(f"\n$ goalcover {shlex.join(['evaluate', str(folder), str(test), *flags(command, told)])}", err=True)


def _evaluation(
    study: Study,
    name: str,
    digest: str,
    agreement: float,
    answered: Mapping[str, Answered],
    named: Mapping[str, Sequence[str]],
    belonging: Belonging,
) -> Evaluation:
    from ..report.downstream import Evaluation
    from ..studies.downstream import ORIGINAL
    from ..studies.outcome import outcome
    from ..terms import UNTUNED

    grades = {row: _grades([answered[each] for each in those]) for row, those in named.items()}
    missing = (grade.failure for each in answered.values() for grade in each.grades if grade.score is None)
    found = outcome(grades, (ORIGINAL, UNTUNED), belonging.members, belonging.subgoals, study.data.seed)
    failures = Counter(failure or "no grade" for failure in missing)
    return Evaluation(name, digest, name == study.judge, agreement, failures, found)


def _grades(trainings: Sequence[Answered]) -> Grades:
    """A row's grades, a line for each of its trainings."""
    import numpy as np

    from ..studies.outcome import PARTS, Grades

    parts = {part: np.array([each.part(part) for each in trainings]) for part in PARTS}
    return Grades(**parts, words=np.array([each.lengths for each in trainings]))


def _facts(
    run: Run,
    study: Study,
    rubric: Rubric,
    settings: Settings,
    datasets: Mapping[str, Dataset],
    trained: Mapping[str, Sequence[str]],
    samples: Sequence[Sample],
    belonging: Belonging,
) -> dict[str, Any]:
    """What was done, as plain values: nothing that would be otherwise if it were done again."""
    from ..goal_files.reading import find_goal, read_goal
    from ..trainings import Trainings

    trainings = Trainings(run)
    told = []
    n_ends = max(1, min(10, settings.steps // 3))
    rows: set[str] = set()
    for row, names in trained.items():
        for seed, name in zip(study.seeds, names, strict=True):
            given, steps = trainings.settings(name), trainings.steps(name)
            parts = {"first": averages(steps[:n_ends]), "last": averages(steps[-n_ends:])}
            rows |= set(given["rows"])
            told.append(
                {
                    "name": name,
                    "row": row,
                    "seed": seed,
                    "n_rows": len(given["rows"]),
                    **{part: {each: found.get(each) for each in _NO_TIMES} for part, found in parts.items()},
                }
            )
    return {
        "study": study.name,
        "title": study.title,
        "goal": Path(study.goal).stem,
        "goal_digest": read_goal(find_goal(study.goal)).digest,
        "reward": rubric.name,
        "reward_digest": rubric.digest,
        "policy": study.policy,
        "judge": study.judge,
        "alignment_judge": study.alignment_judge,
        "settings": {name: value for name, value in settings.record().items() if name != "seed"},
        "seeds": list(study.seeds),
        "sizes": {row: each.n_samples for row, each in datasets.items()},
        "not_trained": {row: each.why for row, each in datasets.items() if each.why},
        "trainings": told,
        "n_ends": n_ends,
        "n_test": len(samples),
        "n_test_seen": sum(any(sample.digest.startswith(row) for row in rows) for sample in samples),
        "belonging": {"by": belonging.value, "n_none": belonging.n_none, "n_failed": belonging.n_failed},
    }
