#!/usr/bin/env python
"""How far does a judge agree with GPT-4? MT-Bench answers graded from 1 to 5 by the rubrics of prometheus-eval.

    python scripts/bench_agreement.py --data DIR [--judge CARD] [--rows 320] [--feedback]

DIR holds judge_agreement/mt_bench_eval.json: complete prompts in Prometheus' own form, and three grades of GPT-4 each.
The judge's grade is the expectation over the five; with --feedback it writes its feedback first, as Prometheus does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from goalcover_local import offline

GRADES = ("1", "2", "3", "4", "5")
FEEDBACK_TOKENS = 120


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--judge", "card_name", default=None)
@click.option("--rows", type=int, default=320, show_default=True, help="Rows, drawn at random.")
@click.option("--feedback", is_flag=True, help="Have the judge write feedback before its grade.")
def main(data: Path, card_name: str | None, rows: int, feedback: bool) -> None:
    """Grade answers as GPT-4 did, and compare."""
    offline.switch_offline()
    offline.shut()
    from goalcover_local.cards import DEFAULT_CARD, load_card
    from goalcover_local.judges import open_engine
    from goalcover_local.resampling import drawn
    from goalcover_local.studies.agreement import about_labels, agreement, fit

    card = load_card(card_name or DEFAULT_CARD)
    graded = json.loads((data / "judge_agreement" / "mt_bench_eval.json").read_text(encoding="utf-8"))
    chosen = [graded[place] for place in drawn(len(graded), 0, rows)]
    people = np.array([[np.mean(row["gpt4_score"]) / 5] for row in chosen])
    engine = open_engine(card)
    started = time.perf_counter()
    grades, failed = _grades(engine, [row["instruction"] for row in chosen], feedback)
    seconds = time.perf_counter() - started
    own = (grades @ np.arange(1, 6) / 5)[:, None]
    told = agreement(own, people)
    click.echo(
        f"{card.name}, {len(chosen)} rows, feedback {'first' if feedback else 'none'}: {seconds:.0f} s, {failed} failed"
    )
    click.echo(f"  weighted kappa {told.kappa.value:.3f} [{told.kappa.low:.3f}, {told.kappa.high:.3f}]")
    click.echo(f"  Spearman {told.spearman:.3f}, same grade {told.exact:.3f}, within one {told.within_one:.3f}")
    click.echo(f"  beside GPT-4: {fit(own, people)}")
    click.echo(f"  GPT-4's grades: {about_labels(people)}")
    between = [agreement(_grade(chosen, 0), _grade(chosen, other)).kappa.value for other in (1, 2)]
    click.echo(f"  GPT-4 with itself, weighted kappa: {np.mean(between):.3f}")


def _grade(rows: Sequence[dict], which: int) -> np.ndarray:
    return np.array([[row["gpt4_score"][which] / 5] for row in rows])


def _grades(engine, texts: Sequence[str], feedback: bool) -> tuple[np.ndarray, int]:
    """The probability of each grade, (n, 5), NaN where it failed, and how many did."""
    from goalcover_local.engines.base import Grammar, Message, Prompt

    found = np.full((len(texts), len(GRADES)), np.nan)
    for start in range(0, len(texts), 8):
        prompts = [Prompt((Message("user", text.strip()),), "[RESULT] ") for text in texts[start : start + 8]]
        if feedback:
            grammar = Grammar(r"[^ \[\]\x00-\x1F\x7F][^\[\]\x00-\x1F\x7F]* \[RESULT\] [1-5]")
            bare = [Prompt(prompt.messages) for prompt in prompts]
            said = engine.generate(bare, grammar, max_tokens=FEEDBACK_TOKENS)
            prompts = [
                Prompt(prompt.messages, "[RESULT] " if each.failure else each.text[:-1])
                for prompt, each in zip(prompts, said, strict=True)
            ]
        found[start : start + 8] = engine.choose(prompts, GRADES).probabilities
        click.echo(f"  {min(start + 8, len(texts))} of {len(texts)}", err=True)
    return found, int(np.isnan(found).any(axis=1).sum())


if __name__ == "__main__":
    main()
