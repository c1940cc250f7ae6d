"""The server's life: listen, stop in good order."""

import logging
from collections.abc import Callable

from aiohttp import web

from ..serving import Sparing, address, listen, stop_signal
from . import app, batching
from .app import Service
from .connections import Site

LOUD = (app.__name__, batching.__name__, "asyncio")  # loggers that a stranger's requests may make write
LINE = 4096  # bytes of a request's line or header
LINGERING = 5  # seconds in which the rest of a refused body is read, so that its client reads the answer
SHUTDOWN = 5.0  # seconds for bodies that are under way when the server ends


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
    for name in LOUD:
        logging.getLogger(name).addFilter(Sparing())
    service = make()
    runner = make_runner(service)
    await runner.setup()
    try:
        await listen(runner, host, port, make_site(service, runner, host, port))
        with stop_signal() as stop:
            ready(address(*runner.addresses[0][:2]))
            await stop.wait()
            await service.admission.drained()
    finally:
        await runner.cleanup()


def make_runner(service: Service) -> web.AppRunner:
    # a request whose client went away is dropped, and not scored for nobody
    return web.AppRunner(service.app(), handler_cancellation=True, shutdown_timeout=SHUTDOWN)


def make_site(service: Service, runner: web.AppRunner, host: str, port: int) -> Site:
    protocol = logging.getLogger(f"{__name__}.protocol")
    protocol.setLevel(logging.CRITICAL)  # what is no HTTP is answered with 400; a stack trace of each helps nobody
    return Site(
        runner,
        host,
        port,
        service.connections,
        auto_decompress=False,  # such a body is refused; it must not grow in memory before
        max_line_size=LINE,
        max_field_size=LINE,
        lingering_time=LINGERING,
        access_log=None,
        logger=protocol,
    )
