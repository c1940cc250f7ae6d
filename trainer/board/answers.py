"""From requests to values, and from failures to status codes; every answer is JSON."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import wraps
from typing import Any

from aiohttp import hdrs, web

from ..errors import Refused, UserError
from ..history import NoRun, StoreError
from ..history.housekeeping import NotMoved
from ..lock import Busy

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AGAIN = 1  # seconds after which a locked store is worth another try
BODY = 64 * 1024  # bytes of a request
BODY_TIMEOUT = 10  # seconds in which a body has to arrive
SHOWN = 60  # characters of a wrong value that its refusal repeats
# no page of another origin may show or frame an answer, and no browser may take it for a script or a page
CLOSED = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
LARGEST = 10**9  # of an iteration, and of other numbers


def answered(handler: Handler) -> Handler:
    """The handler with its failures as `{"error": reason}`; nothing is kept by a browser unless the handler says so."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse | None
        try:
            response = await handler(request)
        except ConnectionError:  # the client went away in the middle of an answer
            raise
        except Exception as failure:
            response = refusal(failure)
            if response is None:
                log.exception("%s %s failed", request.method, request.path)
                response = error(500, f"the server failed: {type(failure).__name__}")
        if not response.prepared:
            # set here, as ComfyUI lets browsers keep whatever has a path like a picture's
            for name, value in {hdrs.CACHE_CONTROL: "no-cache", **CLOSED}.items():
                response.headers.setdefault(name, value)
        return response

    return answer


def refusal(failure: Exception) -> web.Response | None:
    """What a failure that is meant for the client tells it; None for any other."""
    match failure:
        case Refused():
            headers: dict[str, str] = {hdrs.RETRY_AFTER: str(failure.retry_after)} if failure.retry_after else {}
            return error(failure.status, failure.reason, headers)
        case NoRun():
            return error(404, f"there is no run {short(failure.args[0])}")
        case StoreError(later=True):
            return error(503, str(failure), {hdrs.RETRY_AFTER: str(AGAIN)})
        case StoreError():
            return error(422, str(failure))
        case Busy() | NotMoved():
            return error(409, str(failure))
        case UserError():
            return error(400, str(failure))
        case web.HTTPException():  # by aiohttp: no such file, another method
            headers = {hdrs.ALLOW: failure.headers[hdrs.ALLOW]} if hdrs.ALLOW in failure.headers else {}
            return error(failure.status, failure.reason, headers)
    return None


def error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)


def encoded(value: object) -> bytes:
    """A large answer, encoded off the event loop."""
    return json.dumps(value, separators=(",", ":")).encode()


def number(request: web.Request, name: str, default: int, low: int, high: int = LARGEST) -> int:
    """A whole number of the query.

    Raises:
        Refused: 400, it is none, or out of range.
    """
    text = request.query.get(name)
    if not text:
        return default
    if not re.fullmatch("-?[0-9]{1,18}", text) or not low <= int(text) <= high:
        raise Refused(400, f"{name} = {short(text)}: must be a whole number from {low} to {high}")
    return int(text)


def place(request: web.Request, name: str) -> int:
    """A whole number of the path.

    Raises:
        Refused: 404, it is none.
    """
    text = request.match_info[name]
    if not re.fullmatch("[0-9]{1,9}", text):
        raise Refused(404, f"there is no {name} {short(text)}")
    return int(text)


async def body(request: web.Request, keys: Collection[str]) -> dict[str, Any]:
    """The request's JSON object.

    No page of another origin can send one unasked: a form cannot set the content type that it takes.

    Raises:
        Refused: it is of another type (415), too large (413), too slow (408), or not an object of `keys` (400).
    """
    if request.content_type != "application/json":
        raise Refused(415, "send Content-Type: application/json")
    try:
        raw = await asyncio.wait_for(_read(request), BODY_TIMEOUT)
    except asyncio.TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_TIMEOUT} s") from None
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None
    if not isinstance(found, dict) or not set(found) <= set(keys):
        raise Refused(400, f"the body must be an object with no other keys than {', '.join(keys)}")
    return found


async def _read(request: web.Request) -> bytes:
    raw = b""
    async for chunk in request.content.iter_any():
        raw += chunk
        if len(raw) > BODY:
            raise Refused(413, f"the body is larger than {BODY} bytes")
    return raw


def short(text: str) -> str:
    """A value from outside, for a message."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
