"""What a person at a terminal sees of a run, and how Ctrl-C ends it."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ..events import Event, Finished, IterationDone, Resumed, Skipped, Started, Waiting

INTERRUPTED = 130  # exit code, as a shell reports SIGINT


class ProgressBar:
    """A listener: iterations, trained rewards, seconds an iteration, time left, on stderr."""

    def __init__(self, rewards: list[str]):
        self.rewards = rewards
        self.bar: tqdm | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.bar = tqdm(
                    total=event.iterations, initial=event.iteration, unit="it", dynamic_ncols=True, file=sys.stderr,
                    bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
                )  # fmt: skip
            case IterationDone():
                values = {name: f"{event.metrics[f'reward/{name}']:.4f}" for name in self.rewards}
                self.bar.set_postfix({**values, "s/it": f"{event.metrics['seconds']:.2f}"}, refresh=False)
                self.bar.update()
            case Skipped():
                self.bar.write(f"iteration {event.iteration}: update skipped, {event.reason}", file=sys.stderr)
            case Waiting():
                self.bar.write(f"iteration {event.iteration}: saved, and waiting: {event.reason}", file=sys.stderr)
            case Resumed():
                self.bar.write(f"iteration {event.iteration}: went on after {event.seconds:.0f} s", file=sys.stderr)
            case Finished():
                self.bar.close()


class Interrupt:
    """Whether Ctrl-C was pressed. The first asks the run to stop after its iteration, the second stops at once."""

    def __init__(self) -> None:
        self.pressed = False

    def __bool__(self) -> bool:
        return self.pressed

    def press(self, *_: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        print("\nfinishing this iteration, then saving (Ctrl-C again to stop at once)", file=sys.stderr, flush=True)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    interrupt = Interrupt()
    previous = signal.signal(signal.SIGINT, interrupt.press)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


def quiet_libraries() -> None:
    """No progress bars for models that load in a moment: the run's own bar is the one to look at."""
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    quiet_transformers()


def quiet_transformers() -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()


def say(text: str, *, quiet: bool = False) -> None:
    if not quiet:
        print(text, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
