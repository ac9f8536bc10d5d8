"""`goalcover calibrate`: people's labels beside a judge's values: a sheet to fill in, a map, intervals that hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from ..errors import StoreError
from ..terms import ANCHOR_TEXTS, ANCHORS

if TYPE_CHECKING:
    from ..calibration import Calibration, Fitted, HumanLabels
    from ..chain import Event
    from ..store import Run
    from ..terms import Coverage, Estimate, Sample, Subgoal
    from .labelling import Labelled
    from .results import Results


@click.command("calibrate", short_help="Fit a judge's values to people's labels, for intervals that hold.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--labels", type=click.Path(path_type=Path), help="The labels: CSV, TSV or JSON Lines; id, subgoal, label."
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a sheet to label here instead (CSV).")
@click.option("-n", "n_rows", type=click.IntRange(1), default=60, show_default=True, help="Rows on the sheet.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Fixes which rows the sheet has, and their order.",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(["expectation", "corrected"]),
    default="expectation",
    show_default=True,
    help="Which of the judge's values to calibrate.",
)
@click.option(
    "--floor",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    help="Agreement with people (Spearman, within subgoals) below which the coverage is for diagnosis only.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, /, run: Path, **options: Any) -> None:
    """Fit the judge's values of the run in folder RUN to people's labels, and tell whether it can be trusted.

    First write a sheet: rows drawn at random, each with every subgoal, without what the judge said. People fill in its
    column `label` with yes and no, or numbers from 0 to 1. Then fit: the map from values to labels is kept in the run's
    audit trail, bound to judge and goal, and --value calibrated is there for `show`, `analyze` and `filter`.

    A few labels of rows drawn at random, and the judge's values of all rows, make an interval of the share that people
    would say supports a subgoal: one that holds even where the judge is wrong. Labels whose column `drawn` says that
    the row was chosen for a disagreement, or says nothing while that of others does, serve the map alone.

    A judge that agrees with people within subgoals below the floor, or errs as much as always saying the subgoal's mean
    label, is for diagnosis only: so is one that tells subgoals apart, but never looks at the row.

    With --json: run, judge, calibration (as in `show --json`), n_random, map (value and what it becomes), and for each
    of subgoals its id, its support by labels and judge, by the judge and by labels alone, enough_labels, and verdict.

    \b
    Example:
      goalcover calibrate runs/first --sheet labels.csv -n 60
      goalcover calibrate runs/first --labels labels.csv
    """
    from ..store import Run
    from .labelling import labelled
    from .results import results
    from .table import as_text

    if (options["labels"] is None) == (options["sheet"] is None):
        raise click.UsageError("Give either --sheet FILE, to have rows to label, or --labels FILE, once they are.")
    given = [option for option in ("n_rows", "seed") if ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE]
    if options["labels"] is not None and given:
        raise click.UsageError("-n and --seed are for a --sheet: labels are all taken.")
    if options["sheet"] is not None and options["sheet"].suffix.lower() != ".csv":
        raise click.UsageError("The sheet is a CSV file: end its name with .csv.")
    if options["sheet"] is not None:
        with Run.open(run, write=False) as opened:
            _write_sheet(opened, options)
        return
    with Run.open(run, write=True) as opened:
        before = results(opened, value=options["source"])
        _refuse_strategic(opened, before)
        said = labelled(opened, before, options["labels"])
        fitted = _fit(opened, before, said, options)
        _keep(opened, before, said, fitted)
        after = results(opened, value="calibrated")
        labels = _labels(opened, after)
    calibration = fitted.calibration
    supports = [_Support(*each) for each in zip(before.coverage, after.coverage, _alone(labels), strict=True)]
    if options["as_json"]:
        click.echo(as_text(_as_json(run, after, labels, supports)))
    else:
        _print(calibration, labels, supports)


class _Support(NamedTuple):
    """How many rows support a subgoal: by the judge's own values, by labels and judge, and by the labels alone."""

    judge: Coverage
    powered: Coverage
    labels: Estimate

    @property
    def enough(self) -> bool:
        """Whether there are labels enough for an interval that rests on them."""
        from ..coverage import LEAST_RANDOM_LABELS

        return self.labels.n >= LEAST_RANDOM_LABELS


def _keep(run: Run, found: Results, given: Labelled, fitted: Fitted) -> Event:
    """The event that now keeps a calibration; `fitted.blind` is of the labels in the order of their rows."""
    import numpy as np

    from .calibrations import CALIBRATED

    rows, columns = np.nonzero(~np.isnan(given.values))
    labels: list[list[Any]] = [
        [int(found.positions[row]), int(column), float(given.values[row, column]), int(given.random[row, column]), seen]
        for row, column, seen in zip(rows, columns, fitted.blind.tolist(), strict=True)
        if not np.isnan(seen)
    ]
    details = {**fitted.calibration.record(), "labels": labels, "sheet": given.digest}
    return run.event(CALIBRATED, details, "goalcover calibrate")


def _write_sheet(run: Run, options: Mapping[str, Any]) -> None:
    """Nothing; writes rows drawn at random with every subgoal, and nothing of what the judge said.

    The rows come in the order of the draw: whoever labels only the first of them has labelled rows drawn at random.
    """
    import numpy as np

    from ..labels import write_sheet
    from ..outputs import placed
    from ..resampling import drawn
    from .labelling import refuse_filled
    from .results import results
    from .terminal import counted

    refuse_filled(options["sheet"])
    found = results(run)
    _refuse_strategic(run, found)
    assessed = np.sort(found.positions[~np.isnan(found.values[found.value]).all(axis=1)])
    chosen = assessed[drawn(len(assessed), options["seed"], options["n_rows"])].tolist()
    if not chosen:
        raise StoreError("No row of this run is judged yet.", "Let `goalcover assess` go on first.")
    wanted = set(chosen)
    rows = {position: row for position, row in enumerate(run.rows()) if position in wanted}
    origin = run.origin()
    with placed(options["sheet"], "csv", [Path(origin.path)] if origin else []) as place:
        write_sheet(place, (line for position in chosen for line in _lines(rows[position], found.goal.subgoals)))
    click.echo(
        f"{counted(len(chosen), 'row')} x {counted(len(found.goal.subgoals), 'subgoal')} to label in "
        f"{options['sheet']}. Does the row teach "
        "the capability? Fill in the column label: yes or no, or a number from 0 to 1 (0.6 or more is support). Label "
        "from the top: the order is random, so you may stop anywhere. Then give the sheet with --labels.",
        err=True,
    )


def _refuse_strategic(run: Run, found: Results) -> None:
    """Raises StoreError if the rows assessed were chosen: labels of them would not speak for the data."""
    if found.strategic:
        raise StoreError(
            f"The rows of {run.folder} were chosen by a study, not drawn at random from the data.",
            "Assess the data in a run of their own, and calibrate that.",
        )


def _lines(row: Sample, subgoals: Sequence[Subgoal]) -> Iterator[Mapping[str, Any]]:
    for subgoal in subgoals:
        yield {
            "id": row.id,
            "subgoal": subgoal.id,
            "capability": f"{subgoal.name}: {subgoal.description}",
            "input": row.input,
            "output": row.output,
            "label": "",
            "drawn": "random",
        }


def _fit(run: Run, found: Results, given: Labelled, options: Mapping[str, Any]) -> Fitted:
    """The map that the labels give. Raises DataError if they are too few, or all alike."""
    import numpy as np

    from ..calibration import fit
    from .calibrations import judge_of

    rows, columns = np.nonzero(~np.isnan(given.values))
    return fit(
        found.values[found.value][rows, columns],
        given.values[rows, columns],
        run.row_samples(found.positions)[rows],
        columns,
        judge=judge_of(found.judge, found.panel, found.aggregate),
        goal=found.goal.digest,
        source=options["source"],
        floor=options["floor"],
    )


def _labels(run: Run, found: Results) -> HumanLabels:
    """The labels as the run now keeps them."""
    from .calibrations import judge_of, kept

    held = kept(run, judge_of(found.judge, found.panel, found.aggregate), found.goal.digest)
    assert held is not None
    return held.of_rows(found.positions, len(found.goal.subgoals))


def _alone(labels: HumanLabels) -> Iterator[Estimate]:
    """For each subgoal the share of rows that support it, by the labels of rows drawn at random alone."""
    import numpy as np

    from ..stats import prediction_powered, supports

    for column in range(labels.values.shape[1]):
        random = labels.random[:, column] & ~np.isnan(labels.values[:, column])
        supporting = supports(labels.values[random, column]).astype(float)
        yield prediction_powered(np.empty(0), labels.blind[random, column], supporting)


def _n_random(labels: HumanLabels) -> int:
    import numpy as np

    return int((labels.random & ~np.isnan(labels.values)).sum())


def _as_json(run: Path, found: Results, labels: HumanLabels, supports: Sequence[_Support]) -> dict[str, Any]:
    import numpy as np

    from . import calibrations
    from .shown import number, support_json

    assert found.calibration is not None
    become = found.calibration.apply(np.array(ANCHORS))
    return {
        "run": str(run),
        "judge": found.judge,
        "calibration": calibrations.as_json(found.calibration),
        "n_random": _n_random(labels),
        "map": [{"value": value, "calibrated": number(label)} for value, label in zip(ANCHORS, become, strict=True)],
        "subgoals": [
            {
                "id": each.powered.subgoal.id,
                "support": support_json(each.powered),
                "judge": support_json(each.judge),
                "labels": {
                    "n": each.labels.n,
                    "share": number(each.labels.value),
                    "low": each.labels.low,
                    "high": each.labels.high,
                },
                "enough_labels": each.enough,
                "verdict": each.powered.verdict,
            }
            for each in supports
        ],
    }


def _print(calibration: Calibration, labels: HumanLabels, supports: Sequence[_Support]) -> None:
    import numpy as np

    from ..coverage import LEAST_RANDOM_LABELS
    from . import calibrations
    from .table import print_table

    if calibration.diagnostic_only:
        click.echo(calibrations.warning(calibration))
    click.echo(calibrations.told(calibration))
    become = calibration.apply(np.array(ANCHORS))
    print_table([calibration.source, *ANCHOR_TEXTS], [["calibrated", *(f"{label:.2f}" for label in become)]])
    rows = [
        [
            each.powered.subgoal.id,
            _interval(each.judge.support),
            _interval(each.labels),
            str(each.labels.n),
            _interval(each.powered.support) if each.enough else "too few labels",
            f"{100 * each.powered.subgoal.target_share:g}%",
            each.powered.verdict if each.enough else "–",
        ]
        for each in supports
    ]
    header = ["support of", "by the judge", "by labels alone", "labels", "by labels and judge", "target", "verdict"]
    print_table(header, rows, right=(3, 5))
    n_random = _n_random(labels)
    click.echo(
        f"{n_random} of {calibration.n_labels} labels {'is of a row' if n_random == 1 else 'are of rows'} drawn, or "
        "taken as drawn, at random. Intervals rest on these and hold whatever the judge is worth; they need "
        f"{LEAST_RANDOM_LABELS} of a subgoal."
    )


def _interval(share: Estimate) -> str:
    if share.value != share.value:
        return "–"
    return f"{100 * share.value:.1f}% ({100 * share.low:.1f}% to {100 * share.high:.1f}%)"
