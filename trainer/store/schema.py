"""The tables of the run store, and how a store of an older version gets those of this one."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache

VERSION = 2
TABLES = """
CREATE TABLE IF NOT EXISTS info (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metrics (
    name TEXT, iteration INTEGER, value REAL, PRIMARY KEY (name, iteration)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (
    iteration INTEGER, slot INTEGER, prompt TEXT, seed INTEGER, base TEXT, distances BLOB,
    PRIMARY KEY (iteration, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS candidates (
    iteration INTEGER, slot INTEGER, candidate INTEGER, advantage REAL, anchor INTEGER, tile TEXT,
    PRIMARY KEY (iteration, slot, candidate)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    iteration INTEGER, slot INTEGER, candidate INTEGER, reward TEXT, value REAL,
    PRIMARY KEY (iteration, slot, candidate, reward)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evaluations (
    iteration INTEGER, number INTEGER, prompt TEXT, seed INTEGER, tile TEXT,
    PRIMARY KEY (iteration, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evaluation_scores (
    iteration INTEGER, number INTEGER, reward TEXT, value REAL,
    PRIMARY KEY (iteration, number, reward)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tiles (iteration INTEGER PRIMARY KEY, bytes INTEGER, kept INTEGER);
CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, iteration INTEGER, message TEXT NOT NULL);
"""
# of the iteration itself, and of pictures between two iterations: those come before the iteration of their number
OF_ITERATIONS = ("metrics", "groups", "candidates", "scores", "tiles", "log")
BETWEEN_ITERATIONS = ("evaluations", "evaluation_scores")


@cache
def columns() -> dict[str, dict[str, str]]:
    """The columns of each of TABLES in their order, as SQLite reads them: {table: {name: type}}."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(TABLES)
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: columns_of(database, name) for name in names}


def columns_of(database: sqlite3.Connection, table: str) -> dict[str, str]:
    """The columns that a table of `database` has, {name: type}; empty if there is no such table."""
    return {name: kind for _, name, kind, *_ in database.execute(f"PRAGMA main.table_info({table})")}


def version_of(database: sqlite3.Connection) -> int:
    """That of a store, 0 if it says none."""
    if not columns_of(database, "info"):
        return 0
    row = database.execute("SELECT value FROM info WHERE key = 'version'").fetchone()
    return int(row[0]) if row and str(row[0]).isdigit() else 0


def create(database: sqlite3.Connection) -> None:
    """All tables and columns of VERSION; what an older store holds stays."""
    database.executescript(TABLES)
    for table, wanted in columns().items():
        present = columns_of(database, table)
        for name, kind in wanted.items():
            if name not in present:
                database.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    database.commit()


def insert(database: sqlite3.Connection, table: str, rows: Iterable[Sequence[object]]) -> None:
    """Add rows, their values in the order of TABLES; a store of an older version may have the columns in another."""
    names = columns()[table]
    marks = ", ".join("?" * len(names))
    database.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)
