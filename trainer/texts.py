"""Text files that people bring, read the same way whatever saved them: configs, prompts, tokens."""

import codecs
import stat
from pathlib import Path

from .errors import ConfigError

MOST = 16 * 2**20  # bytes
MARKS = (  # that a file begins with; UTF-32's begin like UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
BACKSLASHES = "write a Windows path in single quotes, or with / in place of \\"
ESCAPED = f"has a control character: in TOML, {BACKSLASHES}"  # "C:\temp" has a tab


def read_text(path: Path, most: int = MOST) -> str:
    """A regular file of at most `most` bytes as text: UTF-8, or what its mark says; every line ends with "\\n" alone.

    Raises:
        ConfigError: it cannot be read, or is no text; one line with the remedy.
    """
    try:
        data = _read(path, most)
    except (OSError, ValueError) as error:  # ValueError: a path that no system has
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason})") from error
    mark, encoding = next(((m, e) for m, e in MARKS if data.startswith(m)), (b"", "utf-8"))
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read ({_undecoded(data, error)})") from error
    if "\0" in text:
        raise ConfigError(f"{path}: cannot be read (it has zero bytes, so it is no text: save it as UTF-8)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read(path: Path, most: int) -> bytes:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise OSError(0, "it is a folder: name a file")
    if not stat.S_ISREG(mode):  # reading a pipe may never end
        raise OSError(0, "it is a pipe or a device: name a regular file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"it has more than {most:,} bytes: is it the right file?")
    return data


def _undecoded(data: bytes, error: UnicodeDecodeError) -> str:
    if b"\0" in data and error.encoding == "utf-8":
        return "it has zero bytes, so it is no text: save it as UTF-8"
    line = data[: error.start].count(b"\n") + 1
    return f"byte 0x{data[error.start]:02X} in line {line} is not {error.encoding.upper()}: save it as UTF-8"


def lines_of(text: str) -> list[str]:
    """Its lines. U+2028, a form feed and the like, at which `str.splitlines` cuts too, may stand in a line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def has_control(text: str) -> bool:
    """Whether there is a control character in it, as in a path that TOML read as escapes: "C:\\temp"."""
    return any(ord(c) < 32 or ord(c) == 127 for c in text)
