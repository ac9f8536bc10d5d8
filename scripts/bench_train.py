#!/usr/bin/env python
"""Does a policy learn what a local judge values? MedQuAD, three bullet points for a layperson, and a control.

    python scripts/bench_train.py --data DIR --work DIR [--judge CARD] [--steps N] [--test N]

DIR holds medquad/medquad.jsonl. Trains SmolLM2-135M twice, with the judge's reward and with the same rewards shuffled
within each prompt's responses; then grades the base and both on rows about diseases that no training row is about.
Every step is a `goalcover` command on folders under --work: stopped at any moment, the same line goes on. --work also
gets `curves.svg`, both trainings step by step, and `scores.svg`.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy import stats

TRAININGS = {"rewarded": (), "shuffled": ("--shuffled",)}
TRAINED_ON = 128
NUMBERS = ("in source", "but opening", "of source", "names it")


def _goalcover(*arguments: object) -> str:
    """What a `goalcover` command prints on stdout; what it says on stderr is shown."""
    click.echo(f"$ goalcover {' '.join(map(str, arguments))}")
    command = [sys.executable, "-m", "goalcover_local.cli.main", *map(str, arguments)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):
        raise SystemExit(done.returncode)
    return done.stdout


def split(medquad: Path, work: Path) -> tuple[Path, Path]:
    """Files of short rows to train on and to test on: no disease (MedQuAD's focus) is in both."""
    rows = [json.loads(line) for line in medquad.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if 40 <= len(row["answer"].split()) <= 90]
    focuses = sorted({row["focus"] for row in rows})
    random.Random(7).shuffle(focuses)
    held_out = set(focuses[: len(focuses) // 4])
    parts = [row for row in rows if row["focus"] not in held_out], [row for row in rows if row["focus"] in held_out]
    paths = work / "train.jsonl", work / "test.jsonl"
    for seed, (part, path) in enumerate(zip(parts, paths, strict=True), start=1):
        random.Random(seed).shuffle(part)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part), encoding="utf-8")
    return paths


def draw_curves(run: Path, path: Path) -> None:
    """Nothing; writes an SVG of both trainings over each other."""
    from goalcover_local.cli.trained import curve_of
    from goalcover_local.report.training import curve
    from goalcover_local.store import Run
    from goalcover_local.trainings import Trainings

    with Run.open(run, write=False) as opened:
        trainings = Trainings(opened)
        curves = [curve_of(name, trainings.steps(name)) for name in TRAININGS]
    path.write_text(curve(curves, title="Rewarded by the judge, and by shuffled rewards"), encoding="utf-8")


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 3}


def _opening(texts: list[str]) -> list[str]:
    """The words with which all these texts begin."""
    columns = zip(*(re.findall(r"\w+", text.casefold()) for text in texts), strict=False)
    return [words[0] for words in itertools.takewhile(lambda words: len(set(words)) == 1, columns)]


def apart_from_judge(
    responses: list[dict[str, Any]], sources: dict[str, str], subjects: dict[str, str]
) -> dict[str, dict[str, np.ndarray]]:
    """Four numbers in [0, 1] that neither judge nor reward knows, by policy: what they say of each response.

    `in source`: the share of a response's longer words that the source has, which false claims lower; `but opening`:
    the same without the words with which all responses of a policy begin; `of source`: the share of the source's that
    the response has; `names it`: whether it has a longer word of what the source is about.
    """
    by_policy: dict[str, list[str]] = {}
    for each in responses:
        by_policy.setdefault(each["policy"], []).append(each["response"])
    openings = {word for texts in by_policy.values() for word in _opening(texts)}
    found: dict[str, dict[str, list[float]]] = {}
    for each in responses:
        said, source = _words(each["response"]), _words(sources[each["id"]])
        numbers = found.setdefault(each["policy"], {name: [] for name in NUMBERS})
        numbers["in source"].append(len(said & source) / len(said) if said else np.nan)
        rest = said - openings
        numbers["but opening"].append(len(rest & source) / len(rest) if rest else np.nan)
        numbers["of source"].append(len(said & source) / len(source))
        text = each["response"].casefold()
        numbers["names it"].append(float(any(word in text for word in _words(subjects[each["id"]]))))
    return {policy: {name: np.array(values) for name, values in told.items()} for policy, told in found.items()}


@click.command()
@click.option("--data", "data_dir", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where the run is kept.")
@click.option("--judge", default="qwen2.5-coder-1.5b-instruct", show_default=True)
@click.option("--steps", type=int, default=40, show_default=True)
@click.option("--test", "n_test", type=int, default=64, show_default=True, help="Held-out rows.")
def main(data_dir: Path, work: Path, judge: str, steps: int, n_test: int) -> None:
    """Train with the reward and with a shuffled one, and grade both beside the base."""
    work.mkdir(parents=True, exist_ok=True)
    train, test = split(data_dir / "medquad" / "medquad.jsonl", work)
    run = work / "lay"
    common = ["--run", run, "--reward", "lay-summary", "--judge", judge, "--limit", TRAINED_ON, "--steps", steps]
    common += ["--prompts-per-step", 2, "--responses", 8, "--at-once", 16, "--max-tokens", 64, "--temperature", 0.7]
    common += ["--learning-rate", "2e-4", "--kl", 0.02, "--save-every", 5, "--seed", 0]
    for name, control in TRAININGS.items():
        click.echo(_goalcover("train", train, "--name", name, *control, *common))
    draw_curves(run, work / "curves.svg")
    answers = work / "responses.jsonl"
    evaluate = ["evaluate", run, test, "--limit", n_test, "--responses", answers, "--figure", work / "scores.svg"]
    click.echo(_goalcover(*evaluate))

    rows = [json.loads(line) for line in test.read_text(encoding="utf-8").splitlines()]
    sources = {f"test:{number}": f"{row['question']}\n{row['answer']}" for number, row in enumerate(rows, start=1)}
    responses = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    for policy in dict.fromkeys(each["policy"] for each in responses):
        own = [each["dimensions"] for each in responses if each["policy"] == policy]
        means = (f"{name} {np.mean([each[name] for each in own if each[name] is not None]):.2f}" for name in own[0])
        click.echo(f"{policy:10} {', '.join(means)}")
    subjects = {f"test:{number}": row["focus"] for number, row in enumerate(rows, start=1)}
    told = apart_from_judge(responses, sources, subjects)
    for name in NUMBERS:
        base = told["base"][name]
        for policy, numbers in told.items():
            p = stats.ttest_rel(numbers[name], base, nan_policy="omit").pvalue if policy != "base" else float("nan")
            click.echo(f"words {name:11} {policy:10} {np.nanmean(numbers[name]):.3f}  p {p:.4f}")
    for identity in list(dict.fromkeys(each["id"] for each in responses))[:3]:
        click.echo(f"\n{identity}: {sources[identity]}")
        for each in (one for one in responses if one["id"] == identity):
            click.echo(f"[{each['policy']}, {each['score']:.2f}] {each['response']}")


if __name__ == "__main__":
    main()
