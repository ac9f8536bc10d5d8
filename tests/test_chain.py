"""The chain: an event is one line that anyone can check, and old events keep their hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local import __version__, chain
from goalcover_local.errors import StoreError
from goalcover_local.terms import canonical_json, digest_of


def chained(n: int) -> list[chain.Event]:
    events: list[chain.Event] = []
    for number in range(n):
        events.append(chain.next_event(events[-1] if events else None, "step", {"n": number}, "goalcover test"))
    return events


def verified_by_anyone(text: str) -> int:
    """How many events a chain on lines has, checked with nothing of ours."""
    previous, n = "0" * 64, 0
    for line in text.splitlines():
        event = json.loads(line)
        kept = event.pop("hash")
        bare = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(bare.encode()).hexdigest() == kept
        assert event["previous"] == previous and event["seq"] == n + 1
        previous, n = kept, n + 1
    return n


def test_anyone_can_check_the_lines() -> None:
    events = chained(5)
    assert verified_by_anyone("".join(event.line + "\n" for event in events)) == 5
    assert chain.problems(events, 5) == [] and {event.version for event in events} == {__version__}


def test_an_event_without_a_version_has_the_hash_it_had_before_there_were_any() -> None:
    fields: dict[str, Any] = {"seq": 1, "at": "2026-01-01T00:00:00+00:00", "who": "u", "host": "h", "command": "test"}
    fields |= {"kind": "step", "details": "{}", "previous": chain.BEGINNING}
    old = chain.Event(**fields, hash=digest_of(fields))
    assert chain.problems([old], 1) == [] and "version" not in old.record
    assert chain.problems([replace(old, version="0.1.0")], 1) != []
    [new] = chained(1)
    assert chain.problems([replace(new, version="")], 1) != []


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0, 1, 2], []),
        ([0, 2], ["Event 2 is missing."]),
        ([1, 2], ["Event 1 is missing."]),
        ([0, 1], ["Event 3 is missing."]),
        ([0, 1, 1, 2], ["Event 2 stands after event 2."]),
        ([1, 0, 2], ["Event 1 is missing.", "Event 1 stands after event 2.", "Event 2 is missing."]),
    ],
)
def test_what_is_gone_or_moved_is_named(order: list[int], told: list[str]) -> None:
    events = chained(3)
    assert chain.problems([events[place] for place in order], 3) == told


@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_no_byte_of_a_line_can_be_changed(place: int, change: int) -> None:
    line = bytearray(EVENT.line.encode())
    line[place % len(line)] ^= change
    try:
        found = chain.from_line(bytes(line))
    except ValueError:
        return
    assert chain.problems([found], 1) != []


[EVENT] = chained(1)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff",
        EVENT.line.encode() + b" ",
        EVENT.line.replace('"seq":1', '"seq":1.0').encode(),
        EVENT.line.replace('"seq":1', '"seq":true').encode(),
        EVENT.line.replace('"who":', '"why":').encode(),
        canonical_json({**EVENT.record, "who": 7}).encode(),
        canonical_json({**EVENT.record, "version": ""}).encode(),
        EVENT.line.replace("{", '{"at":"",', 1).encode(),
    ],
)
def test_what_is_no_event_as_it_was_written_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        chain.from_line(line)
    assert chain.from_line(EVENT.line.encode() + b"\n") == EVENT


@pytest.mark.parametrize("details", ["no json", "[1]", "[" * 100_000, '{"a":1}'])
def test_details_that_nobody_can_read_are_empty(details: str) -> None:
    assert replace(EVENT, details=details).told == ({"a": 1} if details == '{"a":1}' else {})


def test_a_text_stands_in_an_event_by_its_digest_alone() -> None:
    assert chain.digest_of_text("Grüße") == hashlib.sha256("Grüße".encode()).hexdigest()
    with pytest.raises(StoreError) as refused:
        chain.next_event(None, "step", {"note": "secret " * 40})
    assert "secret" not in str(refused.value)


def test_a_host_that_is_given_another_name_meanwhile_stays_the_same_author(monkeypatch: pytest.MonkeyPatch) -> None:
    before = chain.author()
    monkeypatch.setattr("platform.node", lambda: "given-by-the-network")
    assert chain.author() == before and chained(1)[0].host == before[1]
    chain.author.cache_clear()
    try:
        assert chain.author()[1] == "given-by-the-network"
    finally:
        monkeypatch.undo()
        chain.author.cache_clear()
