"""How far a node has come, as ComfyUI tells every page over its websocket."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from comfy_server import ComfyServer
from patience import GUARD


class Progress:
    """What was heard so far."""

    def __init__(self) -> None:
        self.listening = threading.Event()
        self.steps: dict[str, float] = {}  # done by each node

    def __call__(self, message: dict) -> None:
        if message["type"] == "progress_state":
            self.steps |= {name: node["value"] for name, node in message["data"]["nodes"].items()}

    async def hear(self, url: str) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId=progress") as socket:
            self.listening.set()
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self(json.loads(message.data))


@contextmanager
def heard(server: ComfyServer) -> Iterator[Progress]:
    """Of the graphs that run inside. It listens in a thread of its own, beside a browser's."""
    progress, loop = Progress(), asyncio.new_event_loop()
    hearing = loop.create_task(progress.hear(server.url))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([hearing])))
    thread.start()
    try:
        assert progress.listening.wait(GUARD)
        yield progress
    finally:
        loop.call_soon_threadsafe(hearing.cancel)
        thread.join()
        loop.close()
