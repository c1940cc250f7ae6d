"""A run folder may come from a stranger: what its database may be, and how much it may cost to look at it.

The numbers are far above those of a run of 100,000 iterations, and low enough that a file made to harm ends a question
in a second or two, and within some hundred megabytes.
"""

import sqlite3
import stat
import time
from pathlib import Path

from ..errors import brief
from .schema import columns

GLANCE = 2.0  # seconds for what the list of runs shows; a run of 100,000 iterations takes milliseconds
LOOK = 30.0  # seconds for one question; the diagnosis of a run of 100,000 iterations takes 3, its curves 2
WHOLE = 3600.0  # seconds for an export of everything, which is bounded in bytes as well; such a run takes 150
FACTS = 16 * 2**20  # bytes of all facts of a run: its settings hold all prompts
VALUE = 2**20  # bytes of any other value: a prompt, the distances of 512 candidates
CACHE = 4096  # KiB of pages in memory; the file cannot ask for more
# SQL_LENGTH is in characters, of a query or of what the file says of a table
LIMITS = {"SQL_LENGTH": 100_000, "COLUMN": 64, "EXPR_DEPTH": 32, "COMPOUND_SELECT": 4, "ATTACHED": 0}
OBJECTS = 100  # tables and indexes
BEAT = 1000  # instructions of SQLite between two looks at the clock
ENDING = bytes.fromhex("d9d505f920a163d7")  # of a rollback journal that names another file
STARTS = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")


def refuse_odd_files(path: Path) -> None:
    """Check the database at `path` and what SQLite opens beside it.

    A pipe would be waited for, and a link would be followed; a journal that names another file would have it deleted.

    Raises:
        sqlite3.DatabaseError: one of them is no plain file, or such a journal.
    """
    for name in (path.name, *(f"{path.name}-{end}" for end in ("wal", "shm", "journal"))):
        file = path.with_name(name)
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise sqlite3.DatabaseError(f"{name}: {error.strerror}") from error
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # SQLite itself says that it opens no folder
            raise sqlite3.DatabaseError(f"{name} is no plain file")
    if _names_another_file(path.with_name(f"{path.name}-journal")):
        raise sqlite3.DatabaseError("its journal names another file")


def _names_another_file(journal: Path) -> bool:
    try:
        with journal.open("rb") as file:
            file.seek(-len(ENDING), 2)
            return file.read() == ENDING
    except OSError:  # there is none, or it is shorter
        return False


def limit(database: sqlite3.Connection, seconds: float) -> None:
    """From now on what is asked of `database` ends within `seconds` in all, and in a few megabytes at once.

    What goes beyond is "interrupted", or "string or blob too big".
    """
    end = time.monotonic() + seconds
    database.set_progress_handler(lambda: time.monotonic() > end, BEAT)
    limit_values(database, VALUE)
    for name, value in LIMITS.items():
        _set_limit(database, name, value)
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", f"cache_size = -{CACHE}"):
        database.execute(f"PRAGMA {setting}")


def limit_values(database: sqlite3.Connection, most: int) -> None:
    """A value of `database` may have `most` bytes."""
    _set_limit(database, "LENGTH", most)


def _set_limit(database: sqlite3.Connection, name: str, value: int) -> None:
    if hasattr(database, "setlimit"):  # before Python 3.11 SQLite's own hold: a gigabyte for a value
        database.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{name}"), value)


def unlimited(database: sqlite3.Connection) -> None:
    """For whoever writes what is its own, as long as a run takes."""
    database.set_progress_handler(None, 0)
    limit_values(database, 10**9)


def refuse_odd_tables(database: sqlite3.Connection) -> None:
    """Check that `database` holds tables and nothing that computes: a view or a trigger can run without end.

    Raises:
        sqlite3.DatabaseError: there is something else.
    """
    found = database.execute(f"SELECT name, rootpage, sql FROM sqlite_master LIMIT {OBJECTS + 1}").fetchall()
    if len(found) > OBJECTS:
        raise sqlite3.DatabaseError(f"it has more than {OBJECTS} tables, a run has {len(columns())}")
    for name, root, text in found:
        # its kind is told by what made it, as the column `type` is a stranger's word; a virtual table has no page
        if (text is not None and not str(text).startswith(STARTS)) or not root:
            raise sqlite3.DatabaseError(f"{brief(name)} is no table: only tables are read")
    for table in columns():
        for _, name, _, _, _, _, hidden in database.execute(f"PRAGMA main.table_xinfo({table})"):
            if hidden:
                raise sqlite3.DatabaseError(f"{table}.{brief(name)} is computed: only values are read")
