#!/usr/bin/env python
"""How well a judge clarifies: its decisions on cases that nothing was chosen by, and whole decompositions by script.

scripts/bench_clarify.py --judge qwen2.5-coder-1.5b-instruct
scripts/bench_clarify.py --judge smollm2-135m-instruct --only decisions
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import click
import numpy as np

HERE = Path(__file__).parent / "clarify"
GOALS = {
    "medical": "Build a medical QA system for clinical decision support",
    "legal": "Generate summaries of bills of Congress for regulatory compliance",
    "code": "Write Python code from short instructions",
    "financial": "Summarise economic and financial reports for investors",
}
PLANTED = (
    ("Cardiology", "Diseases of the heart and vessels."),
    ("Heart disease", "Heart attacks, heart failure and chest pain."),
    ("Drugs and imaging", "Doses of medicines, and reading X-rays."),
    ("Pregnancy", "Pregnancy, childbirth and newborn babies."),
)
"""A set in which the first two overlap, and the third is two things."""


@click.command()
@click.option("--judge", default="smollm2-135m-instruct", show_default=True)
@click.option("--only", type=click.Choice(["decisions", "planted", "goals"]))
def main(judge: str, only: str | None) -> None:
    """Print what docs/benchmarks.md records of clarification."""
    from goalcover_local import offline
    from goalcover_local.asking import open_asker
    from goalcover_local.cards import load_card

    offline.switch_offline()
    asker = open_asker(load_card(judge))
    parts = {"decisions": decisions, "planted": planted, "goals": goals}
    for name, part in parts.items():
        if only in (None, name):
            started = time.perf_counter()
            part(asker)
            print(f"{name}: {time.perf_counter() - started:.0f} s\n", flush=True)


def decisions(asker) -> None:
    """The share of held-out cases that are decided well, by question, and how well the probabilities rank them."""
    from sklearn.metrics import roc_auc_score

    from goalcover_local.questions import read_lines

    cases = read_lines(HERE / "cases.jsonl")
    print("question       reference cases  held-out cases  decided well  AUC")
    for name in dict.fromkeys(case["question"] for case in cases):
        own = [case for case in cases if case["question"] == name]
        right = [next(iter(case["answer"].values())) for case in own]
        decided = asker.decide(name, [case["fields"] for case in own])
        choices = asker.choices(name)
        well = {choice: [] for choice in choices}
        for case, answer, chosen in zip(own, right, decided, strict=True):
            assert chosen is not None
            well[answer].append(max(chosen, key=chosen.get) == answer)
            if not well[answer][-1]:
                print(
                    "   wrong:", {k: v for k, v in case["fields"].items() if k != "subgoals"}, round(chosen[answer], 2)
                )
        areas = [
            roc_auc_score([answer == choice for answer in right], [chosen[choice] for chosen in decided])
            for choice in choices
        ]
        accuracy = np.mean([np.mean(flags) for flags in well.values()])
        print(f"{name:14} {asker.fitness(name).accuracy:15.2f} {len(own):15} {accuracy:13.2f} {np.mean(areas):5.2f}")


def planted(asker) -> None:
    """What the checks find of a set with a planted overlap and a planted compound."""
    from goalcover_local.goal_files.reading import slug
    from goalcover_local.phases.decompose import check
    from goalcover_local.terms import Subgoal

    subgoals = [Subgoal(slug(name), name, description) for name, description in PLANTED]
    for found in check(asker, GOALS["medical"], [], subgoals).findings:
        if found.constraint != "coverage":
            about = " / ".join(found.subgoals)
            print(f"{found.constraint:13} {about:32} {found.probability:.2f} {found.outcome}  {found.note}")


def goals(asker) -> None:
    """The decompositions of four goals, by the answers in studies/answers."""
    from goalcover_local.goal_files.reading import read_answers
    from goalcover_local.phases.clarify import advance, answered, begin

    for name, goal in GOALS.items():
        exchanges, _ = read_answers(HERE.parents[1] / "studies" / "answers" / f"{name}.toml")
        waiting = {exchange.aspect: exchange.answer for exchange in exchanges}
        draft, started = begin(goal), time.perf_counter()
        while draft.stage != "settling":
            for step in advance(draft, asker):
                draft = step
            if draft.stage == "answering":
                draft = answered(draft, waiting.pop(draft.inquiries[0].aspect, ""))
        counts = Counter(found.outcome for found in draft.findings or ())
        print(
            f"{name}: {len(draft.subgoals)} subgoals, {len(draft.exchanges)} questions, {dict(counts)}, "
            f"{sum(r.kept for r in draft.repairs)} of {len(draft.repairs)} repairs kept, "
            f"{time.perf_counter() - started:.0f} s"
        )
        for statement in draft.statements:
            print("   .", statement)
        for subgoal in draft.subgoals:
            print(f"   {subgoal.name}: {subgoal.description} [{subgoal.evidence}]")
        for found in draft.violations:
            print(
                "   !", found.constraint, found.subgoals, found.statement, round(found.probability or 0, 2), found.note
            )


if __name__ == "__main__":
    main()
