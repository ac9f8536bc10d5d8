"""Reinforcement fine-tuning by GRPO (Shao et al. 2024) through TRL, with a grader's score as the reward.

TRL does the training; what is ours is the reward, what is written down of every step, and what a resume may load.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import EngineError
from ..terms import Sample
from .policy import Policy, Tuning
from .processes import n_processes
from .reward import Grader
from .rewarding import Reward
from .trainer import Watch, classes

Loss = Literal["grpo", "dr_grpo", "dapo", "bnpo"]
Generation = Literal["transformers", "vllm-colocate", "vllm-server"]


@dataclass(frozen=True)
class Settings:
    """How a policy is trained; everything that changes the outcome, and nothing else.

    `prompts_per_step` prompts are answered `responses_per_prompt` times in each step; `responses_at_once` of them go
    through the model together. `kl` weighs the divergence from the base (beta), 0 leaves it out. With `shuffled` the
    rewards of a prompt's responses change places by chance: a control that must not learn what the judge values.
    """

    steps: int = 100
    prompts_per_step: int = 4
    responses_per_prompt: int = 8
    responses_at_once: int = 8
    max_tokens: int = 96
    temperature: float = 0.9
    learning_rate: float = 1e-5
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    kl: float = 0.04
    loss: Loss = "grpo"
    iterations: int = 1
    tuning: Tuning = "lora"
    rank: int = 16
    seed: int = 0
    precision: str = ""
    shuffled: bool = False
    generation: Generation = "transformers"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.responses_per_prompt < 2:
            raise ValueError("GRPO compares at least two responses to a prompt")
        if (self.prompts_per_step * self.responses_per_prompt) % self.responses_at_once:
            raise ValueError("the responses of a step must divide by those that are processed at once")

    @property
    def responses(self) -> int:
        """How many responses are written and graded in a step."""
        return self.prompts_per_step * self.responses_per_prompt

    def record(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


def train(
    policy: Policy,
    grader: Grader,
    samples: Sequence[Sample],
    settings: Settings,
    folder: Path,
    watch: Watch,
    *,
    save_every: int | None = 10,
    resume: Path | None = None,
    generation: Mapping[str, Any] | None = None,
) -> int:
    """The last step trained: all of them, unless `watch` said that it was due.

    `samples` are what the policy is asked about, by the rubric's task. Checkpoints are written to `folder`, as
    checkpoint-STEP, every `save_every` steps and at the end, or never; `resume` is one of them, verified by the caller.
    `generation` are TRL's own settings of vLLM. Raises EngineError if a prompt exceeds the policy's
    context, or the training its memory.
    """
    import torch

    check_processes(settings)
    asked = [grader.rubric.prompt(sample.input, sample.output) for sample in samples]
    policy.check_room(max(len(policy.ids(text)) for text in asked), settings.max_tokens)
    rewarded = Reward(grader, samples, settings.seed if settings.shuffled else None)
    device = next(policy.model.parameters()).device
    with _quiet(), _own_seeds(device):
        from datasets import Dataset
        from trl import GRPOConfig

        trainer_class, callback = classes()
        arguments = GRPOConfig(
            output_dir=str(folder),
            max_steps=settings.steps,
            per_device_train_batch_size=settings.responses_at_once,
            gradient_accumulation_steps=settings.responses // settings.responses_at_once // n_processes(),
            num_generations=settings.responses_per_prompt,
            num_iterations=settings.iterations,
            max_completion_length=settings.max_tokens,
            temperature=settings.temperature,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup,
            beta=settings.kl,
            loss_type=settings.loss,
            seed=settings.seed,
            data_seed=settings.seed,
            use_cpu=device.type == "cpu",
            bf16=device.type == "cuda" and settings.tuning == "full",
            fp16=False,
            gradient_checkpointing=settings.checkpointing,
            use_vllm=settings.generation != "transformers",
            vllm_mode="server" if settings.generation == "vllm-server" else "colocate",
            vllm_max_model_length=policy.context,
            **dict(generation or {}),
            logging_steps=1,
            save_strategy="steps" if save_every else "no",
            save_steps=-(-(save_every or 1) // settings.iterations) * settings.iterations,
            save_total_limit=2,
            shuffle_dataset=False,
            disable_tqdm=True,
            report_to="none",
            push_to_hub=False,
            dataloader_pin_memory=device.type == "cuda",
            trust_remote_code=False,
        )
        rows = _plan(len(samples), settings)
        data = Dataset.from_dict({"prompt": [asked[row] for row in rows], "row": rows})
        trainer = trainer_class(
            policy,
            model=policy.model,
            reward_funcs=[rewarded],
            args=arguments,
            train_dataset=data,
            processing_class=policy.prompts.tokenizer,
            callbacks=[callback(policy, rewarded, watch, settings.responses, settings.iterations)],
            peft_config=_lora(settings) if settings.tuning == "lora" else None,
        )
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except torch.OutOfMemoryError as error:
            raise EngineError(
                "The training does not fit into the device's memory.",
                "Lower --at-once, or add --checkpointing; the last checkpoint stays.",
            ) from error
        return int(trainer.state.global_step)


def _plan(n_samples: int, settings: Settings) -> list[int]:
    """The rows asked about, in the order of steps: every row once in a turn, each turn shuffled by the seed.

    One pass over it is the whole training: a resume counts off what was done, where TRL would shuffle turns anew.
    """
    draw = np.random.default_rng(settings.seed)
    n_rows = -(-settings.steps // settings.iterations) * settings.prompts_per_step
    turns = [draw.permutation(n_samples) for _ in range(-(-n_rows // n_samples))]
    return [int(row) for row in np.concatenate(turns)[:n_rows]]


def _lora(settings: Settings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def check_processes(settings: Settings) -> None:
    """Nothing; raises EngineError if a step's responses do not divide among the processes that train together."""
    n_batches = settings.responses // settings.responses_at_once
    if n_batches % n_processes():
        raise EngineError(
            f"A step's {settings.responses} responses, {settings.responses_at_once} at once, do not divide among "
            f"{n_processes()} processes.",
            "Change --prompts-per-step, --responses or --at-once: equal parts for each process.",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which TRL and its kin say nothing: their warnings quote prompts and completions."""
    names = ("trl", "transformers", "accelerate", "peft", "datasets")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _own_seeds(device: Any) -> Iterator[None]:
    """A context after which what is drawn at random goes on as if nothing had been drawn in it."""
    import random

    import torch

    before, drawn = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(drawn)
