"""Phase 1, step 4: subgoals proposed from a specification, checked (paper, Eqs. 1–3), and repaired where they fail."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ..asking import Asker
from ..errors import EngineError
from ..goal_files.reading import slug
from ..questions import one_line
from ..terms import CONSTRAINTS, Constraint, Finding, Outcome, Repair, Subgoal, digest_of

MOST = 10
"""The most subgoals that are proposed."""

FEWEST = 3
"""A proposal of fewer is asked for again."""

QUESTIONS: Mapping[Constraint, str] = {
    "atomicity": "atomicity",
    "disjointness": "overlap",
    "coverage": "uncovered",
}
"""Which question decides each constraint."""

_HOLDS = {"atomicity": "one", "overlap": "apart", "uncovered": "yes"}
_NO_CAPABILITY = ("users", "inputs", "outputs", "limits")
"""What sentences tell that no subgoal need cover: it bounds the capabilities and names none."""

_ABBREVIATED = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof|St|No|Nr|Fig|Sec|Art|vs|cf|ca|e\.g|i\.e|z\.B|d\.h|approx|[A-Z])\.$")

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks of a set found, and how fit the judge was: accuracy by constraint, in [0, 1]."""

    findings: tuple[Finding, ...]
    fitness: Mapping[str, float]


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a specification: its lines, each split behind full stops that a capital follows.

    A full stop behind a title, a common abbreviation or a single letter ends no sentence.
    """
    found: list[str] = []
    for line in filter(str.strip, text.splitlines()):
        begun = ""
        for part in re.split(r"(?<=[.!?])\s+(?=[A-ZÄÖÜÀ-Þ\"“„(])", line.strip()):
            begun = f"{begun} {part}".strip()
            if not _ABBREVIATED.search(begun):
                found.append(begun)
                begun = ""
        found += [begun] if begun else []
    return tuple(found)


def propose(asker: Asker, goal: str, statements: Sequence[str]) -> tuple[Subgoal, ...]:
    """At most ten subgoals for a specification, each described; fewer than three if the judge finds no more.

    Names that stand in the question's examples and nowhere in the specification are an echo, and are left out.
    """
    texts = {"goal": one_line(goal), "specification": "\n".join(map(one_line, statements)) or one_line(goal)}
    said = " ".join(texts.values()).casefold()
    examples = asker.question("subgoals").examples
    echoes = {name.casefold() for example in examples for name in example["answer"]["names"]}
    best: list[str] = []
    failure: str | None = None
    for seed in range(_TRIES):
        answer = asker.write("subgoals", [texts], max_tokens=120, temperature=0.7 if seed else 0.0, seed=seed)[0]
        failure = answer.failure
        names = _names(answer.fields["names"]) if answer.fields else []
        names = [name for name in names if name.casefold() not in echoes or name.casefold() in said]
        best = max(best, names[:MOST], key=len)
        if len(best) >= FEWEST:
            break
    if failure and not best:
        raise EngineError(f"The model could not propose subgoals: {failure}.", "Try again with --resume.")
    return described(asker, goal, [Subgoal(id_, name, "") for id_, name in _identified(best)])


def items(text: str) -> list[str]:
    """What a text lists: its parts between commas, semicolons and "and"s, as names; one if it is no list."""
    parts = re.split(r"[;,\n；，、]|\s(?:and|und|et|y|&)\s", text)
    return _names([re.sub(r"^(?:and|und|et|y)\s+", "", part.strip()) for part in parts])


def listed(texts: Sequence[str]) -> tuple[Subgoal, ...]:
    """Subgoals named by what a person listed, for a model that cannot describe them."""
    names = _names([name for text in texts for name in items(text)])
    return tuple(Subgoal(id_, name, name) for id_, name in _identified(names))


def described(asker: Asker, goal: str, subgoals: Sequence[Subgoal]) -> tuple[Subgoal, ...]:
    """The subgoals, those without a description described; by their names where the judge failed."""
    bare = [subgoal for subgoal in subgoals if not subgoal.description]
    texts = [{"goal": one_line(goal), "name": one_line(subgoal.name)} for subgoal in bare]
    answers = asker.write("description", texts, max_tokens=120)
    told = {}
    for subgoal, answer in zip(bare, answers, strict=True):
        fields = answer.fields or {}
        description = one_line(str(fields.get("description", ""))) or subgoal.name
        evidence = subgoal.evidence or one_line(str(fields.get("evidence", "")))
        told[subgoal.id] = replace(subgoal, description=description, evidence=evidence)
    return tuple(told.get(subgoal.id, subgoal) for subgoal in subgoals)


def check(asker: Asker, goal: str, statements: Sequence[str], subgoals: Sequence[Subgoal]) -> Checked:
    """Whether each subgoal is one capability, each pair disjoint, and each sentence covered (paper, Eqs. 1–3).

    A constraint that the judge is not fit to decide is undecided throughout. Sentences that tell of users, inputs,
    outputs or limits need no subgoal; where there are no others, the goal itself must be covered.
    """
    pairs = list(combinations(subgoals, 2))
    lines = "\n".join(f"- {_stated(subgoal)}" for subgoal in subgoals)
    held = (_asking_for_capabilities(asker, statements or [goal]) or [goal]) if subgoals else []
    findings = [
        *_found(
            asker,
            "atomicity",
            [{"name": one_line(subgoal.name), "description": one_line(subgoal.description)} for subgoal in subgoals],
            [Finding("atomicity", (subgoal.id,)) for subgoal in subgoals],
        ),
        *_found(
            asker,
            "disjointness",
            [{"first": _stated(first), "second": _stated(second)} for first, second in pairs],
            [Finding("disjointness", (first.id, second.id)) for first, second in pairs],
        ),
        *_found(
            asker,
            "coverage",
            [{"subgoals": lines, "statement": one_line(statement)} for statement in held],
            [Finding("coverage", (), statement) for statement in held],
        ),
    ]
    return Checked(tuple(findings), {name: round(asker.fitness(QUESTIONS[name]).accuracy, 4) for name in CONSTRAINTS})


def violations(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that stand against a set and that nobody has accepted."""
    return [finding for finding in findings if finding.outcome == "violated"]


def key(finding: Finding, subgoals: Sequence[Subgoal]) -> str:
    """What a finding is about, as a digest of texts: it stays the same while nothing it speaks of is edited.

    What a sentence misses depends on the whole set, so of coverage it is the sentence and what was named as missing.
    """
    by_id = {subgoal.id: subgoal.digest for subgoal in subgoals}
    missing = finding.note.casefold() if finding.constraint == "coverage" else ""
    about = sorted(by_id.get(each, each) for each in finding.subgoals)
    return digest_of([finding.constraint, about, finding.statement, missing])


def repair(
    asker: Asker,
    goal: str,
    statements: Sequence[str],
    subgoals: Sequence[Subgoal],
    checked: Checked,
    tried: Collection[str] = (),
    accepted: Collection[str] = (),
    seed: int = 0,
) -> Iterator[tuple[tuple[Subgoal, ...], Checked, Repair, str]]:
    """Attempts to mend each violation that was not tried, one at a time: the set that stands after it, its checks,
    the attempt, and the key of what was tried.

    An attempt is kept only if the whole set has fewer violations for it, no more that the judge failed to decide, and
    speaks of all that it named of the specification before: no repair makes a set worse. Violations whose keys are
    `accepted` do not count. Another seed gives other attempts, but for what is not covered: there the judge named what
    is missing.
    """
    subgoals = tuple(subgoals)
    tried = set(tried)
    while waiting := [f for f in _standing(checked, subgoals, accepted) if key(f, subgoals) not in tried]:
        violation = waiting[0]
        name = key(violation, subgoals)
        tried.add(name)
        candidate = _mended(asker, goal, subgoals, violation, seed)
        if candidate is None:
            yield subgoals, checked, Repair(violation.constraint, violation.subgoals, (), False), name
            continue
        found = check(asker, goal, statements, candidate)
        fewer = len(_standing(found, candidate, accepted)) < len(_standing(checked, subgoals, accepted))
        kept = fewer and _n_failed(found) <= _n_failed(checked) and not _lost([goal, *statements], subgoals, candidate)
        old, new = {subgoal.id for subgoal in subgoals}, [subgoal.id for subgoal in candidate]
        after = tuple(i for i in new if i not in old or i in violation.subgoals)
        if kept:
            subgoals, checked = candidate, found
        yield subgoals, checked, Repair(violation.constraint, violation.subgoals, after, kept), name


def replaced(
    asker: Asker, goal: str, subgoals: Sequence[Subgoal], before: Sequence[str], names: Sequence[str]
) -> tuple[Subgoal, ...]:
    """The set with subgoals of the given ids replaced, in the first one's place, by new ones of these names.

    A new one that keeps a replaced one's name keeps its text; the others are described, and take over the largest
    target share of those replaced. With no ids to replace, the new ones are added at the end.
    """
    gone = {subgoal.name.casefold(): subgoal for subgoal in subgoals if subgoal.id in before}
    rest = [subgoal for subgoal in subgoals if subgoal.id not in before]
    place = next((n for n, subgoal in enumerate(subgoals) if subgoal.id in before), len(rest))
    known = {subgoal.name.casefold() for subgoal in rest}
    fresh = [name for name in _names(names) if name.casefold() not in known]
    kept = {name: gone[name.casefold()] for name in fresh if name.casefold() in gone}
    taken = [subgoal.id for subgoal in (*rest, *kept.values())]
    bare = Subgoal("bare", "", "")
    share = max((subgoal.target_share for subgoal in gone.values()), default=bare.target_share)
    new = []
    for name in fresh:
        new.append(kept.get(name) or Subgoal(slug(name, taken), name, "", target_share=share))
        taken.append(new[-1].id)
    return described(asker, goal, [*rest[:place], *new, *rest[place:]])


def _mended(
    asker: Asker, goal: str, subgoals: tuple[Subgoal, ...], violation: Finding, seed: int
) -> tuple[Subgoal, ...] | None:
    """The set with one violation mended as the judge proposes; None if it proposes nothing new."""
    involved = [subgoal for subgoal in subgoals if subgoal.id in violation.subgoals]
    if violation.constraint == "coverage":
        names = [violation.note] if violation.note else []
    else:
        lines = "\n".join(f"- {_stated(subgoal)}" for subgoal in involved)
        texts = {"goal": one_line(goal), "subgoals": lines, "problem": _problem(violation, involved)}
        warmth = 0.7 if seed else 0.0
        answer = asker.write("repair", [texts], max_tokens=60, temperature=warmth, seed=seed)[0]
        names = list(answer.fields["names"]) if answer.fields else []
    known = {subgoal.name.casefold() for subgoal in subgoals}
    if not _names(names) or {name.casefold() for name in _names(names)} == {s.name.casefold() for s in involved}:
        return None
    if violation.constraint == "coverage" and (len(subgoals) >= MOST or _names(names)[0].casefold() in known):
        return None
    mended = replaced(asker, goal, subgoals, violation.subgoals, names)
    return mended if mended != subgoals and len(mended) <= max(MOST, len(subgoals)) else None


def _standing(checked: Checked, subgoals: Sequence[Subgoal], accepted: Collection[str]) -> list[Finding]:
    return [finding for finding in violations(checked.findings) if key(finding, subgoals) not in accepted]


def _n_failed(checked: Checked) -> int:
    return sum(finding.probability is None for finding in checked.findings)


def _lost(statements: Sequence[str], before: Sequence[Subgoal], after: Sequence[Subgoal]) -> set[str]:
    """The words of the specification that one set names and the other does not mention any more."""

    def words(texts: Sequence[str]) -> set[str]:
        return {word[:6] for text in texts for word in re.findall(r"\w{4,}", text.casefold())}

    named = words([subgoal.name for subgoal in before]) & words(statements)
    return named - words([text for subgoal in after for text in (subgoal.name, subgoal.description)])


def _problem(violation: Finding, involved: Sequence[Subgoal]) -> str:
    names = " and ".join(f"“{subgoal.name}”" for subgoal in involved)
    if violation.constraint == "atomicity":
        return f"{names} joins several things{f': {violation.note}' if violation.note else ''}."
    return f"{names} overlap."


def _found(
    asker: Asker, constraint: Constraint, texts: Sequence[Mapping[str, str]], bare: Sequence[Finding]
) -> list[Finding]:
    """The findings of one constraint, with what the judge names where it is violated."""
    question = QUESTIONS[constraint]
    if not texts:
        return []
    fit = asker.fitness(question).fit
    decided = asker.decide(question, texts)
    found = []
    for finding, choices in zip(bare, decided, strict=True):
        probability = None if choices is None else choices[_HOLDS[question]]
        outcome: Outcome = "violated"
        if probability is None or not fit:
            outcome = "undecided"
        elif probability >= 0.5:
            outcome = "holds"
        found.append(replace(finding, probability=probability, outcome=outcome))
    wrong = [n for n, finding in enumerate(found) if finding.outcome == "violated"]
    first, noted = asker.question(question).fields
    [contrary] = [choice for choice in asker.choices(question) if choice != _HOLDS[question]]
    answers = asker.write(question, [texts[n] for n in wrong], known={first: contrary}, max_tokens=60)
    for n, answer in zip(wrong, answers, strict=True):
        said = answer.fields[noted] if answer.fields else ""
        found[n] = replace(found[n], note=one_line(said) if isinstance(said, str) else ", ".join(_names(said)))
    return found


def _asking_for_capabilities(asker: Asker, statements: Sequence[str]) -> list[str]:
    """The sentences that ask for capabilities; all of them if the judge cannot tell."""
    if not asker.fitness("completeness").fit:
        return list(statements)
    decided = asker.decide("completeness", [{"statement": statement} for statement in statements])
    return [
        statement
        for statement, choices in zip(statements, decided, strict=True)
        if choices is None or sum(choices[name] for name in _NO_CAPABILITY) < 0.5
    ]


def _stated(subgoal: Subgoal) -> str:
    return f"{one_line(subgoal.name)}: {one_line(subgoal.description)}"


def _names(names: Sequence[str]) -> list[str]:
    """Names as we write them: trimmed, beginning with a capital, none twice."""
    trimmed = [one_line(name).strip(" .;:-–•*") for name in names]
    seen: dict[str, str] = {}
    for name in trimmed:
        if name:
            seen.setdefault(name.casefold(), name[0].upper() + name[1:])
    return list(seen.values())


def _identified(names: Sequence[str]) -> list[tuple[str, str]]:
    taken: list[str] = []
    for name in names:
        taken.append(slug(name, taken))
    return list(zip(taken, names, strict=True))
