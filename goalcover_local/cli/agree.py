"""`goalcover agree`: how far judges agree with each other and with people, and what moves them that should not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .judging import engine_options
from .probing import plain_number, print_probes, probed, signed

if TYPE_CHECKING:
    import numpy as np

    from ..store import Run
    from ..terms import Estimate
    from .labelling import Labelled
    from .raters import Raters

PEOPLE = "labels"
"""What stands for people among the names of judges."""

CONSTANT = "always the subgoal's mean"
"""Who stands beside the judges without ever looking at a row."""

Told = dict[str, Any]


@click.command("agree", short_help="Compare judges with each other and with people's labels, and probe their biases.")
@click.argument("runs", metavar="RUN [RUN …]", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="People's labels: a CSV or JSON Lines file with id, subgoal and label (0 to 1, or yes and no).",
)
@click.option("--queue", type=click.Path(path_type=Path), help="Write the most disputed pairs as a CSV sheet to label.")
@click.option("--queue-rows", type=click.IntRange(1), default=50, show_default=True, help="How many pairs it holds.")
@click.option(
    "--value",
    type=click.Choice(["score", "expectation", "corrected"]),
    help="Which number stands for a judgement; the first run's if not given, but no calibrated one.",
)
@click.option("--probes", is_flag=True, help="Ask each run's judge again about changed samples: six rounds of pairs.")
@click.option("--probe-rows", type=click.IntRange(2), default=50, show_default=True, help="Rows that the probes draw.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes every draw.")
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print it all as JSON.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Compare every judge of which the runs in folders RUN hold judgements, on the pairs that they share.

    Weighted kappa, Spearman's rho and Krippendorff's alpha say how far judges agree; the bias at each anchor says where
    one is milder. With --labels each stands beside people, and beside whoever always says the subgoal's mean label.
    With --probes each run's judge is asked about samples that are longer, in another order, or give orders.

    \b
    Example:
      goalcover agree runs/small runs/large --queue disputed.csv
      goalcover agree runs/small runs/large --labels disputed.csv
      goalcover agree runs/small --probes --probe-rows 20
    """
    from ..store import Run
    from .labelling import refuse_filled
    from .raters import gathered
    from .table import as_text

    _refuse_idle(ctx, options)
    if options["queue"]:
        refuse_filled(options["queue"])
    with ExitStack() as held:
        folders = list({path.resolve(): path for path in options["runs"]}.values())
        runs = [held.enter_context(Run.open(path, write=False)) for path in folders]
        raters = gathered(runs, options["value"])
        _refuse_too_few(raters, options)
        labels = _labels(raters, options)
        told = _compared(raters, labels, options["seed"])
        queued = _queue(runs, raters, labels, options) if options["queue"] else None
        found = list(probed(runs, raters, options)) if options["probes"] else []
    details = {"labels": labels.digest if labels else "", "n_labels": labels.n_labels if labels else 0}
    details |= {"queue": queued["digest"], "n_queue": queued["n"]} if queued else {}
    details |= {"probed": [each["digest"] for each in found], "probe_rows": options["probe_rows"]} if found else {}
    judges = {"judges": list(raters.identities), "value": raters.value, "n_pairs": [p["n"] for p in told["pairs"]]}
    recorded = [_recorded(folder, {**judges, **details}) for folder in folders]
    told |= {"runs": [str(folder) for folder in folders], "queue": queued, "probes": found, "recorded": all(recorded)}
    if options["as_json"]:
        click.echo(as_text(told))
    else:
        _print(told)
    if any(move["n_failed"] for each in found for move in each["moves"]):
        ctx.exit(3)


def _refuse_idle(ctx: click.Context, options: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that would do nothing, or a queue that is no CSV sheet."""
    for option, name, needed in (("queue_rows", "--queue-rows", "queue"), ("probe_rows", "--probe-rows", "probes")):
        if ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE and not options[needed]:
            raise click.UsageError(f"{name} does nothing without --{needed}.")
    if options["queue"] and options["queue"].suffix.lower() != ".csv":
        raise click.UsageError("The queue is a CSV sheet: end its name with .csv.")


def _refuse_too_few(raters: Raters, options: Mapping[str, Any]) -> None:
    """Raises StoreError where there is nothing to compare."""
    import numpy as np

    from ..errors import StoreError

    if len(raters.names) > 1:
        if np.isnan(raters.values).all(axis=0).all() or (~np.isnan(raters.values)).sum(axis=0).max() < 2:
            raise StoreError(
                "These runs share no pair of sample and subgoal.", "Name runs of the same data for the same goal."
            )
        return
    if len(options["runs"]) > 1 and not (options["labels"] or options["probes"]):
        raise StoreError(
            f"All these runs are of one judge, {raters.names[0]}.",
            "Name a run by another judge, or add --labels FILE, or --probes.",
        )
    mend = "Name a second run of the same data by another judge"
    if options["queue"]:
        raise StoreError(f"{raters.names[0]} alone has no disputed pairs.", f"{mend}.")
    if not options["labels"] and not options["probes"]:
        raise StoreError(
            f"{raters.names[0]} alone has nobody to agree with.", f"{mend}, or add --labels FILE, or --probes."
        )


def _labels(raters: Raters, options: Mapping[str, Any]) -> Labelled | None:
    """People's labels of the pairs, if a file was given."""
    from .labelling import matched

    if not options["labels"]:
        return None
    columns = {subgoal.id: column for column, subgoal in reversed(list(enumerate(raters.subgoals.values())))}
    shape = len(raters.samples), len(raters.subgoals)
    found = matched(options["labels"], raters.rows, columns, shape, raters.ambiguous)
    if n_chosen := int((~found.random).sum()):
        click.echo(
            f"{n_chosen} of the labelled pairs {'was' if n_chosen == 1 else 'were'} not drawn at random: beside what "
            "was chosen for disagreement judges look worse than they are on all rows.",
            err=True,
        )
    return found


def _compared(raters: Raters, labels: Labelled | None, seed: int) -> Told:
    """What there is to say of judges beside each other, and beside labels."""
    import numpy as np

    from ..studies import agreement
    from .shown import number

    judges = dict(zip(raters.names, raters.values, strict=True))
    everyone = judges | ({PEOPLE: labels.values} if labels else {})
    pairs = []
    for first, second in combinations(everyone, 2):
        found = agreement.agreement(everyone[first], everyone[second], seed=seed)
        shares = {name: number(getattr(found, name)) for name in ("spearman", "exact", "within_one", "difference")}
        pairs.append({"first": first, "second": second, "n": found.n, "kappa": _estimate(found.kappa), **shares})
    biases = []
    for rater, other in permutations(everyone, 2):
        if rater != PEOPLE:
            bias = agreement.bias(everyone[rater], everyone[other])
            means = [number(mean) for mean in bias.means]
            biases.append({"judge": rater, "beside": other, "means": means, "counts": list(bias.counts)})
    shared = int(((~np.isnan(raters.values)).sum(axis=0) >= 2).sum())
    told: Told = {
        "value": raters.value,
        "judges": [
            {"name": name, "digest": digest} for digest, name in zip(raters.identities, raters.names, strict=True)
        ],
        "pairs": pairs,
        "alpha": {"value": number(agreement.alpha(raters.values)), "n": shared},
        "bias": biases,
        "labels": None,
    }
    if labels:
        about = agreement.about_labels(labels.values, seed=seed)
        fits = {name: agreement.fit(values, labels.values, seed=seed) for name, values in judges.items()}
        told["labels"] = {
            "n": about.n,
            "mean": number(about.mean),
            "base_rate": _estimate(about.base_rate),
            "alike": bool(np.nanmin(labels.values) == np.nanmax(labels.values)),
            "fits": [_fit(name, fit) for name, fit in (*fits.items(), (CONSTANT, about.constant))],
        }
    return told


def _estimate(found: Estimate) -> Told:
    from .shown import number

    return {"value": number(found.value), "low": number(found.low), "high": number(found.high)}


def _fit(name: str, found: Any) -> Told:
    return {"name": name, "n": found.n} | {
        each: _estimate(getattr(found, each)) for each in ("error", "auc", "kappa", "support")
    }


def _queue(runs: Sequence[Run], raters: Raters, labels: Labelled | None, options: Mapping[str, Any]) -> Told:
    """The sheet of the most disputed pairs without a label, as written: its path, digest and rows."""
    import numpy as np

    from ..formats import content_digest
    from ..labels import write_sheet
    from ..outputs import placed
    from ..studies.agreement import disputed
    from .terminal import counted

    values = raters.values if labels is None else np.where(np.isnan(labels.values), raters.values, np.nan)
    pairs, spreads = disputed(values, values[0].size)
    ids = {place: identity for identity, place in reversed(list(raters.rows.items()))}
    named = np.array([place in ids for place, _ in pairs.tolist()], dtype=np.bool_)
    if n_nameless := int((~named).sum()):
        click.echo(
            f"{counted(n_nameless, 'disputed pair')} cannot be queued: {'its id is' if n_nameless == 1 else 'ids are'} "
            "those of different rows in these runs.",
            err=True,
        )
    pairs, spreads = pairs[named][: options["queue_rows"]], spreads[named][: options["queue_rows"]]
    data = [Path(origin.path) for run in runs if (origin := run.origin())]
    output: Path = options["queue"]
    with placed(output, "csv", [*data, *filter(None, [options["labels"]])]) as place:
        write_sheet(place, _disputed_rows(runs, raters, ids, pairs, spreads))
    return {"file": str(output), "digest": content_digest(output), "n": len(pairs), "n_left_out": n_nameless}


def _disputed_rows(
    runs: Sequence[Run], raters: Raters, ids: Mapping[int, str], pairs: np.ndarray, spreads: np.ndarray
) -> Iterator[Mapping[str, Any]]:
    """The rows of the sheet: what a person must read to say a label, and what each judge said."""
    from .shown import number

    subgoals = list(raters.subgoals.values())
    for (place, column), spread in zip(pairs.tolist(), spreads, strict=True):
        digest, subgoal = raters.samples[place], subgoals[column]
        run = next(run for run in runs if run.keys([digest])[0] >= 0)
        sample = run.sample(digest)
        yield {
            "id": ids[place],
            "subgoal": subgoal.id,
            "capability": f"{subgoal.name}: {subgoal.description}",
            "input": sample.input,
            "output": sample.output,
            "label": None,
            "drawn": "disagreement",
            "spread": number(spread),
            **{name: number(raters.values[k, place, column]) for k, name in enumerate(raters.names)},
        }


def _recorded(folder: Path, details: Mapping[str, Any]) -> bool:
    """Whether the run's audit trail now tells of this comparison; says so where it cannot be written to."""
    from ..errors import StoreError
    from ..store import Run

    try:
        with Run.open(folder, write=True) as run:
            run.event("agreement measured", details, "goalcover agree")
    except StoreError as error:
        click.echo(f"Not recorded in the run's audit trail: {error.problem}", err=True)
        return False
    return True


def _print(told: Told) -> None:
    from ..terms import ANCHOR_TEXTS
    from .table import print_table
    from .terminal import counted, plain

    if told["pairs"]:
        header = ["judges", "pairs", "weighted kappa", "Spearman", "same anchor", "within one", "first − second"]
        print_table(
            header,
            [
                [
                    f"{each['first']} – {each['second']}",
                    str(each["n"]),
                    _with_interval(each["kappa"]),
                    *map(plain_number, (each["spearman"], each["exact"], each["within_one"])),
                    signed(each["difference"]),
                ]
                for each in told["pairs"]
            ],
            right=range(1, 7),
        )
    if len(told["judges"]) > 1:
        click.echo(
            f"Krippendorff's alpha of all {len(told['judges'])} judges: {plain_number(told['alpha']['value'])}, on "
            f"{counted(told['alpha']['n'], 'pair')} that two or more judged."
        )
    if told["pairs"]:
        click.echo(f"Value: {told['value']}. In brackets: 95% intervals over rows drawn again.")
    if told["bias"]:
        click.echo("\nMean difference where the other is nearest each anchor, and on how many pairs:")
        rows = [
            [f"{each['judge']} above {each['beside']}"]
            + [f"{signed(mean)} ({n})" for mean, n in zip(each["means"], each["counts"], strict=True)]
            for each in told["bias"]
        ]
        print_table(["", *(f"at {text}" for text in ANCHOR_TEXTS)], rows, right=range(1, 7))
    if told["labels"]:
        _print_labels(told["labels"])
    for each in told["probes"]:
        print_probes(each)
    if told["queue"]:
        click.echo(f"{counted(told['queue']['n'], 'disputed pair')} to label: {plain(told['queue']['file'])}")


def _print_labels(labels: Told) -> None:
    from .table import print_table
    from .terminal import counted

    click.echo("\nBeside people's labels:")
    columns = {"error": "mean error", "auc": "AUC of support", "kappa": "weighted kappa", "support": "right on support"}
    rows = [
        [each["name"], str(each["n"]), *(_with_interval(each[column]) for column in columns)] for each in labels["fits"]
    ]
    print_table(["", "pairs", *columns.values()], rows, right=range(1, 6))
    click.echo(
        f"Base rate: {_with_interval(labels['base_rate'])} of {counted(labels['n'], 'labelled pair')} is support; the "
        f"mean label is {plain_number(labels['mean'])}. The last row never looks at a sample: a judge is worth what it "
        "adds to that. Only AUC is taken within subgoals."
    )
    if labels["alike"]:
        click.echo("All labels are alike: they cannot tell a good judge from a bad one.")


def _with_interval(found: Told) -> str:
    interval = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return plain_number(found["value"]) + interval
