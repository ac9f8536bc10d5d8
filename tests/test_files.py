"""Files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from goalcover_local.errors import GoalError
from goalcover_local.files import replace_file


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("text", ["", "plain", "two\r\nlines\n", "日本 😀 \u2028 naïve", "x" * 200_000])
def test_the_file_holds_the_text_byte_for_byte_and_nothing_lies_beside_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text("longer than what comes after it")
    replace_file(file, text)
    assert file.read_bytes() == text.encode()
    assert listed(tmp_path) == ["a.toml"]


def test_a_new_file_has_the_mode_that_the_users_mask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "a", "text")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o640


def test_an_old_files_mode_is_kept_unless_another_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    file.chmod(0o604)
    replace_file(file, "new")
    assert mode(file) == 0o604
    replace_file(file, "new", mode=0o600)
    assert mode(file) == 0o600


@pytest.mark.parametrize("place", ["absent/a", "file/a", "folder", "n" * 250])
def test_a_place_that_cannot_be_written_is_an_error_with_a_mend(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("")
    with pytest.raises(GoalError, match="cannot be written") as caught:
        replace_file(tmp_path / place, "text")
    assert caught.value.mend
    assert listed(tmp_path) == ["file", "folder"] and (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("blow", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "killed"])
def test_whatever_happens_the_old_file_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, blow: BaseException
) -> None:
    file = tmp_path / "a"
    file.write_text("old")

    def fall(*_: object) -> None:
        raise blow

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fall)
    with pytest.raises((GoalError, KeyboardInterrupt)) as caught:
        replace_file(file, "new")
    assert isinstance(caught.value, KeyboardInterrupt) or "No space" in str(caught.value)
    assert file.read_text() == "old" and listed(tmp_path) == ["a"]


def test_half_a_character_is_an_error_with_a_mend_that_does_not_show_the_text(tmp_path: Path) -> None:
    """As a terminal of another encoding gives it."""
    file = tmp_path / "a"
    file.write_text("old")
    with pytest.raises(GoalError, match="half a character") as caught:
        replace_file(file, "secret caf\udce9")
    assert caught.value.mend and "secret" not in str(caught.value)
    assert file.read_text() == "old" and listed(tmp_path) == ["a"]
