"""Questions put to a model: each is a folder in `grammars/`; here they are loaded, rendered and validated.

    prompt.md                    the text in parts, each under its mark: `<!-- shared -->`, then one or more such as
                                 `<!-- per sample -->`, `<!-- per subgoal -->`, with ${placeholders}
    answer.schema.json           the only answers permitted; the order of its properties is part of the method
    answer.reason-first.schema.json   the same, explanation before score (optional)
    answer.regex                 instead of a schema: one line of named groups, in their order
    examples.jsonl               worked examples: {"fields": {placeholder: text}, "answer": {...}}; may be empty
    cases.jsonl                  answers to accept and to reject: {"answer": text, "legal": true | false}
    reference.jsonl              cases of our own whose right answer is known, as examples are written (optional)

The shared part and the examples come first in every prompt and are computed once; the other parts follow in their
order, what changes least first, so that all subgoals of a sample share it.
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

from . import bounded
from .answers import SCORE, Form, JsonForm, LineForm
from .engines.base import Grammar, Message, Prompt
from .engines.guide import legal
from .errors import QuestionError
from .resources import shipped
from .terms import digest_of

Order = Literal["score-first", "reason-first"]
ORDERS: tuple[Order, ...] = ("score-first", "reason-first")

_INLINE_ANSWER = "\nAnswer: "
"""What leads from a question to its answer where examples stand inline."""

_LONGEST = 4_000_000
"""Bytes of a question's file."""

_UNSEEN = r"\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
_LOOSE = rf"[\s{_UNSEEN}*_]"
"""What a reader overlooks in a heading: space, characters without width, emphasis."""


@dataclass(frozen=True)
class Question:
    """One question: its texts, its worked examples, and the form of its answers.

    With `single_turn` all of it is one message of the user's, the examples inline: for models trained on one turn.
    """

    name: str
    shared: str
    parts: tuple[str, ...]
    form: Form
    examples: tuple[Mapping[str, Any], ...] = ()
    single_turn: bool = False

    @cached_property
    def digest(self) -> str:
        """Digest of everything a model is told and permitted."""
        return digest_of(
            {
                "prompt": [self.shared, *self.parts],
                "schema": self.form.record(),
                "grammar": self.grammar().regex,
                "examples": list(self.examples),
                **({"single_turn": True} if self.single_turn else {}),
            }
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """The answer's fields in their order."""
        return self.form.fields

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the texts that a prompt is made from, in the order in which they stand in it."""
        return tuple(Template("".join(self.parts)).get_identifiers())

    @property
    def order(self) -> Order:
        """Whether the score comes before what explains it."""
        return _order(self.form)

    def without_examples(self) -> Question:
        """The same question with the rubric alone."""
        return replace(self, examples=())

    def prompt(
        self,
        texts: Mapping[str, str],
        known: Mapping[str, Any] | None = None,
        *,
        asking: str | None = None,
        whole: bool = False,
    ) -> Prompt:
        """The prompt for these texts. With `asking`, the answer is begun up to that field, after the `known` ones.

        The examples' answers then end with that field too, unless they are to be `whole`: where that field alone is
        decided, what comes after it cannot matter, and costs tokens.
        """
        texts = {key: self.unfenced(text) for key, text in texts.items()}
        asked = "".join(Template(part).substitute(texts) for part in self.parts)
        before = Template(self.parts[0].partition("${")[0]).safe_substitute()
        opening = self._opening(None if whole else asking)
        prefill = "" if asking is None else self.form.begun(known or {}, asking)
        if self.single_turn:
            start = "\n\n".join(message.content for message in opening) + "\n\n"
            user = f"{start}{asked}" + (_INLINE_ANSWER.rstrip() if self.examples else "")
            return Prompt((Message("user", user),), prefill, (Message("user", start + before),))
        shared = (*opening, Message("user", before)) if before else opening
        return Prompt((*opening, Message("user", asked)), prefill, shared)

    def _opening(self, asking: str | None) -> tuple[Message, ...]:
        """Rubric and examples: as turns of a conversation, or each as a text of the user's."""
        shown = self.fields if asking is None else self.fields[: self.fields.index(asking) + 1]
        turns = [Message("user" if self.single_turn else "system", self.shared)]
        for example in self.examples:
            fields = {key: self.unfenced(text) for key, text in example["fields"].items()}
            text = Template("".join(self.parts)).substitute(fields)
            answer = self.form.written({field: example["answer"][field] for field in shown})
            if self.single_turn:
                turns.append(Message("user", f"{text}{_INLINE_ANSWER}{answer}"))
            else:
                turns += [Message("user", text), Message("assistant", answer)]
        return tuple(turns)

    def written(self, answer: Mapping[str, Any]) -> str:
        """The answer's one legal text."""
        return self.form.written(answer)

    def grammar(self, *, asking: str | None = None) -> Grammar:
        """The answers permitted: the whole answer, or what may follow once it is begun up to the field `asking`."""
        return self.form.grammar(asking)

    def read(self, answer: str) -> Mapping[str, Any] | None:
        """The answer's fields, or None unless Outlines' guide accepts it, byte by byte, as a whole."""
        if not legal(answer, self.grammar()):
            return None
        return self.form.read(answer)

    @cached_property
    def _fences(self) -> re.Pattern[str] | None:
        """What parts prompt and answer: tags, headings of the prompt's own, marks of the answer's form.

        Each expression takes a sign and the run behind it whole, so that no text takes long, and sees in its one group
        whether the rest of a fence follows.
        """
        text = "\n".join((self.shared, *self.parts))
        tags = sorted(set(re.findall(r"</?([a-z][a-z-]*)>", "".join(self.parts))))
        headings = sorted(set(re.findall(r"^#+ *(\S[^\n:]*):", text, flags=re.MULTILINE)))
        names = "|".join(rf"[{_UNSEEN}]*+".join(tag) for tag in tags)
        runs = [(rf"[<＜]{_LOOSE}*+", rf"(?:[/／]{_LOOSE}*+)?(?:{names})(?!\w)")] if tags else []
        runs += [(rf"[#＃](?:[#＃]|{_LOOSE})*+", "|".join(map(_loosely, headings)))] if headings else []
        runs += [(rf"{re.escape(mark[0])}{_LOOSE}*+", _loosely(mark[1:])) for mark in self.form.marks]
        patterns = [f"{run}(?:(?=({rest})))?" for run, rest in runs]
        return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None

    def unfenced(self, text: str) -> str:
        """The text with every copy of this question's own fences broken, so that no text can close them."""
        return self._fences.sub(_broken, text) if self._fences else text


def _broken(found: re.Match[str]) -> str:
    """Nothing of a heading's signs, another fence's first sign and a space; what is no fence stays as it is."""
    if not found.lastindex:
        return found[0]
    return "" if found[0][0] in "#＃" else f"{found[0][0]} "


def _loosely(text: str) -> str:
    """An expression for a text with anything between and around its words that a reader would overlook."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return f"{_LOOSE}*+".join(re.escape(word) for word in words)


def load_question(
    name: str, *, order: Order | None = None, single_turn: bool = False, folder: Path | None = None
) -> Question:
    """The question in `grammars/NAME`; `order` picks between two schemas, score-first unless told otherwise.

    Raises QuestionError if there is no such question, a part is missing or wrong, or it knows no such order.
    """
    home = (folder or shipped("grammars")) / name
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not home.is_dir():
        known = ", ".join(sorted(path.name for path in (folder or shipped("grammars")).iterdir() if path.is_dir()))
        raise QuestionError(f"There is no question named {name!r}.", f"There are {known}.")
    try:
        prompt = text_of(home / "prompt.md")
        form = _form(home, order)
        examples = read_lines(home / "examples.jsonl")
    except OSError as error:
        raise QuestionError(
            f"The question {name} has no {Path(error.filename).name} in {home}.", "Restore the folder from the package."
        ) from error
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"A file of the question {name} cannot be read: {error}.", "Correct it.") from error
    question = Question(name, *_parts(prompt, home / "prompt.md"), form, tuple(examples), single_turn)
    _check(question)
    return question


def one_line(text: str) -> str:
    """A text on one line, without space at its ends: a question's own lines must not be forged."""
    return " ".join(text.split())


def _order(form: Form) -> Order:
    return "score-first" if form.fields[0] == SCORE else "reason-first"


def _form(home: Path, order: Order | None) -> Form:
    line = home / "answer.regex"
    if line.exists():
        form = LineForm(text_of(line).strip())
        if order not in (None, _order(form)):
            raise QuestionError(f"The question {home.name} is answered {_order(form)}.", "Leave --order out.")
        return form
    suffix = "" if order in (None, "score-first") else f".{order}"
    return JsonForm(json.loads(text_of(home / f"answer{suffix}.schema.json")))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file of a question. Raises OSError or ValueError if it cannot be read."""
    return [json.loads(line) for line in text_of(path).split("\n") if line.strip()]


def text_of(path: Path) -> str:
    """The text of a question's file, its lines parted by line feeds.

    Raises OSError if it cannot be read, ValueError if it is too long or no UTF-8.
    """
    return bounded.text_of(path, _LONGEST).replace("\r\n", "\n").replace("\r", "\n")


def reference_cases(name: str) -> list[dict[str, Any]]:
    """The cases of a question whose right answer is known: {"fields": {placeholder: text}, "answer": {...}}."""
    return read_lines(shipped("grammars") / name / "reference.jsonl")


def _check(question: Question) -> None:
    """Nothing; raises QuestionError if its schema, placeholders and examples do not fit together."""
    if isinstance(question.form, JsonForm):
        schema: Any = question.form.schema
        properties = schema.get("properties") if isinstance(schema, dict) else None
        required = schema.get("required") if isinstance(schema, dict) else None
        if (
            not isinstance(properties, dict)
            or not properties
            or not all(isinstance(p, dict) for p in properties.values())
        ):
            raise QuestionError(f"The schema of {question.name} has no fields.", "Give its properties, each an object.")
        if not isinstance(required, list) or sorted(map(str, required)) != sorted(properties):
            raise QuestionError(f"The schema of {question.name} leaves fields out.", "Name and require them all.")
    try:
        question.grammar()
        list(question.form.levels)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise QuestionError(f"The schema of {question.name} is no grammar: {error}.", "Correct it.") from error
    if not Template("".join(question.parts)).is_valid():
        raise QuestionError(f"The prompt of {question.name} has a broken placeholder.", "Write $$ for a $.")
    if not question.placeholders:
        raise QuestionError(f"The prompt of {question.name} has no placeholder.", "Write, for example, ${input}.")
    for number, example in enumerate(question.examples, start=1):
        for part, needed in (("fields", question.placeholders), ("answer", question.fields)):
            held = example.get(part) if isinstance(example, dict) else None
            missing = set(needed) - set(held if isinstance(held, dict) else ())
            if missing:
                named = ", ".join(sorted(missing))
                raise QuestionError(f"Example {number} of {question.name} has no {named} in its {part}.", "Add it.")
        if not all(isinstance(text, str) for text in example["fields"].values()):
            raise QuestionError(
                f"Example {number} of {question.name} has a field that is no text.", "Put it in quotes."
            )


def _parts(prompt: str, path: Path) -> tuple[str, tuple[str, ...]]:
    """The shared text, and the others in their order; the last one without the space at its end."""
    found = re.split(r"^<!-- ([a-z ]+) -->\n", prompt, flags=re.MULTILINE)
    marks = found[1::2]
    if marks[:1] != ["shared"] or not marks[1:] or not all(mark.startswith("per ") for mark in marks[1:]):
        raise QuestionError(
            f"{path} has the parts {', '.join(marks) or 'none'}.",
            "It needs `shared` first, then one or more such as `per sample`.",
        )
    shared, *parts = found[2::2]
    return shared.strip(), (*parts[:-1], parts[-1].strip())
