"""Bundles of a few kilobytes: wheels made by hand, a model of one tensor, a `goalcover` that writes down its calls."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

PRETENDED = """\
import os, pathlib, sys

def main():
    home = pathlib.Path(os.environ["GOALCOVER_HOME"])
    with (home / "calls").open("a") as calls:
        print(*sys.argv[1:], file=calls)
    if sys.argv[1:3] == ["models", "verify"] and not (home / "models" / sys.argv[3] / "model.safetensors").exists():
        sys.exit(1)
    if sys.argv[1] == "doctor" and (home / "unwell").exists():
        sys.exit(1)
"""


def script(name: str) -> ModuleType:
    """The script of that name as a module."""
    loader = importlib.machinery.SourceFileLoader(f"script_{name}", str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    requires: Sequence[str] = (),
    *,
    tag: str = "py3-none-any",
    licence: str = "License-Expression: MIT",
    code: str = "",
    command: str = "",
) -> Path:
    """A wheel of one module, which has the package's name; `command` is a program that calls its `main`."""
    folder.mkdir(parents=True, exist_ok=True)
    module, inside = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    files = {
        f"{module}.py": code,
        f"{inside}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n{needs}",
        f"{inside}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{inside}/licenses/LICENSE": f"The licence of {name}.",
    }
    if command:
        files[f"{inside}/entry_points.txt"] = f"[console_scripts]\n{command} = {module}:main\n"
    record = f"{inside}/RECORD"
    files[record] = "".join(f"{each},,\n" for each in [*files, record])
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in files.items():
            archive.writestr(zipfile.ZipInfo(place), text)
    return path


def model(folder: Path) -> Path:
    """A folder that has all that a model must have, and one tensor."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file({"weight": np.arange(4, dtype=np.float32)}, folder / "model.safetensors")
    for name, content in {"config": {"model_type": "llama"}, "tokenizer": {}}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
