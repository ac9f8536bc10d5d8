"""Phase 1, goal clarification: from a goal to a checked set of subgoals, model and practitioner in turn (section 3.2).

A `Draft` is all that is known so far. `advance` does the model's work until a person is needed; a person's moves are
functions from a draft to a draft. So whoever keeps drafts can take any move back, and can stop and go on anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cache
from typing import Literal

from ..asking import Asker
from ..questions import one_line, read_lines
from ..resources import shipped
from ..terms import STEPS, Checks, Exchange, Finding, Goal, Repair, Subgoal, digest_of
from .decompose import (
    QUESTIONS,
    Checked,
    check,
    described,
    items,
    key,
    listed,
    propose,
    repair,
    sentences,
    violations,
)

PER_ROUND = 3
"""How many questions are asked at a time."""

Stage = Literal["refining", "asking", "answering", "proposing", "checking", "repairing", "settling", "done"]

_KEPT_WORDS = 0.8
"""The least share of an answer's words that a statement made from it must keep."""

_NEGATIONS = {
    *"no not never without none nothing only except nor kein keine nicht nie ohne nur non pas sans jamais".split()
}
_SMALL = {*"a an the of and or in on to it is are be with for at by as its their they".split()}

_LONGEST_SUGGESTION = 120
"""A longer one, in characters, is no suggestion any more."""

_ALIKE = 0.85
"""From this similarity on, two questions are the same."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """A side of the operational scope that a specification should tell; `question` asks for it in plain words."""

    name: str
    asks: str
    question: str
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A clarifying question that waits for its answer."""

    aspect: str
    question: str
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Steps:
    """Which steps of the elicitation are taken; the validation study switches them off one by one (section 7.4)."""

    questions: bool = True
    refinement: bool = True
    checks: bool = True


@dataclass(frozen=True, slots=True)
class Draft:
    """A decomposition in the making.

    `accepted` maps keys of violations (`decompose.key`) to the reasons for which a person lets them be; `tried` are
    those that were tried to be repaired in this `round` of attempts. `judged` is the digest of the findings' judge.
    """

    goal: str
    steps: Steps = Steps()
    statements: tuple[str, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    inquiries: tuple[Inquiry, ...] = ()
    enough: bool = False
    proposed: bool = False
    subgoals: tuple[Subgoal, ...] = ()
    findings: tuple[Finding, ...] | None = None
    fitness: Mapping[str, float] = field(default_factory=dict)
    judged: str = ""
    repairing: bool = True
    tried: tuple[str, ...] = ()
    round: int = 0
    repairs: tuple[Repair, ...] = ()
    accepted: Mapping[str, str] = field(default_factory=dict)
    settled: bool = False

    @property
    def stage(self) -> Stage:
        """Whose turn it is, and for what: `answering` and `settling` wait for a person."""
        if self.settled:
            return "done"
        if self.inquiries:
            return "answering"
        if not self.proposed and any(exchange.answer and not exchange.statement for exchange in self.exchanges):
            return "refining"
        if not self.enough:
            return "asking"
        if not self.proposed or any(not subgoal.description for subgoal in self.subgoals):
            return "proposing"
        if self.steps.checks and self.findings is None:
            return "checking"
        if self.repairing and any(key(f, self.subgoals) not in self.tried for f in self.violations):
            return "repairing"
        return "settling"

    @property
    def violations(self) -> list[Finding]:
        """What stands against the set and was not accepted."""
        return violations(self.findings or ())


@cache
def aspects() -> tuple[Aspect, ...]:
    """The sides of the operational scope, the most important first."""
    lines = read_lines(shipped("grammars") / "clarifying-question" / "aspects.jsonl")
    return tuple(Aspect(**{**line, "suggestions": tuple(line["suggestions"])}) for line in lines)


def begin(goal: str, steps: Steps = Steps(), subgoals: Sequence[Subgoal] = ()) -> Draft:
    """The draft that a goal starts from: its first sentence is the goal, the others begin the specification.

    Given subgoals are somebody's own: no question is asked, and nothing is repaired unless that is asked for.
    """
    first, *others = sentences(goal) or ("",)
    own = bool(subgoals)
    return Draft(
        first,
        steps,
        tuple(others),
        enough=own or not steps.questions,
        proposed=own,
        subgoals=tuple(subgoals),
        repairing=not own,
    )


def reopened(goal: Goal, steps: Steps = Steps()) -> Draft:
    """The draft of a goal that was clarified before: its set is checked again; what was accepted stays accepted.

    Unless goal, specification or set were edited since: then nobody has accepted what stands there now.
    """
    known = goal.current_checks.findings if goal.current_checks else ()
    accepted = {key(found, goal.subgoals): found.reason for found in known if found.outcome == "accepted"}
    draft = replace(begin(goal.text, steps, goal.subgoals), repairs=goal.checks.repairs if goal.checks else ())
    return replace(draft, goal=goal.text, statements=_statements(goal), exchanges=goal.exchanges, accepted=accepted)


def advance(draft: Draft, asker: Asker) -> Iterator[Draft]:
    """The drafts that the model's work brings, one after each step, until a person's move is needed."""
    while work := _WORK.get(draft.stage):
        for step in work(draft, asker):
            yield (draft := step)


def open_aspects(draft: Draft, asker: Asker) -> list[Aspect]:
    """What the specification does not tell yet and is worth asking.

    An aspect that was skipped is not asked about again; one whose answer told something else is, once, in other words.
    """
    told = dict.fromkeys((aspect.name for aspect in aspects()), 0.0)
    fit = is_fit(asker)
    if fit and draft.statements:
        for choices in asker.decide("completeness", [{"statement": statement} for statement in draft.statements]):
            told = {name: max(most, (choices or {}).get(name, 0.0)) for name, most in told.items()}
    wanted = []
    for aspect in aspects():
        answers = [exchange.answer for exchange in draft.exchanges if exchange.aspect == aspect.name]
        plainly = any(exchange.question == aspect.question for exchange in draft.exchanges)
        unheard = len(answers) == 1 and answers[0] and fit and told[aspect.name] < 0.1 and not plainly
        if unheard or (not answers and told[aspect.name] < 0.5):
            wanted.append(aspect)
    return wanted


def answered(draft: Draft, answer: str) -> Draft:
    """The draft with its first waiting question answered; an empty answer skips it."""
    inquiry, *others = draft.inquiries
    exchange = Exchange(inquiry.question, one_line(answer), inquiry.aspect, inquiry.suggestions)
    return replace(draft, exchanges=(*draft.exchanges, exchange), inquiries=tuple(others))


def enough(draft: Draft) -> Draft:
    """The draft with no more questions to come."""
    return replace(draft, inquiries=(), enough=True)


def respecified(draft: Draft, statements: Sequence[str]) -> Draft:
    """The draft with its specification rewritten by a person; what was checked must be checked again."""
    return replace(draft, statements=tuple(statements), findings=None, settled=False, repairing=not draft.proposed)


def edited(draft: Draft, subgoals: Sequence[Subgoal]) -> Draft:
    """The draft with a person's own set; those without a description are described, and all is checked again."""
    return replace(draft, subgoals=tuple(subgoals), proposed=True, findings=None, repairing=False, settled=False)


def unrepaired(draft: Draft) -> Draft:
    """The draft as it stands before the model mends it, for a person who would rather have that."""
    return replace(draft, repairing=False)


def repaired_again(draft: Draft) -> Draft:
    """The draft with another attempt at every violation to come, other than those before."""
    return replace(draft, repairing=True, tried=(), round=draft.round + 1)


def accepted(draft: Draft, violation: Finding, reason: str) -> Draft:
    """The draft with a violation that a person lets be, for a reason. Raises ValueError without one."""
    if not reason.strip():
        raise ValueError("a violation is accepted for a reason")
    reasons = {**draft.accepted, key(violation, draft.subgoals): one_line(reason)}
    return replace(draft, accepted=reasons, findings=_overruled(draft.findings or (), draft.subgoals, reasons))


def renewed(draft: Draft, asker: Asker) -> Draft:
    """The draft without its findings if another judge made them, or if it failed in some: they are made again."""
    found = draft.findings or ()
    stale = draft.judged != judge_digest(asker) or any(finding.probability is None for finding in found)
    return replace(draft, findings=None, settled=False) if draft.findings is not None and stale else draft


def judge_digest(asker: Asker) -> str:
    """Digest of everything that can change a check: the model, and each question it is asked."""
    return digest_of([asker.digest, *(asker.question(name).digest for name in (*QUESTIONS.values(), "completeness"))])


def settled(draft: Draft) -> Draft:
    """The draft, done. What still violates stays recorded as violated."""
    return replace(draft, settled=True)


def clarified(draft: Draft, judge: str, asker: Asker, onto: Goal | None = None) -> Goal:
    """The goal that a draft amounts to, with its transcript and checks; `onto` gives what a draft does not hold."""
    base = onto or Goal(draft.goal)
    unchanged = onto is not None and _statements(onto) == draft.statements
    goal = replace(
        base,
        text=draft.goal,
        specification=base.specification if unchanged else "\n".join(draft.statements),
        exchanges=draft.exchanges,
        subgoals=draft.subgoals,
        without=base.without if onto else tuple(step for step in STEPS if not getattr(draft.steps, step)),
    )
    checks = None
    if draft.findings is not None:
        checks = Checks(
            judge,
            draft.judged,
            goal.decomposition,
            draft.fitness,
            tuple(_rounded(finding) for finding in draft.findings),
            draft.repairs,
        )
    return replace(goal, checks=checks)


def _statements(goal: Goal) -> tuple[str, ...]:
    """The sentences of a goal's specification; what an answer added to it is one, as it was."""
    added = {exchange.statement for exchange in goal.exchanges}
    lines = [line.strip() for line in goal.specification.splitlines()]
    return tuple(part for line in lines for part in ((line,) if line in added else sentences(line)) if part)


def _refine(draft: Draft, asker: Asker) -> Iterator[Draft]:
    """Every new answer becomes a sentence of the specification (paper, Eq. 4).

    A sentence that loses words of the answer is not taken: then question and answer stand there as they are.
    """
    fresh = [n for n, exchange in enumerate(draft.exchanges) if exchange.answer and not exchange.statement]
    exchanges = list(draft.exchanges)
    goal = one_line(draft.goal)
    texts = [{"goal": goal, "question": e.question, "answer": e.answer} for e in (exchanges[n] for n in fresh)]
    by_model = draft.steps.refinement and is_fit(asker)
    written = asker.write("refinement", texts, max_tokens=80) if by_model else [None] * len(texts)
    statements = list(draft.statements)
    for n, answer in zip(fresh, written, strict=True):
        exchange = exchanges[n]
        said = one_line(str(answer.fields["statement"])) if answer and answer.fields else ""
        if not said or _kept_words(exchange.answer, said) < _KEPT_WORDS:
            said = f"{exchange.question} {exchange.answer}"
        said = said if said[-1] in ".!?" else f"{said}."
        exchanges[n] = replace(exchange, statement=said)
        if said not in statements:
            statements.append(said)
    yield replace(draft, exchanges=tuple(exchanges), statements=tuple(statements))


def _ask(draft: Draft, asker: Asker) -> Iterator[Draft]:
    """A round of questions on what is open, or none if nothing is."""
    wanted = open_aspects(draft, asker)[:PER_ROUND]
    if not wanted:
        yield replace(draft, enough=True)
        return
    plain = [Inquiry(aspect.name, aspect.question, aspect.suggestions) for aspect in wanted]
    if not is_fit(asker):
        yield replace(draft, inquiries=tuple(plain))
        return
    asked = [exchange.question for exchange in draft.exchanges]
    texts = [
        {
            "goal": one_line(draft.goal),
            "specification": " ".join(draft.statements) or "nothing",
            "asked": " ".join(asked) or "nothing",
            "aspect": aspect.asks,
        }
        for aspect in wanted
    ]
    inquiries: list[Inquiry] = []
    for aspect, fallback, answer in zip(
        wanted, plain, asker.write("clarifying-question", texts, max_tokens=96), strict=True
    ):
        fields = answer.fields or {"question": "", "suggestions": []}
        question = one_line(str(fields["question"]))
        known = [*asked, *(inquiry.question for inquiry in inquiries)]
        if not question.endswith("?") or any(_alike(question, other) for other in known):
            inquiries.append(fallback)
        else:
            inquiries.append(Inquiry(aspect.name, question, _offered(fields["suggestions"], question)))
    yield replace(draft, inquiries=tuple(inquiries))


def _propose(draft: Draft, asker: Asker) -> Iterator[Draft]:
    """Subgoals, or descriptions of those without; an unfit model leaves it at what the person named as topics."""
    if draft.proposed:
        yield replace(draft, subgoals=described(asker, draft.goal, draft.subgoals))
    else:
        topics = [exchange.answer for exchange in draft.exchanges if exchange.aspect == aspects()[0].name]
        subgoals = propose(asker, draft.goal, draft.statements) if is_fit(asker) else listed(topics)
        yield replace(draft, proposed=True, subgoals=subgoals)


def is_fit(asker: Asker) -> bool:
    """Whether the model understands a specification well enough to ask, write and propose; else a person's words do."""
    return asker.fitness("completeness").fit


def _check(draft: Draft, asker: Asker) -> Iterator[Draft]:
    checked = check(asker, draft.goal, _to_cover(draft), draft.subgoals)
    yield replace(_with(draft, checked), judged=judge_digest(asker))


def _repair(draft: Draft, asker: Asker) -> Iterator[Draft]:
    checked = Checked(draft.findings or (), draft.fitness)
    attempts = repair(
        asker, draft.goal, _to_cover(draft), draft.subgoals, checked, draft.tried, draft.accepted, draft.round
    )
    for subgoals, found, attempt, name in attempts:
        draft = replace(draft, subgoals=subgoals, repairs=(*draft.repairs, attempt), tried=(*draft.tried, name))
        draft = _with(draft, found)
        yield draft


_WORK: Mapping[str, Callable[[Draft, Asker], Iterator[Draft]]] = {
    "refining": _refine,
    "asking": _ask,
    "proposing": _propose,
    "checking": _check,
    "repairing": _repair,
}


def _to_cover(draft: Draft) -> tuple[str, ...]:
    """The sentences that the set is held against; where a person listed topics, each of them by itself.

    A judge that is asked about a whole list overlooks the one thing that is missing.
    """
    topics = aspects()[0].name
    lists = {e.statement: items(e.answer) for e in draft.exchanges if e.aspect == topics and e.statement}
    parts = [[f"{item}." for item in lists.get(statement, ())] or [statement] for statement in draft.statements]
    return tuple(dict.fromkeys(part for each in parts for part in each))


def _with(draft: Draft, checked: Checked) -> Draft:
    return replace(
        draft, findings=_overruled(checked.findings, draft.subgoals, draft.accepted), fitness=checked.fitness
    )


def _overruled(
    findings: Sequence[Finding], subgoals: Sequence[Subgoal], reasons: Mapping[str, str]
) -> tuple[Finding, ...]:
    """The findings, those violations accepted for which there is a reason."""
    return tuple(
        replace(found, outcome="accepted", reason=reasons[name])
        if found.outcome == "violated" and (name := key(found, subgoals)) in reasons
        else found
        for found in findings
    )


def _rounded(finding: Finding) -> Finding:
    return finding if finding.probability is None else replace(finding, probability=round(finding.probability, 4))


def _offered(suggestions: Sequence[str], question: str) -> tuple[str, ...]:
    """Suggestions worth offering: short, no questions, none twice."""
    trimmed = [one_line(text) for text in suggestions]
    short = [text for text in trimmed if 0 < len(text) <= _LONGEST_SUGGESTION]
    return tuple(dict.fromkeys(text for text in short if not text.endswith("?") and not _alike(text, question)))


def _alike(first: str, second: str) -> bool:
    return SequenceMatcher(None, first.casefold(), second.casefold()).ratio() >= _ALIKE


def _kept_words(answer: str, statement: str) -> float:
    """The share of an answer's words, by their first letters, that stand in a statement; 0 if a "no" or number is lost.

    Small words do not count; an answer of such alone is kept by no statement.
    """
    said, kept = (set(re.findall(r"\w+", text.casefold())) for text in (answer, statement))
    if any(word in _NEGATIONS or any(sign.isdigit() for sign in word) for word in said - kept):
        return 0.0
    wanted = {word[:8] for word in said - _SMALL}
    return len(wanted & {word[:8] for word in kept}) / len(wanted) if wanted else 0.0
