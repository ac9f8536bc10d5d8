"""`goalcover packages`: the list of what is installed, and a check that needs nothing but a file."""

from __future__ import annotations

import hashlib
import json
import platform
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from command import Goalcover

from goalcover_local import __version__
from goalcover_local.dependencies import asked, installed, licence_of


def database(folder: Path, name: str, fixed: str, **more: object) -> Path:
    """A database with one advisory: that package is affected before `fixed`."""
    events = [{"introduced": "0"}, {"fixed": fixed}]
    affected = [{"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    told = {"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "modified": "2026-01-02T03:04:05Z", "affected": affected}
    path = folder / "database.json"
    path.write_text(json.dumps(told | more), encoding="utf-8")
    return path


def test_it_lists_versions_licences_and_needs(goalcover: Goalcover) -> None:
    told = json.loads(goalcover("packages", "--json").out)
    packages = {package["name"]: package for package in told["packages"]}
    assert packages["click"] == {
        "name": "click",
        "version": version("click"),
        "licence": "BSD-3-Clause",
        "need": "direct",
    }
    assert packages["certifi"]["need"] == "indirect"
    assert packages["ruff"]["need"] == "beside"
    assert "goalcover-local" not in packages
    assert told["advisories"] is None
    lines = goalcover("packages").out.splitlines()
    assert any(line.split()[:2] == ["click", version("click")] for line in lines)
    assert len(lines) >= len(packages)


def test_an_affected_package_is_told_with_its_mend(goalcover: Goalcover, tmp_path: Path) -> None:
    path = database(tmp_path, "click", "999")
    said = goalcover("packages", "--advisories", path, code=1)
    [line] = [line for line in said.out.splitlines() if "CVE-2026-1" in line]
    assert line.split() == ["click", version("click"), "CVE-2026-1,", "PYSEC-1", "not", "stated", "999"]
    assert "2026-01-02" in said.err and "native libraries" in said.err
    told = json.loads(goalcover("packages", "--advisories", path, "--json", code=1).out)["advisories"]
    assert told["affected"][0]["ids"] == ["CVE-2026-1", "PYSEC-1"]
    assert (told["n"], told["n_malformed"], told["newest"]) == (1, 0, "2026-01-02T03:04:05+00:00")


def test_nothing_affected_is_told_with_what_it_rests_on(goalcover: Goalcover, tmp_path: Path) -> None:
    said = goalcover("packages", "--advisories", database(tmp_path, "click", "0.1"))
    assert said.out == "No installed package is affected.\n"
    assert "1 advisory." in said.err and "It is old" in said.err
    fresh = database(tmp_path, "click", "0.1", modified=datetime.now(UTC).isoformat())
    said = goalcover("packages", "--advisories", fresh)
    assert "0 days ago." in said.err and "It is old" not in said.err


def test_a_database_of_the_future_is_told_as_such(goalcover: Goalcover, tmp_path: Path) -> None:
    future = database(tmp_path, "click", "0.1", modified="2999-01-01T00:00:00Z")
    said = goalcover("packages", "--advisories", future)
    assert "of 2999-01-01, which lies in the future: the database, or this machine's clock, is wrong." in said.err
    tomorrow = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert "in the future" in goalcover("packages", "--advisories", database(tmp_path, "a", "1", modified=tomorrow)).err


def test_what_could_not_be_read_makes_the_check_incomplete(goalcover: Goalcover, tmp_path: Path) -> None:
    database(tmp_path, "click", "0.1")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    said = goalcover("packages", "--advisories", tmp_path, code=3).out
    assert said.splitlines() == [
        "No installed package was found to be affected, but the check is incomplete.",
        "1 advisory could not be read, and may hide a finding.",
    ]
    assert goalcover("packages", "--advisories", tmp_path, "--json", code=3)
    database(tmp_path, "click", "999")
    assert "1 advisory could not be read" in goalcover("packages", "--advisories", tmp_path, code=1).out


def test_what_could_not_be_decided_makes_it_incomplete_too(goalcover: Goalcover, tmp_path: Path) -> None:
    only_commits = [{"package": {"ecosystem": "PyPI", "name": "click"}}]
    said = goalcover("packages", "--advisories", database(tmp_path, "click", "0", affected=only_commits), code=3).out
    assert "the check is incomplete.\nNot decided, for want of versions that can be compared: PYSEC-1 (click)." in said


def test_json_says_when_where_with_what_and_from_which_file(goalcover: Goalcover, tmp_path: Path) -> None:
    path = database(tmp_path, "click", "0.1")
    told = json.loads(goalcover("packages", "--advisories", path, "--json").out)
    assert (told["host"], told["goalcover"]) == (platform.node(), __version__)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["at"])).total_seconds()) < 60
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["advisories"]["sha256"] == digest
    assert digest in goalcover("packages", "--advisories", path).err


def test_another_ecosystems_database_is_refused_with_usages_code(goalcover: Goalcover, tmp_path: Path) -> None:
    other = [{"package": {"ecosystem": "npm", "name": "click"}, "versions": ["1"]}]
    said = goalcover("packages", "--advisories", database(tmp_path, "click", "0", affected=other), code=2)
    assert said.out == "" and "holds no advisory for PyPI packages, though 1 for others." in said.err
    assert "ecosystem PyPI" in said.err


def test_an_advisory_cannot_steer_the_terminal(goalcover: Goalcover, tmp_path: Path) -> None:
    path = database(tmp_path, "click", "999", aliases=["CVE-\x1b[2J\u202e1"])
    said = goalcover("packages", "--advisories", path, code=1)
    assert "\x1b[2J" not in said.out and "\u202e" not in said.out


def test_no_database_is_usage_with_a_mend_and_no_finding(goalcover: Goalcover, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(b"no zip")
    said = goalcover("packages", "--advisories", tmp_path / "all.zip", code=2)
    assert said.out == "" and "--advisories" in said.err and "OSV" in said.err


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "licence"),
    [
        ("MIT", "Apache 2.0", (), "MIT"),
        ("", "Apache 2.0", ("License :: OSI Approved :: MIT License",), "Apache 2.0"),
        ("", "Copyright by us\nAll of a long text", ("License :: OSI Approved :: MIT License",), "MIT License"),
        ("", "UNKNOWN", ("License :: OSI Approved", "Topic :: Software"), "unknown"),
        ("", "x" * 500, (), "unknown"),
        (
            "",
            "",
            ("License :: OSI Approved :: MIT License", "License :: Free For Home Use"),
            "Free For Home Use, MIT License",
        ),
    ],
)
def test_a_licence_is_as_its_package_states_it(
    expression: str, text: str, classifiers: tuple[str, ...], licence: str
) -> None:
    assert licence_of(expression, text, classifiers) == licence


def test_requirements_hold_for_the_machine_asked_about() -> None:
    texts = [
        "a; python_version < '3.12'",
        "b; extra == 'more'",
        "c>=1",
        "d; sys_platform == 'win32'",
        "no requirement !",
    ]
    names = [each.name for each in asked(texts, {"more"}, {"python_version": "3.12", "sys_platform": "linux"})]
    assert names == ["b", "c"]


def test_what_is_installed_is_listed_once() -> None:
    names = [package.name for package in installed()]
    assert names == sorted(set(names))
