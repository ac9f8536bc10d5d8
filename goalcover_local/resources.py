"""Where things lie: the data that ships (`grammars/`, `models/`, `goals/`, `studies/`), and the user's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Shipped = Literal["grammars", "models", "goals", "studies"]


def shipped(name: Shipped) -> Path:
    """The folder of that name: inside the installed package, or at the top of a checkout.

    Raises FileNotFoundError if neither exists, which means a broken installation.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"goalcover-local is installed without its {name}/ folder")


def home() -> Path:
    """The folder of cards and weights, which users may share; it need not exist."""
    return _folder("GOALCOVER_HOME", "XDG_DATA_HOME", "share")


def state() -> Path:
    """The folder of the user's ledger, which is nobody else's; it need not exist."""
    return _folder("GOALCOVER_STATE", "XDG_STATE_HOME", "state")


def _folder(own: str, common: str, usual: str) -> Path:
    """The folder that the variable `own` names; else `goalcover` in the one that `common` names, or in ~/.local."""
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser().absolute()
    place = os.environ.get(common) or Path.home() / ".local" / usual
    return Path(place).absolute() / "goalcover"
