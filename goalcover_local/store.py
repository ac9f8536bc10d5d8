"""The run folder: a SQLite file that one process writes, in whole batches, and that any number may read."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from . import audit, chain
from .errors import StoreError
from .folder import check_place, open_database
from .records import (
    JUDGE,
    NUMBERS,
    SAMPLE,
    SUBGOAL,
    as_bytes,
    as_json,
    as_record,
    as_text,
    from_record,
    insert_explanations,
    insert_judgements,
    insert_rows,
    insert_sample,
    insert_subgoals,
)
from .resampling import drawn
from .run_failures import failures_told
from .terms import (
    Candidate,
    Exchange,
    Explanation,
    Gap,
    Goal,
    Judgement,
    Recommendation,
    Refusal,
    Sample,
    Subgoal,
    digest_of,
)

Keys = npt.NDArray[np.int64]
"""Samples by the small number that this run gave each distinct one; -1 is none."""


class Counts(NamedTuple):
    """What a dataset came to: rows kept, distinct samples among them, rows refused."""

    rows: int
    samples: int
    refusals: int


class Origin(NamedTuple):
    """Where the rows of a run came from: the data's path, digest, and layout (`readers.Layout` as plain values)."""

    path: str
    content: str
    layout: Mapping[str, Any]


class Judged(NamedTuple):
    """Judgements as arrays, a line per sample and a column per subgoal."""

    samples: Keys
    """(n_samples,), repeating as rows do."""
    probabilities: npt.NDArray[np.float64]
    """(n_samples, n_subgoals, 6), of the anchors ascending; NaN where there are none."""
    failed: npt.NDArray[np.bool_]
    """(n_samples, n_subgoals): the judge was asked and did not answer."""


class Run:
    """A run folder that is open; made by `Run.open`, best in a `with` statement.

    Every method that writes is one transaction: it happens wholly or not at all, and outlasts a power cut
    once it has returned. Every method raises StoreError when the file or its disk fails, or when it writes
    to a run opened for reading. Judges, subgoals and samples are named by digests, many samples by `Keys`.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection, held: ExitStack) -> None:
        self.folder = folder
        self._database = database
        self._held = held
        self._recorded: audit.Recording | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, write: bool, create: bool = False) -> Run:
        """The run in that folder; with `create`, a new one where there is none yet.

        One process may write, kept alone by a lock on `run.lock`; others may read meanwhile. A writer makes
        the folder 0700 and its files 0600 whatever the umask. Raises StoreError if the run is absent, locked,
        damaged, of a newer version, another program's, or on a disk that is full or not writable.
        """
        folder = Path(path)
        with ExitStack() as held:
            return cls(folder, open_database(folder, held, write=write, create=create), held.pop_all())

    @staticmethod
    def check_place(path: str | os.PathLike[str]) -> str | None:
        """What is wrong with a place for a run, and how to mend it; None if nothing is. Creates nothing."""
        return check_place(Path(path))

    def close(self, error: BaseException | None = None) -> None:
        """Closes the file and lets go of the lock; `error` is what ended the work, if anything did.

        Where the program records itself (see `audit.Recording`) and something was written, it is sealed first. Raises
        StoreError if that fails and nothing else ended the work.
        """
        try:
            if self._recorded is not None:
                self._seal(self._recorded, error)
        finally:
            self._recorded = None
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.close(error)

    # The goal and its subgoals

    def put_goal(self, goal: Goal) -> str:
        """Makes this the run's goal and returns its digest; earlier goals and all judgements stay."""
        fields: dict[str, Any] = {"text": goal.text, "specification": goal.specification, "tau": goal.tau}
        fields["exchanges"] = [[exchange.question, exchange.answer] for exchange in goal.exchanges]
        parts = [(goal.digest, n, s.id, s.target_share, s.digest) for n, s in enumerate(goal.subgoals)]
        with self._transaction() as database:
            insert_subgoals(database, goal.subgoals)
            database.execute(
                "INSERT INTO goals VALUES (?, ?, (SELECT coalesce(max(position), 0) + 1 FROM goals))"
                " ON CONFLICT (digest) DO UPDATE SET json = excluded.json, position = excluded.position",
                (goal.digest, as_json(fields)),
            )
            database.executemany(f"INSERT OR IGNORE INTO goal_subgoals VALUES (?, ?, ?, ?, {SUBGOAL})", parts)
        return goal.digest

    def goal(self) -> Goal:
        """The goal that was put last. Raises StoreError if there is none yet."""
        found = self._read("SELECT digest, json FROM goals ORDER BY position DESC LIMIT 1")
        if not found:
            raise StoreError(f"The run {self.folder} holds no goal yet.", "Assess a goal file into it first.")
        fields = json.loads(found[0][1])
        parts = self._read(
            "SELECT g.id, g.target_share, s.json FROM goal_subgoals g JOIN subgoals s ON s.key = g.subgoal"
            " WHERE g.goal = ? ORDER BY g.position",
            found[0][:1],
        )
        subgoals = tuple(Subgoal(id=id_, target_share=share, **json.loads(text)) for id_, share, text in parts)
        exchanges = tuple(Exchange(*pair) for pair in fields.pop("exchanges"))
        return Goal(exchanges=exchanges, subgoals=subgoals, **fields)

    def put_subgoals(self, subgoals: Iterable[Subgoal]) -> None:
        """Makes subgoals known that are judged without being the goal's, such as reference capabilities."""
        with self._transaction() as database:
            insert_subgoals(database, subgoals)

    # The data

    def put_rows(self, rows: Iterable[Sample | Refusal], source_digest: str, origin: Origin | None = None) -> Counts:
        """Takes in a dataset, row by row in one transaction, and returns its counts.

        `source_digest` stands for the data and how they were read: the same again changes and reads nothing,
        another raises StoreError, since a run holds one dataset. The path of the same data may be a new one.
        """
        held = self.data_digest()
        if held is not None and held != source_digest:
            raise StoreError(
                f"The run {self.folder} holds other data.",
                "Name a new folder with --run, or give the data and columns this run was made from.",
            )
        if held is None:
            with self._transaction() as database:
                database.execute("INSERT INTO data VALUES (?)", (source_digest,))
                insert_rows(database, rows)
        if origin is not None:
            with self._transaction() as database:
                database.execute("DELETE FROM origin")
                values = as_bytes(origin.path), origin.content, as_json(dict(origin.layout))
                database.execute("INSERT INTO origin VALUES (?, ?, ?)", values)
        return self.counts()

    def origin(self) -> Origin | None:
        """Where the rows came from; None in a run of an older version that was not assessed since."""
        found = self._read("SELECT path, content, layout FROM origin")
        return Origin(as_text(found[0][0]), found[0][1], json.loads(found[0][2])) if found else None

    def data_digest(self) -> str | None:
        """The digest under which the rows were put; None before."""
        found = self._read("SELECT digest FROM data")
        return found[0][0] if found else None

    def counts(self) -> Counts:
        """How many rows, distinct samples among the rows, and refused rows the run holds."""
        n_samples = self._one("SELECT count(DISTINCT sample) FROM rows")
        return Counts(self.n_rows(), n_samples, self._one("SELECT count(*) FROM refusals"))

    def n_rows(self) -> int:
        """How many rows the run holds, equal ones counted as often as they stand."""
        return int(self._one("SELECT count(*) FROM rows"))

    def rows(self) -> Iterator[Sample]:
        """Every row in the order of the data, with its raw bytes; a hundred in memory at a time."""
        for low in range(0, self.n_rows(), 100):
            for id_, asked, said, source, line, raw in self._read(
                "SELECT r.id, s.input, s.output, r.source, r.line, r.raw FROM rows r JOIN samples s"
                " ON s.key = r.sample WHERE r.position BETWEEN ? AND ? ORDER BY r.position",
                (low, low + 99),
            ):
                yield Sample(as_text(id_), as_text(asked), as_text(said), as_text(source), line, raw)

    def refusals(self) -> list[Refusal]:
        """The rows that could not become samples, in the order of the data."""
        found = self._read("SELECT source, line, reason FROM refusals ORDER BY position")
        return [Refusal(as_text(source), line, as_text(reason)) for source, line, reason in found]

    def draw(self, seed: int, limit: int | None = None) -> Keys:
        """Positions of the first `limit` rows, or of all, in an order fixed by `seed`: (n,), see `drawn`."""
        return drawn(self.n_rows(), seed, limit)

    def row_samples(self, positions: Keys | None = None) -> Keys:
        """The sample in each row, (n,): in all rows in the order of the data, or in those at `positions`."""
        samples = self._column("SELECT sample FROM rows ORDER BY position")
        return samples if positions is None else samples[positions]

    def permutation(self, seed: int, limit: int | None = None) -> Keys:
        """The distinct samples of the rows drawn, (n_samples,), in the order in which the draw meets them."""
        return self.distinct(self.draw(seed, limit))

    def distinct(self, positions: Keys) -> Keys:
        """The distinct samples in the rows at these positions, (n_samples,), in the order in which they are met."""
        samples, first = np.unique(self.row_samples(positions), return_index=True)
        return samples[np.argsort(first, kind="stable")]

    def put_samples(self, samples: Iterable[Sample]) -> Keys:
        """Makes samples known that are judged without being rows, such as references; returns their keys."""
        with self._transaction() as database:
            digests = [insert_sample(database, sample).hex() for sample in samples]
        return self.keys(digests)

    def keys(self, digests: Iterable[str]) -> Keys:
        """The key of each sample digest, (n,), -1 where the run does not hold it."""
        query = "SELECT coalesce(max(key), -1) FROM samples WHERE digest = ?"
        return np.array([self._one(query, (bytes.fromhex(digest),)) for digest in digests], dtype=np.int64)

    def samples(self, keys: Iterable[int]) -> list[Sample]:
        """The samples with these keys, in this order, without raw bytes.

        Id, source and line are those of the first row that holds the sample, empty where no row does. Raises
        StoreError for a key that the run does not hold.
        """
        wanted = [int(key) for key in keys]
        found = self._read(
            "SELECT s.key, r.id, s.input, s.output, r.source, r.line FROM samples s LEFT JOIN rows r"
            " ON r.position = (SELECT min(position) FROM rows WHERE sample = s.key)"
            " WHERE s.key IN (SELECT value FROM json_each(?))",
            (as_json(wanted),),
        )
        known = {
            key: Sample(as_text(id_ or b""), as_text(asked), as_text(said), as_text(source or b""), line or 0)
            for key, id_, asked, said, source, line in found
        }
        if unknown := set(wanted) - set(known):
            raise StoreError(f"The run {self.folder} holds no sample {min(unknown)}.", "Take keys from this run.")
        return [known[key] for key in wanted]

    def row_ids(self, digests: Iterable[str]) -> dict[str, str]:
        """By digest, the id of the first row that holds each sample, in the order of the data; others are left out."""
        found = self._read(
            "SELECT s.digest, r.id FROM samples s JOIN rows r"
            " ON r.position = (SELECT min(position) FROM rows WHERE sample = s.key)"
            " WHERE s.key IN (SELECT value FROM json_each(?)) ORDER BY r.position",
            (as_json(self.keys(digests).tolist()),),
        )
        return {digest.hex(): as_text(id_) for digest, id_ in found}

    def sample(self, name: int | str) -> Sample:
        """The sample with this key or digest. Raises StoreError if the run does not hold it."""
        return self.samples(self.keys([name]) if isinstance(name, str) else [name])[0]

    # Judges

    def put_judge(self, identity: Mapping[str, Any]) -> str:
        """Makes a judge known by all that decides its answers, and returns its digest."""
        digest = digest_of(identity)
        with self._transaction() as database:
            query = "INSERT OR IGNORE INTO judges(digest, json) VALUES (?, ?)"
            database.execute(query, (digest, as_json(identity)))
        return digest

    def judges(self) -> dict[str, dict[str, Any]]:
        """Each judge's identity by its digest, in the order in which they came."""
        found = self._read("SELECT digest, json FROM judges ORDER BY key")
        return {digest: json.loads(text) for digest, text in found}

    def put_scale(self, judge: str, scale: Mapping[str, Any]) -> None:
        """Keeps what was fitted for a judge on our own reference pairs, in place of any earlier scale."""
        with self._transaction() as database:
            database.execute(f"INSERT OR REPLACE INTO scales VALUES ({JUDGE}, ?)", (judge, as_json(scale)))

    def scale(self, judge: str) -> dict[str, Any] | None:
        """What was fitted for this judge; None if nothing was yet."""
        found = self._read(f"SELECT json FROM scales WHERE judge = {JUDGE}", (judge,))
        return dict(json.loads(found[0][0])) if found else None

    # Judgements

    def missing(
        self, judge: str, subgoals: Sequence[str], samples: Keys, *, retry_failed: bool = False
    ) -> npt.NDArray[np.bool_]:
        """Which pairs are yet to be asked, (n_samples, n_subgoals); with `retry_failed`, failed ones too."""
        missing = np.ones((len(samples), len(subgoals)), dtype=np.bool_)
        for number, subgoal in enumerate(subgoals):
            stored = self._column(
                f"SELECT sample FROM judgements WHERE judge = {JUDGE} AND subgoal = {SUBGOAL}"
                " AND (failure IS NULL OR NOT ?)",
                (judge, subgoal, retry_failed),
            )
            missing[:, number] = ~np.isin(samples, stored)
        return missing

    def asking(self, n_pairs: int) -> None:
        """Counts a batch that is about to be asked, so that `n_asked` includes what a kill then loses."""
        self.count("n_asked", n_pairs)

    def append(
        self,
        judge: str,
        judgements: Iterable[Judgement],
        explanations: Iterable[Explanation] = (),
        truncations: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Stores one batch, all of it or nothing; `truncations` are sample digests with the tokens left out.

        A judgement once stored stays, except that a failed one gives way to a later one. Raises StoreError if
        a record names a judge, subgoal or sample that the run does not hold, or if probabilities do not sum
        to 1.
        """
        with self._transaction() as database:
            insert_judgements(database, judge, judgements)
            insert_explanations(database, judge, explanations)
            database.executemany(
                f"INSERT OR REPLACE INTO truncations VALUES ({JUDGE}, {SAMPLE}, ?)",
                ((judge, bytes.fromhex(sample), tokens) for sample, tokens in truncations),
            )

    def append_explanations(self, judge: str, explanations: Iterable[Explanation]) -> None:
        """Stores explanations, all of them or none; a later one for the same pair replaces the earlier."""
        with self._transaction() as database:
            insert_explanations(database, judge, explanations)

    def probabilities(self, judge: str, subgoals: Sequence[str], samples: Keys | None = None) -> Judged:
        """What the judge said of these samples and subgoals, as arrays.

        `samples` may repeat: `row_samples(draw(seed, limit))` are those of the rows drawn. Without it: those
        of every row of which anything was judged, in the order of the data.
        """
        keys, place = np.unique(self.row_samples() if samples is None else samples, return_inverse=True)
        found = np.full((len(keys), len(subgoals), 6), np.nan)
        failed = np.zeros((len(keys), len(subgoals)), dtype=np.bool_)
        for number, subgoal in enumerate(subgoals):
            for page in self._pages(
                f"SELECT sample, failure IS NOT NULL, {NUMBERS} FROM judgements"
                f" WHERE judge = {JUDGE} AND subgoal = {SUBGOAL}",
                (judge, subgoal),
            ):
                page = page[np.isin(page[:, 0], keys)]
                at = np.searchsorted(keys, page[:, 0])
                failed[at, number] = page[:, 1] == 1
                found[at, number] = page[:, 2:]
        if samples is None:
            place = place[(failed | ~np.isnan(found[:, :, 0])).any(axis=1)[place]]
        return Judged(keys[place], found[place], failed[place])

    def failures(self, judge: str) -> list[Judgement]:
        """The judgements that failed, with reasons; by subgoal, then sample, as these came to be known."""
        found = self._read(
            "SELECT s.digest, g.digest, j.failure FROM judgements j JOIN samples s ON s.key = j.sample"
            f" JOIN subgoals g ON g.key = j.subgoal WHERE j.judge = {JUDGE} AND j.failure IS NOT NULL"
            " ORDER BY j.subgoal, j.sample",
            (judge,),
        )
        return [Judgement(sample.hex(), subgoal, None, failure) for sample, subgoal, failure in found]

    def explanations(self, judge: str, subgoal: str) -> list[Explanation]:
        """The explanations that this judge gave for one subgoal; by sample, as they came to be known."""
        found = self._read(
            "SELECT s.digest, e.text, e.answer FROM explanations e JOIN samples s ON s.key = e.sample"
            f" WHERE e.judge = {JUDGE} AND e.subgoal = {SUBGOAL} ORDER BY e.sample",
            (judge, subgoal),
        )
        return [Explanation(sample.hex(), subgoal, as_text(text), as_text(answer)) for sample, text, answer in found]

    def truncations(self, judge: str) -> dict[str, int]:
        """By digest, each sample that did not fit this judge's context: how many tokens were left out."""
        found = self._read(
            "SELECT s.digest, t.tokens FROM truncations t JOIN samples s ON s.key = t.sample"
            f" WHERE t.judge = {JUDGE} ORDER BY t.sample",
            (judge,),
        )
        return {sample.hex(): tokens for sample, tokens in found}

    def export(self, judge: str, positions: Keys | None = None) -> Iterator[dict[str, Any]]:
        """One record for each judged pair of a row and a subgoal of the goal; a thousand rows at a time.

        By row, then subgoal, whatever the order of judging: an interrupted and resumed run exports what an
        unbroken one does. With `positions`, those rows only. A failed judgement has a failure and no numbers.
        Raises StoreError if the run holds no goal.
        """
        goal = self.goal().digest
        wanted = None if positions is None else set(positions.tolist())
        for low in range(0, self.n_rows(), 1000):
            for position, id_, source, line, subgoal, explanation, failure, *numbers in self._read(
                f"SELECT r.position, r.id, r.source, r.line, g.id, e.text, j.failure, {NUMBERS}"
                " FROM rows r CROSS JOIN goal_subgoals g CROSS JOIN judgements j"
                f" ON j.judge = {JUDGE} AND j.subgoal = g.subgoal AND j.sample = r.sample"
                " LEFT JOIN explanations e USING (judge, subgoal, sample)"
                " WHERE g.goal = ? AND r.position BETWEEN ? AND ? ORDER BY r.position, g.position",
                (judge, goal, low, low + 999),
            ):
                if wanted is None or position in wanted:
                    judgement = Judgement("", "", None if failure is not None else tuple(numbers), failure)
                    yield {
                        "row": position,
                        "id": as_text(id_),
                        "source": as_text(source),
                        "line": line,
                        "subgoal": subgoal,
                        "score": judgement.score,
                        "expectation": judgement.expectation,
                        "probabilities": None if failure is not None else numbers,
                        "explanation": None if explanation is None else as_text(explanation),
                        "failure": failure,
                    }

    # What was made of judgements

    def memory(self) -> Memory:
        """What models wrote for this run, by digest: see `Memory`."""
        return Memory(self, {key: json.loads(text) for key, text in self._read("SELECT key, json FROM answers")})

    def remember(self, answers: Mapping[str, Any]) -> None:
        """Keeps answers of models, all or none of them; one that is known stays as it is."""
        with self._transaction() as database:
            pairs = ((key, as_json(answer)) for key, answer in answers.items())
            database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", pairs)

    def put_gaps(self, gaps: Sequence[Gap]) -> None:
        """Keeps the gaps of the latest analysis, in place of any earlier one's; recommendations for those go too."""
        with self._transaction() as database:
            database.execute("DELETE FROM gaps")
            database.execute("DELETE FROM recommendations")
            found = ((place, as_record(gap)) for place, gap in enumerate(gaps))
            database.executemany("INSERT INTO gaps VALUES (?, ?)", found)

    def gaps(self) -> list[Gap]:
        """The gaps of the latest analysis, in the order of the goal."""
        return [from_record(Gap, text) for (text,) in self._read("SELECT json FROM gaps ORDER BY position")]

    def put_recommendations(self, recommendations: Sequence[Recommendation]) -> None:
        """Keeps recommendations, in place of any earlier ones."""
        with self._transaction() as database:
            database.execute("DELETE FROM recommendations")
            given = ((place, as_record(one)) for place, one in enumerate(recommendations))
            database.executemany("INSERT INTO recommendations VALUES (?, ?)", given)

    def recommendations(self) -> list[Recommendation]:
        """The latest recommendations, in the order of the gaps."""
        found = self._read("SELECT json FROM recommendations ORDER BY position")
        return [from_record(Recommendation, text) for (text,) in found]

    def put_candidates(self, subgoal: str, candidates: Sequence[Candidate], start: int = 0) -> None:
        """Keeps the samples written for a subgoal (its id) after the first `start`, in place of any that came there."""
        with self._transaction() as database:
            database.execute("DELETE FROM candidates WHERE subgoal = ? AND position >= ?", (subgoal, start))
            written = ((subgoal, place, as_record(one)) for place, one in enumerate(candidates, start))
            database.executemany("INSERT INTO candidates VALUES (?, ?, ?)", written)

    def candidates(self) -> list[Candidate]:
        """Every sample that was written, by subgoal (its id), then as they were written."""
        found = self._read("SELECT json FROM candidates ORDER BY subgoal, position")
        return [from_record(Candidate, text) for (text,) in found]

    # Counters

    def count(self, name: str, by: float) -> None:
        """Adds to a counter of the run, such as seconds of a device; a new one starts at 0."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, by),
            )

    def counter(self, name: str) -> float:
        """Where that counter stands; 0 for one that was never counted."""
        return float(self._one("SELECT coalesce(max(value), 0) FROM counters WHERE name = ?", (name,)))

    def n_asked(self) -> int:
        """How many pairs were ever put to a judge; those that a kill lost are counted each time."""
        return int(self.counter("n_asked"))

    def n_stored(self, judge: str | None = None) -> int:
        """How many judgements the run holds, failed and reference ones included: one judge's, or all."""
        return int(self._one(f"SELECT count(*) FROM judgements {_of(judge)}", [judge] if judge else []))

    def n_failed(self, judge: str | None = None) -> int:
        """How many of the judgements stored are failures: one judge's, or all."""
        return int(self._one(f"SELECT count(failure) FROM judgements {_of(judge)}", [judge] if judge else []))

    # Events

    def event(self, kind: str, details: Mapping[str, Any], command: str | None = None) -> chain.Event:
        """The event as added to the run's chain, see `chain.next_event`. Raises StoreError for text."""
        with self._transaction() as database:
            return audit.add(database, kind, details, command)

    def events(self) -> list[chain.Event]:
        """Every event, oldest first."""
        with failures_told(self.folder):
            return audit.events(self._database)

    def verify_events(self) -> list[str]:
        """What is wrong with the chain of events, a sentence each; empty if it is whole and unaltered.

        Who can rewrite the file can rewrite the whole chain: keep the last hash elsewhere to rule that out.
        """
        with failures_told(self.folder):
            return audit.problems(self._database)

    def edited(self) -> list[str] | None:
        """The kinds of content (`audit.KINDS`) that were edited since they were sealed; None if they are not sealed."""
        with failures_told(self.folder):
            self._database.execute("BEGIN")
            try:
                return audit.unlike_seal(self._database)
            finally:
                self._database.execute("ROLLBACK")

    def _seal(self, recorded: audit.Recording, error: BaseException | None) -> None:
        """Nothing; the last event seals what the run holds. Raises StoreError if nothing else ended the work."""
        try:
            with self._transaction() as database:
                first, last = audit.seal(database, recorded.command, recorded.outcome(error))
        except StoreError:
            if error is None:
                raise
            return
        recorded.sealed(self.folder, first, last)

    # The only doors to the file, for this class and for `trainings.Trainings`

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        recorded = self._recorded or audit.recording
        with failures_told(self.folder):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                if recorded is not self._recorded and recorded is not None:
                    recorded.opening(self.folder, *audit.begin(self._database, recorded.command))
                yield self._database
                self._database.execute("COMMIT")
                self._recorded = recorded
            except BaseException:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise

    def _read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with failures_told(self.folder):
            return self._database.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[object] = ()) -> Any:
        return self._read(query, values)[0][0]

    def _column(self, query: str, values: Sequence[object] = ()) -> Keys:
        with failures_told(self.folder):
            return np.fromiter((row[0] for row in self._database.execute(query, values)), dtype=np.int64)

    def _pages(self, query: str, values: Sequence[object]) -> Iterator[npt.NDArray[np.float64]]:
        with failures_told(self.folder):
            cursor = self._database.execute(query, values)
            while page := cursor.fetchmany(10_000):
                yield np.array(page, dtype=np.float64)


class Memory(dict[str, Any]):
    """Answers of models by digest; those that were added are in the run's file once `keep` has returned."""

    def __init__(self, run: Run, held: Mapping[str, Any]) -> None:
        super().__init__(held)
        self._run = run
        self._new: dict[str, Any] = {}

    def __setitem__(self, key: str, answer: Any) -> None:
        super().__setitem__(key, answer)
        self._new[key] = answer

    def setdefault(self, key: str, answer: Any = None) -> Any:
        """The answer under that key, which is this one if there was none."""
        if key not in self:
            self[key] = answer
        return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """Nothing; puts answers in, each as one is put in by itself."""
        for key, answer in dict(*others, **named).items():
            self[key] = answer

    def keep(self) -> None:
        """Nothing; what was added since is stored."""
        if self._new:
            self._run.remember(self._new)
            self._new = {}


def _of(judge: str | None) -> str:
    return f"WHERE judge = {JUDGE}" if judge else ""
