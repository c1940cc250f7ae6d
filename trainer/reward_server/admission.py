"""How much is accepted at a time: a bounded queue, in requests and in bytes, and its end."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Refused

FULL_FOR = 1  # seconds; what a client is asked to wait
STOPPING_FOR = 10


class Admission:
    """Counts whole requests that are not answered yet, and the bytes of all bodies. All of it on the event loop.

    What a request only announces counts for nothing: bytes are held as they come.
    """

    def __init__(self, max_requests: int, max_bytes: int):
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0
        self.stopping = False
        self._nothing_left = asyncio.Event()

    @contextmanager
    def enter(self) -> Iterator["Ticket"]:
        """A ticket for a request whose body is about to come, until the block ends.

        Raises:
            Refused: 503 while stopping, 429 if the queue is full.
        """
        self.check()
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            self.requests -= ticket.accepted
            self.bytes -= ticket.bytes
            self._tell()

    def check(self) -> None:
        """Raises Refused if no request is accepted now."""
        if self.stopping:
            raise Refused(503, "the server is stopping", STOPPING_FOR)
        if self.requests >= self.max_requests:
            raise Refused(429, f"the queue is full: {self.requests} requests", FULL_FOR)

    async def drained(self) -> None:
        """Accept nothing more; returns when everything accepted is answered."""
        self.stopping = True
        self._tell()
        await self._nothing_left.wait()

    def _tell(self) -> None:
        if self.stopping and not self.requests:
            self._nothing_left.set()


class Ticket:
    """What one request holds."""

    def __init__(self, admission: Admission):
        self.admission = admission
        self.accepted = False
        self.bytes = 0

    def take(self, size: int) -> None:
        """Hold so many bytes more, as they come. Raises Refused: 503 while stopping, 429 if there is no room."""
        admission = self.admission
        if admission.stopping:
            raise Refused(503, "the server is stopping", STOPPING_FOR)
        if admission.bytes + size > admission.max_bytes:
            raise Refused(429, f"the queue is full: {admission.bytes} bytes", FULL_FOR)
        self.bytes += size
        admission.bytes += size

    def accept(self) -> None:
        """The body is whole: it will be answered, also while stopping. Raises Refused as `Admission.check`."""
        self.admission.check()
        self.accepted = True
        self.admission.requests += 1
