#!/usr/bin/env python
"""What the store takes: 100,000 synthetic samples and their judgements, rate and peak memory.

python scripts/bench_store.py [--samples 100000] [--subgoals 8]
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from goalcover_local.store import Run
from goalcover_local.terms import Judgement, Sample, Subgoal

PAIRS_PER_BATCH = 2048


def samples(n: int) -> Iterator[Sample]:
    """Synthetic rows of about a thousand characters."""
    for k in range(n):
        yield Sample(
            f"row-{k}", f"question {k} " + "why " * 40, f"answer {k} " + "because of this " * 50, "synthetic", k + 1
        )


@click.command()
@click.option("--samples", "n_samples", type=int, default=100_000, show_default=True)
@click.option("--subgoals", "n_subgoals", type=int, default=8, show_default=True)
def main(n_samples: int, n_subgoals: int) -> None:
    """Measure the store."""
    subgoals = [Subgoal(f"s{k}", f"Subgoal {k}", "Something to support.") for k in range(n_subgoals)]
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder) / "run", write=True, create=True) as run:
        started = time.perf_counter()
        run.put_rows(samples(n_samples), "synthetic")
        click.echo(f"{n_samples} rows taken in in {time.perf_counter() - started:.1f} s")
        run.put_subgoals(subgoals)
        judge = run.put_judge({"engine": "none"})
        digests = [sample.digest for sample in samples(n_samples)]
        probabilities = (0.1, 0.1, 0.2, 0.2, 0.2, 0.2)
        n = 0
        started = time.perf_counter()
        step = PAIRS_PER_BATCH // n_subgoals
        for start in range(0, n_samples, step):
            judgements = [
                Judgement(d, s.digest, probabilities) for d in digests[start : start + step] for s in subgoals
            ]
            run.asking(len(judgements))
            run.append(judge, judgements)
            n += len(judgements)
        seconds = time.perf_counter() - started
        click.echo(f"{n} judgements stored in {seconds:.1f} s: {n / seconds:.0f} a second, {PAIRS_PER_BATCH} a batch")
        started = time.perf_counter()
        run.probabilities(judge, [subgoal.digest for subgoal in subgoals])
        click.echo(f"read back as arrays in {time.perf_counter() - started:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
