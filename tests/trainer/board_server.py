"""The board on a thread of this process, and requests of any shape to it."""

import asyncio
import http.client
import json
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict
from patience import GUARD
from run_folders import MARKUP, Run, write

from trainer.board.routes import PREFIX, Board
from trainer.store.database import DATABASE


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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GUARD)
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
    assert begun.wait(GUARD)
    try:
        yield found["served"]
    finally:
        found["served"].loop.call_soon_threadsafe(found["stop"].set)
        thread.join(GUARD)


def bare(runs, controls=None) -> web.Application:
    """Our routes and nothing else, as ComfyUI has them."""
    app = web.Application()
    app.add_routes(Board(lambda: runs, controls).routes())
    return app


RUN = Run(iterations=12, planned=20, evaluations=(0, 10), started=1000.0, state="stopped")


class Wishes:
    """A control that remembers what it was told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda **values: self.told.append((name, values))


def several(tmp_path_factory):
    """For a fixture: a folder with three runs, newest first `run`, `markup` and `old`."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "run", RUN)
    write(folder / "markup", Run(iterations=2, prompts=(MARKUP,), info={"title": MARKUP}, started=900.0))
    write(folder / "old", Run(iterations=2, version=1, started=None))
    os.utime(folder / "old" / DATABASE, (500, 500))
    return folder


def serving(runs):
    """For a fixture: a server of these runs."""
    with running(bare(runs)) as served:
        yield served


def owned(tmp_path):
    """For a fixture: a server and its runs folder, with one run in it, to change."""
    write(tmp_path / "runs" / "run", Run(iterations=2, group_size=3))
    controls = {}
    with running(bare(tmp_path / "runs", controls)) as served:
        served.runs, served.controls = tmp_path / "runs", controls
        yield served


def refused(answer, status: int) -> str:
    """Checks that the answer is a refusal, and returns its reason."""
    assert answer.status == status, answer
    assert set(answer.json) == {"error"}
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.json["error"]
