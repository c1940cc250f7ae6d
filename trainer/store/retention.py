"""Which iterations keep their pictures: files are removed, rows stay, so that a picture could be drawn again.

Rows say first that pictures are gone, files go afterwards. A file that stays (the process was killed in between,
somebody has it open) is tried again: in the next iterations, and when the store is opened the next time.
"""

import os
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from ..choices import AUTO
from .facts import facts, put
from .schema import insert
from .tiles import PICTURE, place

BUDGET = 2**30  # bytes that "auto" keeps; 10,000 iterations of 12 candidates at 512 pixels would be 10 GB
LEAST = 2**14  # bytes that a picture counts for: the number of files is limited as well, "auto" keeps 65,536 at most
NEWEST = 256  # iterations that "auto" keeps without a gap
AT_ONCE = 64  # iterations whose files are removed after an iteration, so that none takes long
FACT = "pictures"  # how far "auto" has thinned out: a run that is resumed goes on from there


@dataclass(frozen=True)
class Rule:
    """The `newest` iterations keep their pictures, and so do the multiples of `every`; 0 if no others do."""

    newest: int
    every: int

    def dropped(self, iterations: Collection[int]) -> list[int]:
        """Those of the iterations whose pictures go."""
        end, every = max(iterations, default=0) - self.newest, self.every
        if every == 0:
            return [i for i in iterations if i <= end]
        return [i for i in iterations if i <= end and i % every]

    def thinned(self, sizes: Mapping[int, int]) -> "Rule":
        """This rule, or one with less of the same iterations, so that they take BUDGET: every second of the older ones,
        every fourth, and so on; fewer of the newest only if they take more than half of it.

        It depends on the iterations alone, not on when it is asked. Two iterations always stay.

        Args:
            sizes: bytes of each iteration's pictures.
        """
        gone = set(self.dropped(sizes))
        kept = {i: size for i, size in sizes.items() if i not in gone}
        if sum(kept.values()) <= BUDGET:
            return self
        last = max(kept)
        newest = sum(size for i, size in kept.items() if i > last - self.newest)
        if newest <= BUDGET // 2 and self.every <= last:
            return replace(self, every=2 * self.every).thinned(kept)
        if self.newest > 1:
            return replace(self, newest=self.newest // 2).thinned(kept)
        return self


class Retention:
    """The pictures of a run's iterations, under the rule of `run.keep_tiles`."""

    def __init__(self, folder: Path, database: sqlite3.Connection, keep: str):
        self.folder = folder
        self.database = database
        self.auto = keep == AUTO
        self.rule = _rule(keep) or _thinned_before(database)
        self.look()

    def look(self) -> None:
        """See anew which iterations have pictures, by the store's rows."""
        self._count_unknown()
        self.kept: dict[int, int] = dict(self.database.execute("SELECT iteration, bytes FROM tiles WHERE kept"))
        left = self.database.execute("SELECT iteration FROM tiles WHERE NOT kept AND bytes > 0 ORDER BY 1")
        self.leaving: dict[int, None] = dict.fromkeys(i for (i,) in left)  # their files are still there

    def _count_unknown(self) -> None:
        """An older version did not write down what pictures take."""
        query = "SELECT DISTINCT iteration FROM candidates WHERE tile IS NOT NULL EXCEPT SELECT iteration FROM tiles"
        found = [i for (i,) in self.database.execute(query)]
        with self.database as db:
            insert(db, "tiles", [(i, bytes_of(_pictures(self.folder / place(i))), 1) for i in found])

    def add(self, iteration: int, pictures: Iterable[Path]) -> None:
        """An iteration has pictures, others lose theirs for it: part of the iteration's own transaction."""
        size = self.kept[iteration] = bytes_of(pictures)
        self.leaving.pop(iteration, None)
        self.database.execute("INSERT OR REPLACE INTO tiles VALUES (?, ?, 1)", (iteration, size))
        if self.auto and (rule := self.rule.thinned(self.kept)) != self.rule:
            self.rule = rule
            put(self.database, {FACT: asdict(rule)})
        gone = self.rule.dropped(self.kept)
        for i in gone:
            del self.kept[i]
            self.leaving[i] = None
        rows = [(i,) for i in gone]
        self.database.executemany("UPDATE candidates SET tile = NULL WHERE iteration = ?", rows)
        self.database.executemany("UPDATE groups SET base = NULL WHERE iteration = ?", rows)
        self.database.executemany("UPDATE tiles SET kept = 0 WHERE iteration = ?", rows)

    def remove(self, most: int | None = AT_ONCE) -> None:
        """Remove the files of up to `most` iterations whose pictures are no longer kept; of all if None."""
        removed = []
        for iteration in list(islice(self.leaving, most)):
            del self.leaving[iteration]
            if remove_pictures(self.folder / place(iteration)):
                removed.append((iteration,))
            else:
                self.leaving[iteration] = None  # behind the others
        if removed:
            with self.database as db:
                db.executemany("UPDATE tiles SET bytes = 0 WHERE iteration = ? AND NOT kept", removed)


def _rule(keep: str) -> Rule | None:
    """Of a setting that says it; None for "auto", which depends on the pictures."""
    match keep.split():
        case ["all"]:
            return Rule(newest=1, every=1)
        case ["newest", number]:
            return Rule(newest=int(number), every=0)
        case ["every", number]:
            return Rule(newest=1, every=int(number))
    return None


def _thinned_before(database: sqlite3.Connection) -> Rule:
    found = facts(database).get(FACT)
    return Rule(found["newest"], found["every"]) if found else Rule(NEWEST, every=1)


def bytes_of(pictures: Iterable[Path]) -> int:
    """What pictures count for; nothing if they are not there."""
    total = 0
    for path in pictures:
        with suppress(OSError):
            total += max(path.stat().st_size, LEAST)
    return total


def remove_pictures(folder: Path) -> bool:
    """Remove an iteration's pictures and their folder; whether nothing is left.

    A link, which may lead out of the run, and files that are no pictures stay.
    """
    if folder.is_symlink():
        return False
    for path in _pictures(folder):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()
    return not os.path.lexists(folder)


def _pictures(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == PICTURE]
    except OSError:
        return []
