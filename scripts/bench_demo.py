#!/usr/bin/env python
"""Is the demo a lucky case? Removes each of its four capabilities in turn, and tells which then has the least support.

    python scripts/bench_demo.py [--judge CARD]

One assessment of the complete set serves all four removals (paper, Definition 4: corruption removes rows).
"""

from __future__ import annotations

import json

import click
import numpy as np

from goalcover_local import offline

NAME = "family-clinic"


@click.command()
@click.option("--judge", "card_name", default=None)
@click.option("--threads", type=int, default=None)
def main(card_name: str | None, threads: int | None) -> None:
    """Remove each capability of the demo in turn."""
    offline.switch_offline()
    offline.shut()
    from bench_judge import auc, judged_values

    from goalcover_local.cards import DEFAULT_CARD, load_card
    from goalcover_local.coverage import coverage
    from goalcover_local.goal_files.reading import find_goal, read_goal
    from goalcover_local.judges import open_judge
    from goalcover_local.phases.calibrate import judge_references, scale_from
    from goalcover_local.resources import shipped

    judge = open_judge(load_card(card_name or DEFAULT_CARD), threads=threads)
    scale = scale_from(list(judge_references(judge)))
    goal = read_goal(find_goal(NAME))
    lines = (shipped("goals") / f"{NAME}-complete.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    n_own = len(goal.subgoals)
    texts = [(row["question"], row["answer"]) for row in rows]
    _, by_value = judged_values(judge, scale, texts, goal.subgoals)
    shown = np.array([[row["capability"] == subgoal.id for subgoal in goal.subgoals] for row in rows])
    for name, array in by_value.items():
        click.echo(f"AUC of the {name}: {auc(array, shown):.3f}")
    right = 0
    for column, removed in enumerate(goal.subgoals):
        left = ~shown[:, column]
        covered = coverage(
            goal,
            {name: array[left] for name, array in by_value.items()},
            np.zeros((int(left.sum()), n_own), dtype=bool),
            value="corrected",
        )
        least = min(covered, key=lambda c: (c.n_support, c.alignment["corrected"].value))
        right += least.subgoal.id == removed.id
        told = ", ".join(f"{c.subgoal.id} {c.n_support}/{c.n_judged} {c.verdict}" for c in covered)
        click.echo(f"without {removed.id}: least support {least.subgoal.id} ({told})")
    click.echo(f"the removed capability has the least support in {right} of {n_own} removals")


if __name__ == "__main__":
    main()
