"""Streams that outlive their reader: a console that takes no more, or not every character, ends no run."""

import errno
import io
import os
import sys
import time
from typing import Any, TextIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a file in place of the console
PAUSE = 0.01  # seconds until a pipe that does not block is asked again


class Lasting(io.RawIOBase):
    """Writes to a descriptor. What cannot be written is dropped: the pipe is closed, the terminal is gone."""

    full: OSError | None = None  # why a file lacks something of what was printed

    def __init__(self, fd: int):
        self._raw = open(fd, "wb", buffering=0, closefd=False)  # noqa: SIM115  for as long as the process lives

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                written = self._raw.write(left)
                left = left[written or 0 :]
                if not written:
                    time.sleep(PAUSE)
        except OSError as error:
            if error.errno in FULL:
                self.full = error
        return size

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def lasting(fd: int, encoding: str, errors: str | None) -> io.TextIOWrapper:
    """A text stream to where `fd` leads; it has no buffer, as a signal's handler may write amid another line.

    A character that the encoding lacks is written as an escape.
    """
    errors = "backslashreplace" if errors in (None, "strict") else errors
    raw: Any = Lasting(fd)  # has no name, which only a file's needs
    return io.TextIOWrapper(raw, encoding, errors, write_through=True)


def make_lasting() -> None:
    """Replaces sys.stdout and sys.stderr by lasting streams, which go nowhere if the process was given none."""
    for fd in (0, 1, 2):
        fill(fd)
    sys.stdout, sys.stderr = (_like(stream, fd) for fd, stream in ((1, sys.stdout), (2, sys.stderr)))


def fill(fd: int) -> None:
    """Gives a closed descriptor to the null device: the next file would get its number, and what libraries print."""
    try:
        os.fstat(fd)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)


def _like(stream: TextIO | None, fd: int) -> TextIO:
    return lasting(fd, stream.encoding if stream else "utf-8", stream.errors if stream else None)


def missing(stream: TextIO) -> OSError | None:
    """Why not all that was printed to a lasting stream stands in its file; None if it does, or if nobody reads it."""
    raw = getattr(stream, "buffer", None)
    return raw.full if isinstance(raw, Lasting) else None
