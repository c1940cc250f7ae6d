"""Live messages to browsers, over websockets."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from ..errors import Refused

PENDING = 64  # messages that wait for one client
CLIENTS = 64
HEARTBEAT = 20  # seconds; a client that does not answer is let go


class Hub:
    """Who listens. Whoever is too slow loses the oldest messages, and asks for what they told."""

    def __init__(self) -> None:
        self.queues: set[asyncio.Queue[dict[str, Any]]] = set()

    def publish(self, message: dict[str, Any]) -> None:
        for queue in self.queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)

    @contextmanager
    def subscribed(self) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(PENDING)
        self.queues.add(queue)
        try:
            yield queue
        finally:
            self.queues.discard(queue)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One client, until it leaves.

        Raises:
            Refused: 426, it speaks no websocket; 503, there are too many.
        """
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=1024)
        if not socket.can_prepare(request):
            raise Refused(426, "this is a websocket")
        if len(self.queues) >= CLIENTS:
            raise Refused(503, f"{CLIENTS} clients listen already", retry_after=HEARTBEAT)
        with self.subscribed() as queue:
            await socket.prepare(request)
            sending = asyncio.create_task(send(socket, queue))
            try:
                async for _ in socket:  # ends when the client leaves; it has nothing to say
                    pass
            finally:
                sending.cancel()
        return socket


async def send(socket: web.WebSocketResponse, queue: "asyncio.Queue[dict[str, Any]]") -> None:
    try:
        while True:
            await socket.send_json(await queue.get())
    except ConnectionError:  # gone; who reads from the socket notices as well
        pass
