"""`goalcover mix`: the paper's five datasets from one run, none with the same sample twice."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from command import Goalcover
from judged import Values, judged_run

from goalcover_local.store import Run
from goalcover_local.terms import Candidate, Fate, Sample

VALUES: dict[str, Values] = {"a0": [0.9, 0.1], "a1": [0.2, 0.2], "a2": [0.3, 0.7], "a3": [None, None]}
LINES = [
    *(f'{{"answer":"{answer}",  "question": "q"}}'.encode() for answer in VALUES),
    b'{"question": "q", "answer": "a0", "again": true}',
]
ANSWERS = ("a0", "a1", "a2", "a3", "a0")
NAMES = ("original", "goal-aligned", "synthetic", "synthetic-original", "synthetic-goal-aligned")


def candidate(number: int, answer: str, fate: Fate = "kept", question: str = "q") -> Candidate:
    return Candidate(
        subgoal="treatment",
        fields={"question": question, "answer": answer},
        sample=Sample("", question, answer),
        number=number,
        round=1,
        quality={"correctness": 0.8, "completeness": None},
        alignment=0.9,
        rank=0.5,
        fate=fate,
        provenance={"generator": "ab" * 32, "gap": "treatment"},
    )


WRITTEN = [
    candidate(0, "new é\n"),
    candidate(1, "not good", "rejected"),
    candidate(2, "a1"),
    candidate(3, "new é\n"),
    candidate(4, "other"),
    candidate(5, "near", "refused"),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"\n".join(LINES))
    return judged_run(tmp_path / "run", data, VALUES)


@pytest.fixture
def synthesized(run: Path) -> Path:
    with Run.open(run, write=True) as opened:
        opened.put_candidates("treatment", WRITTEN)
    return run


def sizes(goalcover: Goalcover, *arguments: object) -> dict[str, tuple[int, int]]:
    """Samples and duplicates of each dataset."""
    found = json.loads(goalcover("mix", *arguments, "--json").out)
    return {each["file"].partition(".")[0]: (each["n_samples"], each["n_duplicates"]) for each in found["datasets"]}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_five_datasets_have_the_right_rows(goalcover: Goalcover, synthesized: Path, tmp_path: Path) -> None:
    assert sizes(goalcover, synthesized, "-o", "mix") == {
        "original": (4, 1),
        "goal-aligned": (2, 1),
        "synthetic": (3, 1),
        "synthetic-original": (6, 3),
        "synthetic-goal-aligned": (5, 2),
    }
    new = [json.dumps(WRITTEN[n].fields, ensure_ascii=False).encode() for n in (0, 2, 4)]
    expected = {
        "original": LINES[:4],
        "goal-aligned": [LINES[0], LINES[2]],
        "synthetic": new,
        "synthetic-original": [*LINES[:4], new[0], new[2]],
        "synthetic-goal-aligned": [LINES[0], LINES[2], *new],
    }
    for name, lines in expected.items():
        assert (tmp_path / "mix" / f"{name}.jsonl").read_bytes() == b"".join(line + b"\n" for line in lines), name


def test_sizes_are_printed_as_a_table(goalcover: Goalcover, synthesized: Path) -> None:
    said = goalcover("mix", synthesized, "-o", "mix")
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "Dataset #Samples duplicates left out" in lines
    for line in ("Original 4 1", "Goal-aligned 2 1", "Synthetic 3 1", "Synthetic + original 6 3"):
        assert line in lines
    assert "Synthetic + goal-aligned 5 2" in lines
    assert said.err.startswith("Audit: ")


def test_only_the_owner_can_read_them(goalcover: Goalcover, synthesized: Path, tmp_path: Path) -> None:
    goalcover("mix", synthesized, "-o", "deep/mix")
    folder = tmp_path / "deep" / "mix"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["provenance.jsonl", *(f"{name}.jsonl" for name in NAMES)]
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_every_synthetic_row_has_its_provenance(goalcover: Goalcover, synthesized: Path, tmp_path: Path) -> None:
    goalcover("mix", synthesized, "-o", "mix")
    found = records(tmp_path / "mix" / "provenance.jsonl")
    assert [each["number"] for each in found] == [0, 2, 4]
    assert found[0] == {
        "digest": WRITTEN[0].sample.digest,
        "subgoal": "treatment",
        "number": 0,
        "round": 1,
        "quality": {"correctness": 0.8, "completeness": None},
        "alignment": 0.9,
        "rank": 0.5,
        "provenance": {"generator": "ab" * 32, "gap": "treatment"},
    }


def test_without_synthetic_samples_the_other_two_are_written(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    with Run.open(run, write=True) as opened:
        opened.put_candidates("treatment", [each for each in WRITTEN if each.fate != "kept"])
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "synthetic.jsonl").touch()
    said = goalcover("mix", run, "-o", "mix")
    assert "There are no synthetic samples: `goalcover synthesize" in said.err
    assert "mix/synthetic.jsonl is of an earlier mix." in said.err and "synthetic-original" not in said.err
    assert sorted(path.name for path in (tmp_path / "mix").iterdir()) == [
        "goal-aligned.jsonl",
        "original.jsonl",
        "synthetic.jsonl",
    ]


def test_the_original_may_be_a_part_drawn_by_the_seed(goalcover: Goalcover, synthesized: Path, tmp_path: Path) -> None:
    def drawn(n: int, seed: int) -> list[bytes]:
        goalcover("mix", synthesized, "-o", "mix", "--original", n, "--seed", seed)
        found = (tmp_path / "mix" / "original.jsonl").read_bytes().splitlines()
        assert len((tmp_path / "mix" / "goal-aligned.jsonl").read_bytes().splitlines()) == 2
        return found

    whole = drawn(9, 1)
    assert whole == LINES[:4]
    for seed in (1, 2, 3):
        with Run.open(synthesized, write=False) as opened:
            positions = sorted(opened.draw(seed, 2).tolist())
        first = [
            LINES[n] for place, n in enumerate(positions) if ANSWERS[n] not in [ANSWERS[m] for m in positions[:place]]
        ]
        assert drawn(2, seed) == first


def test_selection_options_make_the_goal_aligned_rows(goalcover: Goalcover, run: Path) -> None:
    assert sizes(goalcover, run, "-o", "mix", "--keep", "all >= 0.2")["goal-aligned"] == (2, 0)
    assert sizes(goalcover, run, "-o", "mix", "--keep", "max >= 1", "--at-least", 1)["goal-aligned"] == (2, 0)
    said = goalcover("mix", run, "-o", "mix", "--threshold", "nothing=1", code=2)
    assert "There is no subgoal 'nothing'. Choose among treatment, causes." in said.err


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_other_formats_hold_the_same_rows(goalcover: Goalcover, synthesized: Path, tmp_path: Path, kind: str) -> None:
    import datasets
    from pyarrow import parquet

    goalcover("mix", synthesized, "-o", "plain")
    goalcover("mix", synthesized, "-o", "mix", "--format", kind)
    for name in NAMES:
        path = tmp_path / "mix" / (f"{name}.parquet" if kind == "parquet" else name)
        read = parquet.read_table(path) if kind == "parquet" else datasets.load_from_disk(str(path))
        found = list(zip(read["question"][:], read["answer"][:], strict=True))
        found = [tuple(str(cell) for cell in row) for row in found]
        rows = records(tmp_path / "plain" / f"{name}.jsonl")
        assert found == [(row["question"], row["answer"]) for row in rows], name


def test_the_audit_trail_tells_of_sizes_and_digests(goalcover: Goalcover, synthesized: Path, tmp_path: Path) -> None:
    from goalcover_local.formats import content_digest

    goalcover("mix", synthesized, "-o", "mix", "--original", 3)
    with Run.open(synthesized, write=False) as opened:
        assert opened.verify_events() == []
        event = opened.events()[-2]
    told = json.loads(event.details)
    assert (event.kind, event.command) == ("mixed", "goalcover mix")
    assert told == told | {"original": 3, "seed": 0, "rule": "any >= 0.6", "n_rows": 5, "n_kept": 3}
    assert told["sizes"]["synthetic"] == 3
    expected = {name: content_digest(tmp_path / "mix" / f"{name}.jsonl") for name in (*NAMES, "provenance")}
    assert told["files"] == expected


def test_a_folder_that_cannot_be_used_is_an_error(goalcover: Goalcover, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file is a file; -o names a folder." in goalcover.refused("mix", run, "-o", "file")
    assert "cannot be written: Not a directory" in goalcover.refused("mix", run, "-o", "file/mix")


def test_files_of_other_formats_from_an_earlier_mix_are_told(goalcover: Goalcover, synthesized: Path) -> None:
    assert "earlier mix" not in goalcover("mix", synthesized, "-o", "mix").err
    assert "earlier mix" not in goalcover("mix", synthesized, "-o", "mix").err
    said = goalcover("mix", synthesized, "-o", "mix", "--format", "parquet")
    assert [line for line in said.err.splitlines() if "earlier" in line] == [
        f"mix/{name}.jsonl is of an earlier mix." for name in NAMES
    ]


def test_an_unfinished_assessment_is_told(goalcover: Goalcover, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(LINES))
    run = judged_run(tmp_path / "half", tmp_path / "data.jsonl", {"a0": [0.9, 0.1]})
    assert "not finished: 6 pairs are still to be judged" in goalcover("mix", run, "-o", "mix").err


def test_names_cannot_steer_a_terminal(goalcover: Goalcover, run: Path) -> None:
    name = "a\x9b31m\u202e"
    said = goalcover("mix", run, "-o", name)
    assert not {"\x9b", "\u202e"} & set(said.out + said.err)
    said = goalcover("mix", run, "-o", name, "--json")
    assert "\x9b" not in said.out and json.loads(said.out)["folder"] == name


def test_json_says_what_help_promises(goalcover: Goalcover, synthesized: Path) -> None:
    found = json.loads(goalcover("mix", synthesized, "-o", "mix", "--json").out)
    told = " ".join(goalcover("mix", "--help").out.split())
    assert all(name in told for name in (*found, *found["datasets"][0]))
    assert found == found | {"run": str(synthesized), "rule": "any >= 0.6", "n_rows": 5, "recorded": True}
    assert [each["file"] for each in found["datasets"]] == [f"{name}.jsonl" for name in NAMES]
