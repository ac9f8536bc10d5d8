"""Every judge's values of the pairs that several runs share, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ..errors import StoreError
from .results import settings, values_of

if TYPE_CHECKING:
    from ..store import Run
    from ..terms import Subgoal


@dataclass(frozen=True)
class Raters:
    """Several judges' values of the same pairs, (n_judges, n_samples, n_subgoals), NaN where one has none.

    `identities` and `names` are in the judges' order. `samples` are digests in the data's order, `rows` the place there
    of each row by its id, `subgoals` by digest. An id in `ambiguous` is that of different rows, and so of none.
    """

    identities: Mapping[str, Mapping[str, Any]]
    names: Sequence[str]
    value: str
    values: np.ndarray
    samples: Sequence[str]
    rows: Mapping[str, int]
    ambiguous: Collection[str]
    subgoals: Mapping[str, Subgoal]


def gathered(runs: Sequence[Run], value: str | None) -> Raters:
    """What the judges of the runs said of their goals' subgoals; samples and subgoals of equal digest are one.

    Without a value: the first run's, the corrected one in place of a calibrated one; the expectation if a judge lacks
    it. Raises StoreError if nothing was judged.
    """
    samples: dict[str, int] = {}
    rows: dict[str, int] = {}
    ambiguous: set[str] = set()
    subgoals: dict[str, Subgoal] = {}
    found: list[tuple[str, Mapping[str, np.ndarray], np.ndarray, list[str]]] = []
    identities: dict[str, Mapping[str, Any]] = {}
    chosen = value or str(settings(runs[0])["value"]).replace("calibrated", "corrected")
    for run in runs:
        places = np.empty(run.n_rows(), dtype=np.int64)
        for number, row in enumerate(run.rows()):
            places[number] = samples.setdefault(row.digest, len(samples))
            if rows.setdefault(row.id, int(places[number])) != places[number]:
                ambiguous.add(row.id)
        keys, first = np.unique(run.row_samples(), return_index=True)
        goal = run.goal()
        own = {subgoal.digest: subgoal for subgoal in goal.subgoals}
        subgoals |= {digest: subgoal for digest, subgoal in own.items() if digest not in subgoals}
        for judge, identity in run.judges().items():
            judged, _, values = values_of(run, goal, judge, keys)
            if not np.isnan(judged.probabilities).all():
                found.append((judge, values, places[first], list(own)))
                identities.setdefault(judge, identity)
    if value is None and not all(chosen in values for _, values, _, _ in found):
        chosen = "expectation"
    lacking = {judge for judge, values, _, _ in found if chosen not in values}
    names = _names(identities)
    for judge in lacking:
        click.echo(f"{names.pop(judge)} has no {chosen} values and is left out.", err=True)
    if not names:
        raise StoreError("No judge has values of the runs' pairs.", "Assess the runs, or choose another --value.")
    columns = {digest: column for column, digest in enumerate(subgoals)}
    table = np.full((len(names), len(samples), len(columns)), np.nan)
    order = {judge: number for number, judge in enumerate(names)}
    for judge, values, at, own_digests in found:
        if judge in order:
            cells = order[judge], at[:, None], np.array([columns[digest] for digest in own_digests])
            table[cells] = np.where(np.isnan(table[cells]), values[chosen], table[cells])
    kept = {judge: identities[judge] for judge in names}
    own_rows = {identity: place for identity, place in rows.items() if identity not in ambiguous}
    return Raters(kept, list(names.values()), chosen, table, list(samples), own_rows, ambiguous, subgoals)


def _names(identities: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A name for each judge by its digest: its card, and the digest's beginning where cards repeat."""
    cards = {judge: str(identity.get("card", "?")) for judge, identity in identities.items()}
    counts = Counter(cards.values())
    return {judge: card if counts[card] == 1 else f"{card} {judge[:8]}" for judge, card in cards.items()}
