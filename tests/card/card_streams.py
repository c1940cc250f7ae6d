"""Streams and events of the card made of the CPU: what has happened before what, and what nobody waited for.

The computing stream does its work at once. A copy on another stream is done only when somebody waits for it; until then
its destination is NaN. Beside that, each stream has a clock and knows up to where it has waited for the others (vector
clocks), so that two uses of the same memory without a wait between them are a Race, every time and at once.
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from card_errors import fail


class Race(RuntimeError):
    """Memory is used by two streams, and nothing says which of them is first."""


races: list[str] = []  # those that were seen


def refuse(what: str) -> None:
    """A race was seen; if not strict, the run goes on with whatever numbers there are, as on a real card."""
    races.append(what)
    if Streams.strict:
        fail(Race(what))


class Stream:
    """As torch.cuda.Stream."""

    alive: ClassVar["weakref.WeakSet[Stream]"] = weakref.WeakSet()

    def __init__(self, device=None, priority: int = 0):
        Stream.alive.add(self)
        self.device = device
        self.now = 0  # operations so far
        self.seen: dict[Stream, int] = {}  # of other streams: what this one has waited for
        self._work: deque[tuple[int, Callable[[], None]]] = deque()
        self._lock = threading.RLock()  # a thread may wait for what another has begun

    def tick(self) -> None:
        """Begin another operation."""
        self.now += 1

    def defer(self, work: Callable[[], None]) -> None:
        """Do `work`, the operation that was begun last, when somebody waits for it."""
        self._work.append((self.now, work))

    def flush(self, until: int | None = None) -> None:
        with self._lock:
            while self._work and (until is None or self._work[0][0] <= until):
                self._work.popleft()[1]()

    @property
    def idle(self) -> bool:
        return not self._work

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        if event.stream is not None:
            event.stream.flush(event.now)
            merge(self.seen, event.clock)

    def wait_stream(self, stream: "Stream") -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        """The host waits for all of it."""
        self.record_event().synchronize()

    def query(self) -> bool:
        return self.idle


class Event:
    """As torch.cuda.Event."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        self.stream: Stream | None = None
        self.now, self.clock, self.seconds = 0, {}, 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or streams.current
        self.now, self.seconds = self.stream.now, time.perf_counter()
        self.clock = {**self.stream.seen, **streams.host, self.stream: self.now}

    def wait(self, stream: Stream | None = None) -> None:
        (stream or streams.current).wait_event(self)

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.flush(self.now)
            merge(streams.host, self.clock)

    def query(self) -> bool:
        return self.stream is None or self.stream.idle

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds."""
        return 1000 * (end.seconds - self.seconds)


class Streams(threading.local):
    """The current stream, each thread's own, and what the host has waited for."""

    host: ClassVar[dict[Stream, int]] = {}  # of all threads
    strict: ClassVar[bool] = True  # whether a race is an error

    def __init__(self):
        self.stack = [COMPUTING]
        # backward passes stay in this thread, as their waits and errors do
        torch.autograd.set_multithreading_enabled(False)

    @property
    def current(self) -> Stream:
        return self.stack[-1]

    @contextmanager
    def use(self, stream: Stream | None) -> Iterator[None]:
        self.stack.append(stream or self.current)
        try:
            yield
        finally:
            self.stack.pop()


def merge(clock: dict[Stream, int], other: dict[Stream, int]) -> None:
    for stream, moment in other.items():
        if moment > clock.get(stream, 0):
            clock[stream] = moment


def seen(by: Stream, stream: Stream, moment: int) -> bool:
    """Whether that moment of `stream` is past for the next operation of `by`."""
    return stream is by or max(by.seen.get(stream, 0), streams.host.get(stream, 0)) >= moment


COMPUTING = Stream()
streams = Streams()
