#!/usr/bin/env python
"""Pairs a second of the engines, and of two other ways to judge in vLLM, on the same weights, threads and rows.

    python scripts/bench_engines.py --data DIR [--judge CARD] [--rows 32] [--device cpu]

peer (a) prometheus-eval's absolute-grading template with its own default sampling, one try, 200 and 1,024 tokens; the
         template is read from the installed package (`pip install --no-deps prometheus-eval==0.1.20`)
peer (b) one joint JSON a pair (score, then an explanation) under Outlines, prefixes cached, rubric and sample first
Ours is told twice: with the reference pairs that the corrected value needs (8 more a sample), and without them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from bench_assess import SUBGOALS, prometheus_template, raw_rate

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
    import torch
    from transformers import AutoModelForCausalLM

    from goalcover_local.cards import DEFAULT_CARD, load_card
    from goalcover_local.judges import Judge, open_judge
    from goalcover_local.scales import reference_subgoals
    from goalcover_local.terms import Sample, Subgoal
    from goalcover_local.weights import verify

    card = load_card(card_name or DEFAULT_CARD)
    articles = list(json.loads((data / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8")).values())[:rows]
    samples = [Sample(str(k), row["QUESTION"], row["LONG_ANSWER"]) for k, row in enumerate(articles)]
    subgoals = [Subgoal(f"s{k}", *texts) for k, texts in enumerate(SUBGOALS)]
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
    llm: Any = None
    for kind in ("transformers", "vllm"):
        judge = open_judge(card, engine=kind, devices=[device], threads=threads)  # type: ignore[arg-type]
        judge.judge([(samples[0], subgoals[0])])
        for name, asked in (("alone", subgoals), ("with reference", [*subgoals, *reference_subgoals()])):
            rates[f"{kind}, {name}"] = rate_of(judge, asked, len(rates))
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
    ours = rates["vllm, with reference"][0]

    pairs = [(s, g) for s in samples[:peer_rows] for g in subgoals]
    for name, work in _peers(llm, judge, pairs):
        seconds = _timed(work)
        rate = len(pairs) / seconds
        alone = rates["vllm, alone"][0] / rate
        best = max(rates["transformers, with reference"][0], ours) / rate
        click.echo(
            f"{name:35s}  {rate:8.2f} pairs/s   vllm is {ours / rate:.1f} times as fast "
            f"({alone:.1f} without reference pairs); the faster engine {best:.1f}"
        )


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peers(llm: Any, judge: Any, pairs: Sequence[Any]) -> list[tuple[str, Callable[[], Any]]]:
    """The peers that can run here, by name."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    def chats(texts: Sequence[str]) -> list[list[dict[str, str]]]:
        return [[{"role": "user", "content": text}] for text in texts]

    joint = [
        "\n\n".join(
            m.content
            for m in judge.question.without_examples()
            .prompt({"input": s.input, "output": s.output, "name": g.name, "description": g.description})
            .messages
        )
        for s, g in pairs
    ]
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
    levels = {f"score{k}_description": f"Level {k} of support for the capability." for k in range(1, 6)}
    graded = [
        template.ABS_SYSTEM_PROMPT
        + "\n\n"
        + template.ABSOLUTE_PROMPT_WO_REF.format(
            instruction=s.input,
            response=s.output,
            rubric=template.SCORE_RUBRIC_TEMPLATE.format(criteria=f"{g.name}: {g.description}", **levels),
        )
        for s, g in pairs
    ]
    for most in (200, 1024):
        sampling = SamplingParams(max_tokens=most, temperature=1.0, top_p=0.9, repetition_penalty=1.03)
        peers.append(
            (f"(a) prometheus-eval, {most} tokens", lambda how=sampling: llm.chat(chats(graded), how, use_tqdm=False))
        )
    return peers


if __name__ == "__main__":
    main()
