"""A run's store, opened to read: while a training writes it, half written, or made by an older version."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .database import opened
from .facts import facts
from .schema import columns, columns_of

END = 2**62  # after every iteration


class Reader:
    """One look at a store: everything read through it is of the same moment.

    A table or column that the store lacks reads as empty: the connection sees a view in its place. Values are as they
    are stored, those of another kind or infinite ones too; None is a missing one.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection):
        self.folder = folder
        self._database = database
        database.text_factory = lambda raw: raw.decode("utf-8", "replace")
        database.execute("PRAGMA temp_store = MEMORY")
        for table, names in columns().items():
            found = columns_of(database, table)
            if not found.keys() >= names.keys():
                parts = ", ".join(name if name in found else f"NULL AS {name}" for name in names)
                source = f"FROM main.{table}" if found else "WHERE 0"
                database.execute(f"CREATE TEMP VIEW {table} AS SELECT {parts} {source}")
        database.execute("BEGIN")

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(query, values).fetchall()

    def _column(self, query: str, *values: object) -> list[Any]:
        """The first column of the rows."""
        return [row[0] for row in self._rows(query, *values)]

    def _value(self, query: str, *values: object) -> Any:
        """The first column of the first row; None if there is no row."""
        row = self._database.execute(query, values).fetchone()
        return row[0] if row else None

    # ---- the run

    def info(self) -> dict[str, Any]:
        """The facts about the run."""
        return facts(self._database)

    def done(self) -> int:
        """Iterations done."""
        last = self._value(f"SELECT max((SELECT max(iteration) FROM metrics WHERE name = found)) FROM ({NAMES})")
        return 0 if last is None else int(last) + 1

    def log(self, lines: int = -1) -> list[tuple[int, str]]:
        """(iteration, message) of the last `lines` (-1: all), the oldest first."""
        return self._rows("SELECT iteration, message FROM log ORDER BY id DESC LIMIT ?", lines)[::-1]

    # ---- curves

    def names(self) -> list[str]:
        """Metrics, sorted. Skips from one to the next along the index: no row of them is counted."""
        return self._column(NAMES)

    def curve(self, name: str, first: int = 0, end: int = END) -> list[tuple[int, float | None]]:
        """(iteration, value) of a metric from iteration `first` to before `end`, in order."""
        query = "SELECT iteration, value FROM metrics WHERE name = ? AND iteration >= ? AND iteration < ? ORDER BY 1"
        return self._rows(query, name, first, end)

    def buckets(self, name: str, first: int, last: int, step: int) -> list[tuple[int, float, float, float]]:
        """(number, mean, lowest, highest) of each bucket of `step` iterations with finite values in `first` to `last`.

        Bucket n holds the iterations n * step to (n + 1) * step - 1.
        """
        query = f"""
            SELECT iteration / {step}, avg(value), min(value), max(value) FROM metrics
            WHERE name = ? AND iteration BETWEEN ? AND ? AND value > -9e999 AND value < 9e999
            GROUP BY 1"""
        return self._rows(query, name, first, last)

    def metrics(self) -> Iterator[tuple[int, str, float | None]]:
        """(iteration, name, value) of all metrics, an iteration after the other, one row at a time."""
        return self._database.execute("SELECT iteration, name, value FROM metrics ORDER BY iteration")

    # ---- iterations with their candidates

    def iterations(self) -> list[int]:
        """Those with candidates, in order."""
        return self._column("SELECT DISTINCT iteration FROM groups ORDER BY 1")

    def span(self) -> tuple[int | None, int | None]:
        """The first and the last of `iterations`."""
        return self._rows("SELECT min(iteration), max(iteration) FROM groups")[0]

    def pictured(self) -> list[int]:
        """The iterations with stored pictures, in order."""
        return self._column("SELECT DISTINCT iteration FROM candidates WHERE tile IS NOT NULL ORDER BY 1")

    def gone(self, iteration: int) -> bool:
        """Whether it had pictures that are no longer kept."""
        return self._value("SELECT 1 FROM tiles WHERE iteration = ? AND kept = 0", iteration) is not None

    def all_gone(self) -> int:
        """Iterations that had pictures which are no longer kept."""
        return int(self._value("SELECT count(*) FROM tiles WHERE kept = 0"))

    def groups(self, iteration: int) -> list[tuple[int, str, int, str | None, bytes | None]]:
        """(slot, prompt, seed, base noise's tile, distances) of each prompt."""
        query = "SELECT slot, prompt, seed, base, distances FROM groups WHERE iteration = ? ORDER BY slot"
        return self._rows(query, iteration)

    def candidates(self, iteration: int) -> list[tuple[int, int, float | None, int, str | None]]:
        """(slot, candidate, advantage, whether an anchor, tile) of each candidate."""
        query = (
            "SELECT slot, candidate, advantage, anchor, tile FROM candidates WHERE iteration = ? "
            "ORDER BY slot, candidate"
        )
        return self._rows(query, iteration)

    def scores(self, iteration: int) -> list[tuple[int, int, str, float | None]]:
        """(slot, candidate, reward, value) of each score."""
        return self._rows("SELECT slot, candidate, reward, value FROM scores WHERE iteration = ?", iteration)

    def candidate_tile(self, iteration: int, slot: int, candidate: int) -> str | None:
        query = "SELECT tile FROM candidates WHERE (iteration, slot, candidate) = (?, ?, ?)"
        return self._value(query, iteration, slot, candidate)

    def base_tile(self, iteration: int, slot: int) -> str | None:
        """Of the base noise itself."""
        query = "SELECT base FROM groups WHERE (iteration, slot) = (?, ?)"
        return self._value(query, iteration, slot)

    # ---- pictures of fixed prompts

    def evaluations(self) -> list[int]:
        """How many iterations were done before each of them, in order."""
        return self._column("SELECT DISTINCT iteration FROM evaluations ORDER BY 1")

    def evaluation(self, iteration: int) -> list[tuple[int, str, int]]:
        """(number, prompt, seed) of each picture."""
        return self._rows("SELECT number, prompt, seed FROM evaluations WHERE iteration = ? ORDER BY number", iteration)

    def evaluation_scores(self, iteration: int) -> list[tuple[int, str, float | None]]:
        """(number, reward, value) of each score."""
        return self._rows("SELECT number, reward, value FROM evaluation_scores WHERE iteration = ?", iteration)

    def evaluation_tile(self, iteration: int, number: int) -> str | None:
        query = "SELECT tile FROM evaluations WHERE (iteration, number) = (?, ?)"
        return self._value(query, iteration, number)


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
        StoreError: there is none, it is locked as a whole, or it is no database (any more).
    """
    with opened(folder) as database:
        yield Reader(folder, database)
