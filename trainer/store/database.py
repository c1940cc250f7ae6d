"""The run's database as a file: its name, how it is opened, and what the user is told if it fails."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError

DATABASE = "run.sqlite"
READING, WRITING = 2, 5  # seconds to wait for whoever locks the whole store, and for a training that writes


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
        busy = "locked" in str(error) or "busy" in str(error)
        remedy = "; try again in a moment" if busy else ""
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
    with explained(path, "written"), closing(sqlite3.connect(path, check_same_thread=False)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        yield database


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
