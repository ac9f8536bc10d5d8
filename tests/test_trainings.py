"""The trainings of a run: what was begun is resumed or refused, and no step is lost or half stored."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.errors import StoreError
from goalcover_local.store import Run
from goalcover_local.trainings import Trainings

SETTINGS: dict[str, Any] = {"beta": 0.1, "seed": 3, "modules": ["q", "v"], "judge": "ab" * 32, "limit": None}
FILES = {"adapter_model.safetensors": "ab" * 32, "trainer/optimizer.pt": "cd" * 32}
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,59}", fullmatch=True).filter(lambda name: name != "base")
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
METRICS = st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    with Run.open(folder, write=True, create=True) as opened:
        yield opened


@pytest.fixture
def trainings(run: Run) -> Trainings:
    """The trainings of a new run, of which "original" was begun."""
    trainings = Trainings(run)
    trainings.begin("original", SETTINGS)
    return trainings


@contextlib.contextmanager
def direct(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody else would open it."""
    database = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    try:
        yield database
    finally:
        database.close()


def walk(trainings: Trainings, n: int) -> None:
    """Measures `n` steps, with a checkpoint at every other."""
    for step in range(1, n + 1):
        trainings.add_step("original", step, {"reward": step / 2, "kl": None})
        if step % 2 == 0:
            trainings.add_checkpoint("original", step, {"adapter": f"{step:064x}"})


def told(folder: Path) -> list[Any]:
    """All that a reader finds."""
    with Run.open(folder, write=False) as run:
        held = Trainings(run)
        return [
            (name, held.settings(name), held.steps(name), held.checkpoints(name), held.result(name))
            for name in held.names()
        ]


# Beginning


def test_what_was_begun_is_resumed_in_another_process(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        assert Trainings(run).begin("original", SETTINGS) is True
        assert Trainings(run).begin("original", dict(reversed(SETTINGS.items()))) is False
    with Run.open(folder, write=True) as run:
        assert Trainings(run).begin("original", {**SETTINGS, "modules": ("q", "v")}) is False
        assert Trainings(run).settings("original") == SETTINGS
    assert told(folder) == [("original", SETTINGS, [], {}, None)]


def test_other_settings_are_refused_by_name_and_change_nothing(trainings: Trainings, folder: Path) -> None:
    other = {**SETTINGS, "beta": 0.2, "judge": "cd" * 32, "loss": "grpo"}
    del other["limit"]
    with pytest.raises(StoreError) as refused:
        trainings.begin("original", other)
    assert refused.value.problem == (
        "The training original was begun with other settings:"
        ' beta (0.1, now 0.2), judge, limit (null, now nothing), loss (nothing, now "grpo").'
    )
    assert "another --name" in refused.value.mend
    assert told(folder) == [("original", SETTINGS, [], {}, None)]


@pytest.mark.parametrize(("before", "now"), [(1, True), (0, False), (None, 0), ("", None), ([], {}), ("1", 1)])
def test_settings_that_look_alike_are_others(trainings: Trainings, before: object, now: object) -> None:
    trainings.begin("alike", {"a": before})
    with pytest.raises(StoreError, match=r"other settings: a \("):
        trainings.begin("alike", {"a": now})


def test_a_setting_that_is_long_is_never_told(trainings: Trainings) -> None:
    trainings.begin("long", {"short": "x" * 58, "long": "secret " * 9, "deep": {"deep": ["secret"] * 9}})
    with pytest.raises(StoreError) as refused:
        trainings.begin("long", {"short": "y" * 58, "long": "", "deep": 1})
    assert "secret" not in str(refused.value)
    assert refused.value.problem.endswith(f'deep, long, short ("{"x" * 58}", now "{"y" * 58}").')


@settings(max_examples=25, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True), what=st.dictionaries(st.text(), VALUES, max_size=4))
def test_settings_come_back_whatever_they_hold(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], what: dict[str, Any]
) -> None:
    with Run.open(tmp_path_factory.mktemp("run"), write=True, create=True) as run:
        held = Trainings(run)
        assert [held.begin(name, what) for name in names] == [True] * len(names)
        assert [held.begin(name, what) for name in reversed(names)] == [False] * len(names)
        assert (held.names(), [held.settings(name) for name in names]) == (names, [what] * len(names))
        assert all(held.folder(name).parent == run.folder / "policies" for name in names)


@pytest.mark.parametrize(
    "name",
    [
        *("", "base", "Original", "-o", ".", "..", ".hidden", "a/b", "../a", "a b", "a\n", "ä", "a\x1b[31m", "_a"),
        "a" * 61,
    ],
)
def test_a_name_that_is_none_is_refused_everywhere(trainings: Trainings, run: Run, name: str) -> None:
    for use in (lambda: trainings.begin(name, {}), lambda: trainings.folder(name), lambda: trainings.make_folder(name)):
        with pytest.raises(StoreError, match="--name") as refused:
            use()
        assert str(refused.value).isprintable() and len(refused.value.problem) < 100
    assert (trainings.names(), (run.folder / "policies").exists()) == (["original"], False)


def test_a_name_may_have_sixty_characters(trainings: Trainings) -> None:
    assert trainings.begin("9" + "a.b_c+d-" * 7 + "abc", {}) is True


def uses(trainings: Trainings, name: str) -> list[Callable[[], object]]:
    """Everything that needs a training that was begun."""
    return [
        lambda: trainings.settings(name),
        lambda: trainings.add_step(name, 1, {}),
        lambda: trainings.steps(name),
        lambda: trainings.rewind(name, 0),
        lambda: trainings.add_checkpoint(name, 1, FILES),
        lambda: trainings.checkpoints(name),
        lambda: trainings.forget_checkpoint(name, 1),
        lambda: trainings.finish(name, {}),
        lambda: trainings.result(name),
    ]


def test_an_unknown_training_is_told_with_those_that_there_are(run: Run, folder: Path) -> None:
    trainings = Trainings(run)
    for use in uses(trainings, "aligned"):
        with pytest.raises(StoreError, match=r"no training 'aligned'\. Begin one with `goalcover train`"):
            use()
    trainings.begin("original", {})
    trainings.begin("a-second", {})
    before = told(folder)
    for use in uses(trainings, "aligned"):
        with pytest.raises(StoreError, match=r"no training 'aligned'\. It holds: original, a-second\."):
            use()
    assert told(folder) == before


# Steps and checkpoints


def test_steps_come_back_ascending_and_a_later_one_replaces(trainings: Trainings, folder: Path) -> None:
    for step, reward in ((10, 1.0), (2, 0.1 + 0.2), (1, None), (2, -0.5)):
        trainings.add_step("original", step, {"reward": reward, "kl": 1e-300})
    expected = [
        {"reward": None, "kl": 1e-300, "step": 1},
        {"reward": -0.5, "kl": 1e-300, "step": 2},
        {"reward": 1.0, "kl": 1e-300, "step": 10},
    ]
    assert trainings.steps("original") == told(folder)[0][2] == expected


@settings(max_examples=25, deadline=None)
@given(measured=st.dictionaries(st.integers(0, 2**62), METRICS, max_size=5))
def test_metrics_come_back_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, measured: dict[int, dict[str, float | None]]
) -> None:
    with Run.open(tmp_path_factory.mktemp("run"), write=True, create=True) as run:
        trainings = Trainings(run)
        trainings.begin("a", {})
        for step, metrics in measured.items():
            trainings.add_step("a", step, metrics)
        expected = [{**measured[step], "step": step} for step in sorted(measured)]
        assert repr([sorted(one.items()) for one in trainings.steps("a")]) == repr(
            [sorted(one.items()) for one in expected]
        )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10 * 1e308])
def test_what_is_no_number_is_refused_and_not_stored(trainings: Trainings, folder: Path, number: float) -> None:
    for use in (
        lambda: trainings.add_step("original", 1, {"reward": 1.0, "kl": number}),
        lambda: trainings.begin("other", {"beta": number}),
        lambda: trainings.finish("original", {"deep": [{"reward": number}]}),
    ):
        with pytest.raises(ValueError, match="what is missing is None"):
            use()
    assert told(folder) == [("original", SETTINGS, [], {}, None)]
    trainings.add_step("original", 1, {"NaN": None})
    assert trainings.steps("original") == [{"NaN": None, "step": 1}]


def test_checkpoints_come_back_by_step_and_can_be_forgotten(trainings: Trainings) -> None:
    trainings.add_checkpoint("original", 20, FILES)
    trainings.add_checkpoint("original", 3, {"odd \ud800": "0"})
    assert list(trainings.checkpoints("original").items()) == [(3, {"odd \ud800": "0"}), (20, FILES)]
    trainings.add_checkpoint("original", 3, {"adapter": "1"})
    trainings.forget_checkpoint("original", 20)
    trainings.forget_checkpoint("original", 20)
    assert trainings.checkpoints("original") == {3: {"adapter": "1"}}


def test_rewinding_forgets_what_came_after_of_this_training_alone(trainings: Trainings, folder: Path) -> None:
    trainings.begin("other", {})
    trainings.add_step("other", 9, {})
    trainings.add_checkpoint("other", 9, FILES)
    other = told(folder)[1]
    walk(trainings, 6)
    trainings.rewind("original", 4)
    assert [step["step"] for step in trainings.steps("original")] == [1, 2, 3, 4]
    assert list(trainings.checkpoints("original")) == [2, 4]
    trainings.rewind("original", 4)
    trainings.rewind("original", 0)
    assert told(folder) == [("original", SETTINGS, [], {}, None), other]


def test_a_training_resumed_from_a_checkpoint_tells_what_an_unbroken_one_does(tmp_path: Path) -> None:
    for name, stops in (("whole", [7]), ("resumed", [3, 5, 7])):
        for stop in stops:
            with Run.open(tmp_path / name, write=True, create=True) as run:
                trainings = Trainings(run)
                if not trainings.begin("original", SETTINGS):
                    trainings.rewind("original", max(trainings.checkpoints("original")))
                walk(trainings, stop)
    assert told(tmp_path / "resumed") == told(tmp_path / "whole")


# The result


def test_a_result_is_set_once(trainings: Trainings, folder: Path) -> None:
    result = {"policy": "ab" * 32, "reward": 3.5, "kl": None}
    assert trainings.result("original") is None
    trainings.finish("original", result)
    trainings.finish("original", dict(reversed(result.items())))
    with pytest.raises(StoreError, match=r"another result before: policy, reward \(3\.5, now 3\.6\)\. Use another"):
        trainings.finish("original", {**result, "policy": "cd" * 32, "reward": 3.6})
    assert trainings.result("original") == told(folder)[0][4] == result


def test_a_result_may_be_empty(trainings: Trainings) -> None:
    trainings.finish("original", {})
    assert trainings.result("original") == {}
    with pytest.raises(StoreError, match=r"kl \(nothing, now 1\)"):
        trainings.finish("original", {"kl": 1})


# Kills, disks, readers


@pytest.mark.parametrize("table", ["steps", "checkpoints"])
def test_a_rewind_that_fails_half_way_forgets_nothing(trainings: Trainings, run: Run, folder: Path, table: str) -> None:
    walk(trainings, 4)
    before = told(folder)
    run._database.execute(f"CREATE TEMP TRIGGER stuck BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, 'stuck'); END")
    with pytest.raises(StoreError):
        trainings.rewind("original", 1)
    assert told(folder) == before


def test_a_run_that_is_closed_within_a_transaction_holds_what_was_there_before(folder: Path) -> None:
    with Run.open(folder, write=True, create=True) as run:
        trainings = Trainings(run)
        trainings.begin("original", SETTINGS)
        walk(trainings, 2)
        before = told(folder)
        run._database.execute("BEGIN IMMEDIATE")
        run._database.execute("INSERT INTO steps VALUES ('original', 3, '{}')")
        run._database.execute("DELETE FROM checkpoints")
    assert told(folder) == before


CHILD = """
import os, signal, sys
from pathlib import Path
from goalcover_local.store import Run
from goalcover_local.trainings import Trainings
from tests.test_trainings import SETTINGS, walk
with Run.open(Path(sys.argv[1]), write=True, create=True) as run:
    trainings = Trainings(run)
    trainings.begin("original", SETTINGS)
    walk(trainings, 4)
    with run._transaction() as database:
        database.execute("INSERT INTO steps VALUES ('original', 5, '{}')")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_within_a_transaction_loses_that_one_alone(folder: Path) -> None:
    here = Path(__file__).resolve().parent.parent
    killed = subprocess.run([sys.executable, "-c", CHILD, str(folder)], cwd=here, check=False)
    assert killed.returncode == -signal.SIGKILL
    with Run.open(folder, write=True) as run:
        trainings = Trainings(run)
        assert trainings.begin("original", SETTINGS) is False
        assert [step["step"] for step in trainings.steps("original")] == [1, 2, 3, 4]
        assert list(trainings.checkpoints("original")) == [2, 4]


def test_a_full_disk_takes_nothing_and_loses_nothing(trainings: Trainings, run: Run, folder: Path) -> None:
    walk(trainings, 2)
    before = told(folder)
    run._database.execute(f"PRAGMA max_page_count = {run._one('PRAGMA page_count')}")
    with pytest.raises(StoreError, match="disk that is full"):
        trainings.add_checkpoint("original", 4, {str(n): "ab" * 32 for n in range(500)})
    assert told(folder) == before


def test_a_reader_sees_what_was_stored_and_cannot_write(trainings: Trainings, folder: Path) -> None:
    walk(trainings, 2)
    before = told(folder)
    with Run.open(folder, write=False) as run:
        reader = Trainings(run)
        for write in (
            lambda: reader.begin("another", {}),
            lambda: reader.add_step("original", 3, {}),
            lambda: reader.add_checkpoint("original", 3, {}),
            lambda: reader.rewind("original", 0),
            lambda: reader.forget_checkpoint("original", 2),
            lambda: reader.finish("original", {}),
        ):
            with pytest.raises(StoreError, match="may not be written to"):
                write()
        trainings.add_step("original", 3, {})
        assert len(reader.steps("original")) == 3
        trainings.rewind("original", 2)
    assert told(folder) == before


# Files


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_may_read_a_training_whatever_the_umask(trainings: Trainings, run: Run, umask: int) -> None:
    assert not trainings.folder("original").exists()
    before = os.umask(umask)
    try:
        made = trainings.make_folder("original")
    finally:
        os.umask(before)
    assert made == trainings.folder("original") == run.folder / "policies" / "original"
    assert [stat.S_IMODE(place.stat().st_mode) for place in (made.parent, made)] == [0o700, 0o700]


def test_a_folder_that_is_there_keeps_its_files_and_is_closed_again(trainings: Trainings) -> None:
    made = trainings.make_folder("original")
    (made / "adapter").mkdir()
    made.chmod(0o755)
    assert trainings.make_folder("original") == made
    assert (stat.S_IMODE(made.stat().st_mode), [path.name for path in made.iterdir()]) == (0o700, ["adapter"])


def test_a_run_with_policies_is_opened_like_any_other(trainings: Trainings, run: Run, folder: Path) -> None:
    trainings.make_folder("original")
    run.close()
    with Run.open(folder, write=True, create=True) as again:
        assert Trainings(again).names() == ["original"]


def test_a_file_in_place_of_the_folder_is_told(trainings: Trainings, run: Run) -> None:
    (run.folder / "policies").write_text("mine")
    with pytest.raises(StoreError, match=r"policies cannot be made \(File exists\)\. Check"):
        trainings.make_folder("original")
    assert (run.folder / "policies").read_text() == "mine"
