"""The board on a thread of this process, and requests of any shape to it."""

import asyncio
import http.client
import json
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict

from trainer.board.routes import PREFIX, Board


@dataclass
class Answer:
    status: int
    headers: CIMultiDict
    data: bytes

    @property
    def json(self):
        return json.loads(self.data, parse_constant=lambda name: 1 / 0)  # NaN is no JSON


@dataclass
class Served:
    port: int
    loop: asyncio.AbstractEventLoop

    def request(self, method: str, path: str, body: object = None, headers: dict | None = None) -> Answer:
        """`path` behind the prefix is sent as it is; a body that is no text or bytes is sent as JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (str, bytes)):
            body, headers = json.dumps(body), {"Content-Type": "application/json"} | headers
        return self.raw(method, PREFIX + path, body, headers)

    def raw(self, method: str, path: str, body: object = None, headers: dict | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection._validate_path = lambda _: None  # whatever a client could send
        connection._encode_request = lambda line: line.encode("utf-8", "surrogateescape")
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, CIMultiDict(response.headers.items()), response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})


@contextmanager
def running(app: web.Application):
    """Serve `app` while inside."""
    begun, found = threading.Event(), {}

    async def main():
        stop = found["stop"] = asyncio.Event()
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found["served"] = Served(runner.addresses[0][1], asyncio.get_running_loop())
        begun.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert begun.wait(30)
    try:
        yield found["served"]
    finally:
        found["served"].loop.call_soon_threadsafe(found["stop"].set)
        thread.join(30)


def bare(runs, controls=None) -> web.Application:
    """Our routes and nothing else, as ComfyUI has them."""
    app = web.Application()
    app.add_routes(Board(lambda: runs, controls).routes())
    return app


def servers():
    """For a fixture: `serve(app)` -> Served, until the test ends."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(running(app))
