"""What the rollout keeps for the first update, as long as the device has room for it."""

from ..models.family import Keeper


class Keeping:
    """Whether an iteration keeps what its first update would compute again, see `Policy.keep`.

    It only spares time: a device that is full gets it back before fewer candidates are in the model at once.
    """

    def __init__(self, on: bool = False):
        self.on = on
        self.keeper: Keeper | None = None  # the iteration's

    def stop(self) -> bool:
        """Let go of what is kept, and keep nothing from here on; whether it was kept so far."""
        was, self.on = self.on, False
        if self.keeper is not None:
            self.keeper.clear()
        return was
