"""Bias probes of the judges of runs: asked, told as JSON, and printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .judging import Models

if TYPE_CHECKING:
    from ..store import Run
    from ..studies.probes import Length, Move
    from .raters import Raters


def probed(runs: Sequence[Run], raters: Raters, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the probes found of each run's judge, on rows of the first run that has it."""
    from ..studies.probes import Length, Move, n_pairs, probe
    from .progress import progress
    from .results import settings

    names = dict(zip(raters.identities, raters.names, strict=True))
    done: set[str] = set()
    with Models(options) as models:
        for run in runs:
            told = settings(run)
            samples = run.samples(run.permutation(options["seed"], options["probe_rows"]))
            subgoals = run.goal().subgoals
            for digest in told.get("panel") or [told["judge"]]:
                if digest in done or digest not in names:
                    continue
                done.add(digest)
                judge = models.judge_of(raters.identities[digest], digest)
                with progress(f"Probing {names[digest]}", n_pairs(len(samples), len(subgoals)), "pairs") as bar:
                    found = list(
                        probe(
                            judge,
                            samples,
                            subgoals,
                            seed=options["seed"],
                            heard=lambda batch, bar=bar: bar.advance(  # type: ignore[misc]
                                len(batch.judgements), sum(j.failure is not None for j in batch.judgements)
                            ),
                        )
                    )
                lengths = [_length(each) for each in found if isinstance(each, Length)]
                moves = [_move(each) for each in found if isinstance(each, Move)]
                yield {"name": names[digest], "digest": digest, "lengths": lengths, "moves": moves}


def _length(found: Length) -> dict[str, Any]:
    from .shown import number

    return {"subgoal": found.subgoal, "n": found.n, "spearman": number(found.spearman), "biased": found.biased}


def _move(found: Move) -> dict[str, Any]:
    from .shown import number

    counts = {"probe": found.probe, "n": found.n, "n_failed": found.n_failed}
    return {
        **counts,
        "mean": number(found.mean),
        "distance": number(found.distance),
        "largest": number(found.largest),
        "biased": found.biased,
    }


def print_probes(probed: dict[str, Any]) -> None:
    """Nothing; prints what the probes of one judge found."""
    from ..studies.probes import CORRELATION, MOVE
    from .table import print_table

    def word(biased: bool) -> str:
        return "BIAS" if biased else "–"

    click.echo(f"\nProbes of {probed['name']}:")
    rows = [
        [
            each["probe"],
            str(each["n"]),
            str(each["n_failed"]),
            signed(each["mean"]),
            plain_number(each["distance"]),
            signed(each["largest"]),
            word(each["biased"]),
        ]
        for each in probed["moves"]
    ]
    print_table(
        ["probe", "pairs", "failed", "mean move", "mean size", "largest", f"size over {MOVE:g}"],
        rows,
        right=range(1, 6),
    )
    rows = [
        [each["subgoal"], str(each["n"]), signed(each["spearman"]), word(each["biased"])] for each in probed["lengths"]
    ]
    print_table(["subgoal", "samples", "Spearman with length", f"over {CORRELATION:g}"], rows, right=(1, 2))


def plain_number(value: float | None) -> str:
    """A number as tables show it; a dash where it is missing."""
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference as tables show it, with its sign; a dash where it is missing."""
    return "–" if value is None else f"{value:+.3f}"
