"""The panel outside ComfyUI: the same routes, the panel's files, live messages; for this machine's browsers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from ..errors import UserError
from ..serving import address, listen, stop_signal
from .answers import CLOSED, Handler, answered
from .events import Hub
from .origins import check, own_names
from .routes import PREFIX, Board
from .watch import Watcher

WEB = Path(__file__).parents[2] / "web"
PAGE = "board.html"
FILES = ("panel", "lib")  # folders of WEB
HUB = web.AppKey("hub", Hub)
POLICY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    **CLOSED,
}


def make_app(runs: Callable[[], Path], host: str = "127.0.0.1", files: Path = WEB) -> web.Application:
    """The app for `host`, the address it will listen on."""
    app = web.Application(middlewares=[guarded(host)])
    hub, board = Hub(), Board(runs)
    app[HUB] = hub
    app.router.add_get(f"{PREFIX}/events", answered(hub.serve))
    app.add_routes(board.routes())
    app.router.add_get("/", answered(page(files / PAGE)))
    for folder in FILES:
        if (files / folder).is_dir():
            app.router.add_static(f"/{folder}", files / folder)

    async def watching(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(Watcher(runs).run(hub))
        yield
        task.cancel()
        board.readers.shutdown(wait=False)  # their threads would live as long as the process

    app.cleanup_ctx.append(watching)
    return app


def page(path: Path) -> Handler:
    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    return answer


def guarded(host: str) -> Middleware:
    """Only pages of this server are answered: no other name that leads here, and no other page's scripts."""
    names = own_names(host.strip("[]").lower())

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        @answered
        async def checked(request: web.Request) -> web.StreamResponse:
            check(request, names)
            return await handler(request)

        response = await checked(request)
        if not response.prepared:
            for name, value in POLICY.items():
                response.headers.setdefault(name, value)
        return response

    return guard


async def serve(runs: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until SIGTERM or SIGINT.

    Args:
        port: 0 takes a free one.
        ready: told the address, once it answers.

    Raises:
        UserError: there is no such folder, or this installation has no panel.
        ServeError: the address cannot be listened on.
    """
    if not runs.is_dir():
        raise UserError(f"{runs} is no folder: name the one that the runs' folders lie in")
    if not (WEB / PAGE).is_file():
        raise UserError(f"{WEB / PAGE} is missing: start the board in a checkout of the project")
    protocol = logging.getLogger(f"{__name__}.protocol")
    protocol.setLevel(logging.CRITICAL)  # what is no HTTP is answered with 400; a stack trace of each helps nobody
    runner = web.AppRunner(make_app(lambda: runs, host), access_log=None, logger=protocol, shutdown_timeout=1)
    await runner.setup()
    try:
        await listen(runner, host, port)
        with stop_signal() as stop:
            ready(address(*runner.addresses[0][:2]))
            await stop.wait()
    finally:
        await runner.cleanup()
