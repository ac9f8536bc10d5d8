"""A running `vllm serve` on this machine, asked over loopback: one warm model for many runs, and for a trainer.

What it serves cannot be verified from outside, so results say that the weights are unverified; the tokenizer and the
chat template are the card's own, and prompts travel as token ids.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .. import offline
from ..errors import EngineError
from . import vllm_settings
from .base import Grammar
from .prefix_tree import common_prefix
from .requests import Draw, Logs, RequestEngine, Tokens, Walk
from .tokens import PromptTokenizer

PROMPTS_PER_CALL = 128
_PLAIN = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "top_p": 1.0, "top_k": 0}
_PLAIN |= {"min_p": 0.0, "n": 1}
"""What a server would else take from the model's generation_config.json."""
CALLS_AT_ONCE = 16
_MEND = "Look at the server's own output, start it again if need be, then run this again: what was judged is stored."


class ServerBackend:
    """Requests answered by the completions API of a vLLM server."""

    def __init__(self, client: Any, *, model: str, end: int, described: Mapping[str, str]) -> None:
        self._client = client
        self._model = model
        self._end = end
        self._described = dict(described)
        self._n_prompt = self._n_cached = 0

    def describe(self) -> Mapping[str, str]:
        """Engine, the server's version, the name of what it serves; its weights are unverified."""
        return dict(self._described)

    def report(self) -> Mapping[str, str]:
        """The share of the prompts' tokens that the server says its prefix cache served."""
        if not self._n_cached:
            return {}
        return {"prefix cache": f"{self._n_cached / self._n_prompt:.1%} of {self._n_prompt} prompt tokens"}

    def prepare(self, trunk: Tokens, rows: Sequence[Tokens]) -> int:
        """0: the server's cache is shared with others, and theirs to fill."""
        return 0

    def follow(self, walks: Sequence[Walk]) -> tuple[list[list[Logs]], int]:
        """For each walk what was seen at its places, no grammar applied, and how many tokens were computed."""
        n_before = self._n_prompt - self._n_cached
        settings = []
        for walk in walks:
            setting: dict[str, Any] = {
                "max_tokens": len(walk.steps) + 1,
                "temperature": 0.0,
                "ignore_eos": True,
                "logprobs": len(walk.tokens),
                "logprob_token_ids": walk.tokens,
            }
            settings.append(setting | ({"allowed_token_ids": sorted(set(walk.steps))} if walk.steps else {}))
        seen: list[list[Logs]] = []
        for walk, choice in zip(walks, self._ask([walk.row for walk in walks], settings), strict=True):
            n_led = common_prefix(np.array(walk.steps), np.array(choice["token_ids"]))
            try:
                places = choice["logprobs"]["top_logprobs"][: n_led + 1]
                seen.append([{t: float(place[f"token_id:{t}"]) for t in walk.tokens} for place in places])
                if not places:
                    raise IndexError("no place was looked at")
            except (KeyError, TypeError, IndexError, ValueError) as error:
                raise EngineError(
                    "The server does not give the log-probabilities of the tokens it is asked for.",
                    "Use vLLM 0.31 or newer, and let --max-logprobs at its default.",
                ) from error
        return seen, self._n_prompt - self._n_cached - n_before

    def write(self, rows: Sequence[Tokens], grammar: Grammar, draw: Draw) -> list[list[int]]:
        """The tokens written after each row under the grammar, its end token left out."""
        settings = [
            {"max_tokens": draw.max_tokens, "structured_outputs": {"regex": grammar.regex}, **_drawing(draw, seed)}
            for seed in draw.seeds
        ]
        return [[t for t in choice["token_ids"] if t != self._end] for choice in self._ask(rows, settings)]

    def pick(self, rows: Sequence[Tokens], permitted: Sequence[Tokens], draw: Draw) -> list[int]:
        """The one token written after each row, of those permitted there."""
        settings = [
            {"max_tokens": 1, "allowed_token_ids": tuple(tokens), **_drawing(draw, seed)}
            for tokens, seed in zip(permitted, draw.seeds, strict=True)
        ]
        picked = [choice["token_ids"][:1] for choice in self._ask(rows, settings)]
        if not all(token and token[0] in tokens for token, tokens in zip(picked, permitted, strict=True)):
            raise EngineError("The server gave a token that it was not permitted to.", _MEND)
        return [int(token[0]) for token in picked]

    def close(self) -> None:
        """Nothing; closes the connections. The server goes on."""
        self._client.close()

    def _ask(self, rows: Sequence[Tokens], settings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """One choice for each row, in order; rows with the same settings travel together, unless they are seeded."""
        groups: dict[str, list[int]] = {}
        for number, setting in enumerate(settings):
            groups.setdefault(repr(sorted(setting.items())), []).append(number)
        calls = [
            numbers[start : start + PROMPTS_PER_CALL]
            for numbers in groups.values()
            for start in range(0, len(numbers), PROMPTS_PER_CALL)
        ]
        answers: dict[int, Mapping[str, Any]] = {}
        threads = ThreadPoolExecutor(CALLS_AT_ONCE)
        asked = [
            threads.submit(self._call, [list(rows[n]) for n in numbers], settings[numbers[0]]) for numbers in calls
        ]
        try:
            for numbers, future in zip(calls, asked, strict=True):
                choices, usage = future.result()
                answers.update(zip(numbers, choices, strict=True))
                self._n_prompt += sum(len(rows[number]) for number in numbers)
                self._n_cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for what is still to be asked
        return [answers[number] for number in range(len(rows))]

    def _call(
        self, prompts: list[list[int]], setting: Mapping[str, Any]
    ) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
        """A choice for each prompt, in order, and what the server says it took."""
        body = {
            "model": self._model,
            "prompt": prompts,
            "add_special_tokens": False,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **_PLAIN,
            **setting,
        }
        answer = _json(self._client, "POST", "/v1/completions", body)
        told = answer.get("choices")
        told = told if isinstance(told, list) else []
        choices: list[Mapping[str, Any]] = [choice for choice in told if isinstance(choice, dict)]
        choices.sort(key=lambda choice: choice.get("index", 0))
        if len(choices) != len(prompts):
            raise EngineError("The server answered another number of prompts than it was asked.", _MEND)
        for prompt, choice in zip(prompts, choices, strict=True):
            if choice.get("prompt_token_ids") != prompt or not isinstance(choice.get("token_ids"), list):
                raise EngineError(
                    "The server changed a prompt on its way to the model, or does not tell what it read.",
                    "Use `vllm serve` 0.31 or newer, with nothing between it and GoalCover.",
                )
        usage = answer.get("usage")
        return choices, usage if isinstance(usage, dict) else {}


def load(
    directory: Path,
    *,
    url: str,
    context: int,
    identity: Mapping[str, str] | None = None,
    **chat: Any,
) -> RequestEngine:
    """An engine over the server at `url`, with the tokenizer in `directory`; `chat` is what a PromptTokenizer wants.

    Raises EngineError if the address is not this machine's own, nothing answers there, or it is no vLLM server.
    """
    address = loopback(url)
    import httpx

    client = httpx.Client(base_url=address, trust_env=False, timeout=httpx.Timeout(3600.0, connect=10.0))
    with ExitStack() as undone:
        undone.callback(client.close)
        served = _json(client, "GET", "/v1/models").get("data")
        told = _json(client, "GET", "/version").get("version", "unknown")
        first = served[0] if isinstance(served, list) and served and isinstance(served[0], dict) else {}
        if not first.get("id"):
            raise EngineError(f"The server at {address} serves no model.", _MEND)
        model, room = str(first["id"]), first.get("max_model_len")
        prompts = PromptTokenizer.load(directory, **chat)
        told_of = dict(identity or {})
        own = served_name(told_of.get("card", ""), told_of.get("weights", ""))
        _check_model(client, address, model, own, prompts.tokenizer)
        undone.pop_all()
    described = {
        "engine": "server",
        "files": told_of.get("weights", ""),
        "vllm": str(told),
        "served": model,
        "weights": "unverified",
        "precision": "unknown",
        "device": "server",
    }
    backend = ServerBackend(client, model=model, end=prompts.tokenizer.eos_token_id, described=described)
    room = min(context, room) if isinstance(room, int) else context
    return RequestEngine(backend, prompts, context=room, identity=identity)


def served_name(card: str, weights: str) -> str:
    """The name under which `goalcover serve` serves the weights of a card: it tells their digest too."""
    return f"{card}@{weights[:16]}"


def _check_model(client: Any, address: str, model: str, own: str, tokenizer: Any) -> None:
    """Nothing; raises EngineError if the server's tokenizer is not the card's, or its name tells of other weights."""
    text = "Which judge are you? 0.0 0.2 0.8 [RESULT] naïve 日本 😀"
    ids = _json(client, "POST", "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}).get(
        "tokens"
    )
    other = re.fullmatch(r"[a-z0-9.-]+@[0-9a-f]{16}", model) is not None and model != own
    if other or ids != tokenizer.encode(text, add_special_tokens=False):
        raise EngineError(
            f"The server at {address} serves another model ({model}) than the card names.",
            "Name its card with --judge, or serve the card's with `goalcover serve --judge NAME`.",
        )


def command(
    directory: Path, *, name: str, port: int, context: int, precision: str, options: Mapping[str, Any] | None = None
) -> tuple[list[str], dict[str, str]]:
    """How a server of this model is started on loopback, as arguments and environment. Raises EngineError.

    With this environment its every process shuts its own network before it does anything else.
    The CPU build of vLLM is a package of another name, for which the `vllm serve` of that package does not start.
    """
    options = dict(options or {})
    vllm_settings.check_options(options)
    vllm_settings.check_guard()
    variables = offline.for_children()
    variables |= vllm_settings.environment(batch_invariant=bool(options.pop("batch_invariant", False)))
    if find_spec("vllm") is None:
        raise EngineError(vllm_settings.NOT_INSTALLED, vllm_settings.INSTALL)
    try:
        version("vllm")
        program = ["-m", "vllm.entrypoints.cli.main", "serve", str(directory)]
    except PackageNotFoundError:
        program = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(directory)]
        options = {"block_size": vllm_settings.BLOCK["cpu"], "enforce_eager": True, **options}
        variables["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "4")
    settings = {
        "served_model_name": name,
        "max_model_len": context,
        "dtype": precision,
        **vllm_settings.ALWAYS,
        "enable_prompt_tokens_details": True,
        **options,
        "host": "127.0.0.1",
        "port": port,
    }
    flags = {f"--{name.replace('_', '-')}": value for name, value in settings.items() if value is not False}
    return [sys.executable, *program, *(_written(flag, value) for flag, value in flags.items())], variables


def _written(flag: str, value: Any) -> str:
    """A setting as an argument of the command line."""
    if value is True:
        return flag
    return f"{flag}={json.dumps(value) if isinstance(value, dict) else value}"


def loopback(url: str) -> str:
    """The address as http://HOST:PORT and nothing else. Raises EngineError unless it is this machine's loopback."""
    import httpx

    try:
        parts = httpx.URL(url)
        host = parts.host
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
        bare = parts.raw_path in (b"", b"/") and not parts.userinfo and not parts.fragment
    except (httpx.InvalidURL, ValueError):
        inside = bare = False
    if not inside or not bare or parts.scheme != "http":
        raise EngineError(
            "That is not an address of this machine's loopback, so nothing was sent.",
            "Name the server as http://127.0.0.1:PORT; samples never leave this machine.",
        )
    return f"http://{f'[{host}]' if ':' in host else host}:{parts.port or 80}"


def _drawing(draw: Draw, seed: int) -> dict[str, Any]:
    return {"temperature": draw.temperature, "seed": seed} if draw.temperature else {"temperature": 0.0}


def _json(client: Any, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The JSON that the server answers. Its error texts may quote a prompt, so only the status is told."""
    import httpx

    try:
        response = client.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise EngineError(
            f"Nothing answers at {client.base_url}: {type(error).__name__}.",
            "Start it with `vllm serve DIR --host 127.0.0.1`; see docs/guide.md.",
        ) from None
    if response.status_code != 200:
        raise EngineError(f"The server at {client.base_url} answered {path} with {response.status_code}.", _MEND)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise EngineError(f"The server at {client.base_url} does not speak vLLM's API.", _MEND)
    return answer
