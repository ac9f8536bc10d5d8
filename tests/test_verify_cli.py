"""`--verify full` reaches whatever loads a model; without it, what was verified before is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from command import GOAL, Goalcover, WordsEngine, many, rows

from goalcover_local.cli.judging import placed
from goalcover_local.cli.main import COMMANDS, main


@pytest.mark.parametrize(
    ("options", "full"), [((), False), (("--verify", "cached"), False), (("--verify", "full"), True)]
)
def test_an_assessment_reads_every_byte_only_when_asked(
    goalcover: Goalcover, words: WordsEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: Any, full: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("goalcover_local.judges.open_engine", lambda *_, **named: asked.append(named["full"]) or words)
    (tmp_path / "goal.toml").write_text(GOAL, "utf-8")
    data = rows(tmp_path / "data.jsonl", *many(3))
    goalcover("assess", tmp_path / "goal.toml", data, "--run", tmp_path / "run", "--explain", "none", *options)
    assert asked == [full]


def test_every_command_that_chooses_an_engine_can_verify_in_full() -> None:
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in COMMANDS}
    with_engine = {}
    for name, command in commands.items():
        inner = [command, *command.commands.values()] if isinstance(command, click.Group) else [command]
        for each in inner:
            told = {parameter.name for parameter in each.params} if each else set()
            if "engine" in told:
                with_engine[name] = "verify" in told
    assert len(with_engine) > 8 and all(with_engine.values())


@pytest.mark.parametrize(("options", "full"), [((), False), (("--verify", "full"), True)])
def test_a_server_begins_with_every_byte_read_when_asked(
    goalcover: Goalcover, altered_weights: list[bool], options: tuple[str, ...], full: bool
) -> None:
    assert "They are altered." in goalcover.refused("serve", *options)
    assert altered_weights == [full]


def test_the_option_is_told_to_engines() -> None:
    given = {"engine": "auto", "url": "", "devices": "", "threads": None}
    assert placed({**given, "verify": "full"})["full"] is True
    assert placed({**given, "verify": "cached"})["full"] is False
