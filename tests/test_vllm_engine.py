"""The real vLLM: the same numbers as transformers, the same bits twice, quantised weights, processes that go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import tiny
from command import Goalcover
from serving import needs_vllm

from goalcover_local.cards import load_card
from goalcover_local.engines import loading, vllm_engine, vllm_settings
from goalcover_local.engines.base import Grammar, Prompt
from goalcover_local.errors import EngineError
from goalcover_local.judges import Judge, open_judge
from goalcover_local.questions import load_question
from goalcover_local.scales import reference_subgoals
from goalcover_local.terms import ANCHOR_TEXTS, ANCHORS
from goalcover_local.weights import Weights

PAIRS = [(sample, subgoal) for sample in tiny.SAMPLES for subgoal in tiny.SUBGOALS]
MISTRAL: dict[str, Any] = {"context": 600, "system_role": False, "markers": ("[INST]", "[/INST]")}


@pytest.fixture(autouse=True)
def _installed() -> None:
    needs_vllm()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Mistral in the file layout of Prometheus 2."""
    return tiny.write_prometheus(tmp_path_factory.mktemp("prometheus") / "prometheus-7b-v2.0")


@pytest.mark.parametrize(("precision", "mean", "most"), [("float32", 1e-4, 1e-3), ("bfloat16", 1e-2, 0.05)])
def test_vllm_and_transformers_give_the_same_probabilities(
    weights: Weights, precision: str, mean: float, most: float
) -> None:
    """In bfloat16 each of the two lies as far from float32 as from the other."""
    question = load_question("alignment")
    pairs = [(sample, subgoal) for sample in tiny.SAMPLES for subgoal in (*tiny.SUBGOALS, *reference_subgoals())]
    found = []
    for kind in ("transformers", "vllm"):
        engine = loading.load(kind, directory=weights.directory, context=4096, device="cpu", precision=precision)
        batch = Judge(engine, question).judge(pairs)
        found.append(np.array([judgement.probabilities for judgement in batch.judgements], dtype=float))
        engine.close()
    apart = np.abs(found[0] - found[1])
    assert apart.mean() < mean and apart.max() < most
    assert np.abs((found[0] - found[1]) @ np.array(ANCHORS)).max() < most


@pytest.mark.parametrize(
    ("question", "order"), [(None, None), ("alignment", "score-first"), ("alignment", "reason-first")]
)
def test_prometheus_is_added_and_judges_the_same_in_both_engines(
    prometheus: Path, goalcover: Goalcover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, question: Any, order: Any
) -> None:
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    goalcover("models", "add", prometheus, "--card", "prometheus-7b-v2.0")
    card = replace(load_card("prometheus-7b-v2.0"), precision="float32", explanation_tokens=32)
    found, said = [], []
    for kind in ("transformers", "vllm"):
        judge = open_judge(card, question=question, order=order, engine=kind)  # type: ignore[arg-type]
        assert judge.engine.context == 4096, "what it was trained on, not what its configuration says"
        batch = judge.judge(PAIRS)
        judge.engine.close()
        assert [judgement.failure for judgement in batch.judgements] == [None] * len(PAIRS)
        found.append(np.array([judgement.probabilities for judgement in batch.judgements]))
        said.append([explanation.answer for explanation in batch.explanations])
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    assert said[0] == said[1]
    assert len(said[0]) == (0 if order == "score-first" else len(PAIRS))


def test_a_quantised_judge_runs_in_vllm_and_is_refused_where_it_does_not(prometheus: Path, tmp_path: Path) -> None:
    packed, plain = tiny.quantise_by_gptq(prometheus, tmp_path)
    with pytest.raises(EngineError, match="quantised by GPTQ"):
        loading.load("transformers", directory=packed, device="cpu", **MISTRAL)
    found = []
    for kind, directory in (("transformers", plain), ("vllm", packed), ("transformers", prometheus)):
        engine = loading.load(kind, directory=directory, device="cpu", precision="bfloat16", **MISTRAL)  # type: ignore[arg-type]
        found.append(engine.choose(tiny.prompts(), ANCHOR_TEXTS).probabilities)
        engine.close()
    same, unquantised = np.abs(found[0] - found[1]).max(), np.abs(found[2] - found[1]).max()
    assert same < 0.2 < unquantised, "the packed weights are those that were written out"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantization": "awq"}, "quantization"),
        ({"quantization": "no-such-method"}, "quantization"),
        ({"trust_remote_code": True}, "unknown vLLM option 'trust_remote_code'"),
    ],
)
def test_what_vllm_cannot_do_is_refused_in_plain_words(prometheus: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=f"(?i){said}"):
        loading.load("vllm", directory=prometheus, device="cpu", options=options, **MISTRAL)


@pytest.mark.parametrize("options", [{"quantization": "fp8"}, {"attn_implementation": "eager"}])
def test_what_transformers_cannot_do_is_refused_in_plain_words(prometheus: Path, options: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="The card"):
        loading.load("transformers", directory=prometheus, device="cpu", options=options, **MISTRAL)


@pytest.fixture(scope="module")
def engine(prometheus: Path) -> Iterator[Any]:
    """The random Mistral in vLLM, in float32."""
    needs_vllm()
    loaded = loading.load("vllm", directory=prometheus, device="cpu", precision="float32", **MISTRAL)
    yield loaded
    loaded.close()


def test_what_was_asked_before_changes_no_bit(engine: Any) -> None:
    whole = tiny.prompts()
    first = engine.choose(whole, ANCHOR_TEXTS).probabilities
    engine.choose(whole[1:2], ANCHOR_TEXTS)
    engine.choose([Prompt(whole[0].messages, whole[0].prefill)], ANCHOR_TEXTS)
    assert np.array_equal(engine.choose(whole, ANCHOR_TEXTS).probabilities, first)
    assert "of" in engine.report()["prefix cache"]


def test_the_models_chat_template_is_not_rendered_by_vllm(engine: Any) -> None:
    """It is a stranger's program, and vLLM would not bound it: not when it starts either."""
    with pytest.raises(Exception, match=vllm_settings.NO_CHATS):
        engine.backend.llm.chat([{"role": "user", "content": "hello"}], use_tqdm=False)


@pytest.mark.parametrize("taken", [{"model": "/other"}, {"tokenizer": "/other"}, {"draft": object()}])
def test_another_model_than_the_one_that_was_verified_is_refused(tmp_path: Path, taken: dict[str, Any]) -> None:
    """A configuration may name one, and vLLM follow it; such keys are refused before, and what it took is looked at."""
    own = SimpleNamespace(**{"model": str(tmp_path), "tokenizer": str(tmp_path), **taken})
    config = SimpleNamespace(model_config=own, speculative_config=taken.get("draft"))
    with pytest.raises(EngineError, match="took another model"):
        vllm_engine._refuse_other(config, tmp_path)


def test_prompts_of_more_than_one_step_can_be_drawn_from(engine: Any) -> None:
    """vLLM on a CPU fails on a seeded request whose prompt takes several steps, unless most of it is cached."""
    from goalcover_local.engines.vllm_settings import TOKENS_PER_STEP_ON_CPU

    samples = [tiny.Sample(str(k), f"{k} what " * 30, "so " * 30) for k in range(24)]
    prompts = [tiny.prompt(sample, tiny.SUBGOALS[0], asking=None) for sample in samples]
    assert sum(engine.count_tokens(prompts)) > 2 * TOKENS_PER_STEP_ON_CPU
    draw = {"max_tokens": 8, "temperature": 1.0, "seed": 3}
    first = engine.generate(prompts, Grammar(r"[a-z ]+"), **draw)
    assert [completion.failure for completion in first] == [None] * len(prompts)
    assert first == engine.generate(prompts, Grammar(r"[a-z ]+"), **draw)
    assert len({completion.text for completion in first}) > 1


PARALLEL = """
import os, sys, time
from pathlib import Path
from goalcover_local import offline
offline.switch_offline()
offline.shut()

def told(worker):
    return os.getpid(), offline.is_shut()

if __name__ == "__main__":
    from goalcover_local.engines import loading
    engine = loading.load("vllm", directory=Path(sys.argv[1]), context=600, device="cpu", precision="float32",
                          system_role=False, options={"tensor_parallel_size": 2})
    print(*(f"{pid} {shut}" for pid, shut in engine.backend.llm.collective_rpc(told)), flush=True)
    if sys.argv[2] == "close":
        engine.close()
        print("closed", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("ending", ["close", "kill"])
def test_worker_processes_shut_the_network_and_go_with_their_engine(
    prometheus: Path, tmp_path: Path, ending: str
) -> None:
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL, "utf-8")
    environment = {**os.environ, "VLLM_ALLOW_INSECURE_SERIALIZATION": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, script, prometheus, ending],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    try:
        told = process.stdout.readline().split()
        workers = [int(pid) for pid in told[::2]]
        assert len(workers) == 2 and told[1::2] == ["True", "True"], "the guard is shut in each"
        if ending == "close":
            assert process.stdout.readline() == "closed\n"
        else:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert _gone(workers), "no process is left behind"
    finally:
        process.kill()
        process.wait()


def _gone(pids: list[int], within: float = 20) -> bool:
    ends = time.monotonic() + within
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        if time.monotonic() > ends:
            return False
        time.sleep(0.2)
    return True


def test_an_assessment_in_vllm_survives_a_kill_and_agrees_with_transformers(weights: Weights, tmp_path: Path) -> None:
    goalcover = Path(sys.executable).parent / "goalcover"
    data = Path(__file__).parents[1] / "goals" / "family-clinic.jsonl"
    command = [goalcover, "assess", "family-clinic", data, "--limit", "40"]
    command += ["--explain", "none", "--value", "expectation"]
    for kind in ("vllm", "transformers"):
        run = tmp_path / kind
        asked = [*map(str, command), "--engine", kind, "--run", str(run)]
        if kind == "vllm":
            process = subprocess.Popen(asked, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
            while not _n_stored(run):
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.1)
            process.kill()
            process.wait()
            assert not [p for p in psutil.process_iter() if _group(p.pid) == process.pid], "no process is left behind"
            assert 0 < _n_stored(run) < 160
        ran = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert ("prefix cache" in ran.stderr) == (kind == "vllm")
    shown = [_shown(goalcover, tmp_path / kind) for kind in ("vllm", "transformers")]
    assert shown[0]["n_asked"] - shown[0]["n_stored"] in (0, 64), "at most one batch is asked again"
    for ours, theirs in zip(*(told["subgoals"] for told in shown), strict=True):
        assert ours["n_judged"] == theirs["n_judged"] == 40
        assert ours["alignment"]["expectation"] == pytest.approx(theirs["alignment"]["expectation"], abs=0.02)


def _n_stored(run: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{run / 'run.sqlite'}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM judgements").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _shown(goalcover: Any, run: Path) -> Any:
    told = subprocess.run([goalcover, "show", run, "--json"], capture_output=True, text=True, check=True)
    return json.loads(told.stdout)
