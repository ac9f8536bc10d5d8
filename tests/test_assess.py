"""Phase 2: batches fixed by the plan, asked once, and the same however often the run was interrupted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.engines.scripted import ScriptedEngine
from goalcover_local.judges import SAMPLES_PER_BATCH, Judge
from goalcover_local.phases.assess import LOW, assess, blocks, explain, low_rows
from goalcover_local.terms import Judgement, Sample

LEANS = [0, 0, 0, 1, 9, 0]
SIZE = SAMPLES_PER_BATCH["cpu"]
MASKS = (
    st.integers(0, 60)
    .flatmap(lambda n: st.lists(st.booleans(), min_size=3 * n, max_size=3 * n))
    .map(lambda flat: np.array(flat, dtype=bool).reshape(-1, 3))
)


def samples(n: int) -> list[Sample]:
    return [Sample(str(k), f"Question {k}?", f"Answer {k}.") for k in range(n)]


def scripted(*script: object) -> Judge:
    return Judge(ScriptedEngine(script or [LEANS]), tiny.QUESTION)  # type: ignore[arg-type]


def judged(missing: np.ndarray, judge: Judge | None = None) -> list[tuple[Judgement, ...]]:
    """The judgements of each batch of a plan of samples against the tiny subgoals."""
    plan = samples(len(missing))
    return [b.judgements for b in assess(judge or scripted(), missing, lambda rows: plan[rows], tiny.SUBGOALS)]


@given(missing=MASKS)
def test_blocks_cover_what_is_missing_between_borders_that_the_plan_fixes(missing: np.ndarray) -> None:
    found = list(blocks(missing, SIZE))
    assert all(rows.start % SIZE == 0 for rows in found)
    assert all(rows.stop == min(rows.start + SIZE, len(missing)) for rows in found)
    assert [rows.start for rows in found] == sorted({rows.start for rows in found})
    left = missing.copy()
    for rows in found:
        assert left[rows].any()
        left[rows] = False
    assert not left.any()


@given(missing=MASKS, n_done=st.integers(0, 4))
def test_an_interrupted_run_asks_the_very_batches_that_were_left(missing: np.ndarray, n_done: int) -> None:
    unbroken = list(blocks(missing, SIZE))
    after = missing.copy()
    for rows in unbroken[:n_done]:
        after[rows] = False
    assert list(blocks(after, SIZE)) == unbroken[n_done:]


def test_every_missing_pair_is_judged_once_in_plan_order_sample_outermost() -> None:
    n = SIZE + 5
    batches = judged(np.ones((n, 2), dtype=bool))
    assert [len(batch) for batch in batches] == [2 * SIZE, 10]
    pairs = [(j.sample, j.subgoal) for batch in batches for j in batch]
    assert pairs == [(sample.digest, subgoal.digest) for sample in samples(n) for subgoal in tiny.SUBGOALS]


def test_what_is_stored_is_not_asked_again() -> None:
    missing = np.ones((5, 2), dtype=bool)
    missing[1] = False
    missing[3, 0] = False
    judge = scripted()
    (batch,) = judged(missing, judge)
    assert len(batch) == 7
    assert isinstance(judge.engine, ScriptedEngine) and len(judge.engine.history) == 7
    assert samples(5)[1].digest not in {j.sample for j in batch}
    assert judged(np.zeros((5, 2), dtype=bool)) == []


def test_a_new_subgoal_is_one_column() -> None:
    missing = np.zeros((4, 2), dtype=bool)
    missing[:, 1] = True
    (batch,) = judged(missing)
    assert [j.subgoal for j in batch] == [tiny.SUBGOALS[1].digest] * 4


def test_a_failure_is_missing_and_the_rest_of_its_batch_stands() -> None:
    (batch,) = judged(np.ones((2, 2), dtype=bool), scripted(LEANS, "", LEANS, LEANS))
    assert [j.score for j in batch] == [0.8, None, 0.8, 0.8]
    assert batch[1].failure == "scripted failure"


def test_batches_are_asked_one_at_a_time_and_announced_before() -> None:
    """So that a kill loses one batch at most, and the count of what was asked never lags behind."""
    heard: list[int] = []
    judge = scripted()
    assert isinstance(judge.engine, ScriptedEngine)
    plan = samples(2 * SIZE)
    read: list[slice] = []

    def reading(rows: slice) -> Sequence[Sample]:
        read.append(rows)
        return plan[rows]

    running = assess(judge, np.ones((len(plan), 2), dtype=bool), reading, tiny.SUBGOALS, heard.append)
    assert (heard, read, judge.engine.history) == ([], [], [])
    next(running)
    assert heard == [2 * SIZE] and len(read) == 1
    assert len(judge.engine.history) == 2 * SIZE
    next(running)
    assert sum(heard) == 4 * SIZE


def test_an_interrupted_and_resumed_run_gives_the_judgements_of_an_unbroken_one() -> None:
    """The script follows the plan, so equal answers mean that the same pairs were asked in the same batches."""
    n = 3 * SIZE - 4
    draw = np.random.default_rng(3)
    script = draw.random((2 * n, 6)).tolist()
    unbroken = judged(np.ones((n, 2), dtype=bool), scripted(*script))
    missing = np.ones((n, 2), dtype=bool)
    missing[:SIZE] = False
    resumed = judged(missing, scripted(*script[2 * SIZE :]))
    assert unbroken[1:] == resumed


def test_explanations_come_in_batches_that_the_plan_fixes() -> None:
    n = SIZE + 3
    scored = [(sample, tiny.SUBGOALS[0], 0.2) for sample in samples(n)]
    missing = np.ones(n, dtype=bool)
    batches = list(explain(scripted('So."}'), missing, lambda rows: scored[rows]))
    assert [len(batch.explanations) for batch in batches] == [SIZE, 3]
    assert [e.sample for batch in batches for e in batch.explanations] == [sample.digest for sample, _, _ in scored]
    missing[:SIZE] = False
    missing[-1] = False
    assert [len(b.explanations) for b in explain(scripted('So."}'), missing, lambda rows: scored[rows])] == [3]
    assert list(explain(scripted('So."}'), np.zeros(n, dtype=bool), lambda rows: scored[rows])) == []


def test_low_rows_are_those_of_at_most_04_and_never_missing_ones() -> None:
    values = np.array([0.0, LOW, 0.4000000001, 0.41, 1.0, float("nan"), 0.2])
    assert low_rows(values, most=None, seed=0).tolist() == [0, 1, 2, 6]


@pytest.mark.parametrize("most", [1, 5, 19])
def test_many_low_rows_are_sampled_by_seed(most: int) -> None:
    values = np.concatenate([np.full(20, 0.1), np.full(5, 0.9)])
    found = low_rows(values, most=most, seed=4)
    assert len(found) == len(set(found.tolist())) == most
    assert found.tolist() == sorted(found.tolist()) and found.max() < 20
    assert found.tolist() == low_rows(values, most=most, seed=4).tolist()
    assert any(low_rows(values, most=most, seed=seed).tolist() != found.tolist() for seed in range(5, 15))


def test_few_low_rows_are_all_taken() -> None:
    assert low_rows(np.full(20, 0.1), most=20, seed=0).tolist() == list(range(20))
