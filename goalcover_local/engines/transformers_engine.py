"""The embedded engine: a transformers model in this process, on a CPU or a GPU, with an exact prefix tree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import EngineError
from ..terms import canonical_json
from . import attention
from .base import SEED_STEP, TOO_LONG, Choices, Completion, Grammar, Prompt, renormalised
from .causal import causal_model, failures_told
from .guide import Ways
from .head import ExactHead
from .prefix_tree import Tree, common_prefix, grow, pack
from .tokens import PromptTokenizer

NODES_PER_PASS = {"cpu": 2048, "cuda": 16384}
ROWS_PER_DECODE = {"cpu": 16, "cuda": 128}
_QUANTISED_BY = {"awq": "gptqmodel", "gptq": "gptqmodel", "compressed-tensors": "compressed_tensors"}
"""The package by which transformers runs weights that were quantised by each method."""


class TransformersEngine:
    """An engine around a causal language model that is already loaded (see `load`)."""

    def __init__(
        self, model: Any, prompts: PromptTokenizer, *, context: int, identity: Mapping[str, str] | None = None
    ) -> None:
        self.model = model
        self.context = context
        self._prompts = prompts
        self._identity = dict(identity or {})
        self._device = next(model.parameters()).device
        self._dtype = next(model.parameters()).dtype
        self._nodes_per_pass = NODES_PER_PASS.get(self._device.type, 4096)
        self._trunk = _Trunk(np.empty(0, dtype=np.int64), {}, 0)
        self._head: ExactHead | None = ExactHead(model)
        attention.register()
        model.set_attn_implementation(attention.NAME)
        model.eval()

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        context: int,
        device: str = "cpu",
        precision: str = "auto",
        threads: int | None = None,
        identity: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        **chat: Any,
    ) -> TransformersEngine:
        """An engine for the safetensors checkpoint in `directory`; nothing is fetched and no code of it is run.

        Of a card's `options` it knows `quantization = "fp8"`, on a GPU; `chat` is what a PromptTokenizer wants to
        know. Raises EngineError if the model cannot be loaded or run, does not fit into memory, or the device is not
        there.
        """
        if threads:
            torch.set_num_threads(threads)
        check_device(device)
        dtype = resolve_precision(precision, device)
        with failures_told(f"the model in {directory}", device):
            prompts = PromptTokenizer.load(directory, **chat)
            quantised = _quantised(directory, device, dict(options or {}))
            model = causal_model(directory, dtype=dtype, device=device, **quantised)
        told = dict(identity or {}) | ({"options": canonical_json(dict(options))} if options else {})
        return cls(model, prompts, context=context, identity=told)

    def describe(self) -> Mapping[str, str]:
        """Engine, versions, precision, device kind and whatever identity it was given (weights digest, card)."""
        from importlib.metadata import version

        import transformers

        return {
            **self._identity,
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "outlines_core": version("outlines_core"),
            "precision": str(self._dtype).removeprefix("torch."),
            "device": self._device.type,
        }

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """The number of tokens of each prompt, template and prefill included, exact."""
        return [len(self._prompts.ids(self._prompts.text(prompt))) for prompt in prompts]

    def shorten(self, text: str, n_tokens: int) -> tuple[str, int]:
        """The text cut in its middle to at most `n_tokens`, with a mark, and how many tokens were left out."""
        return self._prompts.shorten(text, n_tokens)

    def report(self) -> Mapping[str, str]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Nothing; drops the model, and the copy of its head."""
        self.model = None
        self._head = None
        self._trunk = _Trunk(np.empty(0, dtype=np.int64), {}, 0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Probability of each answer's canonical token path, renormalised: shape (n_prompts, n_answers)."""
        failures: list[str | None] = [None] * len(prompts)
        asked: list[_Answer] = []
        for row, prompt in enumerate(prompts):
            common, paths = self._prompts.answer_paths(prompt, answers)
            if len(common) + max(map(len, paths)) > self.context:
                failures[row] = TOO_LONG
            else:
                asked += [_Answer(row, column, common, path) for column, path in enumerate(paths)]
        logs = np.full((len(prompts), len(answers)), -np.inf)
        n_tokens = 0
        if asked:
            sequences = [answer.before_last for answer in asked]
            trunk, n_tokens = self._trunk_for(prompts[0], sequences)
            waiting = iter(asked)
            for trees in pack(list(grow([s[trunk.length :] for s in sequences])), self._nodes_per_pass):
                canopy = self._canopy(trees, trunk)
                n_tokens += len(canopy.tokens)
                in_pass = [
                    (next(waiting), start + path)
                    for (start, _), tree in zip(canopy.spans, trees, strict=True)
                    for path in tree.paths
                ]
                self._add_logs(logs, canopy, in_pass)
        return renormalised(logs, failures, n_tokens)

    def _add_logs(
        self, logs: np.ndarray, canopy: attention.Canopy, asked: Sequence[tuple[_Answer, np.ndarray]]
    ) -> None:
        """Nothing; fills in each answer's log-probability, the sum over its path, from one pass through the model."""
        nodes = np.concatenate([path[-len(answer.path) :] for answer, path in asked])
        targets = np.concatenate([answer.path for answer, _ in asked])
        distinct, row_of = np.unique(nodes, return_inverse=True)
        logits = self._logits(canopy, canopy.tokens, canopy.positions, torch.from_numpy(distinct)).float()
        logits -= torch.logsumexp(logits, dim=-1, keepdim=True)
        steps = logits[torch.from_numpy(row_of).to(self._device), torch.from_numpy(targets).to(self._device)]
        ends = np.cumsum([len(answer.path) for answer, _ in asked])
        for (answer, _), step_logs in zip(asked, np.split(steps.double().cpu().numpy(), ends[:-1]), strict=True):
            logs[answer.row, answer.column] = step_logs.sum()

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        grammar: Grammar,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """One answer for each prompt, complete under the grammar and within `max_tokens`, or a failure.

        The most probable permitted token at temperature 0, else a draw that depends on the seed and the row alone.
        """
        ways = self._prompts.ways(grammar)
        if ways.needed(ways.start) > max_tokens:
            raise EngineError(f"No answer fits into {max_tokens} tokens.", "Allow more tokens for it.")
        completions: list[Completion | None] = [None] * len(prompts)
        rows: list[int] = []
        sequences: list[np.ndarray] = []
        for row, prompt in enumerate(prompts):
            ids = np.array(self._prompts.ids(self._prompts.text(prompt)), dtype=np.int64)
            if len(ids) + max_tokens > self.context:
                completions[row] = Completion("", 0, TOO_LONG)
            else:
                rows.append(row)
                sequences.append(ids)
        trunk = self._trunk_for(prompts[rows[0]], sequences)[0] if rows else None
        step = ROWS_PER_DECODE.get(self._device.type, 64)
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            assert trunk is not None
            writers = [_Writer(ways, max_tokens, temperature, seed + row * SEED_STEP) for row in rows[some]]
            self._write(writers, sequences[some], trunk, max_tokens)
            for row, writer in zip(rows[some], writers, strict=True):
                completions[row] = Completion(self._prompts.said(writer.tokens), len(writer.tokens))
        return [completion for completion in completions if completion is not None]

    def _write(
        self, writers: Sequence[_Writer], sequences: Sequence[np.ndarray], trunk: _Trunk, max_tokens: int
    ) -> None:
        trees = list(grow([sequence[trunk.length :] for sequence in sequences]))
        canopy = self._canopy(trees, trunk, keep=True)
        paths = [start + path for (start, _), tree in zip(canopy.spans, trees, strict=True) for path in tree.paths]
        at = torch.tensor([int(path[-1]) for path in paths])
        logits = self._logits(canopy, canopy.tokens, canopy.positions, at)
        tips = attention.Tips(canopy, paths, max_tokens)
        going = list(writers)
        while True:
            tokens = [writer.next(row) for writer, row in zip(going, logits.float().cpu().numpy(), strict=True)]
            unfinished = [k for k, token in enumerate(tokens) if token is not None]
            if not unfinished:
                return
            if len(unfinished) < len(going):
                going = [going[k] for k in unfinished]
                tips.keep_rows(torch.tensor(unfinished, device=self._device))
            step = torch.tensor([tokens[k] for k in unfinished], device=self._device)
            logits = self._logits(tips, step, tips.positions, None)
            tips.n_seen += 1

    def _logits(
        self, under_way: attention.Pass, tokens: torch.Tensor, positions: torch.Tensor, at: torch.Tensor | None
    ) -> torch.Tensor:
        """Next-token logits after the tokens at these places (None: all), shape (n_places, n_vocabulary)."""
        assert self._head is not None
        with self._head.on(self.model):
            output = self.model(
                input_ids=tokens[None],
                position_ids=positions[None],
                use_cache=False,
                logits_to_keep=0 if at is None else at.to(self._device),
                goalcover_pass=under_way,
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _canopy(self, trees: Sequence[Tree], trunk: _Trunk, *, keep: bool = False) -> attention.Canopy:
        return attention.Canopy(trees, trunk.key_values, trunk.length, self._dtype, self._device, keep=keep)

    def _trunk_for(self, prompt: Prompt, sequences: Sequence[np.ndarray]) -> tuple[_Trunk, int]:
        """What these sequences share with the prompt's shared part, computed at most once in a row, and its cost.

        Always computed over the whole shared part, whatever the batch, so that batches cannot change the numbers.
        """
        ids = self._prompts.shared_ids(prompt)
        n_tokens = 0
        if not np.array_equal(ids, self._trunk.ids):
            self._trunk = _Trunk(ids, {}, 0)
            if len(ids):
                canopy = self._canopy(list(grow([ids])), self._trunk, keep=True)
                self._logits(canopy, canopy.tokens, canopy.positions, torch.tensor([len(ids) - 1]))
                self._trunk = _Trunk(ids, canopy.kept, len(ids))
                n_tokens = len(ids)
        length = min(min(common_prefix(ids, sequence), len(sequence) - 1) for sequence in sequences)
        return _Trunk(ids, self._trunk.key_values, length), n_tokens


@dataclass(frozen=True, slots=True)
class _Trunk:
    """Keys and values of the shared part's tokens, of which the first `length` are used."""

    ids: np.ndarray
    key_values: attention.KeyValues
    length: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """A permitted answer to one prompt: the tokens before its path, and the path."""

    row: int
    column: int
    common: np.ndarray
    path: np.ndarray

    @property
    def before_last(self) -> np.ndarray:
        """All tokens but the last: that one's probability is read off, it need not go through the model."""
        return np.concatenate([self.common, self.path[:-1]])


class _Writer:
    """One answer being written under a grammar; it always ends within its budget of tokens."""

    def __init__(self, ways: Ways, max_tokens: int, temperature: float, seed: int) -> None:
        self.tokens: list[int] = []
        self._ways = ways
        self._state: int | None = ways.start
        self._remaining = max_tokens
        self._temperature = temperature
        self._draw = np.random.default_rng(seed)

    def next(self, logits: np.ndarray) -> int | None:
        """The token written next, given logits over the vocabulary; None when the answer is complete."""
        if self._state is None or self._ways.complete(self._state):
            return None
        permitted = self._ways.permitted(self._state, self._remaining)
        scores = logits[permitted]
        if self._temperature > 0:
            weights = np.exp((scores - scores.max()).astype(np.float64) / self._temperature)
            token = int(permitted[self._draw.choice(len(weights), p=weights / weights.sum())])
        else:
            token = int(permitted[scores.argmax()])
        self._state = self._ways.after(self._state, token)
        if self._state is None:
            return None
        self._remaining -= 1
        self.tokens.append(token)
        return token


def _quantised(directory: Path, device: str, options: dict[str, Any]) -> dict[str, Any]:
    """What `from_pretrained` is told of quantisation. Raises EngineError for one that transformers cannot run here."""
    wanted = options.pop("quantization", None)
    if options:
        raise EngineError(
            f"The card has an unknown option {min(options)!r} for transformers.", "Known is `quantization`."
        )
    stored = json.loads((directory / "config.json").read_text("utf-8")).get("quantization_config") or {}
    method = str(stored.get("quant_method", "")).lower()
    package = _QUANTISED_BY.get(method)
    if method and package and find_spec(package) is None:
        raise EngineError(
            f"These weights are quantised by {method.upper()}, which transformers runs only with {package}.",
            "Use --engine vllm, or the model's weights as they were before.",
        )
    if wanted is None:
        return {}
    if wanted != "fp8" or not device.startswith("cuda") or method:
        raise EngineError(
            f"The card asks for quantization {wanted!r}, which transformers cannot do on {device}.",
            'Use --engine vllm; transformers knows "fp8", on a GPU, of weights that are not quantised yet.',
        )
    from transformers import FineGrainedFP8Config

    return {"quantization_config": FineGrainedFP8Config()}


def found_device() -> str:
    """The device an engine takes by itself: the first GPU, else the CPU."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def check_device(device: str) -> None:
    """Nothing; raises EngineError if torch finds no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(
            f"There is no device {device} here.",
            "Name devices such as cpu or cuda:0; for GPUs torch must be built for them.",
        ) from error


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """The torch type for a card's precision; "auto" is bfloat16 where the device computes in it, else float32."""
    if precision == "auto":
        if device == "cpu":
            native = (
                torch.backends.cpu.get_cpu_capability().startswith("AVX512")
                and torch.ops.mkldnn._is_mkldnn_bf16_supported()
            )
            return torch.bfloat16 if native else torch.float32
        return torch.bfloat16
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[precision]
