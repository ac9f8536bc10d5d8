"""Prompts to token ids: templated once, as one string, in which nothing can pass for the template's own marks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError
from .base import Grammar, Message, Prompt, Role
from .guide import Ways, build_index
from .prefix_tree import common_prefix
from .template import LAST_SECONDS, bounded, ending, refuse_swollen

LONGEST_KEPT = 1000
"""Characters of a piece whose tokens are kept: the examples and frames that all prompts share, not long samples."""

CHARACTERS_A_SECOND = 10_000
"""What a tokenizer must manage beyond its first seconds; real ones manage a hundred times as many."""

LONGEST_REASON = 200
"""Characters that are told of why a template refuses: it writes the reason itself."""

_DISTRUST = "Do not use it, or exchange its tokenizer for that of the model it was tuned from."

CUT = "\n[… {n} tokens left out …]\n"
"""The mark that stands where the middle of a text was left out."""


class PromptTokenizer:
    """A model's tokenizer and chat template behind one function: prompt in, token ids out.

    `template_options` go to the chat template (such as `enable_thinking=False`). `markers` are literal strings by
    which the template delimits turns without being special tokens; like special tokens they are broken up wherever a
    message contains them. Without `system_role`, a system message is put in front of the first user message.
    `opening` stands between the template and a given beginning of the answer; where nothing is given and it is mere
    space, the model writes it itself.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template_options: Mapping[str, Any] | None = None,
        markers: Sequence[str] = (),
        system_role: bool = True,
        opening: str = "",
    ) -> None:
        if not tokenizer.chat_template:
            raise EngineError(
                "The model's tokenizer has no chat template.",
                "Use an instruction-tuned model, or add its chat_template.jinja.",
            )
        self.tokenizer = tokenizer
        self._options = dict(template_options or {})
        self._system_role = system_role
        self._opening = opening
        self._guides: dict[Grammar, Ways] = {}
        self._vocabulary: Any = None
        added = tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special}
        marks = special | set(markers)
        self._normalizer: Any = None
        self._forged = _breakable(marks)
        self._split = _any_of(special)
        self._kept = lru_cache(maxsize=4096)(self._encode)
        framed = self._check_template()
        marks |= {token.content for token in added if token.content.strip() and token.content in framed}
        if any(token.normalized and token.content in marks for token in added):
            self._normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        if self._normalizer is not None:
            marks |= {self._normal(mark) for mark in marks}
        self._forged = _breakable(marks)
        canary = self.text(
            Prompt((Message("user", " a\n<b> 0.8 "), Message("assistant", '{"c":0.2}'), Message("user", "d ")))
        )
        self._by_piece = bool(special) and self._by_pieces(canary) == list(self._encode(canary))

    @classmethod
    def load(cls, directory: Path, **chat: Any) -> PromptTokenizer:
        """The tokenizer in a model's folder, with what its card says of its chat; no code of the folder is run."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        return cls(tokenizer, **chat)

    def _check_template(self) -> str:
        """A conversation as the template renders it. Raises EngineError if it loses or repeats a message, or makes the
        model think aloud.
        """
        said = {"system": "Quartz.", "user": "Fjord.", "assistant": "Vex.", "user again": "Glyph."}
        roles: list[Role] = ["system", "user", "assistant", "user"]
        messages = tuple(Message(role, word) for role, word in zip(roles, said.values(), strict=True))
        try:
            text = self.text(Prompt(messages))
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                f"The model's chat template refuses an ordinary conversation: {str(error)[:LONGEST_REASON]}.",
                "If it knows no system role, write `system_role = false` under [chat] in the card.",
            ) from error
        for role, word in said.items():
            if text.count(word) != 1:
                raise EngineError(
                    f"The model's chat template shows the {role.split()[0]} message {text.count(word)} times.",
                    "If it knows no system role, write `system_role = false` under [chat] in the card.",
                )
        ids = self._encode(text)
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == (bos, bos) and text.count(self.tokenizer.bos_token) < 2:
            raise EngineError(
                "The tokenizer puts a second beginning of sequence before the template's own.",
                "Use the tokenizer that came with the model, unaltered.",
            )
        if re.search(r"<(think|thinking|reasoning)>\s*$", text):
            raise EngineError(
                "The model's chat template makes every answer begin by thinking aloud.",
                "Switch it off in the card: [chat] template_options = { enable_thinking = false }.",
            )
        return text

    def text(self, prompt: Prompt, *, answer_turn: bool = True) -> str:
        """The whole prompt as the model reads it; without `answer_turn`, up to the end of the last message.

        Raises EngineError if the template takes too long, too much memory, or makes too much of the messages.
        """
        turns = [{"role": m.role, "content": self.harmless(m.content)} for m in prompt.messages]
        if not self._system_role and turns and turns[0]["role"] == "system":
            system = turns.pop(0)["content"]
            first = f"{system}\n\n{turns[0]['content']}" if turns else system
            turns[:1] = [{"role": "user", "content": first}]
        with bounded():
            text: str = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answer_turn, strftime_now=_no_clock, **self._options
            )
        refuse_swollen(text, sum(len(turn["content"]) for turn in turns))
        if not answer_turn:
            return text
        return text + (self._opening if prompt.prefill or self._opening.strip() else "") + self.harmless(prompt.prefill)

    def harmless(self, text: str) -> str:
        """The text with every special token and turn marker in it broken by a space after its first character.

        Where the tokenizer looks for them in a normal form of the text, a text that has one in that form is replaced by
        it, broken. Halves of surrogate pairs, which JSON may hold and no tokenizer takes, become U+FFFD.
        """
        if not text.isascii():
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = self._broken(text)
        if self._normalizer is not None and self._forged.search(normal := self._normal(text)):
            text = self._broken(normal)
            if self._forged.search(self._normal(text)):
                raise EngineError("The model's tokenizer makes marks of its chat template of a text.", _DISTRUST)
        return text

    def _broken(self, text: str) -> str:
        while self._forged.search(text):
            text = self._forged.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text)
        return text

    def _normal(self, text: str) -> str:
        with _within_bounds(text):
            return str(self._normalizer.normalize_str(text))

    def ids(self, text: str) -> list[int]:
        """Token ids of a rendered prompt. No beginning-of-sequence token is added: the template has put its own."""
        return self._by_pieces(text) if self._by_piece else list(self._encode(text))

    def _by_pieces(self, text: str) -> list[int]:
        """Special tokens part a text into pieces that are tokenised apart, so equal pieces need it once."""
        return [
            token
            for piece in self._split.split(text)
            if piece
            for token in (self._kept(piece) if len(piece) <= LONGEST_KEPT else self._encode(piece))
        ]

    def _encode(self, text: str) -> tuple[int, ...]:
        with _within_bounds(text):
            return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def shared_ids(self, prompt: Prompt) -> np.ndarray:
        """Token ids of what the prompt says it shares with its question's other prompts (empty: nothing)."""
        if not prompt.shared:
            return np.empty(0, dtype=np.int64)
        return np.array(self.ids(self.text(Prompt(prompt.shared), answer_turn=False)), dtype=np.int64)

    def answer_paths(self, prompt: Prompt, answers: Sequence[str]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Token ids that all answers share, and for each answer the tokens that follow: its canonical path.

        Prompt and answer are tokenised as one string, so a token that spans the border belongs to the path.
        """
        text = self.text(prompt)
        border = max((found.end() for found in self._split.finditer(text)), default=0) if self._by_piece else 0
        head, tail = self.ids(text[:border]), text[border:]
        alone = np.array(head + self.ids(tail), dtype=np.int64)
        whole = [np.array(head + self.ids(tail + answer), dtype=np.int64) for answer in answers]
        n = min(len(alone), *(min(common_prefix(alone, ids), len(ids) - 1) for ids in whole))
        return alone[:n], [ids[n:] for ids in whole]

    def said(self, tokens: Sequence[int]) -> str:
        """The text of tokens that a model wrote, special ones included."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def ways(self, grammar: Grammar) -> Ways:
        """What this model may write under a grammar; compiled once. Raises QuestionError if it cannot be compiled."""
        if self._vocabulary is None:
            self._vocabulary = bytes_vocabulary(self.tokenizer)
        if grammar not in self._guides:
            self._guides[grammar] = Ways(build_index(grammar, self._vocabulary), self.tokenizer.eos_token_id)
        return self._guides[grammar]

    def shorten(self, text: str, n_tokens: int) -> tuple[str, int]:
        """The text cut in its middle to at most `n_tokens` tokens, the mark included, and how many were left out."""
        text = self.harmless(text)
        with _within_bounds(text):
            encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoding["offset_mapping"]
        if len(offsets) <= n_tokens:
            return text, 0
        room = max(2, n_tokens - len(self._encode(CUT.format(n=len(offsets)))) - 4)
        while True:
            head, tail = (room + 1) // 2, room // 2
            left_out = len(offsets) - head - tail
            start, end = offsets[head - 1][1], offsets[len(offsets) - tail][0] if tail else len(text)
            cut = text[:start].rstrip() + CUT.format(n=left_out) + text[end:].lstrip()
            if room <= 2 or len(self._encode(cut)) <= n_tokens:
                return cut, left_out
            room -= 2


def _no_clock(form: str) -> str:
    """A fixed day in a template's form: with today's, the same prompt would be another tomorrow."""
    return datetime(2024, 1, 1).strftime(form)


@contextmanager
def _within_bounds(text: str) -> Iterator[None]:
    """A context in which a tokenizer may take time in proportion to the text. Raises EngineError if it fails on it."""
    try:
        with ending(LAST_SECONDS + len(text) / CHARACTERS_A_SECOND):
            yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, and no Exception
            raise
        raise EngineError("The model's tokenizer fails on a text.", _DISTRUST) from None


def _breakable(marks: Set[str]) -> re.Pattern[str]:
    """A pattern of the marks, but for those that a space behind the first character would not break."""
    return _any_of({mark for mark in marks if len(mark) > 1 and mark[1] != " "})


def _any_of(marks: Set[str]) -> re.Pattern[str]:
    """A pattern that finds each of the marks, the longest first, as a group; it never matches where there are none."""
    return re.compile("(" + ("|".join(re.escape(m) for m in sorted(marks, key=len, reverse=True)) or "(?!)") + ")")


def bytes_vocabulary(tokenizer: Any) -> Any:
    """An `outlines_core.Vocabulary` over the tokens' bytes, without special tokens and tokens that decode to nothing.

    Built from bytes, since a vocabulary of strings would let broken characters and `<|im_start|>` into free text.
    """
    from outlines_core import Vocabulary

    skipped = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    byte_of = _byte_alphabet()
    tokens: dict[bytes, list[int]] = {}
    by_byte_level = _is_byte_level(tokenizer)
    for token, index in tokenizer.get_vocab().items():
        if index in skipped:
            continue
        if index in tokenizer.added_tokens_decoder:
            raw = token.encode()
        elif by_byte_level:
            raw = bytes(byte_of[character] for character in token if character in byte_of)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            raw = bytes([int(token[3:5], 16)])
        else:
            raw = token.replace("\u2581", " ").encode()
        if raw:
            tokens.setdefault(raw, []).append(index)
    return Vocabulary(tokenizer.eos_token_id, tokens)


def _is_byte_level(tokenizer: Any) -> bool:
    return "\u0120" in tokenizer.backend_tokenizer.to_str() and "ByteLevel" in tokenizer.backend_tokenizer.to_str()


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in byte-level tokenizers: printable ones stand for themselves (GPT-2)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    return alphabet | {chr(256 + k): byte for k, byte in enumerate(others)}
