"""A run's store, opened to read: while a training writes it, half written, or made by an older version."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError

DATABASE = "run.sqlite"
PATIENCE = 2  # seconds to wait for whoever locks the whole store
TABLES = {
    "info": ("key", "value"),
    "metrics": ("name", "iteration", "value"),
    "groups": ("iteration", "slot", "prompt", "seed", "base", "distances"),
    "candidates": ("iteration", "slot", "candidate", "advantage", "anchor", "tile"),
    "scores": ("iteration", "slot", "candidate", "reward", "value"),
    "evaluations": ("iteration", "number", "prompt", "seed", "tile"),
    "evaluation_scores": ("iteration", "number", "reward", "value"),
    "log": ("id", "iteration", "message"),
}


class Unreadable(UserError):
    """A store that cannot be read now (`later` might help), or at all."""

    def __init__(self, message: str, *, later: bool = False):
        super().__init__(message)
        self.later = later


class Reader:
    """One look at a store: everything read through it is of the same moment.

    A table or column that the store lacks reads as empty: the connection sees a view in its place.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection):
        self.folder = folder
        self.connection = connection
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.execute("PRAGMA temp_store = MEMORY")
        for table, columns in TABLES.items():
            found = {name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})")}
            if not found.issuperset(columns):
                parts = ", ".join(c if c in found else f"NULL AS {c}" for c in columns)
                source = f"FROM main.{table}" if found else "WHERE 0"
                connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {parts} {source}")
        connection.execute("BEGIN")

    def rows(self, query: str, *values: Any) -> list[tuple]:
        return self.connection.execute(query, values).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        """The first column of the first row, or None."""
        row = self.connection.execute(query, values).fetchone()
        return row[0] if row else None

    def info(self) -> dict[str, Any]:
        """The facts about the run; what is no JSON is left out."""
        facts = {}
        for key, text in self.rows("SELECT key, value FROM info"):
            try:
                facts[key] = json.loads(text, parse_float=lambda t: finite(float(t)), parse_constant=lambda _: None)
            except (ValueError, TypeError, RecursionError):
                continue
        return facts

    def names(self) -> list[str]:
        """Metrics, sorted. Skips from one to the next along the index: no row of them is counted."""
        return [name for (name,) in self.rows(NAMES)]

    def done(self) -> int:
        """Iterations done."""
        last = self.value(f"SELECT max((SELECT max(iteration) FROM metrics WHERE name = found)) FROM ({NAMES})")
        return 0 if last is None else int(last) + 1


NAMES = """
WITH RECURSIVE each(found) AS (
    SELECT min(name) FROM metrics
    UNION ALL
    SELECT (SELECT min(name) FROM metrics WHERE name > found) FROM each WHERE found IS NOT NULL)
SELECT found FROM each WHERE found IS NOT NULL
"""


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """Look at the store in `folder`.

    Raises:
        Unreadable: there is none, it is locked as a whole, or it is no database (any more).
    """
    path = folder / DATABASE
    try:
        with closing(connect(path)) as connection:
            yield Reader(folder, connection)
    except sqlite3.Error as error:
        busy = "locked" in str(error) or "busy" in str(error)
        remedy = "; try again in a moment" if busy else ""
        raise Unreadable(f"the run's store {path} cannot be read ({error}){remedy}", later=busy) from error


def connect(path: Path) -> sqlite3.Connection:
    """Read only; as a plain file in a folder that cannot be written to, where SQLite has no place for its index."""
    options = {"uri": True, "timeout": PATIENCE, "isolation_level": None, "check_same_thread": False}
    address = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, **options)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        connection.close()
        wal = path.with_name(f"{path.name}-wal")
        unwritten = wal.exists() and wal.stat().st_size  # what is not in the file itself yet
        if unwritten or not path.is_file() or not any(hint in str(error) for hint in ("unable to open", "readonly")):
            raise
        return sqlite3.connect(f"{address}&immutable=1", **options)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def finite(value: Any) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
