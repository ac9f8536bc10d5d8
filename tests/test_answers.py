"""The forms of answers: what is written is legal and read back, and a form knows where its fields begin."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st

from goalcover_local.answers import Form, JsonForm, LineForm, level_values
from goalcover_local.engines.guide import legal
from goalcover_local.errors import QuestionError
from goalcover_local.questions import load_question


def schema(**properties: Any) -> JsonForm:
    """A form in JSON with these properties, in their order, all of them required."""
    return JsonForm(
        {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    )


TEXT = {"type": "string"}
SCORED = JsonForm(tiny.SCHEMA)
REASONED = schema(explanation=TEXT, score={"enum": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]})
MIXED = schema(name=TEXT, atomic={"type": "boolean"}, parts={"type": "integer"}, reason=TEXT)
LINE = load_question("prometheus").form
FRAMED = LineForm(r"(?P<score>[1-5])/5 \((?P<kind>(good|bad(ly put)?))\): (?P<reason>[^.]*)\.")

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
LINED = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="[]"), min_size=1)
"""What a feedback may hold; it is read without the space around it."""

ANSWERS: dict[str, tuple[Form, st.SearchStrategy[dict[str, Any]]]] = {
    "scored": (
        SCORED,
        st.fixed_dictionaries({"score": st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), "explanation": WORDS}),
    ),
    "reasoned": (
        REASONED,
        st.fixed_dictionaries({"explanation": WORDS, "score": st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])}),
    ),
    "mixed": (
        MIXED,
        st.fixed_dictionaries({"name": WORDS, "atomic": st.booleans(), "parts": st.integers(), "reason": WORDS}),
    ),
    "line": (
        LINE,
        st.fixed_dictionaries(
            {"explanation": LINED.filter(lambda text: text == text.strip()), "score": st.sampled_from("012345")}
        ),
    ),
    "framed": (
        FRAMED,
        st.fixed_dictionaries(
            {
                "score": st.sampled_from("12345"),
                "kind": st.sampled_from(["good", "bad", "badly put"]),
                "reason": st.from_regex(r"([a-z()/]( ?[a-z():/])*)?", fullmatch=True),
            }
        ),
    ),
}


@st.composite
def answered(draw: st.DrawFn) -> tuple[Form, dict[str, Any]]:
    """A form, and an answer of that form."""
    form, answers = ANSWERS[draw(st.sampled_from(sorted(ANSWERS)))]
    return form, draw(answers)


def parted(form: Form, answer: Mapping[str, Any], asking: str) -> tuple[str, str]:
    """The answer's text up to the value of that field, and the rest of it."""
    known = {field: answer[field] for field in form.fields[: form.fields.index(asking)]}
    begun = form.begun(known, asking)
    whole = form.written(answer)
    assert whole.startswith(begun)
    return begun, whole.removeprefix(begun)


@settings(deadline=None)
@given(case=answered())
@example(case=(SCORED, {"score": 0.0, "explanation": 'a "quoted" \\ and\nlines\tof it'}))
@example(case=(REASONED, {"explanation": '", "score": 1.0}', "score": 0.0}))
@example(case=(LINE, {"explanation": "naïve \u2028 日本 😀 RESULT 5", "score": "0"}))
def test_what_is_written_is_legal_and_read_back(case: tuple[Form, dict[str, Any]]) -> None:
    form, answer = case
    whole = form.written(answer)
    assert legal(whole, form.grammar())
    read = form.read(whole)
    assert read == answer and tuple(read) == form.fields


@settings(deadline=None)
@given(case=answered(), data=st.data())
def test_a_beginning_and_its_rest_are_the_answer(case: tuple[Form, dict[str, Any]], data: st.DataObject) -> None:
    form, answer = case
    asking = data.draw(st.sampled_from(form.fields))
    begun, rest = parted(form, answer, asking)
    assert bool(begun) == (asking != form.fields[0] or isinstance(form, JsonForm))
    assert legal(begun, form.grammar(), complete=False)
    assert legal(rest, form.grammar(asking))
    assert form.begun({}, form.fields[0]) == parted(form, answer, form.fields[0])[0]


SPLINTERS = ['"', "\\", "}", "{", ", ", "[", "]", " [RESULT] ", "3", "0.8", ".", "): ", " ", "\n", "é", "true", "-"]
"""What may break an answer, or mend a broken one."""


@settings(max_examples=300, deadline=None)
@given(case=answered(), data=st.data())
def test_what_may_follow_a_beginning_is_exactly_what_completes_the_answer(
    case: tuple[Form, dict[str, Any]], data: st.DataObject
) -> None:
    """However a rest is damaged: the rest's grammar takes it if, and only if, the whole one takes all of it."""
    form, answer = case
    asking = data.draw(st.sampled_from(form.fields))
    begun, rest = parted(form, answer, asking)
    start = data.draw(st.integers(0, len(rest)))
    end = data.draw(st.integers(start, min(len(rest), start + 4)))
    damaged = rest[:start] + data.draw(st.sampled_from(["", *SPLINTERS])) + rest[end:]
    assert legal(damaged, form.grammar(asking)) == legal(begun + damaged, form.grammar())


@pytest.mark.parametrize(
    ("form", "answer", "shown"),
    [
        (SCORED, {"score": 0.4}, '{"score": 0.4}'),
        (REASONED, {"explanation": "„So.“"}, '{"explanation": "„So.“"}'),
        (LINE, {"explanation": "So it is."}, "So it is."),
        (FRAMED, {"score": 3}, "3"),
        (FRAMED, {"score": 3, "kind": "good"}, "3/5 (good"),
    ],
)
def test_an_example_cut_after_a_field_ends_with_that_field(form: Form, answer: dict[str, Any], shown: str) -> None:
    assert form.written(answer) == shown


def test_a_texts_opening_quote_belongs_to_the_beginning() -> None:
    assert SCORED.begun({"score": 0.4}, "explanation") == '{"score": 0.4, "explanation": "'
    assert SCORED.begun({}, "score") == '{"score": '
    assert MIXED.begun({"name": 'a "b"', "atomic": True}, "parts") == '{"name": "a \\"b\\"", "atomic": true, "parts": '


@pytest.mark.parametrize(
    "values",
    [
        {"enum": ["yes", "no"]},
        {"const": "yes"},
        {"type": "string", "const": "yes"},
        {"type": "string", "maxLength": 3},
        pytest.param({"type": "string", "enum": ["yes", "no"]}),
        pytest.param({"type": "string", "pattern": "[a-z]+"}),
    ],
)
def test_a_word_of_a_certain_kind_can_be_asked_for(values: dict[str, Any]) -> None:
    form = schema(reason=TEXT, fits=values)
    rest = parted(form, {"reason": "So.", "fits": "yes"}, "fits")[1]
    assert legal(rest, form.grammar("fits"))


SIXTHS = ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")


@pytest.mark.parametrize(
    ("form", "levels", "values"),
    [
        (load_question("alignment").form, SIXTHS, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (load_question("alignment", order="reason-first").form, SIXTHS, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (load_question("prometheus").form, tuple("012345"), tuple(k / 5 for k in range(6))),
        (load_question("prometheus-native").form, tuple("12345"), tuple((k - 1) / 4 for k in range(1, 6))),
        (schema(score={"enum": [5, 3, 1, 2, 4]}), tuple("12345"), (0.0, 0.25, 0.5, 0.75, 1.0)),
        (schema(score={"enum": [-1, 0, 3]}), ("-1", "0", "3"), (0.0, 0.25, 1.0)),
        (LineForm("(?P<score>[13579])!"), tuple("13579"), (0.0, 0.25, 0.5, 0.75, 1.0)),
        (LineForm("(?P<score>[145])"), tuple("145"), (0.0, 0.75, 1.0)),
        (MIXED, (), ()),
        (LineForm("(?P<reason>[0-5]+) so (?P<fits>[01])"), (), ()),
    ],
)
def test_levels_are_the_texts_of_the_score_and_evenly_worth(
    form: Form, levels: Sequence[str], values: Sequence[float]
) -> None:
    assert form.levels == levels
    assert level_values(form) == pytest.approx(values, abs=1e-12)
    for level in levels:
        begun = form.begun(dict.fromkeys(form.fields[: form.fields.index("score")], "so"), "score")
        assert legal(begun + level, form.grammar(), complete=False)


@pytest.mark.parametrize("name", ["prometheus", "prometheus-native"])
def test_once_a_line_is_begun_the_levels_are_all_that_may_follow(name: str) -> None:
    form = load_question(name).form
    assert tuple(c for c in map(chr, range(0x250)) if legal(c, form.grammar("score"))) == form.levels


@pytest.mark.parametrize("form", [schema(score={"enum": [1.0]}), LineForm("(?P<score>[3])!")])
def test_a_score_of_one_level_is_no_crash(form: Form) -> None:
    """It is either worth something in [0, 1], or an error that a user can read."""
    try:
        assert all(0 <= value <= 1 for value in level_values(form))
    except QuestionError as error:
        assert error.mend


def test_a_score_that_is_no_single_character_is_refused() -> None:
    with pytest.raises(QuestionError):
        LineForm("(?P<explanation>[a-z]+): (?P<score>[0-9]|10)")


@pytest.mark.parametrize(
    ("form", "marks"),
    [
        (SCORED, ()),
        (LINE, ("[RESULT]",)),
        (FRAMED, ("/5 (", "):", ".")),
        (LineForm(r"(?P<a>[a-z]+) (?P<b>[a-z]+)"), ()),
        (LineForm(r"(?P<a>[a-z]+) \\ (?P<b>[a-z]+)  \(so\)"), ("\\", "(so)")),
    ],
)
def test_marks_are_the_literal_texts_between_the_fields(form: Form, marks: Sequence[str]) -> None:
    assert form.marks == marks


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "no groups",
        "([a-z]+) (?:[0-5])",
        "Score: (?P<score>[0-5])",
        " (?P<score>[0-5])",
        "(?P<explanation>[a-z]+",
        "(?P<explanation>[a-z]+ (?P<score>[0-5])",
        "(?P<explanation>[a-z]+ (?P<score>[0-5]))",
        "(?P<Explanation>[a-z]+)",
    ],
)
def test_a_pattern_that_is_no_row_of_named_groups_is_an_error_with_a_mend(pattern: str) -> None:
    with pytest.raises(QuestionError, match="row of named groups") as caught:
        LineForm(pattern)
    assert caught.value.mend


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?P<score>([0-5])"),
        pytest.param(r"(?P<score>[0-5\)"),
        pytest.param(r"(?P<explanation>a\)"),
        pytest.param(r"(?P<explanation>a) so (?P<explanation>b)"),
        pytest.param(r"(?P<explanation>[a-z]+)[RESULT](?P<score>[0-5])"),
        pytest.param(r"(?P<explanation>[a-z]+) so. (?P<score>[0-5])"),
        pytest.param(r"(?P<explanation>[a-z]+)+ (?P<score>[0-5])"),
        pytest.param(r"(?P<explanation>[a-z]+) | (?P<score>[0-5])"),
        pytest.param(r"(?P<explanation>[a-z]+) (?:or (?P<score>[0-5]))"),
        pytest.param(r"(?P<explanation>[a-z]+)\n(?P<score>[0-5])"),
        pytest.param(r"(?P<explanation>[a-z]+)\d(?P<score>[0-5])"),
    ],
)
def test_a_pattern_that_cannot_be_written_is_refused_when_it_is_read(pattern: str) -> None:
    """Else its examples would be illegal, and its answers would be begun in a way that the grammar does not know."""
    with pytest.raises(QuestionError):
        LineForm(pattern)


VALUES = [
    ("[a-z]+", "abc"),
    ("[0-5]", "3"),
    ("(no|(so|yes(!)?))", "yes!"),
    ("(?:[a-z]{2})+", "abcd"),
    (r"\(\)", "()"),
    (r"\([a-z]\)", "(a)"),
    (r"\\", "\\"),
    (r"\\(\\)", "\\\\"),
    ("[()]+", "()("),
    ("[(]", "("),
    ("[]x)]+", "])x"),
    (r"[\])]+", "])"),
    (r"[^\]\[)]+", "a(b"),
    (r"[^\[\])]", "("),
    (r"[\\)]+", "\\)"),
    ("", ""),
]
"""Expressions that a reader of parentheses can stumble over, each with something that it takes."""

LITERALS = [" = ", "; ", "@@", " # ", "?", "+", " * ", ".", "|", "$", "^", "{1}", "~-"]
"""Texts that no value above can hold, with all that has to be escaped."""


@settings(deadline=None)
@given(parts=st.lists(st.tuples(st.sampled_from(VALUES), st.sampled_from(LITERALS)), min_size=1, max_size=4))
def test_any_row_of_groups_is_read_as_it_was_put_together(parts: list[tuple[tuple[str, str], str]]) -> None:
    names = ["first", "explanation", "a_b", "last"][: len(parts)]
    pattern = "".join(
        f"(?P<{name}>{inner}){re.escape(literal)}" for name, ((inner, _), literal) in zip(names, parts, strict=True)
    )
    answer = {name: value for name, ((_, value), _) in zip(names, parts, strict=True)}
    form = LineForm(pattern)
    assert form.fields == tuple(names)
    assert form.marks == tuple(literal.strip() for _, literal in parts)
    whole = form.written(answer)
    assert whole == "".join(value + literal for (_, value), literal in parts)
    assert legal(whole, form.grammar())
    assert form.read(whole) == answer
    for asking in names:
        assert legal(parted(form, answer, asking)[1], form.grammar(asking))


@pytest.mark.parametrize(
    ("inner", "value"),
    [
        pytest.param(r"[^\[]+", "so"),
        pytest.param(r"[a\[]", "["),
        pytest.param("[^])]+", "so"),
    ],
)
def test_brackets_in_a_set_do_not_end_it(inner: str, value: str) -> None:
    form = LineForm(rf"(?P<explanation>{inner}) \[RESULT\] (?P<score>[0-5])")
    answer = {"explanation": value, "score": "3"}
    assert form.written(answer) == f"{value} [RESULT] 3"
    assert legal(form.written(answer), form.grammar())


@settings(deadline=None)
@given(before=st.sampled_from(["", " "]), after=st.sampled_from(["", " "]), feedback=LINED)
def test_space_around_a_feedback_is_not_part_of_it(before: str, after: str, feedback: str) -> None:
    text = f"{before}{feedback.strip(' ') or 'So.'}{after} [RESULT] 2"
    assert legal(text, LINE.grammar())
    assert LINE.read(text) == {"explanation": feedback.strip(" ") or "So.", "score": "2"}


@pytest.mark.parametrize("text", [" So. [RESULT] 3", "\u2028 [RESULT] 0", "\u2003So.\u2003 [RESULT] 1"])
def test_what_was_read_can_be_written_again(text: str) -> None:
    assert legal(text, LINE.grammar())
    assert legal(LINE.written(LINE.read(text)), LINE.grammar())


@pytest.mark.parametrize(
    "text", ["", "So. [RESULT]", "So. [RESULT] 3 ", "So.\n[RESULT] 3", "[RESULT] 3", "  [RESULT] 3", "So [R] 3"]
)
def test_a_line_of_another_form_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match="not an answer"):
        LINE.read(text)


def test_the_order_of_a_forms_fields_is_part_of_its_record() -> None:
    assert SCORED.record() != REASONED.record()
    assert LINE.record() != FRAMED.record()
    assert JsonForm(dict(tiny.SCHEMA)).record() == SCORED.record()


NAMED = schema(
    kind={"enum": ["one", "several"]},
    names={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3},
    counts={"type": "array", "items": {"type": "integer"}, "minItems": 0, "maxItems": 2},
)
LISTED = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["one", "several"]),
        "names": st.lists(WORDS, min_size=1, max_size=3),
        "counts": st.lists(st.integers(-99, 99), max_size=2),
    }
)


@settings(max_examples=30, deadline=None)
@given(answer=LISTED, asking=st.sampled_from(["kind", "names", "counts"]))
@example(answer={"kind": "one", "names": ["a", "b,c", ", "], "counts": [1, 2]}, asking="names")
@example(answer={"kind": "one", "names": ['"', "\\", "[]"], "counts": []}, asking="kind")
def test_a_list_is_written_as_json_writes_it_and_in_no_other_way(answer: dict[str, Any], asking: str) -> None:
    whole = json.dumps({field: answer[field] for field in NAMED.fields}, ensure_ascii=False)
    assert NAMED.written(answer) == whole and NAMED.read(whole) == answer
    assert legal(whole, NAMED.grammar())
    assert legal(parted(NAMED, answer, asking)[1], NAMED.grammar(asking))
    tight = json.dumps(json.loads(whole), ensure_ascii=False, separators=(",", ": "))
    loose = whole.replace("[", "[ ", 1)
    for other in {tight, loose, whole.replace("]", " ]", 1), whole.replace(", ", " , ", 1), whole + " "} - {whole}:
        assert not legal(other, NAMED.grammar()) or json.loads(other) != answer


@pytest.mark.parametrize(
    ("names", "well"), [("[]", False), ('["a"]', True), ('["a", "b", "c"]', True), ('["a", "b", "c", "d"]', False)]
)
def test_a_list_is_as_long_as_it_may_be(names: str, well: bool) -> None:
    assert legal(f'{{"kind": "one", "names": {names}, "counts": []}}', NAMED.grammar()) == well


def test_a_list_is_begun_before_its_bracket_and_its_choices_are_written() -> None:
    assert NAMED.begun({"kind": "one"}, "names") == '{"kind": "one", "names": '
    assert NAMED.choices("kind") == ('"one"', '"several"') and NAMED.choices("names") == ()
