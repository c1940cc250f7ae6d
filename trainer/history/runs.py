"""The runs folder: which runs there are, and what each of them is."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..events import PAUSED, RUNNING, WAITING, kind_of
from ..lock import held
from ..store.database import DATABASE, StoreError
from ..store.reader import Reader, reading

TRASH = ".trash"
INTERRUPTED = "interrupted"  # the state of a run that nobody trains any more, and that was not ended
AT_WORK = ("", RUNNING, PAUSED, WAITING)  # kinds of states; a run that was just begun has none yet
LOG_LINES = 200
LONGEST = 255  # characters of a folder's name
SETTLED = 2  # seconds after which a file's time tells whether it has changed


class NoRun(Exception):
    """There is no run of this name."""


@dataclass(frozen=True)
class Summary:
    """One line of the list of runs."""

    id: str
    title: str
    state: str  # as stored, but for a run that nobody trains any more
    live: bool  # somebody is training it
    iteration: int  # iterations done
    iterations: int  # planned; those done if nobody knows
    started: float | None  # unix seconds
    updated: float  # unix seconds
    model: str  # empty if nobody knows
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    path: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(runs: Path, name: str) -> Path:
    """The folder of a run: one directly in `runs`, not hidden, no link, with a store in it.

    Raises:
        NoRun: there is none of this name.
    """
    if not name or len(name) > LONGEST or name.startswith(".") or Path(name).name != name:
        raise NoRun(name)
    try:
        name.encode()  # half a character cannot be part of an address
        folder = runs.resolve() / name
        if (folder / DATABASE).resolve(strict=True) == folder / DATABASE:
            return folder
    except (OSError, RuntimeError, ValueError):  # missing, too long, a circle of links, half a character or none
        pass
    raise NoRun(name)


def folders(runs: Path) -> Iterator[Path]:
    """Of all runs."""
    try:
        names = [p.name for p in runs.iterdir()]
    except OSError:  # no run yet
        return
    for name in names:
        try:
            yield find(runs, name)
        except NoRun:
            continue


def summaries(runs: Path) -> list[Summary]:
    """Of all runs, newest first; one that cannot be read says so in its state."""
    found = []
    for folder in folders(runs):
        try:
            found.append(summary(folder))
        except OSError:  # moved away in the meantime
            continue
        except StoreError as error:
            found.append(_unreadable(folder, error))
    return sorted(found, key=lambda s: (s.started or s.updated, s.id), reverse=True)


def summary(folder: Path) -> Summary:
    """What a run is, and whether it is at work.

    Raises:
        StoreError: its store cannot be read.
    """
    mark = signature(folder)
    fresh = time.time() - updated(folder) < SETTLED
    known = _read(folder) if fresh else _cached(folder, mark)
    live = is_live(folder)
    return replace(known, state=shown(known.state, live), live=live)


def shown(state: str, live: bool) -> str:
    """A stored state, which may be of a run that ended without a word."""
    if kind_of(state) not in AT_WORK:
        return state
    if not live:
        return INTERRUPTED
    return state or RUNNING


def is_live(folder: Path) -> bool:
    """Whether somebody trains in the folder."""
    return held(str(folder.absolute()))


def signature(folder: Path) -> tuple[int, ...]:
    """Changes whenever the store does."""
    return tuple(n for s in _files(folder) for n in (s.st_mtime_ns, s.st_size))


def updated(folder: Path) -> float:
    """When the store was last written, unix seconds."""
    return max(s.st_mtime for s in _files(folder))


def _files(folder: Path) -> Iterator[os.stat_result]:
    yield (folder / DATABASE).stat()
    wal = folder / f"{DATABASE}-wal"
    if wal.exists() and (found := wal.stat()).st_size:
        yield found


@lru_cache(maxsize=4096)
def _cached(folder: Path, _: tuple[int, ...]) -> Summary:
    return _read(folder)


def _read(folder: Path) -> Summary:
    with reading(folder) as store:
        return described(store, store.info())


def described(store: Reader, info: dict[str, Any]) -> Summary:
    """The stored part; `info` are the store's facts, of which each may be missing or of another kind."""
    settings = tree(info.get("settings"))
    rewards = [tree(r) for r in settings.get("rewards") or () if isinstance(r, dict)]
    labels = [(str(r.get("name") or r.get("kind")), bool(r.get("held_out"))) for r in rewards]
    model, started, planned = tree(settings.get("model")).get("path"), info.get("started"), info.get("iterations")
    done = store.done()
    return Summary(
        id=store.folder.name,
        title=str(info.get("title") or store.folder.name),
        state=str(info.get("state") or ""),
        live=False,
        iteration=done,
        iterations=planned if isinstance(planned, int) else done,
        started=float(started) if isinstance(started, (int, float)) else None,
        updated=updated(store.folder),
        model=model if isinstance(model, str) else "",
        trained=tuple(label for label, held_out in labels if not held_out),
        held_out=tuple(label for label, held_out in labels if held_out),
        path=str(store.folder),
    )


def _unreadable(folder: Path, error: StoreError) -> Summary:
    return Summary(
        id=folder.name,
        title=folder.name,
        state=f"unreadable: {error}",
        live=is_live(folder),
        iteration=0,
        iterations=0,
        started=None,
        updated=updated(folder),
        model="",
        trained=(),
        held_out=(),
        path=str(folder),
    )


def details(store: Reader) -> dict[str, Any]:
    """What a run's page shows besides its summary."""
    info = store.info()
    settings = tree(info.get("settings"))
    prompts, changes = settings.get("prompts"), info.get("changes")
    return {
        "settings": settings,
        "prompts": prompts if isinstance(prompts, list) else [],
        "metrics": store.names(),
        "changes": changes if isinstance(changes, list) else [],
        "log": log(store, LOG_LINES),
    }


def log(store: Reader, lines: int = -1) -> list[dict[str, Any]]:
    """The last `lines` of the log (-1: all), the oldest first."""
    return [{"iteration": iteration, "message": message} for iteration, message in store.log(lines)]


def tree(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
