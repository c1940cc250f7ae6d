"""A control whose wish to stop is a question, asked anew each time."""

from trainer.events import STOPPED, Ending
from trainer.training.control import Control


class Asked(Control):
    def __init__(self, stops):
        super().__init__()
        self.stops = stops

    @property
    def ending(self):
        return Ending(STOPPED) if self.stops() else None
