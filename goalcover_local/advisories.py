"""Known vulnerabilities of installed packages, read from a copy of OSV's database for PyPI: a file, never a service.

The format is the Open Source Vulnerability schema (ossf.github.io/osv-schema), whose rules say
which versions are affected.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .dependencies import LIKE
from .errors import DataError
from .terms import digest_of

LARGEST = 16_000_000
"""Bytes of one advisory at most; a longer one counts as malformed and is not read on."""

MOST = 4_000_000_000
"""Bytes of all advisories together at most, unpacked."""

_WHERE_FROM = (
    "Fetch OSV's database for the ecosystem PyPI: its all.zip (every ecosystem's file has that name), a folder of its "
    "JSON files, or one JSON or JSONL file."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """An installed package with a known vulnerability.

    `ids` are the names of the one vulnerability, a CVE first; `severity` is its word or its CVSS vector, empty if none
    is stated; `fixed` is the lowest later version that is not affected, empty if there is none.
    """

    package: str
    version: str
    ids: tuple[str, ...]
    severity: str
    fixed: str
    summary: str


@dataclass(frozen=True, slots=True)
class Check:
    """What a database knows of some packages.

    `n_advisories` concern PyPI. `n_malformed` could not be read, and those in `undecided` name an installed package
    and no version that can be compared: either may hide a finding. `newest` is when the latest on PyPI was modified.
    """

    findings: tuple[Finding, ...]
    n_advisories: int
    n_malformed: int
    undecided: tuple[str, ...]
    newest: datetime

    @property
    def complete(self) -> bool:
        """Whether every advisory could be read and decided."""
        return not (self.n_malformed or self.undecided)


@dataclass(frozen=True, slots=True)
class _Event:
    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


@dataclass(frozen=True, slots=True)
class _Range:
    type: str
    events: list[_Event]


@dataclass(frozen=True, slots=True)
class _Package:
    ecosystem: str
    name: str


@dataclass(frozen=True, slots=True)
class _Severity:
    type: str
    score: str


@dataclass(frozen=True, slots=True)
class _Affected:
    package: _Package | None = None
    ranges: list[_Range] | None = None
    versions: list[str] | None = None
    severity: list[_Severity] | None = None


@dataclass(frozen=True, slots=True)
class _Advisory:
    id: str
    modified: datetime
    withdrawn: datetime | None = None
    aliases: list[str] | None = None
    summary: str = ""
    severity: list[_Severity] | None = None
    affected: list[_Affected] | None = None
    database_specific: dict[str, Any] | None = None


def check(database: Path, packages: Mapping[str, str]) -> Check:
    """What the database says of the packages, given as versions by name. Withdrawn advisories do not count.

    An advisory that cannot be read is counted and passed over, one on another ecosystem than PyPI passed over. Raises
    DataError if the database cannot be opened, holds no advisory on PyPI, or is larger than any real one.
    """
    from pydantic import TypeAdapter, ValidationError

    reader = TypeAdapter(_Advisory)
    versions = {str(canonicalize_name(name)): version for name, version in packages.items()}
    wanted = {known: name for name in versions for known in (LIKE.get(name, name), name)}
    found: list[Finding] = []
    undecided: list[str] = []
    n, n_others, n_malformed = 0, 0, 0
    newest: datetime | None = None
    for document in _documents(database):
        try:
            if document is None:
                raise ValueError("too large or unreadable")
            advisory = reader.validate_json(document)
            if not any(_on_pypi(each) for each in advisory.affected or ()):
                n_others += 1
                continue
            modified = advisory.modified.astimezone()
            if advisory.withdrawn is None:
                found += _findings(advisory, wanted, versions, undecided)
        except (ValidationError, ValueError, OverflowError):
            n_malformed += 1
            continue
        n += 1
        newest = max(newest or modified, modified)
    if newest is None:
        others = f", though {n_others:,} for others" if n_others else ""
        unread = f"; {n_malformed:,} could not be read" if n_malformed else ""
        raise DataError(f"{database} holds no advisory for PyPI packages{others}{unread}.", _WHERE_FROM)
    return Check(tuple(_merged(found)), n, n_malformed, tuple(sorted(undecided)), newest)


def digest(database: Path) -> str:
    """The database's SHA-256, 64 hexadecimal digits; of a folder, that of its files' digests by name.

    Raises DataError if it cannot be read.
    """
    try:
        if not database.is_dir():
            return _digest_of_file(database)
        return digest_of({path.name: _digest_of_file(path) for path in _members(database)})
    except OSError as error:
        raise DataError(f"{database} cannot be read: {type(error).__name__}.", _WHERE_FROM) from error


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _on_pypi(affected: _Affected) -> bool:
    return affected.package is not None and affected.package.ecosystem.partition(":")[0] == "PyPI"


def _findings(
    advisory: _Advisory, wanted: Mapping[str, str], versions: Mapping[str, str], undecided: list[str]
) -> list[Finding]:
    """A finding for each installed package that the advisory affects. Raises ValueError if it cannot be compared."""
    by_package: dict[str, list[_Affected]] = {}
    for affected in advisory.affected or ():
        if affected.package is None or not _on_pypi(affected):
            continue
        if (known := str(canonicalize_name(affected.package.name))) in wanted:
            by_package.setdefault(wanted[known], []).append(affected)
    found = []
    for name, blocks in by_package.items():
        ranges = [r for block in blocks for r in block.ranges or () if r.type in ("ECOSYSTEM", "SEMVER")]
        listed = [text for block in blocks for text in block.versions or ()]
        version = next(_readable([versions[name]]), None)
        if version is None or not (ranges or listed):
            undecided.append(f"{advisory.id} ({name})")
        elif version in set(_readable(listed)) or any(_within(version, each.events) for each in ranges):
            fixes = (Version(event.fixed) for each in ranges for event in each.events if event.fixed is not None)
            fixed = min((fix for fix in fixes if fix > version), default="")
            ids = (advisory.id, *(advisory.aliases or ()))
            severity, summary = _severity(advisory, blocks), advisory.summary.strip()
            found.append(Finding(name, versions[name], ids, severity, str(fixed), summary))
    return found


def _within(version: Version, events: Iterable[_Event]) -> bool:
    """Whether a version is affected by a range: the latest event at or before it decides. Raises InvalidVersion."""
    turns: list[tuple[Version, bool, bool]] = []
    for event in events:
        if event.introduced is not None:
            turns.append((Version(event.introduced), True, False))
        elif event.last_affected is not None:
            turns.append((Version(event.last_affected), False, True))
        elif (end := event.fixed or event.limit) not in (None, "*"):
            turns.append((Version(str(end)), False, False))
    affected = False
    for turn, begins, inclusive in sorted(turns):
        if version > turn or (version == turn and not inclusive):
            affected = begins
    return affected


def _readable(versions: Iterable[str]) -> Iterator[Version]:
    """The versions that follow PEP 440, without a build's own suffix: 2.13.0+cpu has what 2.13.0 has."""
    for text in versions:
        try:
            yield Version(Version(text).public)
        except InvalidVersion:
            continue


def _severity(advisory: _Advisory, blocks: Iterable[_Affected]) -> str:
    word = (advisory.database_specific or {}).get("severity")
    if isinstance(word, str) and word:
        return word.lower()
    stated = [*(advisory.severity or ()), *(each for block in blocks for each in block.severity or ())]
    return max(stated, key=lambda each: each.type).score if stated else ""


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each vulnerability of a package, whatever names its databases give it."""
    groups: list[list[Finding]] = []
    for new in findings:
        same = [g for g in groups if any(old.package == new.package and {*old.ids} & {*new.ids} for old in g)]
        groups = [group for group in groups if group not in same]
        groups.append([new, *(old for group in same for old in group)])
    return sorted(map(_one, groups), key=lambda finding: (finding.package, finding.ids))


def _one(group: list[Finding]) -> Finding:
    """What several databases say of one vulnerability: all its names, a word rather than a vector, the latest mend."""
    ids = {each for finding in group for each in finding.ids}
    return replace(
        group[0],
        ids=tuple(sorted(ids, key=lambda text: (not text.startswith("CVE-"), text))),
        severity=min({each.severity for each in group} - {""}, key=lambda s: (s.startswith("CVSS"), s), default=""),
        fixed=max({each.fixed for each in group} - {""}, key=Version, default=""),
        summary=min({each.summary for each in group} - {""}, default=""),
    )


def _documents(database: Path) -> Iterator[bytes | None]:
    """Each advisory's bytes; None for one that is too large or cannot be unpacked. Raises DataError."""
    total = 0
    try:
        for document in _unpacked(database):
            total += LARGEST if document is None else len(document)
            if total > MOST:
                raise DataError(f"{database} unpacks to more than {MOST / 1e9:.0f} GB.", _WHERE_FROM)
            yield document
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{database} cannot be read: {type(error).__name__}.", _WHERE_FROM) from error


def _unpacked(database: Path) -> Iterator[bytes | None]:
    if database.is_dir():
        for path in _members(database):
            with path.open("rb") as stream:
                yield _bounded(stream.read(LARGEST + 1))
    elif not database.is_file():
        raise DataError(f"{database} is neither a file nor a folder.", _WHERE_FROM)
    elif database.suffix.lower() == ".zip":
        with zipfile.ZipFile(database) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".json"):
                    yield _member(archive, member)
    elif database.suffix.lower() == ".jsonl":
        with database.open("rb") as stream:
            while line := stream.readline(LARGEST + 1):
                if line.strip():
                    yield _bounded(line)
    else:
        with database.open("rb") as stream:
            yield _bounded(stream.read(LARGEST + 1))


def _members(folder: Path) -> list[Path]:
    """A folder's JSON files, by name; no links, no pipes."""
    return [path for path in sorted(folder.glob("*.json")) if stat.S_ISREG(path.lstat().st_mode)]


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    try:
        with archive.open(member) as stream:
            return _bounded(stream.read(LARGEST + 1))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError):
        return None


def _bounded(document: bytes) -> bytes | None:
    return document if len(document) <= LARGEST else None
