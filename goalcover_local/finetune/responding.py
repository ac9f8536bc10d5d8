"""What policies write about samples, and how it is graded: in fixed batches, and remembered, so nothing is asked twice.

A memory holds answers by digest and never replaces one. The generators put answers into it and yield after each batch:
whoever owns it stores it then. Batches are those of the plan, so that an interrupted evaluation comes to what an
unbroken one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from .. import __version__
from ..engines.base import SEED_STEP
from ..judges import SAMPLES_PER_BATCH
from ..terms import Sample, digest_of
from .policy import AT_ONCE, DECODING, Policy, Written
from .reward import Grade, Grader, Response, graded
from .rubric import Rubric

Memory = MutableMapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a policy is to write: a text for each sample, in their order, and under which key each is remembered.

    At temperature 0 equal texts have one response; what is drawn is drawn for each sample anew.
    """

    texts: Sequence[str]
    keys: Sequence[str]
    size: int
    max_tokens: int
    temperature: float
    seed: int

    @cached_property
    def batches(self) -> Sequence[Mapping[str, str]]:
        """Texts by key, in the batches in which they are written together."""
        items = list(dict(zip(self.keys, self.texts, strict=True)).items())
        return [dict(items[start : start + self.size]) for start in range(0, len(items), self.size)]

    def n_missing(self, memory: Mapping[str, Any]) -> int:
        """How many responses are to be written: a batch of which any is missing is written whole."""
        return sum(len(batch) for batch in self.batches if not batch.keys() <= memory.keys())

    def written(self, memory: Mapping[str, Any]) -> list[Written]:
        """What was written about each sample, in their order. Raises KeyError while a response is missing."""
        return [Written(**memory[key]) for key in self.keys]


def plan(
    policy: Policy,
    rubric: Rubric,
    samples: Sequence[Sample],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Plan:
    """The responses that a policy is to write about samples by the rubric's task, in at most `max_tokens` each.

    Raises EngineError if a sample leaves no room for that in the policy's context.
    """
    texts = [rubric.prompt(sample.input, sample.output) for sample in samples]
    longest = max((len(policy.ids(text)) for text in texts), default=0)
    policy.check_room(longest, max_tokens)
    identity = policy.identity
    # What is drawn hangs on its place among all, so that equal texts are not drawn alike.
    keys = [
        digest_of(
            [identity, __version__, DECODING, text, max_tokens, temperature, seed, *([place] if temperature else [])]
        )
        for place, text in enumerate(texts)
    ]
    return Plan(texts, keys, AT_ONCE.get(identity["device"], AT_ONCE["cpu"]), max_tokens, temperature, seed)


def write(policy: Policy, planned: Plan, memory: Memory) -> Iterator[int]:
    """How many responses were written, after each batch, until the memory holds all that are planned."""
    for number, batch in enumerate(planned.batches):
        if batch.keys() <= memory.keys():
            continue
        responses = policy.respond(
            list(batch.values()),
            max_tokens=planned.max_tokens,
            temperature=planned.temperature,
            seed=planned.seed + SEED_STEP * number if planned.temperature else planned.seed,
        )
        for key, response in zip(batch, responses, strict=True):
            if key not in memory:
                memory[key] = asdict(response)
        yield len(batch)


def n_ungraded(grader: Grader, responses: Sequence[Response], memory: Memory, *, retry_failed: bool = False) -> int:
    """How many different responses `grade` would grade."""
    return sum(map(len, _ungraded(grader, responses, memory, retry_failed)))


def grade(
    grader: Grader, responses: Sequence[Response], memory: Memory, *, retry_failed: bool = False
) -> Iterator[tuple[int, int]]:
    """How many responses were graded and how many of these judgements failed, after each batch.

    Equal responses to equal samples are graded once. A judgement that failed is remembered as failed; with
    `retry_failed` it is asked for once more. Responses to one sample that stand together share its cost.
    """
    for batch in _ungraded(grader, responses, memory, retry_failed):
        grades = grader.grade(list(batch.values()))
        for key, found in zip(batch, grades, strict=True):
            failure = None if found.score is not None else found.failure or "no grade"
            memory[key] = {"dimensions": dict(found.dimensions), "failure": failure}
        yield len(batch), sum(found.score is None for found in grades)


def grades(grader: Grader, responses: Sequence[Response], memory: Memory) -> list[Grade]:
    """The grade of each response as remembered, its checks computed anew. Raises KeyError while one is missing."""
    found = []
    for response in responses:
        told = memory[latest(_key(grader, response), memory)]
        found.append(graded(grader.rubric, told["dimensions"], grader.checks(response), told["failure"]))
    return found


def latest(key: str, memory: Mapping[str, Any]) -> str:
    """The key of the latest attempt at an answer: one that was remembered as failed stays, the next has its own key."""
    while key in memory and memory[key]["failure"] is not None and (later := _again(key)) in memory:
        key = later
    return key


def due(key: str, memory: Mapping[str, Any], *, retry_failed: bool = False) -> str | None:
    """The key under which an answer is yet to be remembered, or remembered anew if it failed; None if it is there."""
    key = latest(key, memory)
    if key not in memory:
        return key
    return _again(key) if retry_failed and memory[key]["failure"] is not None else None


def _ungraded(
    grader: Grader, responses: Sequence[Response], memory: Memory, retry_failed: bool
) -> list[dict[str, Response]]:
    """What is to be graded, by the key under which it will be remembered, in the plan's batches; none is empty."""
    distinct = list({_key(grader, response): response for response in responses}.items())
    size = SAMPLES_PER_BATCH.get(grader.engine.describe()["device"], SAMPLES_PER_BATCH["cpu"])
    batches = []
    for start in range(0, len(distinct), size):
        asked = [(due(key, memory, retry_failed=retry_failed), each) for key, each in distinct[start : start + size]]
        batches.append({key: response for key, response in asked if key is not None})
    return [batch for batch in batches if batch]


def _key(grader: Grader, response: Response) -> str:
    return digest_of([grader.digest, *response])


def _again(key: str) -> str:
    return digest_of([key, "again"])
