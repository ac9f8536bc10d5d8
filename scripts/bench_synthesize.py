#!/usr/bin/env python
"""Does synthesis close a planted gap? PubMedQA without cardiology: found, named, written for, added, assessed again.

    python scripts/bench_synthesize.py --data DIR --work DIR [--judge CARD] [--rows N] [-n N]

DIR holds pubmedqa/ori_pqal.json. Every step is a `goalcover` command on folders under --work: stopped at any moment,
the same line goes on. Two copies of training rows, one verbatim and one with a word changed, are planted as drafts.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from bench_gaps import cases, goal_file, written

SUBGOAL = "cardiology"


def _goalcover(*arguments: object) -> float:
    """The seconds that a `goalcover` command took; what it prints is shown."""
    started = time.monotonic()
    click.echo(f"$ goalcover {' '.join(map(str, arguments))}")
    done = subprocess.run([sys.executable, "-m", "goalcover_local.cli.main", *map(str, arguments)], check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.returncode)
    return time.monotonic() - started


def _told(*arguments: object) -> list[dict[str, Any]]:
    """What `goalcover export` writes."""
    command = [sys.executable, "-m", "goalcover_local.cli.main", "export", *map(str, arguments)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def _support(run: Path) -> str:
    command = [sys.executable, "-m", "goalcover_local.cli.main", "show", str(run), "--json"]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = next(each for each in shown["subgoals"] if each["id"] == SUBGOAL)
    return f"{found['support']['n']} of {found['n_judged']}, {found['verdict']}"


def _lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@click.command()
@click.option("--data", "data_dir", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where runs are kept.")
@click.option("--judge", "card", default="qwen2.5-coder-1.5b-instruct", show_default=True)
@click.option("--rows", type=int, default=80, show_default=True, help="Rows of the dataset.")
@click.option("-n", "n_wanted", type=int, default=20, show_default=True, help="Samples to keep.")
def main(data_dir: Path, work: Path, card: str, rows: int, n_wanted: int) -> None:
    """Plant a gap, find it, have it filled, and look again."""
    case = next(case for case in cases(data_dir) if case.name == "pubmedqa")
    taught_by = next(each.taught_by for each in case.capabilities if each.id == SUBGOAL)
    shuffled = list(case.rows)
    random.Random(0).shuffle(shuffled)

    work.mkdir(parents=True, exist_ok=True)
    left = written(case, [row for row in shuffled if not taught_by(row)][:rows])
    data = _lines(work / "data.jsonl", left)
    holdout = _lines(work / "holdout.jsonl", written(case, [row for row in shuffled if taught_by(row)]))
    edited = {**left[1], "answer": left[1]["answer"].replace(" the ", " a ", 1)}
    drafts = _lines(work / "drafts.jsonl", [left[0], edited])
    goal = goal_file(case, work)
    run, again, mixes = work / "run", work / "again", work / "mixes"
    took = {"run": _goalcover("run", goal, data, "--run", run, "--judge", card)}
    if SUBGOAL not in [gap["subgoal"] for gap in _told(run, "--what", "gaps")]:
        _goalcover("analyze", run, "--subgoal", SUBGOAL)
    asked = ("-n", n_wanted, "--subgoal", SUBGOAL, "--drafts", drafts, "--holdout", holdout)
    took["synthesize"] = _goalcover("synthesize", run, *asked)
    found = _told(run, "--what", "candidates")
    for each in found[:2]:
        click.echo(f"planted copy {each['number'] + 1}: {each['fate']}, {each['reason']}")
    made = [each for each in found if each["provenance"].get("generator") != "a file"]
    fates = Counter(each["fate"] for each in made)
    click.echo(f"written {len(made)}: {dict(fates)}; keep rate {fates['kept'] / max(1, len(made)):.2f}")
    kept = [each for each in made if each["fate"] == "kept"]
    for each in kept[:3]:
        shown = {name: each[name] for name in ("fields", "quality", "alignment", "rank", "round", "provenance")}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    _goalcover("mix", run, "-o", mixes)
    took["assess again"] = _goalcover(
        "assess", goal, mixes / "synthetic-original.jsonl", "--run", again, "--judge", card, "--explain", "none"
    )
    supporting = sum(each["alignment"] >= 0.6 - 1e-9 for each in kept)
    click.echo(f"support before: {_support(run)}")
    click.echo(f"by the stored scores: {supporting} more of {len(kept)} more rows")
    click.echo(f"assessed again: {_support(again)}")
    for what, seconds in took.items():
        click.echo(f"{what}: {seconds / 60:.1f} min")


if __name__ == "__main__":
    main()
