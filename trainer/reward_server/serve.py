"""The server's life: listen, stop in good order."""

import asyncio
import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from ..errors import UserError
from .app import Service


class ServeError(UserError):
    """An address that cannot be listened on."""


async def serve(make: Callable[[], Service], host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish what was accepted and refuse the rest.

    Args:
        make: called on the event loop.
        port: 0 takes a free one.
        ready: told the address, once it answers.

    Raises:
        ServeError: the address cannot be listened on.
        KeyboardInterrupt: at a second signal, at once.
    """
    service = make()
    runner = make_runner(service)
    await runner.setup()
    try:
        await listen(runner, host, port)
        with stop_signal() as stop:
            ready(address(*runner.addresses[0][:2]))
            await stop.wait()
            await service.admission.drained()
    finally:
        await runner.cleanup()


async def listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno).lower() if getattr(error, "errno", 0) in errno.errorcode else str(error)
        raise ServeError(f"{host}:{port} cannot be listened on ({reason}): use another --port or --host") from error


def make_runner(service: Service) -> web.AppRunner:
    protocol = logging.getLogger(f"{__name__}.protocol")
    protocol.setLevel(logging.CRITICAL)  # what is no HTTP is answered with 400; a stack trace of each helps nobody
    return web.AppRunner(
        service.app(),
        handler_cancellation=True,  # a request whose client went away is dropped, and not scored for nobody
        auto_decompress=False,  # such a body is refused; it must not grow in memory before
        access_log=None,
        logger=protocol,
    )


@contextmanager
def stop_signal() -> Iterator[asyncio.Event]:
    """Set by the first SIGTERM or SIGINT."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
