"""The `goalcover` command: finds a subcommand, sets the air gap before it runs, and turns errors into plain words."""

from __future__ import annotations

import importlib
import io
import sys
import traceback
import warnings
from collections.abc import Mapping
from types import TracebackType

import click

from .. import __version__, offline, privacy
from ..errors import GoalCoverError
from .terminal import one_line, plain
from .trail import recorded

COMMANDS: Mapping[str, str] = {
    "models": "List, fetch, add and verify the models that judge.",
    "doctor": "Prove that a judge is ready: weights, grammar, sockets, memory, run folder.",
    "clarify": "Turn a goal into subgoals, each one thing, no two alike, none missing.",
    "run": "Assess, analyze and recommend in one go.",
    "assess": "Judge every sample against every subgoal of a goal.",
    "analyze": "Name what is missing where a run has gaps.",
    "recommend": "Say what would close the gaps of a run.",
    "synthesize": "Have samples written for the gaps of a run, and keep what is good.",
    "filter": "Write the rows that serve the goal, and the others with the reason.",
    "mix": "Write the original, goal-aligned and synthetic datasets to train on.",
    "train": "Fine-tune a policy by GRPO, with a local judge as the reward.",
    "evaluate": "Grade what policies write about a fixed test set, overall and by subgoal.",
    "merge": "Write a trained policy as a plain model, its adapter merged in.",
    "experiment": "Train and evaluate what the paper compares, and write its tables.",
    "status": "Say how far a run has come, and what comes next.",
    "show": "Print a run's coverage table.",
    "validate": "Remove what teaches a capability, and see whether a judge notices.",
    "ablate": "Validate with one part left out at a time, to see what it is worth.",
    "agree": "Compare judges with each other and with people's labels, and probe their biases.",
    "calibrate": "Fit a judge's values to people's labels, for intervals that hold.",
    "export": "Write what a run holds, one JSON object a line.",
    "decide": "Put a verdict of your own, with a reason, beside the judge's.",
    "audit": "Show, verify and export what was done: to a run, and by you across runs.",
    "purge": "Remove the samples' texts from a run, and keep its numbers and audit trail.",
    "packages": "List installed packages and licences; check them against known vulnerabilities.",
    "serve": "Keep a judge warm in a vLLM server on this machine's loopback.",
}
"""Every command and its one line of help; a command's module has its name and is imported when it is called."""


class _Commands(click.Group):
    """A group whose commands are imported when they are called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="goalcover")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. It may contain sample text.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Find the capabilities that fine-tuning data lacks, before training, without the data leaving this machine.

    \b
    Example:
      goalcover models pull smollm2-135m-instruct
      goalcover run goal.toml data.jsonl --run runs/first
      goalcover synthesize runs/first -n 20 -o synthetic.jsonl

    Exit codes: 0 done, 1 error, 2 usage, 3 finished with failed judgements or answers, 130 interrupted and resumable.
    """
    ctx.obj = {"debug": debug}


@recorded(COMMANDS)
def run() -> None:
    """Nothing; the executable's entry: runs the command and exits with its code."""
    debug = "--debug" in sys.argv
    privacy.begin(debug=debug)
    offline.switch_offline()
    offline.shut()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows what it can
    _say_plainly(debug)
    try:
        code = main.main(prog_name="goalcover", standalone_mode=False)
    except click.ClickException as error:
        error.show(told := io.StringIO())
        click.echo(plain(told.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. What was judged is stored: the same command goes on from there.", err=True)
        sys.exit(130)
    except GoalCoverError as error:
        if debug:
            raise
        click.echo(f"Error: {one_line(error.problem)}", err=True)
        if error.mend:
            click.echo(one_line(error.mend), err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        for line in privacy.unforeseen(type(error)):
            click.echo(line, err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _say_plainly(debug: bool) -> None:
    """Nothing; from now on no warning and no traceback can steer the terminal, whatever file its words come from."""
    shown = warnings.showwarning
    warnings.showwarning = lambda message, *place, **where: shown(one_line(str(message)), *place, **where)
    if debug:
        click.echo(privacy.DEBUG, err=True)
        sys.excepthook = _show_traceback


def _show_traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    click.echo(plain("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


if __name__ == "__main__":
    run()
