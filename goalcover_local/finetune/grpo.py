"""Reinforcement fine-tuning by GRPO (Shao et al. 2024) through TRL, with a grader's score as the reward.

TRL does the training; what is ours is the reward, what is written down of every step, and what a resume may load.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import EngineError
from ..terms import Sample
from .checkpoints import digests
from .policy import Policy, Tuning
from .processes import agreed, gathered, n_processes
from .reward import Grader
from .rewarding import Reward, Tally

Loss = Literal["grpo", "dr_grpo", "dapo", "bnpo"]
Generation = Literal["transformers", "vllm-colocate", "vllm-server"]

_OURS = {
    "reward": "score",
    "reward_std": "spread",
    "frac_reward_zero_std": "zero_variance",
    "kl": "kl",
    "entropy": "entropy",
    "loss": "loss",
    "grad_norm": "gradient",
    "learning_rate": "learning_rate",
    "completions/mean_length": "tokens",
    "completions/clipped_ratio": "truncated",
    "step_time": "seconds",
}
"""What TRL calls a step's numbers, and what we do."""


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


class Watch(Protocol):
    """What is told of a training while it goes on."""

    def stepped(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """A step is over: its number, from 1, and its numbers by name; None where there is none."""
        ...

    def saved(self, step: int, files: Mapping[str, str]) -> None:
        """A checkpoint is whole on the disk: the digest of each of its files."""
        ...

    def due(self) -> bool:
        """Whether the training shall stop, with a checkpoint, after the step that is going on."""
        ...


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

        trainer_class, callback = _classes()
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
            callbacks=[callback(policy, rewarded, watch, settings)],
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


def _classes() -> tuple[Any, Any]:
    """TRL's trainer with our prompts, and the callback that tells what it does."""
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    class Trainer(GRPOTrainer):  # type: ignore[misc]
        """GRPO on prompts that are templated and tokenised as everywhere else here, and without a card of TRL's."""

        def __init__(self, policy: Policy, **options: Any) -> None:
            self._policy = policy
            super().__init__(**options)

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [self._policy.ids(prompt) for prompt in prompts], None, {}

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            from safetensors import SafetensorError

            try:
                super()._save_checkpoint(model, trial)
            except (OSError, SafetensorError, RuntimeError) as error:
                why = getattr(error, "strerror", None) or "the write failed"
                raise EngineError(
                    f"A checkpoint could not be written to {self.args.output_dir} ({why}).",
                    "Check the disk's space and permissions, then start again: the last whole checkpoint stays.",
                ) from error

        def create_model_card(self, *_: Any, **__: Any) -> None:
            pass

    class Callback(TrainerCallback):  # type: ignore[misc]
        def __init__(self, policy: Policy, rewarded: Reward, watch: Watch, settings: Settings) -> None:
            self._policy = policy
            self._rewarded = rewarded
            self._watch = watch
            self._settings = settings

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            self._gather()
            found = {ours: _number(logs.get(theirs)) for theirs, ours in _OURS.items()} | self._rewarded.tally.numbers()
            self._rewarded.tally = Tally()
            written, seconds = found["tokens"], found["seconds"]
            found["tokens_per_second"] = written * self._settings.responses / seconds if written and seconds else None
            if state.is_world_process_zero:
                self._watch.stepped(int(state.global_step), found)

        def _gather(self) -> None:
            """Nothing; the tally is that of all processes that train together."""
            tally = self._rewarded.tally
            tally.grades, tally.lengths = gathered(tally.grades), gathered(tally.lengths)
            tally.rows = gathered(tally.rows)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            gathered([None])  # every process has written its random state
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                (folder / "README.md").unlink(missing_ok=True)
                _tell_base(folder, self._policy.card.name)
                self._watch.saved(int(state.global_step), digests(folder))

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            # Without a gradient the optimizer leaves a weight alone; with one of 0, its momentum moves it on.
            if not self._rewarded.any_graded:
                model.zero_grad(set_to_none=True)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            whole = state.global_step % self._settings.iterations == 0
            if agreed(self._watch.due()) and whole:
                control.should_save = control.should_training_stop = True

    return Trainer, Callback


def _number(value: Any) -> float | None:
    """A number as it is, None for one that is missing or not finite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _lora(settings: Settings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _tell_base(checkpoint: Path, card: str) -> None:
    """Nothing; an adapter's settings name the card of its base, and no path of this machine."""
    file = checkpoint / "adapter_config.json"
    if file.exists():
        told = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": card}
        # peft keeps some as sets, whose order is another in every process.
        told = {name: sorted(value) if isinstance(value, list) else value for name, value in told.items()}
        file.write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")


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
