"""The text that a prompt puts in quotes, which the OCR reward looks for."""

import unicodedata
from collections.abc import Iterator

from ..errors import brief
from .errors import RewardError

# What may end a text that begins with a mark. Straight single quotes are none: they are apostrophes far more often.
DOUBLE = {
    '"': '"”',
    "“": '”"“',
    "”": '”"',
    "„": '“”"',
    "«": "»",
    "»": "«»",
    "「": "」",
    "『": "』",
    "＂": "＂",
    "\0": "\0",
}
ESCAPED = "\0"  # in place of a quote with a backslash, which closes its own kind alone
SINGLE = {"‘": "’", "‚": "‘’", "‹": "›", "›": "‹›"}
BEFORE = "([{<:;,=+-–—/|"  # signs that a text in quotes may follow without a space


def quoted(prompt: str) -> str:
    """The first part of a prompt that stands in quotes: double ones of any kind, or else typographic single ones.

    Inch marks (a 24" monitor) and apostrophes are no quotes. A quote with a backslash is one, or part of a text between
    quotes without.

    Raises:
        RewardError: there is none, or nothing is in it.
    """
    text = prompt.replace('\\"', ESCAPED)
    found = _first(text, DOUBLE) or _first(text, SINGLE)
    if found:
        return found.replace(ESCAPED, '"')
    raise RewardError(
        f"OCR reward: the prompt {brief(prompt)} has no text in double quotes to look for, as in: a sign that says "
        '"OPEN"'
    )


def plain(text: str) -> str:
    """Without spaces and upper case, which do not count."""
    return "".join(text.split()).lower()


def _first(text: str, marks: dict[str, str]) -> str:
    """The first text between `marks`, {opening: those that close it}, with more than spaces in it; empty if none is."""
    at = 0
    unclosed: set[str] = set()
    while at < len(text):
        if text[at] in marks and text[at] not in unclosed and _opens(text, at):
            end = _end(text, at, marks)
            if end < 0:
                unclosed.add(text[at])
            elif plain(text[at + 1 : end]):
                return text[at + 1 : end]
            else:
                at = end
        at += 1
    return ""


def _opens(text: str, at: int) -> bool:
    """Whether the mark at `at` may begin a text: not behind a number, and not between a word and a space."""
    before, after = text[max(at - 1, 0) : at], text[at + 1 : at + 2]
    if not after.strip():  # a space follows
        return _is_free(before) and not _is_number(text[max(at - 2, 0) : at].strip()[-1:])
    return not _is_number(before) and (_is_free(before) or not before.isalnum() or after.isalnum())


def _end(text: str, at: int, marks: dict[str, str]) -> int:
    """Where the text that begins at `at` is closed; -1 if it is not.

    A mark behind a number is one of inches if a later one closes: "24" TV SALE".
    """
    first = -1
    for n in _closers(text, at, marks):
        if not _is_number(text[n - 1]):
            return n if first < 0 or not _is_free(text[n - 1]) else first
        first = n if first < 0 else first
    return first


def _closers(text: str, at: int, marks: dict[str, str]) -> Iterator[int]:
    """The marks that may close the text that begins at `at`."""
    closing, inner = marks[text[at]], 0
    for n in range(at + 1, len(text)):
        c = text[n]
        if c in "“‘" and c not in closing:
            inner += 1  # quotes of another kind, between these
        elif c in "”’" and inner:
            inner -= 1
        elif c in closing and not (c == "’" and text[n + 1 : n + 2].isalnum()):  # an apostrophe
            yield n


def _is_free(before: str) -> bool:
    """Whether a mark behind it can only begin a text."""
    return not before or before.isspace() or before in BEFORE


def _is_number(c: str) -> bool:
    return c != "" and unicodedata.category(c) in ("Nd", "No")
