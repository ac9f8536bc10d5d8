"""The machine that a bundle is for: which wheels it can install, and which requirements hold there."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.tags import Tag, compatible_tags, cpython_tags

from goalcover_local.errors import GoalCoverError

_PLATFORM = re.compile(r"manylinux_(\d+)_(\d+)_(x86_64|aarch64)")
_OLD_NAMES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True, slots=True)
class Target:
    """A Linux with CPython: its version ("3.11"), its oldest C library, and its machine as `uname -m` says."""

    python: str
    glibc: tuple[int, int]
    machine: str

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, the most demanding first."""
        found = []
        for minor in range(self.glibc[1], 4, -1):
            found.append(f"manylinux_2_{minor}_{self.machine}")
            if name := _OLD_NAMES.get((2, minor)):
                found.append(f"{name}_{self.machine}")
        return found

    @property
    def tags(self) -> frozenset[Tag]:
        """All tags of wheels that run there."""
        major, minor = map(int, self.python.split("."))
        binary = cpython_tags((major, minor), [f"cp{major}{minor}"], self.platforms)
        plain = compatible_tags((major, minor), f"cp{major}{minor}", self.platforms)
        return frozenset([*binary, *plain])

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which requirements are chosen there (PEP 508)."""
        here = platform.python_version()
        full = here if here.startswith(f"{self.python}.") else f"{self.python}.0"
        return {
            "python_version": self.python,
            "python_full_version": full,
            "implementation_version": full,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
        }


def target(platform_tag: str, python: str) -> Target:
    """The target of a platform tag such as manylinux_2_28_x86_64. Raises GoalCoverError for one that is not served."""
    match = _PLATFORM.fullmatch(platform_tag)
    if not match or match[1] != "2" or int(match[2]) < 17:
        raise GoalCoverError(
            f"{platform_tag} is no platform that wheels are made for.",
            "Name one such as manylinux_2_28_x86_64: 2_28 is the oldest C library it must run on.",
        )
    return Target(python, (2, int(match[2])), match[3])
