"""The runs folder: which runs there are, and what each of them is."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..events import PAUSED, RUNNING, WAITING, kind_of
from ..lock import held
from ..store.database import DATABASE, StoreError
from ..store.foreign import GLANCE
from ..store.reader import END, Reader, reading

TRASH = ".trash"
INTERRUPTED = "interrupted"  # the state of a run that nobody trains any more, and that was not ended
AT_WORK = ("", RUNNING, PAUSED, WAITING)  # kinds of states; a run that was just begun has none yet
LOG_LINES = 200
LARGEST = 2**53  # whole number that JavaScript tells from its neighbours
LONGEST = 255  # characters of a folder's name
SETTLED = 2  # seconds after which a file's time tells whether it has changed
REMEMBERED = 60  # seconds in which a store that could not be read is not tried again, unless its files change
PATIENCE, LEAST = 3.0, 0.2  # seconds that the list waits for runs that cannot be read in time: all, and the last ones
LABELS = 100  # rewards in the list
WORDS = 1000  # characters of a stored text in it
LATEST = 1e11  # seconds; the year 5138
MEMORY = 4096  # runs


class NoRun(Exception):
    """There is no run of this name."""


_memory: dict[Path, tuple["Summary | StoreError", tuple[int, ...], float]] = {}  # of its files' marks, and when


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
    """Of all runs, newest first; one that cannot be read, or not in time, says so in its state."""
    found, left = [], PATIENCE
    for folder in folders(runs):
        began = time.monotonic()
        try:
            found.append(summary(folder, min(GLANCE, max(left, LEAST))))
        except OSError:  # moved away in the meantime
            continue
        except StoreError as error:
            left -= time.monotonic() - began
            found.append(_unreadable(folder, error))
    return sorted(found, key=lambda s: (s.started or s.updated, s.id), reverse=True)


def summary(folder: Path, seconds: float = GLANCE) -> Summary:
    """What a run is, and whether it is at work; found out within `seconds`.

    Raises:
        StoreError: its store cannot be read.
    """
    known = _known(folder, signature(folder), seconds)
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
    yield (folder / DATABASE).lstat()
    wal = folder / f"{DATABASE}-wal"
    if os.path.lexists(wal) and (found := wal.lstat()).st_size:
        yield found


def _known(folder: Path, mark: tuple[int, ...], seconds: float) -> Summary:
    """What was read when the store was as it is now, or what it says now."""
    now = time.monotonic()
    found, of, since = _memory.get(folder, (None, (), now))
    if isinstance(found, StoreError) and of == mark and now - since < REMEMBERED:
        raise found
    if isinstance(found, Summary) and of == mark:
        return found
    settled = not 0 <= time.time() - updated(folder) < SETTLED
    try:
        found = read(folder, seconds)
    except StoreError as error:
        if not error.later:
            _remember(folder, (error, mark, now))
        raise
    if settled:
        _remember(folder, (found, mark, now))
    return found


def _remember(folder: Path, what: tuple[Summary | StoreError, tuple[int, ...], float]) -> None:
    if len(_memory) >= MEMORY:
        _memory.clear()
    _memory[folder] = what


def read(folder: Path, seconds: float = GLANCE) -> Summary:
    """The stored part of a summary.

    Raises:
        StoreError: its store cannot be read.
    """
    with reading(folder, seconds) as store:
        return described(store, store.info())


def described(store: Reader, info: dict[str, Any]) -> Summary:
    """The stored part; `info` are the store's facts, of which each may be missing or of another kind."""
    settings = tree(info.get("settings"))
    rewards = [r for r in sequence(settings.get("rewards"))[:LABELS] if isinstance(r, dict)]
    labels = [(text(r.get("name")) or text(r.get("kind")), bool(r.get("held_out"))) for r in rewards]
    started, planned, done = info.get("started"), info.get("iterations"), store.done()
    return Summary(
        id=store.folder.name,
        title=text(info.get("title")) or store.folder.name,
        state=text(info.get("state")),
        live=False,
        iteration=done,
        iterations=planned if isinstance(planned, int) and 0 <= planned < END else done,
        started=float(started) if isinstance(started, (int, float)) and 0 <= started < LATEST else None,
        updated=updated(store.folder),
        model=text(tree(settings.get("model")).get("path")),
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
    return {
        "settings": {name: exact(value) for name, value in settings.items()},
        "prompts": sequence(settings.get("prompts")),
        "metrics": store.names(),
        "changes": sequence(info.get("changes")),
        "log": log(store, LOG_LINES),
    }


def exact(section: Any) -> Any:
    """A section of settings with numbers that JavaScript would round, such as seeds, as texts."""
    if not isinstance(section, dict):
        return section
    return {name: str(v) if isinstance(v, int) and abs(v) > LARGEST else v for name, v in section.items()}


def log(store: Reader, lines: int = -1) -> list[dict[str, Any]]:
    """The last `lines` of the log (-1: all), the oldest first."""
    return [{"iteration": iteration, "message": message} for iteration, message in store.log(lines)]


def tree(value: object) -> dict[str, Any]:
    """A stored value that should be a table: an empty one if it is none."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """A stored text for a line, empty if it is none."""
    return value[:WORDS] if isinstance(value, str) else ""
