"""Disks that refuse: an error of the system at one of the moments when a run touches its folder, and real full ones."""

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import toy_runs
from rows import Row

ITERATIONS = 6
NUMBERS = (
    "ENOSPC",
    "EDQUOT",
    "EROFS",
    "EACCES",
    "EPERM",
    "EIO",
    "ESTALE",
    "EMFILE",
    "ENFILE",
    "ENAMETOOLONG",
    "ETIMEDOUT",
)
TIMES = 25  # of each, at random moments
SIZES = range(8, 256, 8)  # KiB of a real file system that runs full
INODES = range(8, 72, 4)


def rows(share: float = 1.0) -> Iterator[Row]:
    generator = random.Random(15)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = toy_runs.write_config(folder, ITERATIONS, 2)
        expected = toy_runs.result(toy_runs.whole(folder, iterations=ITERATIONS, save_every=2))
        with refusing(folder / "counted", -1, 0) as seen:
            toy_runs.train(config, folder / "counted")
        for number in NUMBERS:
            row = Row(f"{number} at one moment")
            for _ in range(max(2, round(TIMES * share))):
                moment = generator.randrange(len(seen))
                one(row, config, folder / "run", expected, moment, getattr(errno, number))
            yield row
        yield from refused_at_once(config, folder)
        if can_mount(folder):
            for fault, option, sizes in (("is full", "size={}k", SIZES), ("has no inode left", "nr_inodes={}", INODES)):
                row = Row(f"a real file system {fault}")
                for size in sizes[:: max(1, round(1 / share / 2))]:
                    full(row, config, folder, expected, option.format(size))
                yield row


def one(row: Row, config: Path, run: Path, expected: dict[str, object], moment: int, number: int) -> None:
    """A run that is refused once, then gone on with."""
    with refusing(run, moment, number) as seen:
        told = toy_runs.train(config, run)
    add(row, config, run, expected, told, done(run), len(seen) > moment)
    shutil.rmtree(run)


def add(
    row: Row, config: Path, run: Path, expected: dict[str, object], told, before: int, refused: bool, *places: Path
):
    """How a run ended, and whether all `before` iterations were kept and going on leads where it had to."""
    kept = toy_runs.saved(run)
    again = toy_runs.train(config, run)
    lost = kept < before or again.code != 0 or toy_runs.result(run) != expected
    outcome = toy_runs.words(told.error, run, *places) if told.code == 2 else "went on to the end"
    plain = told.traceback or (told.code != 0 and not told.error)
    row.add(outcome if refused else "was over before", lost=lost, traceback=plain)


def done(run: Path) -> int:
    """Iterations that the store knows of."""
    try:
        return len(toy_runs.rewards_of(run))
    except sqlite3.Error:
        return 0


armed: dict[str, object] = {}


def hook(event: str, arguments: tuple) -> None:
    """Raises the error at the nth moment at which a path in the folder is touched; see `sys.addaudithook`."""
    if not armed or not (event == "open" or event.startswith(("os.", "sqlite3.connect", "shutil."))):
        return
    path = arguments[0] if arguments else None
    if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(armed["folder"]):
        armed["seen"].append(event)
        if len(armed["seen"]) - 1 == armed["moment"]:
            number = armed["number"]
            raise OSError(number, os.strerror(number), os.fsdecode(path))


@contextmanager
def refusing(folder: Path, moment: int, number: int) -> Iterator[list[str]]:
    """The system refuses one thing in `folder`, the nth, with an error of this number. Gives what was touched."""
    if "hooked" not in vars(sys):
        sys.addaudithook(hook)
        sys.hooked = True
    seen: list[str] = []
    armed.update(folder=str(folder), moment=moment, number=number, seen=seen)
    try:
        yield seen
    finally:
        armed.clear()


def refused_at_once(config: Path, folder: Path) -> Iterator[Row]:
    """Places where no run can begin: nothing is loaded, nothing is left."""
    file = folder / "file"
    file.write_text("")
    places: dict[str, Callable[[], str]] = {
        "a file is in the place of the folder": lambda: str(file),
        "a file is in the place of a parent": lambda: str(file / "run"),
        "a name is too long": lambda: str(folder / ("n" * 300)),
        "a path is too long": lambda: str(folder / "/".join(["n" * 200] * 30)),
        "a circle of links": lambda: circle(folder),
        "a device": lambda: "/dev/null/run",
        "procfs": lambda: "/proc/run",
    }
    for fault, place in places.items():
        row = Row(f"the run's folder: {fault}")
        told = toy_runs.train(config, Path(place()))
        row.add(
            toy_runs.words(told.error, folder)[:120], lost=told.code != 2, traceback=told.traceback or not told.error
        )
        yield row


def circle(folder: Path) -> str:
    (folder / "circle").symlink_to(folder / "circle")
    return str(folder / "circle" / "run")


def can_mount(folder: Path) -> bool:
    """Whether this machine lets us make file systems of our own: Linux, by root."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    try:
        with mounted(folder / "tried", "size=64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def mounted(place: Path, option: str) -> Iterator[Path]:
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(place)], check=True, capture_output=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)
    finally:
        place.rmdir()


def full(row: Row, config: Path, folder: Path, expected: dict[str, object], option: str) -> None:
    """A run on a file system that is too small; what it saved is taken to a larger one and gone on with."""
    with mounted(folder / "small", option) as place:
        told = toy_runs.train(config, place / "run")
        before = done(place / "run")
        if (place / "run").exists():
            shutil.copytree(place / "run", folder / "run", ignore=shutil.ignore_patterns("reserve"))
    add(row, config, folder / "run", expected, told, before, True, folder / "small")
    shutil.rmtree(folder / "run")
