"""The command line: help, summaries, exit codes, and what assess, show and export do with a judge that never loads."""

from __future__ import annotations

import importlib
import json
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command import GOAL, Goalcover, WordsEngine, checked_show, many, rows

from goalcover_local import __version__
from goalcover_local.cli.main import COMMANDS, main
from goalcover_local.engines.base import Prompt
from goalcover_local.questions import load_question
from goalcover_local.resampling import drawn
from goalcover_local.scales import reference_samples, reference_subgoals
from goalcover_local.store import Run

N_REFERENCE_SAMPLES = len(reference_samples())
N_ASKED_OF_EACH = 2 + len(reference_subgoals())


def pairs(n_samples: int) -> int:
    """How many pairs an assessment of so many different samples asks, the reference ones included."""
    return (N_REFERENCE_SAMPLES + n_samples) * N_ASKED_OF_EACH


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its words, subcommands included."""

    def below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                assert found is not None
                yield from below(f"{name} {child}".strip(), found)

    yield from below("", main)


@pytest.fixture
def goal(tmp_path: Path) -> Path:
    path = tmp_path / "goal.toml"
    path.write_text(GOAL, encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "data.jsonl", *many(9))


def asked(run: str | Path = "run") -> int:
    with Run.open(run, write=False) as opened:
        return opened.n_asked()


def exported(goalcover: Goalcover, run: str = "run") -> list[dict[str, object]]:
    return [json.loads(line) for line in goalcover("export", run).out.splitlines()]


# Help


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    for option in ("--help", "-h"):
        result = CliRunner().invoke(main, [*name.split(), option], prog_name="goalcover")
        assert result.exit_code == 0
        _, _, example = result.output.partition("Example:\n")
        assert f"goalcover {name}".strip() in example


def test_every_option_says_what_it_does() -> None:
    for name, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"goalcover {name} {parameter.opts[0]}"


def test_summaries_are_those_of_the_commands() -> None:
    for name, summary in COMMANDS.items():
        command = importlib.import_module(f"goalcover_local.cli.{name}").command
        assert (command.name, command.short_help) == (name, summary)


def test_help_lists_every_command_and_the_exit_codes() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {name} " in output for name in COMMANDS)
    assert "Exit codes: 0 done, 1 error, 2 usage, 3 finished with failed" in output


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"goalcover, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["assess", "--help"], ["models", "add", "--help"]])
def test_help_imports_nothing_heavy(arguments: Sequence[str]) -> None:
    program = (
        "import sys; from goalcover_local.cli import main; sys.argv = ['goalcover', *sys.argv[1:]]\n"
        "try: main.run()\n"
        "finally: print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: goalcover ")
    assert not {"torch", "transformers", "datasets", "numpy", "scipy", "pydantic", "rich"} & set(done.stderr.split())


# Exit codes


@pytest.mark.parametrize(
    "arguments", [["asess"], ["assess"], ["assess", "g", "d"], ["show", "run", "--tau", "2"], ["show", "--no-such"]]
)
def test_usage_is_2(goalcover: Goalcover, arguments: Sequence[str]) -> None:
    said = goalcover(*arguments, code=2)
    assert said.out == "" and said.err.startswith("Usage: goalcover")


def test_an_error_is_1_and_has_two_sentences(goalcover: Goalcover) -> None:
    for command in ("show", "export"):
        assert "Error: There is no run in nowhere.\nMake one with `goalcover assess" in goalcover.refused(
            command, "nowhere"
        )


def test_an_unforeseen_error_is_1_and_tells_only_its_kind(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path
) -> None:
    def breaks(_: object) -> None:
        raise RuntimeError("PRIVATE-CANARY")

    words.before = breaks
    said = goalcover.refused("assess", goal, data, "--run", "run")
    assert "RuntimeError, which was not foreseen" in said and "PRIVATE-CANARY" not in said


def test_debug_shows_the_traceback(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["goalcover", "--debug", "show", "nowhere"])
    from goalcover_local.cli.main import run
    from goalcover_local.errors import StoreError

    with pytest.raises(StoreError):
        run()


def test_failed_judgements_are_3_listed_and_asked_again(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path
) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none")
    words.fails_on = "knots join ropes 3"
    said = goalcover(*assess, code=3)
    assert "2 judgements failed: `goalcover show run --failures`" in said.err
    shown = checked_show(goalcover("show", "run", "--json").out)
    assert [(s["n_judged"], s["n_failed"]) for s in shown["subgoals"]] == [(8, 1), (8, 1)]
    listed = goalcover("show", "run", "--failures").out.splitlines()
    own = [line for line in listed if line.endswith("  scripted failure")]
    assert len(own) == len(listed) == N_ASKED_OF_EACH
    failed = [record for record in exported(goalcover) if record["failure"]]
    assert [(r["line"], r["score"], r["corrected"]) for r in failed] == [(4, None, None)] * 2

    before, words.fails_on = asked(), ""
    goalcover(*assess, code=3)
    assert asked() == before, "without --retry-failed nothing is asked again"
    goalcover(*assess, "--retry-failed")
    assert asked() - before == N_ASKED_OF_EACH
    assert goalcover("show", "run", "--failures").out == ""


def test_max_hours_is_130_and_resumable(goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none")
    said = goalcover(*assess, "--max-hours", "1e-9", code=130)
    assert "Stopped by --max-hours. The same command goes on from here." in said.err
    assert 0 < asked() < pairs(9)
    goalcover(*assess)
    assert asked() == pairs(9)


def test_an_interrupt_is_130_and_loses_at_most_a_batch(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path
) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none")
    goalcover(*assess, "--limit", "1")  # fits the scale

    def interrupts(prompts: Sequence[Prompt]) -> None:
        raise KeyboardInterrupt

    words.before = interrupts
    assert "the same command goes on" in goalcover(*assess, code=130).err
    words.before = len
    goalcover(*assess)
    with Run.open("run", write=False) as run:
        assert run.n_stored() == pairs(9)
        assert 0 < run.n_asked() - run.n_stored() <= 16 * N_ASKED_OF_EACH
        assert run.verify_events() == []


# Assess


def test_an_assessment_end_to_end(goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path) -> None:
    said = goalcover("assess", goal, data, "--run", "run", "--json")
    assert "question-answer (jsonl): input from 'question', output from 'answer'" in said.err
    assert "9 rows in, 9 used (9 different), 0 refused." in said.err
    printed, shown = checked_show(said.out), checked_show(goalcover("show", "run", "--json").out)
    assert printed == shown
    assert (shown["n_samples"], shown["n_asked"], shown["n_stored"]) == (9, pairs(9), pairs(9))
    assert [subgoal["id"] for subgoal in shown["subgoals"]] == ["ropes", "bread"]
    about_ropes, about_bread = (subgoal["alignment"] for subgoal in shown["subgoals"])
    assert set(about_ropes) == set(about_bread) == {"score", "expectation", "corrected"}
    records = exported(goalcover)
    assert [(r["row"], r["subgoal"]) for r in records] == [(n, s) for n in range(9) for s in ("ropes", "bread")]
    of_ropes = [record["score"] for record in records if record["subgoal"] == "ropes"]
    assert min(of_ropes[0::3]) > max(of_ropes[1::3] + of_ropes[2::3])  # type: ignore[type-var, operator]


def test_nothing_is_judged_twice(goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none")
    first = goalcover(*assess)
    n_prompts = len(words.history)
    again = goalcover(*assess)
    assert len(words.history) == n_prompts and again.out == first.out


def test_a_changed_subgoal_costs_one_column(goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none")
    goalcover(*assess)
    before = len(words.history)
    goal.write_text(GOAL.replace("Explains how to tie knots", "Shows how to tie knots"), encoding="utf-8")
    goalcover(*assess)
    new = words.history[before:]
    assert len(new) == N_REFERENCE_SAMPLES + 9
    assert all("Shows how to tie knots" in prompt.messages[-1].content for prompt in new)


def test_what_a_judge_does_not_read_costs_nothing(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path
) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none")
    goalcover(*assess)
    before = len(words.history)
    goal.write_text(GOAL.replace('id = "ropes"', 'id = "knots"\ntarget_share = 0.3'), encoding="utf-8")
    shown = checked_show(goalcover(*assess, "--json").out)
    assert len(words.history) == before
    assert (shown["subgoals"][0]["id"], shown["subgoals"][0]["target_share"]) == ("knots", 0.3)


def test_equal_rows_are_judged_once_and_count_as_often_as_they_stand(
    goalcover: Goalcover, words: WordsEngine, goal: Path, tmp_path: Path
) -> None:
    one, two, three = many(3)
    data = rows(tmp_path / "twice.jsonl", one, two, one, one, three)
    said = goalcover("assess", goal, data, "--run", "run", "--json", "--explain", "none")
    assert "5 rows in, 5 used (3 different), 0 refused." in said.err
    shown = checked_show(said.out)
    assert (shown["n_samples"], shown["n_asked"]) == (5, pairs(3))
    assert [subgoal["n_judged"] for subgoal in shown["subgoals"]] == [5, 5]
    scores = [record["score"] for record in exported(goalcover) if record["subgoal"] == "ropes"]
    assert scores[0] == scores[2] == scores[3] != scores[4]
    assert shown["subgoals"][0]["alignment"]["score"] == pytest.approx(sum(scores) / 5)  # type: ignore[arg-type]


def test_a_smaller_limit_is_a_part_of_a_larger(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path
) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none", "--seed", "4")
    found = []
    for limit in (2, 5):
        goalcover(*assess, "--limit", limit)
        assert asked() == pairs(limit)
        found.append({record["row"] for record in exported(goalcover)})
        assert found[-1] == set(drawn(9, 4, limit).tolist())
    assert found[0] < found[1]
    goalcover(*assess)
    assert asked() == pairs(9) and len(exported(goalcover)) == 18


def test_another_draw_of_the_same_rows_is_shown_alone(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path
) -> None:
    assess = ("assess", goal, data, "--run", "run", "--explain", "none", "--limit", 3)
    goalcover(*assess, "--seed", 1)
    goalcover(*assess, "--seed", 2)
    assert {record["row"] for record in exported(goalcover)} == set(drawn(9, 2, 3).tolist())


def test_a_dry_run_counts_and_stores_nothing(
    goalcover: Goalcover, words: WordsEngine, goal: Path, tmp_path: Path
) -> None:
    one, two, three = many(3)
    data = rows(tmp_path / "data.jsonl", one, two, one, three)
    said = goalcover("assess", goal, data, "--run", "run", "--dry-run")
    assert not Path("run").exists()
    told = {line[:21].strip(): line[21:] for line in said.out.splitlines()}
    assert told["rows to judge"] == "3 different samples x 2 subgoals"
    sent, unique = int(told["tokens as prompts"]), int(told["tokens once shared"])
    words.history.clear()
    goalcover("assess", goal, data, "--run", "run", "--explain", "none")
    judged = words.history[-pairs(3) :]
    assert sent == sum(words.count_tokens(judged))
    assert 0 < unique < sent


def test_settings_of_the_assessment_hold_for_show(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path
) -> None:
    goalcover("assess", goal, data, "--run", "run", "--tau", "0.99", "--value", "score", "--explain", "none")
    shown = checked_show(goalcover("show", "run", "--json").out)
    assert shown["value"] == "score" and all(subgoal["below_tau"] for subgoal in shown["subgoals"])
    assert "mean < 0.99" in goalcover("show", "run").out
    shown = checked_show(goalcover("show", "run", "--json", "--tau", "0", "--value", "expectation").out)
    assert shown["value"] == "expectation" and not any(subgoal["below_tau"] for subgoal in shown["subgoals"])


def test_the_mean_rule_is_the_papers(goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path) -> None:
    goalcover("assess", goal, data, "--run", "run", "--explain", "none")
    for tau, verdict in ((1, "gap"), (0, "covered")):
        shown = checked_show(goalcover("show", "run", "--json", "--rule", "mean", "--tau", tau).out)
        assert {subgoal["verdict"] for subgoal in shown["subgoals"]} == {verdict}


@pytest.mark.parametrize("how", [("--decode", "grammar"), ("--order", "reason-first")])
def test_whole_answers_are_decoded_and_stored(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path, how: tuple[str, str]
) -> None:
    said = goalcover("assess", goal, data, "--run", "run", "--limit", 2, "--explain", "none", *how)
    assert "Decoded anchor and most probable anchor disagree in" in said.err
    records = exported(goalcover)
    assert len(records) == 4 and all(record["explanation"] == "So it is." for record in records)
    assert "reference pairs" not in said.err or "--order" in how, "decoding after the score needs no scale of its own"


@pytest.mark.parametrize("value", ["score", "expectation"])
def test_reference_pairs_are_asked_only_for_the_corrected_value(
    goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path, value: str
) -> None:
    said = goalcover("assess", goal, data, "--run", "run", "--limit", 3, "--explain", "none", "--value", value)
    assert "scale" not in said.err
    shown = checked_show(goalcover("show", "run", "--json").out)
    assert (shown["n_stored"], shown["value"]) == (6, value)
    assert "no corrected values" in goalcover("show", "run", "--value", "corrected", code=1).err
    goalcover("assess", goal, data, "--run", "run", "--limit", 3, "--explain", "none")
    again = checked_show(goalcover("show", "run", "--json").out)
    assert again["value"] == "corrected" and again["n_stored"] > 6


@pytest.mark.parametrize(("wanted", "column"), [("none", []), ("low", ["ropes"]), ("all", ["bread", "ropes"])])
def test_what_is_explained(
    goalcover: Goalcover, words: WordsEngine, goal: Path, tmp_path: Path, wanted: str, column: list[str]
) -> None:
    """Of three rows about bread: none supports ropes, of which nearly all should, so that is a gap."""
    goal.write_text(GOAL.replace('id = "ropes"', 'id = "ropes"\ntarget_share = 0.99'), encoding="utf-8")
    data = rows(tmp_path / "bread.jsonl", *(many(12)[1::3]))
    assess = ("assess", goal, data, "--run", "run", "--explain", wanted, "--value", "score")
    shown = checked_show(goalcover(*assess, "--json").out)
    assert shown["subgoals"][0]["verdict"] == "gap"
    explained = [record for record in exported(goalcover) if record["explanation"]]
    assert sorted({str(record["subgoal"]) for record in explained}) == column
    assert wanted != "low" or all(record["score"] <= 0.4 for record in explained)  # type: ignore[operator]
    question = load_question("alignment")
    with Run.open("run", write=False) as run:
        judge, goal_held = next(iter(run.judges())), run.goal()
        for subgoal in goal_held.subgoals:
            for explanation in run.explanations(judge, subgoal.digest):
                answer = question.read(explanation.answer)
                assert answer is not None and answer["explanation"] == explanation.text
    n_prompts = len(words.history)
    assert "Explaining: 0 of 0" in goalcover(*assess).err or wanted == "none"
    assert len(words.history) == n_prompts


# Export


def test_an_export_is_for_its_owner_alone(goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path) -> None:
    goalcover("assess", goal, data, "--run", "run", "--explain", "none")
    out = Path("out.jsonl")
    out.write_text("old", encoding="utf-8")
    out.chmod(0o644)
    said = goalcover("export", "run", "-o", out)
    assert (said.out, said.err) == ("", "18 judgements written.\n")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text(encoding="utf-8") == goalcover("export", "run").out


def test_an_export_that_cannot_be_written(goalcover: Goalcover, words: WordsEngine, goal: Path, data: Path) -> None:
    goalcover("assess", goal, data, "--run", "run", "--explain", "none")
    assert "cannot be written: No such file or directory" in goalcover.refused("export", "run", "-o", "no/out.jsonl")
    assert "is no file" in goalcover.refused("export", "run", "-o", ".")
    before = exported(goalcover)
    assert "named like a file of a run" in goalcover.refused("export", "run", "-o", "run/run.sqlite")
    assert exported(goalcover) == before


def test_a_run_in_which_nothing_was_assessed(goalcover: Goalcover) -> None:
    Run.open("run", write=True, create=True).close()
    for command in ("show", "export"):
        assert "Nothing was assessed in run." in goalcover.refused(command, "run")


# Models and doctor


def test_models_tells_what_is_here(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "empty"))
    listed = {card["name"]: card["state"] for card in json.loads(goalcover("models", "list", "--json").out)}
    assert listed["smollm2-135m-instruct"] == "absent" and len(listed) >= 12
    table = goalcover("models", "list").out
    assert all(name in table for name in listed)
    assert json.loads(goalcover("models", "show", "prometheus-7b-v2.0", "--json").out)["licence"]
    assert "There are no weights of smollm2" in goalcover.refused("models", "verify", "smollm2-135m-instruct")


def test_weights_of_ones_own_are_added_and_verified(
    goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_weights: Path
) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    assert "tiny is ready in" in goalcover("models", "add", tiny_weights, "--card", "tiny").err
    assert "files verified, digest" in goalcover("models", "verify", "tiny", "--full").out
    listed = {card["name"]: card["state"] for card in json.loads(goalcover("models", "list", "--json").out)}
    assert listed["tiny"] == "ready"


def test_doctor_says_what_to_mend(goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("goalcover_local.cli.doctor._network", lambda: "shut")
    said = goalcover("doctor", code=1)
    assert "ok    run folder" in said.out and "FAIL  weights: " in said.out
    assert "goalcover models pull smollm2-135m-instruct" in said.out
    checks = json.loads(goalcover("doctor", "--json", code=1).out)["checks"]
    assert [check["well"] for check in checks] == [True, True, False]
