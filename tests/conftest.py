"""Fixtures: the embedded judge (tests that need it are skipped without it), and engines small enough to wait for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny

from goalcover_local import offline
from goalcover_local.cards import DEFAULT_CARD, load_card
from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.errors import ModelError
from goalcover_local.weights import Weights, verify

if TYPE_CHECKING:
    from goalcover_local.engines.transformers_engine import TransformersEngine

offline.switch_offline()


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
