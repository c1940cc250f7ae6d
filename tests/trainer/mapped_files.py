"""Which files a process has mapped."""

from pathlib import Path

MAPS = Path("/proc/self/maps")


def mapped(folder: Path, maps: Path = MAPS) -> list[str]:
    """Lines of `maps` about files below `folder`."""
    return [line for line in maps.read_text().splitlines() if str(folder) in line]
