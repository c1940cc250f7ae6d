"""The text that a prompt puts in quotes, which the OCR reward looks for."""

import re

from .errors import RewardError

# Single quotes do not count: they are apostrophes far more often ("the dog's bowl, the cat's bed").
QUOTED = re.compile(r'["“”„«»「]([^"“”„«»「」]*)["“”«»」]')


def quoted(prompt: str) -> str:
    """The first part of a prompt that stands in double quotes of any kind.

    Raises:
        RewardError: there is none, or nothing is in it.
    """
    found = QUOTED.search(prompt)
    if not found or not plain(found[1]):
        shown = prompt if len(prompt) <= 80 else prompt[:80] + "…"
        raise RewardError(
            f'OCR reward: the prompt {shown!r} has no text in double quotes to look for, as in: a sign that says "OPEN"'
        )
    return found[1]


def plain(text: str) -> str:
    """Without spaces and upper case, which do not count."""
    return "".join(text.split()).lower()
