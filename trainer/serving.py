"""What every server of the project needs: an address to listen on, and an end in good order."""

import asyncio
import errno
import ipaddress
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from .errors import UserError


class ServeError(UserError):
    """An address that cannot be listened on."""


async def listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, OverflowError) as error:
        code = (error.errno or 0) if isinstance(error, OSError) else 0
        reason = os.strerror(code).lower() if code in errno.errorcode else str(error)
        raise ServeError(f"{host}:{port} cannot be listened on ({reason}): use another --port or --host") from error


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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
