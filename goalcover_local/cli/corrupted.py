"""Runs of data from which rows were removed: made of the judgements that are there, then analyzed like any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..scales import reference_samples, reference_subgoals
from ..store import Run
from ..terms import Explanation, Judgement, digest_of
from .results import STARTED, Results, settings

if TYPE_CHECKING:
    from ..studies.removals import Removal
    from .judging import Models


def corrupted_run(run: Run, found: Results, positions: np.ndarray, folder: Path) -> Path:
    """The folder of a run that holds the rows at these positions, byte for byte, and all that was said of them.

    It is the one given, unless that holds other rows: of another seed, or of a study that was edited since.
    """
    kept = set(positions.tolist())
    digest = digest_of([run.data_digest(), sorted(kept)])
    folder = _folder_for(digest, folder)
    with Run.open(folder, write=True, create=True) as left:
        rows = (row for position, row in enumerate(run.rows()) if position in kept)
        left.put_rows(rows, digest)
        left.put_goal(found.goal)
        left.put_subgoals(reference_subgoals())
        left.put_samples(reference_samples())
        subgoals = [subgoal.digest for subgoal in (*found.goal.subgoals, *reference_subgoals())]
        digests = [sample.digest for sample in reference_samples()]
        keys = np.unique(np.concatenate([run.row_samples(positions), run.keys(digests)]))
        keys = keys[keys >= 0]
        names = [sample.digest for sample in run.samples(keys)]
        for judge in found.judges:
            left.put_judge(run.judges()[judge])
            if scale := run.scale(judge):
                left.put_scale(judge, scale)
            left.append(
                judge, _judgements(run, judge, subgoals, names, keys), *_beside(run, judge, subgoals, set(names))
            )
        told = {name: value for name, value in settings(run).items() if name != "rows"}
        left.event(STARTED, {**told, "data": left.data_digest(), "limit": 0}, "goalcover validate")
    return folder


def _folder_for(digest: str, folder: Path) -> Path:
    """The folder, or one beside it that is named by the digest of its rows as well."""
    if folder.exists():
        with Run.open(folder, write=True, create=True) as held:
            if held.data_digest() not in (None, digest):
                return folder.with_name(f"{folder.name}-{digest[:8]}")
    return folder


def _judgements(run: Run, judge: str, subgoals: list[str], names: list[str], keys: np.ndarray) -> list[Judgement]:
    """What a judge said of these samples, failures with their reasons."""
    judged = run.probabilities(judge, subgoals, keys)
    failures = {(each.sample, each.subgoal): each.failure for each in run.failures(judge)}
    found = []
    for row, name in enumerate(names):
        for column, subgoal in enumerate(subgoals):
            if judged.failed[row, column]:
                found.append(Judgement(name, subgoal, None, failures[name, subgoal]))
            elif not np.isnan(judged.probabilities[row, column, 0]):
                found.append(Judgement(name, subgoal, tuple(judged.probabilities[row, column].tolist())))
    return found


def _beside(
    run: Run, judge: str, subgoals: list[str], names: set[str]
) -> tuple[list[Explanation], list[tuple[str, int]]]:
    """What a judge explained of these samples, and what it did not see of them."""
    explained = [each for subgoal in subgoals for each in run.explanations(judge, subgoal) if each.sample in names]
    return explained, [(name, n) for name, n in run.truncations(judge).items() if name in names]


def mended(folder: Path, removal: Removal, models: Models, options: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Issue and fix for the target of a removal in the run of what it left, and how many answers failed."""
    from . import analyze, recommend
    from .results import results

    with Run.open(folder, write=True) as left:
        chosen = {**options, "value": None, "tau": None, "rule": "support", "only": (removal.target,), "explain": True}
        chosen |= {"all_low": False, "plain": False}
        failures = analyze.analyze_run(left, models, chosen) + recommend.recommend_run(left, models, chosen)
        given = {each.subgoal: each for each in left.recommendations()}.get(removal.target)
        named = {gap.subgoal: gap for gap in left.gaps()}.get(removal.target)
        verdict = next(each.verdict for each in results(left).coverage if each.subgoal.id == removal.target)
    told = {
        "removal": removal.name,
        "target": removal.target,
        "run": str(folder),
        "verdict": verdict,
        "missing": [each.name for each in named.missing] if named else [],
        "issue": given.issue if given else "",
        "fix": given.fix if given else "",
    }
    return told, failures.total()
