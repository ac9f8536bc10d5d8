"""The options of `goalcover train` under their headings, and the settings that they come to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .assessing import data_options
from .headings import under
from .training import device_option, judge_engine_options, limit_options, reward_option

if TYPE_CHECKING:
    from ..finetune.grpo import Settings
    from .judging import Command

_POLICY = (
    click.option(
        "--name", metavar="NAME", required=True, help="What the trained policy is called, such as goal-aligned."
    ),
    click.option(
        "--policy", "policy_card", metavar="CARD", help="The base model to train; the embedded one if not given."
    ),
    device_option,
    click.option(
        "--tuning",
        type=click.Choice(["lora", "full"]),
        default="lora",
        show_default=True,
        help="Train an adapter (LoRA), or all weights.",
    ),
    click.option("--rank", type=click.IntRange(1), default=16, show_default=True, help="The adapter's rank."),
    click.option(
        "--precision", type=click.Choice(["float32", "bfloat16"]), help="The policy's; its card's if not given."
    ),
)
_JUDGE = (
    reward_option(required=True),
    click.option("--judge", "card_name", metavar="CARD", help="The judge that rewards; the embedded one if not given."),
    judge_engine_options,
    click.option(
        "--shuffled",
        is_flag=True,
        help="A control: the rewards of a prompt's responses change places by chance, so that nothing is to be learnt.",
    ),
)
_STEPS = (
    click.option("--steps", type=click.IntRange(1), default=100, show_default=True, help="Updates of the policy."),
    click.option(
        "--prompts-per-step",
        type=click.IntRange(1),
        default=4,
        show_default=True,
        help="Rows asked about in each step.",
    ),
    click.option(
        "--responses",
        "responses_per_prompt",
        type=click.IntRange(2),
        default=8,
        show_default=True,
        help="Responses to each prompt, compared with each other (GRPO's group).",
    ),
    click.option("--max-tokens", type=click.IntRange(8), help="The longest response; the reward's if not given."),
    click.option(
        "--temperature",
        type=click.FloatRange(0, 2, min_open=True),
        default=0.9,
        show_default=True,
        help="At which responses are written.",
    ),
    click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Default: 1e-5, in full 1e-6."),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "linear", "cosine"]),
        default="constant",
        show_default=True,
        help="How the learning rate goes on.",
    ),
    click.option(
        "--warmup", type=click.IntRange(0), default=0, show_default=True, help="Steps in which it rises from 0."
    ),
    click.option(
        "--kl",
        type=click.FloatRange(0),
        default=0.04,
        show_default=True,
        help="The weight of the divergence from the base (beta); 0 leaves it out.",
    ),
    click.option(
        "--loss",
        type=click.Choice(["grpo", "dr_grpo", "dapo", "bnpo"]),
        default="grpo",
        show_default=True,
        help="The paper's algorithm, or a variant that TRL knows.",
    ),
    click.option(
        "--iterations", type=click.IntRange(1), default=1, show_default=True, help="Updates by the same responses."
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes rows and sampling."),
)
_MEMORY = (
    click.option(
        "--at-once",
        "responses_at_once",
        type=click.IntRange(1),
        help="Responses that are learnt from at once, which decides the memory; one prompt's if not given.",
    ),
    click.option("--checkpointing", is_flag=True, help="Compute activations twice: less memory."),
    click.option(
        "--generation",
        type=click.Choice(["transformers", "vllm-colocate", "vllm-server"]),
        default="transformers",
        show_default=True,
        help="What writes responses: the policy itself, vLLM on the same GPU, or TRL's vLLM server on loopback.",
    ),
    click.option(
        "--generation-url",
        default="http://127.0.0.1:8000",
        show_default=True,
        help="With --generation vllm-server: the address of `trl vllm-serve` on this machine's loopback.",
    ),
    click.option(
        "--vllm-memory",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.3,
        show_default=True,
        help="With --generation vllm-colocate: the share of the GPU's memory that vLLM takes.",
    ),
)
_RESULTS = (
    click.option("--run", "run_folder", type=click.Path(path_type=Path), required=True, help="The run; made if new."),
    click.option(
        "--save-every", type=click.IntRange(1), default=10, show_default=True, help="Steps between checkpoints."
    ),
    click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="Stop, resumable, after this long."),
    click.option("--dry-run", is_flag=True, help="Say what it needs; where the weights are here, time two steps."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
_GROUPS = {
    "Data": (data_options, *limit_options),
    "Policy": _POLICY,
    "Reward and judge": _JUDGE,
    "Steps": _STEPS,
    "Memory and speed": _MEMORY,
    "Results": _RESULTS,
}


def train_options(command: Command) -> Command:
    """The command with all options of a training."""
    for heading, options in reversed(_GROUPS.items()):
        command = under(heading, *options)(command)
    return command


def settings_of(options: Mapping[str, Any], max_tokens: int) -> Settings:
    """The settings that the options state; `max_tokens` is the reward's, taken if they state none.

    Raises click.UsageError if they do not fit together.
    """
    from dataclasses import fields

    from ..finetune.grpo import Settings

    full = options["tuning"] == "full"
    filled = {
        **options,
        "max_tokens": options["max_tokens"] or max_tokens,
        "responses_at_once": options["responses_at_once"] or options["responses_per_prompt"],
        "learning_rate": options["learning_rate"] or (1e-6 if full else 1e-5),
        # In bfloat16 the small steps of full tuning would be rounded away.
        "precision": options["precision"] or ("float32" if full else ""),
    }
    try:
        return Settings(**{each.name: filled[each.name] for each in fields(Settings)})
    except ValueError as error:
        raise click.UsageError(f"{error}: change --prompts-per-step, --responses or --at-once.") from None
