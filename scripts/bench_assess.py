#!/usr/bin/env python
"""Pairs per second of `assess` against two other ways to judge, on the same weights, threads and rows, in one run.

    python scripts/bench_assess.py --data DIR [--judge CARD] [--rows 48] [--threads 2]

(a) Outlines' own transformers generator: one joint JSON (score, explanation) a pair, batched.
(b) prometheus-eval's absolute-grading template and its decoding (200 tokens of feedback) in transformers, batched; the
    template is read from the installed package (`pip install --no-deps prometheus-eval==0.1.20`), else (b) is left out.
floor: the unique tokens that must go through the model, over the rate of the model's plain forward pass.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from goalcover_local import offline

SUBGOALS = (
    ("Cardiology expertise", "Knowledge of the heart and blood vessels, their diseases, tests and treatment."),
    ("Clinical reasoning", "Weighs clinical evidence to reach a conclusion about patients."),
    ("Drug information", "Information about medicines: their effects, doses, interactions and safety."),
    ("Surgery", "Operations, their techniques, risks and results."),
)


def timed(work: Callable[[], Any]) -> float:
    """Seconds that the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def raw_rate(model: Any) -> float:
    """Tokens a second of a plain forward pass, the best of three shapes."""
    import torch

    best = 0.0
    for rows, columns in ((1, 1024), (4, 512), (2, 1024)):
        tokens = torch.randint(100, 4000, (rows, columns), device=model.device)
        with torch.inference_mode():
            model(input_ids=tokens, use_cache=False, logits_to_keep=1)
            seconds = min(
                timed(lambda t=tokens: model(input_ids=t, use_cache=False, logits_to_keep=1)) for _ in range(3)
            )
        best = max(best, rows * columns / seconds)
    return best


def pubmedqa(data: Path, rows: int) -> tuple[list[Any], list[Any]]:
    """The first samples of PubMedQA, and the subgoals they are judged against."""
    from goalcover_local.terms import Sample, Subgoal

    articles = list(json.loads((data / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8")).values())[:rows]
    samples = [Sample(str(k), row["QUESTION"], row["LONG_ANSWER"]) for k, row in enumerate(articles)]
    return samples, [Subgoal(f"s{k}", *texts) for k, texts in enumerate(SUBGOALS)]


def joint_prompts(question: Any, pairs: Sequence[Any]) -> list[str]:
    """The question of each pair as one text, without worked examples."""
    plain = question.without_examples()
    texts = [{"input": s.input, "output": s.output, "name": g.name, "description": g.description} for s, g in pairs]
    return ["\n\n".join(message.content for message in plain.prompt(text).messages) for text in texts]


def graded_prompts(template: Any, pairs: Sequence[Any]) -> list[str]:
    """prometheus-eval's absolute-grading prompt for each pair."""
    levels = {f"score{k}_description": f"Level {k} of support for the capability." for k in range(1, 6)}
    return [
        template.ABSOLUTE_PROMPT_WO_REF.format(
            instruction=s.input,
            response=s.output,
            rubric=template.SCORE_RUBRIC_TEMPLATE.format(criteria=f"{g.name}: {g.description}", **levels),
        )
        for s, g in pairs
    ]


def outlines_way(model: Any, tokenizer: Any, prompts: Sequence[str], schema: Any, batch: int) -> Callable[[], None]:
    """Judging by Outlines' generator: the whole JSON decoded for every prompt."""
    import outlines
    from outlines.types import JsonSchema

    generator = outlines.Generator(outlines.from_transformers(model, tokenizer), JsonSchema(schema))

    def work() -> None:
        for start in range(0, len(prompts), batch):
            generator.batch(list(prompts[start : start + batch]), max_new_tokens=80)

    return work


def prometheus_template() -> Any | None:
    """The module with prometheus-eval's prompts, loaded by itself, or None where the package is not installed."""
    package = importlib.util.find_spec("prometheus_eval")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(next(iter(package.submodule_search_locations))) / "prompts.py"
    spec = importlib.util.spec_from_file_location("prometheus_prompts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prometheus_way(model: Any, tokenizer: Any, prompts: Sequence[str], batch: int) -> Callable[[], None]:
    """Judging by prometheus-eval's template: 200 tokens of feedback sampled at its default temperature."""
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    def work() -> None:
        for start in range(0, len(prompts), batch):
            chats = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + batch]]
            inputs = tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            model.generate(**inputs, max_new_tokens=200, do_sample=True, temperature=1.0, top_p=0.9)

    return work


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--judge", "card_name", default=None)
@click.option("--rows", type=int, default=48, show_default=True)
@click.option("--peer-rows", type=int, default=8, show_default=True, help="Rows for the slow ways.")
@click.option("--batch", type=int, default=8, show_default=True, help="Batch of the slow ways.")
@click.option("--threads", type=int, default=None)
def main(data: Path, card_name: str | None, rows: int, peer_rows: int, batch: int, threads: int | None) -> None:
    """Measure pairs a second."""
    offline.switch_offline()
    offline.shut()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from goalcover_local.cards import DEFAULT_CARD, load_card
    from goalcover_local.judges import open_judge
    from goalcover_local.scales import reference_subgoals
    from goalcover_local.weights import verify

    card = load_card(card_name or DEFAULT_CARD)
    samples, subgoals = pubmedqa(data, rows)
    judge = open_judge(card, engine="transformers", threads=threads)
    asked = [*subgoals, *reference_subgoals()]

    def ours() -> None:
        size = judge.samples_per_batch
        for start in range(0, len(samples), size):
            judge.judge([(sample, subgoal) for sample in samples[start : start + size] for subgoal in asked])

    judge.judge([(sample, subgoal) for sample in samples[:2] for subgoal in asked])
    n_pairs = len(samples) * len(subgoals)
    our_rate = n_pairs / timed(ours)
    sent, unique = judge.tokens(samples, asked)
    click.echo(f"{card.name}, {torch.get_num_threads()} threads, {rows} PubMedQA rows x {len(subgoals)} subgoals")
    click.echo(
        f"tokens a pair: {sent / n_pairs:.0f} sent, {unique / n_pairs:.0f} unique (reference pairs counted as cost)"
    )

    directory = verify(card).directory
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    dtype = torch.bfloat16 if judge.identity["precision"] == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True)
    raw = raw_rate(model)
    floor = raw / (unique / n_pairs)
    click.echo(f"raw forward rate {raw:.0f} tokens/s; floor {floor:.2f} pairs/s")
    click.echo(
        f"goalcover assess --explain none      {our_rate:6.2f} pairs/s   {100 * our_rate / floor:.0f}% of the floor"
    )

    pairs = [(sample, subgoal) for sample in samples[:peer_rows] for subgoal in subgoals]
    few = joint_prompts(judge.question, pairs)
    rate = len(few) / timed(outlines_way(model, tokenizer, few, judge.question.form.record(), batch))
    click.echo(
        f"(a) Outlines, joint JSON             {rate:6.2f} pairs/s   ours is {our_rate / rate:.1f} times as fast"
    )
    prometheus = prometheus_template()
    if prometheus is None:
        click.echo("(b) prometheus-eval is not installed; left out")
        return
    graded = graded_prompts(prometheus, pairs)
    rate = len(graded) / timed(prometheus_way(model, tokenizer, graded, batch))
    click.echo(
        f"(b) prometheus-eval, 200 tokens      {rate:6.2f} pairs/s   ours is {our_rate / rate:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
