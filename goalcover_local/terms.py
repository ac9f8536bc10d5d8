"""The nouns of the paper as frozen records: no behaviour beyond derivations from their own fields."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ANCHORS: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The six anchors of the rubric, ascending (paper, section 4.4)."""

ANCHOR_TEXTS: tuple[str, ...] = tuple(f"{anchor:.1f}" for anchor in ANCHORS)
"""The anchors as they are written in an answer: "0.0" … "1.0"."""

SUPPORT_AT = 0.6
"""The lowest value at which a sample supports a subgoal: "good alignment", in the rubric's words."""

Value = Literal["score", "expectation", "corrected", "calibrated"]
"""Which number stands for a judgement in means, shares, verdicts and filters."""

VALUES: tuple[Value, ...] = ("score", "expectation", "corrected", "calibrated")

Verdict = Literal["gap", "covered", "undecided"]


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8 kept."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A clarifying question and the practitioner's answer (paper, section 3.2); an empty answer means it was skipped.

    `aspect` names what was asked about, `suggestions` were offered, and `statement` is what the answer added to the
    specification.
    """

    question: str
    answer: str
    aspect: str = ""
    suggestions: tuple[str, ...] = ()
    statement: str = ""


@dataclass(frozen=True, slots=True)
class Subgoal:
    """An atomic capability that the data should support (paper, Definition 2)."""

    id: str
    name: str
    description: str
    evidence: str = ""
    target_share: float = 0.05

    @property
    def digest(self) -> str:
        """Digest of what a judge reads; neither the id nor the target share is part of it."""
        return digest_of({"name": self.name, "description": self.description, "evidence": self.evidence})


Constraint = Literal["atomicity", "disjointness", "coverage"]
"""What a decomposition must satisfy (paper, Eqs. 1–3): each subgoal one capability, no two alike, none missing."""

CONSTRAINTS: tuple[Constraint, ...] = ("atomicity", "disjointness", "coverage")

Outcome = Literal["holds", "violated", "accepted", "undecided"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found of one subgoal (atomicity), of two (disjointness), or of one sentence (coverage).

    `subgoals` are ids; `statement` is the specification's sentence that was held against the set. `probability` is that
    the constraint holds, in [0, 1]; None if the judge failed to say. `outcome` is `undecided` where it failed or is
    not fit to tell, and `accepted` where a person overruled a violation, for a `reason`. `note` says what the judge
    named: a compound's parts, why two overlap, what is missing.
    """

    constraint: Constraint
    subgoals: tuple[str, ...]
    statement: str = ""
    probability: float | None = None
    outcome: Outcome = "undecided"
    note: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A reason for which a person lets a violation be, written down before it is found.

    `digests` maps ids to those of the subgoals that were meant; an id that is not in it stands for itself.
    """

    constraint: Constraint
    subgoals: tuple[str, ...]
    statement: str
    reason: str
    digests: Mapping[str, str] = field(default_factory=dict)

    def covers(self, finding: Finding, digests: Mapping[str, str]) -> bool:
        """Whether a finding is of what was accepted, given the digests of the subgoals as they are now."""
        same = (self.constraint, sorted(self.subgoals), self.statement)
        unchanged = all(self.digests.get(each, digests.get(each)) == digests.get(each) for each in self.subgoals)
        return unchanged and same == (finding.constraint, sorted(finding.subgoals), finding.statement)


@dataclass(frozen=True, slots=True)
class Repair:
    """One attempt to mend a violation: ids before and after, and whether the set was better for it."""

    constraint: Constraint
    before: tuple[str, ...]
    after: tuple[str, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of one decomposition: by which judge, how fit it was, and what it found.

    `subgoals` is the digest of what was checked (`Goal.decomposition`): another one means that the checks are stale.
    `fitness` maps each constraint that was checked to the judge's accuracy on our own reference cases, in [0, 1].
    """

    judge: str
    digest: str
    subgoals: str
    fitness: Mapping[str, float]
    findings: tuple[Finding, ...] = ()
    repairs: tuple[Repair, ...] = ()


Mark = Literal["yes", "no"]


@dataclass(frozen=True, slots=True)
class Review:
    """An expert's marks on a decomposition (paper, section 7.2); what was not marked is absent.

    `atomic` and `needed` map subgoal ids to marks, `disjoint` maps pairs of ids; `missing` names capabilities that no
    subgoal covers, `comments` map subgoal ids to remarks. `subgoals` is the digest of what was reviewed.
    """

    reviewer: str
    subgoals: str
    atomic: Mapping[str, Mark] = field(default_factory=dict)
    needed: Mapping[str, Mark] = field(default_factory=dict)
    disjoint: Mapping[tuple[str, str], Mark] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    comments: Mapping[str, str] = field(default_factory=dict)


Step = Literal["questions", "refinement", "checks"]
"""A step of the elicitation that may be left out, to see what it is worth (paper, section 7.4)."""

STEPS: tuple[Step, ...] = ("questions", "refinement", "checks")


@dataclass(frozen=True, slots=True)
class Goal:
    """What the fine-tuned model should be able to do, and its decomposition; `without` which steps it came about."""

    text: str
    specification: str = ""
    exchanges: tuple[Exchange, ...] = ()
    subgoals: tuple[Subgoal, ...] = ()
    tau: float = 0.6
    without: tuple[Step, ...] = ()
    checks: Checks | None = None
    reviews: tuple[Review, ...] = ()

    @property
    def decomposition(self) -> str:
        """Digest of what checks and reviews speak of: goal, specification, and each subgoal's id and text."""
        return digest_of([self.text, self.specification, [[s.id, s.digest] for s in self.subgoals]])

    @property
    def current_checks(self) -> Checks | None:
        """The checks, if they are of this decomposition; None if there are none, or if it was edited since."""
        return self.checks if self.checks and self.checks.subgoals == self.decomposition else None

    @property
    def digest(self) -> str:
        """Digest of what an assessment rests on: texts, subgoals, ids and thresholds; not how they came about."""
        return digest_of(
            {
                "text": self.text,
                "specification": self.specification,
                "subgoals": [[s.id, s.digest, s.target_share] for s in self.subgoals],
                "tau": self.tau,
            }
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One input–output pair of the dataset, and where it stands: `source` is a file name, `line` counts from 1."""

    id: str
    input: str
    output: str
    source: str = ""
    line: int = 0
    raw: bytes = b""

    @property
    def digest(self) -> str:
        """Digest of what a judge reads: equal samples are judged once and count as often as they stand."""
        return digest_of({"input": self.input, "output": self.output})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that could not become a sample: where it stands and why. Never contains its text."""

    source: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of one sample and one subgoal (paper, Definition 3).

    `probabilities` are those of the six anchors, ascending, summing to 1. A failed judgement has none: it is
    missing, never 0, and says why in `failure`.
    """

    sample: str
    subgoal: str
    probabilities: tuple[float, ...] | None
    failure: str | None = None

    @property
    def score(self) -> float | None:
        """The anchor in the judge's JSON: the most probable of the six, the lowest of equals. None if missing."""
        if self.probabilities is None:
            return None
        return ANCHORS[max(range(len(ANCHORS)), key=lambda k: (self.probabilities[k], -k))]  # type: ignore[index]

    @property
    def expectation(self) -> float | None:
        """The mean of the anchors under their probabilities, in [0, 1] (G-Eval, Liu et al. 2023). None if missing."""
        if self.probabilities is None:
            return None
        return float(sum(a * p for a, p in zip(ANCHORS, self.probabilities, strict=True)))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a judge gave one sample that score for one subgoal; `answer` is its whole JSON, valid under the grammar."""

    sample: str
    subgoal: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval; `n` is how many rows it rests on."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How well the dataset supports one subgoal.

    `alignment` maps each value that exists to its mean over the rows (paper, section 3.3). `shares` are those of the
    rows at each of the six anchors. `support` is the share of rows whose value reaches 0.6, of the rows judged.
    """

    subgoal: Subgoal
    alignment: Mapping[str, Estimate]
    shares: tuple[float, ...]
    support: Estimate
    n_support: int
    n_judged: int
    n_failed: int
    below_tau: bool
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class MissingCapability:
    """A capability that the explanations of low scores name as missing (paper, Eq. 8).

    `samples` are the digests of the low samples whose explanations name it, and `n_rows` the rows that hold them.
    `quotations` are up to three of these explanations, each a sample's digest and a text. Never without evidence.
    """

    name: str
    samples: tuple[str, ...]
    n_rows: int
    quotations: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """A subgoal that the data do not support enough, and what exactly is missing (paper, section 3.4).

    `subgoal` is an id. Rows: `n_support` of `n_judged` reach support, `n_low` have a low value. Of the low rows'
    samples `n_explained` have an explanation that was read. `instead` names what low rows teach in its place.
    """

    subgoal: str
    n_judged: int
    n_support: int
    n_low: int
    n_explained: int
    missing: tuple[MissingCapability, ...] = ()
    instead: tuple[MissingCapability, ...] = ()

    @property
    def absent(self) -> bool:
        """Whether no row at all reaches support."""
        return self.n_support == 0


Remedy = Literal["curate", "filter", "synthesize", "assess"]
"""What can be done about a gap: collect data, leave data out, have data written, or judge more rows first."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: what, with how many rows, and in words."""

    remedy: Remedy
    n_rows: int
    text: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do about a gap (paper, Eq. 9): issue and fix in a sentence each, and actions with their numbers.

    `n_missing` is how many rows that support the subgoal the dataset lacks to reach its target share; `near` are
    digests of samples that come close to supporting it. `author` is the model that wrote issue and fix; empty if none
    did.
    """

    subgoal: str
    issue: str
    fix: str
    n_missing: int
    actions: tuple[Action, ...]
    near: tuple[str, ...] = ()
    author: str = ""


UNTUNED = "base"
"""What the policy before any training is called; no training has its name."""

QUALITIES: tuple[str, ...] = ("correctness", "completeness", "faithfulness")
"""What a discriminator scores a written sample by (paper, section 3.5)."""

Fate = Literal["kept", "rejected", "refused"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample that a generator wrote for a subgoal, how it was scored, and what became of it.

    `fields` are the columns of the dataset. `quality` maps each of `QUALITIES` to a value in [0, 1], `alignment` is the
    judge's value for the subgoal, `rank` the mean probability to be the best of the `among` samples of its group; None
    where the model failed or was not asked. `round` counts refinements from 0; `before` is the digest of the draft that
    was refined. `reason` says why it was rejected, or of what a refused one is a near-duplicate. `provenance` tells by
    "subgoal" the digest of the subgoal as it was then.
    """

    subgoal: str
    fields: Mapping[str, Any]
    sample: Sample
    number: int
    round: int = 0
    before: str = ""
    quality: Mapping[str, float | None] = field(default_factory=dict)
    alignment: float | None = None
    rank: float | None = None
    among: int = 0
    fate: Fate = "rejected"
    reason: str = ""
    feedback: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
