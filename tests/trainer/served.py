"""Reward servers for tests: on a thread of this process, and in a process of their own; and requests to them."""

import asyncio
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from patience import GUARD
from PIL import Image

from trainer.reward_server.app import Service
from trainer.reward_server.config import ServerSettings
from trainer.reward_server.serve import make_runner, make_site

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass
class Answer:
    status: int
    headers: dict
    data: bytes

    @property
    def json(self):
        return json.loads(self.data)


@dataclass
class Served:
    """A running server, and requests of any shape to it."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop

    def request(self, method, path, body=b"", **headers) -> Answer:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=GUARD)
        try:
            connection.request(method, path, body, headers={k.replace("_", "-"): str(v) for k, v in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def score(self, *parts, **headers) -> Answer:
        """Parts as (name, content type, bytes); the request's dict may stand for its part."""
        body, content_type = multipart(*parts)
        return self.request("POST", "/v1/score", body, **{"Content_Type": content_type, **headers})

    def drain(self):
        """Begin to stop, as SIGTERM does; a future of the end."""
        return asyncio.run_coroutine_threadsafe(self.service.admission.drained(), self.loop)


def multipart(*parts) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    body = b""
    for part in parts:
        name, kind, data = part if isinstance(part, tuple) else ("request", "application/json", json.dumps(part))
        data = data.encode() if isinstance(data, str) else data
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}\r\n\r\n'.encode()
        )
        body += data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def image_file(pixels, kind="PNG", **options) -> bytes:
    """[3, H, W] uint8 -> a lossless file."""
    buffer = io.BytesIO()
    lossless = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, kind, **lossless, **options)
    return buffer.getvalue()


@contextmanager
def running(rewards, token="", port=0, **settings):
    """Serve `rewards` while inside."""
    begun, stop, found = threading.Event(), asyncio.Event(), {}

    async def main():
        service = Service(rewards, dict.fromkeys(rewards, "test"), ServerSettings(**settings), token=token)
        runner = make_runner(service)
        await runner.setup()
        await make_site(service, runner, "127.0.0.1", port).start()
        host, bound = runner.addresses[0]
        found["served"] = Served(f"http://{host}:{bound}", service, asyncio.get_running_loop())
        begun.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert begun.wait(GUARD)
    try:
        yield found["served"]
    finally:
        found["served"].loop.call_soon_threadsafe(stop.set)
        thread.join(GUARD)


def servers():
    """For a fixture: `serve(rewards, **options)` -> Served, until the test ends."""
    with ExitStack() as stack:
        yield lambda rewards, **options: stack.enter_context(running(rewards, **options))


class ServerProcess:
    """`python -m trainer reward-server` on a port that stays the same from one start to the next."""

    def __init__(self, config: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config, self.url, self.process = config, f"http://127.0.0.1:{self.port}", None

    def start(self, **pipes) -> "ServerProcess":
        line = ["reward-server", "--config", str(self.config), "--port", str(self.port), "--json"]
        command, pipes = [sys.executable, "-m", "trainer", *line], {"stdout": subprocess.PIPE, **pipes}
        self.process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, text=True, **pipes)
        return self

    def ready(self) -> dict:
        """What it prints when it answers."""
        told = ""
        while not told.endswith("\n}\n"):
            line = self.process.stdout.readline()
            assert line, "the server ended"
            told += line
        return json.loads(told)

    def health(self) -> dict:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GUARD)
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def stop(self) -> int:
        """In good order; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GUARD)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
