"""Checkpoints: only one that is whole, unaltered and the run's own is loaded; a policy is kept without pickles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from goalcover_local.finetune.checkpoints import clear, digests, keep_policy, policy_files, sound

FILES = {
    "adapter_model.safetensors": "weights",
    "adapter_config.json": "{}",
    "optimizer.pt": "a pickle",
    "rng_state.pth": "a pickle",
    "training_args.bin": "a pickle",
    "trainer_state.json": "{}",
    "nested/part.json": "{}",
}
POLICY = {"adapter_model.safetensors", "adapter_config.json"}


def write(folder: Path, step: int) -> Path:
    """A checkpoint of that step, with all its files."""
    place = folder / f"checkpoint-{step}"
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"{text} {step}")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of the steps 2, 4 and 10."""
    place = tmp_path / "checkpoints"
    for step in (2, 4, 10):
        write(place, step)
    return place


@pytest.fixture
def known(folder: Path) -> dict[int, dict[str, str]]:
    """What a run wrote down of them."""
    return {step: digests(folder / f"checkpoint-{step}") for step in (2, 4, 10)}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_digests_are_those_of_every_file(folder: Path) -> None:
    found = digests(folder / "checkpoint-4")
    assert set(found) == set(FILES)
    assert found["nested/part.json"] == hashlib.sha256(b"{} 4").hexdigest()
    assert digests(folder / "checkpoint-99") == {}


def test_the_latest_sound_one_is_by_number_and_not_by_name(folder: Path, known: dict[int, dict[str, str]]) -> None:
    assert sound(folder, known) == (10, folder / "checkpoint-10")
    assert sound(folder, {step: known[step] for step in (4, 2)}) == (4, folder / "checkpoint-4")


def altered(place: Path) -> None:
    (place / "optimizer.pt").write_text("another pickle")


def missing(place: Path) -> None:
    (place / "rng_state.pth").unlink()


def added(place: Path) -> None:
    (place / "rng_state_0.pth").write_text("not ours")


def renamed(place: Path) -> None:
    (place / "optimizer.pt").rename(place / "optimizer.bin")


def exchanged(place: Path) -> None:
    (place / "optimizer.pt").rename(place / "kept")
    (place / "rng_state.pth").rename(place / "optimizer.pt")
    (place / "kept").rename(place / "rng_state.pth")
    (place / "optimizer.pt").write_text("x")


def half_written(place: Path) -> None:
    with (place / "adapter_model.safetensors").open("r+") as file:
        file.truncate(3)


def emptied(place: Path) -> None:
    for path in [path for path in place.rglob("*") if path.is_file()]:
        path.unlink()


def gone(place: Path) -> None:
    emptied(place)
    (place / "nested").rmdir()
    place.rmdir()


def linked_file(place: Path) -> None:
    outside = place.parent.parent / "outside.pt"
    (place / "optimizer.pt").rename(outside)
    (place / "optimizer.pt").symlink_to(outside)


def added_link(place: Path) -> None:
    outside = place.parent.parent / "outside.pth"
    outside.write_text("not ours")
    (place / "rng_state_0.pth").symlink_to(outside)


def linked_folder(place: Path) -> None:
    outside = place.parent.parent / "outside"
    place.rename(outside)
    place.symlink_to(outside, target_is_directory=True)


def a_file(place: Path) -> None:
    gone(place)
    place.write_text("no folder")


SPOILT: list[Callable[[Path], None]] = [
    altered,
    missing,
    added,
    renamed,
    exchanged,
    half_written,
    emptied,
    gone,
    linked_file,
    added_link,
    linked_folder,
    a_file,
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_spoilt_is_left_for_the_one_before(
    folder: Path, known: dict[int, dict[str, str]], spoil: Callable[[Path], None]
) -> None:
    spoil(folder / "checkpoint-10")
    assert sound(folder, known) == (4, folder / "checkpoint-4")
    for step in (4, 2):
        altered(folder / f"checkpoint-{step}")
    assert sound(folder, known) is None


def test_what_was_never_written_down_is_not_loaded(folder: Path, known: dict[int, dict[str, str]]) -> None:
    write(folder, 12)
    assert sound(folder, known) == (10, folder / "checkpoint-10")
    assert sound(folder, {}) is None
    assert sound(folder, {10: {}}) is None
    emptied(folder / "checkpoint-10")
    assert sound(folder, {10: {}}) is None, "an empty folder is no checkpoint"
    assert sound(folder / "elsewhere", known) is None


def test_clearing_leaves_the_one_that_is_kept_and_all_that_is_no_checkpoint(folder: Path) -> None:
    outside = folder.parent / "outside"
    write(outside, 1)
    (folder / "checkpoint-7").symlink_to(outside)
    for other in ("checkpoint-x", "checkpoint-4-mine", "my-checkpoint-4", "runs"):
        (folder / other).mkdir()
    (folder / "checkpoint-8").write_text("a file")
    before = contents(folder / "checkpoint-4")
    clear(folder, folder / "checkpoint-4")
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint-4",
        "checkpoint-7",
        "checkpoint-8",
        "checkpoint-x",
        "checkpoint-4-mine",
        "my-checkpoint-4",
        "runs",
    }
    assert contents(folder / "checkpoint-4") == before
    assert (outside / "checkpoint-1" / "optimizer.pt").exists(), "what a link leads to is not ours"
    clear(folder, None)
    assert not (folder / "checkpoint-4").exists()
    clear(folder / "elsewhere", None)


# The policy of a checkpoint


def test_a_policy_is_kept_without_pickles(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    found = keep_policy(folder / "checkpoint-10", place)
    assert set(found) == POLICY == {path.name for path in place.iterdir()}
    assert found == policy_files(folder / "checkpoint-10") == digests(place)
    assert place.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.glob("*.partial"))


def test_a_policy_that_is_kept_stays_and_another_takes_its_place(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    keep_policy(folder / "checkpoint-4", place)
    (place / "card.json").write_text("{}")
    number = place.stat().st_ino
    assert keep_policy(folder / "checkpoint-4", place) == policy_files(place)
    assert place.stat().st_ino == number and (place / "card.json").exists()
    keep_policy(folder / "checkpoint-10", place)
    assert (place / "adapter_model.safetensors").read_text() == "weights 10"
    assert not (place / "card.json").exists(), "it told of the other"


def test_a_policy_that_is_there_stays(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    found = keep_policy(folder / "checkpoint-10", place)
    written = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    assert keep_policy(folder / "checkpoint-10", place) == found
    assert {path.name: path.stat().st_mtime_ns for path in place.iterdir()} == written


def test_a_kill_in_the_middle_leaves_a_draft_that_is_written_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "adapter"
    keep_policy(folder / "checkpoint-4", place)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.copyfile", killed)
        keep_policy(folder / "checkpoint-10", place)
    assert (place / "adapter_model.safetensors").read_text() == "weights 4", "the old one is still whole"
    found = keep_policy(folder / "checkpoint-10", place)
    assert found == policy_files(folder / "checkpoint-10") == digests(place)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "checkpoints"}
