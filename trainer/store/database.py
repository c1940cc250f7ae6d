"""The run's database as a file: its name, how it is opened, and what the user is told if it fails."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..faults import FULL
from ..files import replace

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
    except sqlite3.Error as error:
        remedy = next((f"; {text}" for hint, text in REMEDIES.items() if hint in str(error)), "")
        busy = "locked" in str(error) or "busy" in str(error)
        raise StoreError(f"the run's store {path} cannot be {what} ({error}){remedy}", later=busy) from error


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in `folder`, to read.

    Raises:
        StoreError: there is none, it is locked as a whole, or it is no database (any more).
    """
    path = folder / DATABASE
    with explained(path, "read"), closing(_read_only(path)) as database:
        yield database


@contextmanager
def created(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in `folder`, to write while others read; made if there is none. One for all threads.

    Raises:
        StoreError: it cannot be written, or is no database.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DATABASE
    with explained(path, "written"), closing(_writable(path)) as database:
        yield database


def _writable(path: Path) -> sqlite3.Connection:
    """With a write-ahead log, for which readers never wait; where the drive has no shared memory, with a rollback
    journal; where it has no locks either, without them: the run's folder has one owner anyway.
    """
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
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
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
        if (folder / f"{DATABASE}{end}").exists():
            replace(folder / f"{DATABASE}{end}", aside.with_name(f"{aside.name}{end}"))
    return aside


def _free_name(folder: Path) -> Path:
    names = (folder / f"{DATABASE}.damaged{f'-{n}' if n > 1 else ''}" for n in count(1))
    return next(name for name in names if not name.exists())


@contextmanager
def changed(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in `folder`, for one small change, which is kept if the block ends well.

    Raises:
        StoreError: there is none, or it is locked or broken.
    """
    path = folder / DATABASE
    # rw, not rwc: a run that has just been moved away is not to come back as an empty store
    address = f"{path.absolute().as_uri()}?mode=rw"
    with explained(path, "written"), closing(sqlite3.connect(address, uri=True, timeout=WRITING)) as database, database:
        yield database


def _read_only(path: Path) -> sqlite3.Connection:
    """As a plain file in a folder that cannot be written to, where SQLite has no place for its index."""
    options: dict[str, Any] = {"uri": True, "timeout": READING, "isolation_level": None, "check_same_thread": False}
    address = f"{path.absolute().as_uri()}?mode=ro"
    database = sqlite3.connect(address, **options)
    try:
        database.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        database.close()
        wal = path.with_name(f"{path.name}-wal")
        unwritten = wal.exists() and wal.stat().st_size  # what is not in the file itself yet
        if unwritten or not path.is_file() or not any(hint in str(error) for hint in ("unable to open", "readonly")):
            raise
        return sqlite3.connect(f"{address}&immutable=1", **options)
    except sqlite3.Error:
        database.close()
        raise
    return database
