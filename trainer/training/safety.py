"""What keeps a run's folder safe: it comes before anything is loaded, and room for a last checkpoint is set aside."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..engine.state import Setup, State
from ..files import remove
from ..store.database import DATABASE, damage, set_aside

log = logging.getLogger(__name__)

RESERVE = "reserve"  # a folder in that of the checkpoints
FILES = 12  # as many are made for a checkpoint and a LoRA, and more: file systems count files as well as bytes
BLOCK = 2**20  # bytes written at once
SMALL = 2**20  # bytes of what is no tensor: state.json, the store's last rows


@contextmanager
def made(folder: Path) -> Iterator[Callable[[], None]]:
    """The folder of a run; one that was not there goes again, with all in it, if the run never begins.

    Gives what is to be called when it begins.

    Raises:
        OSError: it cannot be made.
    """
    before = next(path for path in (folder, *folder.parents) if path.exists())
    begun = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield lambda: begun.append(True)
    finally:
        if not begun and before != folder:
            remove(folder)
            for path in folder.parents:
                if path == before:
                    break
                with suppress(OSError):
                    path.rmdir()


def mend(folder: Path) -> None:
    """Set a damaged store aside, so that the run begins a new one; a warning says so."""
    if found := damage(folder):
        path, kept = folder / DATABASE, set_aside(folder).name
        log.warning("the store %s is damaged (%s): kept as %s, and begun anew", path, found, kept)


class Reserve:
    """Space on the disk that is given back before the last checkpoint is written: it is there if the disk is full.

    Raises:
        OSError: there is no such space.
    """

    def __init__(self, folder: Path, size: int):
        self.path = folder / RESERVE
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            for n in range(1, FILES):
                (self.path / str(n)).touch()
            with open(self.path / "0", "wb") as file:
                for start in range(0, size, BLOCK):
                    file.write(b"\0" * min(BLOCK, size - start))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        remove(self.path)


@contextmanager
def reserved(folder: Path, size: int) -> Iterator[Reserve]:
    reserve = Reserve(folder, size)
    try:
        yield reserve
    finally:
        reserve.give_back()


def size_of(setup: Setup, state: State) -> int:
    """Bytes of a checkpoint and of the exported LoRA: AdamW keeps two numbers for each weight."""
    weights = sum(p.numel() * p.element_size() for p in setup.lora.values())
    average = sum(p.numel() * p.element_size() for p in state.average.shadow.values())
    return 4 * weights + average + SMALL
