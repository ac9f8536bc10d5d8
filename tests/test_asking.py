"""Questions put to a model: what is asked, what is remembered, and what its decisions are worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from clarifier import DECIDED, Clarifier
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.asking import Asker, Fitness, ways
from goalcover_local.engines.base import Choices, Prompt
from goalcover_local.questions import reference_cases

BATCH = 32


class Swayed(Clarifier):
    """Answers by the rules, with each row of probabilities changed as `sway` says; None makes it a failure."""

    def __init__(self, sway: Callable[[Prompt, np.ndarray], np.ndarray | None]) -> None:
        super().__init__()
        self.sway = sway

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        chosen = super().choose(prompts, answers)
        rows, failures = [], []
        for prompt, row in zip(prompts, chosen.probabilities, strict=True):
            swayed = self.sway(prompt, row)
            failures.append("scripted failure" if swayed is None else None)
            rows.append(np.full(len(row), np.nan) if swayed is None else swayed / swayed.sum())
        return Choices(np.array(rows), tuple(failures), len(prompts))


class Other(Clarifier):
    """Another model."""

    def describe(self) -> Mapping[str, str]:
        return {**super().describe(), "weights": "others"}


def about(*names: str) -> list[dict[str, str]]:
    """Texts of the question `description`."""
    return [{"goal": "Help", "others": "none", "name": name} for name in names]


def named(*names: str) -> list[dict[str, str]]:
    """Texts of the question `atomicity`."""
    return [{"name": name, "description": "What it says."} for name in names]


MANY = [f"Thing {n}" for n in range(70)]


def interrupting(engine: Clarifier, number: int) -> Clarifier:
    """The engine, which is stopped from outside before its batch of that number, counted from now on."""
    left = [number]

    def stop(_: Sequence[Prompt]) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    engine.before = stop
    return engine


# Writing


def test_answers_come_in_the_order_of_the_texts_and_duplicates_are_asked_once() -> None:
    engine = Clarifier()
    names = ["B", "A", "B", "C", "A"]
    answers = Asker(engine).write("description", about(*names), max_tokens=20)
    assert [answer.fields["description"] for answer in answers if answer.fields] == [f"All about {n}." for n in names]
    assert len(engine.history) == 3


def test_nothing_to_ask_is_nothing_asked() -> None:
    engine, kept = Clarifier(), list[int]()
    asker = Asker(engine, keep=lambda: kept.append(1))
    assert asker.write("description", [], max_tokens=20) == []
    assert engine.history == [] and kept == [] and sum(asker.failures.values()) == 0


def test_what_was_answered_is_not_asked_again_by_whoever_has_the_memory() -> None:
    memory: dict[str, object] = {}
    first = Asker(Clarifier(), memory=memory).write("description", about("A", "B"), max_tokens=20)
    engine = Clarifier()
    assert Asker(engine, memory=memory).write("description", about("B", "A"), max_tokens=20) == first[::-1]
    assert engine.history == []


@pytest.mark.parametrize(
    ("engine", "manner"),
    [
        (Other(), {}),
        (Clarifier(), {"seed": 1}),
        (Clarifier(), {"temperature": 0.5}),
        (Clarifier(), {"max_tokens": 21}),
        (Clarifier(), {"known": {"description": "All about A."}}),
    ],
    ids=["model", "seed", "temperature", "max_tokens", "known"],
)
def test_an_answer_of_another_model_or_manner_is_not_taken(engine: Clarifier, manner: dict[str, object]) -> None:
    memory: dict[str, object] = {}
    Asker(Clarifier(), memory=memory).write("description", about("A"), max_tokens=20)
    Asker(engine, memory=memory).write("description", about("A"), **{"max_tokens": 20, **manner})  # type: ignore[arg-type]
    assert len(engine.history) == 1


def numbering(engine: Clarifier) -> Clarifier:
    """The engine, which writes another description each time it is asked for one."""
    engine.written["description"] = lambda texts: {
        "description": f"All about {texts['name']}, {len(engine.history)}.",
        "evidence": "The input is.",
    }
    return engine


def described(asker: Asker, *names: str, temperature: float, seed: int = 0) -> list[str]:
    """The descriptions that it writes of these, in their order."""
    written = asker.write("description", about(*names), max_tokens=20, temperature=temperature, seed=seed)
    return [answer.fields["description"] for answer in written if answer.fields]


def test_equal_texts_that_are_sampled_have_an_answer_each_and_all_are_remembered() -> None:
    memory: dict[str, object] = {}
    engine = numbering(Clarifier())
    written = described(Asker(engine, memory=memory), "A", "B", "A", temperature=0.7)
    assert written == ["All about A, 1.", "All about B, 2.", "All about A, 3."]
    assert len(engine.history) == len(memory) == 3
    again = numbering(Clarifier())
    assert described(Asker(again, memory=memory), "A", "A", "B", temperature=0.7) == [
        written[0],
        written[2],
        written[1],
    ]
    assert described(Asker(again, memory=memory), "A", temperature=0.7) == written[:1]
    assert again.history == []
    more = described(Asker(again, memory=memory), "A", "A", "A", temperature=0.7)
    assert more[:2] == [written[0], written[2]] and len(memory) == 4
    assert len(again.history) == 3, "a batch is drawn by lot as a whole"


def test_a_sampled_batch_of_which_something_is_missing_is_asked_whole_and_what_is_remembered_stays() -> None:
    memory: dict[str, object] = {}
    engine = numbering(Clarifier())
    engine.fails_on = MANY[40]
    asker = Asker(engine, memory=memory)
    first = asker.write("description", about(*MANY), max_tokens=20, temperature=0.7)
    assert [answer.failure for answer in first].count("scripted failure") == 1 and len(memory) == 69
    again = numbering(Clarifier())
    found = Asker(again, memory=memory).write("description", about(*MANY), max_tokens=20, temperature=0.7)
    question = asker.question("description")
    second = [question.prompt(text, asking=question.fields[0], whole=True) for text in about(*MANY[BATCH : 2 * BATCH])]
    assert again.history == second
    assert found[:40] + found[41:] == first[:40] + first[41:] and found[40].fields is not None


def test_equal_texts_have_one_answer_at_temperature_0() -> None:
    engine = numbering(Clarifier())
    assert described(Asker(engine), "A", "A", temperature=0) == ["All about A, 1."] * 2
    assert len(engine.history) == 1


def test_a_sampled_answer_that_fails_is_asked_again_in_its_place() -> None:
    memory: dict[str, object] = {}
    engine = numbering(Clarifier())
    asker = Asker(engine, memory=memory)
    first = described(asker, "A", temperature=0.7)
    engine.fails_on = "A"
    both = asker.write("description", about("A", "A"), max_tokens=20, temperature=0.7)
    assert both[0].fields and both[1].failure == "scripted failure" and len(memory) == 1
    engine.fails_on = ""
    again = described(asker, "A", "A", temperature=0.7)
    assert again[:1] == first and again[1] != first[0] and len(memory) == 2


def test_what_is_written_is_shown_whole_examples_and_what_is_decided_no_more_than_the_choice() -> None:
    engine = Clarifier()
    asker = Asker(engine)
    asker.write("description", about("A"), max_tokens=20)
    asker.write("atomicity", named("A and B"), known={"kind": "several"}, max_tokens=20)
    written = list(engine.history)
    asker.probabilities("atomicity", named("A and B"))
    shown = [
        [json.loads(m.content) for m in p.messages if m.role == "assistant"] for p in (*written, engine.history[-1])
    ]
    whole = [[example["answer"] for example in asker.question(n).examples] for n in ("description", "atomicity")]
    assert shown == [*whole, [{"kind": answer["kind"]} for answer in whole[1]]]
    assert len(whole[0]) > 1 and all(len(answer) > 1 for answer in whole[0] + whole[1])


def test_an_answer_about_other_texts_is_not_taken() -> None:
    engine = Clarifier()
    asker = Asker(engine)
    for text in about("A", "a"), [{**about("A")[0], "goal": "Hinder"}], [{**about("A")[0], "others": "B"}]:
        asker.write("description", text, max_tokens=20)
    assert len(engine.history) == 4


def test_a_decision_is_no_answer_and_an_answer_no_decision() -> None:
    engine = Clarifier()
    asker = Asker(engine)
    asker.decide("atomicity", named("A and B"))
    before = len(engine.history)
    asker.write("atomicity", named("A and B"), known={"kind": "several"}, max_tokens=20)
    assert len(engine.history) == before + 1


def test_a_failure_is_counted_says_why_and_is_asked_again() -> None:
    engine = Clarifier()
    engine.fails_on = "Volcano"
    memory: dict[str, object] = {}
    asker = Asker(engine, memory=memory)
    answers = asker.write("description", about("A", "Volcano", "B"), max_tokens=20)
    assert [answer.fields is None for answer in answers] == [False, True, False]
    assert [answer.failure for answer in answers] == [None, "scripted failure", None]
    assert sum(asker.failures.values()) == 1 and len(memory) == 2
    engine.fails_on, before = "", len(engine.history)
    assert asker.write("description", about("A", "Volcano"), max_tokens=20)[1].fields is not None
    assert len(engine.history) == before + 1 and sum(asker.failures.values()) == 1


def test_an_answer_that_the_grammar_refuses_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an engine says of itself: each answer is replayed before it is taken."""
    engine = Clarifier()
    generate = engine.generate

    def cut(*args: object, **kwargs: object) -> list[object]:
        from dataclasses import replace

        return [replace(each, text=each.text[:-1]) for each in generate(*args, **kwargs)]  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "generate", cut)
    memory: dict[str, object] = {}
    asker = Asker(engine, memory=memory)
    [answer] = asker.write("description", about("A"), max_tokens=20)
    assert answer.fields is None and answer.failure and sum(asker.failures.values()) == 1 and not memory


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("verb", ["write", "decide"])
def test_an_interruption_loses_at_most_its_batch(number: int, verb: str, tmp_path: Path) -> None:
    texts = about(*MANY) if verb == "write" else named(*MANY)

    def ask(engine: Clarifier, memory: dict[str, object], stored: dict[str, object]) -> Sequence[object]:
        asker = Asker(engine, memory=memory, home=tmp_path, keep=lambda: stored.update(memory))
        return asker.write("description", texts, max_tokens=20) if verb == "write" else asker.decide("atomicity", texts)

    Asker(Clarifier(), home=tmp_path).fitness("atomicity")
    stored: dict[str, object] = {}
    engine = interrupting(Clarifier(), number)
    with pytest.raises(KeyboardInterrupt):
        ask(engine, {}, stored)
    assert len(stored) == (number - 1) * BATCH == len(engine.history)
    fresh = Clarifier()
    assert ask(fresh, dict(stored), {}) == ask(Clarifier(), {}, {})
    assert len(fresh.history) == len(MANY) - len(stored)


@pytest.mark.parametrize("stopped", [False, True])
def test_whoever_watches_sees_every_answer_come_and_the_end(stopped: bool) -> None:
    seen: list[object] = []

    @contextmanager
    def watch(what: str, n: int) -> Iterator[Callable[[int], None]]:
        seen.append((what, n))
        try:
            yield seen.append
        finally:
            seen.append("end")

    asker = Asker(interrupting(Clarifier(), 2 if stopped else 0), watch=watch)
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            asker.write("description", about(*MANY), max_tokens=20)
        assert seen == [("description", 70), 32, "end"]
    else:
        asker.write("description", about(*MANY), max_tokens=20)
        asker.write("description", about(*MANY), max_tokens=20)
        assert seen == [("description", 70), 32, 32, 6, "end"]


# Deciding


def test_decisions_are_probabilities_in_the_order_of_the_texts() -> None:
    asker = Asker(Clarifier())
    decided = asker.decide("atomicity", named("A", "A and B", "C"))
    assert [max(choices, key=choices.__getitem__) for choices in decided if choices] == ["one", "several", "one"]
    for choices in decided:
        assert choices is not None and tuple(choices) == asker.choices("atomicity")
        assert sum(choices.values()) == pytest.approx(1, abs=1e-12)
        assert max(choices.values()) == pytest.approx(0.9, abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(name=st.sampled_from(DECIDED), data=st.data())
def test_what_a_model_favours_whatever_it_is_asked_does_not_matter(name: str, data: st.DataObject) -> None:
    """Constant log-odds in favour of any choice are the bias, and are taken off whole."""
    fair = Asker(Clarifier())
    odds = np.array([data.draw(st.floats(-8, 8)) for _ in fair.choices(name)])
    swayed = Asker(Swayed(lambda _, row: row * np.exp(odds)))
    texts = [case["fields"] for case in reference_cases(name)[::3]]
    assert swayed.fitness(name).accuracy == fair.fitness(name).accuracy == 1
    for mine, yours in zip(swayed.decide(name, texts), fair.decide(name, texts), strict=True):
        assert mine == pytest.approx(yours, abs=1e-6)


def test_pairs_are_asked_in_both_orders_and_averaged() -> None:
    """The mean of the log-probabilities of both orders, with the bias off."""
    shares = {"Alps": 0.8, "Bees": 0.3}

    def sway(prompt: Prompt, row: np.ndarray) -> np.ndarray:
        for word, share in shares.items():
            if f"First capability: {word}" in prompt.messages[-1].content:
                return np.array([1 - share, share])
        return row

    engine = Swayed(sway)
    asker = Asker(engine)
    pair = {"first": "Alps: a", "second": "Bees: b"}
    bias = np.array(asker.fitness("overlap").bias)
    before = len(engine.history)
    decided = asker.decide("overlap", [pair, {"first": pair["second"], "second": pair["first"]}])
    assert len(engine.history) == before + 2
    logs = (np.log([0.2, 0.8]) + np.log([0.7, 0.3])) / 2 - bias
    expected = np.exp(logs) / np.exp(logs).sum()
    for choices in decided:
        assert choices is not None and list(choices.values()) == pytest.approx(expected)


def test_only_pairs_have_two_ways_of_being_asked() -> None:
    assert ways({"first": "a", "second": "b"}) == [{"first": "a", "second": "b"}, {"first": "b", "second": "a"}]
    assert ways({"name": "a", "description": "b"}) == [{"name": "a", "description": "b"}]


def test_a_failed_decision_is_none_counted_not_remembered_and_asked_again() -> None:
    engine = Clarifier()
    engine.fails_on = "Volcano"
    memory: dict[str, object] = {}
    asker = Asker(engine, memory=memory)
    decided = asker.decide("atomicity", named("A", "Volcano"))
    assert [choices is None for choices in decided] == [False, True]
    assert sum(asker.failures.values()) == 1 and len(memory) == 1
    engine.fails_on, before = "", len(engine.history)
    assert None not in asker.decide("atomicity", named("A", "Volcano"))
    assert len(engine.history) == before + 1


def test_a_pair_that_fails_in_one_order_is_not_decided_by_the_other() -> None:
    engine = Clarifier()
    engine.fails_on = "Second capability: Bees"
    asker = Asker(engine)
    assert asker.decide("overlap", [{"first": "Alps: a", "second": "Bees: b"}]) == [None]
    engine.fails_on, before = "", len(engine.history)
    assert asker.decide("overlap", [{"first": "Alps: a", "second": "Bees: b"}]) != [None]
    assert len(engine.history) == before + 1


def test_impossible_choices_leave_finite_probabilities() -> None:
    asker = Asker(Swayed(lambda _, row: np.where(row > 0.5, 1.0, 0.0)))
    for choices in asker.decide("atomicity", named("A", "A and B")):
        assert choices is not None and sum(choices.values()) == pytest.approx(1)


# Fitness


@pytest.mark.parametrize("name", DECIDED)
def test_a_model_that_is_always_right_is_fit(name: str) -> None:
    fitness = Asker(Clarifier()).fitness(name)
    assert fitness.accuracy == 1 and fitness.fit and fitness.n_cases == len(reference_cases(name))


@pytest.mark.parametrize("name", DECIDED)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_model_that_always_says_the_same_decides_by_chance(name: str, data: st.DataObject) -> None:
    """Rounding must not tell the case that was left out from the others."""
    n = len(Asker(Clarifier()).choices(name))
    said = np.array([data.draw(st.floats(0.01, 1)) for _ in range(n)])
    fitness = Asker(Swayed(lambda _, row: said)).fitness(name)
    assert fitness.accuracy <= 1 / n + 1e-9 and not fitness.fit


def test_a_model_that_always_says_the_contrary_is_unfit() -> None:
    fitness = Asker(Swayed(lambda _, row: row[::-1])).fitness("atomicity")
    assert fitness.accuracy == 0 and not fitness.fit


def test_accuracy_leaves_each_case_out_and_weighs_choices_alike() -> None:
    """By hand: the share decided well of each right answer, by the bias of the other cases, and their mean."""
    rng = np.random.default_rng(3)
    shares = iter(rng.dirichlet((1, 1), size=40))
    told: dict[str, np.ndarray] = {}
    asker = Asker(Swayed(lambda prompt, _: told.setdefault(prompt.messages[-1].content, next(shares))))
    cases = reference_cases("atomicity")
    fitness = asker.fitness("atomicity")
    question = asker.question("atomicity")
    logs = np.log([told[question.prompt(case["fields"], asking="kind").messages[-1].content] for case in cases])
    kinds = np.array([case["answer"]["kind"] for case in cases])
    well: dict[str, list[bool]] = {"one": [], "several": []}
    for k, kind in enumerate(kinds):
        rest = np.arange(len(cases)) != k
        bias = (logs[rest & (kinds == "one")].mean(axis=0) + logs[rest & (kinds == "several")].mean(axis=0)) / 2
        well[kind].append(("one", "several")[int((logs[k] - bias).argmax())] == kind)
    assert fitness.accuracy == pytest.approx(np.mean([np.mean(each) for each in well.values()]))
    whole = (logs[kinds == "one"].mean(axis=0) + logs[kinds == "several"].mean(axis=0)) / 2
    assert fitness.bias == pytest.approx(tuple(whole))


@pytest.mark.parametrize("n", [2, 6])
def test_fit_is_nearer_to_right_than_to_chance(n: int) -> None:
    middle = (1 + 1 / n) / 2
    assert Fitness((0.0,) * n, middle, 20).fit
    assert not Fitness((0.0,) * n, middle - 0.01, 20).fit


def failing_after(number: int) -> Swayed:
    left = iter(range(1000))
    return Swayed(lambda _, row: row if next(left) < number else None)


@pytest.mark.parametrize("answered", [0, 1, 3])
def test_too_few_answered_cases_make_a_model_unfit(answered: int) -> None:
    fitness = Asker(failing_after(answered)).fitness("atomicity")
    assert not fitness.fit and fitness.n_cases == answered and fitness.bias == (0.0, 0.0)


def test_cases_of_one_answer_alone_make_a_model_unfit() -> None:
    several = [case["fields"]["name"] for case in reference_cases("atomicity") if case["answer"]["kind"] == "several"]

    def sway(prompt: Prompt, row: np.ndarray) -> np.ndarray | None:
        said = prompt.messages[-1].content
        return None if any(f"Capability: {name}\n" in said for name in several) else row

    fitness = Asker(Swayed(sway)).fitness("atomicity")
    assert not fitness.fit and fitness.n_cases == len(reference_cases("atomicity")) - len(several)


def test_failures_of_reference_cases_are_not_failures_of_the_work() -> None:
    asker = Asker(failing_after(3))
    asker.fitness("atomicity")
    assert sum(asker.failures.values()) == 0


# Reference answers that are kept


def test_reference_answers_are_kept_for_this_model_and_reused(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "references"
    first = Asker(Clarifier(), home=home)
    before = {name: first.fitness(name) for name in DECIDED}
    engine = Clarifier()
    asker = Asker(engine, home=home)
    assert {name: asker.fitness(name) for name in DECIDED} == before
    assert engine.history == []
    assert [file.name for file in home.iterdir()] == [f"{asker.digest}.json"]


def test_reference_answers_of_another_model_are_not_taken(tmp_path: Path) -> None:
    Asker(Clarifier(), home=tmp_path).fitness("atomicity")
    other = Other()
    Asker(other, home=tmp_path).fitness("atomicity")
    assert len(other.history) == len(reference_cases("atomicity"))
    assert len(list(tmp_path.iterdir())) == 2


def test_reference_answers_are_no_part_of_a_goals_memory(tmp_path: Path) -> None:
    memory: dict[str, object] = {}
    Asker(Clarifier(), memory=memory, home=tmp_path).fitness("atomicity")
    assert memory == {}


def test_reference_answers_are_kept_batch_by_batch(tmp_path: Path) -> None:
    """An interruption while a model is measured for the first time loses at most a batch there too."""
    n_asked = sum(len(ways(case["fields"])) for case in reference_cases("overlap"))
    assert n_asked > BATCH
    with pytest.raises(KeyboardInterrupt):
        Asker(interrupting(Clarifier(), 2), home=tmp_path).fitness("overlap")
    engine = Clarifier()
    assert Asker(engine, home=tmp_path).fitness("overlap").accuracy == 1
    assert len(engine.history) == n_asked - BATCH


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"null", b'"x"', b"\xff\xfe", b"[[1]]"])
def test_a_damaged_file_of_reference_answers_is_ignored_and_replaced(tmp_path: Path, content: bytes) -> None:
    asker = Asker(Clarifier(), home=tmp_path)
    file = tmp_path / f"{asker.digest}.json"
    file.write_bytes(content)
    assert asker.fitness("atomicity").accuracy == 1
    assert len(json.loads(file.read_text())) == len(reference_cases("atomicity"))


def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        assert Asker(Clarifier(), home=home).fitness("atomicity").accuracy == 1
    assert (tmp_path / "file").read_text() == ""


def test_the_digest_names_the_model() -> None:
    assert Asker(Clarifier()).digest == Asker(Clarifier()).digest != Asker(Other()).digest
    longer = Clarifier()
    longer.context = 8192
    assert Asker(longer).digest != Asker(Clarifier()).digest


def test_a_model_for_one_turn_is_asked_in_one() -> None:
    question = Asker(Clarifier(), single_turn=True).question("overlap")
    assert question.single_turn and question.digest != Asker(Clarifier()).question("overlap").digest
