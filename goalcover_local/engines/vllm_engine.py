"""vLLM in this process: prefix caching over the requests' token ids, grammars by its Outlines backend.

Its engine core runs in this process too, so that the steps it takes follow from the requests alone: what a batch is
answered then hangs on the batch, not on timing. For the same reason the shared part of a question is computed in a
request of its own, and the prefix cache is dropped before a batch that would find more than that part in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError
from ..terms import canonical_json
from .base import Grammar
from .prefix_tree import common_prefix
from .requests import Draw, Logs, RequestEngine, Tokens, Walk
from .tokens import PromptTokenizer
from .vllm_settings import (
    ALWAYS,
    BLOCK,
    INSTALL,
    NOT_INSTALLED,
    TOKENS_PER_STEP_ON_CPU,
    check_guard,
    check_options,
    choose_gpu,
    environment,
    sizes,
)


class VllmBackend:
    """Requests answered by a vLLM that lives in this process."""

    def __init__(self, llm: Any, *, block: int, described: Mapping[str, str]) -> None:
        self.llm = llm
        self._block = block
        self._described = dict(described)
        self._trunks: set[tuple[int, ...]] = set()
        self._seen: set[bytes] = set()
        self._n_prompt = self._n_cached = 0

    def describe(self) -> Mapping[str, str]:
        """Engine, versions, precision, device kind, and the card's options for it."""
        return dict(self._described)

    def report(self) -> Mapping[str, str]:
        """The share of the prompts' tokens that the prefix cache served."""
        if not self._n_prompt:
            return {}
        return {"prefix cache": f"{self._n_cached / self._n_prompt:.1%} of {self._n_prompt} prompt tokens"}

    def prepare(self, trunk: Tokens, rows: Sequence[Tokens]) -> int:
        """How many tokens were computed to hold the trunk, and nothing of these rows beyond it, in the prefix cache."""
        whole = tuple(trunk[: len(trunk) // self._block * self._block])
        firsts = {self._first_block_beyond(whole, row) for row in rows} - {b""}
        if firsts & self._seen:
            self.llm.reset_prefix_cache()
            self._seen.clear()
            self._trunks.clear()
        self._seen |= firsts
        if not whole or whole in self._trunks:
            return 0
        self._trunks.add(whole)
        return self._ask([list(whole)], [self._parameters(max_tokens=1, temperature=0.0)])[1]

    def follow(self, walks: Sequence[Walk]) -> tuple[list[list[Logs]], int]:
        """For each walk what was seen at its places, no grammar applied, and how many tokens were computed.

        A walk is led by permitting only the tokens of its steps; vLLM tells probabilities as they were before that.
        """
        kinds: dict[tuple[Any, ...], Any] = {}
        for walk in walks:
            kind = (tuple(walk.steps), walk.tokens)
            if kind not in kinds:
                kinds[kind] = self._parameters(
                    max_tokens=len(walk.steps) + 1,
                    temperature=0.0,
                    ignore_eos=True,
                    logprob_token_ids=list(walk.tokens),
                    allowed_token_ids=sorted(set(walk.steps)) or None,
                    detokenize=False,
                )
        parameters = [kinds[tuple(walk.steps), walk.tokens] for walk in walks]
        outputs, n_computed = self._ask([walk.row for walk in walks], parameters)
        seen: list[list[Logs]] = []
        for walk, output in zip(walks, outputs, strict=True):
            answer = output.outputs[0]
            n_led = common_prefix(np.array(walk.steps), np.array(answer.token_ids))
            places = answer.logprobs[: n_led + 1]
            seen.append([{token: place[token].logprob for token in walk.tokens} for place in places])
            n_computed += len(answer.token_ids) - 1
        return seen, n_computed

    def write(self, rows: Sequence[Tokens], grammar: Grammar, draw: Draw) -> list[list[int]]:
        """The tokens written after each row under the grammar, its end token left out."""
        from vllm.sampling_params import StructuredOutputsParams

        parameters = [
            self._parameters(
                max_tokens=draw.max_tokens,
                temperature=draw.temperature,
                seed=seed if draw.temperature else None,
                structured_outputs=StructuredOutputsParams(regex=grammar.regex),
                detokenize=False,
            )
            for seed in draw.seeds
        ]
        end = self.llm.get_tokenizer().eos_token_id
        outputs = self._drawn(rows, parameters, draw)
        return [[token for token in output.outputs[0].token_ids if token != end] for output in outputs]

    def pick(self, rows: Sequence[Tokens], permitted: Sequence[Tokens], draw: Draw) -> list[int]:
        """The one token written after each row, of those permitted there."""
        parameters = [
            self._parameters(
                max_tokens=1,
                temperature=draw.temperature,
                seed=seed if draw.temperature else None,
                allowed_token_ids=list(tokens),
                detokenize=False,
            )
            for tokens, seed in zip(permitted, draw.seeds, strict=True)
        ]
        return [output.outputs[0].token_ids[0] for output in self._drawn(rows, parameters, draw)]

    def close(self) -> None:
        """Nothing; ends vLLM, its worker processes if there are any, and its process group."""
        if self.llm is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        with contextlib.suppress(Exception), _quiet():
            self.llm.llm_engine.engine_core.shutdown()
        self.llm = None
        with contextlib.suppress(Exception), _quiet():
            cleanup_dist_env_and_memory()

    def _drawn(self, rows: Sequence[Tokens], parameters: Sequence[Any], draw: Draw) -> list[Any]:
        """The outputs in the order of the rows.

        On a CPU vLLM fails on a seeded request whose prompt takes more than one step. So the prompts go into the
        prefix cache first, and then few enough rows at once that what is left of each fits into one step.
        """
        if draw.temperature == 0 or self._described["device"] != "cpu":
            return self._ask(rows, parameters)[0]
        self._ask(rows, [self._parameters(max_tokens=1, temperature=0.0)] * len(rows))
        size = TOKENS_PER_STEP_ON_CPU // (2 * self._block)
        starts = range(0, len(rows), size)
        return [o for k in starts for o in self._ask(rows[k : k + size], parameters[k : k + size])[0]]

    def _parameters(self, **settings: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(**settings)

    def _ask(self, rows: Sequence[Tokens], parameters: Sequence[Any]) -> tuple[list[Any], int]:
        """The outputs in the order of the rows, and the number of tokens that the cache did not serve."""
        from vllm import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=list(row)) for row in rows]
        with _errors_without_text():
            outputs = self.llm.generate(prompts, list(parameters), use_tqdm=False)
        for row, output in zip(rows, outputs, strict=True):
            if list(output.prompt_token_ids) != list(row):
                raise EngineError(
                    "vLLM changed a prompt on its way to the model.", "Do not use it; please report this."
                )
        n_prompt = sum(map(len, rows))
        n_cached = sum(output.num_cached_tokens or 0 for output in outputs)
        self._n_prompt += n_prompt
        self._n_cached += n_cached
        return outputs, n_prompt - n_cached

    def _first_block_beyond(self, trunk: tuple[int, ...], row: Tokens) -> bytes:
        """A digest of the row up to its first whole block that is not the trunk's; empty if it has no such block."""
        own = np.asarray(row, dtype=np.int64)
        n = common_prefix(np.array(trunk, dtype=np.int64), own) // self._block * self._block + self._block
        return hashlib.blake2b(own[:n].tobytes(), digest_size=16).digest() if len(own) >= n else b""


def load(
    directory: Path,
    *,
    context: int,
    device: str = "cpu",
    precision: str = "auto",
    threads: int | None = None,
    identity: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    **chat: Any,
) -> RequestEngine:
    """An engine for the safetensors checkpoint in `directory`; nothing is fetched and no code of it is run.

    `options` are the card's (see OPTIONS), `chat` is what a PromptTokenizer wants to know. Raises EngineError if vLLM
    is not installed, cannot load the model, or finds too little memory for it.
    """
    options = dict(options or {})
    check_options(options)
    batch_invariant = bool(options.pop("batch_invariant", False))
    if "vllm" in sys.modules and (os.environ.get("VLLM_BATCH_INVARIANT") == "1") != batch_invariant:
        raise EngineError(
            "vLLM was started in this process already, with another choice of batch_invariant.",
            "Run the two judges in two commands.",
        )
    os.environ.update(environment(batch_invariant=batch_invariant))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if int(options.get("tensor_parallel_size", 1)) == 1:
        choose_gpu(device)
    else:
        check_guard()
    kind = device.partition(":")[0]
    with _quiet():
        try:
            import torch
            import vllm
        except ImportError as error:
            raise EngineError(NOT_INSTALLED, INSTALL) from error
        from .transformers_engine import check_device, resolve_precision

        check_device("cuda" if kind == "cuda" else device)
        dtype = resolve_precision(precision, kind)
        if threads:
            torch.set_num_threads(threads)
        set_num_threads = torch.set_num_threads
        how = f" with quantization {options['quantization']!r}" if "quantization" in options else ""
        block = int(options.setdefault("block_size", BLOCK.get(kind, 16)))
        prompts = PromptTokenizer.load(directory, **chat)
        try:
            llm = vllm.LLM(
                model=str(directory),
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=context,
                trust_remote_code=False,
                **ALWAYS,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **{**sizes(kind, directory), **options},
            )
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"The model does not fit into the memory of {device}.", "Use a smaller judge, or another device."
            ) from error
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                f"vLLM cannot load the model in {directory}{how}: {_reason(error)}",
                "Mend what is named in the card: `context` if it is the KV cache, else [engine_options.vllm]; or use "
                "--engine transformers.",
            ) from error
        finally:
            torch.set_num_threads = set_num_threads
    _refuse_other(llm.llm_engine.vllm_config, directory)
    described = {
        "engine": "vllm",
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "outlines_core": version("outlines_core"),
        "precision": str(dtype).removeprefix("torch."),
        "device": kind,
        "options": canonical_json({**options, "batch_invariant": batch_invariant}),
    }
    backend = VllmBackend(llm, block=block, described=described)
    return RequestEngine(backend, prompts, context=context, identity=identity)


def _refuse_other(config: Any, directory: Path) -> None:
    """Raises EngineError if vLLM took another model or tokenizer than those in the folder, or one more to draft."""
    taken = {config.model_config.model, config.model_config.tokenizer}
    if taken != {str(directory)} or config.speculative_config is not None:
        raise EngineError(f"vLLM took another model than the one in {directory}.", "Do not use this model.")


def _reason(error: Exception) -> str:
    """What a library says is wrong, in a line: of a pydantic error its first fault, else the last line of the text."""
    faults = error.errors() if hasattr(error, "errors") else ()
    lines = [str(faults[0].get("msg", ""))] if faults else [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else 'no reason given'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context in which libraries may neither warn nor write to stdout, which is for results."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _errors_without_text() -> Iterator[None]:
    """A context in which an error of vLLM becomes an EngineError: its own message may quote a sample."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise EngineError(
                "The device's memory is full.", "Lower gpu_memory_utilization or max_num_seqs in the card."
            ) from None
        raise EngineError(
            f"vLLM failed while it answered: {type(error).__name__}.", "What was judged is stored; run this again."
        ) from None
