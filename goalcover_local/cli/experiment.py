"""`goalcover experiment`: what the paper compares, trained and evaluated from the data to the tables (section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .assessing import data_options, deadline, stop_options
from .dividing import COLUMNS, columns_of, divided
from .experimenting import conclude
from .headings import Headed, under
from .mixtures import in_folder, in_run
from .rehearsing import print_rehearsal, rehearse
from .stages import FAILED, Stages, flags
from .table import as_text
from .training import device_option, judge_engine_options

if TYPE_CHECKING:
    from ..finetune.grpo import Settings
    from ..finetune.rubric import Rubric
    from ..studies.downstream import Study

_ENGINE = ("engine", "url", "devices", "threads")
_ROWS = ("original", "goal-aligned", "synthetic", "synthetic-original", "synthetic-goal-aligned")
MIX = "mix"


@click.group("experiment", short_help="Train and evaluate what the paper compares, and write its tables.")
def command() -> None:
    """Train and evaluate what the paper compares, and write its tables.

    \b
    Example:
      goalcover experiment rft lay medquad.jsonl --run runs/lay
    """


_DATA = (
    data_options,
    click.option(
        "--mixed", type=click.Path(path_type=Path, exists=True), help="Datasets made elsewhere, not from DATA."
    ),
    click.option("--test", type=click.Path(path_type=Path, exists=True), help="With --mixed: the rows to test on."),
    click.option(
        "--rows", multiple=True, type=click.Choice(_ROWS), help="Train on this dataset alone. May be repeated."
    ),
)
_POLICY = (
    click.option("--policy", metavar="CARD", help="The base model to train; the study's if not given."),
    device_option,
    click.option(
        "--seeds", "n_seeds", type=click.IntRange(1), help="Trainings for each dataset; the study's if not given."
    ),
    click.option("--steps", type=click.IntRange(1), help="Updates in each training; the study's if not given."),
)
_JUDGES = (
    click.option("--judge", metavar="CARD", help="The judge that rewards; the study's if not given."),
    click.option(
        "--eval-judge",
        "evaluation_judge",
        metavar="CARD",
        help="The judge that counts in the tables; the study's if not given.",
    ),
    click.option(
        "--alignment-judge",
        metavar="CARD",
        help="The judge that says which subgoals rows serve; the study's if not given.",
    ),
    judge_engine_options,
)
_RESULTS = (
    click.option("--run", "run_folder", type=click.Path(path_type=Path), required=True, help="The run; made if new."),
    stop_options,
    click.option("--dry-run", is_flag=True, help="Say what it would take, and what is missing; train nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
)


@command.command("rft", cls=Headed, short_help="Fine-tune on each of the paper's datasets, and compare.")
@click.argument("study_name", metavar="STUDY")
@click.argument("data", required=False, type=click.Path(path_type=Path, exists=True))
@under("Data", *_DATA)
@under("Policy", *_POLICY)
@under("Judges", *_JUDGES)
@under("Results", *_RESULTS)
@click.pass_context
def rft(ctx: click.Context, /, **options: Any) -> None:
    """Divide DATA, find and mend its gaps, train a policy on each of the paper's datasets, and compare what they write.

    STUDY is lay (MedQuAD in small) or financial (the paper's own, for GovReport), or a study.toml of your own: goal,
    reward, models, sizes, settings. The stages are those of the other commands, each shown as you could type it:
    assess, analyze, synthesize, mix, train (with equal steps and seeds), evaluate. Killed anywhere, the same command
    goes on; what has ended is not done again. A dataset without rows is reported, and not trained on.

    RUN gets experiment.json, experiment.md (Tables 3 to 5 of the paper), and two figures. The test rows are drawn first
    and share no sample, nor a group that the study names, with any other.

    With --json: study, models, settings, sizes, trainings, not_trained, belonging, and for each of evaluations its
    rows, comparisons, subgoals and reading. With --dry-run too: sizes, judgements, steps, responses, seconds a step,
    lacking rows and missing weights.

    \b
    Example:
      goalcover experiment rft financial govreport.jsonl --run runs/paper --dry-run
      goalcover experiment rft lay medquad.jsonl --run runs/lay
      goalcover experiment rft study.toml --mixed mix --test test.jsonl --run runs/mine
    """
    from ..cards import load_card
    from ..finetune.rubric import load_rubric
    from ..store import Run

    if bool(options["data"]) == bool(options["mixed"]) or bool(options["mixed"]) != bool(options["test"]):
        raise click.UsageError("Give DATA, or --mixed with --test instead.")
    study = _study(options)
    policy, rubric = load_card(study.policy), load_rubric(study.reward)
    for name in (*study.cards, *study.policies):
        load_card(name)
    chosen = [row for row in _ROWS if row in options["rows"]] or list(_ROWS)
    columns = {name: options[name] for name in COLUMNS} if options["mixed"] else columns_of(study, options)
    settings = _settings(study, rubric, options, columns)
    if options["dry_run"]:
        if options["mixed"]:
            raise click.UsageError("--dry-run is of DATA, not of --mixed.")

        def rehearsed(policy: str, file: Path) -> list[str]:
            return _training(replace(study, policy=policy), file, "original", study.seeds[0], options, columns)

        told = rehearse(study, rubric, settings, chosen, rehearsed, options)
        click.echo(as_text(told)) if options["as_json"] else print_rehearsal(told)
        return
    ends = deadline(options["max_hours"])
    folder: Path = options["run_folder"]
    if options["mixed"]:
        with Run.open(folder, write=True, create=True):
            pass
        test, datasets, code = options["test"], in_folder(folder, options["mixed"], columns, ends), 0
    else:
        files, key = divided(study, policy, rubric, folder, options)
        stages = Stages(folder, key, ends)
        _mixed(study, files, stages, options, columns)
        test, datasets, code = files["test"], in_run(stages, folder / MIX), stages.code
    for row, each in datasets.items():
        if row not in chosen:
            datasets[row] = replace(each, why="left out by --rows")
        elif 0 < (each.n_samples or 0) < settings.prompts_per_step:
            why = f"{each.n_samples} rows, fewer than the {settings.prompts_per_step} prompts of a step"
            datasets[row] = replace(each, why=why)
    for seed in study.seeds:
        for row in (row for row in chosen if not datasets[row].why):
            name = study.training_name(row, seed)
            stage = datasets[row].stages.fork()
            arguments = _training(study, datasets[row].path, name, seed, options, columns)
            stage.run(f"train {name}", _command("train"), arguments)
    n_failed = conclude(study, rubric, settings, datasets, test, {**options, **columns, "ends": ends})
    if code == FAILED or n_failed:
        ctx.exit(FAILED)


def _study(options: Mapping[str, Any]) -> Study:
    """The study that is named, with what the options say otherwise."""
    from ..studies.downstream import find_study, read_study

    study = read_study(find_study(options["study_name"]))
    given = {name: options[name] for name in ("policy", "judge", "evaluation_judge", "alignment_judge")}
    study = replace(study, **{name: value for name, value in given.items() if value})
    if options["policy"]:
        study = replace(study, policies=())
    if options["steps"]:
        study = replace(study, training={**study.training, "steps": options["steps"]})
    if n := options["n_seeds"]:
        more = (seed for seed in range(max(study.seeds) + 1, max(study.seeds) + 1 + n))
        study = replace(study, seeds=(*study.seeds, *more)[:n])
    return study


def _command(name: str) -> click.Command:
    """A command of `goalcover` by its name."""
    from .main import main

    found = main.get_command(click.get_current_context(), name)
    assert found is not None
    return found


def _mixed(
    study: Study, files: Mapping[str, Path], stages: Stages, options: Mapping[str, Any], columns: Mapping[str, Any]
) -> None:
    """Nothing; the run's folder `mix` holds the datasets, made from the training rows alone."""
    folder = str(stages.folder)
    engine = {name: options[name] for name in _ENGINE}
    seed = study.data.seed
    assess, synthesize, mix = _command("assess"), _command("synthesize"), _command("mix")
    arguments = [study.goal, str(files["train"]), "--run", folder, "--judge", study.alignment_judge]
    stages.run("assess", assess, [*arguments, *flags(assess, {**engine, **columns, "seed": seed})])
    stages.run("analyze", _command("analyze"), [folder, *flags(_command("analyze"), engine)])
    wanted = {
        "n_wanted": study.synthetic.per_gap or None,
        "generator": study.synthetic.generator,
        "seed": seed,
        "holdout": files["test"],
    }
    stages.run("synthesize", synthesize, [folder, *flags(synthesize, {**engine, **wanted})])
    arguments = [folder, "-o", str(stages.folder / MIX), "--keep", study.filter.keep]
    stages.run("mix", mix, [*arguments, *flags(mix, {"seed": seed})])


def _training(
    study: Study,
    file: Path,
    name: str,
    seed: int,
    options: Mapping[str, Any],
    columns: Mapping[str, Any],
) -> list[str]:
    """The arguments of `goalcover train` for a dataset and a seed."""
    arguments = [str(file), "--run", str(options["run_folder"]), "--name", name, "--reward", study.reward]
    arguments += ["--policy", study.policy, "--judge", study.judge]
    values = {name: options[name] for name in (*_ENGINE, "device")}
    values |= {**study.training, **columns, "seed": seed, "max_prompt_tokens": study.data.max_prompt_tokens or None}
    return arguments + flags(_command("train"), values)


def _settings(study: Study, rubric: Rubric, options: Mapping[str, Any], columns: Mapping[str, Any]) -> Settings:
    """The settings of every training, as `goalcover train` takes them from the study and its own defaults."""
    from .train_options import settings_of

    existing = options["data"] or options["test"]
    arguments = _training(study, existing, "original", study.seeds[0], options, columns)
    context = _command("train").make_context("train", arguments, parent=click.get_current_context())
    return settings_of(context.params, rubric.task.max_tokens)
