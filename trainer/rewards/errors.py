"""What goes wrong with a reward; without torch, as a config's rewards are checked before it is imported."""

from collections.abc import Callable

from ..errors import UserError, brief


class RewardError(UserError):
    """A reward that cannot be built, or pictures that it cannot score, with the reason and the remedy in one line."""


class RewardUnavailable(RewardError):
    """A reward that does not answer for now, and may again: a run waits for it. `is_back` asks whether it would.

    `times` counts how often it was back and failed again for the same pictures.
    """

    def __init__(self, reason: str, is_back: Callable[[], bool] = lambda: True):
        super().__init__(reason)
        self.is_back = is_back
        self.times = 0


def in_words(said: object, most: int = 300) -> str:
    """What a server or a library says, on one line of at most so many characters that any console and file takes."""
    text = str(said) if isinstance(said, str | Exception) else brief(said)
    words = "".join(c if c.isprintable() else " " for c in text[: 2 * most]).split()
    return " ".join(words)[:most] or type(said).__name__
