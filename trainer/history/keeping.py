"""The few things a person changes about a run that is over: its title, and whether it stays."""

import errno
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ..lock import exclusive
from ..store.reader import DATABASE, Unreadable
from .runs import TRASH

TITLE_LENGTH = 200  # characters
PATIENCE = 5  # seconds to wait for a training that writes
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class NotMoved(Exception):
    """A run that stays where it is, with the reason."""


def set_title(folder: Path, title: str) -> None:
    """Name a run; an empty title gives it its folder's name back.

    Raises:
        Unreadable: its store is locked or broken.
    """
    path = folder / DATABASE
    try:
        # rw, not rwc: a run that has just been moved away is not to come back as an empty store
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as database, database:
            database.execute("INSERT OR REPLACE INTO info VALUES ('title', ?)", (json.dumps(title),))
    except sqlite3.Error as error:
        busy = "locked" in str(error) or "busy" in str(error)
        raise Unreadable(f"{path} cannot be written ({error})", later=busy) from error


def move_to_trash(runs: Path, folder: Path) -> Path:
    """Move a run to `runs/.trash`, under a name that is free there; returns its place.

    Raises:
        Busy: somebody is training in it.
        NotMoved: the trash is no folder here, or the system refuses.
    """
    trash = runs.resolve() / TRASH
    with exclusive(str(folder.absolute()), f"{folder.name} is being trained: stop it before you delete it"):
        try:
            trash.mkdir(exist_ok=True)
            if trash.is_symlink():
                raise NotMoved(f"{trash} is a link: make it a folder, then delete the run again")
            return _moved(folder, trash)
        except OSError as error:
            raise NotMoved(f"{folder} cannot be moved to {trash} ({error.strerror or error})") from error


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
