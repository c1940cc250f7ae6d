"""What a person at a terminal sees of a run, and how Ctrl-C ends it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from ..events import Event, Finished, IterationDone, Listener, Started
from ..training.control import Control
from .libraries import log_into
from .output import note, terminal

INTERRUPTED = 130  # exit code, as a shell reports SIGINT


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
    """Ctrl-C. The first asks the run to stop after its iteration, the second stops at once."""

    def __init__(self) -> None:
        self.control = Control()
        self.pressed = False

    def press(self, *_: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        self.control.stop()
        print("\nfinishing this iteration, then saving (Ctrl-C again to stop at once)", file=terminal.err, flush=True)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    interrupt = Interrupt()
    previous = signal.signal(signal.SIGINT, interrupt.press)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
