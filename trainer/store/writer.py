"""Stage 8b: the run store, one folder per run: metrics and candidates' scores in SQLite, pictures as WebP."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..events import (
    Change,
    Changed,
    Evaluated,
    Event,
    Finished,
    Halved,
    IterationDone,
    Paused,
    Resumed,
    Saved,
    SelfTested,
    Skipped,
    Started,
    Unpaused,
    Waiting,
)
from ..pictures.convert import to_pictures
from .schema import BETWEEN_ITERATIONS, OF_ITERATIONS, VERSION, create
from .tiles import EVALUATIONS, TILES, base_tiles, candidate_tiles, write_tiles

DATABASE = "run.sqlite"


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
        create(self.database)
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
        """Forget what happened at `iteration` and later: a resumed run does it again.

        The changes that a person made stay: they are made again as well.
        """
        with self.database:
            for table in OF_ITERATIONS:
                self.database.execute(f"DELETE FROM {table} WHERE iteration >= ?", (iteration,))
            for table in BETWEEN_ITERATIONS:
                self.database.execute(f"DELETE FROM {table} WHERE iteration > ?", (iteration,))

    def changes(self) -> list[Change]:
        """What a person changed during the run."""
        return [Change(**change) for change in self.info("changes") or []]

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                began = self.info("started") or time.time()
                self.set_info(state="running", iterations=event.iterations, started=began)
            case IterationDone():
                self._write(event)
            case SelfTested():
                if event.cause:
                    self._log(event.iteration, str(event))
            case Skipped():
                self._log(event.iteration, f"update skipped: {event.reason}")
            case Halved():
                self._log(event.iteration, str(event))
            case Waiting():
                self.set_info(state=f"waiting: {event.reason}")
                self._log(event.iteration, f"waiting: {event.reason}")
            case Resumed():
                self.set_info(state="running")
                self._log(event.iteration, f"went on after {event.seconds:.0f} s")
            case Paused():
                self.set_info(state="paused")
                self._log(event.iteration, "paused")
            case Unpaused():
                self.set_info(state="running")
                self._log(event.iteration, f"went on after a pause of {event.seconds:.0f} s")
            case Changed():
                self.set_info(changes=[change.to_dict() for change in event.changes])
                self._log(event.iteration, f"changed: {event.change}")
            case Evaluated():
                self._write_evaluation(event)
            case Saved():
                self.set_info(lora=event.lora, saved=event.iteration)
            case Finished():
                self.set_info(state=event.reason)

    def _log(self, iteration: int, message: str) -> None:
        with self.database:
            self.database.execute("INSERT INTO log (iteration, message) VALUES (?, ?)", (iteration, message))

    def _write(self, event: IterationDone) -> None:
        tiles, i = self._write_tiles(event), event.iteration
        advantages, anchors = event.advantages.tolist(), event.anchors.tolist()
        cells = [(slot, c) for slot, row in enumerate(advantages) for c in range(len(row))]
        with self.database as db:
            db.executemany("INSERT INTO metrics VALUES (?, ?, ?)", [(k, i, v) for k, v in event.metrics.items()])
            db.executemany(
                "INSERT INTO groups (iteration, slot, prompt, seed, base, distances) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (i, slot, prompt, seed, tiles.get(f"{slot}-base"), _bytes(event.distances, slot))
                    for slot, (prompt, seed) in enumerate(zip(event.prompts, event.seeds, strict=True))
                ],
            )
            db.executemany(
                "INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?)",
                [(i, s, c, advantages[s][c], anchors[s][c], tiles.get(f"{s}-{c}")) for s, c in cells],
            )
            for reward, scores in event.scores.items():
                values = scores.tolist()
                rows = [(i, s, c, reward, values[s][c]) for s, c in cells]
                db.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", rows)

    def _write_tiles(self, event: IterationDone) -> dict[str, str]:
        """Store the pictures; returns their paths by name, relative to the run's folder."""
        if not self.tiles_every or event.iteration % self.tiles_every:
            return {}
        pictures = candidate_tiles(event.images, event.advantages.shape[1])
        if event.base is not None:
            pictures |= base_tiles(event.base)
        return write_tiles(self.folder, Path(TILES) / f"{event.iteration:06d}", pictures)

    def _write_evaluation(self, event: Evaluated) -> None:
        i, pictures = event.iteration, {str(n): p for n, p in enumerate(to_pictures(event.images))}
        tiles = write_tiles(self.folder, Path(EVALUATIONS) / f"{i:06d}", pictures)
        shown = enumerate(zip(event.prompts, event.seeds, strict=True))
        with self.database as db:
            for table in BETWEEN_ITERATIONS:
                db.execute(f"DELETE FROM {table} WHERE iteration = ?", (i,))
            db.executemany(
                "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?)",
                [(i, n, prompt, seed, tiles[str(n)]) for n, (prompt, seed) in shown],
            )
            for reward, scores in event.scores.items():
                rows = [(i, n, reward, value) for n, value in enumerate(scores.tolist())]
                db.executemany("INSERT INTO evaluation_scores VALUES (?, ?, ?, ?)", rows)

    def names(self, prefix: str = "") -> list[str]:
        """Metrics that begin with `prefix`, sorted."""
        query = "SELECT DISTINCT name FROM metrics WHERE substr(name, 1, ?) = ? ORDER BY name"
        return [name for (name,) in self.database.execute(query, (len(prefix), prefix))]

    def curve(self, name: str) -> list[tuple[int, float | None]]:
        """(iteration, value) of one metric."""
        query = "SELECT iteration, value FROM metrics WHERE name = ? ORDER BY iteration"
        return self.database.execute(query, (name,)).fetchall()


def _bytes(distances: Tensor | None, slot: int) -> bytes | None:
    """The G x G distances of one group, float32 little-endian, row by row."""
    return None if distances is None else distances[slot].float().cpu().numpy().astype("<f4").tobytes()


@contextmanager
def open_store(folder: Path, tiles_every: int = 1) -> Iterator[RunStore]:
    store = RunStore(folder, tiles_every)
    try:
        yield store
    finally:
        store.close()
