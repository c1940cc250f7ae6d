"""What a process holds while it goes on for long: memory, open files, threads, mapped files. None of it may rise.

A third of the times is for whatever fills up once (caches, pools, what is imported late); what is held in the last
third is compared with the third before.
"""

import ctypes
import gc
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

import toy_runs
from board_server import running
from rows import Row
from run_folders import Run, write

from trainer.board.app import make_app
from trainer.events import Event, IterationDone
from trainer.settings.config_file import load_config
from trainer.training.run import start_run

ITERATIONS, RUNS, CYCLES = 3000, 200, 300
LOOKS = 60  # at what is held, over all times
PROCESS = Path("/proc/self")
PATHS = (
    "",
    "/run",
    "/run/curves",
    "/run/groups",
    "/run/groups/3",
    "/run/tiles/3/0/1",
    "/run/diagnosis",
    "/run/export.csv",
)


@dataclass(frozen=True)
class Level:
    """What this process holds."""

    files: int  # open
    threads: int  # pools of a few fill up when they are needed
    mapped: int  # files
    objects: int  # bytes of Python's objects
    resident: int  # bytes of memory of its own, tensors with it: pages of files come and go as the system likes


# what may come on top in the last third: what does not depend on the times, and bytes for each time
SLACK = Level(files=0, threads=4, mapped=0, objects=256 * 1024, resident=16 * 2**20)
EACH = Level(files=0, threads=0, mapped=0, objects=1024, resident=4096)  # an iteration's numbers, for the diagnosis


def rows(share: float = 1.0) -> Iterator[Row]:
    with traced():
        for fault, act, times in (
            ("iterations of one run", iterations, ITERATIONS),
            ("runs, one after the other", runs, RUNS),
            ("a run changed and all of the board's routes asked for it", board, CYCLES),
        ):
            with tempfile.TemporaryDirectory() as name:
                yield measured(f"{fault}: what the process holds", act, Path(name), max(12, round(times * share)))


def iterations(folder: Path, times: int, look: Callable[[], None]) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, IterationDone):
            look()

    config = toy_runs.write_config(folder, times, save_every=10)
    start_run(load_config(config, [f"run.folder={str(folder / 'run')!r}"]), listeners=[listen])


def runs(folder: Path, times: int, look: Callable[[], None]) -> None:
    config = toy_runs.write_config(folder, iterations=2, save_every=1)
    for n in range(times):
        start_run(load_config(config, [f"run.folder={str(folder / str(n))!r}"]))
        look()


def board(folder: Path, times: int, look: Callable[[], None]) -> None:
    write(folder / "run", Run(iterations=6))
    with running(make_app(lambda: folder)) as served:
        for n in range(times):
            served.request("PATCH", "/runs/run", {"title": f"look {n}"})
            for path in PATHS:
                answer = served.get(f"/runs{path}")
                assert answer.status == 200, (path, answer)
            look()


def measured(fault: str, act: Callable[[Path, int, Callable[[], None]], None], folder: Path, times: int) -> Row:
    """Looks while `act` goes on, and what rose in the last third."""
    found, count, every = [], 0, max(1, times // LOOKS)

    def look() -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            found.append(level())

    act(folder, times, look)
    before, after = (typical(part) for part in (found[len(found) // 3 : -len(found) // 3], found[-len(found) // 3 :]))
    rise = {f.name: getattr(after, f.name) - getattr(before, f.name) for f in fields(Level)}
    allowed = {f.name: getattr(SLACK, f.name) + getattr(EACH, f.name) * times // 3 for f in fields(Level)}
    too_much = [name for name in rise if rise[name] > allowed[name]]
    row = Row(fault)
    for n in range(times):
        row.add(words(after, rise, too_much), lost=n == 0 and bool(too_much))
    return row


def words(level: Level, rise: dict[str, int], too_much: list[str]) -> str:
    return (
        f"{level.files} open files ({rise['files']:+d} in the last third), {level.threads} threads "
        f"({rise['threads']:+d}), {level.mapped} mapped files ({rise['mapped']:+d}), {level.resident / 2**20:.0f} MiB "
        f"({rise['resident'] / 2**20:+.1f}), of Python's objects {level.objects / 2**20:.1f} MiB "
        f"({rise['objects'] / 2**20:+.2f})" + "".join(f", too much: {name}" for name in too_much)
    )


def typical(levels: list[Level]) -> Level:
    return Level(**{f.name: round(median(getattr(one, f.name) for one in levels)) for f in fields(Level)})


def level() -> Level:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else what leaks first fills what earlier work freed, and nothing rises
    maps = {line.split(maxsplit=5)[5] for line in (PROCESS / "maps").read_text().splitlines() if "/" in line}
    (anonymous,) = (line.split()[1] for line in (PROCESS / "status").read_text().splitlines() if "RssAnon" in line)
    objects, _ = tracemalloc.get_traced_memory()
    files = len(list((PROCESS / "fd").iterdir()))
    return Level(files, threading.active_count(), len(maps), objects, 1024 * int(anonymous))


@contextmanager
def traced() -> Iterator[None]:
    gc.freeze()  # what is imported by now need not be looked at each time
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.unfreeze()
