"""What any machine may do to a program: one line with the path and the remedy instead of a traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError, brief

DATABASES, WEIGHTS = "sqlite3.Error", "safetensors.SafetensorError"  # what libraries raise
LONGEST = 200  # characters of a path
FULL = "the disk is full, or has no room for another file: free some space"
REMEDIES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: "the quota is used up: free some space",
    errno.EFBIG: "the file system takes no file as large: choose a folder on another one",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "no permission: change the permissions of the file and its folder, or choose another one",
    errno.EPERM: "not permitted: change the owner of the file and its folder, or choose another one",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine: close some programs",
    errno.ENOTDIR: "a part of the path is no folder: choose another one",
    errno.EEXIST: "something else is there already: move it away, or choose another name",
    errno.EISDIR: "a folder is there: name a file",
    errno.ELOOP: "a circle of links: correct them, or choose another path",
    errno.EIO: "the disk or its connection fails: check it, or choose another folder",
    errno.ENOENT: "there is no such file or folder: check the path",
    errno.ENOMEM: "the computer's memory is full: close some programs",
}
STALE = ("ESTALE", "EHOSTDOWN", "ENOTCONN", "ETIMEDOUT", "EREMOTEIO", "ENODEV", "ENXIO")  # of drives that went away
REMEDIES |= {
    getattr(errno, name): "the drive does not answer: check its connection, or choose another folder"
    for name in STALE
    if hasattr(errno, name)
}


def is_fault(error: BaseException) -> bool:
    """Whether it is a machine's or a file's fault and no mistake in the program."""
    return isinstance(error, OSError | UnicodeError | MemoryError) or _is(error, DATABASES) or _is(error, WEIGHTS)


def in_words(error: BaseException, place: Path | None = None) -> str:
    """One line for an error that `is_fault`; `place` is named if the error names no path of its own."""
    where = _shortened(str(getattr(error, "filename", None) or place or ""))
    start = f"{where}: " if where else ""
    if remedy := REMEDIES.get(_number(error)):
        return f"{start}{remedy}"
    if isinstance(error, MemoryError):
        return f"{start}{REMEDIES[errno.ENOMEM]}"
    if isinstance(error, UnicodeError):
        return f"{start}not text in UTF-8 ({brief(str(error))}): save it as UTF-8"
    if isinstance(error, OSError):
        return f"{start}{error.strerror or brief(str(error)) or type(error).__name__}"
    what = "the database" if _is(error, DATABASES) else "the file"
    return f"{start}{what} cannot be read or written ({brief(str(error))})"


@contextmanager
def told(place: Path | None = None) -> Iterator[None]:
    """What happens to files, at `place` if they do not name themselves, becomes a UserError in words.

    Raises:
        UserError: for any error that `is_fault`.
    """
    try:
        yield
    except Exception as error:
        if not is_fault(error):
            raise
        raise UserError(in_words(error, place)) from error


def _shortened(path: str) -> str:
    return path if len(path) <= LONGEST else f"{path[: LONGEST // 2]}...{path[-LONGEST // 2 :]}"


def _number(error: BaseException) -> int:
    """The system's number of what went wrong, 0 if nobody knows; safetensors says it in its text."""
    if isinstance(error, OSError):
        return error.errno or 0
    if _is(error, WEIGHTS) and "(os error " in str(error):
        digits = str(error).rpartition("(os error ")[2].partition(")")[0]
        return int(digits) if digits.isdigit() else 0
    return 0


def _is(error: BaseException, name: str) -> bool:
    """By the name of a class: to look at an error must not import the library."""
    packages = ((cls.__module__.partition(".")[0].removesuffix("_rust"), cls.__name__) for cls in type(error).__mro__)
    return any(f"{package}.{cls}" == name for package, cls in packages)
