"""Who is connected: a bounded number, and none for long without a request."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import StreamReader, web

IDLE = 10.0  # seconds until a request's head is whole, or the answer before is taken
HEAD_BYTES = 2**20  # that may come meanwhile; aiohttp's own limits are on lines and their number
KEPT_FILES = 64  # that a process needs for other things than connections
BACKLOG = 64  # connections that wait to be taken
BUSY = json.dumps({"error": "too many connections: each is at work"}).encode()
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BUSY), BUSY)
)


class Connections:
    """All there are: at most `most`, and `most_of_client` of one address.

    If they are as many, a new one takes the place of the one that is longest without a whole request.
    """

    def __init__(self, most: int, most_of_client: int):
        self.most, self.most_of_client = most, most_of_client
        self.idle: dict[Connection, None] = {}  # in the order in which they became so
        self.busy: set[Connection] = set()
        self.clients: Counter[str] = Counter()

    def enter(self, connection: "Connection") -> bool:
        """Whether there is room, made if need be."""
        client = connection.client
        if self.clients[client] >= self.most_of_client:
            given_up = next((c for c in self.idle if c.client == client), None)
        elif len(self.idle) + len(self.busy) >= self.most:
            given_up = next(iter(self.idle), None)
        else:
            given_up = connection
        if given_up is None:
            return False
        if given_up is not connection:
            given_up.hang_up()
        self.idle[connection] = None
        self.clients[client] += 1
        return True

    def leave(self, connection: "Connection") -> None:
        if connection in self.busy or connection in self.idle:
            self.busy.discard(connection)
            self.idle.pop(connection, None)
            self.clients[connection.client] -= 1
            if not self.clients[connection.client]:
                del self.clients[connection.client]

    @contextmanager
    def asking(self, request: web.Request) -> Iterator[None]:
        """It is read and answered inside: nobody waits for a head. Until `accept` its connection may have to go."""
        connection: object = request.protocol
        if not isinstance(connection, Connection) or connection not in self.idle:
            yield
            return
        connection.rest()
        self.idle[connection] = self.idle.pop(connection)  # behind those that have asked for nothing yet
        try:
            yield
        finally:
            if connection in self.busy or connection in self.idle:
                self.busy.discard(connection)
                self.idle.pop(connection, None)
                self.idle[connection] = None
                connection.body = request.content
                connection.watch()

    def accept(self, request: web.Request) -> None:
        """It is whole: its connection stays until it is answered."""
        connection: object = request.protocol
        if isinstance(connection, Connection) and connection in self.idle:
            del self.idle[connection]
            self.busy.add(connection)


class Connection(web.RequestHandler):
    """One connection. It is closed if it is idle for too long, or sends a head without an end."""

    def __init__(self, manager: web.Server, connections: Connections, loop: asyncio.AbstractEventLoop, **options: Any):
        super().__init__(manager, loop=loop, keepalive_timeout=IDLE, **options)
        self.connections, self.loop = connections, loop
        self.client = ""
        self.came = 0  # bytes, since it is idle
        self.body: StreamReader | None = None  # of the request before: the rest of a refused one is read and let go
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.client = str((transport.get_extra_info("peername") or ("",))[0])
        if self.connections.enter(self):
            super().connection_made(transport)
            self.watch()
        elif isinstance(transport, asyncio.Transport):
            transport.write(REFUSAL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self.came > HEAD_BYTES:
            self.hang_up()
            return
        if self.timer and (self.body is None or self.body.is_eof()):
            self.came += len(data)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.rest()
        self.connections.leave(self)
        super().connection_lost(exc)

    def watch(self) -> None:
        """It is idle from now on."""
        self.came = 0
        self.timer = self.loop.call_later(IDLE, self.hang_up)

    def rest(self) -> None:
        """It is not, for now."""
        if self.timer:
            self.timer.cancel()
        self.timer, self.came = None, 0

    def hang_up(self) -> None:
        self.rest()
        self.connections.leave(self)
        transport = self.transport
        self.force_close()
        if transport and transport.get_write_buffer_size():  # an answer that nobody takes
            transport.abort()


class Site(web.BaseSite):
    """Listens, as aiohttp's TCPSite, with connections of ours."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, connections: Connections, **options: Any):
        super().__init__(runner)
        self.host, self.port, self.connections, self.options = host, port, connections, options

    @property
    def name(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Raises OSError if the address cannot be listened on."""
        await super().start()
        loop, server = asyncio.get_running_loop(), self._runner.server
        assert server is not None, "the runner is set up"

        def connection() -> Connection:
            return Connection(server, self.connections, loop, **self.options)

        self._server = await loop.create_server(connection, self.host, self.port, backlog=BACKLOG)


def room_for(wished: int) -> int:
    """So many connections, or half of the files that this process may open: others are opened and closed meanwhile."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wished
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wished if files == resource.RLIM_INFINITY else max(1, min(wished, (files - KEPT_FILES) // 2))
