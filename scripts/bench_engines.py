#!/usr/bin/env python
"""Pairs a second of the engines, and of two other ways to judge in vLLM, on the same weights, threads and rows.

    python scripts/bench_engines.py --data DIR [--judge CARD] [--rows 32] [--device cpu]

peer (a) prometheus-eval's absolute-grading template with its own default sampling, one try, 200 and 1,024 tokens; the
         template is read from the installed package (`pip install --no-deps prometheus-eval==0.1.20`)
peer (b) one joint JSON a pair (score, then an explanation) under Outlines, prefixes cached, rubric and sample first
Ours is told twice: with the reference pairs that the corrected value needs (8 more a sample), and without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from bench_assess import graded_prompts, joint_prompts, prometheus_template, pubmedqa, raw_rate, timed

from goalcover_local import offline


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--judge", "card_name", default=None)
@click.option("--rows", type=int, default=32, show_default=True)
@click.option("--peer-rows", type=int, default=8, show_default=True, help="Rows for the slow ways.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=int, default=None)
@click.option(
    "--explain", is_flag=True, help="Also decode an explanation of every fourth pair, as `--explain low` may."
)
def main(
    data: Path, card_name: str | None, rows: int, peer_rows: int, device: str, threads: int | None, explain: bool
) -> None:
    """Measure pairs a second."""
    offline.switch_offline()
    offline.shut()
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from goalcover_local.cards import DEFAULT_CARD, load_card
    from goalcover_local.judges import Judge, open_judge
    from goalcover_local.scales import reference_subgoals
    from goalcover_local.terms import ANCHORS, Sample, Subgoal
    from goalcover_local.weights import verify

    card = load_card(card_name or DEFAULT_CARD)
    samples, subgoals = pubmedqa(data, rows)
    n_pairs = len(samples) * len(subgoals)

    def rate_of(judge: Judge, asked: Sequence[Subgoal], shift: int) -> tuple[float, float]:
        """Own pairs and computed tokens a second. Shifted texts, so that no cache knows them."""
        shifted = [Sample(s.id, f"{s.input} ({shift})", s.output) for s in samples]
        size = judge.samples_per_batch
        started, tokens = time.perf_counter(), 0
        for start in range(0, len(shifted), size):
            batch = judge.judge([(s, g) for s in shifted[start : start + size] for g in asked])
            tokens += batch.n_tokens
            if explain:
                low = [(s, g, 0.2) for s in shifted[start : start + size] for g in subgoals]
                judge.explain(low[::4])
        seconds = time.perf_counter() - started
        return n_pairs / seconds, tokens / seconds

    how = "low" if explain else "none"
    click.echo(f"{card.name} on {device}, {rows} PubMedQA rows x {len(subgoals)} subgoals, --explain {how}")
    rates: dict[str, tuple[float, float]] = {}
    found: list[Any] = []
    llm: Any = None
    for kind in ("transformers", "vllm"):
        judge = open_judge(card, engine=kind, devices=[device], threads=threads)  # type: ignore[arg-type]
        judge.judge([(samples[0], subgoals[0])])
        for name, asked in (("alone", subgoals), ("with reference", [*subgoals, *reference_subgoals()])):
            rates[f"{kind}, {name}"] = rate_of(judge, asked, len(rates))
        asked = [(s, g) for s in samples[:24] for g in (*subgoals, *reference_subgoals())]
        found.append(np.array([j.probabilities for j in judge.judge(asked).judgements], dtype=float))
        if kind == "vllm":
            llm = judge.engine.backend.llm  # type: ignore[attr-defined]
            click.echo("; ".join(f"{name} {told}" for name, told in judge.engine.report().items()))
        else:
            judge.engine.close()
            precision = str(judge.identity["precision"])
    plain = AutoModelForCausalLM.from_pretrained(
        verify(card).directory, dtype=getattr(torch, precision), local_files_only=True
    )
    click.echo(f"plain forward pass in transformers   {raw_rate(plain.to(device)):8.0f} tokens/s")
    del plain
    for name, (pairs, tokens) in rates.items():
        click.echo(f"{name:35s}  {pairs:8.2f} pairs/s   {tokens:6.0f} tokens/s computed")
    apart = np.abs(found[0] - found[1])
    moved = np.abs((found[0] - found[1]) @ np.array(ANCHORS)).max()
    click.echo(
        f"the same pairs in both: probabilities apart by {apart.max():.6f} at most, {apart.mean():.6f} on average"
    )
    click.echo(f"                 expectations by {moved:.6f} at most")
    ours = rates["vllm, with reference"][0]

    pairs = [(s, g) for s in samples[:peer_rows] for g in subgoals]
    for name, work in _peers(llm, judge, pairs):
        seconds = timed(work)
        rate = len(pairs) / seconds
        alone = rates["vllm, alone"][0] / rate
        best = max(rates["transformers, with reference"][0], ours) / rate
        click.echo(
            f"{name:35s}  {rate:8.2f} pairs/s   vllm is {ours / rate:.1f} times as fast "
            f"({alone:.1f} without reference pairs); the faster engine {best:.1f}"
        )


def _peers(llm: Any, judge: Any, pairs: Sequence[Any]) -> list[tuple[str, Callable[[], Any]]]:
    """The peers that can run here, by name."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    def chats(texts: Sequence[str]) -> list[list[dict[str, str]]]:
        return [[{"role": "user", "content": text}] for text in texts]

    joint = joint_prompts(judge.question, pairs)
    grammar = StructuredOutputsParams(regex=judge.question.grammar().regex)
    json_way = SamplingParams(max_tokens=100, temperature=0.0, structured_outputs=grammar)
    llm.chat(chats(joint[:1]), json_way, use_tqdm=False)
    peers: list[tuple[str, Callable[[], Any]]] = [
        ("(b) joint JSON, prefixes cached", lambda: llm.chat(chats(joint), json_way, use_tqdm=False))
    ]
    template = prometheus_template()
    if template is None:
        click.echo("(a) prometheus-eval is not installed; left out")
        return peers
    graded = [f"{template.ABS_SYSTEM_PROMPT}\n\n{prompt}" for prompt in graded_prompts(template, pairs)]
    for most in (200, 1024):
        sampling = SamplingParams(max_tokens=most, temperature=1.0, top_p=0.9, repetition_penalty=1.03)
        peers.append(
            (f"(a) prometheus-eval, {most} tokens", lambda how=sampling: llm.chat(chats(graded), how, use_tqdm=False))
        )
    return peers


if __name__ == "__main__":
    main()
