"""What a person may wish of a run under way: a pause, its end, a checkpoint, another learning rate or strength."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from ..events import CONCLUDED, STOPPED, Change, Ending
from ..settings.config import Config, GrpoSettings, OptimizerSettings
from ..settings.described import require


class Control:
    """Wishes for one run, made in any thread and obeyed between its iterations (see `loop.train`)."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._paused = self._save = False
        self._ending: Ending | None = None
        self._deadline = math.inf  # of a stop, time.monotonic()
        self._learning_rate: float | None = None
        self._strength: float | None = None

    def pause(self) -> None:
        """Save after the iteration under way, then wait for `resume` or `stop`."""
        with self._news:
            self._paused = True

    def resume(self) -> None:
        with self._news:
            self._paused = False
            self._news.notify_all()

    def stop(self, reason: str = "", *, within: float = math.inf) -> None:
        """Save after the iteration under way, and end the run; a pause ends as well. The first wish counts.

        Without a reason somebody wants it, and may go on some day; with one the run is over. An iteration that is not
        done `within` so many seconds is undone at the next model call.
        """
        with self._news:
            self._deadline = min(self._deadline, time.monotonic() + within)
            self._ending = self._ending or (Ending(CONCLUDED, reason) if reason else Ending(STOPPED))
            self._news.notify_all()

    def save(self) -> None:
        """Write a checkpoint and the LoRA after the iteration under way."""
        with self._news:
            self._save = True
            self._news.notify_all()

    def change(self, learning_rate: float | None = None, strength: float | None = None) -> None:
        """Other values from the next iteration on; None leaves one as it is.

        Raises:
            ConfigError: a value that the settings would not take either.
        """
        wished = {"learning_rate": learning_rate, "strength": strength}
        require(any(v is not None for v in wished.values()), "change", wished, "needs a learning rate or a strength")
        for name, value in wished.items():
            require(value is None or math.isfinite(value), name, value, "must be a finite number")
        if learning_rate is not None:
            OptimizerSettings(learning_rate=learning_rate)  # checks
        if strength is not None:
            GrpoSettings(strength=strength)
        with self._news:
            self._learning_rate = self._learning_rate if learning_rate is None else float(learning_rate)
            self._strength = self._strength if strength is None else float(strength)

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def ending(self) -> Ending | None:
        """How the run is to end; None as long as nobody wants it to."""
        return self._ending

    @property
    def overdue(self) -> bool:
        """Whether the time for a stop is over, and the iteration under way is to be left."""
        return time.monotonic() >= self._deadline

    def wait(self, seconds: float) -> None:
        """Until there is something to do other than to pause, or for so long."""
        with self._news:
            self._news.wait_for(lambda: not self._paused or self.ending or self._save, seconds)

    def take_save(self) -> bool:
        """Whether a checkpoint was wished for since the last call."""
        with self._news:
            wished, self._save = self._save, False
            return wished

    def take_change(self, iteration: int) -> Change | None:
        """What was to change since the last call, from `iteration` on."""
        with self._news:
            values = self._learning_rate, self._strength
            self._learning_rate = self._strength = None
        return None if values == (None, None) else Change(iteration, *values)


def with_change(changes: Sequence[Change], change: Change) -> list[Change]:
    """`changes` with another one: it adds to one of the same iteration, and later ones, of a first time, are void."""
    earlier = [c for c in changes if c.iteration < change.iteration]
    now = change_at(changes, change.iteration) or change
    return [*earlier, replace(now, **change.to_dict())]


def change_at(changes: Sequence[Change], iteration: int) -> Change | None:
    """The change that begins with this iteration, if any."""
    return next((c for c in changes if c.iteration == iteration), None)


def in_force(config: Config, changes: Sequence[Change], iteration: int) -> Config:
    """The settings of one iteration: those of the run, with what was changed until then."""
    for change in changes:
        if change.iteration <= iteration and change.learning_rate is not None:
            config = replace(config, optimizer=replace(config.optimizer, learning_rate=change.learning_rate))
        if change.iteration <= iteration and change.strength is not None:
            config = replace(config, grpo=replace(config.grpo, strength=change.strength))
    return config
