"""Run folders that a stranger has made to do harm: {what: what to do to a healthy one}."""

import json
import os
import socket
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from trainer.store.database import DATABASE

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)"
LIST = 2**20
TABLES = ("info", "metrics", "groups", "candidates", "scores", "evaluations", "evaluation_scores", "log")
COLUMNS = {
    "metrics": "name iteration value",
    "groups": "iteration slot prompt seed base distances",
    "candidates": "iteration slot candidate advantage anchor tile",
    "scores": "iteration slot candidate reward value",
    "evaluations": "iteration number prompt seed tile",
    "evaluation_scores": "iteration number reward value",
    "log": "id iteration message",
}
ODD = (2**63 - 1, -(2**63), 2**62, -1, 1e308, -1e308, 5e-324, 9e999, 0.5, None, "", "text", "1", b"", b"\xff\0", "\0")


def sql(*statements: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with closing(sqlite3.connect(folder / DATABASE)) as database, database:
            for statement in statements:
                database.execute(statement)

    return spoil


def put(table: str, row: Callable[[int], tuple], count: int = 1) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with closing(sqlite3.connect(folder / DATABASE)) as database, database:
            query = f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row(0)))})"
            database.executemany(query, map(row, range(count)))

    return spoil


def fact(key: str, text: str) -> Callable[[Path], None]:
    return put("info", lambda _: (key, text))


def view(table: str) -> Callable[[Path], None]:
    """A view without end in a table's place."""
    columns = COLUMNS.get(table, "key value").split()
    selected = ", ".join(f"i AS {name}" for name in columns)
    return sql(f"DROP TABLE {table}", f"CREATE VIEW {table} AS {ENDLESS} SELECT {selected} FROM n")


def view_that_says_table(folder: Path) -> None:
    view("metrics")(folder)
    sql("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET type = 'table', rootpage = 2 WHERE name = 'metrics'")(
        folder
    )


def keyless(folder: Path) -> None:
    """Tables that answer nothing in order, of values of every kind."""
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        for table, names in COLUMNS.items():
            columns = names.split()
            database.execute(f"DROP TABLE {table}")
            database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            rows = [[ODD[(n * 7 + c * 3) % len(ODD)] for c in range(len(columns))] for n in range(3000)]
            rows += [[0 if c < len(columns) - 1 else ODD[n % len(ODD)] for c in range(len(columns))] for n in range(99)]
            database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)


def text_of(size: int, value: str = "hex(zeroblob(%d))") -> str:
    return value % (size // 2)


def file(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        make(path)

    return spoil


def open_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # an address may have 107 bytes
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def webp(width: int, height: int) -> bytes:
    """The header of a picture of this size, and nothing else."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + sizes


def same_child(folder: Path) -> None:
    """Every inner page of the database names one child for all: a small file with rows without number."""
    raw = bytearray((folder / DATABASE).read_bytes())
    size = int.from_bytes(raw[16:18], "big")
    for start in range(size, len(raw) - size + 1, size):
        if raw[start] in (2, 5):
            count = int.from_bytes(raw[start + 3 : start + 5], "big")
            cells = [int.from_bytes(raw[start + 12 + 2 * n : start + 14 + 2 * n], "big") for n in range(count)]
            for cell in cells:
                raw[start + cell : start + cell + 4] = raw[start + 8 : start + 12]
    (folder / DATABASE).write_bytes(raw)


def many_tables(folder: Path) -> None:
    sql(*(f"CREATE TABLE t{n} ({', '.join(f'c{c}' for c in range(50))})" for n in range(3000)))(folder)


def journal_of_another_file(folder: Path) -> None:
    """Whoever recovers by it deletes the file beside the run."""
    victim = os.fsencode(folder.parent / "victim")
    victim_end = struct.pack(">I", len(victim)) + struct.pack(">I", sum(victim)) + bytes.fromhex("d9d505f920a163d7")
    (folder / f"{DATABASE}-journal").write_bytes(bytes(512) + struct.pack(">I", 1) + victim + victim_end)


PLAIN = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
TILE = "tiles/000000/0-0.webp"
SPECIAL: dict[str, Callable[[Path], None]] = {
    f"{name} is {kind}": file(name, make)
    for name in (*PLAIN, TILE, ".lock", ".lock.lease")
    for kind, make in {
        "a pipe": os.mkfifo,
        "a socket": open_socket,
        "a folder": Path.mkdir,
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link outside": lambda path: path.symlink_to("/etc/passwd"),
    }.items()
}
SCHEMAS: dict[str, Callable[[Path], None]] = {
    **{f"{table} is a view without end": view(table) for table in TABLES},
    "a view that says it is a table": view_that_says_table,
    "a trigger without end": sql(
        f"CREATE TRIGGER t AFTER INSERT ON info BEGIN INSERT INTO log (message) {ENDLESS} SELECT i FROM n; END"
    ),
    "a computed column": sql(
        "DROP TABLE metrics",
        "CREATE TABLE metrics (name, iteration, value AS (hex(zeroblob(100000000))), PRIMARY KEY (name, iteration))",
        "INSERT INTO metrics VALUES ('loss', 1)",
    ),
    "a virtual table": sql("DROP TABLE log", "CREATE VIRTUAL TABLE log USING fts5(id, iteration, message)"),
    "tables without keys, values of every kind": keyless,
    "3,000 tables": many_tables,
    "one page for all": same_child,
}
VALUES: dict[str, Callable[[Path], None]] = {
    "a million names of metrics": put("metrics", lambda n: (f"name {n}", 0, 1.0), LIST),
    "a million iterations": put("metrics", lambda n: ("loss", n, 1.0), LIST),
    "iterations at 2**62": put("metrics", lambda n: (f"m{n}", (2**62, -(2**62), 10**9 - 1)[n], 1.0), 3),
    "300,000 candidates in an iteration": put("candidates", lambda n: (0, 0, n, 0.5, 0, TILE), 300_000),
    "300,000 prompts in an iteration": put("groups", lambda n: (0, n, "x" * 50, 1, None, None), 300_000),
    "100,000 scores of a candidate": put("scores", lambda n: (0, 0, 0, f"reward {n}", 0.5), 100_000),
    "distances of 4,000 candidates": sql("UPDATE groups SET distances = zeroblob(64000000) WHERE iteration = 0"),
    "64 MB of settings": sql(f"UPDATE info SET value = {text_of(2**26)} WHERE key = 'settings'"),
    "64 MB in a prompt": sql(f"UPDATE groups SET prompt = {text_of(2**26)} WHERE slot = 0 AND iteration = 0"),
    "64 MB in a message": sql(f"UPDATE log SET message = {text_of(2**26)}"),
    "64 MB in the name of a metric": sql(f"INSERT INTO metrics VALUES ({text_of(2**26)}, 0, 1)"),
    "64 MB in a path": sql(f"UPDATE candidates SET tile = {text_of(2**26)} WHERE candidate = 0 AND iteration = 0"),
    "a million facts": put("info", lambda n: (f"fact {n}", "1"), LIST),
    "values without number in size": put("metrics", lambda n: ("loss", n, (-1) ** n * 1.7e308), 20),
    "values next to zero": put("metrics", lambda n: ("loss", n, n * 5e-324), 20),
    "deep JSON": fact("settings", "[" * 100_000 + "]" * 100_000),
    "JSON as deep as Python": fact("settings", '{"rewards":' * 400 + "1" + "}" * 400),
    "JSON of a million lists": fact("settings", json.dumps({"prompts": [[]] * LIST})),
    "JSON with long numbers": fact("settings", f'{{"model": {"9" * 4000}, "run": {"9" * 40000}}}'),
    "JSON with odd numbers": fact("started", "1e400"),
    "started at a long number": fact("started", "9" * 4000),
    "started before time": fact("started", "-1e18"),
    "started at 1e18": fact("started", "1e18"),
    "planned a long number": fact("iterations", "9" * 4000),
    "half a character in the title": fact("title", '"\\ud800"'),
    "a title of a megabyte": fact("title", json.dumps("x" * LIST)),
    "a state of a megabyte": fact("state", json.dumps("x" * LIST)),
    "100,000 rewards": fact("settings", json.dumps({"rewards": [{"name": "x" * 100}] * 50_000})),
    "strengths of a hundred long names": fact(
        "strengths", json.dumps({"strengths": [{"rewards": {f"{n} {'x' * 500}": {} for n in range(100)}}] * 100})
    ),
    "facts of other kinds": fact("settings", json.dumps({"rewards": [1, [], {"name": {}}], "model": [], "prompts": 3})),
    "settings that divide by zero": fact(
        "settings",
        json.dumps(
            {
                "rewards": [{"name": "tiny-clip", "kind": "clip", "weight": "a", "held_out": 0}],
                "prompts": [1],
                "grpo": {"prompts_per_iteration": 0, "group_size": 0, "strength": None, "clip": []},
                "run": {"stop_on": 1},
            }
        ),
    ),
    "a tile of a gigabyte": file(TILE, sparse(2**30)),
    "a tile of 16383 x 16383 pixels": file(TILE, lambda path: path.write_bytes(webp(16383, 16383))),
    "a tile that is a page": file(TILE, lambda path: path.write_text("<script>alert(1)</script>" * 9)),
    "a database of a terabyte": lambda folder: os.truncate(folder / DATABASE, 2**40),
    "an empty WAL of a terabyte": file(f"{DATABASE}-wal", sparse(2**40)),
    "a journal that names another file": journal_of_another_file,
}
HOSTILE = SPECIAL | SCHEMAS | VALUES
