"""`goalcover filter`: the goal-aligned rows of a run, and the others, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..outputs import FORMATS
from .selecting import chosen, record, selection_options

if TYPE_CHECKING:
    import numpy as np

    from ..store import Run
    from .selecting import Choice


@click.command("filter", short_help="Write the rows that serve the goal, and the others with the reason.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to write the rows kept. Its suffix names the format; without one it is a folder of `datasets`.",
)
@selection_options
@click.option("--rejected", type=click.Path(path_type=Path), help="Where to write the others; beside it if not given.")
@click.option("--reasons", type=click.Path(path_type=Path), help="Where to write why; beside it if not given.")
@click.option("--format", "file_format", type=click.Choice(FORMATS), help="The format, where the name does not tell.")
@click.option("--dry-run", is_flag=True, help="Print what would be kept; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def command(run: Path, **options: Any) -> None:
    """Write the rows that serve the goal, by what the run in folder RUN holds; no model is asked.

    Rows are as they were in the data: JSON Lines byte for byte, other formats value for value. Kept and rejected rows
    together are all rows used, each in the data's order. A failed judgement is missing, never 0. The file of reasons
    has a line for every row: row, id, source, line, kept, reason, and its values by subgoal.

    With --json: run, judge, value, rule, n_rows, n_kept, n_rejected, n_refused, files (kept, rejected, reasons; null
    in a dry run), recorded, and for each of subgoals its id, alignment, support and n_judged, each before and after:
    of all rows, and of those kept. Support is of the n_judged rows that have a value.

    \b
    Example:
      goalcover filter runs/first -o aligned.jsonl
      goalcover filter runs/first -o aligned.parquet --keep "top 50%" --stratify --at-least 20
      goalcover filter runs/first -o aligned.jsonl --keep "all >= 0.4" --threshold treatment=0.8 --dry-run
    """
    from ..store import Run
    from .table import as_text

    files = _files(options)
    with Run.open(run, write=False) as opened:
        choice = chosen(opened, options)
        n_refused = opened.counts().refusals
        digests = {} if options["dry_run"] else _write(opened, choice, files, options)
    kept = choice.selection.kept
    counts = {"n_rows": len(kept), "n_kept": int(kept.sum()), "n_rejected": int((~kept).sum()), "n_refused": n_refused}
    recorded = bool(digests) and record(run, "filtered", choice, {**counts, "files": digests})
    if options["as_json"]:
        shown = {
            "run": str(run),
            "judge": choice.results.judge,
            "value": choice.results.value,
            "rule": str(choice.criteria.rule),
            **counts,
            "files": {name: str(path) for name, path in files.items()} if digests else None,
            "recorded": recorded,
            "subgoals": _subgoals(choice),
        }
        click.echo(as_text(shown))
    else:
        _print(choice, files if digests else {})
    if not kept.any():
        click.echo("No row is kept: give a lower value, or look at the reasons.", err=True)


def _files(options: Mapping[str, Any]) -> Mapping[str, Path]:
    """What is written, by its name in the output: the rows kept, those rejected, and the reasons."""
    output: Path = options["output"]
    if not output.name:
        raise click.UsageError(f"{output} is no name for a file.")
    files = {
        "kept": output,
        "rejected": options["rejected"] or output.with_name(f"{output.stem}.rejected{output.suffix}"),
        "reasons": options["reasons"] or output.with_name(f"{output.stem}.reasons.jsonl"),
    }
    if len({path.resolve() for path in files.values()}) < len(files):
        raise click.UsageError("The rows kept, those rejected and the reasons need a file each.")
    return files


def _write(run: Run, choice: Choice, files: Mapping[str, Path], options: Mapping[str, Any]) -> Mapping[str, str]:
    """The digests of the files, all of them written or none."""
    from ..formats import content_digest
    from ..outputs import format_of, placed
    from ..writers import write, write_records

    kept, source = choice.selection.kept, choice.source
    named = options["file_format"]
    kind = format_of(files["kept"], named)
    others = format_of(files["rejected"], named) if options["rejected"] else kind
    kinds = {"kept": kind, "rejected": others, "reasons": "jsonl"}
    with ExitStack() as held:
        places = {name: held.enter_context(placed(path, kinds[name], choice.data)) for name, path in files.items()}
        write(places["kept"], source, kept)
        write(places["rejected"], source, ~kept)
        write_records(places["reasons"], _reasons(run, choice))
    return {name: content_digest(path) for name, path in files.items()}


def _reasons(run: Run, choice: Choice) -> Iterator[Mapping[str, Any]]:
    kept, reasons = choice.selection
    for position, row in enumerate(run.rows()):
        numbers = (None if value != value else float(value) for value in choice.values[position])
        yield {
            "row": position,
            "id": row.id,
            "source": row.source,
            "line": row.line,
            "kept": bool(kept[position]),
            "reason": reasons[position],
            "values": dict(zip(choice.subgoals, numbers, strict=True)),
        }


def _subgoals(choice: Choice) -> list[dict[str, Any]]:
    """For each subgoal its mean value, how many rows support it and how many have one: of all, and of those kept."""
    from ..stats import mean_interval, support
    from .shown import number

    def told(values: np.ndarray) -> Mapping[str, float | None]:
        n_judged = int((values == values).sum())
        return {
            "alignment": number(mean_interval(values).value),
            "support": support(values)[0],
            "n_judged": n_judged,
        }

    found = []
    for column, identity in enumerate(choice.subgoals):
        before, after = told(choice.values[:, column]), told(choice.values[choice.selection.kept, column])
        found.append({"id": identity} | {name: {"before": before[name], "after": after[name]} for name in before})
    return found


def _print(choice: Choice, files: Mapping[str, Path]) -> None:
    from .table import print_table
    from .terminal import plain

    def mean(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    kept = choice.selection.kept
    n_rows, n_kept = len(kept), int(kept.sum())
    rows = [
        [
            each["id"],
            mean(each["alignment"]["before"]),
            mean(each["alignment"]["after"]),
            f"{each['support']['before']} of {each['n_judged']['before']}",
            f"{each['support']['after']} of {each['n_judged']['after']}",
        ]
        for each in _subgoals(choice)
    ]
    header = ["subgoal", "alignment, all rows", "rows kept", "support, all rows judged", "rows kept"]
    print_table(header, rows, right=(1, 2, 3, 4))
    click.echo(
        f"{n_kept} of {n_rows} rows kept, {n_rows - n_kept} rejected; "
        f"rule: {choice.criteria.rule}, value: {choice.results.value}."
    )
    for name, path in files.items():
        click.echo(f"{name:9} {plain(str(path))}")
