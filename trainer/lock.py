"""One owner at a time, across processes: the system lets the lock go when its owner ends, however it ends.

The lock of a folder is a file in it, so that it holds whoever comes: another user, another container, another place for
temporary files. That of a device lies in the folder for temporary files. Both are removed by their owner.
"""

import errno
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import UserError
from .lease import Lease, is_alive

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


NAME = ".lock"  # in a folder
LEASE = ".lease"  # appended to it, where there are no locks
PATIENCE = 0.25  # seconds in which whoever only looks has let go many times over
PAUSE = 0.005  # seconds between tries
WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # said by what knows no locks


class Busy(UserError):
    """Someone else is at it."""


@contextmanager
def exclusive(thing: str, message: str) -> Iterator[None]:
    """Own `thing` (an absolute path of a folder, which is made if it is not there, or a device's name) while inside.

    Raises:
        Busy: with `message`, if another owner has it, in this process or another, and keeps it for PATIENCE.
        OSError: the lock's file can be neither made nor opened.
    """
    path = _path(thing)
    try:
        file, lease = _taken(path, time.monotonic() + PATIENCE)
    except BlockingIOError:
        raise Busy(message) from None
    with file:
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file, and a read-only folder none at all
                path.unlink()
            if lease:
                lease.end()


def held(thing: str) -> bool:
    """Whether `thing` has an owner. Whoever asks holds it for an instant at most, which `exclusive` waits out."""
    path = _path(thing)
    try:
        with open(path, opener=_plainly) as file:
            # on Windows two who ask are in each other's way as well
            _within(time.monotonic() + (4 * PAUSE if os.name == "nt" else 0), _look, file)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno in WITHOUT and is_alive(_lease_of(path))  # else it never had one
    return False


def _path(thing: str) -> Path:
    if os.path.isabs(thing):
        return Path(thing) / NAME
    return Path(tempfile.gettempdir()) / f"neighbor-grpo-{hashlib.sha256(thing.encode()).hexdigest()[:16]}.lock"


def _lease_of(path: Path) -> Path:
    return path.with_name(path.name + LEASE)


def _opened(path: Path) -> IO[str]:
    """To read where another user's file may not be written to: locks do not care."""
    try:
        return os.fdopen(_plainly(path, os.O_RDWR | os.O_CREAT), "r+")
    except PermissionError:
        return open(path, opener=_plainly)


def _plainly(path: str | Path, flags: int) -> int:
    """Without following a link, nor waiting at a pipe, that a stranger has put there."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def _taken(path: Path, end: float) -> tuple[IO[str], Lease | None]:
    """The file at `path` with its lock ours, until it is closed; by a lease if the file system knows no locks.

    Raises:
        BlockingIOError: somebody else has it, still at the time `end`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = _opened(path)
        try:
            _within(end, _lock, file)
            if _is_at(file, path):
                return file, None
            file.close()  # its owner has removed it in the meantime
        except OSError as error:
            if error.errno not in WITHOUT:
                file.close()
                raise
            return file, Lease(_lease_of(path))


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _within(end: float, lock: Callable[[IO[str]], None], file: IO[str]) -> None:
    """Call `lock`, again and again until the time `end` as long as it is refused.

    Raises:
        BlockingIOError: it is refused, still at the end.
    """
    while True:
        try:
            return lock(file)
        except (BlockingIOError, PermissionError) as error:  # Windows says the second
            if time.monotonic() >= end:
                raise BlockingIOError(*error.args) from None
        time.sleep(PAUSE)
