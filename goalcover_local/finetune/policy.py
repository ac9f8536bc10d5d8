"""A policy: a card's base model, as it is or with an adapter, that writes responses and can be trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..cards import Card
from ..engines.base import Engine, Message, Prompt
from ..engines.tokens import PromptTokenizer
from ..errors import EngineError, ModelError
from ..terms import digest_of
from ..weights import refuse_swapped, verify

Tuning = Literal["lora", "full"]

ADAPTER = "adapter_model.safetensors"

AT_ONCE = {"cpu": 16, "cuda": 64}
"""Responses that are written together; part of what makes a resumed evaluation equal to an unbroken one."""

DECODING = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""How responses are written whatever a model's own settings say, as in training."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a policy wrote: its text, how many tokens it took, and whether it came to its end within its budget."""

    text: str
    n_tokens: int
    finished: bool


class Policy:
    """A causal language model with its tokenizer. `identity` tells what decides what it writes."""

    def __init__(
        self, model: Any, prompts: PromptTokenizer, *, card: Card, weights: str, adapter: str = "", context: int = 0
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.card = card
        self.context = context or card.context
        self._weights = weights
        self._adapter = adapter

    @property
    def identity(self) -> dict[str, str]:
        """Card, weights' and adapter's digests, precision, device kind and versions."""
        import torch
        import transformers

        parameter = next(self.model.parameters())
        return {
            "card": self.card.name,
            "weights": self._weights,
            "adapter": self._adapter,
            "chat": digest_of(asdict(self.card.chat)),
            "precision": str(parameter.dtype).removeprefix("torch."),
            "device": parameter.device.type,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def ids(self, text: str) -> list[int]:
        """The token ids of a request to the policy, in its chat template, up to where its answer begins."""
        return self.prompts.ids(self.prompts.text(Prompt((Message("user", text),))))

    def check_room(self, prompt_tokens: int, max_tokens: int) -> None:
        """Nothing; raises EngineError if a prompt and an answer of so many tokens exceed the model's context."""
        if prompt_tokens + max_tokens > self.context:
            raise EngineError(
                f"A prompt of {prompt_tokens} tokens and an answer of {max_tokens} exceed the context of "
                f"{self.context} of {self.card.name}.",
                "Use a policy with a longer context, or leave out longer samples with --max-prompt-tokens.",
            )

    def respond(
        self, texts: Sequence[str], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Written]:
        """What the policy answers to each text, in at most `max_tokens`; texts that are answered together are a batch.

        The most probable token at temperature 0, else a draw that depends on the seed and on the batch. Raises
        EngineError for a text that leaves no room for an answer in the model's context.
        """
        import torch

        sequences = [self.ids(text) for text in texts]
        if not sequences:
            return []
        longest = max(map(len, sequences))
        self.check_room(longest, max_tokens)
        device = next(self.model.parameters()).device
        tokenizer = self.prompts.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ends = end_tokens(self.model, tokenizer)
        padded = torch.full((len(sequences), longest), pad, device=device)
        mask = torch.zeros_like(padded)
        for row, sequence in enumerate(sequences):
            padded[row, longest - len(sequence) :] = torch.tensor(sequence, device=device)
            mask[row, longest - len(sequence) :] = 1
        drawing = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        training = self.model.training
        self.model.eval()
        with torch.inference_mode(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            written = self.model.generate(
                input_ids=padded,
                attention_mask=mask,
                generation_config=_generation(max_tokens, pad, ends, drawing),
            )[:, longest:]
        self.model.train(training)
        return [self._written(row.tolist(), ends) for row in written]

    def _written(self, tokens: Sequence[int], ends: Sequence[int]) -> Written:
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        said = tokens if end is None else tokens[:end]
        text = self.prompts.tokenizer.decode(said, skip_special_tokens=True)
        return Written(text.strip(), len(said) + (end is not None), end is not None)

    def close(self) -> None:
        """Nothing; drops the model."""
        self.model = None


def _generation(max_tokens: int, pad: int, ends: Sequence[int], drawing: dict[str, Any]) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_tokens,
        pad_token_id=pad,
        eos_token_id=list(ends),
        **DECODING,
        **({"do_sample": False} | drawing),
    )


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens at which a model ends its answer: the tokenizer's, and those that its generation config names."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    return list(dict.fromkeys(token for token in ends if token is not None))


def load_policy(
    card: Card,
    *,
    trained: Path | None = None,
    digest: str = "",
    device: str = "cpu",
    precision: str = "",
    full: bool = False,
) -> Policy:
    """The policy of a card, from its verified weights; with `trained`, a folder that a training wrote, of that digest.

    With `full` every byte of the weights is read again. Raises ModelError for weights that are absent or altered, were
    it while they were loaded, EngineError if the model cannot be loaded.
    """
    from ..engines.causal import causal_model, failures_told
    from ..engines.transformers_engine import check_device, resolve_precision

    weights = verify(card, full)
    check_device(device)
    if trained is not None and not any(trained.glob("*.safetensors")):
        raise ModelError(f"{trained} holds no policy.", "Let `goalcover train` end, or name another policy.")
    whole = trained is not None and not (trained / ADAPTER).exists()
    with failures_told(f"the policy {card.name}", device):
        prompts = PromptTokenizer.load(
            weights.directory,
            template_options=dict(card.chat.template_options),
            markers=tuple(card.chat.markers),
            system_role=card.chat.system_role,
            opening=card.chat.opening,
        )
        place = trained if trained is not None and whole else weights.directory
        model = causal_model(place, dtype=resolve_precision(precision or card.precision, device), device=device)
        _forget_decoding(model)
        if trained is not None and not whole:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(trained), local_files_only=True)
    refuse_swapped(weights)
    model.eval()
    return Policy(model, prompts, card=card, weights=weights.digest, adapter=digest)


def _forget_decoding(model: Any) -> None:
    """Nothing; the model has no settings of its own for how it writes, which would fill in what ours leave open."""
    from transformers import GenerationConfig

    own = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})


def twin(model: Any) -> Any:
    """A second model around the very parameters of the first: it costs no memory, and is configured by itself.

    What an adapter adds to the first later is not in the second, which stays the base with its adapter off.
    """
    held = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, held)


def share_base(policy: Policy) -> Engine:
    """The policy's base as an engine that judges, sharing its weights. Call it before an adapter is put on."""
    from ..engines.transformers_engine import TransformersEngine

    names = ("card", "weights", "chat")
    identity = {name: policy.identity[name] for name in names}
    return TransformersEngine(twin(policy.model), policy.prompts, context=policy.card.context, identity=identity)
