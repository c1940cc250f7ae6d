"""Libraries talk, each in its own way: they print, log and warn, from Python and from C, as soon as they are imported.

None of it is a command's answer. It goes to a log, and the terminal has our lines alone: those of `output`, and what
our own loggers warn of.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .lasting import lasting
from .output import note, terminal

LOG = "log.txt"  # in a run's folder
OUT, ERR = 1, 2  # file descriptors
# loggers whose warnings are for the user: our own, and what Python says of our coroutines
OURS = (__name__.partition(".")[0], "asyncio")
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def apart() -> Iterator[None]:
    """What is written to stdout and stderr goes to a log until the process ends, but for what `output` prints.

    By the file descriptors, so that nothing escapes: not what C++ prints, nor what a child process does. The log is a
    temporary file that nobody sees, until `log_into` names one to keep. An exception finds all as it was.
    """
    if sys.stdout is None or sys.stderr is None:  # there is no terminal and no file to write to
        yield
        return
    before = sys.stdout, sys.stderr
    for stream in before:
        stream.flush()
    kept = os.dup(OUT), os.dup(ERR)
    terminal.set(*(lasting(fd, stream.encoding, stream.errors) for fd, stream in zip(kept, before, strict=True)))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a download of gigabytes would fill the log
    with _unseen() as log:
        _lead_to(log.fileno())
    sys.stdout = sys.stderr = lasting(ERR, "utf-8", "backslashreplace")
    _listen()
    try:
        yield
    except BaseException:
        for fd, number in zip(kept, (OUT, ERR), strict=True):
            os.dup2(fd, number)
        sys.stdout, sys.stderr = before
        raise


def log_into(folder: Path) -> None:
    """From now on the log is `folder/log.txt`, below what stands there; what was said until now comes first.

    Does nothing outside of `apart`.
    """
    if not terminal.apart:
        return
    with open(folder / LOG, "ab", buffering=0) as file, open(os.dup(ERR), "rb", buffering=0) as said:
        said.seek(0)
        shutil.copyfileobj(said, file)
        _lead_to(file.fileno())


def _unseen() -> IO[bytes]:
    """A temporary file; nowhere if the system has no place for one."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "r+b", buffering=0)


def _lead_to(file: int) -> None:
    os.dup2(file, OUT)
    os.dup2(file, ERR)


def _listen() -> None:
    """All loggers write to the log, with their names; those of `OURS` to the terminal as well."""
    log, lines = logging.StreamHandler(), _Lines(logging.WARNING)
    log.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().addHandler(log)
    for name in OURS:
        logging.getLogger(name).addHandler(lines)


class _Lines(logging.Handler):
    """A warning as one line, with a traceback below if something broke."""

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        trace = f"\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else ""
        note(f"{record.levelname.lower()}: {line}{trace}")
