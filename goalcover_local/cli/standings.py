"""What an evaluation found: as plain values for JSON, as tables, as the responses line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from ..finetune.evaluate import Standing
    from ..finetune.policy import Written
    from ..finetune.reward import Grade
    from ..terms import Estimate, Sample
    from .belonging import Belonging

PARTS = {"score": "score, 1–5", "judged": "judged, 1–5", "checked": "checks, 0–1"}
"""What a grade comes to, and in which units: all of it, what a judge says, what a program computes."""


@dataclass(frozen=True)
class Answered:
    """What a policy wrote about each sample, and how it was graded; `policy` is the digest of its identity."""

    policy: str
    written: Sequence[Written]
    grades: Sequence[Grade]

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many words each response has, (n_samples,)."""
        import numpy as np

        return np.array([len(each.text.split()) for each in self.written], dtype=float)

    def part(self, name: str) -> np.ndarray:
        """One of `PARTS` for each response, (n_samples,), NaN where it is missing."""
        return _column([getattr(grade, name) for grade in self.grades])


def _column(numbers: Sequence[float | None]) -> np.ndarray:
    import numpy as np

    return np.array([np.nan if number is None else number for number in numbers], dtype=float)


def standings(answered: Mapping[str, Answered], seed: int) -> list[Standing]:
    """How each policy did, in their order."""
    import numpy as np

    from ..finetune.evaluate import stand

    found = []
    for name, each in answered.items():
        checked = each.part("checked")
        parts = each.part("score"), each.part("judged"), None if np.isnan(checked).all() else checked
        found.append(stand(name, *parts, each.lengths, seed))
    return found


def record(
    answered: Mapping[str, Answered], against: str | None, belonging: Belonging | None, seed: int
) -> dict[str, Any]:
    """What the policies came to, compared with one of them and by subgoal, as plain values; what is missing is None.

    The p-values are adjusted for there being several: all comparisons of all parts are one family (Holm 1979).
    """
    told = zip(standings(answered, seed), answered.values(), strict=True)
    return {
        "policies": [_policy(standing, each, seed) for standing, each in told],
        "comparisons": [] if against is None else _comparisons(answered, against, seed),
        "subgoals": [] if belonging is None else _by_subgoal(answered, against, belonging, seed),
    }


def _policy(standing: Standing, each: Answered, seed: int) -> dict[str, Any]:
    from ..finetune.evaluate import estimate, length_correlation
    from ..report.records import number

    def parts(name: str) -> dict[str, Any]:
        given = [getattr(grade, name) for grade in each.grades]
        return {part: _estimate(estimate(_column([one[part] for one in given]), seed)) for part in given[0]}

    return {
        "policy": standing.policy,
        "digest": each.policy,
        "n": standing.n,
        "n_failed": standing.n_failed,
        "score": _estimate(standing.score),
        "judged": _estimate(standing.judged),
        "checked": _estimate(standing.checked),
        "dimensions": parts("dimensions"),
        "checks": parts("checks"),
        "words": number(standing.length),
        "cut_off": number(sum(not one.finished for one in each.written) / len(each.written)),
        "length_correlation": number(length_correlation(each.part("score"), each.lengths)),
    }


def _comparisons(answered: Mapping[str, Answered], against: str, seed: int) -> list[dict[str, Any]]:
    import numpy as np

    from ..finetune.evaluate import compare, holm
    from ..report.records import number

    known = [part for part in PARTS if not np.isnan(answered[against].part(part)).all()]
    told = [
        (part, compare(name, each.part(part), against, answered[against].part(part), seed))
        for part in known
        for name, each in answered.items()
        if name != against
    ]
    found = []
    for (part, each), adjusted in zip(told, holm([each.p for _, each in told]), strict=True):
        numbers = {"p": each.p, "p_holm": adjusted, "p_ranks": each.p_ranks, "d": each.d}
        numbers |= {"wins": each.wins, "ties": each.ties}
        found.append(
            {
                "part": part,
                "policy": each.policy,
                "against": against,
                "n": each.n,
                "difference": _estimate(each.difference),
                **{name: number(value) for name, value in numbers.items()},
            }
        )
    return found


def _by_subgoal(
    answered: Mapping[str, Answered], against: str | None, belonging: Belonging, seed: int
) -> list[dict[str, Any]]:
    """Each subgoal's scores by policy, and how far they lie above those of the policy that is compared against."""
    import numpy as np

    from ..finetune.evaluate import by_subgoal

    order = sorted(answered, key=lambda name: name != against)
    scores = np.array([answered[name].part("score") for name in order])
    return [
        {
            "subgoal": each.subgoal,
            "n": each.n,
            "policies": {
                name: {"score": _estimate(mean), "difference": _estimate(None if against is None else difference)}
                for name, mean, difference in zip(order, each.means, each.differences, strict=True)
            },
        }
        for each in by_subgoal(scores, belonging.members, belonging.subgoals, seed)
    ]


def _estimate(found: Estimate | None) -> dict[str, float | int | None] | None:
    """An estimate as plain values; None if there is none at all."""
    from ..report.records import number

    if found is None or not found.n:
        return None
    return {"value": number(found.value), "low": number(found.low), "high": number(found.high), "n": found.n}


def responses(samples: Sequence[Sample], answered: Mapping[str, Answered]) -> Iterator[dict[str, Any]]:
    """Every sample's responses with their grades, policy by policy. This is text of the data and of models."""
    for place, sample in enumerate(samples):
        for name, each in answered.items():
            written, grade = each.written[place], each.grades[place]
            yield {
                "id": sample.id,
                "source": sample.source,
                "line": sample.line,
                "policy": name,
                "response": written.text,
                "finished": written.finished,
                "score": grade.score,
                "judged": grade.judged,
                "checked": grade.checked,
                "dimensions": dict(grade.dimensions),
                "checks": dict(grade.checks),
                "failure": grade.failure,
            }


def print_record(found: Mapping[str, Any]) -> None:
    """Nothing; prints the tables of a record."""
    from ..report.training import number, share
    from .table import print_table

    rows = [
        [
            each["policy"],
            *(_within(each[part]) for part in PARTS),
            str(each["n"]),
            str(each["n_failed"]),
            number(each["words"], 0),
            share(_known(each["cut_off"])),
            number(each["length_correlation"], 2),
        ]
        for each in found["policies"]
    ]
    header = ["policy", *PARTS.values(), "n", "failed", "words", "cut off", "score with length"]
    print_table(header, rows, right=(4, 5, 6, 7, 8))
    if found["comparisons"]:
        _print_comparisons(found["comparisons"])
    if found["subgoals"]:
        _print_subgoals(found["subgoals"])
    click.echo("Intervals, 95%: what other rows could show, not what another training could.")


def _print_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> None:
    from ..report.training import chance, share
    from .table import print_table

    rows = [
        [
            f"{each['policy']} − {each['against']}",
            PARTS[each["part"]],
            _within(each["difference"], signed=True),
            *(share(_known(each[name])) for name in ("wins", "ties")),
            *(chance(_known(each[name])) for name in ("p", "p_holm")),
            str(each["n"]),
        ]
        for each in comparisons
    ]
    print_table(["difference", "of", "mean", "wins", "ties", "p", "p, Holm", "n"], rows, right=(3, 4, 5, 6, 7))
    n_tests = sum(each["p"] is not None for each in comparisons)
    click.echo(f"p, Holm: adjusted for the {n_tests} tests of this table, all parts together.")


def _print_subgoals(subgoals: Sequence[Mapping[str, Any]]) -> None:
    from .table import print_table
    from .terminal import plain

    policies = list(subgoals[0]["policies"])
    compared = [name for name in policies if any(each["policies"][name]["difference"] for each in subgoals)]
    header = ["subgoal, score 1–5", "n", *policies, *(f"{name} − {policies[0]}" for name in compared)]
    rows = []
    for each in subgoals:
        told = each["policies"]
        means = [_within(told[name]["score"]) for name in policies]
        apart = [_within(told[name]["difference"], signed=True) for name in compared]
        rows.append([plain(each["subgoal"]), str(each["n"]), *means, *apart])
    print_table(header, rows, right=(1,))


def _within(found: Mapping[str, Any] | None, signed: bool = False) -> str:
    """An estimate of a record with its interval, as reports write it."""
    from ..report import training
    from ..terms import Estimate

    if found is None:
        return "–"
    value, low, high = (_known(found[name]) for name in ("value", "low", "high"))
    return training.within(Estimate(value, low, high, found["n"]), signed)


def _known(value: float | None) -> float:
    """A number of a record; NaN where it is missing."""
    return float("nan") if value is None else value
