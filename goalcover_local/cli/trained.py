"""What a training came to: its policy kept, its card and curve written, its numbers stored and shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .table import as_text
from .training import CHECKPOINTS, adapter_folder

if TYPE_CHECKING:
    from ..report.training import Curve
    from ..store import Run

TRAINED = "training ended"
CURVE = "curve.svg"

_AVERAGED = 10
"""Steps over which the beginning and the end of a training are averaged."""


def end(run: Run, found: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """How many judgements failed; adapter, card and curve are written, and the result is stored and shown."""
    from ..chain import digest_of_text
    from ..files import replace_file
    from ..finetune.checkpoints import keep_policy
    from ..report.training import curve
    from ..trainings import Trainings

    trainings, name = Trainings(run), options["name"]
    folder, n_steps = trainings.folder(name), found["settings"]["steps"]
    result = trainings.result(name)
    place, last = adapter_folder(trainings, name), folder / CHECKPOINTS / f"checkpoint-{n_steps}"
    files = keep_policy(last, place) if result is None else result["files"]
    steps = trainings.steps(name)
    drawing = curve([curve_of(name, steps)], title=f"Training {name}")
    result = {
        "files": files,
        "n_steps": n_steps,
        "first": averages(steps[:_AVERAGED]),
        "last": averages(steps[-_AVERAGED:]),
    }
    if trainings.result(name) is None:
        trainings.finish(name, result)
        scores = {part: score for part in ("first", "last") if (score := result[part].get("score")) is not None}
        drawn = {str((folder / CURVE).relative_to(run.folder)): digest_of_text(drawing)}
        details = {"name": name, "files": files, "drawn": drawn, "n_steps": n_steps, **scores}
        run.event(TRAINED, details, "goalcover train")
    told = {key: value for key, value in found.items() if key not in ("rows", "reward_name")}
    card = {"name": name, "reward_name": found["judge"]["reward"], **told, **result}
    replace_file(adapter_folder(trainings, name) / "card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    replace_file(folder / CURVE, drawing)
    n_responses = found["settings"]["prompts_per_step"] * found["settings"]["responses_per_prompt"]
    n_failed: int = round(sum(step.get("failed") or 0 for step in steps) * n_responses)
    shown = {
        "run": str(run.folder),
        "name": name,
        "reward": options["reward"],
        "policy": found["policy"]["card"],
        "judge": found["judge"]["card"],
        "n_rows": len(found["rows"]),
        "adapter": str(adapter_folder(trainings, name)),
        "n_failed": n_failed,
        "curve": str(folder / CURVE),
        **result,
    }
    if options["as_json"]:
        click.echo(as_text(shown))
    else:
        _print(shown)
    return n_failed


def averages(steps: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each number over steps, those that have none left out; None where no step has one."""
    found: dict[str, float | None] = {}
    for name in (name for name in (steps[0] if steps else ()) if name != "step"):
        values = [value for step in steps if (value := step.get(name)) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def curve_of(name: str, steps: Sequence[Mapping[str, Any]]) -> Curve:
    """A training's steps as a figure wants them."""
    from ..report.training import Curve

    score, spread, judged, checked = (
        [step.get(column) for step in steps] for column in ("score", "spread", "judged", "checked")
    )
    return Curve(name, [step["step"] for step in steps], score, spread, judged, checked)


def _print(shown: Mapping[str, Any]) -> None:
    from .table import print_table
    from .terminal import plain

    names = [("score", "reward, 1-5"), ("judged", "judged, 1-5"), ("checked", "checks, 0-1")]
    names += [(name, name.partition("/")[2]) for name in shown["last"] if "/" in name]
    names += [("tokens", "tokens"), ("truncated", "cut off"), ("kl", "KL"), ("zero_variance", "equal groups")]
    names += [("length_correlation", "reward with length, Spearman")]

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    rows = [[told, number(shown["first"].get(name)), number(shown["last"].get(name))] for name, told in names]
    n = min(_AVERAGED, shown["n_steps"])
    print_table([plain(shown["name"]), f"first {n} steps", f"last {n} steps"], rows, right=(1, 2))
    click.echo(f"adapter  {plain(shown['adapter'])}")
    click.echo(f"curve    {plain(shown['curve'])}")
    if n_failed := shown["n_failed"]:
        click.echo(f"{n_failed} judgements failed: those responses had no reward.", err=True)
    click.echo("These are rewards in training, by its own judge; `goalcover evaluate` tells of other rows.", err=True)
