"""`goalcover decide`: a person's verdict on a subgoal, with a reason, beside the judge's."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from ..terms import Verdict


@click.command("decide", short_help="Put a verdict of your own, with a reason, beside the judge's.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("subgoal")
@click.option("--verdict", type=click.Choice(list(get_args(Verdict))), help="Your verdict.")
@click.option("--withdraw", is_flag=True, help="Take back the decision that stands.")
@click.option(
    "--reason", required=True, help="Why, in your words. It is kept in the run; the audit trail has its digest."
)
def command(run: Path, subgoal: str, verdict: Verdict | None, withdraw: bool, reason: str) -> None:
    """Decide what the verdict on SUBGOAL (an id of the goal) is, in the run in folder RUN.

    The judge's verdict stays, and decides what is analyzed; yours is shown beside it by `show`, `status` and `export
    --what decisions`, with your account's name, the time and the reason. When the judgements change afterwards, it is
    shown as made before them.

    Quote no row in the reason: it is shown and exported, and stays until the run is purged (`goalcover purge`).

    \b
    Example:
      goalcover decide runs/first dosage --verdict covered --reason "Taught by the second dataset."
      goalcover decide runs/first dosage --withdraw --reason "That dataset was dropped."
    """
    from ..decisions import Decision, decide, standing
    from ..errors import GoalError
    from ..store import Run
    from .decided import basis
    from .results import results
    from .terminal import plain

    if withdraw == (verdict is not None):
        raise click.UsageError("Give either --verdict or --withdraw.")
    if not (reason := plain(reason).strip()):
        raise click.UsageError("Give the reason in words.")
    with Run.open(run, write=True) as opened:
        found = results(opened)
        named = [covered for covered in found.coverage if covered.subgoal.id == subgoal]
        if not named:
            ids = ", ".join(covered.subgoal.id for covered in found.coverage)
            raise GoalError(f"The run assessed no subgoal {subgoal[:60]!a}.", f"It assessed: {ids}.")
        [covered] = named
        if withdraw and subgoal not in standing(opened, found.goal):
            raise GoalError(f"No decision on {subgoal} stands.", "There is nothing to withdraw.")
        told = Decision(subgoal, covered.subgoal.digest, verdict, covered.verdict, reason, basis(found, covered))
        decide(opened, told)
    if verdict is None:
        click.echo(f"{subgoal}: the decision is withdrawn; the judge says {covered.verdict}.")
    else:
        click.echo(f"{subgoal}: {verdict} by your decision; the judge says {covered.verdict}.")
