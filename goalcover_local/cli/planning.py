"""A training before its first step: what is wanted, what it is reckoned to need, and its models opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .judging import reads_all
from .training import found_device, grader_of, short_enough

if TYPE_CHECKING:
    from ..cards import Card
    from ..finetune.grpo import Settings
    from ..finetune.policy import Policy
    from ..finetune.reward import Grader
    from ..finetune.rubric import Rubric
    from ..terms import Sample
    from .judging import Models


@dataclass(frozen=True)
class Wanted:
    """A training as the options state it; `policy` and `judge` are cards."""

    policy: Card
    judge: Card
    rubric: Rubric
    samples: Sequence[Sample]
    settings: Settings
    options: Mapping[str, Any]

    @property
    def device(self) -> str:
        """Where the policy is trained."""
        return found_device(self.options["device"])

    @property
    def shares_base(self) -> bool:
        """Whether the judge is the policy's own base with its adapter off, and shares its weights."""
        in_process = self.options["engine"] in ("auto", "transformers") and not self.options["devices"]
        return self.policy == self.judge and self.settings.tuning == "lora" and in_process


@dataclass(frozen=True)
class Opened:
    """A training that can begin: its models, the rows short enough, the longest of their prompts, and its memory."""

    policy: Policy
    grader: Grader
    samples: Sequence[Sample]
    longest: int
    memory: dict[str, Any]


def opened(wanted: Wanted, models: Models) -> Opened:
    """The policy, the judge as a grader, and the rows whose prompts are short enough; what is needed is told.

    Raises as `load_policy`, `short_enough` and `grader_of` do.
    """
    from ..finetune.policy import load_policy, share_base

    options = wanted.options
    click.echo(f"Loading {wanted.policy.name}.", err=True)
    policy = load_policy(
        wanted.policy, device=wanted.device, precision=wanted.settings.precision, full=reads_all(options)
    )
    samples, longest = short_enough(policy, wanted.rubric, wanted.samples, options["max_prompt_tokens"])
    memory = reckoned(wanted, longest)
    if wanted.shares_base:
        models.hold(wanted.judge, share_base(policy))
    return Opened(policy, grader_of(wanted.judge, options["reward"], models), samples, longest, memory)


def reckoned(wanted: Wanted, prompt_tokens: int) -> dict[str, Any]:
    """The memory that the training will need, in bytes, by what for, as plain values; told, with a warning if less is
    free. `prompt_tokens` has the longest prompt.
    """
    from ..finetune import memory

    settings, device = wanted.settings, wanted.device
    config = memory.config_of(wanted.policy)
    n_parameters = memory.count_of(wanted.policy)
    apart = not wanted.shares_base and wanted.options["engine"] != "server"
    plan = memory.plan(
        config,
        n_parameters=n_parameters,
        trainable=n_parameters if settings.tuning == "full" else memory.lora_parameters(config, settings.rank),
        precision=memory.held_as(settings.precision or wanted.policy.precision, device),
        sequences=settings.responses,
        micro_batch=settings.responses_at_once,
        prompt_tokens=prompt_tokens,
        completion_tokens=settings.max_tokens,
        reference=settings.kl > 0,
        checkpointing=settings.checkpointing,
        judge=memory.weight_bytes(wanted.judge) if apart else 0,
    )
    for line in plan.lines():
        click.echo(f"Memory: {line}", err=True)
    free = memory.available(device)
    if free is not None and plan.total > free:
        click.echo(
            f"Warning: {device} has {free / 1e9:.1f} GB free. Lower --at-once or --responses, add --checkpointing, or "
            "put the judge elsewhere.",
            err=True,
        )
    return {
        "device": device,
        "parts": dict(plan.parts),
        "total": plan.total,
        "unknown": list(plan.unknown),
        "free": free,
    }


def generation(options: Mapping[str, Any]) -> dict[str, Any]:
    """What TRL is told of the vLLM that writes responses. Raises EngineError for an address beyond this machine."""
    from ..engines.server_engine import loopback

    if options["generation"] == "vllm-server":
        return {"vllm_server_base_url": loopback(options["generation_url"])}
    return {"vllm_gpu_memory_utilization": options["vllm_memory"]}
