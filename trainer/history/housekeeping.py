"""The few things a person changes about a run that is over: its title, and whether it stays."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from ..lock import exclusive
from ..store.database import DATABASE
from ..store.facts import change_facts
from .runs import TRASH

TITLE_LENGTH = 200  # characters
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class NotMoved(Exception):
    """A run that stays where it is, with the reason."""


def set_title(folder: Path, title: str) -> None:
    """Name a run; an empty title gives it its folder's name back.

    Raises:
        StoreError: its store is locked or broken.
    """
    change_facts(folder, title=title)


def move_to_trash(runs: Path, folder: Path) -> Path:
    """Move a run to `runs/.trash`, under a name that is free there; returns its place.

    Raises:
        Busy: somebody is training in it.
        NotMoved: the trash is no folder here, or the system refuses.
    """
    trash = runs.resolve() / TRASH
    try:
        with exclusive(str(folder.absolute()), f"{folder.name} is being trained: stop it before you delete it"):
            if not os.path.lexists(folder / DATABASE):  # who was first has moved it, and the lock has made it anew
                raise NotMoved(f"{folder} is gone")
            trash.mkdir(exist_ok=True)
            if trash.is_symlink():
                raise NotMoved(f"{trash} is a link: make it a folder, then delete the run again")
            if os.name != "nt":
                return _moved(folder, trash)
        return _moved(folder, trash)  # Windows moves no folder with an open file in it
    except OSError as error:
        raise NotMoved(f"{folder} cannot be moved to {trash} ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # goes if it is empty
            folder.rmdir()


def _moved(folder: Path, trash: Path) -> Path:
    """A folder can take the place of an empty one only, never of anything that holds something."""
    n = 1
    while True:
        target = trash / (folder.name if n == 1 else f"{folder.name}-{n}")
        n += 1
        if os.path.lexists(target):
            continue
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            continue
        return target
