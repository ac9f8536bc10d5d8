"""README and guide show only what exists: commands, options, files and links."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from goalcover_local.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
ROOT_CONTEXT = click.Context(main, **main.context_settings)
"""A command keeps the help options that its first context tells it, so every context here stems from the root's."""
PAGES = ("README.md", "docs/guide.md", "docs/airgap.md", "docs/security.md", "docs/compliance.md")
FOLDERS = ("docs", "goals", "grammars", "models", "scripts", "tests", "goalcover_local")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """The lines of a page's code blocks, continued ones joined; a block of `text` is output."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    return [line.strip() for kind, block in found if kind != "text" for line in block.replace("\\\n", " ").splitlines()]


def inline(page: str) -> list[str]:
    """A page's pieces of code within sentences."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def shown(line: str) -> Iterator[list[str]]:
    """The arguments of each `goalcover` command in a line of shell."""
    if "goalcover " not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    command: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;<>"):
            while command and re.fullmatch(r"\w+=.*|\$", command[0]):
                command.pop(0)
            if command and command[0] == "goalcover":
                yield command[1:]
            command = []
        else:
            command.append(word)


def check(arguments: list[str], whole: bool) -> None:
    """Fails unless the command and its options exist; a whole one must also have all that it needs."""
    context, words = ROOT_CONTEXT, list(arguments)
    while isinstance(context.command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = context.command.get_command(context, name)
        assert found is not None, f"there is no command {name!r}: goalcover {shlex.join(arguments)}"
        context = click.Context(found, parent=context)
    # An ellipsis stands for what a sentence leaves out.
    words = [word for word in words if word not in ("…", "...")]
    try:
        given, _, _ = context.command.make_parser(context).parse_args(words)
    except click.UsageError as error:
        pytest.fail(f"goalcover {shlex.join(arguments)}: {error.message}")
    needed = {parameter.name for parameter in context.command.params if parameter.required} if whole else set()
    assert needed <= {name for name, value in given.items() if isinstance(value, str | bool | tuple)}, arguments


@pytest.mark.parametrize("page", PAGES)
def test_commands_shown_exist_with_their_options(page: str) -> None:
    for line in blocks(page):
        for arguments in shown(line):
            check(arguments, whole=True)
    for piece in inline(page):
        if piece.startswith("goalcover "):
            check(shlex.split(piece)[1:], whole=False)


def test_commands_are_shown_at_all() -> None:
    assert sum(len(list(shown(line))) for page in PAGES for line in blocks(page)) >= 4


def test_every_command_is_told_of() -> None:
    told = " ".join(map(text_of, PAGES))
    assert [name for name in COMMANDS if f"goalcover {name}" not in told] == []


def test_options_told_of_exist() -> None:
    known = {name for command in commands(ROOT_CONTEXT) for option in command.params for name in option.opts}
    for piece in inline("docs/guide.md"):
        if piece.startswith("--"):
            assert piece.split()[0] in known, piece


def commands(context: click.Context) -> Iterator[click.Command]:
    """The command of a context and all below it."""
    command = context.command
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(click.Context(found, parent=context))


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_named_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not re.match(r"\w+:|#", target):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target
    for name in re.findall(rf"(?<![\w./-])(?:\./)?((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", text_of(page)):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_scripts_shown_can_be_run(page: str) -> None:
    for name in re.findall(r"(?<![\w-])\./(scripts/[\w.-]*\w)", text_of(page)):
        assert os.access(ROOT / name, os.X_OK), name


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_two_first_commands_can_be_run(name: str) -> None:
    script = ROOT / "scripts" / name
    assert os.access(script, os.X_OK)
    for line in script.read_text(encoding="utf-8").splitlines():
        for command in re.findall(r"(?:^|[ (!&|])goalcover ([^|&>)]+)", line.partition("#")[0]):
            check(shlex.split(command), whole=True)


@pytest.mark.parametrize("name", ["reproduce_validation", "bench_agreement.py"])
def test_a_script_of_a_study_tells_how_it_is_called(name: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / name), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    options = set(re.findall(r"--[a-z]+", said)) - {"--help"}
    assert {"--data", "--judge"} <= options
    page = (ROOT / "scripts" / name).read_text(encoding="utf-8").split('"""')[1]
    assert set(re.findall(r"--[a-z]+", page)) <= options, "what its own text shows is there"
