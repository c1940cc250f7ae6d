"""A board over artificial runs, in a process of its own."""

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patience import GUARD

ROOT = Path(__file__).resolve().parents[2]


class Board:
    def __init__(self, runs: Path, port: int = 0):
        self.runs = runs
        command = [sys.executable, "-m", "trainer", "board", str(runs), "--port", str(port), "--json"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        text = ""
        while not text.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            assert line, "the board ended before it answered"
            text += line
        self.url = json.loads(text)["url"]

    @property
    def port(self) -> int:
        return int(re.search(r":(\d+)", self.url)[1])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(GUARD)
        self.process.stdout.close()


@contextmanager
def board(runs: Path, port: int = 0) -> Iterator[Board]:
    server = Board(runs, port)
    try:
        yield server
    finally:
        server.stop()


def do_iterations(folder: Path, iterations: range, reward: float) -> float:
    """Write metrics of these iterations into a run's store, as one transaction each; returns when the last was done."""
    database = sqlite3.connect(folder / "run.sqlite")
    for i in iterations:
        values = {"reward/tiny-clip": reward, "reward_std/tiny-clip": 0.01, "loss": 0.5, "seconds": 1.0}
        rows = [(name, i, value) for name, value in values.items()]
        with database:
            database.executemany("INSERT INTO metrics VALUES (?, ?, ?)", rows)
    database.close()
    return time.monotonic()
