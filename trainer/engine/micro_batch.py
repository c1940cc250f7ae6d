"""How many candidates go through a model at once, and what happens when they are too many."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..device import Device, is_out_of_memory, release
from ..errors import UserError

T = TypeVar("T")


class OutOfMemory(UserError):
    """A phase needs more memory than the device has, one candidate at a time."""


class MicroBatch:
    """The number of candidates in a model at once. A phase that runs out of memory is done again with half as many.

    What can be done without goes before that, if `let_go` lets go of anything.
    The number stays halved for the phases and iterations that follow. Half as many give the same numbers, up to the
    rounding of another matrix shape: losses and gradients are sums over candidates.
    """

    def __init__(self, size: int, device: Device = "cpu"):
        self.size = size
        self.device = device
        self.on_halved: Callable[[str, int], None] = lambda phase, size: None  # told of the phase and the new size
        self.let_go: Callable[[str], bool] = lambda phase: False  # whether there is more room now, without being halved

    def fit(self, phase: str, work: Callable[[int], T]) -> T:
        """`work(size)`, with half the size as often as needed. `work` must be able to begin anew.

        Raises:
            OutOfMemory: the device is full with one candidate.
        """
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                full = OutOfMemory(f"out of memory in {phase} with a single candidate ({_short(error)})")
            # here the exception is gone, and with it the frames that held what was computed so far
            if self.let_go(phase):
                release(self.device)
                continue
            if self.size == 1:
                raise full
            release(self.device)
            self.size = -(-self.size // 2)
            self.on_halved(phase, self.size)


@contextmanager
def answered(where: str) -> Iterator[None]:
    """Inside, memory that runs out beside the phases of a micro-batch ends as theirs does.

    Raises:
        OutOfMemory: the device is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory {where} ({_short(error)})") from None


def _short(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". GPU")[0]
