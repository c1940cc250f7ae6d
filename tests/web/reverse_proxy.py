"""A reverse proxy that puts a server under a path, as nginx and the like do."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aiohttp
from aiohttp import web
from patience import GUARD

HOP = {"connection", "transfer-encoding", "content-length", "upgrade", "keep-alive"}


@contextmanager
def below(target: str, path: str, host: str | None = None) -> Iterator[str]:
    """The address of `target` behind a proxy that serves it below `path`, and nothing else.

    Args:
        path: with a slash at both ends.
        host: what it tells the server as Host; None passes on what the browser says.
    """
    begun, found = threading.Event(), {}

    async def main() -> None:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            app = web.Application(client_max_size=2**30)

            async def answer(request: web.Request) -> web.StreamResponse:
                return await forwarded(request, session, target, host)

            app.router.add_route("*", path + "{tail:.*}", answer)
            runner = web.AppRunner(app, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
            found["address"] = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
            begun.set()
            await found["stop"].wait()
            await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert begun.wait(GUARD)
    try:
        yield found["address"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(GUARD)


async def forwarded(request: web.Request, session: aiohttp.ClientSession, target: str, host: str | None):
    tail = request.raw_path.partition("/")[2].partition("/")[2]  # without the first part of the path
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
    if host is not None:
        headers["Host"] = host
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await tunnelled(request, session, f"{target}/{tail}", headers)
    data = await request.read()
    async with session.request(
        request.method, f"{target}/{tail}", headers=headers, data=data or None, allow_redirects=False
    ) as answer:
        kept = [
            (name, value) for name, value in answer.headers.items() if name.lower() not in HOP - {"content-encoding"}
        ]
        return web.Response(body=await answer.read(), status=answer.status, headers=kept)


async def tunnelled(request: web.Request, session: aiohttp.ClientSession, url: str, headers: dict[str, str]):
    ours = web.WebSocketResponse(max_msg_size=0)
    await ours.prepare(request)
    own = {name: value for name, value in headers.items() if not name.lower().startswith("sec-websocket")}
    async with session.ws_connect(url, headers=own, max_msg_size=0) as theirs:

        async def pass_on(source, sink) -> None:
            with suppress(ConnectionError):
                async for message in source:
                    send = sink.send_bytes if message.type == aiohttp.WSMsgType.BINARY else sink.send_str
                    await send(message.data)
                await sink.close()

        await asyncio.gather(pass_on(ours, theirs), pass_on(theirs, ours))
    return ours
