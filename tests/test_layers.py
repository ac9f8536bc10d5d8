"""Imports point down only: every module stands on a floor and knows its own floor and those below."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import goalcover_local

PACKAGE = "goalcover_local"
ROOT = Path(goalcover_local.__file__).parent
FLOORS = (
    ("", "terms", "errors", "resources", "files", "privacy", "dependencies", "advisories"),
    (
        "stats",
        "words",
        "bounded",
        "resampling",
        "offline",
        "guard",
        "chain",
        "ledger",
        "engines",
        "columnar",
        "arrow_rows",
        "arrow_files",
    ),
    (
        "answers",
        "questions",
        "cards",
        "headers",
        "model_configs",
        "model_folder",
        "weights",
        "pulling",
        "converting",
        "readers",
        "outputs",
        "formats",
        "writers",
        "labels",
    ),
    ("goal_files",),
    ("judges", "canary", "asking"),
    ("scales", "coverage", "overlaps", "trials", "grouping", "duplicates", "discriminator", "calibration"),
    ("phases", "studies", "finetune"),
    (
        "store",
        "drafts",
        "folder",
        "schema",
        "run_failures",
        "records",
        "audit",
        "trainings",
        "decisions",
        "beside",
        "purging",
    ),
    ("report",),
    ("cli",),
)
"""The rooms from the ground up: modules, and folders with all that is in them. The package itself is ""."""

HEAVY = ("torch", "transformers", "datasets", "numpy", "vllm")


def floor_of(module: str) -> int | None:
    """The floor on which a module of the package stands, counted from 0; None if it has no place."""
    room = module.removeprefix(PACKAGE).removeprefix(".").split(".")[0]
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def modules() -> dict[str, Path]:
    """Every module of the package, by its full name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def known_by(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in its text."""
    names = modules()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            steps = node.level - is_package
            above = module.split(".")[: -steps or None] if node.level else []
            target = ".".join([*above, *filter(None, [node.module])])
            if target.split(".")[0] == PACKAGE:
                inside = (f"{target}.{alias.name}" for alias in node.names)
                yield from (name if name in names else target for name in inside)


def upward(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a module that stand above it, or nowhere."""
    own = floor_of(module)
    assert own is not None
    known = {name: floor_of(name) for name in known_by(source, module, is_package)}
    return sorted(name for name, floor in known.items() if floor is None or floor > own)


def test_the_walk_finds_every_room() -> None:
    assert {PACKAGE, f"{PACKAGE}.terms", f"{PACKAGE}.engines.base", f"{PACKAGE}.cli.main"} <= set(modules())


@pytest.mark.parametrize("module", modules())
def test_every_module_has_a_place(module: str) -> None:
    assert floor_of(module) is not None, f"{module} has no floor: place it in FLOORS, on purpose."


@pytest.mark.parametrize("module", [name for name in modules() if floor_of(name) is not None])
def test_no_module_knows_one_above_it(module: str) -> None:
    path = modules()[module]
    assert upward(path.read_text("utf-8"), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "is_package", "source", "above"),
    [
        ("terms", False, "from .stats import Interval", "stats"),
        ("terms", False, "from goalcover_local.stats import Interval", "stats"),
        ("terms", False, "import goalcover_local.cli.main", "cli.main"),
        ("terms", False, "import goalcover_local.cli.main as main", "cli.main"),
        ("cards", False, "from . import judges", "judges"),
        ("cards", False, "from . import nowhere, judges", "judges"),
        ("cards", False, "def open():\n    from .judges import Judge", "judges"),
        ("cards", False, "if TYPE_CHECKING:\n    from .judges import Judge", "judges"),
        ("engines.base", False, "from .. import questions", "questions"),
        ("engines.base", False, "from ..questions import Question", "questions"),
        ("engines", True, "from ..questions import Question", "questions"),
        ("phases.assess", False, "from ..store import Run", "store"),
        ("", True, "from .cli import main", "cli.main"),
        ("judges", False, "from .attic.chest import Moth", "attic.chest"),
    ],
)
def test_an_upward_import_is_caught(module: str, is_package: bool, source: str, above: str) -> None:
    assert upward(source, f"{PACKAGE}.{module}".rstrip("."), is_package) == [f"{PACKAGE}.{above}"]


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("judges", False, "from . import __version__\nfrom .cards import Card\nimport json, torch.nn"),
        ("engines", True, "from .base import Engine\nfrom ..errors import EngineError"),
        ("engines.pool", False, "from .base import Engine\nfrom .. import offline"),
        ("cli.show", False, "from ..store import Run\nfrom .table import print_table"),
        ("pulling", False, "from cli import main\nfrom goalcover_local_tools import cli"),
    ],
)
def test_an_import_from_the_same_floor_or_below_is_let_be(module: str, is_package: bool, source: str) -> None:
    assert upward(source, f"{PACKAGE}.{module}", is_package) == []


def test_the_command_starts_without_anything_heavy() -> None:
    code = f"import sys, {PACKAGE}.cli.main; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert ran.stdout.split() == []
