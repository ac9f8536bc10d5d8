"""Models in a bundle: verified weights with their manifest, and their cards, laid out as GOALCOVER_HOME has them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from goalcover_local.cards import Card, card_path, load_card
from goalcover_local.files import digest_of_file
from goalcover_local.model_folder import MANIFEST
from goalcover_local.resources import shipped
from goalcover_local.terms import canonical_json
from goalcover_local.weights import Manifest, Weights, read_manifest, verify


@dataclass(frozen=True, slots=True)
class Model:
    """A chosen model: its card, its verified weights, and the manifest of how they came."""

    card: Card
    weights: Weights
    manifest: Manifest


def chosen(names: Iterable[str]) -> list[Model]:
    """The models of those cards, by name, every byte verified. Raises ModelError for the first that is not ready."""
    found = []
    for name in sorted(set(names)):
        card = load_card(name)
        weights = verify(card, full=True)
        found.append(Model(card, weights, replace(read_manifest(name), location="")))
    return found


def copy(models: Iterable[Model], bundle: Path) -> list[str]:
    """The copied files by their names in the bundle: home/ now holds these models and no others, cards/ their cards."""
    copied = []
    names = {model.card.name for model in models}
    for folder in ("home/models", "home/cards", "cards"):
        (bundle / folder).mkdir(parents=True, exist_ok=True)
        for old in (bundle / folder).iterdir():
            if old.name not in names and old.stem not in names:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    for model in models:
        place = bundle / "home" / "models" / model.card.name
        for old in place.rglob("*"):
            if old.is_file() and old.relative_to(place).as_posix() not in model.weights.files:
                old.unlink()
        for name, digest in model.weights.files.items():
            target = place / name
            if not target.is_file() or digest_of_file(target) != digest:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model.weights.directory / name, target)
        (place / MANIFEST).write_text(canonical_json(asdict(model.manifest)), encoding="utf-8")
        copied += [(place / name).relative_to(bundle).as_posix() for name in (*model.weights.files, MANIFEST)]
        card = card_path(model.card.name)
        assert card is not None
        own = not card.is_relative_to(shipped("models"))
        for folder in ("cards", "home/cards") if own else ("cards",):
            shutil.copyfile(card, bundle / folder / card.name)
            copied.append(f"{folder}/{card.name}")
    return copied
