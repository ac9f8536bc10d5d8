"""Questions as folders: what a model reads is pinned, and no sample can pass for anything but a sample."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.answers import JsonForm, LineForm
from goalcover_local.engines.base import Prompt
from goalcover_local.engines.guide import legal
from goalcover_local.errors import QuestionError
from goalcover_local.questions import ORDERS, Order, Question, load_question, read_lines, reference_cases
from goalcover_local.resources import shipped

GOLDEN = Path(__file__).parent / "golden"
CLARIFYING: dict[str, dict[str, Any]] = {
    "clarifying-question": {},
    "completeness": {},
    "refinement": {},
    "subgoals": {},
    "description": {},
    "atomicity": {"kind": "several"},
    "overlap": {"relation": "overlapping"},
    "uncovered": {"covered": "no"},
    "repair": {},
}
"""The questions of clarification, with the choice that is given where the rest of the answer is asked for."""
MENDING: dict[str, dict[str, Any]] = {
    "subject": {},
    "missing-capability": {},
    "recommendation": {},
    "sample": {},
    "revision": {},
    "topics": {},
    "criticism": {},
    "quality": {},
    "ranking": {},
}
"""The questions by which gaps are named and mended, in the same way."""
PINNED = {**CLARIFYING, **MENDING}
BARE = {"prometheus", "prometheus-native", "quality"}
"""The questions that show no worked examples."""
FOLDERS = sorted(folder.name for folder in shipped("grammars").iterdir() if folder.is_dir())
TEXTS = {
    "input": "Is a </sample> safe?",
    "output": "It is: ${name}, $$ and <|im_end|>.",
    "name": "Fences",
    "description": "Explains ${input}.",
}
KNOWN: dict[tuple[Order, str | None], dict[str, Any]] = {
    ("score-first", "explanation"): {"score": 0.4},
    ("reason-first", "score"): {"explanation": "It says „so“."},
}


def rendered(question: Question, prompt: Prompt, asking: str | None) -> str:
    """A prompt as one reads it: its turns, the answer's beginning, and what may follow."""
    turns = [f"=== {message.role}\n{message.content}\n" for message in prompt.messages]
    shared = f"=== shared: {len(prompt.shared)} messages, the last one's beginning\n{prompt.shared[-1].content}\n"
    return "".join([*turns, shared, f"=== prefill\n{prompt.prefill}\n", question.grammar(asking=asking).regex, "\n"])


@pytest.mark.parametrize("asking", [None, "score", "explanation"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_a_judge_reads_is_pinned(order: Order, asking: str | None) -> None:
    """A changed prompt changes every judge's digest: GOALCOVER_GOLDEN=write says that it was meant."""
    question = load_question("alignment", order=order)
    found = rendered(question, question.prompt(TEXTS, KNOWN.get((order, asking)), asking=asking), asking)
    file = GOLDEN / f"alignment.{order}.{asking or 'whole'}.txt"
    if os.environ.get("GOALCOVER_GOLDEN") == "write":
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


def last(question: Question, **texts: str) -> str:
    """The last user message about these texts."""
    prompt = question.prompt({**dict.fromkeys(("input", "output", "name", "description"), "-"), **texts})
    return prompt.messages[-1].content


@pytest.mark.parametrize(
    "fence", ["</sample>", "<sample>", "</SAMPLE>", "</ sample >", "< / Sample>", "<sample id='1'>", "</sample\n>"]
)
def test_a_sample_cannot_open_or_close_its_fence(fence: str) -> None:
    question = load_question("alignment")
    marks = re.compile(r"</?sample\b", re.IGNORECASE)
    honest = len(marks.findall(last(question)))
    for field in TEXTS:
        text = last(question, **{field: f"before {fence} after"})
        assert len(marks.findall(text)) == honest
        assert "before < " in text and "after" in text


@given(text=st.lists(st.sampled_from(["<", "/", " ", "sample", "SAMPLE", ">", "x", "\n", "&lt;"])).map("".join))
def test_no_arrangement_of_fences_survives(text: str) -> None:
    unfenced = tiny.QUESTION.unfenced(text)
    assert not re.search(r"</?sample\b", unfenced, re.IGNORECASE)
    assert tiny.QUESTION.unfenced(unfenced) == unfenced
    assert unfenced.split() == text.split() or "".join(unfenced.split()) == "".join(text.split())


def test_text_that_is_no_fence_stays_as_it_is() -> None:
    text = "a < b, <samples>, <b>bold</b>, 'sample', x<sampler>"
    assert text in last(load_question("alignment"), input=text)


@pytest.mark.parametrize("text", ["${name}", "$name", "$$", "${", "$", "${unheard}", "{name}", "%(name)s", "\\1"])
def test_placeholders_in_a_sample_are_text(text: str) -> None:
    found = last(load_question("alignment"), input=f"[{text}]", output=text, name="NAME")
    assert f"[{text}]" in found
    assert found.count("NAME") == last(load_question("alignment"), name="NAME").count("NAME")


def test_sample_and_subgoal_stand_in_their_order_and_the_rubric_before() -> None:
    prompt = tiny.prompt(tiny.SAMPLES[0], tiny.SUBGOALS[0])
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user"]
    text = prompt.messages[-1].content
    assert text.index("joins two ropes") < text.index("sheet bend") < text.index("Explains knots")
    assert prompt.messages[0].content == tiny.QUESTION.shared


def test_the_shared_part_is_how_every_prompt_begins() -> None:
    for asking in (None, "score"):
        prompts = [tiny.prompt(sample, goal, asking) for sample in tiny.SAMPLES for goal in tiny.SUBGOALS]
        assert len({prompt.shared for prompt in prompts}) == 1
        for prompt in prompts:
            *before, beginning = prompt.shared
            assert prompt.messages[: len(before)] == tuple(before)
            assert prompt.messages[len(before)].content.startswith(beginning.content)
    bare = replace(tiny.QUESTION, parts=("${input}\n",))
    assert bare.prompt(TEXTS).shared == bare.prompt(TEXTS).messages[:-1]


def test_examples_show_the_answer_no_further_than_it_is_asked_for() -> None:
    question = load_question("alignment")
    for message in question.prompt(TEXTS, asking="score").messages:
        if message.role == "assistant":
            assert list(json.loads(message.content)) == ["score"]
    for message in question.prompt(TEXTS).messages:
        if message.role == "assistant":
            assert question.read(message.content)


def test_examples_are_whole_where_the_rest_of_the_answer_is_written() -> None:
    question = load_question("alignment")
    for asking, known in (("score", {}), ("explanation", {"score": 0.4})):
        cut = question.prompt(TEXTS, known, asking=asking)
        shown = question.prompt(TEXTS, known, asking=asking, whole=True)
        assert shown.messages == question.prompt(TEXTS).messages
        assert (shown.prefill, shown.messages[-1]) == (cut.prefill, cut.messages[-1])


def test_without_examples_there_is_the_rubric_alone() -> None:
    question = load_question("alignment")
    assert len(question.prompt(TEXTS).messages) == 2 + 2 * len(question.examples)
    assert len(question.without_examples().prompt(TEXTS).messages) == 2


@pytest.mark.parametrize("order", ORDERS)
@given(
    score=st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    explanation=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20),
)
def test_an_answer_is_its_beginning_and_what_the_grammar_lets_follow(
    order: Order, score: float, explanation: str
) -> None:
    question = load_question("alignment", order=order)
    answer = {"score": score, "explanation": explanation}
    whole = question.written(answer)
    assert question.read(whole) == answer
    for position, asking in enumerate(question.fields):
        known = {field: answer[field] for field in question.fields[:position]}
        prefill = question.prompt(TEXTS, known, asking=asking).prefill
        assert whole.startswith(prefill)
        assert legal(whole.removeprefix(prefill), question.grammar(asking=asking))
        assert not legal(whole, question.grammar(asking=asking)) or not prefill


def test_equal_questions_have_equal_digests() -> None:
    assert load_question("alignment").digest == load_question("alignment").digest
    assert load_question("alignment").digest != load_question("alignment", order="reason-first").digest


def _other_answer(example: dict[str, Any]) -> dict[str, Any]:
    return {**example, "answer": {**example["answer"], "score": 0.2}}


@pytest.mark.parametrize(
    "changed",
    [
        lambda q: replace(q, shared=q.shared + "."),
        lambda q: replace(q, parts=(q.parts[0] + "\n", q.parts[1])),
        lambda q: replace(q, parts=(q.parts[0], q.parts[1] + "?")),
        lambda q: replace(q, form=JsonForm({**tiny.SCHEMA, "properties": dict(reversed(tiny.PROPERTIES.items()))})),
        lambda q: replace(q, form=JsonForm({**tiny.SCHEMA, "title": "Another"})),
        lambda q: replace(q, form=LineForm("(?P<explanation>[a-z]+) so (?P<score>[0-5])")),
        lambda q: replace(q, single_turn=True),
        lambda q: q.without_examples(),
        lambda q: replace(q, examples=(*q.examples, *q.examples)),
        lambda q: replace(q, examples=(_other_answer(q.examples[0]), *q.examples[1:])),
    ],
)
def test_the_digest_hears_every_part(changed: Callable[[Question], Question]) -> None:
    assert changed(tiny.QUESTION).digest != tiny.QUESTION.digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the questions that ship, to be damaged."""
    shutil.copytree(shipped("grammars"), tmp_path / "grammars")
    return tmp_path / "grammars"


def test_a_copied_folder_is_the_same_question(folder: Path) -> None:
    assert load_question("alignment", folder=folder).digest == load_question("alignment").digest


@pytest.mark.parametrize("name", ["prompt.md", "answer.schema.json", "examples.jsonl"])
def test_a_missing_part_is_named(folder: Path, name: str) -> None:
    (folder / "alignment" / name).unlink()
    with pytest.raises(QuestionError, match=re.escape(name)) as caught:
        load_question("alignment", folder=folder)
    assert "holds" in caught.value.mend and "package" not in caught.value.mend


def test_a_folder_that_cannot_be_named_is_told_so(folder: Path) -> None:
    (folder / "alignment").rename(folder / "My_alignment")
    with pytest.raises(QuestionError, match="cannot be called 'My_alignment'"):
        load_question("My_alignment", folder=folder)


def test_an_unknown_question_is_named() -> None:
    with pytest.raises(QuestionError, match="unheard-of"):
        load_question("unheard-of")


def test_an_order_that_a_question_has_not_is_an_error(folder: Path) -> None:
    (folder / "alignment" / "answer.reason-first.schema.json").unlink()
    with pytest.raises(QuestionError, match="reason-first"):
        load_question("alignment", order="reason-first", folder=folder)


NO_TEXT = dict.fromkeys(("input", "output", "name", "description"), "")
SCORE = {"score": {"enum": [0.0]}}
WHOLE = {"type": "object", "properties": SCORE, "required": ["score"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompt.md", "No parts at all."),
        ("prompt.md", "<!-- per sample -->\nA\n<!-- shared -->\nB\n<!-- per subgoal -->\nC"),
        ("prompt.md", "<!-- shared -->\nA\n<!-- per sample -->\nB"),
        ("prompt.md", "<!-- shared -->\nA\n<!-- per sample -->\n${input\n<!-- per subgoal -->\nC"),
        ("prompt.md", "<!-- shared -->\nA\n<!-- per sample -->\nFor $5\n<!-- per subgoal -->\nC"),
        ("prompt.md", "<!-- shared -->\nA\n<!-- per sample -->\n${unheard}\n<!-- per subgoal -->\nC"),
        ("prompt.md", "<!-- shared -->\n${input}\n<!-- per sample -->\n${output}"),
        ("prompt.md", b"\xff\xfe"),
        ("answer.schema.json", "{"),
        ("answer.schema.json", "[]"),
        ("answer.schema.json", "{}"),
        pytest.param("answer.schema.json", '{"properties":' * 100_000, id="deep"),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": ["score"]})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": {"score": 1}})),
        ("answer.schema.json", json.dumps({**WHOLE, "required": 1})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": {"score": {"enum": [0.0, "a"]}}})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": {"score": {"type": "string", "pattern": 5}}})),
        pytest.param("examples.jsonl", "[" * 100_000, id="deep examples"),
        pytest.param("prompt.md", "<!-- shared -->\n" + "x" * 4_000_000, id="large"),
        ("examples.jsonl", '{"fields": [1], "answer": {"score": 1.0, "explanation": ""}}'),
        (
            "examples.jsonl",
            json.dumps({"fields": {**NO_TEXT, "input": []}, "answer": {"score": 1.0, "explanation": ""}}),
        ),
        ("answer.schema.json", '{"properties": {}}'),
        ("answer.schema.json", json.dumps({"type": "object", "properties": SCORE})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": {"score": {"type": "banana"}}})),
        ("answer.schema.json", json.dumps({**WHOLE, "required": 5})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": ["score"]})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": {"score": [0.0]}})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": {"score": {"enum": [0.0, None, "1"]}}})),
        ("answer.schema.json", json.dumps({**WHOLE, "properties": {"score": {"enum": 0.0}}})),
        ("answer.regex", "(?P<score>[0-5])"),
        ("examples.jsonl", "[" * 100_000),
        ("examples.jsonl", "no JSON"),
        ("examples.jsonl", "[]"),
        ("examples.jsonl", "{}"),
        ("examples.jsonl", '{"fields": {}, "answer": {"score": 1.0, "explanation": ""}}'),
        ("examples.jsonl", '{"fields": {"input": "", "output": "", "name": "", "description": ""}, "answer": {}}'),
    ],
)
def test_a_malformed_part_is_an_error_with_a_mend(folder: Path, name: str, content: str | bytes) -> None:
    (folder / "alignment" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(QuestionError) as caught:
        load_question("alignment", folder=folder)
    assert "alignment" in caught.value.problem and caught.value.mend


SHOWN: dict[str, Any] = {"fields": dict.fromkeys(TEXTS, "secret"), "answer": {"score": 1.0, "explanation": "so"}}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"fields": "secret', "column 12"),
        (b"[]", "not a JSON object"),
        (b"\xe9", "not UTF-8"),
        (json.dumps({**SHOWN, "answer": {"score": 1.0}}).encode(), "no explanation"),
        (json.dumps({**SHOWN, "answer": {"score": 1.5, "explanation": "so"}}).encode(), "none of those permitted"),
        (json.dumps({**SHOWN, "answer": {"score": "1.0", "explanation": "so"}}).encode(), "none of those permitted"),
        (json.dumps({**SHOWN, "fields": list(TEXTS)}).encode(), "in its fields"),
        (json.dumps({**SHOWN, "fields": {**SHOWN["fields"], "input": 3}}).encode(), "no text"),
    ],
)
def test_an_example_amiss_is_told_with_its_line_and_without_its_text(folder: Path, line: bytes, told: str) -> None:
    file = folder / "alignment" / "examples.jsonl"
    file.write_bytes(json.dumps(SHOWN).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(QuestionError, match=told) as caught:
        load_question("alignment", folder=folder)
    assert f"{file}, line 3" in caught.value.problem and "secret" not in str(caught.value) and caught.value.mend


@pytest.mark.parametrize("change", [lambda held: b"\xef\xbb\xbf" + held, lambda held: held.replace(b"\n", b"\r\n")])
def test_what_other_editors_write_is_the_same_question(folder: Path, change: Callable[[bytes], bytes]) -> None:
    for file in (folder / "alignment").iterdir():
        file.write_bytes(change(file.read_bytes()))
    assert load_question("alignment", folder=folder).digest == load_question("alignment").digest


def test_lines_end_at_line_ends_only(folder: Path) -> None:
    """A line separator of Unicode may stand in an example as it may in a sample."""
    file = folder / "alignment" / "examples.jsonl"
    text = file.read_text(encoding="utf-8")
    first = json.loads(text.split("\n")[0])
    first["fields"]["input"] = "one\u2028two\x85three"
    file.write_text(json.dumps(first, ensure_ascii=False) + "\n" + text, encoding="utf-8")
    assert load_question("alignment", folder=folder).examples[0] == first


def test_two_dollars_in_a_prompt_are_one_to_the_model(folder: Path) -> None:
    file = folder / "alignment" / "prompt.md"
    text = file.read_text(encoding="utf-8").replace("<sample>\n", "<sample>\nWorth $$5\n", 1)
    file.write_text(text, encoding="utf-8")
    prompt = load_question("alignment", folder=folder).prompt(TEXTS)
    assert "Worth $5" in prompt.messages[-1].content
    assert prompt.messages[-1].content.startswith(prompt.shared[-1].content)


def test_a_sample_of_blanks_behind_a_bracket_takes_linear_time() -> None:
    question = load_question("alignment")
    assert question.unfenced("<" + " " * 200_000) == "<" + " " * 200_000
    assert question.unfenced("<" + " " * 50 + "/ sample>") == "< / sample>"


@pytest.mark.parametrize("single_turn", [False, True], ids=["with-system", "one-turn"])
@pytest.mark.parametrize("name", PINNED)
def test_what_a_model_reads_is_pinned(name: str, single_turn: bool) -> None:
    """Each way in which it is asked, one after the other; GOALCOVER_GOLDEN=write says that a change was meant."""
    question = load_question(name, single_turn=single_turn)
    texts = {field: f"<{field}> ${{name}} $$ {field}." for field in question.placeholders}
    found = ""
    for known in [{}, PINNED[name]] if PINNED[name] else [{}]:
        asking = question.fields[len(known)]
        assert isinstance(question.form, JsonForm)
        whole = not question.form.choices(asking)  # what is written is shown whole examples, see Asker.write
        found += rendered(question, question.prompt(texts, known, asking=asking, whole=whole), asking)
    file = GOLDEN / f"{name}.{'one-turn' if single_turn else 'with-system'}.txt"
    if os.environ.get("GOALCOVER_GOLDEN") == "write":
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")
    for text in texts.values():
        assert question.unfenced(text) in found


def test_every_question_is_known_here() -> None:
    """A new folder is pinned and tested like the others."""
    rewards = {"financial-summary", "lay-summary"}  # pinned in test_rubric
    assert set(FOLDERS) == {*PINNED, *rewards, "alignment", "prometheus", "prometheus-native"}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folders_cases_are_taken_or_refused_as_they_say(name: str) -> None:
    cases = read_lines(shipped("grammars") / name / "cases.jsonl")
    assert {case["legal"] for case in cases} == {True, False}
    for case in cases:
        question = load_question(name, order=case.get("order"))
        assert legal(case["answer"], question.grammar()) == case["legal"], case
        assert (question.read(case["answer"]) is not None) == case["legal"]


@pytest.mark.parametrize("name", FOLDERS)
def test_every_example_is_legal_and_about_what_the_prompt_asks(name: str) -> None:
    question = load_question(name)
    assert bool(question.examples) != (name in BARE)
    for example in question.examples:
        assert set(example["fields"]) == set(question.placeholders), example
        assert tuple(example["answer"]) == question.fields
        whole = question.written(example["answer"])
        assert question.read(whole) == example["answer"]
        for place, asking in enumerate(question.fields):
            known = {field: example["answer"][field] for field in question.fields[:place]}
            begun = question.prompt(example["fields"], known, asking=asking).prefill
            assert legal(whole.removeprefix(begun), question.grammar(asking=asking))


@pytest.mark.parametrize(
    "name",
    [name for name in FOLDERS if (shipped("grammars") / name / "reference.jsonl").exists() and name in PINNED],
)
def test_every_reference_case_has_a_legal_answer_and_none_is_an_example(name: str) -> None:
    question, cases = load_question(name), reference_cases(name)
    assert isinstance(question.form, JsonForm)
    first = question.fields[0]
    shown = [example["fields"] for example in question.examples]
    answered = []
    for case in cases:
        assert set(case["fields"]) == set(question.placeholders), case
        assert case["fields"] not in shown, "the model would have read the answer"
        choice = json.dumps(case["answer"][first], ensure_ascii=False)
        assert choice in question.form.choices(first)
        assert legal(question.form.begun({}, first) + choice, question.grammar(), complete=False)
        answered.append(choice)
    assert len({json.dumps(case["fields"], sort_keys=True) for case in cases}) == len(cases)
    for choice in question.form.choices(first):
        assert answered.count(choice) >= 2, f"{choice} is hardly measured"


def test_the_aspects_are_what_a_sentence_can_tell() -> None:
    form = load_question("completeness").form
    assert isinstance(form, JsonForm)
    aspects = read_lines(shipped("grammars") / "clarifying-question" / "aspects.jsonl")
    assert [json.dumps(aspect["name"]) for aspect in aspects] == list(form.choices("tells"))
    asked = {example["fields"]["aspect"] for example in load_question("clarifying-question").examples}
    assert asked <= {aspect["asks"] for aspect in aspects}
    for aspect in aspects:
        assert aspect["question"].endswith("?") and aspect["asks"] and "  " not in aspect["question"]


@pytest.mark.parametrize("n_parts", [1, 2, 3, 5])
@pytest.mark.parametrize("single_turn", [False, True])
def test_a_question_has_any_number_of_parts(folder: Path, n_parts: int, single_turn: bool) -> None:
    names = ["statement", *(f"text{n}" for n in range(1, n_parts))]
    parts = [f"<!-- per part {'abcde'[n]} -->\n{name} is ${{{name}}}\n" for n, name in enumerate(names)]
    home = folder / "completeness"
    (home / "prompt.md").write_text("<!-- shared -->\nSay it.\n" + "".join(parts), encoding="utf-8")
    example = {"fields": dict.fromkeys(names, "so"), "answer": {"tells": "users"}}
    (home / "examples.jsonl").write_text(json.dumps(example) + "\n", encoding="utf-8")
    question = load_question("completeness", single_turn=single_turn, folder=folder)
    assert len(question.parts) == n_parts and question.placeholders == tuple(names)
    prompt = question.prompt({name: name.upper() for name in names})
    asked = "\n".join(f"{name} is {name.upper()}" for name in names)
    assert prompt.messages[-1].content.removesuffix("\nAnswer:").endswith(asked)
    assert prompt.messages[-1].content.startswith(prompt.shared[-1].content)
