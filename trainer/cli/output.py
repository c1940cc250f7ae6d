"""What a command prints: its results on stdout, everything else on stderr."""

import json
import sys
from operator import methodcaller
from typing import TextIO


class Terminal:
    """Where a command's own lines go, whatever sys.stdout and sys.stderr are meanwhile: see `libraries.apart`."""

    def __init__(self) -> None:
        self._out: TextIO | None = None
        self._err: TextIO | None = None

    def set(self, out: TextIO | None, err: TextIO | None) -> None:
        """Take these; None is what sys.stdout and sys.stderr are at the time."""
        self._out, self._err = out, err

    @property
    def apart(self) -> bool:
        """Whether sys.stdout and sys.stderr lead elsewhere."""
        return self._err is not None

    @property
    def out(self) -> TextIO:
        return self._out or sys.stdout

    @property
    def err(self) -> TextIO:
        return self._err or sys.stderr


terminal = Terminal()


def say(text: str, *, quiet: bool = False) -> None:
    """A result."""
    if not quiet:
        print(text, file=terminal.out, flush=True)


def note(text: str) -> None:
    """Something to know on the way: an error, a warning, what takes long. It leaves a progress bar whole."""
    from tqdm import tqdm

    tqdm.write(text, file=terminal.err)
    terminal.err.flush()


def print_json(value: object) -> None:
    """Objects in it are what their `to_dict` says."""
    say(json.dumps(value, indent=2, default=methodcaller("to_dict")))
