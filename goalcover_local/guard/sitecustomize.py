"""What every Python does first that a shut process starts: it shuts its own network (see `offline.for_children`).

A Python that cannot be shut is not started. A sitecustomize of the machine's own, which this one hides, runs after it.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def _shut() -> None:
    sys.path.append(str(_FOLDER.parents[1]))
    try:
        from goalcover_local.offline import shut_in_worker

        shut_in_worker()
    except Exception as error:
        sys.stderr.write(f"GoalCover cannot shut the network of this Python ({type(error).__name__}): it ends here.\n")
        os._exit(1)
    finally:
        sys.path.pop()


def _go_on() -> None:
    """Nothing; runs the sitecustomize that would have run without this one."""
    others = [entry for entry in sys.path if Path(entry).resolve() != _FOLDER]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec and spec.loader:
        spec.loader.exec_module(module_from_spec(spec))


if os.environ.get("GOALCOVER_SHUT") == "1":
    _shut()
_go_on()
