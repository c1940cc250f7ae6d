"""What happens in the runs folder, seen from outside: by looking at the stores again and again."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..history import StoreError, reading
from ..history.runs import described, folders, is_live, sequence, shown, signature
from ..store.foreign import GLANCE
from .events import Hub
from .messages import message, of_iteration

PAUSE = 0.25  # seconds between two looks at runs at work
ALL = 8  # looks, of which one is at all runs
BURST = 20  # iterations told one by one; of more, the last ones


@dataclass(frozen=True)
class Seen:
    """A run, as it was at the last look."""

    mark: tuple[int, ...]
    live: bool
    state: str
    iteration: int  # done
    saved: int | None
    changes: int
    evaluated: int | None


class Watcher:
    """Compares what it sees with what it saw before.

    Args:
        runs: gives the runs folder.
    """

    def __init__(self, runs: Callable[[], Path]):
        self.runs = runs
        self.seen: dict[Path, Seen] | None = None  # None: the next look is the first
        self.broken: dict[Path, tuple[int, ...]] = {}  # stores that cannot be read, and their signatures then
        self.looks = 0

    def look(self) -> list[dict[str, Any]]:
        """The messages since the last look; at the first one there are none."""
        first = self.seen is None
        before = self.seen or {}
        everything = first or self.looks % ALL == 0
        self.looks += 1
        active = [folder for folder, seen in before.items() if seen.live]
        now, messages = ({} if everything else dict(before)), []
        for folder in folders(self.runs()) if everything else active:
            old = before.get(folder)
            try:
                if self.broken and self.broken.get(folder) == signature(folder):
                    continue
                new = see(folder, old)
                told = [] if first or new is old else differences(folder, old, new)
            except (OSError, StoreError) as error:  # moved away, or locked: another time
                self.note(folder, error)
                now |= {folder: old} if old else {}
                continue
            now[folder] = new
            messages += told
        self.seen = now
        return messages

    def note(self, folder: Path, error: Exception) -> None:
        """A store that is broken is not read again before its files change: it may take long each time."""
        if isinstance(error, StoreError) and not error.later:
            with suppress(OSError):
                self.broken[folder] = signature(folder)

    async def run(self, hub: Hub) -> None:
        """Tell `hub`, as long as somebody listens."""
        loop = asyncio.get_running_loop()
        while True:
            if hub.queues:
                for told in await loop.run_in_executor(None, self.look):
                    hub.publish(told)
            else:
                self.seen = None
            await asyncio.sleep(PAUSE)


def see(folder: Path, old: Seen | None) -> Seen:
    """`old` if nothing has changed. A run at work is always read, as its files' times may stand still meanwhile."""
    mark, live = signature(folder), is_live(folder)
    if old and not live and (old.mark, old.live) == (mark, live):
        return old
    with reading(folder, GLANCE) as store:
        info = store.info()
        summary = described(store, info)
        evaluated = max(store.evaluations(), default=None)
    new = Seen(
        mark=mark,
        live=live,
        state=shown(summary.state, live),
        iteration=summary.iteration,
        saved=info.get("saved"),
        changes=len(sequence(info.get("changes"))),
        evaluated=evaluated,
    )
    return old if old and replace(old, mark=mark) == new else new


def differences(folder: Path, old: Seen | None, new: Seen) -> list[dict[str, Any]]:
    """What a run's listener would have been told between the two."""
    run, done, told = folder.name, new.iteration, []
    if new.live and not (old and old.live):
        told.append(message("started", run, min(done, old.iteration) if old else done))
    known = old.iteration if old else done
    if done > known:
        told += iterations(folder, max(known, done - BURST), done)
    if old is None:
        return told
    for kind in ("saved", "changes", "evaluated"):
        if getattr(old, kind) != getattr(new, kind):
            told.append(message({"changes": "changed"}.get(kind, kind), run, done))
    if old.live and not new.live:
        told.append(message("finished", run, done, state=new.state))
    elif old.state != new.state:
        told.append(message("state", run, done, state=new.state))
    return told


def iterations(folder: Path, first: int, end: int) -> list[dict[str, Any]]:
    found: dict[int, dict[str, float | None]] = {i: {} for i in range(first, end)}
    with reading(folder, GLANCE) as store:
        for name in store.names():
            for iteration, value in store.curve(name, first, end):
                found[iteration][name] = value
    return [of_iteration(folder.name, i, metrics) for i, metrics in found.items() if metrics]
