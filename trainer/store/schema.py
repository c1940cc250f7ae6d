"""The tables of the run store, and how a store of an older version gets those of this one."""

import sqlite3

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
CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, iteration INTEGER, message TEXT NOT NULL);
"""
# of the iteration itself, and of pictures between two iterations: those come before the iteration of their number
OF_ITERATIONS = ("metrics", "groups", "candidates", "scores", "log")
BETWEEN_ITERATIONS = ("evaluations", "evaluation_scores")
# columns that version 1 did not have
ADDED = {"groups": {"base": "TEXT", "distances": "BLOB"}}


def create(database: sqlite3.Connection) -> None:
    """All tables and columns of VERSION; what an older store holds stays."""
    database.executescript(TABLES)
    for table, columns in ADDED.items():
        present = {name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")}
        for name in columns.keys() - present:
            database.execute(f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}")
    database.commit()
