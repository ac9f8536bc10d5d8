"""Fixtures: the embedded judge (tests that need it are skipped without it), and engines small enough to wait for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny
from command import Goalcover, WordsEngine
from hypothesis import settings

from goalcover_local import offline
from goalcover_local.cards import DEFAULT_CARD, load_card
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.errors import ModelError
from goalcover_local.weights import Weights, verify

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")  # a slow machine is no failure

if TYPE_CHECKING:
    from goalcover_local.engines.transformers_engine import TransformersEngine

offline.switch_offline()
_BEGAN = {name: os.environ.get(name) for name in (offline.SHUT_IN_WORKERS, *offline.for_children())}


@pytest.fixture(autouse=True)
def _no_engine_shuts_the_tests() -> None:
    """A vLLM within this process shuts it for good, as it must; tests that follow try the guard, or serve."""
    offline._guard["shut"] = False
    for name, value in _BEGAN.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session", autouse=True)
def _no_ledger_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs these tests finds nothing of them in a ledger; processes that tests start inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOALCOVER_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def weights() -> Weights:
    """The embedded judge's weights, every byte checked."""
    try:
        return verify(load_card(DEFAULT_CARD))
    except ModelError as error:
        pytest.skip(f"needs the embedded judge: {error}")


@pytest.fixture(scope="session")
def engine(weights: Weights) -> Iterator[TransformersEngine]:
    """The embedded judge in float32 on one thread, with a context of 600 tokens."""
    from goalcover_local.engines.transformers_engine import TransformersEngine

    loaded = TransformersEngine.load(weights.directory, context=600, precision="float32", threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of a few kilobytes and a small byte-level tokenizer."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_engine(tiny_weights: Path) -> Iterator[TransformersEngine]:
    """The random Llama in float32 on one thread, with a context of 600 tokens."""
    from goalcover_local.engines.transformers_engine import TransformersEngine

    loaded = TransformersEngine.load(tiny_weights, context=600, precision="float32", threads=1)
    yield loaded
    loaded.close()


@pytest.fixture
def scripted() -> ScriptedEngine:
    """An engine that leans to 0.8 whatever it is asked."""
    return ScriptedEngine([[1, 1, 1, 2, 10, 5]])


@pytest.fixture(scope="session")
def home_of_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models home that keeps the scale of the judge of words, which is fitted once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def goalcover(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    home_of_words: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Goalcover:
    """The command in this process, in an empty folder, with a models home and a ledger of its own."""
    monkeypatch.setenv("GOALCOVER_HOME", str(home_of_words))
    monkeypatch.setenv("GOALCOVER_STATE", str(tmp_path_factory.mktemp("state")))
    monkeypatch.chdir(tmp_path)
    return Goalcover(monkeypatch, capsys)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> WordsEngine:
    """The engine of every judge that the command opens: one that compares words."""
    engine = WordsEngine()
    monkeypatch.setattr("goalcover_local.judges.open_engine", lambda *_, **__: engine)
    monkeypatch.setattr("goalcover_local.weights.verify", lambda *_, **__: None)
    return engine


@pytest.fixture
def altered_weights(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each verification of weights that follows, whether it was to read every byte; it finds them altered."""
    asked: list[bool] = []

    def refusing(_: object, full: bool = False) -> None:
        asked.append(full)
        raise ModelError("They are altered.", "Bring them again.")

    monkeypatch.setattr("goalcover_local.weights.verify", refusing)
    return asked
