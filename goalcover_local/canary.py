"""What an engine must prove before it judges: that the grammar binds, and that the answer begins with the answer.

That the chat template is applied once, and whole, is proved where prompts become tokens (`engines/tokens.py`).
"""

from __future__ import annotations

from .engines.base import Engine, Message, Prompt
from .errors import EngineError
from .questions import Question

THINKING = ("<think>", "<thinking>", "[THINK]", "<|channel|>analysis")
"""How models begin that think aloud before they answer."""

ORDINARY = tuple(f"{space}{start}" for start in ("{", "The", "This", "It", "I", "Sure", "Here") for space in ("", " "))
"""How models begin that do not."""

_BEGGING = "Write a poem about the sea in plain words. Nothing but verse: no scores, no feedback, no JSON."
_TOKENS = 48


def check(engine: Engine, question: Question) -> None:
    """Nothing; raises EngineError if the grammar does not bind, or if the model thinks aloud."""
    binds(engine, question)
    answers_at_once(engine, question)


def binds(engine: Engine, question: Question) -> int:
    """How many tokens of a legal answer the model gave, asked for prose. Raises EngineError if it broke out."""
    completion = engine.generate([Prompt((Message("user", _BEGGING),))], question.grammar(), max_tokens=_TOKENS)[0]
    if completion.failure or question.read(completion.text) is None:
        raise EngineError(
            "Asked for prose, the judge broke out of its grammar: its answers could not be trusted.",
            "Use another engine (--engine transformers), and please report this one.",
        )
    return completion.n_tokens


def answers_at_once(engine: Engine, question: Question) -> float:
    """The probability that an answer begins in an ordinary way rather than by thinking aloud, in [0, 1].

    Raises EngineError if it cannot be asked, or if thinking is the more probable: under the grammar such a model is
    not itself.
    """
    prompt = question.prompt(dict.fromkeys(question.placeholders, "the sea"))
    chosen = engine.choose([prompt], [*ORDINARY, *THINKING])
    if chosen.failures[0]:
        raise EngineError(f"The judge cannot be asked: {chosen.failures[0]}.", "Use another judge, or another engine.")
    probability = float(chosen.probabilities[0][: len(ORDINARY)].sum())
    if probability < 0.5:
        raise EngineError(
            "The judge begins its answers by thinking aloud, which its grammar would cut off.",
            "Switch it off in the card: [chat] template_options = { enable_thinking = false }.",
        )
    return probability
