"""Where the data that ships lies: `grammars/`, `models/`, `goals/` and `studies/`, in a wheel or a checkout."""

from __future__ import annotations

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
