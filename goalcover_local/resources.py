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
    """The folder of the user's cards, weights and ledger; it need not exist."""
    if chosen := os.environ.get("GOALCOVER_HOME"):
        return Path(chosen).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data).absolute() / "goalcover"
