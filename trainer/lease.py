"""One owner at a time where the file system knows no locks (SMB, NFS, FUSE): a file that its owner touches every beat.

An owner that has not touched it for STALE seconds is gone, and so is one of this machine whose process is.
"""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from .files import remove

BEAT, STALE = 5.0, 60.0  # seconds


class Lease:
    """Ours as soon as it is made, until `end`.

    Raises:
        BlockingIOError: somebody else has it.
    """

    def __init__(self, path: Path):
        if is_alive(path):
            raise BlockingIOError(f"{path} has an owner")
        aside = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}")
        with suppress(OSError):  # whoever moves a stale one away first has to be the only one
            os.rename(path, aside)
            remove(aside)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            raise BlockingIOError(f"{path} has an owner") from None
        with open(file, "w", encoding="utf-8") as stream:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, stream)
        self.path, self._over = path, threading.Event()
        self._beats = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._beats.start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):  # a drive that is away for a moment
                os.utime(self.path)

    def end(self) -> None:
        self._over.set()
        self._beats.join()
        remove(self.path)


def is_alive(path: Path) -> bool:
    """Whether the lease at `path` has an owner that is still there."""
    try:
        age = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text("utf-8"))
        here, pid = owner["host"] == socket.gethostname(), int(owner["pid"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):  # being written, or by somebody else's program
        here, pid, age = False, 0, _age(path)
    return age < STALE and not (here and _is_gone(pid))


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return STALE


def _is_gone(pid: int) -> bool:
    """Whether there is no such process here; Windows would end one that is asked."""
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
