"""How much is accepted at a time: a bounded queue, in requests and in bytes, and its end."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Refused

FULL_FOR = 1  # seconds; what a client is asked to wait
STOPPING_FOR = 10


class Admission:
    """Counts what is accepted and not answered yet. All of it happens on the event loop."""

    def __init__(self, max_requests: int, max_bytes: int):
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0
        self.stopping = False
        self._nothing_left = asyncio.Event()

    @contextmanager
    def enter(self, size: int) -> Iterator["Ticket"]:
        """Accept a request with a body of `size` bytes until the block ends.

        Raises:
            Refused: 503 while stopping, 429 if the queue is full, 413 if it could never take so much.
        """
        if self.stopping:
            raise Refused(503, "the server is stopping", STOPPING_FOR)
        if self.requests >= self.max_requests:
            raise Refused(429, f"the queue is full: {self.requests} requests", FULL_FOR)
        ticket = Ticket(self)
        ticket.take(size)
        self.requests += 1
        try:
            yield ticket
        finally:
            self.requests -= 1
            self.bytes -= ticket.bytes
            self._tell()

    async def drained(self) -> None:
        """Accept nothing more; returns when everything accepted is answered."""
        self.stopping = True
        self._tell()
        await self._nothing_left.wait()

    def _tell(self) -> None:
        if self.stopping and not self.requests:
            self._nothing_left.set()


class Ticket:
    """The bytes that one request holds."""

    def __init__(self, admission: Admission):
        self.admission = admission
        self.bytes = 0

    def take(self, size: int) -> None:
        """Hold more. Raises Refused as `Admission.enter` does."""
        admission = self.admission
        if self.bytes + size > admission.max_bytes:
            raise Refused(413, f"{self.bytes + size} bytes with the decoded images: at most {admission.max_bytes}")
        if admission.bytes + size > admission.max_bytes:
            raise Refused(429, f"the queue is full: {admission.bytes} bytes", FULL_FOR)
        self.bytes += size
        admission.bytes += size
