"""The options that decide how a policy is trained, and the settings they come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..finetune.grpo import Settings
    from .judging import Command

_SETTINGS = (
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
    click.option(
        "--at-once",
        "responses_at_once",
        type=click.IntRange(1),
        help="Responses that are learnt from at once, which decides the memory; one prompt's if not given.",
    ),
    click.option("--max-tokens", type=click.IntRange(8), help="The longest response; the reward's if not given."),
    click.option(
        "--temperature",
        type=click.FloatRange(0, 2, min_open=True),
        default=0.9,
        show_default=True,
        help="At which it writes.",
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
    click.option("--checkpointing", is_flag=True, help="Compute activations twice: less memory."),
    click.option(
        "--generation",
        type=click.Choice(["transformers", "vllm-colocate", "vllm-server"]),
        default="transformers",
        show_default=True,
        help="What writes responses: the policy itself, vLLM on the same GPU, or TRL's vLLM server on loopback.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes rows and sampling."),
    click.option(
        "--shuffled",
        is_flag=True,
        help="A control: the rewards of a prompt's responses change places by chance, so that nothing is to be learnt.",
    ),
)


def training_options(command: Command) -> Command:
    """The command with the options that decide how a policy is trained."""
    for option in reversed(_SETTINGS):
        command = option(command)
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
