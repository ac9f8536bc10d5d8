"""Commands of training tell their many options under headings, in words that are the same in each."""

from __future__ import annotations

import re

import click
import pytest

from goalcover_local.cli import evaluate, experiment, train
from goalcover_local.cli.headings import OTHERS, Headed, under

COMMANDS = (train.command, evaluate.command, experiment.rft)


def sections(command: click.Command) -> dict[str, str]:
    """The parts of a command's help that have a heading, by it."""
    # Click keeps the help option that it makes first: it must be the one that the whole command line has.
    said = command.get_help(click.Context(command, info_name="told", help_option_names=["-h", "--help"]))
    parts = re.split(r"^(\S.*):\n", said, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def options(command: click.Command) -> dict[str, click.Option]:
    return {each.opts[0]: each for each in command.params if isinstance(each, click.Option)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_under_a_heading_and_once(command: click.Command) -> None:
    found = sections(command)
    assert list(found)[-1] == OTHERS and found.pop(OTHERS).split()[0] == "-h,"
    told = [name for part in found.values() for name in re.findall(r"^  (--[a-z-]+)", part, re.MULTILINE)]
    assert sorted(told) == sorted(options(command)) and len(found) >= 4


def test_the_headings_of_a_training() -> None:
    assert list(sections(train.command)) == [
        "Data", "Policy", "Reward and judge", "Steps", "Memory and speed", "Results", OTHERS,
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_means_the_same_in_every_command(command: click.Command) -> None:
    found = options(command)
    assert found["--policy"].metavar == found["--judge"].metavar == "CARD"
    assert "base model" in str(found["--policy"].help) and "policy" in str(found["--device"].help)
    for name in ("--engine", "--url", "--devices", "--threads"):
        assert "judge" in str(found[name].help) and "model" not in str(found[name].help), name
    assert "--card" not in found
    if "--name" in found:
        assert found["--name"].metavar == "NAME" and "trained policy" in str(found["--name"].help)


def test_options_keep_their_order_and_those_without_a_heading_come_last() -> None:
    @click.command(cls=Headed)
    @click.option("--plain")
    @under("Second", click.option("--c"))
    @under("First", click.option("--b"), click.option("--a"))
    @click.argument("file")
    def command(**_: object) -> None:
        """Nothing."""

    found = sections(command)
    assert list(found) == [OTHERS, "Second", "First"]
    assert re.findall("--[a-z]+", found["First"]) == ["--b", "--a"] and "FILE" not in "".join(found.values())
    assert [each.name for each in command.params] == ["plain", "c", "b", "a", "file"]
