"""A fine-tuning study's outcome as plain values, as the paper's Tables 3 to 5 in Markdown, and as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..finetune.evaluate import Comparison, Standing, holm
from ..finetune.reward import FIT
from ..studies.downstream import ROWS
from ..studies.outcome import JUDGED, SCORE, Outcome, cautions, differences
from ..terms import Estimate
from .records import number
from .training import compared, interval_figure, subgoal_figure, table_3, table_4, table_5
from .validation import escaped, table

SCORES_FIGURE, SUBGOALS_FIGURE = "experiment-scores.svg", "experiment-subgoals.svg"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one judge's grades of all test responses came to.

    `rewarded` says that it is the judge that gave the rewards, `agreement` how its grades go with ours (Spearman; NaN
    if that is not known), `failures` how many grades are missing, by reason.
    """

    judge: str
    digest: str
    rewarded: bool
    agreement: float
    failures: Mapping[str, int]
    outcome: Outcome


def record(facts: Record, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """A study's facts and its evaluations as plain values for JSON; what is missing is None."""
    return {**facts, "evaluations": [_evaluation(each) for each in evaluations]}


def _evaluation(each: Evaluation) -> dict[str, Any]:
    found = each.outcome
    return {
        "judge": each.judge,
        "digest": each.digest,
        "rewarded": each.rewarded,
        "agreement": number(each.agreement),
        "n_failed": sum(each.failures.values()),
        "failures": dict(each.failures),
        "rows": [
            {
                **_plain(asdict(standing)),
                "seeds": [number(mean) for mean in found.seeds[standing.policy]],
                "spread": number(found.spread[standing.policy]),
                "length_correlation": number(found.lengths[standing.policy]),
            }
            for standing in found.standings
        ],
        "comparisons": [
            {"part": part, **_plain(asdict(one)), "p_holm": number(adjusted)}
            for (part, _), those in found.comparisons.items()
            for one, adjusted in zip(those, holm([one.p for one in those]), strict=True)
        ],
        "subgoals": [
            {
                "subgoal": row.subgoal,
                "n": row.n,
                "rows": {
                    policy: {"score": _estimate(mean), "difference": _estimate(difference)}
                    for policy, mean, difference in zip(found.subgoal_rows, row.means, row.differences, strict=True)
                },
            }
            for row in found.subgoals
        ],
        "reading": [*differences(found, ROWS), *cautions(found, ROWS)],
    }


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else _plain(asdict(found))


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as JSON takes them: NaN is None, in estimates as well."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return _plain(value)
        return number(value) if isinstance(value, float) else value

    return {name: plain(value) for name, value in fields.items()}


def markdown(facts: Record, evaluations: Sequence[Evaluation]) -> str:
    """The whole study in Markdown: what was done, what may be read from it, and the tables; figures lie beside it."""
    first, *others = evaluations
    parts = [f"# {escaped(facts['title'])}", "\n\n".join(map(escaped, _told(facts))), "## What it says"]
    parts.append(_list(_readings(facts, first)))
    parts += ["## Table 3: datasets", table_3({_title(row): n for row, n in facts["sizes"].items()})]
    parts += ["## Trainings", _trainings(facts)] if facts["trainings"] else []
    parts += [f"## Table 4: scores, judge {escaped(first.judge)}", *_scores(first), f"![Scores]({SCORES_FIGURE})"]
    if first.outcome.subgoals:
        parts += ["## Table 5: scores by coverage subgoal", _by_subgoal(first), f"![Subgoals]({SUBGOALS_FIGURE})"]
    for each in others:
        why = ", which gave the rewards" if each.rewarded else ""
        parts += [f"## Table 4 by {escaped(each.judge)}{why}", *_scores(each), _list(_graded(each))]
    return "\n\n".join(parts) + "\n"


def _told(facts: Record) -> list[str]:
    """What was done, in a few lines."""
    settings = facts["settings"]
    budget = f"{settings['steps']} steps of {settings['prompts_per_step']} prompts x "
    budget += f"{settings['responses_per_prompt']} responses of at most {settings['max_tokens']} tokens"
    seeds = ", ".join(map(str, facts["seeds"]))
    seen = facts["n_test_seen"] or "none"
    return [
        f"Policy {facts['policy']}, reward {facts['reward']} by {facts['judge']}, goal {facts['goal']} by "
        f"{facts['alignment_judge']}.",
        f"Every training has {budget} ({settings['loss']}, {settings['tuning']}, learning rate "
        f"{settings['learning_rate']:g}, KL weight {settings['kl']:g}); seeds: {seeds}.",
        f"{facts['n_test']} test rows, the same for every row of the tables, {seen} of them in a training.",
    ]


def _readings(facts: Record, evaluation: Evaluation) -> list[str]:
    """What may be read from the study and what may not, in sentences."""
    said = [f"{_title(row)}: not trained, {why}." for row, why in facts["not_trained"].items()]
    said += [*_graded(evaluation), *cautions(evaluation.outcome, ROWS)]
    settings = facts["settings"]
    if seen := facts["trainings"]:
        asked = settings["steps"] * settings["prompts_per_step"] // settings["iterations"]
        passes = {each["row"]: asked / each["n_rows"] for each in seen}
        told = ", ".join(f"{_title(row)} {times:.1f}" for row, times in passes.items())
        said.append(
            f"Equal steps: each training was asked {asked} prompts. Times that it went through its rows: {told}."
        )
    belonging = facts["belonging"]
    if belonging["n_none"]:
        said.append(f"{belonging['n_none']} of {facts['n_test']} test rows belong to no subgoal.")
    if belonging["n_failed"]:
        said.append(f"{belonging['n_failed']} judgements of what test rows belong to failed and are left out.")
    return said


def _graded(evaluation: Evaluation) -> list[str]:
    """What one judge's grades say, and what they are worth, in sentences."""
    said = differences(evaluation.outcome, ROWS)
    if n := sum(evaluation.failures.values()):
        said.append(f"{n} grades failed and are left out; a missing grade is never the lowest.")
    if evaluation.rewarded:
        said.append(
            f"{evaluation.judge} gave the rewards too: what pleases it may please no other judge. A study may name "
            "another as evaluation_judge."
        )
    if not math.isnan(evaluation.agreement):
        told = (
            f"{evaluation.agreement:.2f} (Spearman){'' if evaluation.agreement >= FIT else ': it is not fit to grade'}"
        )
        said.append(f"{evaluation.judge} and we grade the reward's reference cases alike: {told}.")
    return said


def _trainings(facts: Record) -> str:
    """How each training went, by its own judge: means over its first and last steps."""

    def told(each: Record, part: str, name: str) -> str:
        value = each[part].get(name)
        return "–" if value is None else f"{value:.3f}"

    lines = [
        [each["name"], f"{each['n_rows']:,}", str(each["seed"])]
        + [told(each, part, name) for name in ("score", "judged", "kl") for part in ("first", "last")]
        for each in facts["trainings"]
    ]
    header = ["training", "rows", "seed"]
    ends = [f"{part} {facts['n_ends']} steps" for part in ("first", "last")]
    header += [f"{name}, {end}" for name in ("reward", "judged", "KL") for end in ends]
    return table(header, lines)


def _scores(evaluation: Evaluation) -> list[str]:
    found = evaluation.outcome
    parts = [table_4([_standing(each) for each in found.standings])]
    for (part, _), comparisons in found.comparisons.items():
        if comparisons and part in (SCORE, JUDGED):
            parts.append(compared([_comparison(each) for each in comparisons], part))
    return parts


def _by_subgoal(evaluation: Evaluation) -> str:
    return table_5(evaluation.outcome.subgoals, [_title(row) for row in evaluation.outcome.subgoal_rows])


def figures(evaluation: Evaluation) -> dict[str, str]:
    """The SVGs of Tables 4 and 5 by the names of their files; without subgoals the first alone."""
    found = evaluation.outcome
    drawn = {SCORES_FIGURE: interval_figure([_standing(each) for each in found.standings], title=evaluation.judge)}
    if found.subgoals:
        rows = [_title(row) for row in found.subgoal_rows]
        drawn[SUBGOALS_FIGURE] = subgoal_figure(found.subgoals, rows, title=evaluation.judge)
    return drawn


def _title(row: str) -> str:
    return ROWS.get(row, row)


def _standing(each: Standing) -> Standing:
    return replace(each, policy=_title(each.policy))


def _comparison(each: Comparison) -> Comparison:
    return replace(each, policy=_title(each.policy), against=_title(each.against))


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)
