"""Questions put to a model: each is a folder in `grammars/`; here they are loaded, rendered and validated.

    prompt.md                    the text in three parts, each under its mark: `<!-- shared -->`, `<!-- per sample -->`,
                                 `<!-- per subgoal -->`, with ${placeholders}
    answer.schema.json           the only answers permitted; the order of its properties is part of the method
    answer.reason-first.schema.json   the same, explanation before score (optional)
    examples.jsonl               worked examples: {"fields": {placeholder: text}, "answer": {...}}
    cases.jsonl                  answers to accept and to reject: {"answer": text, "legal": true | false}

The shared part and the examples come first in every prompt and are computed once; the sample comes before the
subgoal, so that all subgoals of a sample share it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any, Literal

from .engines.base import Grammar, Message, Prompt
from .engines.guide import legal
from .errors import QuestionError
from .resources import shipped
from .terms import digest_of

Order = Literal["score-first", "reason-first"]
ORDERS: tuple[Order, ...] = ("score-first", "reason-first")

_PARTS = ("shared", "per sample", "per subgoal")
_BORDER = "\x00"


@dataclass(frozen=True)
class Question:
    """One question: its texts, its worked examples, and the schema of its answers."""

    name: str
    shared: str
    per_sample: str
    per_subgoal: str
    schema: Mapping[str, Any]
    examples: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def digest(self) -> str:
        """Digest of everything a model is told and permitted."""
        return digest_of(
            {
                "prompt": [self.shared, self.per_sample, self.per_subgoal],
                "schema": json.dumps(self.schema),
                "grammar": self.grammar().regex,
                "examples": list(self.examples),
            }
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """The answer's fields in their order."""
        return tuple(self.schema["properties"])

    def without_examples(self) -> Question:
        """The same question with the rubric alone."""
        return replace(self, examples=())

    def prompt(
        self, texts: Mapping[str, str], known: Mapping[str, Any] | None = None, *, asking: str | None = None
    ) -> Prompt:
        """The prompt for these texts. With `asking`, the answer is begun up to that field, after the `known` ones.

        The examples' answers then end with that field too: what comes after it cannot matter, and costs tokens.
        """
        texts = {key: self.unfenced(text) for key, text in texts.items()}
        user = Template(self.per_sample).substitute(texts) + Template(self.per_subgoal).substitute(texts)
        opening = self._opening(asking)
        before_sample = Template(self.per_sample.partition("${")[0]).safe_substitute()
        shared = (*opening, Message("user", before_sample)) if before_sample else opening
        messages = (*opening, Message("user", user))
        return Prompt(messages, "" if asking is None else self.begun(known or {}, asking), shared)

    def _opening(self, asking: str | None) -> tuple[Message, ...]:
        shown = self.fields if asking is None else self.fields[: self.fields.index(asking) + 1]
        turns = [Message("system", self.shared)]
        for example in self.examples:
            text = Template(self.per_sample + self.per_subgoal).substitute(example["fields"])
            answer = {field: example["answer"][field] for field in shown}
            turns += [Message("user", text), Message("assistant", json.dumps(answer, ensure_ascii=False))]
        return tuple(turns)

    def begun(self, known: Mapping[str, Any], asking: str) -> str:
        """The answer's text up to the value of the field `asking`, with the fields before it given.

        A text's opening quote belongs to it: tokenizers join it with the space before, and a model that is made to
        part them loses its thread.
        """
        start = json.dumps(dict(known), ensure_ascii=False)[:-1]
        quote = '"' if self.schema["properties"][asking].get("type") == "string" else ""
        return f'{start}{", " if known else ""}"{asking}": {quote}'

    def written(self, answer: Mapping[str, Any]) -> str:
        """The answer's one legal text: its fields in order, as `json.dumps` writes them."""
        return json.dumps({field: answer[field] for field in self.fields}, ensure_ascii=False)

    def grammar(self, *, asking: str | None = None) -> Grammar:
        """The answers permitted: the whole answer, or what may follow once it is begun up to the field `asking`.

        Compact JSON as Python writes it, one space after commas and colons: there is no free whitespace to loop in.
        """
        if asking is None:
            return Grammar(_regex(self.schema))
        position = self.fields.index(asking)
        rest = {field: self.schema["properties"][field] for field in self.fields[position:]}
        regex = _regex({**self.schema, "properties": rest, "required": list(rest)})
        return Grammar(regex.removeprefix("\\" + self.begun({}, asking)))

    def read(self, answer: str) -> Mapping[str, Any] | None:
        """The answer's fields, or None unless Outlines' guide accepts it, byte by byte, as a whole."""
        if not legal(answer, self.grammar()):
            return None
        fields: Mapping[str, Any] = json.loads(answer)
        return fields

    @cached_property
    def _fences(self) -> re.Pattern[str] | None:
        names = sorted(set(re.findall(r"</?([a-z][a-z-]*)>", self.per_sample + self.per_subgoal)))
        return re.compile(rf"<\s*((?:/\s*)?(?:{'|'.join(names)})\b)", re.IGNORECASE) if names else None

    def unfenced(self, text: str) -> str:
        """The text with every copy of this question's own fences broken by a space, so that no text can close them."""
        return self._fences.sub(r"< \1", text) if self._fences else text


def load_question(name: str, *, order: Order = "score-first", folder: Path | None = None) -> Question:
    """The question in `grammars/NAME`, in one of the two orders. Raises QuestionError if a part is missing or wrong."""
    home = (folder or shipped("grammars")) / name
    suffix = "" if order == "score-first" else f".{order}"
    try:
        prompt = (home / "prompt.md").read_text(encoding="utf-8")
        schema = json.loads((home / f"answer{suffix}.schema.json").read_text(encoding="utf-8"))
        examples = read_lines(home / "examples.jsonl")
    except OSError as error:
        raise QuestionError(
            f"The question {name} has no {Path(error.filename).name} in {home}.", "Restore the folder from the package."
        ) from error
    except ValueError as error:
        raise QuestionError(f"A file of the question {name} cannot be read: {error}.", "Correct it.") from error
    question = Question(name, *_parts(prompt, home / "prompt.md"), schema, tuple(examples))
    _check(question)
    return question


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file of the package."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _check(question: Question) -> None:
    """Nothing; raises QuestionError if its schema, placeholders and examples do not fit together."""
    schema: Any = question.schema
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not properties or set(schema.get("required", ())) != set(properties):
        raise QuestionError(f"The schema of {question.name} leaves fields out.", "Name and require them all.")
    try:
        question.grammar()
    except ValueError as error:
        raise QuestionError(f"The schema of {question.name} is no grammar: {error}.", "Correct it.") from error
    text = Template(question.per_sample + question.per_subgoal)
    if not text.is_valid():
        raise QuestionError(f"The prompt of {question.name} has a broken placeholder.", "Write $$ for a $.")
    for number, example in enumerate(question.examples, start=1):
        for part, needed in (("fields", text.get_identifiers()), ("answer", question.fields)):
            held = example.get(part) if isinstance(example, dict) else None
            missing = set(needed) - set(held or ())
            if missing:
                named = ", ".join(sorted(missing))
                raise QuestionError(f"Example {number} of {question.name} has no {named} in its {part}.", "Add it.")


def _parts(prompt: str, path: Path) -> tuple[str, str, str]:
    found = re.split(r"^<!-- ([a-z ]+) -->\n", prompt, flags=re.MULTILINE)
    if tuple(found[1::2]) != _PARTS:
        raise QuestionError(
            f"{path} has the parts {', '.join(found[1::2]) or 'none'}.",
            f"It needs, in this order: {', '.join(_PARTS)}.",
        )
    shared, per_sample, per_subgoal = found[2::2]
    return shared.strip(), per_sample, per_subgoal.strip()


def _regex(schema: Mapping[str, Any]) -> str:
    """Outlines' regular expression for the schema, with JSON's whitespace fixed to what `json.dumps` writes."""
    from outlines_core.json_schema import build_regex_from_schema

    regex: str = build_regex_from_schema(json.dumps(schema), whitespace_pattern=_BORDER)
    return regex.replace(f"{_BORDER}:{_BORDER}", ": ").replace(f"{_BORDER},{_BORDER}", ", ").replace(_BORDER, "")
