"""Stage 8b: the run store, one folder per run: metrics and candidates' scores in SQLite, pictures as WebP."""

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..choices import AUTO
from ..events import (
    Change,
    Changed,
    Drawn,
    Evaluated,
    Event,
    IterationDone,
    Paused,
    Saved,
    SelfTested,
    Started,
    Waiting,
)
from ..pictures.convert import to_pictures
from .database import DATABASE, StoreError, created
from .facts import facts, put
from .retention import Retention
from .schema import BETWEEN_ITERATIONS, OF_ITERATIONS, VERSION, create, insert, version_of
from .tiles import EVALUATIONS, base_tiles, candidate_tiles, place, write_tiles


class RunStore:
    """A listener that writes what happens to `folder/run.sqlite` and `folder/tiles`.

    Each iteration is one transaction, so a reader and a killed run see whole iterations only: pictures that were drawn
    and not scored yet lie in the folder, but no row tells of them. NaN is stored as NULL.

    `thread` writes the candidates' pictures while they are scored and trained on. Whatever is told after Drawn returns
    when they are there, or raises what the disk did.
    """

    def __init__(
        self,
        folder: Path,
        database: sqlite3.Connection,
        thread: Executor,
        tiles_every: int = 1,
        keep_tiles: str = AUTO,
    ):
        self.folder = folder
        self.database = database
        self.thread = thread
        self.tiles_every = tiles_every
        # the iteration under way, and its pictures' paths
        self.unscored: tuple[int, Future[dict[str, str]]] | None = None
        if (version := version_of(database)) > VERSION:
            raise StoreError(
                f"the run's store {folder / DATABASE} was written by a newer version (its format is {version}, this "
                f"one knows up to {VERSION}): update this project to go on with the run"
            )
        create(database)
        self.set_info(version=VERSION)
        self.retention = Retention(folder, database, keep_tiles)

    def set_info(self, **values: Any) -> None:
        """Store facts about the run (settings, state, ...) as JSON."""
        with self.database:
            put(self.database, values)

    def info(self, key: str) -> Any:
        return facts(self.database).get(key)

    def rewind(self, iteration: int) -> None:
        """Forget what happened at `iteration` and later: a resumed run does it again.

        The changes that a person made stay: they are made again as well.
        """
        with self.database:
            for table in OF_ITERATIONS:
                self.database.execute(f"DELETE FROM {table} WHERE iteration >= ?", (iteration,))
            for table in BETWEEN_ITERATIONS:
                self.database.execute(f"DELETE FROM {table} WHERE iteration > ?", (iteration,))
        self.retention.look()

    def changes(self) -> list[Change]:
        """What a person changed during the run; none if the store does not say it in the form that it was written."""
        try:
            changes = [Change(**change) for change in self.info("changes") or []]
        except TypeError:
            return []
        return changes if all(isinstance(change.iteration, int) for change in changes) else []

    def __call__(self, event: Event) -> None:
        values: dict[str, Any] = {} if event.state is None else {"state": event.state}
        match event:
            case Started():
                values |= {"iterations": event.iterations, "started": self.info("started") or time.time()}
            case Drawn():
                self.settle()
                # by no kernel of torch in that thread: its pool beside the main thread's slows every kernel down
                pictures = self._pictures(event.iteration, event.images, event.group_size)
                writing = self.thread.submit(write_tiles, self.folder, place(event.iteration), pictures)
                self.unscored = event.iteration, writing
            case IterationDone():
                self._write(event)
            case Changed():
                values |= {"changes": [change.to_dict() for change in event.changes]}
            case Evaluated():
                self._write_evaluation(event)
            case Saved():
                values |= {"lora": event.lora, "saved": event.iteration}
        if values:
            self.set_info(**values)
        if line := line_of(event):
            with self.database:
                insert(self.database, "log", [(None, event.iteration, line)])
        if not isinstance(event, Drawn):
            self.settle()

    def settle(self) -> None:
        """Wait for the pictures that are being written."""
        if self.unscored:
            self.unscored[1].result()

    def _write(self, event: IterationDone) -> None:
        tiles, i = self._tiles(event), event.iteration
        advantages, anchors = event.advantages.tolist(), event.anchors.tolist()
        cells = [(slot, c) for slot, row in enumerate(advantages) for c in range(len(row))]
        with self.database as db:
            insert(db, "metrics", [(name, i, value) for name, value in event.metrics.items()])
            insert(
                db,
                "groups",
                [
                    (i, slot, prompt, seed, tiles.get(f"{slot}-base"), _bytes(event.distances, slot))
                    for slot, (prompt, seed) in enumerate(zip(event.prompts, event.seeds, strict=True))
                ],
            )
            insert(
                db, "candidates", [(i, s, c, advantages[s][c], anchors[s][c], tiles.get(f"{s}-{c}")) for s, c in cells]
            )
            for reward, scores in event.scores.items():
                values = scores.tolist()
                insert(db, "scores", [(i, s, c, reward, values[s][c]) for s, c in cells])
            if tiles:
                self.retention.add(i, [self.folder / path for path in tiles.values()])
        self.retention.remove()

    def _tiles(self, event: IterationDone) -> dict[str, str]:
        """Paths of the iteration's pictures by name, relative to the run's folder. Writes those that are not there."""
        self.settle()
        if self.unscored and self.unscored[0] == event.iteration:
            tiles = self.unscored[1].result()
        else:  # whoever makes steps by hand tells of whole ones only
            pictures = self._pictures(event.iteration, event.images, event.advantages.shape[1])
            tiles = write_tiles(self.folder, place(event.iteration), pictures)
        self.unscored = None
        if event.base is not None and self._pictured(event.iteration):
            tiles |= write_tiles(self.folder, place(event.iteration), base_tiles(event.base))
        return tiles

    def _pictures(self, iteration: int, images: Tensor, group_size: int) -> dict[str, Image.Image]:
        return candidate_tiles(images, group_size) if self._pictured(iteration) else {}

    def _pictured(self, iteration: int) -> bool:
        return self.tiles_every > 0 and iteration % self.tiles_every == 0

    def _write_evaluation(self, event: Evaluated) -> None:
        i, pictures = event.iteration, {str(n): p for n, p in enumerate(to_pictures(event.images))}
        tiles = write_tiles(self.folder, Path(EVALUATIONS) / f"{i:06d}", pictures)
        shown = enumerate(zip(event.prompts, event.seeds, strict=True))
        with self.database as db:
            for table in BETWEEN_ITERATIONS:
                db.execute(f"DELETE FROM {table} WHERE iteration = ?", (i,))
            insert(db, "evaluations", [(i, n, prompt, seed, tiles[str(n)]) for n, (prompt, seed) in shown])
            for reward, scores in event.scores.items():
                insert(db, "evaluation_scores", [(i, n, reward, value) for n, value in enumerate(scores.tolist())])


def line_of(event: Event) -> str:
    """The event's line in the run's log; empty if it has none. What holds a run up stands there as its state."""
    match event:
        case Waiting() | Paused():
            return event.state
        case SelfTested(cause="") | Evaluated():
            return ""
    return str(event)


def _bytes(distances: Tensor | None, slot: int) -> bytes | None:
    """The G x G distances of one group, float32 little-endian, row by row."""
    return None if distances is None else distances[slot].float().cpu().numpy().astype("<f4").tobytes()


@contextmanager
def open_store(folder: Path, tiles_every: int = 1, keep_tiles: str = AUTO) -> Iterator[RunStore]:
    """The store in `folder`, made if there is none. The arguments are the settings `run.tiles_every`, `run.keep_tiles`.

    Raises:
        StoreError: it cannot be written.
    """
    with created(folder) as database, ThreadPoolExecutor(1, "pictures") as thread:
        store = RunStore(folder, database, thread, tiles_every, keep_tiles)
        yield store
        store.retention.remove(most=None)
