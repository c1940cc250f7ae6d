"""What goes wrong with a reward; without torch, as a config's rewards are checked before it is imported."""

from collections.abc import Callable

from ..errors import UserError


class RewardError(UserError):
    """A reward that cannot be built, or pictures that it cannot score, with the reason and the remedy in one line."""


class RewardUnavailable(RewardError):
    """A reward that does not answer for now, and may again: a run waits for it. `is_back` asks whether it would."""

    def __init__(self, reason: str, is_back: Callable[[], bool] = lambda: True):
        super().__init__(reason)
        self.is_back = is_back
