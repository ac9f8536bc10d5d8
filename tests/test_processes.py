"""Of processes that train together one speaks; what it does is told to the others, who leave quietly where it fails."""

from __future__ import annotations

import sys

import pytest

from goalcover_local.errors import StoreError
from goalcover_local.finetune import processes
from goalcover_local.finetune.processes import done_by_main, is_main, only_main_speaks


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")


def speak() -> None:
    print("out")
    print("err", file=sys.stderr)


def test_one_process_speaks_and_works_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with only_main_speaks():
        speak()
    assert capsys.readouterr() == ("out\n", "err\n")
    assert is_main() and done_by_main(lambda: 7) == 7


def test_another_process_is_silent_and_speaks_again(second: None, capsys: pytest.CaptureFixture[str]) -> None:
    with only_main_speaks():
        speak()
        assert not sys.stderr.isatty()
    assert capsys.readouterr() == ("", "")
    speak()
    assert capsys.readouterr() == ("out\n", "err\n")


def test_another_process_leaves_quietly_when_interrupted_and_keeps_errors_of_its_own(second: None) -> None:
    with pytest.raises(SystemExit) as left, only_main_speaks():
        raise KeyboardInterrupt
    assert left.value.code == 130
    with pytest.raises(StoreError), only_main_speaks():
        raise StoreError("It is its own.", "Mend it.")


def test_interrupting_the_only_process_is_told_as_ever() -> None:
    with pytest.raises(KeyboardInterrupt), only_main_speaks():
        raise KeyboardInterrupt


def test_what_the_first_does_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "agreed", lambda value: told.append(value) or told[0])
    monkeypatch.setenv("RANK", "0")
    assert done_by_main(lambda: None) is None
    monkeypatch.setenv("RANK", "1")
    assert done_by_main(lambda: pytest.fail("it is not theirs to do")) is None
    assert told == [[None], []]


def test_where_the_first_fails_the_others_leave_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "agreed", lambda value: told.append(value) or told[0])

    def fails() -> int:
        raise StoreError("It is wrong.", "Mend it.")

    monkeypatch.setenv("RANK", "0")
    with pytest.raises(StoreError):
        done_by_main(fails)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as left:
        done_by_main(fails)
    assert left.value.code == 1 and told == [[], []]
