"""What the user can put right."""

import re
import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100  # characters
_SHORT.maxlong = 40
_SHORT.maxlevel = 3
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")  # what ends a line somewhere, or moves a terminal's cursor
_MOST = 1000  # characters of a message, which may name paths


class UserError(Exception):
    """Something wrong with a setting, a file or a folder: one line that names it and the remedy.

    The command line prints it and exits with 2; nothing has been written by then.
    """

    def __str__(self) -> str:
        text = _BREAKS.sub(" ", super().__str__())
        return text if len(text) <= _MOST else f"{text[: _MOST // 2]} ... {text[-_MOST // 2 :]}"


class ConfigError(UserError):
    """A setting that cannot be used: names it, its value and the remedy, in one line."""


class Refused(Exception):
    """A request answered with `status` and the reason, one sentence; `retry_after` seconds if asking again may help."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None):
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Stopped(Exception):
    """Someone asked the run to stop in the middle of an iteration."""


def brief(value: object) -> str:
    """`repr(value)` for a message: a value of any length in at most a few hundred characters on one line."""
    try:
        return _SHORT.repr(value)[:400]
    except ValueError:  # an integer of more digits than Python prints
        return f"a {type(value).__name__} too long to print"
