"""The server's life: listen, stop in good order."""

import logging
from collections.abc import Callable

from aiohttp import web

from ..serving import address, listen, stop_signal
from .app import Service


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
