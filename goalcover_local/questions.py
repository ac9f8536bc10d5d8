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
from collections.abc import Iterator, Mapping
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

_LONGEST = 4_000_000
"""Bytes that a file of a question may have."""

_HOLDS = {
    "prompt.md": "the text in parts, <!-- shared --> first, then such as <!-- per sample --> with ${placeholders}",
    "answer.schema.json": "a JSON schema of the answers permitted",
    "examples.jsonl": 'a worked example a line, {"fields": {placeholder: text}, "answer": {...}}, or nothing at all',
}
"""What the files of a folder hold, in a few words."""

_INLINE_ANSWER = "\nAnswer: "
"""What leads from a question to its answer where examples stand inline."""

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
    well_named = re.fullmatch(r"[a-z][a-z0-9-]*", name)
    if home.is_dir() and home.name == name and not well_named:
        raise QuestionError(
            f"The folder of a question cannot be called {name!r}.",
            "Rename it: small letters, digits and hyphens, a letter first.",
        )
    if not (home.is_dir() and well_named):
        known = ", ".join(sorted(path.name for path in (folder or shipped("grammars")).iterdir() if path.is_dir()))
        raise QuestionError(f"There is no question named {name!r}.", f"There are {known}.")
    question = Question(name, *_parts(home / "prompt.md"), _form(home, order), single_turn=single_turn)
    return replace(question, examples=_examples(home / "examples.jsonl", question))


def one_line(text: str) -> str:
    """A text on one line, without space at its ends: a question's own lines must not be forged."""
    return " ".join(text.split())


def read_text(path: Path, holds: str) -> str:
    """The text of a file, without a byte order mark.

    Raises QuestionError if it is missing or not UTF-8; `holds` says in a few words what belongs there.
    """
    try:
        return bounded.content_of(path, _LONGEST).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise QuestionError(f"{path}, line {line}: not UTF-8.", "Save the file as UTF-8.") from None
    except ValueError as error:
        raise QuestionError(f"{path} cannot be read: {error}.", f"Put a file there that holds {holds}.") from None
    except OSError as error:
        wrong = f"{path} cannot be read: {error.strerror}." if path.exists() else f"There is no {path}."
        raise QuestionError(wrong, f"Put a readable file there that holds {holds}.") from error


def placed_lines(path: Path, holds: str = "a JSON object a line") -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each after its place, "FILE, line N". Raises QuestionError, never with text."""
    for number, line in enumerate(read_text(path, holds).split("\n"), start=1):
        if line.strip():
            found = _json(line, path, number)
            if not isinstance(found, dict):
                raise QuestionError(f"{path}, line {number}: not a JSON object.", f"Write {holds}.")
            yield f"{path}, line {number}", found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file. Raises QuestionError, naming file and line, if it cannot be read."""
    return [line for _, line in placed_lines(path)]


def reference_cases(name: str) -> list[dict[str, Any]]:
    """The cases of a question whose right answer is known: {"fields": {placeholder: text}, "answer": {...}}."""
    return read_lines(shipped("grammars") / name / "reference.jsonl")


def _json(text: str, path: Path, line: int = 1) -> Any:
    """What the JSON says that begins on that line of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {line + error.lineno - 1}, column {error.colno}"
        raise QuestionError(f"{place}: {error.msg}.", "Correct the JSON there.") from None
    except RecursionError:
        raise QuestionError(f"{path}, line {line}: too many brackets within brackets.", "Correct the JSON.") from None
    except ValueError:
        raise QuestionError(f"{path}, line {line}: a number of too many digits.", "Correct the JSON.") from None


def _order(form: Form) -> Order:
    return "score-first" if form.fields[0] == SCORE else "reason-first"


def _form(home: Path, order: Order | None) -> Form:
    """The form of the answers. Raises QuestionError, naming the file, if Outlines cannot compile it."""
    suffix = "" if order in (None, "score-first") else f".{order}"
    line, schema = home / "answer.regex", home / f"answer{suffix}.schema.json"
    if line.exists() and schema.exists():
        raise QuestionError(f"{home} holds both {line.name} and {schema.name}.", "Keep one of them.")
    if line.exists():
        form: Form = LineForm(read_text(line, "an expression").strip())
        if order not in (None, _order(form)):
            raise QuestionError(f"The question {home.name} is answered {_order(form)}.", "Leave --order out.")
    else:
        form = JsonForm(_schema(schema))
    try:
        form.grammar()
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        told = str(error).partition("\n")[0].strip()
        raise QuestionError(f"{line if line.exists() else schema} is no grammar: {told}.", "Correct it.") from error
    return form


def _schema(path: Path) -> dict[str, Any]:
    """The schema in a file. Raises QuestionError if it is not that of an object that requires all its properties."""
    found = _json(read_text(path, _HOLDS["answer.schema.json"]), path)
    properties = found.get("properties") if isinstance(found, dict) else None
    required = found.get("required") if isinstance(found, dict) else None
    if not properties or not isinstance(properties, dict) or not isinstance(required, list):
        raise QuestionError(f"{path} is no schema of an object.", "Give it `properties`, and require them all.")
    if set(map(str, required)) != set(properties):
        raise QuestionError(f"{path} leaves fields out.", "Name and require them all.")
    if not all(isinstance(each, dict) for each in properties.values()):
        raise QuestionError(f"{path} has a property that is no schema.", 'Write, for example, {"type": "string"}.')
    levels = properties.get(SCORE, {}).get("enum", [])
    if not isinstance(levels, list) or not all(type(level) in (int, float) for level in levels):
        raise QuestionError(f"{path} permits a score that is no number.", "List numbers, without quotes.")
    return dict(found)


def _examples(path: Path, question: Question) -> tuple[Mapping[str, Any], ...]:
    """The worked examples. Raises QuestionError if one does not fit placeholders and fields."""
    examples, permitted = [], re.compile(question.grammar().regex)
    for place, example in placed_lines(path, _HOLDS["examples.jsonl"]):
        for part, needed in (("fields", question.placeholders), ("answer", question.fields)):
            held = example.get(part)
            if missing := set(needed) - set(held if isinstance(held, dict) else ()):
                named = ", ".join(sorted(missing))
                raise QuestionError(
                    f"{place}: no {named} in its {part}.", "Add it, or take it out of prompt or schema."
                )
        if not all(isinstance(example["fields"][key], str) for key in question.placeholders):
            raise QuestionError(f"{place}: one of its fields is no text.", "Write each as a text in quotes.")
        if not permitted.fullmatch(question.written(example["answer"])):
            raise QuestionError(f"{place}: its answer is none of those permitted.", "Write one as the schema has it.")
        examples.append(example)
    return tuple(examples)


def _parts(path: Path) -> tuple[str, tuple[str, ...]]:
    """The shared text, and the others in their order; the last one without the space at its end.

    Raises QuestionError if there are none, or if their placeholders are not as they should be.
    """
    prompt = read_text(path, _HOLDS["prompt.md"])
    found = re.split(r"^<!-- ([a-z ]+) -->\n", prompt, flags=re.MULTILINE)
    marks = found[1::2]
    if marks[:1] != ["shared"] or not marks[1:] or not all(mark.startswith("per ") for mark in marks[1:]):
        raise QuestionError(
            f"{path} has the parts {', '.join(marks) or 'none'}.",
            "It needs <!-- shared --> on a line first, then one or more such as <!-- per sample -->.",
        )
    shared, *parts = found[2::2]
    if re.search(r"\$\{\w+\}", shared):
        raise QuestionError(f"{path} has a placeholder in its shared part.", "Write it in a part that comes after.")
    template = Template("".join(parts))
    if not template.is_valid():
        raise QuestionError(f"{path} has a broken placeholder.", "Write $$ for a $, and placeholders as ${input}.")
    if not template.get_identifiers():
        raise QuestionError(f"{path} has no placeholder.", "Write, for example, ${input}.")
    return shared.strip(), (*parts[:-1], parts[-1].strip())
