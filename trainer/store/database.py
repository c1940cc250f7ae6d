"""The run's database as a file: its name, how it is opened, and what the user is told if it fails."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import UserError, brief
from ..faults import FULL
from ..files import replace
from .foreign import LOOK, WHOLE, limit, refuse_odd_files, refuse_odd_tables, unlimited

DATABASE = "run.sqlite"
BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite appends to the names of the files that make a database
READING, WRITING = 2, 5  # seconds to wait for whoever locks the whole store, and for a training that writes
REMEDIES = {  # what SQLite says -> what to do; the first match counts
    "locked": "try again in a moment",
    "busy": "try again in a moment",
    "disk is full": FULL,
    "readonly": "the file or its folder is read-only: choose another folder",
    "unable to open": "check the permissions of the file and its folder",
    "disk I/O error": "the disk or its connection fails: check it, or choose another folder",
}
REASON = 200  # characters
WORDS = {"interrupted": "it takes too long", "string or blob too big": "a value in it is too large"}


class StoreError(UserError):
    """A store that cannot be read or written now (`later`: another try might help), or at all."""

    def __init__(self, message: str, *, later: bool = False):
        super().__init__(message)
        self.later = later


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """What goes wrong with the database at `path` becomes a StoreError; `what` is "read" or "written"."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # a message that quotes the file may be no text
        remedy = next((f"; {text}" for hint, text in REMEDIES.items() if hint in str(error)), "")
        busy = "locked" in str(error) or "busy" in str(error)
        reason = WORDS.get(str(error)) or short(str(error))
        raise StoreError(f"the run's store {path} cannot be {what} ({reason}){remedy}", later=busy) from error


def short(reason: str) -> str:
    """SQLite's own words on one line; they may quote the file at any length."""
    return reason if len(reason) <= REASON and reason.isprintable() else brief(reason)


@contextmanager
def opened(folder: Path, seconds: float = LOOK) -> Iterator[sqlite3.Connection]:
    """The database in `folder`, to read within `seconds` in all.

    Raises:
        StoreError: there is none, it is locked as a whole, it is no database (any more), or none of a run.
    """
    path = folder / DATABASE
    with explained(path, "read"):
        refuse_odd_files(path)
        with closing(_read_only(path, seconds)) as database:
            refuse_odd_tables(database)
            yield database


@contextmanager
def created(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in `folder`, to write while others read; made if there is none. One for all threads.

    Raises:
        StoreError: it cannot be written, or is no database of a run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DATABASE
    with explained(path, "written"):
        refuse_odd_files(path)
        with closing(_writable(path)) as database:
            limit(database, LOOK)
            refuse_odd_tables(database)
            unlimited(database)
            yield database


def _writable(path: Path) -> sqlite3.Connection:
    """With a write-ahead log, for which readers never wait; where the drive has no shared memory, with a rollback
    journal; where it has no locks either, without them: the run's folder has one owner anyway.
    """
    with suppress(OSError):  # SQLite itself would let no one else of a group write to it, whatever the umask says
        path.open("ab").close()
    address = path.absolute().as_uri()
    ways = ((address, "WAL"), (address, "DELETE"), (f"{address}?nolock=1", "DELETE"))
    errors = []
    for where, journal in ways:
        database = sqlite3.connect(where, uri=True, check_same_thread=False)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            if journal == "DELETE":  # alone with the file, SQLite reads a write-ahead log without shared memory
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute(f"PRAGMA journal_mode = {journal}")
            database.execute("PRAGMA locking_mode = NORMAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript("BEGIN IMMEDIATE; COMMIT; SELECT count(*) FROM sqlite_master")  # it can be written
            return database
        except sqlite3.OperationalError as error:
            database.close()
            errors.append(error)
        except sqlite3.Error:
            database.close()
            raise
    raise errors[0]


def damage(folder: Path) -> str:
    """What is wrong with the database in `folder`; empty if nothing is, or there is none."""
    path = folder / DATABASE
    if not os.path.lexists(path):
        return ""
    try:
        refuse_odd_files(path)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            limit(database, WHOLE)
            refuse_odd_tables(database)
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            return "" if found == "ok" else str(found)
    except sqlite3.OperationalError:  # nothing that another try, or another drive, could not mend
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)


def set_aside(folder: Path) -> Path:
    """Rename a damaged database, with what belongs to it; returns its new path."""
    aside = _free_name(folder)
    for end in BESIDE:
        if os.path.lexists(folder / f"{DATABASE}{end}"):
            replace(folder / f"{DATABASE}{end}", aside.with_name(f"{aside.name}{end}"))
    return aside


def _free_name(folder: Path) -> Path:
    names = (folder / f"{DATABASE}.damaged{f'-{n}' if n > 1 else ''}" for n in count(1))
    return next(name for name in names if not name.exists())


@contextmanager
def changed(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in `folder`, for one small change, which is kept if the block ends well.

    Raises:
        StoreError: there is none, it is locked or broken, or none of a run.
    """
    path = folder / DATABASE
    # rw, not rwc: a run that has just been moved away is not to come back as an empty store
    address = f"{path.absolute().as_uri()}?mode=rw"
    with explained(path, "written"):
        refuse_odd_files(path)
        with closing(sqlite3.connect(address, uri=True, timeout=WRITING)) as database, database:
            limit(database, LOOK)
            refuse_odd_tables(database)
            yield database


def _read_only(path: Path, seconds: float) -> sqlite3.Connection:
    """As a plain file in a folder that cannot be written to, where SQLite has no place for its index."""
    options: dict[str, Any] = {"uri": True, "timeout": READING, "isolation_level": None, "check_same_thread": False}
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return _limited(sqlite3.connect(address, **options), seconds)
    except sqlite3.OperationalError as error:
        beside = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-journal"))
        # what is not in the file itself yet
        unwritten = any(file.exists() and file.stat().st_size for file in beside)
        if unwritten or not path.is_file() or not any(hint in str(error) for hint in ("unable to open", "readonly")):
            raise
        return _limited(sqlite3.connect(f"{address}&immutable=1", **options), seconds)


def _limited(database: sqlite3.Connection, seconds: float) -> sqlite3.Connection:
    """The same; closed if it cannot be read."""
    try:
        limit(database, seconds)
        database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.Error:
        database.close()
        raise
    return database
