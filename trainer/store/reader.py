"""A run's store, opened to read: while a training writes it, half written, or made by an older version."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from .database import opened
from .facts import LARGEST, facts
from .foreign import LOOK
from .schema import columns, columns_of

END = 10**9  # after every iteration
Most = tuple[int, int]  # rows of an answer, and bytes of texts and distances in them
OF_RUN: Most = 500_000, 16 * 2**20
OF_ITERATION: Most = 50_000, 4 * 2**20  # 64 prompts with 64 candidates have 4096 rows, and 1 MB of distances
OF_NAMES: Most = 1000, 2**18  # metrics
CURVE = 2_000_000  # iterations that are averaged
WINDOW = 4096  # iterations


class Reader:
    """One look at a store: everything read through it is of the same moment.

    A table or column that the store lacks reads as empty: the connection sees a view in its place. A row with a value
    of another kind than its column's is left out; a number may be infinite, and None is a missing one.

    Every question raises StoreError if the store does not answer in time, or answers with more than a run can hold.
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

    def _rows(self, query: str, *values: object, most: Most = OF_RUN) -> list[tuple[Any, ...]]:
        """The rows whose values are of their columns' kinds.

        They are put in order by whoever asks: SQLite would keep what it sorts, whatever that is, in memory.
        """
        cursor, found, size = self._database.execute(query, values), [], 0
        checks = [KINDS[name] for name, *_ in cursor.description]
        for n, row in enumerate(cursor):
            size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
            if n >= most[0] or size > most[1]:
                raise sqlite3.DatabaseError(f"an answer has more than {most[0]:,} rows or {most[1]:,} bytes of text")
            if all(check(value) for check, value in zip(checks, row, strict=True)):
                found.append(row)
        return found

    def _column(self, query: str, *values: object, most: Most = OF_RUN) -> list[Any]:
        """The first column of the rows, in order."""
        return sorted(row[0] for row in self._rows(query, *values, most=most))

    def _value(self, query: str, *values: object) -> Any:
        """The first column of the first row; None if there is no row."""
        row = next(iter(self._rows(f"{query} LIMIT 1", *values)), None)
        return row[0] if row else None

    # ---- the run

    def info(self) -> dict[str, Any]:
        """The facts about the run."""
        return facts(self._database)

    def done(self) -> int:
        """Iterations done."""
        query = "SELECT max(iteration) AS iteration FROM metrics WHERE name = ? AND iteration < ?"
        last = (self._value(query, name, END) for name in self.names())
        return max((n + 1 for n in last if n is not None), default=0)

    def log(self, lines: int = -1) -> list[tuple[int, str]]:
        """(iteration, message) of the last `lines` (-1: all), the oldest first."""
        last = "SELECT id FROM log WHERE typeof(id) = 'integer' ORDER BY id DESC LIMIT ?"
        rows = self._rows(f"SELECT id AS number, iteration, message FROM log WHERE id IN ({last})", lines)
        return [(iteration, message) for _, iteration, message in sorted(rows)]

    # ---- curves

    def names(self) -> list[str]:
        """Metrics, sorted. Skips from one to the next along the index: no row of them is counted."""
        return self._column(EACH_NAME, most=OF_NAMES)

    def curve(self, name: str, first: int = 0, end: int = END) -> list[tuple[int, float | None]]:
        """(iteration, value) of a metric from iteration `first` to before `end`, in order."""
        query = """
            SELECT iteration, value FROM metrics WHERE name = ? AND iteration >= ? AND iteration < ?
            AND typeof(iteration) = 'integer' AND typeof(value) IN ('real', 'integer', 'null') LIMIT ?"""
        most, _ = OF_RUN
        rows = self._database.execute(query, (name, max(first, 0), min(end, END), most + 1)).fetchall()
        if len(rows) > most:
            raise sqlite3.DatabaseError(f"a metric has more than {most:,} values")
        return sorted(rows, key=itemgetter(0))

    def buckets(self, name: str, first: int, last: int, step: int) -> list[tuple[int, float, float, float]]:
        """(number, mean, lowest, highest) of each bucket of `step` iterations with finite values in `first` to `last`.

        Bucket n holds the iterations n * step to (n + 1) * step - 1.
        """
        query = f"""
            SELECT iteration / {step} AS number, avg(value) AS value, min(value) AS low, max(value) AS high FROM (
                SELECT iteration, value FROM metrics
                WHERE name = ? AND iteration BETWEEN ? AND ? AND value > -{LARGEST} AND value < {LARGEST}
                LIMIT {CURVE})
            GROUP BY 1"""
        return self._rows(query, name, first, last)

    def metrics(self) -> Iterator[tuple[int, dict[str, float | None]]]:
        """(iteration, value by name) of each iteration with a metric, in order; WINDOW of them are in memory."""
        names, start = self.names(), 0
        query = "SELECT min(iteration) AS iteration FROM metrics WHERE name = ? AND iteration >= ?"
        while later := [first for name in names if (first := self._value(query, name, start)) is not None]:
            start, found = min(later) + WINDOW, defaultdict[int, dict[str, float | None]](dict)
            for name in names:
                for iteration, value in self.curve(name, start - WINDOW, start):
                    found[iteration][name] = value
            yield from sorted(found.items())

    # ---- iterations with their candidates

    def iterations(self) -> list[int]:
        """Those with candidates, in order."""
        return self._column("SELECT DISTINCT iteration FROM groups")

    def span(self) -> tuple[int | None, int | None]:
        """The first and the last of `iterations`."""
        first = self._value("SELECT min(iteration) AS iteration FROM groups WHERE iteration >= 0")
        last = self._value("SELECT max(iteration) AS iteration FROM groups WHERE iteration < ?", END)
        return first, last

    def pictured(self) -> list[int]:
        """The iterations with stored pictures, in order."""
        return self._column("SELECT DISTINCT iteration FROM candidates WHERE tile IS NOT NULL")

    def gone(self, iteration: int) -> bool:
        """Whether it had pictures that are no longer kept."""
        return self._value("SELECT iteration FROM tiles WHERE iteration = ? AND kept = 0", iteration) is not None

    def all_gone(self) -> int:
        """Iterations that had pictures which are no longer kept."""
        return int(self._value("SELECT count(*) AS number FROM tiles WHERE kept = 0"))

    def groups(self, iteration: int) -> list[tuple[int, str, int, str | None, bytes | None]]:
        """(slot, prompt, seed, base noise's tile, distances) of each prompt."""
        query = "SELECT slot, prompt, seed, base, distances FROM groups WHERE iteration = ?"
        return sorted(self._rows(query, iteration, most=OF_ITERATION), key=itemgetter(0))

    def candidates(self, iteration: int) -> list[tuple[int, int, float | None, int, str | None]]:
        """(slot, candidate, advantage, whether an anchor, tile) of each candidate."""
        query = "SELECT slot, candidate, advantage, anchor, tile FROM candidates WHERE iteration = ?"
        return sorted(self._rows(query, iteration, most=OF_ITERATION), key=itemgetter(0, 1))

    def scores(self, iteration: int) -> list[tuple[int, int, str, float | None]]:
        """(slot, candidate, reward, value) of each score."""
        query = "SELECT slot, candidate, reward, value FROM scores WHERE iteration = ?"
        return self._rows(query, iteration, most=OF_ITERATION)

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
        return self._column("SELECT DISTINCT iteration FROM evaluations")

    def evaluation(self, iteration: int) -> list[tuple[int, str, int]]:
        """(number, prompt, seed) of each picture."""
        query = "SELECT number, prompt, seed FROM evaluations WHERE iteration = ?"
        return sorted(self._rows(query, iteration, most=OF_ITERATION), key=itemgetter(0))

    def evaluation_scores(self, iteration: int) -> list[tuple[int, str, float | None]]:
        """(number, reward, value) of each score."""
        query = "SELECT number, reward, value FROM evaluation_scores WHERE iteration = ?"
        return self._rows(query, iteration, most=OF_ITERATION)

    def evaluation_tile(self, iteration: int, number: int) -> str | None:
        query = "SELECT tile FROM evaluations WHERE (iteration, number) = (?, ?)"
        return self._value(query, iteration, number)


EACH_NAME = """
WITH RECURSIVE each(name) AS (
    SELECT min(name) FROM metrics
    UNION ALL
    SELECT (SELECT min(name) FROM metrics WHERE name > each.name) FROM each WHERE name IS NOT NULL)
SELECT name FROM each WHERE name IS NOT NULL
"""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < END


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, (int, float))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_any(_: object) -> bool:
    return True  # whoever asked looks at it


KINDS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("iteration", "slot", "candidate", "number"), _is_count),
    **dict.fromkeys(("value", "advantage", "low", "high", "anchor"), _is_number),
    **dict.fromkeys(("name", "prompt", "reward", "message"), _is_text),
    **dict.fromkeys(("seed", "tile", "base", "distances"), _is_any),
}


@contextmanager
def reading(folder: Path, seconds: float = LOOK) -> Iterator[Reader]:
    """Look at the store in `folder`, for `seconds` at most.

    Raises:
        StoreError: there is none, it is locked as a whole, it is no database (any more), or none of a run.
    """
    with opened(folder, seconds) as database:
        yield Reader(folder, database)
