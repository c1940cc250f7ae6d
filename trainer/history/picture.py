"""The picture files of a run, which may come from a stranger: what is shown lies in its folder, and is a small WebP."""

import os
import stat
from pathlib import Path

PICTURE = ".webp"
BYTES = 4 * 2**20  # of a file; one of 512 x 512 pixels has 100 kB
EDGE = 2048  # pixels; a few bytes can claim 16383 x 16383, which a browser would make room for
HEADER = 30  # bytes, of the longest of the three kinds


def inside(folder: Path, relative: object) -> Path | None:
    """A picture of the run, links followed; None if there is none, where it lies elsewhere, or if it is too large."""
    if not isinstance(relative, str) or not relative.endswith(PICTURE) or "\0" in relative:
        return None
    try:
        path = (folder / relative).resolve(strict=True)
        found = path.stat()
    except (OSError, RuntimeError, ValueError):  # missing, too long, a circle of links, half a character
        return None
    plain = stat.S_ISREG(found.st_mode) and found.st_size <= BYTES
    return path if plain and path.is_relative_to(folder.resolve()) else None


def shown(path: Path | None) -> Path | None:
    """The same if it is a WebP of EDGE pixels at most; else None."""
    try:
        size = path and _size(path)
    except OSError:
        return None
    return path if size and max(size) <= EDGE else None


def _size(path: Path) -> tuple[int, int] | None:
    """Pixels of a WebP as its header says them (RFC 9649); None if it is none."""
    with open(path, "rb", opener=_without_waiting) as file:
        head = file.read(HEADER)
    if len(head) < HEADER or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind, number = head[12:16], lambda start, end: int.from_bytes(head[start:end], "little")
    if kind == b"VP8X":
        return number(24, 27) + 1, number(27, 30) + 1
    if kind == b"VP8L":
        return (number(21, 25) & 0x3FFF) + 1, (number(21, 25) >> 14 & 0x3FFF) + 1
    return (number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF) if kind == b"VP8 " else None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that has taken the picture's place meanwhile
