"""The run folder: nothing that was stored is lost, nothing half-done is stored, nobody else can read it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local import chain
from goalcover_local.errors import StoreError
from goalcover_local.folder import VERSION, network_file_system
from goalcover_local.store import Counts, Run
from goalcover_local.terms import ANCHORS, Exchange, Explanation, Goal, Judgement, Refusal, Sample, Subgoal

SUBGOALS = tuple(Subgoal(f"capability-{n}", f"Name {n}", f"Description {n}", f"Evidence {n}") for n in range(3))
GOAL = Goal("Answer clinicians.", "In English.", (Exchange("Who asks?", "Doctors."),), SUBGOALS, 0.7)
DIGESTS = [subgoal.digest for subgoal in SUBGOALS]
IDENTITY = {"weights": "ab" * 32, "prompt": "cd" * 32}


def sample(n: int, line: int | None = None) -> Sample:
    raw = f'{{"q": {n}}}\n'.encode()
    return Sample(f"row-{n}", f"question {n}", f"answer {n}", "data.jsonl", n + 1 if line is None else line, raw)


def judgement(of: Sample, subgoal: int, kind: int = 0) -> Judgement:
    """One of six judgements by `kind`, the last of them a failure."""
    if kind == 5:
        return Judgement(of.digest, DIGESTS[subgoal], None, "token limit")
    weights = np.arange(1, 7, dtype=float) ** (kind + 1)
    return Judgement(of.digest, DIGESTS[subgoal], tuple((weights / weights.sum()).tolist()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    """A run open for writing that holds the goal, ten rows and one judge."""
    with Run.open(folder, write=True, create=True) as opened:
        opened.put_goal(GOAL)
        opened.put_rows(map(sample, range(10)), "data")
        opened.put_judge(IDENTITY)
        yield opened


@pytest.fixture
def judge(run: Run) -> str:
    return next(iter(run.judges()))


@contextlib.contextmanager
def direct(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody else would open it, to look into it or to tamper with it."""
    database = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    try:
        yield database
    finally:
        database.close()


# The goal


def test_goal_comes_back_whole(run: Run) -> None:
    assert run.goal() == GOAL
    assert run.goal().digest == GOAL.digest


def test_the_goal_put_last_is_the_goal(run: Run) -> None:
    other = Goal("Another.", subgoals=(Subgoal("capability-0", "Other", "Same id, other text", target_share=0.2),))
    run.put_goal(other)
    assert run.goal() == other
    run.put_goal(GOAL)
    assert run.goal() == GOAL


def test_exchanges_are_kept_although_the_digest_leaves_them_out(run: Run) -> None:
    more = Goal(GOAL.text, GOAL.specification, (*GOAL.exchanges, Exchange("Why?", "To heal.")), SUBGOALS, GOAL.tau)
    assert more.digest == GOAL.digest
    run.put_goal(more)
    assert run.goal().exchanges == more.exchanges


def test_no_goal_yet_says_so(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run, pytest.raises(StoreError, match="no goal yet"):
        run.goal()


# The data


def test_rows_come_back_in_order_and_byte_for_byte(folder: Path) -> None:
    awkward = [
        Sample("half \ud800", "surrogate \udfff in", "nul \x00 out", "caf\udce9.jsonl", 1, b"\xff\x00raw"),
        Sample("", "", "", "empty.jsonl", 2, b""),
        Sample("big", "x" * 2_000_000, "é" * 1_000_000, "big.jsonl", 3, b"y" * 2_000_000),
    ]
    rows: list[Sample | Refusal] = [
        *awkward,
        Refusal("caf\udce9.jsonl", 9, "no column 'q'"),
        *map(sample, range(250)),
    ]
    with Run.open(folder, write=True, create=True) as run:
        assert run.put_rows(iter(rows), "data") == Counts(rows=253, samples=253, refusals=1)
        assert list(run.rows()) == [*awkward, *map(sample, range(250))]
        assert run.refusals() == [Refusal("caf\udce9.jsonl", 9, "no column 'q'")]


def test_equal_rows_are_one_sample_and_several_rows(folder: Path) -> None:
    rows = [sample(0), sample(1), sample(0, line=3), sample(0, line=4)]
    with Run.open(folder, write=True, create=True) as run:
        assert run.put_rows(rows, "data") == Counts(rows=4, samples=2, refusals=0)
        first, other = run.keys([sample(0).digest, sample(1).digest]).tolist()
        assert run.row_samples().tolist() == [first, other, first, first]
        assert run.samples([other, first])[1].line == 1


def test_the_same_data_again_is_not_even_read(run: Run) -> None:
    unread = map(sample, range(3))
    assert run.put_rows(unread, "data") == Counts(10, 10, 0)
    assert next(unread) == sample(0)


def test_other_data_are_refused(run: Run) -> None:
    with pytest.raises(StoreError, match="holds other data"):
        run.put_rows([sample(99)], "other data")
    assert run.n_rows() == 10


def test_data_that_break_off_leave_nothing(folder: Path) -> None:
    def breaking() -> Iterator[Sample]:
        yield from map(sample, range(5))
        raise OSError("the reader's own trouble")

    with Run.open(folder, write=True, create=True) as run:
        with pytest.raises(OSError, match="the reader's own trouble"):
            run.put_rows(breaking(), "data")
        assert (run.counts(), run.data_digest()) == (Counts(0, 0, 0), None)
        assert run.put_rows(map(sample, range(7)), "data").rows == 7


def test_a_smaller_limit_draws_a_part_of_a_larger_one(run: Run) -> None:
    whole = run.draw(3).tolist()
    assert sorted(whole) == list(range(10))
    for limit in range(11):
        assert run.draw(3, limit).tolist() == whole[:limit]
    assert run.draw(4).tolist() != whole


def test_a_draw_is_the_same_on_every_machine(run: Run) -> None:
    assert run.draw(0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


def test_permutation_has_each_sample_once_in_the_order_of_the_rows_drawn(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        run.put_rows([sample(n % 7, line=n + 1) for n in range(40)], "data")
        for limit in (1, 5, 23, None):
            drawn = run.row_samples(run.draw(8, limit)).tolist()
            assert run.permutation(8, limit).tolist() == list(dict.fromkeys(drawn))
        assert len(run.permutation(8)) == 7


def test_a_sample_is_found_by_key_and_by_digest(run: Run) -> None:
    (key,) = run.keys([sample(4).digest])
    by_key, by_digest = run.sample(int(key)), run.sample(sample(4).digest)
    assert by_key == by_digest
    assert (by_key.id, by_key.input, by_key.output, by_key.line) == ("row-4", "question 4", "answer 4", 5)


def test_a_sample_that_the_run_does_not_hold_is_an_error(run: Run) -> None:
    assert run.keys([sample(77).digest]).tolist() == [-1]
    for name in (sample(77).digest, 12345):
        with pytest.raises(StoreError, match="holds no sample"):
            run.sample(name)


# Judgements


def test_missing_shrinks_as_judgements_come_and_failures_are_asked_again_on_request(run: Run, judge: str) -> None:
    keys = run.permutation(0)
    at = {run.sample(int(key)).digest: n for n, key in enumerate(keys)}
    assert run.missing(judge, DIGESTS, keys).all()
    run.append(judge, [judgement(sample(2), 0), judgement(sample(3), 1, kind=5)])
    expected = np.ones((10, 3), dtype=bool)
    expected[at[sample(2).digest], 0] = expected[at[sample(3).digest], 1] = False
    assert np.array_equal(run.missing(judge, DIGESTS, keys), expected)
    expected[at[sample(3).digest], 1] = True
    assert np.array_equal(run.missing(judge, DIGESTS, keys, retry_failed=True), expected)


def test_of_a_judge_or_subgoal_never_seen_everything_is_missing(run: Run, judge: str) -> None:
    run.append(judge, [judgement(sample(0), n) for n in range(3)])
    assert run.missing("another judge", DIGESTS, run.row_samples()).all()
    assert run.missing(judge, ["another subgoal"], run.row_samples()).all()


@pytest.mark.parametrize(
    "bad",
    [
        Judgement(sample(77).digest, DIGESTS[0], (1.0, 0, 0, 0, 0, 0)),
        Judgement(sample(1).digest, "unknown", (1.0, 0, 0, 0, 0, 0)),
        Judgement(sample(1).digest, DIGESTS[0], (0.5, 0, 0, 0, 0, 0)),
        Judgement(sample(1).digest, DIGESTS[0], (1.5, -0.5, 0, 0, 0, 0)),
        Judgement(sample(1).digest, DIGESTS[0], (float("nan"), 0, 0, 0, 0, 1)),
        Judgement(sample(1).digest, DIGESTS[0], (1.0, 0, 0, 0, 0, 0), "failed as well"),
        Judgement(sample(1).digest, DIGESTS[0], None, None),
    ],
)
def test_a_batch_with_one_bad_judgement_is_not_stored_at_all(run: Run, judge: str, bad: Judgement) -> None:
    with pytest.raises(StoreError, match="does not fit"):
        run.append(
            judge,
            [judgement(sample(0), 0), bad, judgement(sample(2), 0)],
            truncations=[(sample(0).digest, 4)],
        )
    assert run.n_stored() == 0
    assert run.truncations(judge) == {}
    run.append(judge, [judgement(sample(0), 0)])
    assert run.n_stored() == 1


def test_a_bad_explanation_takes_its_batch_with_it(run: Run, judge: str) -> None:
    stray = Explanation(sample(77).digest, DIGESTS[0], "because", "{}")
    with pytest.raises(StoreError, match="does not fit"):
        run.append(judge, [judgement(sample(0), 0)], [stray])
    assert run.n_stored() == 0


def test_a_judgement_stays_and_a_failure_gives_way(run: Run, judge: str) -> None:
    run.append(judge, [judgement(sample(0), 0, kind=1), judgement(sample(1), 0, kind=5)])
    run.append(judge, [judgement(sample(0), 0, kind=5), judgement(sample(1), 0, kind=2)])
    table = run.probabilities(judge, DIGESTS[:1])
    assert table.probabilities[0, 0].tolist() == list(judgement(sample(0), 0, kind=1).probabilities or ())
    assert table.probabilities[1, 0].tolist() == list(judgement(sample(1), 0, kind=2).probabilities or ())
    assert (run.n_stored(), run.n_failed()) == (2, 0)


def test_counts_are_kept_per_judge(run: Run, judge: str) -> None:
    other = run.put_judge({"weights": "other"})
    run.append(judge, [judgement(sample(0), 0), judgement(sample(0), 1, kind=5)])
    run.append(other, [judgement(sample(0), 0, kind=5)])
    assert (run.n_stored(), run.n_stored(judge), run.n_stored(other)) == (3, 2, 1)
    assert (run.n_failed(), run.n_failed(judge), run.n_failed(other)) == (2, 1, 1)
    assert run.failures(judge) == [judgement(sample(0), 1, kind=5)]


def test_probabilities_repeat_with_rows_and_have_nan_where_nothing_is_known(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        run.put_goal(GOAL)
        run.put_rows([sample(0), sample(1), sample(0, line=3), sample(2)], "data")
        judge = run.put_judge(IDENTITY)
        run.append(judge, [judgement(sample(0), 0, kind=3), judgement(sample(1), 1, kind=5)])
        known = judgement(sample(0), 0, kind=3).probabilities
        table = run.probabilities(judge, DIGESTS)
        assert table.samples.tolist() == run.keys([sample(n).digest for n in (0, 1, 0)]).tolist()
        assert table.probabilities.shape == (3, 3, 6)
        assert [tuple(table.probabilities[n, 0].tolist()) for n in (0, 2)] == [known, known]
        assert np.isnan(table.probabilities).sum() == (9 - 2) * 6
        assert table.failed.tolist() == [[False] * 3, [False, True, False], [False] * 3]
        drawn = run.row_samples(np.array([3, 2]))
        given = run.probabilities(judge, DIGESTS, drawn)
        assert given.samples.tolist() == drawn.tolist()
        assert np.isnan(given.probabilities[0]).all()
        assert tuple(given.probabilities[1, 0].tolist()) == known


def test_reference_samples_and_subgoals_are_judged_without_being_rows(run: Run, judge: str) -> None:
    reference = Subgoal("astronomy", "Astronomy", "Stars and planets")
    run.put_subgoals([reference])
    keys = run.put_samples([Sample("", "list reversal", "[::-1]"), sample(1), Sample("", "tax", "form")])
    assert keys[1] == run.keys([sample(1).digest])[0]
    asked = run.samples(keys)[0]
    run.append(judge, [Judgement(asked.digest, reference.digest, (0, 0, 0, 0, 0, 1.0))])
    table = run.probabilities(judge, [reference.digest], keys)
    assert table.probabilities[0, 0].tolist() == [0, 0, 0, 0, 0, 1]
    assert np.isnan(table.probabilities[1:]).all()
    assert (run.n_rows(), run.goal(), list(run.export(judge))) == (10, GOAL, [])
    assert len(run.probabilities(judge, [reference.digest]).samples) == 0


def test_an_empty_run_answers_with_empty_arrays(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        assert run.permutation(0).shape == (0,)
        assert run.missing("j", DIGESTS, run.permutation(0)).shape == (0, 3)
        assert run.probabilities("j", DIGESTS).probabilities.shape == (0, 3, 6)
        assert (run.n_asked(), run.n_stored(), run.events(), run.verify_events()) == (0, 0, [], [])


def test_what_else_belongs_to_a_judge_comes_back(run: Run, judge: str) -> None:
    assert run.judges() == {judge: IDENTITY}
    assert run.put_judge(dict(reversed(IDENTITY.items()))) == judge
    assert run.scale(judge) is None
    run.put_scale(judge, {"from": [0.1, 0.5]})
    run.put_scale(judge, {"from": [0.2, 0.6]})
    assert run.scale(judge) == {"from": [0.2, 0.6]}
    first = Explanation(sample(1).digest, DIGESTS[0], "odd \ud800", '{"score":"0.2"}')
    run.append(judge, [judgement(sample(1), 0)], [first], [(sample(1).digest, 700)])
    assert (run.explanations(judge, DIGESTS[0]), run.explanations(judge, DIGESTS[1])) == ([first], [])
    later = Explanation(sample(1).digest, DIGESTS[0], "again", "{}")
    run.append_explanations(judge, [later])
    assert run.explanations(judge, DIGESTS[0]) == [later]
    assert run.truncations(judge) == {sample(1).digest: 700}
    with pytest.raises(StoreError, match="does not fit"):
        run.put_scale("unknown judge", {})


def test_what_is_asked_is_counted_before_it_is_stored(folder: Path, run: Run) -> None:
    run.asking(6)
    run.asking(4)
    run.count("seconds", 1.5)
    run.count("seconds", 0.25)
    with Run.open(folder, write=False) as reader:
        assert (reader.n_asked(), reader.counter("seconds"), reader.counter("never")) == (10, 1.75, 0)


# Export


def test_export_is_ordered_by_row_then_subgoal_and_says_what_failed(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        run.put_goal(GOAL)
        run.put_rows([sample(0), sample(1), sample(0, line=3)], "data")
        judge = run.put_judge(IDENTITY)
        why = Explanation(sample(0).digest, DIGESTS[2], "because", "{}")
        run.append(judge, [judgement(sample(1), 0, kind=5), judgement(sample(0), 2)], [why])
        run.append(judge, [judgement(sample(0), 0, kind=4)])
        records = list(run.export(judge))
        places = [(record["line"], record["subgoal"]) for record in records]
        assert places == [
            (1, "capability-0"),
            (1, "capability-2"),
            (2, "capability-0"),
            (3, "capability-0"),
            (3, "capability-2"),
        ]
        whole, failed = records[1], records[2]
        assert failed == {
            "row": 1,
            "id": "row-1",
            "source": "data.jsonl",
            "line": 2,
            "subgoal": "capability-0",
            "score": None,
            "expectation": None,
            "probabilities": None,
            "explanation": None,
            "failure": "token limit",
        }
        assert whole["probabilities"] == list(judgement(sample(0), 2).probabilities or ())
        assert (whole["score"], whole["explanation"], whole["failure"]) == (1.0, "because", None)
        assert whole["expectation"] == pytest.approx(sum(np.array(ANCHORS) * whole["probabilities"]))
        assert list(run.export(judge, np.array([2, 1]))) == records[2:]
        run.put_goal(Goal("Narrower.", subgoals=(SUBGOALS[2],)))
        assert [record["line"] for record in run.export(judge)] == [1, 3]


def test_export_passes_the_boundary_of_its_pages(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        run.put_goal(GOAL)
        run.put_rows(map(sample, range(2005)), "data")
        judge = run.put_judge(IDENTITY)
        run.append(judge, [judgement(sample(n), 1) for n in reversed(range(2005))])
        assert [record["line"] for record in run.export(judge)] == list(range(1, 2006))


answers = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 5)), max_size=25)


@settings(max_examples=15, deadline=None)
@given(answers=answers, data=st.data())
def test_any_split_into_batches_gives_the_same_export(answers: list[tuple[int, int, int]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answers)), max_size=6)))
    whole = _exported(answers, [], reopen=False)
    assert _exported(answers, cuts, reopen=data.draw(st.booleans())) == whole
    kept: dict[tuple[int, int], int] = {}
    for n, subgoal, kind in answers:
        if kept.get((n, subgoal), 5) == 5:
            kept[n, subgoal] = kind
    rows = [0, 1, 2, 3, 1]
    expected = [
        (line + 1, f"capability-{s}", kept[n, s]) for line, n in enumerate(rows) for s in range(3) if (n, s) in kept
    ]
    assert [(record["line"], record["subgoal"]) for record in whole] == [place[:2] for place in expected]
    for record, (_, _, kind) in zip(whole, expected, strict=True):
        probabilities = judgement(sample(0), 0, kind).probabilities
        assert record["probabilities"] == (probabilities and list(probabilities))


def _exported(answers: list[tuple[int, int, int]], cuts: list[int], reopen: bool) -> list[dict[str, Any]]:
    """The export of a run of five rows, two of them equal, whose answers came in batches ending at `cuts`."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as held:
        run = held.enter_context(Run.open(f"{place}/run", write=True, create=True))
        run.put_goal(GOAL)
        run.put_rows([sample(n, line) for line, n in enumerate([0, 1, 2, 3, 1], start=1)], "data")
        judge = run.put_judge(IDENTITY)
        for low, high in zip([0, *cuts], [*cuts, len(answers)], strict=True):
            if reopen:
                run.close()
                run = held.enter_context(Run.open(f"{place}/run", write=True))
            run.append(judge, [judgement(sample(n), subgoal, kind) for n, subgoal, kind in answers[low:high]])
        return list(run.export(judge))


# Events


def test_events_say_who_when_and_what_and_hold_together(run: Run) -> None:
    first = run.event("assess", {"n_rows": 10, "judge": "ab" * 32}, command="goalcover assess")
    second = run.event("assess", {"share": 0.25, "done": True, "seeds": [1, 2]})
    assert run.events() == [first, second]
    assert (first.seq, first.command, first.kind) == (1, "goalcover assess", "assess")
    assert first.details == f'{{"judge":"{"ab" * 32}","n_rows":10}}'
    assert first.who
    assert first.at.endswith("+00:00")
    assert (first.previous, second.previous) == (chain.BEGINNING, first.hash)
    assert run.verify_events() == []


def test_a_command_is_recorded_without_its_arguments(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/goalcover", "clarify", "Answer clinicians' questions"])
    assert run.event("clarify", {}).command == "goalcover clarify"


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        ("UPDATE events SET details = '{\"n\":9}' WHERE seq = 2", "Event 2 was altered"),
        ("UPDATE events SET who = 'nobody' WHERE seq = 4", "Event 4 was altered"),
        ("UPDATE events SET details = 'no json' WHERE seq = 1", "Event 1 was altered"),
        ("DELETE FROM events WHERE seq = 1", "Event 1 is missing"),
        ("DELETE FROM events WHERE seq IN (2, 3)", "Events 2 to 3 are missing"),
        ("DELETE FROM events WHERE seq = 4", "Event 4 is missing"),
        ("DELETE FROM events", "Events 1 to 4 are missing"),
    ],
)
def test_tampering_with_events_shows(run: Run, folder: Path, tampering: str, problem: str) -> None:
    for n in range(4):
        run.event("step", {"n": n})
    with direct(folder) as database:
        database.execute(tampering)
    found = run.verify_events()
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_an_event_replaced_with_its_own_hash_does_not_fit_its_neighbour(run: Run, folder: Path) -> None:
    events = [run.event("step", {"n": n}) for n in range(3)]
    forged = chain.next_event(events[0], "step", {"n": 99})
    with direct(folder) as database:
        database.execute(
            "UPDATE events SET at = ?, command = ?, details = ?, hash = ? WHERE seq = 2",
            (forged.at, forged.command, forged.details, forged.hash),
        )
    assert run.verify_events() == ["Event 3 does not follow the event before it."]


@pytest.mark.parametrize(
    "details",
    [
        {"note": "x" * 201},
        {"deep": [{"note": "secret " * 40}]},
        {"secret " * 40: 1},
        {"note": "two\nlines"},
        {"note": "half \ud800"},
        {"raw": b"secret"},
    ],
)
def test_text_never_enters_an_event_nor_the_error_that_refuses_it(run: Run, details: dict[str, Any]) -> None:
    with pytest.raises(StoreError) as refused:
        run.event("step", details)
    assert not any(word in str(refused.value) for word in ("secret", "xxx", "lines", "half"))
    assert run.events() == []
    run.event("step", {"note": "x" * 200})
    assert run.verify_events() == []


# Kills, processes, power

CHILD = """
import sys
from goalcover_local.store import Run
from tests.test_store import GOAL, IDENTITY, DIGESTS, judgement, sample
with Run.open(sys.argv[1], write=True, create=True) as run:
    run.put_goal(GOAL)
    run.put_rows(map(sample, range(240)), "data")
    judge = run.put_judge(IDENTITY)
    keys = run.permutation(1)
    for low in range(0, 240, 4):
        batch = keys[low : low + 4]
        if run.missing(judge, DIGESTS, batch).any():
            run.asking(12)
            pairs = [(s, n) for s in run.samples(batch) for n in range(3)]
            run.append(judge, [judgement(s, n, (s.line + n) % 6) for s, n in pairs])
            run.event("batch", {"low": low})
            print(low, flush=True)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    here = Path(__file__).resolve().parent.parent
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], cwd=here, stdout=subprocess.PIPE, text=True)


def test_kill_at_any_moment_loses_at_most_the_batch_in_flight(folder: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    n_kills = 0
    for _ in range(4):
        with start(folder) as child:
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 9)):
                child.stdout.readline()
            time.sleep(chance.random() * 0.01)
            child.kill()
            n_kills += child.wait() == -signal.SIGKILL
        with direct(folder) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with Run.open(folder, write=False) as run:
            assert run.verify_events() == []
            (judge,) = run.judges()
            still = run.missing(judge, DIGESTS, run.permutation(1)).reshape(60, 12)
            assert np.array_equal(still.any(axis=1), still.all(axis=1)), "a batch is whole or absent"
            assert 0 <= run.n_asked() - run.n_stored() <= 12 * n_kills
            assert run.n_stored() > 0
    assert n_kills >= 3
    unbroken = tmp_path / "unbroken"
    for place in (folder, unbroken):
        with start(place) as child:
            child.communicate()
            assert child.returncode == 0
    with Run.open(folder, write=False) as resumed, Run.open(unbroken, write=False) as whole:
        assert resumed.n_stored() == 720
        assert resumed.n_asked() <= 720 + 12 * n_kills
        assert list(resumed.export(judge)) == list(whole.export(judge))


def test_a_second_writer_is_refused_by_name_and_a_reader_reads_on(folder: Path) -> None:
    with start(folder) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            with pytest.raises(StoreError, match=f"Process {child.pid} is writing.*kill {child.pid}"):
                Run.open(folder, write=True)
            with Run.open(folder, write=False) as reader:
                (judge,) = reader.judges()
                seen = [reader.n_stored(judge)]
                while child.poll() is None and not (len(seen) > 20 and seen[-1] > seen[0]):
                    seen.append(reader.n_stored(judge))
                assert all(n % 12 == 0 for n in seen), "a reader sees whole batches only"
                assert seen == sorted(seen)
                assert seen[-1] > seen[0], "the writer went on beside the reader"
        finally:
            child.kill()
    Run.open(folder, write=True).close()


def test_two_writers_in_one_process_are_two_writers(folder: Path, run: Run) -> None:
    with pytest.raises(StoreError, match=f"Process {os.getpid()}"):
        Run.open(folder, write=True, create=True)
    run.asking(1)


def test_a_reader_cannot_write(folder: Path, run: Run, judge: str) -> None:
    with Run.open(folder, write=False) as reader:
        for write in (
            lambda: reader.append(judge, [judgement(sample(0), 0)]),
            lambda: reader.event("step", {}),
            lambda: reader.asking(1),
        ):
            with pytest.raises(StoreError, match="may not be written to"):
                write()
    assert (run.n_stored(), run.n_asked(), run.events()) == (0, 0, [])


def test_commits_wait_for_the_disk(run: Run) -> None:
    assert run._one("PRAGMA synchronous") == 2
    assert run._one("PRAGMA temp_store") == 2


# The folder


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_may_read_a_run_whatever_the_umask(folder: Path, umask: int) -> None:
    folder.parent.mkdir()
    before = os.umask(umask)
    try:
        with Run.open(folder, write=True, create=True) as run:
            run.put_rows(map(sample, range(10)), "data")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"run.sqlite", "run.lock", "run.sqlite-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_run_copied_with_open_doors_is_closed_again(folder: Path) -> None:
    Run.open(folder, write=True, create=True).close()
    folder.chmod(0o755)
    (folder / "run.sqlite").chmod(0o644)
    (folder / "report.html").write_text("mine")
    (folder / "report.html").chmod(0o644)
    Run.open(folder, write=True).close()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "run.sqlite")] == [0o700, 0o600]
    assert stat.S_IMODE((folder / "report.html").stat().st_mode) == 0o644


@pytest.mark.parametrize("write", [True, False])
def test_a_run_that_is_not_there(folder: Path, write: bool) -> None:
    with pytest.raises(StoreError, match=r"There is no run in .*goalcover assess"):
        Run.open(folder, write=write)
    assert not folder.exists()


def test_a_folder_that_serves_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    tmp_path.chmod(0o755)
    with pytest.raises(StoreError, match="holds other files and no run"):
        Run.open(tmp_path, write=True, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="named like a file"):
        Run.open(tmp_path / "file", write=True, create=True)
    assert "is a file" in (Run.check_place(tmp_path / "file") or "")


def test_a_creation_that_was_killed_is_begun_again(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "run.sqlite").touch()
    (folder / "run.lock").touch()
    for write in (True, False):
        with pytest.raises(StoreError, match="There is no run"):
            Run.open(folder, write=write)
    with Run.open(folder, write=True, create=True) as run:
        assert run.put_rows([sample(0)], "data").rows == 1


def test_another_programs_file_is_refused_and_not_changed(folder: Path) -> None:
    folder.mkdir(parents=True)
    with direct(folder) as database:
        database.execute("CREATE TABLE recipes(name)")
    before = (folder / "run.sqlite").read_bytes()
    for write in (True, False):
        with pytest.raises(StoreError, match="another program's file"):
            Run.open(folder, write=write, create=write)
    assert (folder / "run.sqlite").read_bytes() == before


def test_a_newer_version_is_refused_and_not_changed(folder: Path) -> None:
    Run.open(folder, write=True, create=True).close()
    with direct(folder) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    for write in (True, False):
        with pytest.raises(StoreError, match="made by a newer GoalCover Local"):
            Run.open(folder, write=write)
    with direct(folder) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)


FORGE = "CREATE TRIGGER forge AFTER INSERT ON events BEGIN UPDATE judgements SET p0 = p5, p5 = p0; END"
REWRITE = "UPDATE sqlite_master SET sql = replace(sql, 'CHECK (CASE', 'CHECK (1 OR CASE') WHERE name = 'judgements'"
PLANTED = {
    "trigger forge": [FORGE],
    "view of_rows": ["CREATE VIEW of_rows AS SELECT * FROM rows"],
    "table more": ["CREATE TABLE more(text)"],
    "table words": ["CREATE VIRTUAL TABLE words USING fts5(text)"],
    "index judgements_by_score": ["CREATE UNIQUE INDEX judgements_by_score ON judgements(p0)"],
    "table events": ["ALTER TABLE events ADD COLUMN more"],
    "table judgements": ["PRAGMA writable_schema = ON", REWRITE, "PRAGMA writable_schema = OFF"],
    "no index rows_by_sample": ["DROP INDEX rows_by_sample"],
    "no table decisions": ["DROP TABLE decisions"],
    "table Max?Muster?is???0m?ill": ['CREATE TABLE "Max Muster is \x1b[0m ill"(x)'],
    f"table {'a' * 40}.": [f"CREATE TABLE {'a' * 300}(x)"],
}
"""Statements of somebody who has the file, by what the refusal names."""


@pytest.mark.parametrize(("told", "statements"), PLANTED.items())
def test_a_file_that_holds_more_than_our_tables_is_refused_and_not_changed(
    folder: Path, told: str, statements: list[str]
) -> None:
    Run.open(folder, write=True, create=True).close()
    with direct(folder) as database:
        for statement in statements:
            database.execute(statement)
    before = (folder / "run.sqlite").read_bytes()
    for write in (True, False):
        with pytest.raises(StoreError) as caught:
            Run.open(folder, write=write, create=write)
        assert f"run.sqlite is not as we make it: it holds {told}" in caught.value.problem
        assert caught.value.mend == "Restore the run from a copy."
    assert (folder / "run.sqlite").read_bytes() == before


def test_of_many_that_do_not_belong_there_three_are_named(folder: Path) -> None:
    Run.open(folder, write=True, create=True).close()
    with direct(folder) as database:
        for n in range(5):
            database.execute(f"CREATE TABLE more_{n}(x)")
    with pytest.raises(StoreError, match="holds table more_0, table more_1, table more_2 and 2 more\\."):
        Run.open(folder, write=False)


def test_what_sqlite_itself_adds_is_no_alarm(run: Run, judge: str, folder: Path) -> None:
    run.append(judge, [judgement(sample(0), 0)])
    run.close()
    with direct(folder) as database:
        database.execute("ANALYZE")
        assert database.execute("SELECT count(*) FROM sqlite_stat1").fetchone()[0]
    for write in (True, False):
        with Run.open(folder, write=write) as opened:
            assert opened.n_stored() == 1


def test_a_new_run_is_not_made_around_what_somebody_put_there(folder: Path) -> None:
    """With the numbers of a file in which nothing is yet."""
    folder.mkdir(parents=True)
    with direct(folder) as database:
        database.execute("CREATE VIEW more AS SELECT 1")
        database.execute("PRAGMA schema_version = 0")
    with pytest.raises(StoreError, match=r"holds view more\."):
        Run.open(folder, write=True, create=True)


@pytest.mark.parametrize("write", [True, False])
def test_a_file_that_is_no_database(folder: Path, write: bool) -> None:
    folder.mkdir(parents=True)
    (folder / "run.sqlite").write_bytes(b"not a database, but long enough to be one" * 500)
    with pytest.raises(StoreError, match=r"is damaged, or is no run.*Bring it back from a copy"):
        Run.open(folder, write=write)


def test_damage_inside_the_file_is_told_when_it_is_met(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        run.put_goal(GOAL)
        run.put_rows(map(sample, range(3000)), "data")
    path = folder / "run.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[: 40 * 4096] + b"\xa5" * (len(whole) - 40 * 4096))
    with Run.open(folder, write=False) as run, pytest.raises(StoreError, match="is damaged"):
        list(run.rows())


def test_a_file_cut_short_is_told(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        run.put_rows(map(sample, range(3000)), "data")
    os.truncate(folder / "run.sqlite", 40 * 4096)
    with pytest.raises(StoreError, match="is damaged"), Run.open(folder, write=False) as run:
        list(run.rows())


@pytest.fixture
def mine() -> Iterator[Path]:
    """A folder of an ordinary user, who is this process meanwhile: the superuser may write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        root = os.geteuid() == 0
        if root:
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)
            for path in (Path(name), *Path(name).rglob("*")):
                path.chmod(0o700)


def test_a_read_only_folder_can_be_read_and_not_written(mine: Path) -> None:
    folder = mine / "run"
    with Run.open(folder, write=True, create=True) as run:
        run.put_rows(map(sample, range(5)), "data")
    for path in (*folder.iterdir(), folder):
        path.chmod(0o500 if path == folder else 0o400)
    with pytest.raises(StoreError, match=r"may not be written to \(Permission denied\)"):
        Run.open(folder, write=True)
    with Run.open(folder, write=False) as run:
        assert list(run.rows()) == list(map(sample, range(5)))
    assert "cannot be written to" in (Run.check_place(folder) or "")


def test_a_place_where_no_folder_can_be_made(mine: Path) -> None:
    mine.chmod(0o500)
    with pytest.raises(StoreError, match="may not be written to"):
        Run.open(mine / "run", write=True, create=True)
    assert "cannot be written to" in (Run.check_place(mine / "deep" / "run") or "")


def test_a_run_that_may_not_be_read(mine: Path) -> None:
    Run.open(mine / "run", write=True, create=True).close()
    (mine / "run" / "run.sqlite").chmod(0o000)
    with pytest.raises(StoreError, match="cannot be opened"):
        Run.open(mine / "run", write=False)


def test_what_a_kill_left_in_the_write_ahead_log_is_read_too(tmp_path: Path) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    with Run.open(folder, write=True, create=True) as run:
        run.put_rows(map(sample, range(5)), "data")
        copy.mkdir()
        for name in ("run.sqlite", "run.sqlite-wal"):
            (copy / name).write_bytes((folder / name).read_bytes())
    with Run.open(copy, write=False) as run:
        assert run.n_rows() == 5


def test_what_a_kill_left_half_done_beside_a_rollback_journal_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goalcover_local.folder.network_file_system", lambda _path: "nfs4")
    folder, copy = tmp_path / "run", tmp_path / "copy"
    copy.mkdir()

    def rows() -> Iterator[Sample]:
        yield from map(sample, range(1000))
        for name in ("run.sqlite", "run.sqlite-journal"):
            (copy / name).write_bytes((folder / name).read_bytes())

    with Run.open(folder, write=True, create=True) as run:
        run.put_goal(GOAL)
        run._database.execute("PRAGMA cache_size = 5")
        run.put_rows(rows(), "data")
    with direct(folder) as whole:
        assert (copy / "run.sqlite").stat().st_size > 20 * 4096, "the copy was taken in the midst of writing"
        assert whole.execute("SELECT count(*) FROM rows").fetchone() == (1000,)
    with Run.open(copy, write=False) as reader:
        assert (reader.goal(), reader.counts()) == (GOAL, Counts(0, 0, 0))
        with pytest.raises(StoreError, match="may not be written to"):
            reader.asking(1)


# A full disk


def test_a_full_disk_takes_nothing_and_loses_nothing(run: Run, judge: str, folder: Path) -> None:
    batch = [judgement(sample(n), s) for n in range(10) for s in range(3)]
    more = [Explanation(j.sample, j.subgoal, "why " * 2000, "{}") for j in batch]
    run.append(judge, batch[:3])
    n_pages = run._one("PRAGMA page_count")
    run._database.execute(f"PRAGMA max_page_count = {n_pages + 2}")
    with pytest.raises(StoreError, match=r"disk that is full.*Free some space"):
        run.append(judge, batch, more)
    assert run.n_stored() == 3
    run._database.execute("PRAGMA max_page_count = 1000000")
    run.append(judge, batch, more)
    assert (run.n_stored(), len(run.explanations(judge, DIGESTS[0]))) == (30, 10)
    with direct(folder) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command to make a small disk with")
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    folder, filler = small_disk / "run", small_disk / "filler"
    batch = [judgement(sample(n), s) for n in range(400) for s in range(3)]
    with Run.open(folder, write=True, create=True) as run:
        run.put_goal(GOAL)
        run.put_rows(map(sample, range(400)), "data")
        judge = run.put_judge(IDENTITY)
        run.append(judge, batch[:30])
        fill(filler)
        more = [Explanation(j.sample, j.subgoal, "why " * 100, "{}") for j in batch]
        with pytest.raises(StoreError, match="disk that is full"):
            run.append(judge, batch, more)
        assert run.n_stored() == 30
    with Run.open(folder, write=False) as run:
        assert run.n_stored() == 30
    fill(filler)
    with pytest.raises(StoreError, match="disk that is full"):
        Run.open(small_disk / "another", write=True, create=True)
    filler.unlink()
    with Run.open(folder, write=True) as run:
        run.append(judge, batch, more)
        assert run.n_stored() == 1200
    assert "MB free" in (Run.check_place(small_disk / "another") or "")


def fill(filler: Path) -> None:
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(b"\0" * 4096) == 4096:
            pass


# Network file systems

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:50 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
41 40 0:51 / /home/local\040disk rw,relatime - xfs /dev/sdb rw
42 27 0:52 / /mnt/win rw - cifs //server/share rw
43 27 0:53 / /mnt/ssh rw - fuse.sshfs me@there:/ rw
44 27 0:54 / /mnt/stick rw - fuseblk /dev/sdc rw
45 27 0:55 / /scratch rw - lustre mds@tcp:/scratch rw
46 27 0:56 / /mnt/over rw - nfs server:/a rw
47 46 0:57 / /mnt/over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/run", None),
        ("/home/me/run", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/me/run", None),
        ("/home/local disk/run", None),
        ("/mnt/win/run", "cifs"),
        ("/mnt/ssh/run", "fuse.sshfs"),
        ("/mnt/stick/run", None),
        ("/scratch/run", "lustre"),
        ("/mnt/over/run", None),
    ],
)
def test_network_file_systems_are_told_from_local_ones(path: str, kind: str | None) -> None:
    assert network_file_system(Path(path), MOUNTS) == kind


def test_on_a_network_file_system_a_run_keeps_no_write_ahead_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.open(folder, write=True, create=True) as run:
        assert run._one("PRAGMA journal_mode") == "wal"
        run.put_rows(map(sample, range(5)), "data")
    monkeypatch.setattr("goalcover_local.folder.network_file_system", lambda _path: "nfs4")
    with Run.open(folder, write=True) as run, Run.open(folder, write=False) as reader:
        assert run._one("PRAGMA journal_mode") == "delete"
        run.asking(3)
        assert (reader.n_rows(), reader.n_asked()) == (5, 3)
        assert not (folder / "run.sqlite-wal").exists()
    assert "network file system (nfs4)" in (Run.check_place(folder) or "")


def test_a_good_place_has_nothing_wrong_and_is_left_as_it_was(tmp_path: Path) -> None:
    assert Run.check_place(tmp_path / "deep" / "run") is None
    assert list(tmp_path.iterdir()) == []


def test_a_place_with_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 99_000_000}))
    assert Run.check_place(tmp_path / "run") == f"{tmp_path} has 99 MB free. Make it at least 100 MB."


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("name", ["run.sqlite", "run.sqlite-wal", "run.lock"])
def test_a_file_that_is_a_link_is_refused_and_what_it_leads_to_stays(
    folder: Path, tmp_path: Path, name: str, write: bool
) -> None:
    Run.open(folder, write=True, create=True).close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"of somebody else")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(StoreError, match=f"{name} is a link"):
        Run.open(folder, write=write, create=write)
    assert elsewhere.read_bytes() == b"of somebody else"
