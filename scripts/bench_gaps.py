#!/usr/bin/env python
"""Are planted gaps found? Six capabilities are removed from real data, and the coverage of what is left is told.

    python scripts/bench_gaps.py --data DIR --work DIR [--judge CARD] [--rows N] [--value VALUE]

DIR holds medquad/medquad.jsonl, congress_bills/bills.jsonl and pubmedqa/ori_pqal.json. N rows of each set are assessed
once (in run folders under --work, continued when stopped); removing rows then needs no model (paper, Definition 4).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Capability:
    """A subgoal, and the rows that truly teach it."""

    id: str
    name: str
    description: str
    taught_by: Callable[[Row], bool]


@dataclass(frozen=True)
class Case:
    """A data set, a goal of four capabilities, and those of them that are removed in turn."""

    name: str
    goal: str
    rows: Sequence[Row]
    columns: tuple[str, str]
    capabilities: Sequence[Capability]
    removed: Sequence[str]


def _mesh(expression: str) -> Callable[[Row], bool]:
    found = re.compile(expression, re.IGNORECASE)
    return lambda row: any(found.search(term) for term in row["MESHES"])


def _is(column: str, value: str) -> Callable[[Row], bool]:
    return lambda row: bool(row[column] == value)


def cases(data: Path) -> list[Case]:
    """The three sets; six removals in all."""
    medquad = (data / "medquad" / "medquad.jsonl").read_text(encoding="utf-8").splitlines()
    bills = (data / "congress_bills" / "bills.jsonl").read_text(encoding="utf-8").splitlines()
    articles = json.loads((data / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8"))
    return [
        Case(
            "medquad",
            "Answer patients' questions about diseases",
            [json.loads(line) for line in medquad],
            ("question", "answer"),
            [
                Capability(
                    "treatment",
                    "Treatment of diseases",
                    "Explains how a disease or condition is treated or managed.",
                    _is("qtype", "treatment"),
                ),
                Capability(
                    "symptoms",
                    "Symptoms of diseases",
                    "Describes the signs and symptoms of a disease or condition.",
                    _is("qtype", "symptoms"),
                ),
                Capability(
                    "causes",
                    "Causes of diseases",
                    "Explains what causes a disease or condition.",
                    _is("qtype", "causes"),
                ),
                Capability(
                    "inheritance",
                    "Inheritance of diseases",
                    "Explains whether and how a disease is inherited.",
                    _is("qtype", "inheritance"),
                ),
            ],
            ("treatment", "symptoms", "causes", "inheritance"),
        ),
        Case(
            "pubmedqa",
            "Answer clinicians' questions from research abstracts",
            list(articles.values()),
            ("QUESTION", "LONG_ANSWER"),
            [
                Capability(
                    "cardiology",
                    "Cardiology",
                    "Knowledge of the heart and blood vessels, their diseases, tests and treatment.",
                    _mesh(
                        r"cardi|heart|coronary|myocard|atrial|ventric|aort|angina|vascular"
                        r"|hypertens|blood pressure|stroke|carotid|athero|thromb"
                    ),
                ),
                Capability(
                    "oncology",
                    "Cancer",
                    "Knowledge of cancers and tumours, their diagnosis, stages and treatment.",
                    _mesh(r"neoplasm|cancer|carcinoma|tumor|lymphoma|leukemia"),
                ),
                Capability(
                    "obstetrics",
                    "Pregnancy and birth",
                    "Knowledge of pregnancy, birth and the care of newborns.",
                    _mesh(r"pregnan|obstetric|labor,|newborn|cesarean|prenatal"),
                ),
                Capability(
                    "surgery",
                    "Surgery",
                    "Knowledge of operations, their technique, outcomes and complications.",
                    _mesh(r"surg|postoperative|laparoscop|transplant"),
                ),
            ],
            ("cardiology",),
        ),
        Case(
            "bills",
            "Summarize bills for legislators",
            [json.loads(line) for line in bills],
            ("title", "summary"),
            [
                Capability(
                    "health",
                    "Health policy",
                    "Legislation on health care, medicine, insurance coverage and public health.",
                    _is("policy_area", "Health"),
                ),
                Capability(
                    "finance",
                    "Finance and banking",
                    "Legislation on banks, lending, securities and the financial sector.",
                    _is("policy_area", "Finance and Financial Sector"),
                ),
                Capability(
                    "crime",
                    "Crime and law enforcement",
                    "Legislation on crimes, penalties, policing, courts and prisons.",
                    _is("policy_area", "Crime and Law Enforcement"),
                ),
                Capability(
                    "defence",
                    "Armed forces",
                    "Legislation on the military, its members and national security.",
                    _is("policy_area", "Armed Forces and National Security"),
                ),
            ],
            ("health",),
        ),
    ]


def goal_file(case: Case, folder: Path) -> Path:
    """The goal of a set as a file that `goalcover assess` reads."""
    tables = [
        f"[[subgoals]]\nid = {c.id!r}\nname = {c.name!r}\ndescription = {c.description!r}" for c in case.capabilities
    ]
    goal = folder / f"{case.name}.toml"
    goal.write_text(f"goal = {json.dumps(case.goal)}\n\n" + "\n\n".join(tables) + "\n", encoding="utf-8")
    return goal


def written(case: Case, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Rows of a set as questions and answers."""
    asked, said = case.columns
    return [{"question": row[asked], "answer": row[said]} for row in rows]


@dataclass
class Tally:
    """How often what was removed was found, and how often what is there was not."""

    n_cases: int = 0
    n_least: int = 0
    n_gap: int = 0
    n_present: int = 0
    n_false: int = 0

    def told(self) -> str:
        """The counts in a sentence."""
        return (
            f"removed capability: least support in {self.n_least} of {self.n_cases}, verdict gap in {self.n_gap}; "
            f"present (labels reach the target) yet called a gap: {self.n_false} of {self.n_present}"
        )


@click.command()
@click.option("--data", "data_dir", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where runs are kept.")
@click.option("--judge", "card_name", default="smollm2-135m-instruct", show_default=True)
@click.option("--rows", type=int, default=600, show_default=True, help="Rows of each set.")
@click.option("--only", multiple=True, help="These sets only.")
@click.option("--value", type=click.Choice(["score", "expectation", "corrected"]), default="corrected")
def main(data_dir: Path, work: Path, card_name: str, rows: int, only: tuple[str, ...], value: str) -> None:
    """Remove each capability in turn and count what is called a gap.

    Twice: of all rows, and of those alone that carry one of the labels, since rows without one may still teach it.
    """
    from goalcover_local.cli.results import results
    from goalcover_local.coverage import coverage
    from goalcover_local.store import Run

    tallies = {"all rows": Tally(), "labelled rows": Tally()}
    for case in cases(data_dir):
        if only and case.name not in only:
            continue
        work.mkdir(parents=True, exist_ok=True)
        data, goal = work / f"{case.name}.jsonl", goal_file(case, work)
        data.write_text("".join(json.dumps(row) + "\n" for row in written(case, case.rows)), encoding="utf-8")
        folder = work / f"{case.name}-{card_name}-{rows}"
        command = [sys.executable, "-m", "goalcover_local.cli.main", "assess", str(goal), str(data)]
        command += ["--run", str(folder), "--judge", card_name, "--limit", str(rows), "--explain", "none"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with Run.open(folder, write=False) as run:
            found = results(run)
        taught = np.array([[c.taught_by(case.rows[p]) for c in case.capabilities] for p in found.positions])
        ids = [c.id for c in case.capabilities]
        for (among, tally), removed in product(tallies.items(), case.removed):
            left = ~taught[:, ids.index(removed)] & (taught.any(axis=1) | (among == "all rows"))
            covered = coverage(
                found.goal,
                {name: array[left] for name, array in found.values.items()},
                np.zeros((int(left.sum()), len(ids)), dtype=bool),
                value=value,  # type: ignore[arg-type]
            )
            shares = taught[left].mean(axis=0)
            told = ", ".join(
                f"{c.subgoal.id} {c.n_support} {c.verdict} (labels {100 * share:.0f}%)"
                for c, share in zip(covered, shares, strict=True)
            )
            click.echo(f"{case.name} without {removed}, {int(left.sum())} of {among}: {told}")
            present = [c for c, share in zip(covered, shares, strict=True) if share >= c.subgoal.target_share]
            least = min(covered, key=lambda c: (c.n_support, c.alignment[value].value))
            tally.n_cases += 1
            tally.n_least += least.subgoal.id == removed
            tally.n_gap += covered[ids.index(removed)].verdict == "gap"
            tally.n_present += len(present)
            tally.n_false += sum(c.verdict == "gap" for c in present)
    for among, tally in tallies.items():
        click.echo(f"{card_name}, {among}: {tally.told()}")


if __name__ == "__main__":
    main()
