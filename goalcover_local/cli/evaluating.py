"""What `evaluate` and `experiment` do: which policies are evaluated, what they write, and how it is graded."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .judging import reads_all
from .progress import progress
from .standings import Answered
from .training import found_device, policy_of, short_enough

if TYPE_CHECKING:
    from ..cards import Card
    from ..finetune.policy import Written
    from ..finetune.reward import Grader
    from ..finetune.rubric import Rubric
    from ..store import Memory
    from ..terms import Sample
    from ..trainings import Trainings


@dataclass(frozen=True)
class Chosen:
    """What is evaluated and how: the policies with the card of each one's base, the reward, the judge.

    `against` is the policy that the others are compared with, if there is one; `rewarded` are the policies that this
    judge rewarded.
    """

    cards: Mapping[str, Card]
    against: str | None
    reward: str
    judge: Card
    max_tokens: int | None
    rewarded: Sequence[str]

    @property
    def names(self) -> list[str]:
        """The policies, in the order in which they are told of."""
        return list(self.cards)


def choose(trainings: Trainings | None, options: Mapping[str, Any]) -> Chosen:
    """What the options say, and where they do not, what the run's trainings were begun with; None if there is no run.

    Weights are verified. Raises StoreError for a training that is unknown or has not ended, and where trainings differ
    in what was to be taken from them; ModelError for a card that is unknown, or weights that are not what they were.
    """
    from ..cards import DEFAULT_CARD, load_card
    from ..errors import StoreError
    from ..terms import UNTUNED
    from ..weights import verify

    held = {name: trainings.settings(name) for name in trainings.names()} if trainings else {}
    ended = [name for name in held if trainings and trainings.result(name) is not None]
    names = list(dict.fromkeys(options["names"])) or [UNTUNED, *ended]
    for name in (name for name in held if not options["names"] and name not in names):
        click.echo(f"Not graded: {name}, which has not ended. The same `goalcover train` goes on.", err=True)
    against = options["against"] or (UNTUNED if UNTUNED in names else None)
    if against and against not in names:
        names.insert(0, against)
    own = {name: trainings.settings(name) for name in names if name != UNTUNED} if trainings else {}
    for name in own:
        if name not in ended:
            raise StoreError(f"The training {name} has not ended.", "Run the same `goalcover train` again: it goes on.")
    told = list((own or held).values())
    cards = {name: settings["policy"]["card"] for name, settings in own.items()}
    if UNTUNED in names:
        base = options["policy_card"] or _shared([each["policy"]["card"] for each in told], "base model", "--policy")
        if base is None:
            raise StoreError(
                f"The run {options['run_folder']} holds no training.", "Name the model to evaluate with --policy."
            )
        cards[UNTUNED] = base
    reward = options["reward"] or _shared_reward(told)
    if reward is None:
        raise click.UsageError("Missing option '--reward': the run holds no training from which to take it.")
    judge = options["card_name"] or _shared([each["judge"]["card"] for each in told], "judge", "--judge")
    digests = _digests(reward)
    alike = [each for each in held.values() if each["reward_name"] == reward or each["reward"] in digests]
    budgets = {each["settings"]["max_tokens"] for each in alike}
    if len(budgets) > 1:
        click.echo(f"The trainings differ in their longest response: all may write {max(budgets)} tokens.", err=True)
    loaded = {name: load_card(cards[name]) for name in names}
    judge_card = load_card(judge or DEFAULT_CARD)
    for card in {card.name: card for card in (*loaded.values(), judge_card)}.values():
        verify(card, reads_all(options))
    _check_reward(digests, own)
    rewarded = [name for name, settings in own.items() if settings["judge"]["card"] == judge_card.name]
    return Chosen(loaded, against, reward, judge_card, max(budgets, default=None), rewarded)


def _digests(reward: str) -> set[str]:
    """The digests of a reward: a judge that wants all in one turn is asked the same in another form."""
    from ..finetune.rubric import load_rubric

    return {load_rubric(reward, single_turn=single_turn).digest for single_turn in (False, True)}


def _check_reward(digests: Collection[str], own: Mapping[str, Mapping[str, Any]]) -> None:
    """Nothing; says which policies were trained for another reward, or for this one before it was altered."""
    for name, settings in own.items():
        if settings["reward"] not in digests:
            click.echo(
                f"Warning: {name} was trained for another reward ({settings['judge']['reward']}, or this one as it was "
                "then): it is asked and graded by what it did not learn.",
                err=True,
            )


def _shared_reward(told: Sequence[Mapping[str, Any]]) -> str | None:
    """The reward of all trainings, as the last one names it; None if there are none. Raises StoreError if they differ.

    A reward is the same by its name, whatever form its judge was asked in, or by its digest, wherever its folder lay.
    """
    if len({each["reward"] for each in told}) == 1:
        return str(told[-1]["reward_name"])
    return _shared([each["reward_name"] for each in told], "reward", "--reward")


def _shared(values: Sequence[str], what: str, option: str) -> str | None:
    """What all trainings have in common; None if there are none. Raises StoreError if they differ."""
    from ..errors import StoreError

    if len(different := sorted(set(values))) > 1:
        raise StoreError(f"The trainings differ in their {what}: {', '.join(different)}.", f"Name one with {option}.")
    return different[0] if different else None


def respond(
    trainings: Trainings,
    chosen: Chosen,
    rubric: Rubric,
    rows: Sequence[Sample],
    memory: Memory,
    options: Mapping[str, Any],
    ends: float = float("inf"),
) -> tuple[list[Sample], dict[str, tuple[str, list[Written]]]]:
    """The different samples that are short enough, and by policy the digest of its identity and what it wrote of each.

    One policy is in memory at a time. Leaves with 130 when `ends` comes on the monotonic clock.
    """
    from ..finetune.responding import plan, write
    from ..terms import digest_of

    samples = _distinct(rows)
    max_tokens = chosen.max_tokens or rubric.task.max_tokens
    found: dict[str, tuple[str, list[Written]]] = {}
    for name, card in chosen.cards.items():
        click.echo(f"Loading the policy {name}.", err=True)
        policy = policy_of(trainings, name, card, found_device(options["device"]))
        try:
            if not found:
                samples, _ = short_enough(policy, rubric, samples, options["max_prompt_tokens"])
                _tell_seen(trainings, chosen.names, samples)
            planned = plan(
                policy,
                rubric,
                samples,
                max_tokens=max_tokens,
                temperature=options["temperature"],
                seed=options["seed"],
            )
            batches = ((n, 0) for n in write(policy, planned, memory))
            _follow(f"Writing, {name}", planned.n_missing(memory), batches, memory, ends)
            found[name] = digest_of(policy.identity), planned.written(memory)
        finally:
            policy.close()
    return samples, found


def graded(
    grader: Grader,
    samples: Sequence[Sample],
    written: Mapping[str, tuple[str, Sequence[Written]]],
    memory: Memory,
    ends: float = float("inf"),
    *,
    retry_failed: bool = False,
) -> dict[str, Answered]:
    """What each policy wrote, with its grades. Leaves with 130 when `ends` comes on the monotonic clock."""
    from ..finetune.responding import grade, grades, n_ungraded
    from ..finetune.reward import Response

    # Responses to one sample stand together, for they share its cost.
    asked = [
        Response(sample.input, sample.output, texts[place].text)
        for place, sample in enumerate(samples)
        for _, texts in written.values()
    ]
    n = n_ungraded(grader, asked, memory, retry_failed=retry_failed)
    _follow("Grading", n, grade(grader, asked, memory, retry_failed=retry_failed), memory, ends)
    found = grades(grader, asked, memory)
    return {
        name: Answered(policy, texts, found[place :: len(written)])
        for place, (name, (policy, texts)) in enumerate(written.items())
    }


def _follow(what: str, n: int, batches: Iterable[tuple[int, int]], memory: Memory, ends: float) -> None:
    """Nothing; shows n responses on their way, each batch stored as it comes, and leaves with 130 at `ends`."""
    with progress(what, n, "responses") as bar:
        for n_done, n_failed in batches:
            memory.keep()
            bar.advance(n_done, n_failed)
            if bar.done < n and time.monotonic() > ends:
                stop()


def stop() -> NoReturn:
    """Nothing; says that time is up, and leaves with 130."""
    click.echo("Stopped by --max-hours. The same command goes on from here.", err=True)
    click.get_current_context().exit(130)


def _distinct(rows: Sequence[Sample]) -> list[Sample]:
    """The first row of each sample; says how many others there are."""
    first: dict[str, Sample] = {}
    for row in rows:
        first.setdefault(row.digest, row)
    if n := len(rows) - len(first):
        click.echo(f"{n} of {len(rows)} rows are equal to others, and count once.", err=True)
    return list(first.values())


def _tell_seen(trainings: Trainings, names: Sequence[str], samples: Sequence[Sample]) -> None:
    """Nothing; warns of samples that a policy was trained on, which a training knows by the beginnings of digests."""
    from ..terms import UNTUNED

    for name in names:
        if name == UNTUNED:
            continue
        rows = set(trainings.settings(name).get("rows", ()))
        lengths = {len(row) for row in rows}
        if n := sum(any(sample.digest[:length] in rows for length in lengths) for sample in samples):
            click.echo(
                f"Warning: {n} of {len(samples)} test rows were in the training of {name}: what it writes about them "
                "does not speak for new ones.",
                err=True,
            )
