"""One owner at a time, across processes: the system lets the lock go when its owner ends, however it ends."""

import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import UserError

if os.name == "nt":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Busy(UserError):
    """Someone else is at it."""


@contextmanager
def exclusive(thing: str, message: str) -> Iterator[None]:
    """Own `thing` (a folder's path, a device's name) on this machine while inside.

    The lock lies in the system's folder for temporary files, so that whoever is refused leaves no trace elsewhere.

    Raises:
        Busy: with `message`, where another owner has it, in this process or another.
    """
    name = hashlib.sha256(f"{getpass.getuser()} {thing}".encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir()) / f"neighbor-grpo-{name}.lock", "a") as file:
        try:
            _lock(file)
        except OSError:
            raise Busy(message) from None
        yield
