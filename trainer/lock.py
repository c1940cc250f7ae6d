"""One owner at a time, across processes: the system lets the lock go when its owner ends, however it ends."""

import getpass
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import UserError

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _look(file: IO[str]) -> None:
        _lock(file)  # Windows knows no lock that two can share by this call
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _look(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


PATIENCE = 0.25  # seconds in which whoever only looks has let go many times over
PAUSE = 0.005  # seconds between tries


class Busy(UserError):
    """Someone else is at it."""


@contextmanager
def exclusive(thing: str, message: str) -> Iterator[None]:
    """Own `thing` (a folder's path, a device's name) on this machine while inside.

    The lock lies in the system's folder for temporary files, so that whoever is refused leaves no trace elsewhere.

    Raises:
        Busy: with `message`, if another owner has it, in this process or another, and keeps it for PATIENCE.
    """
    with open(_path(thing), "a") as file:
        if not _within(PATIENCE, _lock, file):
            raise Busy(message)
        yield


def held(thing: str) -> bool:
    """Whether `thing` has an owner. Whoever asks holds it for an instant at most, which `exclusive` waits out."""
    try:
        with open(_path(thing)) as file:
            # on Windows two who ask are in each other's way as well
            return not _within(4 * PAUSE if os.name == "nt" else 0, _look, file)
    except OSError:  # it never had one
        return False


def _path(thing: str) -> Path:
    thing = os.path.realpath(thing) if os.path.isabs(thing) else thing  # one folder, whatever links lead to it
    name = hashlib.sha256(f"{getpass.getuser()} {thing}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"neighbor-grpo-{name}.lock"


def _within(seconds: float, lock: Callable[[IO[str]], None], file: IO[str]) -> bool:
    """Whether `lock` succeeds, tried again and again for so long."""
    end = time.monotonic() + seconds
    while True:
        try:
            lock(file)
            return True
        except OSError:
            if time.monotonic() >= end:
                return False
        time.sleep(PAUSE)
