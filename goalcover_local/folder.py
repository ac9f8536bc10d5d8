"""A run's folder and the file in it: made private, locked and opened."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from .errors import StoreError
from .privacy import check_folder
from .run_failures import failures_told, result_code, system_failures_told
from .schema import check, made_by

DATABASE = "run.sqlite"
LOCK = "run.lock"
VERSION = 4
APPLICATION = 0x476F436F
"""Marks a SQLite file as a run of ours: "GoCo"."""

TABLES_1 = f"""
BEGIN IMMEDIATE;
CREATE TABLE goals(digest TEXT PRIMARY KEY, json TEXT NOT NULL, position INTEGER NOT NULL);
CREATE TABLE subgoals(key INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, json TEXT NOT NULL);
CREATE TABLE goal_subgoals(
    goal TEXT NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL, target_share REAL NOT NULL,
    subgoal INTEGER NOT NULL, PRIMARY KEY (goal, position)) WITHOUT ROWID;
CREATE TABLE data(digest TEXT NOT NULL);
CREATE TABLE samples(
    key INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, input BLOB NOT NULL, output BLOB NOT NULL);
CREATE TABLE rows(
    position INTEGER PRIMARY KEY, sample INTEGER NOT NULL, id BLOB NOT NULL, source BLOB NOT NULL,
    line INTEGER NOT NULL, raw BLOB NOT NULL);
CREATE INDEX rows_by_sample ON rows(sample);
CREATE TABLE refusals(
    position INTEGER PRIMARY KEY, source BLOB NOT NULL, line INTEGER NOT NULL, reason BLOB NOT NULL);
CREATE TABLE judges(key INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, json TEXT NOT NULL);
CREATE TABLE judgements(
    judge INTEGER NOT NULL, subgoal INTEGER NOT NULL, sample INTEGER NOT NULL,
    p0 REAL, p1 REAL, p2 REAL, p3 REAL, p4 REAL, p5 REAL, failure TEXT,
    PRIMARY KEY (judge, subgoal, sample),
    CONSTRAINT probabilities CHECK (CASE WHEN failure IS NULL
        THEN coalesce(abs(p0 + p1 + p2 + p3 + p4 + p5 - 1) < 1e-4 AND min(p0, p1, p2, p3, p4, p5) >= 0, 0)
        ELSE coalesce(p0, p1, p2, p3, p4, p5) IS NULL END)) WITHOUT ROWID;
CREATE TABLE explanations(
    judge INTEGER NOT NULL, subgoal INTEGER NOT NULL, sample INTEGER NOT NULL, text BLOB NOT NULL,
    answer BLOB NOT NULL, PRIMARY KEY (judge, subgoal, sample)) WITHOUT ROWID;
CREATE TABLE truncations(
    judge INTEGER NOT NULL, sample INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (judge, sample)) WITHOUT ROWID;
CREATE TABLE scales(judge INTEGER PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counters(name TEXT PRIMARY KEY, value NUMERIC NOT NULL);
CREATE TABLE events(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, who TEXT NOT NULL, host TEXT NOT NULL,
    command TEXT NOT NULL, kind TEXT NOT NULL, details TEXT NOT NULL, previous TEXT NOT NULL,
    hash TEXT NOT NULL);
PRAGMA application_id = {APPLICATION};
COMMIT;
"""
"""The tables of version 1."""

TABLES_2 = (
    "origin(path BLOB NOT NULL, content TEXT NOT NULL, layout TEXT NOT NULL)",
    "answers(key TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID",
    "gaps(position INTEGER PRIMARY KEY, json TEXT NOT NULL)",
    "recommendations(position INTEGER PRIMARY KEY, json TEXT NOT NULL)",
    "candidates(subgoal TEXT NOT NULL, position INTEGER NOT NULL, json TEXT NOT NULL,"
    " PRIMARY KEY (subgoal, position)) WITHOUT ROWID",
)
"""The tables that version 2 added: where the data came from, what models wrote, and what was made of judgements."""

TABLES_3 = (
    "trainings(name TEXT PRIMARY KEY, json TEXT NOT NULL, position INTEGER NOT NULL, result TEXT) WITHOUT ROWID",
    "steps(training TEXT, step INTEGER, json TEXT NOT NULL, PRIMARY KEY (training, step)) WITHOUT ROWID",
    "checkpoints(training TEXT, step INTEGER, json TEXT NOT NULL, PRIMARY KEY (training, step)) WITHOUT ROWID",
)
"""The tables that version 3 added: trainings, what was measured at their steps, and the digests of checkpoints."""

TABLES_4 = ("decisions(event INTEGER PRIMARY KEY, json TEXT NOT NULL)",)
"""The table that version 4 added: what people decided of verdicts, by the number of its event."""

COLUMNS_4 = "ALTER TABLE events ADD COLUMN version TEXT NOT NULL DEFAULT '';"
"""What version 4 added to the events: the package's version."""

ADDED = {2: TABLES_2, 3: TABLES_3, 4: TABLES_4}
"""The tables by the version that added them."""

on_reading: Callable[[Path, str], None] | None = None
"""Who is told of each run that is opened for reading: its folder, and its first event's hash, empty without events."""

NETWORK_FILE_SYSTEMS = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "gcsfuse", "glusterfs", "gpfs", "lustre", "ncp", "nfs"),
    *("panfs", "pvfs2", "rclone", "s3fs", "smb", "sshfs"),
)
"""How their names begin. SQLite's write-ahead log needs memory that their machines do not share."""


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that a path lies on, such as "nfs4"; None if local or unknown.

    `mounts` is the text of /proc/self/mountinfo, read if it is not given; see proc(5).
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    place, kind, depth = path.resolve(), "", 0
    for line in filter(None, mounts.split("\n")):
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split(" ")[4]))
        if place.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = right.split(" ")[0], len(point.parts)
    return kind if kind.removeprefix("fuse.").startswith(NETWORK_FILE_SYSTEMS) else None


def check_place(path: Path) -> str | None:
    """What is wrong with a place for a run, and how to mend it; None if nothing is. Creates nothing."""
    place = path.absolute()
    try:
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            return f"{place} is a file. Name a folder."
        if not all(os.access(name, os.W_OK, effective_ids=True) for name in (place, *path.glob("run.*"))):
            return f"{place} cannot be written to. Choose another folder, or have its permissions changed."
        if (free := shutil.disk_usage(place).free) < 100_000_000:
            return f"{place} has {free // 1_000_000} MB free. Make it at least 100 MB."
    except OSError as error:
        return f"{place} cannot be looked into ({error.strerror}). Choose another folder."
    if kind := network_file_system(place):
        return (
            f"{place} is on a network file system ({kind}), where a run is slower and must be used from one"
            " machine at a time. Choose a folder on a local disk."
        )
    return None


def open_database(folder: Path, held: ExitStack, *, write: bool, create: bool) -> sqlite3.Connection:
    """A connection to the run's file; `held` closes it and, after it, lets go of the lock.

    Raises StoreError if the run is absent, locked, damaged, of a newer version, another program's, or on a disk
    that is full or not writable; or if its file is a link, or holds more than our tables, such as a trigger.
    """
    with failures_told(folder), system_failures_told(folder):
        return _open(folder, held, write, create)


def _open(folder: Path, held: ExitStack, write: bool, create: bool) -> sqlite3.Connection:
    _refuse_links(folder)
    may_create = write and create
    mend = "Make one with `goalcover assess` or `goalcover train`, or name the folder of one."
    absent = StoreError(f"There is no run in {folder}.", mend)
    if not may_create and not (folder / DATABASE).exists():
        raise absent
    if write:
        _make_folder(folder)
        held.callback(os.close, _lock(folder))
        database = _connect(folder, "mode=rwc", iter(()))
    else:
        database = _connect(folder, "mode=ro", _other_ways_to_read(folder))
    held.callback(database.close)
    database.execute("BEGIN")  # another process may complete it meanwhile
    version = _version(database, folder)
    if not version and not may_create:
        raise absent
    _check_schema(database, folder, version)
    database.execute("COMMIT")
    if write:
        _restrict(folder)
        _prepare(database, folder, version)
    else:
        check_folder(folder)
        _complete(database, version, "TEMP ")
        database.execute("PRAGMA query_only = ON")
        if on_reading is not None:
            on_reading(folder, _first_hash(database))
    return database


def _refuse_links(folder: Path) -> None:
    """Nothing. Raises StoreError for a file of the run that is a link: what it leads to is another place's."""
    for name in (DATABASE, LOCK, *(f"{DATABASE}-{part}" for part in ("wal", "shm", "journal"))):
        if (folder / name).is_symlink():
            raise StoreError(f"{folder / name} is a link.", "Name the folder in which the run's files lie themselves.")


def _first_hash(database: sqlite3.Connection) -> str:
    found = database.execute("SELECT CAST(hash AS BLOB) FROM events ORDER BY seq LIMIT 1").fetchone()
    return found[0].decode("utf-8", "replace") if found else ""


def _make_folder(folder: Path) -> None:
    """Makes the folder where there is none; refuses one that serves something else."""
    try:
        folder.mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
    except OSError:
        if not folder.is_dir():
            raise
    names = [path.name for path in folder.iterdir()]
    if DATABASE not in names and not all(name.startswith("run.") for name in names):
        raise StoreError(f"{folder} holds other files and no run.", "Name a new or an empty folder with --run.")


def _lock(folder: Path) -> int:
    """A descriptor that holds the folder's lock until it is closed, by us or by our death."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace") or "unknown"
        os.close(descriptor)
        raise StoreError(
            f"Process {holder} is writing to the run {folder}.",
            f"Wait until it is done, or end it with `kill {holder}`: what it has stored stays.",
        ) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _other_ways_to_read(folder: Path) -> Iterator[str]:
    """How to open the file where that fails without writing, best first.

    After a kill the file may need a recovery, which only a writable connection can do. In a folder that may
    not be written to, the file is read as it stands, if nothing is left to recover.
    """
    yield "mode=rw"
    if not any(path.stat().st_size for path in folder.glob(f"{DATABASE}-*")):
        yield "immutable=1"


def _connect(folder: Path, way: str, other_ways: Iterator[str]) -> sqlite3.Connection:
    """A connection that has read from the file once, opened in the first way that works."""
    address = f"{(folder.resolve() / DATABASE).as_uri()}?{way}"
    with ExitStack() as held:
        try:
            database = sqlite3.connect(address, timeout=30, isolation_level=None, uri=True)
            held.callback(database.close)
            database.executescript(
                "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
            )
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as error:
            barred = result_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
            if not barred or not (other_way := next(other_ways, "")):
                raise
            return _connect(folder, other_way, other_ways)
        held.pop_all()
        return database


def _version(database: sqlite3.Connection, folder: Path) -> int:
    """The version of its tables, 0 before any. Raises StoreError for what is no run, or is of a newer version."""
    names = ("application_id", "user_version", "schema_version")
    application, version, schema = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    if (application, version, schema) == (0, 0, 0):
        return 0
    if application != APPLICATION:
        raise StoreError(f"{folder / DATABASE} is another program's file.", "Name another folder with --run.")
    if version > VERSION:
        raise StoreError(
            f"The run {folder} was made by a newer GoalCover Local (format {version}, not {VERSION}).",
            "Install that version, or name another folder with --run.",
        )
    return max(1, int(version))


def _restrict(folder: Path) -> None:
    """Keeps the folder and the files of the run from every other user."""
    files = (folder / LOCK, *folder.glob(f"{DATABASE}*"))
    for path, mode in [(folder, 0o700), *((file, 0o600) for file in files)]:
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _check_schema(database: sqlite3.Connection, folder: Path, version: int) -> None:
    """Nothing. Raises StoreError unless the file holds the tables of that version (0: none), and nothing else.

    Tables of later versions may be there, as completing leaves them that was cut off.
    """
    later = {table.partition("(")[0] for table in _added_after(version)} if version else set()
    may = [entry for entry in made_by(_script(VERSION)) if entry.table in later]
    check(database, folder / DATABASE, made_by(_script(version)), may)


def _script(version: int) -> str:
    """What makes the tables of that version in an empty file."""
    tables = "".join(f"CREATE TABLE {table};" for number in ADDED if number <= version for table in ADDED[number])
    return f"{TABLES_1} {tables} {COLUMNS_4 if version >= 4 else ''}" if version else ""


def _added_after(version: int) -> list[str]:
    return [table for number, tables in ADDED.items() if number > version for table in tables]


def _complete(database: sqlite3.Connection, version: int, where: str = "") -> None:
    """Adds the tables that a run of an older version lacks: in the file, or empty ones for this connection alone.

    No others: an empty table of this connection would hide the one in the file.
    """
    if version < VERSION:
        tables = "".join(f"CREATE {where}TABLE IF NOT EXISTS {table};" for table in _added_after(version))
        whole = f"BEGIN IMMEDIATE; {tables} {COLUMNS_4} PRAGMA user_version = {VERSION}; COMMIT;"
        database.executescript(tables if where else whole)


def _prepare(database: sqlite3.Connection, folder: Path, version: int) -> None:
    """Makes the tables that are not there yet, and sets how this connection writes.

    A transaction that has ended is on the disk, and so are the names in the folder. On a network file system
    the write-ahead log gives way to a rollback journal; an exclusive lock spares the change shared memory.
    """
    if not version:
        database.executescript(TABLES_1)
    _complete(database, version)
    if not version:
        for place in (folder, folder.absolute().parent):
            descriptor = os.open(place, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    if network_file_system(folder):
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA locking_mode = NORMAL")
        database.execute("SELECT count(*) FROM sqlite_master").fetchall()
    else:
        database.execute("PRAGMA journal_mode = WAL")
    database.executescript(
        "PRAGMA synchronous = FULL; PRAGMA cache_size = -65536; PRAGMA journal_size_limit = 67108864;"
    )
