"""`goalcover doctor`: what it looked at, when and where; and what it says where there are no weights."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command import Goalcover

from goalcover_local import __version__
from goalcover_local.cards import DEFAULT_CARD, load_card
from goalcover_local.cli import doctor, proving
from goalcover_local.errors import ModelError
from goalcover_local.pulling import add
from goalcover_local.weights import verify


@pytest.fixture
def home(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home for models, on a machine whose network is shut."""
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(doctor, "_network", lambda: "shut")
    return tmp_path / "home"


def test_json_tells_when_and_where(goalcover: Goalcover, home: Path) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    told = json.loads(goalcover("doctor", "--json", code=1).out)
    assert began <= datetime.fromisoformat(told["at"]) <= datetime.now(UTC)
    assert (told["host"], told["version"]) == (platform.node(), __version__)
    assert told["kernel"] == f"{platform.system()} {platform.release()}"
    assert (told["judge"], told["weights"], told["well"]) == (DEFAULT_CARD, None, False)
    assert [check["well"] for check in told["checks"]] == [True, True, False]


def test_the_weights_are_named_by_their_digest_unless_a_server_has_them(home: Path, tiny_weights: Path) -> None:
    add(tiny_weights, "tiny")
    card = load_card("tiny")
    assert proving.circumstances(card, {"engine": "auto"})["weights"] == verify(card).digest
    assert proving.circumstances(card, {"engine": "server"})["weights"] is None


@pytest.mark.parametrize(
    ("seen", "n_routes", "alone"),
    [(["lo"], 0, True), (["lo", "eth0"], 0, False), (["lo"], 1, False), ([], 0, False)],
)
def test_it_tells_whether_it_ran_in_a_namespace(
    goalcover: Goalcover, home: Path, monkeypatch: pytest.MonkeyPatch, seen: list[str], n_routes: int, alone: bool
) -> None:
    monkeypatch.setattr(proving, "devices", lambda: seen)
    monkeypatch.setattr(proving, "routes", lambda: n_routes)
    assert json.loads(goalcover("doctor", "--json", code=1).out)["namespace"] is alone


def test_absent_weights_are_told_with_the_folder_that_was_searched(goalcover: Goalcover, home: Path) -> None:
    said = goalcover("doctor", code=1).out
    assert f"There are no weights of {DEFAULT_CARD} in {home / 'models' / DEFAULT_CARD}." in said
    ways = f"install the bundle again; with a network: `goalcover models pull {DEFAULT_CARD}`."
    assert f"Set GOALCOVER_HOME to where models are, or {ways}" in said
    with pytest.raises(ModelError, match="with a copy of them: `goalcover models add DIR --card prometheus") as caught:
        verify(load_card("prometheus-7b-v2.0"))
    assert caught.value.mend.startswith("Set GOALCOVER_HOME to where models are, or install the bundle again; with")
    assert str(home / "models") in goalcover("models", "list").err
    with pytest.raises(ModelError, match="no card named") as caught:
        load_card("mine")
    assert str(home / "cards") in caught.value.mend


@pytest.mark.parametrize("options", [(), ("--prove-offline",)])
def test_what_it_finds_cannot_steer_the_terminal(
    goalcover: Goalcover, home: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    def look(*_: object) -> str:
        raise ModelError("a\x1b[2J\rb\nok  weights: all is well", "c")

    monkeypatch.setattr(doctor, "_network", look)
    monkeypatch.setattr(proving, "findings_of", lambda *_: [proving.Finding("judge", "failed", "a\x1b[2J\rb\nok  all")])
    lines = goalcover("doctor", *options, code=1).out.splitlines()
    assert "ab ok  " in lines[0] and lines[0].startswith("FAIL") and "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("options", "full"), [((), False), (("--verify", "full"), True)])
def test_the_weights_are_read_again_when_asked(
    goalcover: Goalcover, home: Path, altered_weights: list[bool], options: tuple[str, ...], full: bool
) -> None:
    goalcover("doctor", *options, code=1)
    assert altered_weights == [full]
