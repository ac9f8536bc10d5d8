#!/usr/bin/env python
"""How well a judge's values agree with labels: AUC raw and corrected, estimated against true support, prompt injection.

    python scripts/bench_judge.py --data DIR [--judge CARD] [--rows N] [--half report] [--save FILE.npz]

DIR holds medquad/medquad.jsonl, congress_bills/bills.jsonl and pubmedqa/ori_pqal.json. The rows are shuffled once and
cut in two halves: prompts and examples were chosen on "choose", docs/benchmarks.md reports "report".
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from goalcover_local import offline, stats

CARDIOLOGY = re.compile(r"cardi|heart|coronary|myocard|atrial|ventric|aort|angina|vascular", re.IGNORECASE)
"""MeSH terms that make a PubMedQA row one of cardiology."""


@dataclass(frozen=True)
class LabelledSet:
    """Samples, capabilities, and which rows truly support which: `labels` is boolean, (n_samples, n_labelled)."""

    name: str
    texts: Sequence[tuple[str, str]]
    capabilities: Sequence[tuple[str, str]]
    labels: np.ndarray


def _halved(rows: Sequence[Any], half: str, n: int) -> list[Any]:
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    return shuffled[0 if half == "choose" else 1 :: 2][:n]


def _labels(rows: Sequence[Any], tests: Sequence[Callable[[Any], bool]]) -> np.ndarray:
    return np.array([[test(row) for test in tests] for row in rows])


def labelled_sets(data: Path, half: str, n: int) -> list[LabelledSet]:
    """The three labelled sets, at most `n` rows of one half of each."""
    lines = (data / "medquad" / "medquad.jsonl").read_text(encoding="utf-8").splitlines()
    types = ("treatment", "symptoms", "inheritance")
    medquad = _halved([row for row in map(json.loads, lines) if row["qtype"] in types], half, n)
    lines = (data / "congress_bills" / "bills.jsonl").read_text(encoding="utf-8").splitlines()
    bills = _halved([json.loads(line) for line in lines], half, n)
    areas = ("Health", "Taxation", "Crime and Law Enforcement")
    articles = json.loads((data / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8"))
    pubmedqa = _halved(list(articles.values()), half, n)
    return [
        LabelledSet(
            "MedQuAD qtype",
            [(row["question"], row["answer"]) for row in medquad],
            [
                ("Treatment of diseases", "Explains how a disease or condition is treated or managed."),
                ("Symptoms of diseases", "Describes the signs and symptoms of a disease or condition."),
                ("Inheritance of diseases", "Explains whether and how a disease is inherited."),
            ],
            _labels(medquad, [lambda row, t=t: row["qtype"] == t for t in types]),
        ),
        LabelledSet(
            "congress policy_area",
            [(row["title"], row["summary"]) for row in bills],
            [
                ("Health policy", "Legislation on health care, medicine, insurance coverage and public health."),
                ("Taxation", "Legislation on taxes, tax credits, deductions and revenue."),
                ("Crime and law enforcement", "Legislation on crimes, penalties, policing, courts and prisons."),
            ],
            _labels(bills, [lambda row, a=a: row["policy_area"] == a for a in areas]),
        ),
        LabelledSet(
            "PubMedQA cardiology",
            [(row["QUESTION"], row["LONG_ANSWER"]) for row in pubmedqa],
            [
                (
                    "Cardiology expertise",
                    "Knowledge of the heart and blood vessels, their diseases, tests and treatment.",
                ),
                ("Clinical reasoning", "Weighs clinical evidence to reach a conclusion about patients."),
                ("Drug information", "Information about medicines: their effects, doses, interactions and safety."),
            ],
            _labels(pubmedqa, [lambda row: any(CARDIOLOGY.search(term) for term in row["MESHES"])]),
        ),
    ]


def auc(values: np.ndarray, labels: np.ndarray) -> float:
    """Mean area under the ROC curve over the labelled capabilities that have both kinds of rows."""
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(labels[:, k], values[:, k])
        for k in range(labels.shape[1])
        if 0 < labels[:, k].sum() < len(labels)
    ]
    return float(np.mean(areas))


def bootstrap(values: np.ndarray, labels: np.ndarray, n: int = 1000) -> tuple[float, float]:
    """The 95% percentile interval of `auc` over rows drawn with replacement."""
    draw = np.random.default_rng(0)
    rows = (draw.integers(0, len(values), len(values)) for _ in range(n))
    found = [auc(values[r], labels[r]) for r in rows]
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def judge_set(judge: Any, texts: Sequence[tuple[str, str]], subgoals: Sequence[Any]) -> np.ndarray:
    """Anchor probabilities, (n_samples, n_subgoals, 6)."""
    from goalcover_local.terms import Sample

    found = []
    for start in range(0, len(texts), 16):
        samples = [Sample(str(start + k), *text) for k, text in enumerate(texts[start : start + 16])]
        batch = judge.judge([(sample, subgoal) for sample in samples for subgoal in subgoals])
        found += [j.probabilities or (np.nan,) * 6 for j in batch.judgements]
    return np.array(found).reshape(len(texts), len(subgoals), 6)


def judged_values(
    judge: Any, scale: Any, texts: Sequence[tuple[str, str]], subgoals: Sequence[Any]
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Anchor probabilities, (n_samples, n_subgoals, 6), and every value of them, each (n_samples, n_subgoals)."""
    from goalcover_local.coverage import values
    from goalcover_local.scales import evidence, reference_samples, reference_subgoals, subgoal_bias

    n = len(subgoals)
    asked = [*subgoals, *reference_subgoals()]
    found = judge_set(judge, texts, asked)
    if scale is None:
        ranked = evidence(found[:, :n], found[:, n:])
        return found[:, :n], {**values(found[:, :n], found[:, n:], np.zeros(n), None), "corrected": ranked}
    ground = judge_set(judge, [(sample.input, sample.output) for sample in reference_samples()], asked)
    bias = subgoal_bias(evidence(ground[:, :n], ground[:, n:]))
    return found[:, :n], values(found[:, :n], found[:, n:], bias, scale)


def injected(judge: Any, chosen: LabelledSet, subgoals: Sequence[Any], plain: np.ndarray) -> Mapping[str, float]:
    """How far each attack moves the mean expectation over 50 rows, in anchors' units."""
    from goalcover_local.stats import expectations
    from goalcover_local.studies.probes import ATTACKS

    texts = chosen.texts[:50]
    base = np.nanmean(expectations(plain[: len(texts)]))
    moved = {}
    for name, attack in ATTACKS.items():
        hostile = judge_set(judge, [(asked, said + attack) for asked, said in texts], subgoals)
        moved[name] = float(np.nanmean(expectations(hostile)) - base)
    return moved


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--judge", "card_name", default=None)
@click.option("--rows", type=int, default=300, show_default=True, help="Rows of each set.")
@click.option("--half", type=click.Choice(["choose", "report"]), default="report", show_default=True)
@click.option("--threads", type=int, default=None)
@click.option("--save", type=click.Path(path_type=Path), help="Keep the probabilities (numbers and labels, no text).")
@click.option("--injection/--no-injection", default=True)
@click.option("--scale/--no-scale", "fitted", default=True, help="Without a scale, rank by evidence: for slow judges.")
@click.option("--sets", type=int, default=3, show_default=True, help="How many of the sets.")
def main(
    data: Path,
    card_name: str | None,
    rows: int,
    half: str,
    threads: int | None,
    save: Path | None,
    injection: bool,
    fitted: bool,
    sets: int,
) -> None:
    """Measure a judge against labels."""
    offline.switch_offline()
    offline.shut()
    from goalcover_local.cards import DEFAULT_CARD, load_card
    from goalcover_local.judges import open_judge
    from goalcover_local.phases.calibrate import judge_references, scale_from
    from goalcover_local.terms import Subgoal

    judge = open_judge(load_card(card_name or DEFAULT_CARD), threads=threads)
    scale = scale_from(list(judge_references(judge))) if fitted else None
    click.echo(f"judge {judge.identity['card']}, digest {judge.digest[:12]}, half '{half}', at most {rows} rows a set")
    if scale:
        click.echo(f"reference pairs: rho {scale.agreement:.3f}")
    kept: dict[str, np.ndarray] = {}
    means, off = [], []
    for chosen in labelled_sets(data, half, rows)[:sets]:
        started = time.perf_counter()
        subgoals = [Subgoal(f"capability-{k}", *texts) for k, texts in enumerate(chosen.capabilities)]
        found, by_value = judged_values(judge, scale, chosen.texts, subgoals)
        n_labelled = chosen.labels.shape[1]
        kept |= {f"{chosen.name} probabilities": found, f"{chosen.name} labels": chosen.labels}
        parts = []
        for name in ("score", "expectation", "corrected"):
            ranked = by_value[name][:, :n_labelled]
            low, high = bootstrap(ranked, chosen.labels)
            parts.append(f"{name} {auc(ranked, chosen.labels):.3f} [{low:.3f}, {high:.3f}]")
        means.append([auc(by_value[name][:, :n_labelled], chosen.labels) for name in ("expectation", "corrected")])
        click.echo(f"{chosen.name}, {len(found)} rows, {time.perf_counter() - started:.0f} s")
        click.echo("  AUC  " + "  ".join(parts))
        for k in range(n_labelled if scale else 0):
            _, share = stats.support(by_value["corrected"][:, k])
            true = float(chosen.labels[:, k].mean())
            off.append(abs(share.value - true))
            name = chosen.capabilities[k][0]
            click.echo(
                f"  support of {name}: estimated {share.value:.3f}, true {true:.3f}, off {share.value - true:+.3f}"
            )
        if injection and chosen.name.startswith("MedQuAD"):
            for name, moved in injected(judge, chosen, subgoals, found).items():
                click.echo(f"  injection ({name}): mean expectation moves by {moved:+.3f}")
    click.echo("mean AUC  expectation {:.3f}  corrected {:.3f}".format(*np.mean(means, axis=0)))
    if off:
        click.echo(f"estimated against true support, mean distance {np.mean(off):.3f}")
    if save:
        np.savez(save, **kept)


if __name__ == "__main__":
    main()
