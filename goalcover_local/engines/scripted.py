"""An engine that answers from a queue and remembers what it was asked. For tests; never chosen by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..errors import EngineError
from .base import Choices, Completion, Grammar, Prompt
from .guide import legal

Answer = Sequence[float] | str


class ScriptedEngine:
    """Answers every prompt with the next entry of its script; a last entry that stands alone is repeated.

    For `choose` an entry is the answers' weights, for `generate` a text; the entry "" is a failure.
    """

    def __init__(self, script: Iterable[Answer] = (), *, context: int = 4096) -> None:
        self.context = context
        self.history: list[Prompt] = []
        self._script = list(script)

    def describe(self) -> Mapping[str, str]:
        """That it is scripted."""
        return {"engine": "scripted", "device": "none", "precision": "none", "weights": "none", "card": "scripted"}

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """One token a word."""
        return [sum(len(m.content.split()) for m in p.messages) + len(p.prefill.split()) for p in prompts]

    def shorten(self, text: str, n_tokens: int) -> tuple[str, int]:
        """The text's first and last words, with a mark between them."""
        words = text.split()
        if len(words) <= n_tokens:
            return text, 0
        head, tail = n_tokens // 2, (n_tokens - 1) // 2
        return " ".join([*words[:head], "[…]", *words[len(words) - tail :]]), len(words) - head - tail

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """The scripted weights, renormalised: shape (n_prompts, n_answers)."""
        rows: list[np.ndarray] = []
        failures: list[str | None] = []
        for prompt in prompts:
            entry = self._next(prompt)
            failed = isinstance(entry, str) or self.count_tokens([prompt])[0] > self.context
            weights = np.full(len(answers), np.nan) if failed else np.asarray(entry, dtype=float)
            rows.append(weights / weights.sum())
            failures.append("scripted failure" if failed else None)
        return Choices(np.array(rows).reshape(len(prompts), len(answers)), tuple(failures), len(prompts))

    def generate(
        self,
        prompts: Sequence[Prompt],
        grammar: Grammar,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """The scripted texts; one that the grammar does not accept, or that is too long, is a failure."""
        if max_tokens < 1:
            raise EngineError(f"No answer fits into {max_tokens} tokens.", "Allow more tokens for it.")
        completions = []
        for prompt in prompts:
            text = str(self._next(prompt))
            n_tokens = len(text.split())
            fits = n_tokens <= max_tokens and self.count_tokens([prompt])[0] + max_tokens <= self.context
            well = bool(text) and fits and legal(text, grammar)
            completions.append(Completion(text if well else "", n_tokens, None if well else "scripted failure"))
        return completions

    def report(self) -> Mapping[str, str]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Nothing."""

    def _next(self, prompt: Prompt) -> Answer:
        self.history.append(prompt)
        if not self._script:
            raise AssertionError("the script has ended")
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]
