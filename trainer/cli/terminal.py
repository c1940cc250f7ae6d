"""What a person at a terminal sees of a run, and how Ctrl-C ends it."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from ..events import Event, Finished, IterationDone, Listener, Started
from ..training.control import Control
from .libraries import log_into
from .output import note, terminal

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Ctrl-C; docker, systemd, Slurm; a terminal that closes
GRACE = 5.0  # seconds; docker kills 10 seconds after its SIGTERM


class ProgressBar:
    """A listener: iterations, trained rewards, seconds an iteration, time left, on stderr; above it what events say."""

    def __init__(self, rewards: list[str]):
        self.rewards = rewards
        self.bar: tqdm  # from the run's start

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.bar = tqdm(
                    total=event.iterations, initial=event.iteration, unit="it", dynamic_ncols=True, file=terminal.err,
                    bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
                )  # fmt: skip
            case IterationDone():
                values = {name: f"{event.metrics[f'reward/{name}']:.4f}" for name in self.rewards}
                self.bar.set_postfix({**values, "s/it": f"{event.metrics['seconds']:.2f}"}, refresh=False)
                self.bar.update()
            case Finished():
                self.bar.close()
        if sentence := str(event):
            note(f"iteration {event.iteration}: {sentence}")


def logged_in(folder: Path) -> Listener:
    """A listener: what libraries say goes into the run's folder, once that is there."""

    def listen(event: Event) -> None:
        if isinstance(event, Started):
            log_into(folder)

    return listen


class Interrupt:
    """Ctrl-C, and what systems send to end a program. The first asks the run to stop, the second stops at once.

    After Ctrl-C the iteration is finished, as a person waits; who sends a signal may kill soon, so an iteration that is
    not done within GRACE is undone. Either way everything before it is saved.
    """

    def __init__(self) -> None:
        self.control = Control()
        self.code = 0  # to exit with, as a shell reports the first signal; 0 as long as there was none

    @property
    def pressed(self) -> bool:
        return self.code != 0

    def press(self, number: int, _: object = None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.code = 128 + number
        self.control.stop(within=math.inf if number == signal.SIGINT else GRACE)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        with suppress(OSError, ValueError):  # the terminal may be gone
            print(
                f"\nfinishing this iteration, then saving ({name} again to stop at once)", file=terminal.err, flush=True
            )


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Signals that end a program end the run in good order meanwhile; one that is ignored (nohup) stays so."""
    interrupt = Interrupt()
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in numbers}
    mine = [number for number, handler in previous.items() if handler != signal.SIG_IGN]
    for number in mine:
        signal.signal(number, interrupt.press)
    try:
        yield interrupt
    finally:
        for number in mine:
            signal.signal(number, previous[number])
