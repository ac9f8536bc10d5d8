#!/usr/bin/env python
"""Does filtering do what it says? MedQuAD rows assessed, filtered, and those that were kept assessed again.

    python scripts/bench_filter.py --data DIR --work DIR [--judge CARD] [--rows N] [--keep RULE]

DIR holds medquad/medquad.jsonl. Prints each subgoal's alignment over all rows, over those kept, and over those kept
when they are assessed as a dataset of their own; and whether kept and rejected rows are all rows, in their order.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from bench_gaps import cases, goal_file


def _goalcover(*arguments: object) -> str:
    """What a `goalcover` command prints."""
    command = [sys.executable, "-m", "goalcover_local.cli.main", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _alignments(run: Path) -> dict[str, float]:
    shown: dict[str, Any] = json.loads(_goalcover("show", run, "--json"))
    return {each["id"]: each["alignment"][shown["value"]] for each in shown["subgoals"]}


@click.command()
@click.option("--data", "data_dir", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where runs are kept.")
@click.option("--judge", "card", default="smollm2-135m-instruct", show_default=True)
@click.option("--rows", type=int, default=200, show_default=True)
@click.option("--keep", default="any >= 0.6", show_default=True)
def main(data_dir: Path, work: Path, card: str, rows: int, keep: str) -> None:
    """Assess, filter, assess again."""
    case = next(case for case in cases(data_dir) if case.name == "medquad")
    chosen = random.Random(0).sample(list(case.rows), rows)
    work.mkdir(parents=True, exist_ok=True)
    data, kept, rejected = work / "data.jsonl", work / "kept.jsonl", work / "kept.rejected.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    goal = goal_file(case, work)
    judged = ("--judge", card, "--explain", "none")
    _goalcover("assess", goal, data, "--run", work / "all", *judged)
    click.echo(_goalcover("filter", work / "all", "-o", kept, "--keep", keep))
    _goalcover("assess", goal, kept, "--run", work / "kept-alone", *judged)

    lines = data.read_bytes().splitlines()
    parts = [file.read_bytes().splitlines() for file in (kept, rejected)]
    places = [[lines.index(line) for line in part] for part in parts]
    ordered = all(part == sorted(part) for part in places)
    whole = sorted(places[0] + places[1]) == [lines.index(line) for line in lines]
    click.echo(f"kept {len(parts[0])} + rejected {len(parts[1])} = all {len(lines)}: {whole}; each in order: {ordered}")
    before, after = _alignments(work / "all"), _alignments(work / "kept-alone")
    for name, value in before.items():
        click.echo(f"{name}: alignment {value:.3f} of all rows, {after[name]:.3f} of those kept, assessed again")


if __name__ == "__main__":
    main()
