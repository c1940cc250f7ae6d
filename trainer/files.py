"""Files that appear whole or not at all, and tidying up that never ends work."""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

PARTIAL = ".partial"
TRIES, PAUSE = 10, 0.1  # of a rename that is denied for an instant: Windows, where a virus scanner looks at new files


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write to the path this gives; it takes the place of `path` when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unused(path.with_name(path.name + PARTIAL))
    try:
        with usual_mode(partial):
            yield partial
        replace(partial, path)
    finally:
        remove(partial)


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """What a library writes to `path` meanwhile may be read as any other new file: safetensors' only by its owner."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # by the umask, or whatever else the folder wants
    yield
    with suppress(OSError):  # a drive that knows no modes
        path.chmod(mode)


def replace(source: Path, target: Path) -> None:
    """Rename, in the place of what is there; tried again for a second if it is denied.

    Raises:
        OSError: it stays denied, or something else is wrong.
    """
    for last in (*[False] * (TRIES - 1), True):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if last:
                raise
            time.sleep(PAUSE)


def remove(path: Path) -> bool:
    """Remove a file or a folder with all in it; whether it is gone. What cannot be removed is left for another time."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return not os.path.lexists(path)


def unused(path: Path) -> Path:
    """`path` once nothing is there any more, or `path-2`, `path-3`, ... if that cannot be removed."""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in count(1))
    return next(name for name in names if remove(name))
