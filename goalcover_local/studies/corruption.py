"""Controlled corruption: what a judge's values do when the rows that teach a subgoal are removed (paper, section 4).

Before and after come from the same judgements, so one assessment serves every removal, every seed, and a control that
the paper lacks: as many rows removed at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .. import resampling, stats

Measure = Literal["alignment", "graded support", "support"]
"""What is compared: the mean of rows' values, the mean of how far they support a subgoal, or the share that does.

Alignment uses every row, so it tells a drop from chance first; graded support says how much of what there was is lost.
"""

MEASURES: tuple[Measure, ...] = ("alignment", "graded support", "support")

Kind = Literal["removal", "natural gap", "control"]
"""Whether rows of a kind are all taken out, or thinned, or rows are taken at random, which nothing should notice."""

LEAST_BASE = 0.02
"""A relative change is not stated of less than this."""

ALPHA = 0.01
"""A drop is told from chance where fewer than this share of random removals lower as much."""

_DUST = 1e-9
"""What rounding may leave of no change."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one removal did to one subgoal.

    `absolute` is after less original, `relative` that by the original, NaN where it is under 0.02; `low` and `high` are
    the 95% bootstrap interval of the relative change, or of the absolute where there is none. `p` is how likely a
    random removal of as many rows lowers it as much.
    """

    subgoal: str
    target: bool
    original: float
    after: float
    absolute: float
    relative: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What one removal did: how many rows it took, and a cell for each subgoal, in the goal's order."""

    removal: str
    kind: Kind
    n_rows: int
    n_removed: int
    cells: tuple[Cell, ...]

    @property
    def retention(self) -> float:
        """The share of the rows that is left."""
        return 1 - self.n_removed / self.n_rows if self.n_rows else float("nan")

    @property
    def target(self) -> Cell:
        """The cell of the subgoal that should lose."""
        return next(cell for cell in self.cells if cell.target)

    @property
    def flagged(self) -> bool:
        """Whether the target lost more than chance would have it."""
        return bool(self.target.p < ALPHA)

    @property
    def most_affected(self) -> bool:
        """Whether the target lost the largest share of what it had, and no other had too little to say and lost it."""
        if any(np.isnan(cell.relative) and cell.p < ALPHA for cell in self.cells if not cell.target):
            return False
        drops = [-cell.relative for cell in self.cells if not np.isnan(cell.relative)]
        return max(drops, default=0.0) > _DUST and -self.target.relative >= max(drops) - _DUST


@dataclass(frozen=True, slots=True)
class Separation:
    """Targets against the other subgoals, over removals (paper, section 5.2).

    `target` and `others` are mean relative losses (0.25 is a loss of a quarter), each with a 95% bootstrap interval
    over rows, as has Cohen's d in `paired`. A removal whose target had too little to lose is not counted.
    """

    n: int
    n_most_affected: int
    n_flagged: int
    target: float
    target_interval: tuple[float, float]
    others: float
    others_interval: tuple[float, float]
    paired: resampling.Paired
    d_interval: tuple[float, float]


class Losses(NamedTuple):
    """Relative losses of one removal: the target's and the mean of the others', found and in bootstrap draws (n,)."""

    target: float
    others: float
    target_draws: np.ndarray
    others_draws: np.ndarray


@dataclass(frozen=True, slots=True)
class Corruption:
    """What the removals did to one draw of rows, by one measure."""

    n_rows: int
    effects: tuple[Effect, ...]
    losses: tuple[Losses, ...]

    def separation(self, kind: Kind = "removal") -> Separation:
        """Targets against others, over the removals of that kind."""
        chosen = [(effect, loss) for effect, loss in zip(self.effects, self.losses, strict=True) if effect.kind == kind]
        return separation([effect for effect, _ in chosen], [loss for _, loss in chosen])


def strategic(matched: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of a strategic sample, shuffled, (size,), those of its base, and each pattern's shortfall, (k,).

    The base is half of it, drawn from all rows, so that it shows the natural mix; the other half comes evenly from the
    rows that each pattern matches, `matched` (k, n), and where one lacks some, from any rows (paper, section 4.3). A
    pattern falls short if fewer of all rows drawn match it than were to be drawn for it.
    """
    order = resampling.drawn(matched.shape[1], seed)
    size = min(size, len(order))
    n_base = size - size // 2 if len(matched) else size
    base = order[:n_base]
    taken = np.zeros(len(order), dtype=bool)
    taken[base] = True
    quota, more = divmod(size - n_base, max(1, len(matched)))
    wanted = quota + (np.arange(len(matched)) < more)
    for number, pattern in enumerate(matched):
        taken[order[pattern[order] & ~taken[order]][: wanted[number]]] = True
    rest = order[~taken[order]][: size - int(taken.sum())]
    taken[rest] = True
    shortfalls = np.maximum(0, wanted - (matched & taken).sum(axis=1))
    positions = np.flatnonzero(taken)
    return positions[resampling.drawn(len(positions), seed + 1)], base, shortfalls


def measured(values: np.ndarray, measure: Measure) -> np.ndarray:
    """What a measure takes the mean of, (n, m), of values (n, m); NaN stays NaN."""
    if measure == "graded support":
        return stats.graded_support(values)
    if measure == "support":
        return np.where(np.isnan(values), np.nan, stats.supports(values).astype(float))
    return values


def corrupt(
    values: np.ndarray,
    removed: np.ndarray,
    subgoals: Sequence[str],
    targets: Sequence[int],
    *,
    names: Sequence[str],
    kinds: Sequence[Kind] = (),
    samples: np.ndarray | None = None,
    n_draws: int = 10_000,
    n_replicates: int = 2_000,
    seed: int = 0,
) -> Corruption:
    """What k removals did to the means of values (n, m): a removal is a row of `removed` (k, n), its target a column.

    `n_draws` random removals of as many samples each, and `n_replicates` bootstrap draws, fixed by `seed`. `samples`
    (n,) says which rows hold the same sample: chance and bootstrap draw samples.
    """
    before, after = resampling.changes(values, removed)
    found_before, found_after = resampling.replicates(values, removed, samples, n_draws=n_replicates, seed=seed)
    enough = before >= LEAST_BASE
    relative, drawn = _relative(before, after, enough), _relative(found_before, found_after, enough)
    effects, losses = [], []
    for k, target in enumerate(targets):
        p = resampling.by_chance(*resampling.distinct(values, removed[k], samples), n_draws=n_draws, seed=seed)
        cells = []
        for column, subgoal in enumerate(subgoals):
            stated = not np.isnan(relative[k, column])
            draws = drawn[:, k, column] if stated else (found_after - found_before)[:, k, column]
            cells.append(
                Cell(
                    subgoal=subgoal,
                    target=column == target,
                    original=float(before[k, column]),
                    after=float(after[k, column]),
                    absolute=float(after[k, column] - before[k, column]),
                    relative=float(relative[k, column]),
                    low=resampling.interval(draws)[0],
                    high=resampling.interval(draws)[1],
                    p=float(p[column]),
                )
            )
        others = [column for column in range(len(subgoals)) if column != target]
        losses.append(
            Losses(
                float(-relative[k, target]),
                float(-_mean(relative[k, others])),
                -drawn[:, k, target],
                -_mean(drawn[:, k, others]),
            )
        )
        kind = kinds[k] if kinds else "removal"
        effects.append(Effect(names[k], kind, len(values), int(removed[k].sum()), tuple(cells)))
    return Corruption(len(values), tuple(effects), tuple(losses))


def separation(effects: Sequence[Effect], losses: Sequence[Losses]) -> Separation:
    """Targets against others, over removals that may be of several studies."""
    told = [
        (effect, loss)
        for effect, loss in zip(effects, losses, strict=True)
        if not np.isnan(loss.target) and not np.isnan(loss.others)
    ]
    if not told:
        nan = float("nan")
        nothing = resampling.paired(np.empty(0), np.empty(0))
        n_flagged = sum(effect.flagged for effect in effects)
        return Separation(0, 0, n_flagged, nan, (nan, nan), nan, (nan, nan), nothing, (nan, nan))
    target, others = np.array([[loss.target, loss.others] for _, loss in told]).T
    n = min(len(loss.target_draws) for _, loss in told)
    target_draws = np.stack([loss.target_draws[:n] for _, loss in told])
    others_draws = np.stack([loss.others_draws[:n] for _, loss in told])
    return Separation(
        n=len(told),
        n_most_affected=sum(effect.most_affected for effect, _ in told),
        n_flagged=sum(effect.flagged for effect, _ in told),
        target=float(target.mean()),
        target_interval=resampling.interval(target_draws.mean(axis=0)),
        others=float(others.mean()),
        others_interval=resampling.interval(others_draws.mean(axis=0)),
        paired=resampling.paired(target, others),
        d_interval=resampling.interval(resampling.cohens_d(target_draws, others_draws)),
    )


def _relative(before: np.ndarray, after: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """The change by what there was before; NaN where that is not enough, or nothing."""
    there = enough & (before > 0)
    return np.where(there, (after - before) / np.where(there, before, 1.0), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of what is not missing over the last axis; NaN where all is."""
    there = ~np.isnan(values)
    n = there.sum(axis=-1)
    result: np.ndarray = np.where(n > 0, np.where(there, values, 0.0).sum(axis=-1) / np.maximum(n, 1), np.nan)
    return result
