"""What `filter` and `mix` share: the options that choose rows, the choice, and where the rows are read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .refusals import tell_refusals
from .verdicts import value_option

if TYPE_CHECKING:
    import numpy as np

    from ..phases.filter import Criteria, Rule, Selection
    from ..store import Run
    from ..writers import Source
    from .results import Results

Command = TypeVar("Command", bound=Callable[..., Any])


def _rule(_: click.Context, __: click.Parameter, text: str) -> Rule:
    from ..errors import DataError
    from ..phases.filter import parse_rule

    try:
        return parse_rule(text)
    except DataError as error:
        raise click.BadParameter(str(error)) from None


def _by_id(__: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> Mapping[str, float]:
    """Numbers by subgoal, each written as ID=NUMBER; a threshold is at most 1."""
    most = 1 if parameter.name == "thresholds" else 1e6
    found = {}
    for text in texts:
        identity, _, number = text.partition("=")
        try:
            found[identity.strip()] = float(number)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not ID=NUMBER.") from None
        if not 0 <= found[identity.strip()] <= most:
            raise click.BadParameter(f"{number} is not from 0 to {most:g}.")
    return found


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="Where the data are now, if they moved: Parquet and datasets are read from them again.",
)
_OPTIONS = (
    click.option(
        "--keep",
        "rule",
        callback=_rule,
        metavar="RULE",
        default="any >= 0.6",
        show_default=True,
        help="Which rows to keep: 'mean >= 0.6', 'max >= 0.6' or 'any >= 0.6' (the same), 'all >= 0.6', 'top 50%' (by "
        "the mean), 'top 50% by max'.",
    ),
    click.option(
        "--threshold",
        "thresholds",
        callback=_by_id,
        multiple=True,
        metavar="ID=VALUE",
        help="Another value for one subgoal; by a mean or a top, one that a row must reach as well. May be repeated.",
    ),
    click.option(
        "--weight",
        "weights",
        callback=_by_id,
        multiple=True,
        metavar="ID=WEIGHT",
        help="How much a subgoal counts in the mean; 1 if not given, 0 leaves it out. May be repeated.",
    ),
    click.option(
        "--stratify",
        is_flag=True,
        help="Take the top of each group of rows with the same best subgoal, so that a rare one is not filtered away.",
    ),
    click.option(
        "--at-least",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Whatever the rule, keep of each subgoal the best N rows that support it, or all there are.",
    ),
    value_option,
    data_option,
)


def selection_options(command: Command) -> Command:
    """The command with the options that choose rows."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Choice:
    """The rows chosen in a run: its results, the criteria, each row's values and fate, and where they are read.

    `values` has shape (n_rows, n_subgoals), NaN where missing. `data` are the files that must never be overwritten.
    """

    results: Results
    criteria: Criteria
    values: np.ndarray
    selection: Selection
    source: Source
    data: Sequence[Path]

    @property
    def subgoals(self) -> Sequence[str]:
        """The ids of the goal's subgoals."""
        return [subgoal.id for subgoal in self.results.goal.subgoals]


def chosen(run: Run, options: Mapping[str, Any]) -> Choice:
    """The choice that the options make among all rows of the run; tells what is not judged yet, and refused rows.

    A row that the assessment did not draw has the values of an equal one that it drew. Raises UsageError for options
    that do not fit each other or the goal.
    """
    import numpy as np

    from ..errors import DataError
    from ..phases.filter import Criteria, select
    from ..readers import layout_from
    from ..writers import Source
    from .results import results
    from .shown import tell_unfinished

    found = results(run, value=options["value"])
    criteria = Criteria(
        options["rule"],
        options["thresholds"],
        options["weights"],
        options["stratify"],
        options["at_least"],
    )
    subgoals = [subgoal.id for subgoal in found.goal.subgoals]
    try:
        criteria.check(subgoals)
    except DataError as error:
        raise click.UsageError(str(error)) from None
    samples = run.row_samples()
    known, first = np.unique(samples[found.positions], return_index=True)
    drawn = np.isin(samples, known)
    values = np.full((len(samples), len(subgoals)), np.nan)
    values[drawn] = found.values[found.value][first[np.searchsorted(known, samples[drawn])]]
    tell_unfinished(found)
    _tell_refusals(run)
    origin, moved = run.origin(), options["data"]
    source = Source(run.rows)
    if origin is not None:
        source = Source(run.rows, layout_from(origin.layout), moved or Path(origin.path), origin.content)
    data = [path for path in (origin and Path(origin.path), moved) if path]
    return Choice(found, criteria, values, select(values, subgoals, criteria, drawn), source, data)


def _tell_refusals(run: Run) -> None:
    refusals = run.refusals()
    if refusals:
        click.echo(
            f"{len(refusals)} rows of the data were refused and are no samples, so they are in no file:", err=True
        )
    tell_refusals(refusals)


def record(folder: Path, kind: str, choice: Choice, details: Mapping[str, Any]) -> bool:
    """Whether the run's audit trail now tells of this choice; says so where it cannot be written to."""
    from ..errors import StoreError
    from ..store import Run

    criteria = choice.criteria
    told = {
        "judge": choice.results.judge,
        "goal": choice.results.goal.digest,
        "value": choice.results.value,
        "rule": str(criteria.rule),
        "thresholds": criteria.thresholds,
        "weights": criteria.weights,
        "stratify": criteria.stratify,
        "at_least": criteria.at_least,
        **details,
    }
    try:
        with Run.open(folder, write=True) as run:
            run.event(kind, told, f"goalcover {click.get_current_context().info_name}")
    except StoreError as error:
        click.echo(f"Not recorded in the run's audit trail: {error.problem}", err=True)
        return False
    return True
