"""Headings for the options of a command that has many: its help shows them group by group."""

from __future__ import annotations

from collections.abc import Callable

import click

from .judging import Command

OTHERS = "Other options"
"""Where the options stand that were given no heading."""


class Headed(click.Command):
    """A command whose help shows its options under the headings that `under` gave them, in the order of the first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                groups.setdefault(vars(parameter).get("heading", OTHERS), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def under(heading: str, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """A decorator that gives a command these options, in this order, under a heading of its help."""

    def decorate(command: Command) -> Command:
        command, added = with_added(command, *options)
        for parameter in added:
            vars(parameter)["heading"] = heading
        return command

    return decorate


def with_added(command: Command, *options: Callable[[Command], Command]) -> tuple[Command, list[click.Parameter]]:
    """The command with these options, in this order, and the parameters that they are."""
    n_before = len(vars(command).get("__click_params__", ()))
    for option in reversed(options):
        command = option(command)
    return command, vars(command).get("__click_params__", [])[n_before:]
