"""TRL's GRPO trainer as it is used here: our prompts in, our numbers out, and checkpoints that name no path."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import EngineError
from .checkpoints import digests
from .policy import Policy
from .processes import agreed, gathered
from .rewarding import Reward, Tally

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


def classes() -> tuple[Any, Any]:
    """TRL's trainer with our prompts, and the callback that tells what it does.

    The callback is told how many responses a step has, and by how many updates they are learnt from.
    """
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
        def __init__(self, policy: Policy, rewarded: Reward, watch: Watch, n_responses: int, n_updates: int) -> None:
            self._policy = policy
            self._rewarded = rewarded
            self._watch = watch
            self._n_responses = n_responses
            self._n_updates = n_updates

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            self._gather()
            found = {ours: _number(logs.get(theirs)) for theirs, ours in _OURS.items()} | self._rewarded.tally.numbers()
            self._rewarded.tally = Tally()
            written, seconds = found["tokens"], found["seconds"]
            found["tokens_per_second"] = written * self._n_responses / seconds if written and seconds else None
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
            whole = state.global_step % self._n_updates == 0
            if agreed(self._watch.due()) and whole:
                control.should_save = control.should_training_stop = True

    return Trainer, Callback


def _number(value: Any) -> float | None:
    """A number as it is, None for one that is missing or not finite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _tell_base(checkpoint: Path, card: str) -> None:
    """Nothing; an adapter's settings name the card of its base, and no path of this machine."""
    file = checkpoint / "adapter_config.json"
    if file.exists():
        told = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": card}
        # peft keeps some as sets, whose order is another in every process.
        told = {name: sorted(value) if isinstance(value, list) else value for name, value in told.items()}
        file.write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")
