"""The form that answers to a question must have: JSON by a schema, or one line by a regular expression.

Either form has fields in a fixed order, knows how an answer is written and begun, gives the grammar that Outlines
compiles, and reads a legal answer back. A field `score` has *levels*: the texts that it may hold, lowest first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from .engines.base import Grammar
from .errors import QuestionError

SCORE = "score"

_BORDER = "\x00"
_GROUP = re.compile(r"\(\?P<([a-z_]+)>")
_STEP = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\[\\]", re.DOTALL)
"""One escaped character, one set, or one other character of an expression."""
_LITERAL = re.compile(r"(?:\\[^a-zA-Z0-9\x00-\x1F]|[^\\.^$*+?{}\[\]|()\x00-\x1F])*")
"""Text between groups: no sign of an expression that is not escaped."""
_DIGITS = re.compile(r"\[(?:\d-\d|\d)+\]")


class Form(Protocol):
    """What an answer looks like."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The answer's fields in their order."""
        ...

    @property
    def levels(self) -> tuple[str, ...]:
        """The texts that the score may hold, lowest first; none if the answer has no score."""
        ...

    @property
    def marks(self) -> tuple[str, ...]:
        """Literal texts of the form by which a sample could pass for the answer."""
        ...

    def record(self) -> Any:
        """The form as plain values, for digests."""
        ...

    def written(self, answer: Mapping[str, Any]) -> str:
        """The answer's one legal text; of the leading fields alone, the text of an example cut there."""
        ...

    def begun(self, known: Mapping[str, Any], asking: str) -> str:
        """The answer's text up to the value of the field `asking`, with the fields before it given."""
        ...

    def grammar(self, asking: str | None = None) -> Grammar:
        """The answers permitted: the whole answer, or what may follow once it is begun up to the field `asking`."""
        ...

    def read(self, text: str) -> Mapping[str, Any]:
        """The fields of a legal answer."""
        ...


def level_values(form: Form) -> tuple[float, ...]:
    """What the levels of a form's score are worth, evenly from 0 for the lowest number to 1 for the highest.

    Empty if there are none; raises QuestionError if there is one.
    """
    numbers = [float(level) for level in form.levels]
    if len(numbers) == 1:
        raise QuestionError("The answer's score has one level.", "Permit at least two numbers.")
    return tuple((number - numbers[0]) / (numbers[-1] - numbers[0]) for number in numbers)


@dataclass(frozen=True)
class JsonForm:
    """Compact JSON as Python writes it, one space after commas and colons: there is no free whitespace to loop in."""

    schema: Mapping[str, Any]

    @property
    def fields(self) -> tuple[str, ...]:
        """The properties of the schema, in their order."""
        return tuple(self.schema["properties"])

    @property
    def levels(self) -> tuple[str, ...]:
        """The numbers that the schema permits for the score, as JSON writes them."""
        return tuple(json.dumps(number) for number in sorted(self.schema["properties"].get(SCORE, {}).get("enum", ())))

    def choices(self, field: str) -> tuple[str, ...]:
        """The texts among which a field's value is chosen, in the order of the schema; none if it is free."""
        permitted = self.schema["properties"][field].get("enum", ())
        return tuple(json.dumps(value, ensure_ascii=False) for value in permitted)

    @property
    def marks(self) -> tuple[str, ...]:
        """None: an answer in JSON cannot be mistaken inside a fenced text."""
        return ()

    def record(self) -> Any:
        """The schema's text, since the order of its properties matters."""
        return json.dumps(self.schema)

    def written(self, answer: Mapping[str, Any]) -> str:
        """The answer as `json.dumps` writes it."""
        return json.dumps({field: answer[field] for field in self.fields if field in answer}, ensure_ascii=False)

    def begun(self, known: Mapping[str, Any], asking: str) -> str:
        """The object up to the value of a property. A free text's opening quote belongs to it.

        Tokenizers join that quote with the space before, and a model that is made to part them loses its thread.
        """
        start = json.dumps(dict(known), ensure_ascii=False)[:-1]
        return f"{start}{', ' if known else ''}{json.dumps(asking, ensure_ascii=False)}: {self._quote(asking)}"

    def grammar(self, asking: str | None = None) -> Grammar:
        """Outlines' regular expression for the schema, or for the rest of it. Raises ValueError if it is no schema."""
        if asking is None:
            return Grammar(_regex_of(self.schema))
        position = self.fields.index(asking)
        rest = {field: self.schema["properties"][field] for field in self.fields[position:]}
        regex = _regex_of({**self.schema, "properties": rest, "required": list(rest)})
        begun = _regex_of({**self.schema, "properties": {asking: {"type": "null"}}, "required": [asking]})
        return Grammar(regex.removeprefix(begun.removesuffix("null\\}") + self._quote(asking)))

    def _quote(self, field: str) -> str:
        """The opening quote of a field whose value is a free text; nothing for any other."""
        kind = self.schema["properties"][field]
        return '"' if kind.get("type") == "string" and set(kind) <= {"type", "pattern"} else ""

    def read(self, text: str) -> Mapping[str, Any]:
        """The object."""
        fields: Mapping[str, Any] = json.loads(text)
        return fields


@dataclass(frozen=True)
class LineForm:
    """One line of named groups with literal text between them, such as a feedback, `[RESULT]` and a digit.

    `pattern` is a regular expression `(?P<field>…)literal(?P<field>…)…`; the score's group is a set of single
    characters, `[0-5]`. Raises QuestionError if the pattern is not of this kind.
    """

    pattern: str

    def __post_init__(self) -> None:
        parts = self._parts
        names = [field for field, _, _ in parts]
        scores = [inner for field, inner, _ in parts if field == SCORE]
        well = bool(parts) and len(names) == len(set(names))
        well = well and all(_compiles(inner) and not _GROUP.search(inner) for _, inner, _ in parts)
        well = well and all(_LITERAL.fullmatch(literal) for _, _, literal in parts)
        if not well or not all(_DIGITS.fullmatch(inner) for inner in scores):
            raise QuestionError(
                f"The answer's expression {self.pattern!r} is not a row of named groups.",
                "Write (?P<field>…)text(?P<field>…), a score as a set of digits, and escape signs in the text.",
            )

    @cached_property
    def _parts(self) -> tuple[tuple[str, str, str], ...]:
        """Of each field its name, the expression of its value, and the literal (as written) that follows it.

        Empty if the pattern does not begin with a group, or does not close one.
        """
        parts: list[tuple[str, str, str]] = []
        place = 0
        while found := _GROUP.match(self.pattern, place):
            closing = _closing(self.pattern, found.end())
            if closing is None:
                return ()
            following = _GROUP.search(self.pattern, closing + 1)
            place = following.start() if following else len(self.pattern)
            parts.append((found[1], self.pattern[found.end() : closing], self.pattern[closing + 1 : place]))
        return tuple(parts)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the groups, in their order."""
        return tuple(field for field, _, _ in self._parts)

    @property
    def levels(self) -> tuple[str, ...]:
        """The single characters that the score's group admits."""
        inner = next((inner for field, inner, _ in self._parts if field == SCORE), "")
        return tuple(character for character in map(chr, range(128)) if inner and re.fullmatch(inner, character))

    @property
    def marks(self) -> tuple[str, ...]:
        """The literal texts between the fields."""
        return tuple(text for _, _, literal in self._parts if (text := _plain(literal).strip()))

    def record(self) -> Any:
        """The pattern."""
        return self.pattern

    def written(self, answer: Mapping[str, Any]) -> str:
        """The fields with the literals between them."""
        shown = [part for part in self._parts if part[0] in answer]
        text = "".join(f"{answer[field]}{_plain(literal)}" for field, _, literal in shown[:-1])
        last = shown[-1]
        return text + str(answer[last[0]]) + (_plain(last[2]) if len(shown) == len(self._parts) else "")

    def begun(self, known: Mapping[str, Any], asking: str) -> str:
        """The known fields, each with the literal behind it."""
        return "".join(f"{known[field]}{_plain(literal)}" for field, _, literal in self._parts if field in known)

    def grammar(self, asking: str | None = None) -> Grammar:
        """The pattern without its groups' names, whole or from a field on."""
        start = 0 if asking is None else self.fields.index(asking)
        return Grammar("".join(f"({inner}){literal}" for _, inner, literal in self._parts[start:]))

    def read(self, text: str) -> Mapping[str, Any]:
        """The text of each group, without the space around it."""
        found = re.fullmatch(self.pattern, text)
        if found is None:
            raise ValueError("not an answer of this form")
        return {field: value.strip(" ") for field, value in found.groupdict().items()}


def _closing(pattern: str, place: int) -> int | None:
    """Where the group ends whose inside begins at this place, None if it does not: sets may hold any parenthesis."""
    depth = 1
    while found := _STEP.match(pattern, place):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if not depth:
            return place
        place = found.end()
    return None


def _compiles(expression: str) -> bool:
    try:
        re.compile(expression)
    except re.error:
        return False
    return True


def _plain(literal: str) -> str:
    """A literal as it is read: without the backslashes that escape its characters in the expression."""
    return re.sub(r"\\(.)", r"\1", literal)


def _regex_of(schema: Mapping[str, Any]) -> str:
    """Outlines' regular expression for the schema, with JSON's whitespace fixed to what `json.dumps` writes."""
    from outlines_core.json_schema import build_regex_from_schema

    regex: str = build_regex_from_schema(json.dumps(schema), whitespace_pattern=_BORDER)
    for each in schema["properties"].values():
        if pattern := each.get("pattern", "").removeprefix("^").removesuffix("$"):
            regex = regex.replace(f'("{pattern}")', f'"({pattern})"')
    # Objects have whitespace on both sides of a comma, lists behind it alone.
    return regex.replace(f"{_BORDER}:{_BORDER}", ": ").replace(f",{_BORDER}", ", ").replace(_BORDER, "")
