"""Words planted in every text, id, goal and path, and looked for in every byte that the executable leaves elsewhere."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny
import writer
from trained import write_reward

from goalcover_local import pulling

ASKED, SAID, READ = "Zwiebelkuchen4711", "Apfelstrudel0815", "Kaiserschmarrn42"
NAME, GOAL, PLACE, RUN = "Mustermann1968", "Semmelknoedel33", "Musterklinik", "Musterlauf55"
TEXTS = (ASKED, SAID, READ)
SECRETS = (*TEXTS, NAME, GOAL, PLACE, RUN)
TESTS = Path(__file__).parent
RULES = f"""
import os, sys
sys.path[:0] = [{str(TESTS)!r}]
if os.environ.get("RULES"):
    import pytest, writer
    writer.opened(pytest.MonkeyPatch(), writer.Writer())
written = open(os.environ["WRITTEN"], "a", buffering=1)

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        written.write(os.path.abspath(os.fsdecode(arguments[0])) + "\\n")

from goalcover_local.cli import main
sys.addaudithook(hook)
sys.argv[0] = "goalcover"
main.run()
"""
"""The executable, with a model that goes by rules if RULES is set; what it opens to write is written down."""

ELSEWHERE = (
    *("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
    *("GOALCOVER_HOME", "GOALCOVER_STATE"),
)
"""The variables that name the places in which programs keep what they like."""


class Desk(NamedTuple):
    """Where the commands run: their data, run and outputs are under `folder`, all other places under `elsewhere`."""

    folder: Path
    elsewhere: Path

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / RUN

    def variables(self, *, rules: bool) -> Mapping[str, str]:
        """The variables of a process: every place its own, every library at its loudest."""
        places = {name: str(self.elsewhere / name) for name in ELSEWHERE}
        loud = {"TRANSFORMERS_VERBOSITY": "debug", "DATASETS_VERBOSITY": "debug", "ACCELERATE_LOG_LEVEL": "debug"}
        ours = {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        told = {
            "WRITTEN": str(self.folder.parent / "written"),
            "RULES": "1" if rules else "",
            "PYTHONWARNINGS": "always",
        }
        # Places that a machine may name outright would let files past the places that are looked through.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "MPL"))}
        return {**inherited, **places, **loud, **ours, **told}

    def __call__(self, *arguments: object, rules: bool = True, code: int = 0) -> str:
        """What the executable wrote on stdout under a umask of 0; neither stream may hold a text."""
        done = subprocess.run(
            [sys.executable, "-c", RULES, *map(str, arguments)],
            cwd=self.folder,
            env=self.variables(rules=rules),
            capture_output=True,
            text=True,
            umask=0,
            timeout=900,
        )
        assert done.returncode == code, done.stderr
        assert not [word for word in TEXTS if word in done.stdout + done.stderr], arguments
        return done.stdout


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A folder with rows, a goal, a reward and a tiny model, and homes that are otherwise empty."""
    place = tmp_path_factory.mktemp("canaries")
    found = Desk(place / PLACE, place / "elsewhere")
    found.folder.mkdir()
    for name in ELSEWHERE:
        (found.elsewhere / name).mkdir(parents=True)
    rows = [
        {
            "id": f"{NAME}-{n}",
            "question": f"Which knots join ropes, {ASKED}, on ship {n}?",
            "answer": f"Tie both ropes {n} times, {SAID}.",
            "note": READ,
        }
        for n in range(10)
    ]
    rows += [rows[0], {"id": f"{NAME}-x", "question": ASKED, "answer": "", "note": READ}]
    (found.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    (found.folder / "goal.toml").write_text(writer.GOAL.replace("ropes and bread", f"ropes and {GOAL}"), "utf-8")
    write_reward(found.folder / "letters")
    weights = tiny.write_checkpoint(tmp_path_factory.mktemp("weights"))
    cards = found.elsewhere / "GOALCOVER_HOME" / "cards"
    cards.mkdir()
    (cards / "tiny-policy.toml").write_text(
        'name = "tiny-policy"\ntitle = "Tiny"\nroles = ["judge", "policy"]\nparameters = "0.02M"\n'
        'licence = "Apache-2.0"\nprovenance = "Random numbers."\ncontext = 2048\nprecision = "float32"\n'
        '[source]\nkind = "directory"\n',
        "utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOALCOVER_HOME", str(cards.parent))
        pulling.add(weights, "tiny-policy")
    return found


@pytest.fixture(scope="module")
def worked(desk: Desk) -> Desk:
    """The desk after every phase, and every command that writes a file."""
    assess = ("assess", "goal.toml", "rows.jsonl", "--run", RUN, "--value", "corrected", "--explain", "all")
    for command in (
        assess,
        ("analyze", RUN),
        ("recommend", RUN),
        ("synthesize", RUN, "-n", 2, "-o", "out/written.parquet"),
        ("filter", RUN, "-o", "out/kept.jsonl"),
        ("filter", RUN, "-o", "out/kept", "--format", "datasets"),
        ("mix", RUN, "-o", "out/mix", "--format", "parquet"),
        ("calibrate", RUN, "--sheet", "out/labels.csv"),
        ("export", RUN, "-o", "out/judgements.jsonl"),
        ("show", RUN, "--json"),
        ("status", RUN),
    ):
        (desk.folder / "out").mkdir(exist_ok=True)
        desk(*command)
    return desk


def trained(desk: Desk) -> None:
    """Nothing; a policy of a few kilobytes is trained on the rows, and evaluated, by the executable and no stand-in."""
    reward = ("--reward", "./letters", "--judge", "tiny-policy")
    how = ("--steps", 2, "--prompts-per-step", 2, "--responses", 4, "--at-once", 8, "--save-every", 1)
    rows = ("rows.jsonl", "--input-column", "question", "--output-column", "answer")
    common = (*reward, "--device", "cpu")
    desk("train", *rows, "--run", RUN, "--name", "original", "--policy", "tiny-policy", *common, *how, rules=False)
    desk("evaluate", RUN, *rows, *common, "--responses", "out/responses.jsonl", rules=False)


def holding(places: Sequence[Path], words: Sequence[str]) -> list[tuple[str, str]]:
    """Each file in these places, and each of the words, of which the file holds one in a byte of it or in its name."""
    found = []
    for path in (each for place in places for each in place.rglob("*")):
        raw = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        found += [(str(path), word) for word in words if word.encode() in raw or word.encode("utf-16-le") in raw]
    return found


def check(desk: Desk) -> None:
    """Fails if something planted is elsewhere than in the run and the outputs, or was and is gone."""
    assert holding([desk.elsewhere], SECRETS) == []
    written = {Path(line) for line in (desk.folder.parent / "written").read_text("utf-8").splitlines()}
    assert written, "else nothing was watched"
    ours = [path for path in written if path.is_relative_to(desk.folder)]
    others = written - {*ours}
    passing = {path for path in others if not path.exists() and not path.is_relative_to("/dev")}
    probes = {path for path in passing if path.parent.name == "TMPDIR" and re.fullmatch(r"[a-z0-9_]{8}", path.name)}
    own = {desk.elsewhere / "GOALCOVER_HOME", desk.elsewhere / "GOALCOVER_STATE"}
    numbers = {path for path in passing if own & {*path.parents}}
    locks = {path for path in passing if path.suffix == ".matplotlib-lock"}
    assert passing - probes - numbers - locks == set(), (
        "tried for a moment by Python, scales, the ledger's head, and the list of fonts"
    )
    known = [path for path in ours if path.is_relative_to(desk.run) or path.is_relative_to(desk.folder / "out")]
    assert [path for path in ours if path not in known] == [], "nothing but the run and the outputs is written to"


def test_what_is_planted_stays_in_the_run_and_the_outputs(worked: Desk) -> None:
    assert {word for _, word in holding([worked.run], SECRETS)} >= {*TEXTS, NAME, GOAL}, "else it proves nothing"
    check(worked)


def test_all_that_was_written_is_its_owners_alone(worked: Desk) -> None:
    """Whatever the umask, which was 0."""
    made = [worked.run, *worked.run.rglob("*"), *(worked.folder / "out").rglob("*")]
    open_to_others = {str(path): oct(path.stat().st_mode) for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077}
    assert open_to_others == {}


def test_a_training_keeps_to_itself_what_it_learns_from(worked: Desk) -> None:
    pytest.importorskip("trl", reason="training needs trl")
    pytest.importorskip("peft", reason="training needs peft")
    trained(worked)
    check(worked)
    assert holding([worked.run / "policies"], SECRETS[:-2]) == [], "weights, numbers and digests"


def test_after_a_purge_nothing_planted_is_left_in_the_run(worked: Desk) -> None:
    worked("purge", RUN, "--samples", "--ids", "--files", "--yes")
    assert {word for _, word in holding([worked.run], SECRETS)} <= {GOAL, RUN, PLACE}
    worked("show", RUN)
    assert holding([worked.elsewhere], SECRETS) == []
