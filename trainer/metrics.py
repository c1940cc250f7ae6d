"""Stage 8b: the run store, one folder per run: metrics and candidates' scores in SQLite, pictures as WebP."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .events import Event, Finished, IterationDone, Resumed, Saved, Skipped, Started, Waiting

DATABASE = "run.sqlite"
VERSION = 1
TILE_EDGE = 512  # pixels, the longest edge of a stored picture
SCHEMA = """
CREATE TABLE IF NOT EXISTS info (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metrics (
    name TEXT, iteration INTEGER, value REAL, PRIMARY KEY (name, iteration)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (
    iteration INTEGER, slot INTEGER, prompt TEXT, seed INTEGER, PRIMARY KEY (iteration, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS candidates (
    iteration INTEGER, slot INTEGER, candidate INTEGER, advantage REAL, anchor INTEGER, tile TEXT,
    PRIMARY KEY (iteration, slot, candidate)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    iteration INTEGER, slot INTEGER, candidate INTEGER, reward TEXT, value REAL,
    PRIMARY KEY (iteration, slot, candidate, reward)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, iteration INTEGER, message TEXT NOT NULL);
"""


class RunStore:
    """A listener that writes what happens to `folder/run.sqlite` and `folder/tiles`.

    Each iteration is one transaction, so a reader and a killed run see whole iterations only. NaN is stored as NULL.
    """

    def __init__(self, folder: Path, tiles_every: int = 1):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.tiles_every = tiles_every
        self.database = sqlite3.connect(folder / DATABASE, check_same_thread=False)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.executescript(SCHEMA)
        self.set_info(version=VERSION)

    def close(self) -> None:
        self.database.close()

    def set_info(self, **values: Any) -> None:
        """Store facts about the run (settings, state, ...) as JSON."""
        with self.database:
            rows = [(k, json.dumps(v)) for k, v in values.items()]
            self.database.executemany("INSERT OR REPLACE INTO info VALUES (?, ?)", rows)

    def info(self, key: str) -> Any:
        row = self.database.execute("SELECT value FROM info WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def rewind(self, iteration: int) -> None:
        """Forget what happened at `iteration` and later: a resumed run does it again."""
        with self.database:
            for table in ("metrics", "groups", "candidates", "scores", "log"):
                self.database.execute(f"DELETE FROM {table} WHERE iteration >= ?", (iteration,))

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.set_info(state="running", iterations=event.iterations)
            case IterationDone():
                self._write(event)
            case Skipped():
                self._log(event.iteration, f"update skipped: {event.reason}")
            case Waiting():
                self.set_info(state=f"waiting: {event.reason}")
                self._log(event.iteration, f"waiting: {event.reason}")
            case Resumed():
                self.set_info(state="running")
                self._log(event.iteration, f"went on after {event.seconds:.0f} s")
            case Saved():
                self.set_info(lora=event.lora, saved=event.iteration)
            case Finished():
                self.set_info(state=event.reason)

    def _log(self, iteration: int, message: str) -> None:
        with self.database:
            self.database.execute("INSERT INTO log (iteration, message) VALUES (?, ?)", (iteration, message))

    def _write(self, event: IterationDone) -> None:
        tiles = self._write_tiles(event)
        i = event.iteration
        advantages, anchors = event.advantages.tolist(), event.anchors.tolist()
        cells = [(slot, c) for slot, row in enumerate(advantages) for c in range(len(row))]
        with self.database as db:
            db.executemany("INSERT INTO metrics VALUES (?, ?, ?)", [(k, i, v) for k, v in event.metrics.items()])
            groups = enumerate(zip(event.prompts, event.seeds, strict=True))
            db.executemany("INSERT INTO groups VALUES (?, ?, ?, ?)", [(i, s, *group) for s, group in groups])
            db.executemany(
                "INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?)",
                [(i, s, c, advantages[s][c], anchors[s][c], tiles.get((s, c))) for s, c in cells],
            )
            for reward, scores in event.scores.items():
                values = scores.tolist()
                rows = [(i, s, c, reward, values[s][c]) for s, c in cells]
                db.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", rows)

    def _write_tiles(self, event: IterationDone) -> dict[tuple[int, int], str]:
        """Store the pictures; returns their paths by (slot, candidate), relative to the run's folder."""
        if not self.tiles_every or event.iteration % self.tiles_every:
            return {}
        group_size = event.advantages.shape[1]
        relative = Path("tiles") / f"{event.iteration:06d}"
        (self.folder / relative).mkdir(parents=True, exist_ok=True)
        paths = {}
        for n, image in enumerate(to_pictures(event.images)):
            slot, candidate = divmod(n, group_size)
            path = relative / f"{slot}-{candidate}.webp"
            image.thumbnail((TILE_EDGE, TILE_EDGE))
            image.save(self.folder / path, "WEBP", quality=90, method=0)
            paths[slot, candidate] = path.as_posix()
        return paths

    def names(self, prefix: str = "") -> list[str]:
        """Metrics that begin with `prefix`, sorted."""
        query = "SELECT DISTINCT name FROM metrics WHERE substr(name, 1, ?) = ? ORDER BY name"
        return [name for (name,) in self.database.execute(query, (len(prefix), prefix))]

    def curve(self, name: str) -> list[tuple[int, float | None]]:
        """(iteration, value) of one metric."""
        query = "SELECT iteration, value FROM metrics WHERE name = ? ORDER BY iteration"
        return self.database.execute(query, (name,)).fetchall()


def to_pictures(images: Tensor) -> Iterator[Image.Image]:
    """[N, 3, H, W] in [0, 1] -> N pictures. NaN shows as black."""
    pixels = (images.nan_to_num(0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return (Image.fromarray(p) for p in pixels)


@contextmanager
def open_store(folder: Path, tiles_every: int = 1) -> Iterator[RunStore]:
    store = RunStore(folder, tiles_every)
    try:
        yield store
    finally:
        store.close()
