"""The routes: status codes and JSON, nothing else."""

import asyncio
import hmac
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiohttp import hdrs, web

from ..errors import Refused
from ..rewards import RewardError, RewardUnavailable
from ..rewards.base import Reward
from .admission import FULL_FOR, Admission, Ticket
from .batching import Batcher, Scores
from .config import ServerSettings
from .connections import Connections, room_for
from .parsing import Query, check_head, read
from .pictures import Limits
from .stored import stored

log = logging.getLogger(__name__)
BODY_TIMEOUT = 120  # seconds in which a body has to arrive
PATIENCE, LEAST = 10, 2**16  # seconds, and bytes of its parts that come meanwhile
DECODERS = 2  # threads
T = TypeVar("T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """What the routes answer from. Made on the event loop.

    Args:
        rewards: by name.
        kinds: of these, by name.
        device: where pictures are scored.
        token: that a request to /v1 has to bear; empty for none.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        kinds: Mapping[str, str],
        settings: ServerSettings,
        *,
        device: str = "cpu",
        token: str = "",
    ):
        self.kinds = dict(kinds)
        self.settings = settings
        self.token = token
        self.limits = Limits(settings.max_images, settings.max_pixels)
        self.admission = Admission(settings.queue_requests, settings.queue_bytes)
        self.batcher = Batcher(
            rewards,
            device=device,
            batch_size=settings.batch_size,
            batch_pixels=settings.batch_pixels,
            window=settings.batch_window,
        )
        self.decoders = ThreadPoolExecutor(DECODERS, "decoding")
        most = room_for(settings.connections)
        self.connections = Connections(most, min(most, settings.client_connections))

    def app(self) -> web.Application:
        app = web.Application(
            client_max_size=self.settings.max_bytes, middlewares=[self.asking, as_json, self.authorised]
        )
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/rewards", self.rewards)
        app.router.add_post("/v1/score", self.score)
        app.cleanup_ctx.append(self.running)
        return app

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()
        self.decoders.shutdown(wait=False, cancel_futures=True)
        self.batcher.worker.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def asking(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self.connections.asking(request):
            return await handler(request)

    @web.middleware
    async def authorised(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """/health says nothing worth a token; everything else needs it. A web page has no business here."""
        if hdrs.ORIGIN in request.headers:
            raise Refused(403, "a web page asks: only programs may")
        if self.token and request.path != "/health":
            given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                raise Refused(401, "the token is missing or wrong: send Authorization: Bearer TOKEN")
        return await handler(request)

    async def health(self, _: web.Request) -> web.Response:
        stopping = self.admission.stopping
        body = {"status": "stopping" if stopping else "ok", "requests": self.admission.requests}
        return web.json_response(body, status=503 if stopping else 200)

    async def rewards(self, _: web.Request) -> web.Response:
        limits = {
            "images": self.settings.max_images,
            "pixels": self.settings.max_pixels,
            "bytes": min(self.settings.max_bytes, self.settings.queue_bytes // 2),  # so that two fit
        }
        return web.json_response({"rewards": [{"name": n, "kind": k} for n, k in self.kinds.items()], "limits": limits})

    async def score(self, request: web.Request) -> web.Response:
        check_head(request, self.settings.max_bytes)
        with self.admission.enter() as ticket:
            query = await self.arrived(read(request, list(self.kinds), self.limits.images, ticket.take), ticket)
            ticket.accept()
            self.connections.accept(request)
            pictures = await self.aside(stored, query.files, query.prompts, self.limits)
            scores = await self.batcher.score(pictures, query.prompts, query.rewards)
        return web.json_response({"scores": finite(scores)})

    async def arrived(self, reading: Coroutine[Any, Any, Query], ticket: Ticket) -> Query:
        """What is read, if it comes in time and not in drops. Raises Refused: 408 if not."""
        task, end = asyncio.ensure_future(reading), time.monotonic() + BODY_TIMEOUT
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may ask, if the client left
        try:
            while not task.done():
                before, left = ticket.bytes, end - time.monotonic()
                await asyncio.wait([task], timeout=min(PATIENCE, left))
                if not task.done() and (left <= PATIENCE or ticket.bytes < before + LEAST):
                    raise Refused(408, f"the body did not arrive within {BODY_TIMEOUT} s, or too slowly")
            return task.result()
        finally:
            task.cancel()

    async def aside(self, function: Callable[..., T], *arguments: object) -> T:
        """Off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, function, *arguments)


@web.middleware
async def as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal and failure as {"error": reason}."""
    try:
        return await handler(request)
    except Refused as refused:
        headers: dict[str, str] = {hdrs.RETRY_AFTER: str(refused.retry_after)} if refused.retry_after else {}
        if refused.status == 401:
            headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
        return error(refused.status, refused.reason, headers)
    except RewardUnavailable as unavailable:
        return error(503, str(unavailable), {hdrs.RETRY_AFTER: str(FULL_FOR)})
    except RewardError as refused:
        return error(422, str(refused))
    except web.HTTPException as exception:  # no such route, another method
        headers = {hdrs.ALLOW: exception.headers[hdrs.ALLOW]} if hdrs.ALLOW in exception.headers else {}
        return error(exception.status, exception.reason, headers)
    except Exception as exception:
        log.exception("%s %s failed", request.method, request.path)
        return error(500, f"the server failed: {type(exception).__name__}")


def error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)


def finite(scores: Scores) -> dict[str, list[float | None]]:
    """JSON has no NaN."""
    return {name: [s if math.isfinite(s) else None for s in values] for name, values in scores.items()}
