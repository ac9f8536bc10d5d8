"""Phase 4, synthesis: a generator writes samples for a gap, a discriminator and the judge let them pass or not.

(paper, section 3.5). Samples come in waves. Each is written in the dataset's own form, after rows of the dataset that
support other subgoals; near-duplicates are refused; the rest are graded, judged and ranked in groups; what falls short
is refined with the discriminator's criticism, up to so many rounds, and passes through all of it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..answers import JsonForm
from ..asking import Asker
from ..discriminator import GROUP, Discriminator, group_sizes
from ..duplicates import Known
from ..grouping import stems
from ..questions import Question, load_question, one_line
from ..readers import Layout, new_row, sample_of, written_columns
from ..terms import SUPPORT_AT, Candidate, Refusal, Sample, Subgoal, digest_of

WAVE = 2 * GROUP
"""Samples written between two moments at which they are stored."""

PATIENCE = 4
"""How many samples are written at most for each one wanted."""

EXAMPLES = 3
"""Rows of the dataset that show the generator its form."""

LONGEST_EXAMPLE = 800
"""Characters of a row that may serve as an example."""

TEMPERATURE = 0.7

_LEAST_OF_CHANCE = 0.5
"""The rank below which a sample is rejected, as a share of what chance gives each of its group."""

_TOPICS_TOKENS = 100

_OF_ITSELF = re.compile(r"\bcapabilit(?:y|ies)\b|\b(?:this|training) sample\b", re.IGNORECASE)
"""How a sample speaks that praises itself to its judge instead of teaching anything."""

WRITTEN = "another sample written"
"""What a sample that was kept is called where a later one repeats it."""

Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Commission:
    """What is to be written: for which subgoal, how many samples, in which form, about what, and how they must score.

    `focuses` name what the samples show, such as the gap's missing capabilities. `topics` are what they are about where
    the generator cannot name any. Both are gone through in turn. `examples` are rows of the dataset as texts by column,
    each with the subgoal it supports.
    """

    subgoal: Subgoal
    n: int
    layout: Layout
    focuses: Sequence[str]
    topics: Sequence[str]
    examples: Sequence[tuple[Subgoal, Texts]]
    rounds: int = 1
    seed: int = 0
    least: float = SUPPORT_AT
    max_tokens: int = 256


Align = Callable[[Sequence[Sample]], Sequence[float | None]]
"""The judge's value of each sample for the commission's subgoal, in [0, 1]; None where it failed."""


def synthesize(
    commission: Commission,
    generator: Asker,
    discriminator: Discriminator,
    align: Align,
    known: Known,
    drafts: Sequence[Texts] = (),
) -> Iterator[list[Candidate]]:
    """Candidates with what became of them, a wave at a time, until enough are kept or patience ends.

    `drafts`, written elsewhere, come first and pass through the same. Samples that are kept become known. The generator
    must have been given its form by `prepare`.
    """
    n_kept = 0
    waves = [drafts[start : start + WAVE] for start in range(0, len(drafts), WAVE)]
    n_waves = -(-PATIENCE * commission.n // WAVE)
    for wave in range(len(waves) + n_waves):
        if n_kept >= commission.n:
            return
        if wave < len(waves):
            first = [_candidate(commission, texts, wave * WAVE + k) for k, texts in enumerate(waves[wave])]
        else:
            if wave == len(waves):
                commission = replace(commission, topics=topics(commission, generator) or commission.topics)
            first = _written(commission, generator, wave - len(waves), wave * WAVE)
        beside = Known()
        passed = _passed(commission, discriminator, align, (known, beside), first, wave)
        found = list(passed)
        for number in range(1, commission.rounds + 1):
            beside.add(WRITTEN, _kept(passed))
            passed = _refined(commission, generator, discriminator, passed, number)
            passed = _passed(commission, discriminator, align, (known, beside), passed, wave)
            found += passed
        found = _enough(found, commission.n - n_kept)
        known.add(WRITTEN, _kept(found))
        n_kept += len(_kept(found))
        yield found


def prepare(commission: Commission, generator: Asker) -> None:
    """Nothing; has the generator write in the form of the dataset, after the commission's examples."""
    columns = written_columns(commission.layout)
    form = JsonForm(
        {
            "type": "object",
            "properties": {column: {"type": "string"} for column in columns},
            "required": list(columns),
            "additionalProperties": False,
        }
    )
    shown = [
        {"fields": {**_of(subgoal), "focus": subgoal.name, "topic": topic(texts[columns[0]])}, "answer": dict(texts)}
        for subgoal, texts in commission.examples
    ]
    unfinished = [
        {
            "fields": {
                **_of(subgoal),
                "draft": json.dumps({**texts, columns[-1]: _half(texts[columns[-1]])}, ensure_ascii=False),
                "criticism": "It breaks off before all is told.",
            },
            "answer": dict(texts),
        }
        for subgoal, texts in commission.examples[:2]
    ]
    for name, examples in (("sample", shown), ("revision", unfinished)):
        question = load_question(name, single_turn=generator.question(name).single_turn)
        legal = [each for each in examples if _fits(question, form, each)]
        if not legal:
            legal = [_recast(each, columns, commission.layout) for each in question.examples]
        generator.adapt(replace(question, form=form, examples=tuple(legal)))


def topics(commission: Commission, generator: Asker) -> list[str]:
    """What the samples can be about, as the generator names it: enough for each sample wanted, if it knows so many."""
    focuses = commission.focuses or [commission.subgoal.name]
    found: dict[frozenset[str], str] = {}
    for turn in range(2 + commission.n // 3):
        asked = {**_of(commission.subgoal), "focus": focuses[turn % len(focuses)]}
        answer = generator.write(
            "topics", [asked], max_tokens=_TOPICS_TOKENS, temperature=TEMPERATURE, seed=commission.seed + turn
        )[0]
        for named in (answer.fields or {}).get("topics", ()):
            if key := frozenset(stems(named)):
                found.setdefault(key, named)
        if len(found) >= 2 * commission.n:
            break
    return [*found.values()]


def topic(text: str) -> str:
    """The three longest words of a text that are not common, in their order: what it is about."""
    words = [word.strip(".,;:?!()\"'") for word in one_line(text).split()]
    telling = [word for word in dict.fromkeys(words) if stems(word) and len(word) < 40]
    longest = sorted(telling, key=lambda word: (-len(word), telling.index(word)))[:3]
    return " ".join(word for word in telling if word in longest) or "any"


def _of(subgoal: Subgoal) -> dict[str, str]:
    return {"name": one_line(subgoal.name), "description": one_line(subgoal.description)}


def _half(text: str) -> str:
    return text[: len(text) // 2].rsplit(" ", 1)[0]


def _fits(question: Question, form: JsonForm, example: Mapping[str, Any]) -> bool:
    return replace(question, form=form).read(form.written(example["answer"])) is not None


def _recast(example: Mapping[str, Any], columns: Sequence[str], layout: Layout) -> dict[str, Any]:
    """A question's own example in other columns: its output in the last, its input in those before it."""
    answer = {column: "" if column in layout.optional else example["answer"]["input"] for column in columns}
    return {"fields": example["fields"], "answer": {**answer, columns[-1]: example["answer"]["output"]}}


def _written(commission: Commission, generator: Asker, wave: int, first: int) -> list[Candidate]:
    """A wave of new samples; what the generator failed to write is left out and counted by it."""
    focuses, subjects = commission.focuses or [commission.subgoal.name], commission.topics or ["any"]
    places = range(wave * WAVE, (wave + 1) * WAVE)
    asked = [
        {
            **_of(commission.subgoal),
            "focus": focuses[place % len(focuses)],
            "topic": subjects[place % len(subjects)],
        }
        for place in places
    ]
    seed = commission.seed + wave
    answers = generator.write(
        "sample", asked, max_tokens=commission.max_tokens, temperature=TEMPERATURE, seed=seed, batch=WAVE
    )
    provenance = {
        "generator": generator.digest,
        "card": generator.identity.get("card", ""),
        "prompt": generator.question("sample").digest,
        "seed": seed,
    }
    return [
        _candidate(
            commission,
            answer.fields,
            first + place,
            {**provenance, "focus": texts["focus"], "topic": texts["topic"]},
        )
        for place, (texts, answer) in enumerate(zip(asked, answers, strict=True))
        if answer.fields
    ]


def _candidate(
    commission: Commission, texts: Texts, number: int, provenance: Mapping[str, Any] | None = None
) -> Candidate:
    """A candidate of these texts; rejected at once if one is empty that must not be, or if they make no sample."""
    texts = {column: str(text).strip() for column, text in texts.items()}
    identity = f"synthetic-{digest_of([commission.subgoal.id, dict(texts)])[:12]}"
    row = new_row(commission.layout, texts, identity)
    sample = sample_of(commission.layout, row, "synthetic", number + 1)
    empty = [column for column, text in texts.items() if not text and column not in commission.layout.optional]
    if empty:
        sample = Refusal("synthetic", number + 1, f"{empty[0]!r} is empty")
    elif provenance and _of_itself(commission.subgoal, texts):
        sample = Refusal("synthetic", number + 1, "speaks of itself or of a capability")
    about = {
        "gap": commission.subgoal.id,
        "subgoal": commission.subgoal.digest,
        **(provenance or {"generator": "a file"}),
    }
    if isinstance(sample, Refusal):
        nothing = Sample(identity, "", "", "synthetic", number + 1)
        return Candidate(commission.subgoal.id, row, nothing, number, reason=sample.reason, provenance=about)
    return Candidate(
        commission.subgoal.id, row, replace(sample, id=identity, raw=b""), number, reason="", provenance=about
    )


def _of_itself(subgoal: Subgoal, texts: Texts) -> bool:
    """Whether a sample praises itself to its judge; what its subgoal is about it may speak of."""
    told = f"{subgoal.name} {subgoal.description}".casefold()
    said = _OF_ITSELF.findall(" ".join(texts.values()).casefold())
    return any(each[: len("capabilit")] not in told for each in said)


def _passed(
    commission: Commission,
    discriminator: Discriminator,
    align: Align,
    known: Sequence[Known],
    candidates: Sequence[Candidate],
    wave: int,
) -> list[Candidate]:
    """The candidates, each refused as a near-duplicate, or graded, judged, ranked, and kept or rejected."""
    done: dict[int, Candidate] = {}
    fresh: list[int] = []
    own = Known()
    for place, each in enumerate(candidates):
        repeated = (held.like(each.sample) for held in (*known, own) if not each.reason)
        if likeness := next(filter(None, repeated), None):
            told = f"{likeness.part} like {likeness.of} {likeness.id} ({likeness.similarity:.2f})"
            done[place] = replace(each, fate="refused", reason=told)
        elif each.reason:
            done[place] = each
        else:
            fresh.append(place)
            own.add(WRITTEN, [each.sample])
    samples = [candidates[place].sample for place in fresh]
    grades = discriminator.quality(commission.subgoal, samples)
    values = align(samples) if samples else []
    ranks = discriminator.ranks(commission.subgoal, samples, commission.seed + wave)
    sizes = [0 if rank is None else size for rank, size in zip(ranks, group_sizes(len(samples)), strict=True)]
    for place, quality, value, rank, among in zip(fresh, grades, values, ranks, sizes, strict=True):
        scored = replace(candidates[place], quality=quality, alignment=value, rank=rank, among=among)
        reason = _shortcoming(scored, commission.least)
        done[place] = replace(scored, fate="rejected" if reason else "kept", reason=reason)
    return [done[place] for place in range(len(candidates))]


def _shortcoming(candidate: Candidate, least: float) -> str:
    """Why a candidate is not kept; empty if it is. What was not scored cannot pass."""
    scored = _scores(candidate)
    unknown = [name for name, value in scored.items() if value is None]
    if unknown:
        return f"{unknown[0]} could not be scored"
    value, worst = min((value, name) for name, value in scored.items() if value is not None)
    if value < least - 1e-9:
        return f"{worst} {value:.2f} < {least:g}"
    if candidate.rank is not None and _standing(candidate) < _LEAST_OF_CHANCE:
        return f"hardly ever the best of its group ({candidate.rank:.2f})"
    return ""


def _standing(candidate: Candidate) -> float:
    """A candidate's rank in units of chance, so that groups of any size compare: 1 is neither better nor worse.

    That is also what had no group to be ranked in.
    """
    return 1.0 if candidate.rank is None else candidate.rank * candidate.among


def _refined(
    commission: Commission,
    generator: Asker,
    discriminator: Discriminator,
    candidates: Sequence[Candidate],
    number: int,
) -> list[Candidate]:
    """What was rejected for a grade, written again after the discriminator's criticism.

    What the judge finds off the subgoal is not: told so, a model adds that its sample is about it, and nothing else.
    """
    flawed = [each for each in candidates if each.fate == "rejected" and _falls_short(each, commission.least)]
    told = discriminator.criticism([(commission.subgoal, each.sample, _weakest(each)) for each in flawed])
    columns = written_columns(commission.layout)
    asked = [
        {**_of(commission.subgoal), "draft": _draft(each, columns, commission.layout), "criticism": one_line(criticism)}
        for each, criticism in zip(flawed, told, strict=True)
    ]
    seed = commission.seed + number
    answers = generator.write("revision", asked, max_tokens=commission.max_tokens, seed=seed, batch=WAVE)
    made_by = {
        "generator": generator.digest,
        "card": generator.identity.get("card", ""),
        "prompt": generator.question("revision").digest,
        "seed": seed,
    }
    again = []
    for before, criticism, answer in zip(flawed, told, answers, strict=True):
        if answer.fields:
            about = {**before.provenance, **made_by}
            made = _candidate(commission, answer.fields, before.number, about)
            again.append(
                replace(made, round=number, before=before.sample.digest, feedback=one_line(criticism), provenance=about)
            )
    return again


def _scores(candidate: Candidate) -> dict[str, float | None]:
    """What a candidate was scored by, and how; its rank is no score."""
    return {**candidate.quality, "alignment": candidate.alignment}


def _falls_short(candidate: Candidate, least: float) -> bool:
    """Whether it is on its subgoal and one of its grades is too low: then criticism can say what to do better."""
    grades = [*candidate.quality.values()]
    if candidate.alignment is None or candidate.alignment < least - 1e-9 or None in grades:
        return False
    return min(grade for grade in grades if grade is not None) < least - 1e-9


def _weakest(candidate: Candidate) -> str:
    """The respect in which a candidate did worst."""
    return min((grade, name) for name, grade in candidate.quality.items() if grade is not None)[1]


def _draft(candidate: Candidate, columns: Sequence[str], layout: Layout) -> str:
    if layout.turns:
        texts = dict(zip(columns, (candidate.sample.input, candidate.sample.output), strict=True))
    else:
        texts = {column: candidate.fields[column] for column in columns}
    return json.dumps(texts, ensure_ascii=False)


def _kept(candidates: Sequence[Candidate]) -> list[Sample]:
    """The samples of the candidates that are kept."""
    return [each.sample for each in candidates if each.fate == "kept"]


def _enough(found: Sequence[Candidate], n: int) -> list[Candidate]:
    """The candidates, at most `n` of them kept: those with the best ranks, and of equal ones the best grades."""

    def worth(place: int) -> tuple[float, float, int]:
        each = found[place]
        grades = [value for value in each.quality.values() if value is not None]
        return -round(_standing(each), 9), -float(np.mean(grades)) if grades else 0.0, place

    kept = sorted((place for place, each in enumerate(found) if each.fate == "kept"), key=worth)
    surplus = set(kept[n:])
    return [
        replace(each, fate="rejected", reason="enough were kept") if place in surplus else each
        for place, each in enumerate(found)
    ]
