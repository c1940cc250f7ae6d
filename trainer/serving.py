"""What every server of the project needs: an address to listen on, and an end in good order."""

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from .errors import UserError


class ServeError(UserError):
    """An address that cannot be listened on."""


async def listen(runner: web.AppRunner, host: str, port: int, site: web.BaseSite | None = None) -> None:
    """By `site`, if it is another than aiohttp's own."""
    try:
        await (site or web.TCPSite(runner, host, port)).start()
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


class Sparing(logging.Filter):
    """Lets `most` records of a logger pass in `period` seconds, so that nobody fills a disk from outside."""

    def __init__(self, most: int = 5, period: float = 60.0):
        super().__init__()
        self.most, self.period = most, period
        self.began, self.seen = time.monotonic(), 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self.began > self.period:
            if self.seen > self.most:
                record.msg, record.args = f"{record.getMessage()} (and {self.seen - self.most} more before)", ()
            self.began, self.seen = now, 0
        self.seen += 1
        return self.seen <= self.most


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
