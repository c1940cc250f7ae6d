"""Asking a server over HTTP for JSON: one connection a request, straight to it, past any proxy, and nowhere else."""

import asyncio
import email.utils
import io
import json
import os
import random
import re
import ssl
import threading
import time
from asyncio import sleep
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import wait
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from ..errors import brief
from .errors import RewardError, RewardUnavailable, in_words

AGAIN = (408, 429, *range(500, 505))  # what may be otherwise a little later
REMEDIES = {
    401: "token_env must name the environment variable that holds the server's token",
    403: "the token in token_env's environment variable is not allowed this",
    404: "is url the server's address?",
}
CONNECT_TIMEOUT = 10.0  # seconds
HEALTH_TIMEOUT = 5.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries; each is up to twice as long as the one before
LOOK = 0.1  # seconds between two calls of `while_waiting`
LARGEST = 2**24  # bytes of an answer: scores and a model's words are far smaller
HOST = r"[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?"  # a name or an address of IPv4, or one of IPv6
T = TypeVar("T")

# makes what aiohttp sends as a request's body, for each try anew
MakeBody = Callable[[], aiohttp.Payload | aiohttp.FormData | None]


class _Again(Exception):
    """Not answered, and worth another try; not before `after` seconds."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class _Answer:
    status: int
    reason: str
    retry_after: str  # three headers, empty if they are not there
    location: str
    content_type: str
    data: bytes


class Server:
    """A server, by its address. May be asked by several threads at once.

    Args:
        url: http:// or https://, host, port and perhaps a path.
        token: sent as bearer token; empty for none.
        timeout: seconds in which an answer has to begin. Sending the request and reading the answer may take as long.
        retries: further tries if a request was not answered.

    `while_waiting` is called many times a second while an answer is waited for; what it raises ends the waiting.
    """

    def __init__(self, url: str, *, token: str = "", timeout: float, retries: int):
        check_url(url)
        self.url = url
        self.token = token
        self.timeout = timeout
        self.retries = retries
        self.while_waiting: Callable[[], None] = lambda: None
        self.jitter = random.Random()

    def ask(self, method: str, path: str, make_body: MakeBody = lambda: None) -> dict[str, Any]:
        """The JSON object that it answers with.

        Raises:
            RewardError: it refuses the request; with its reason.
            RewardUnavailable: it answered to none of the tries.
        """
        return self.wait_for(self.answer(method, path, make_body))

    def wait_for(self, answers: Coroutine[Any, Any, T]) -> T:
        """What comes of `answer` and coroutines that await it. If `while_waiting` raises, they are cancelled."""
        asked = asyncio.run_coroutine_threadsafe(answers, _loop())
        try:
            while not wait([asked], LOOK).done:
                self.while_waiting()
            return asked.result()
        finally:
            asked.cancel()

    async def answer(self, method: str, path: str, make_body: MakeBody = lambda: None) -> dict[str, Any]:
        """As `ask`, in a coroutine for `wait_for`."""
        tries_left, pause = self.retries, FIRST_PAUSE
        while True:
            try:
                return await self._once(method, path, make_body, self.timeout)
            except _Again as again:
                if not tries_left:
                    raise RewardUnavailable(f"the server {self.url} {again}", self.is_back) from again
                backoff = pause * self.jitter.uniform(0.5, 1)
                await sleep(min(max(again.after, backoff), LONGEST_PAUSE))
                tries_left, pause = tries_left - 1, pause * 2

    def is_back(self) -> bool:
        """Whether it takes requests, asked once."""
        try:
            self.wait_for(self._once("GET", "/health", lambda: None, HEALTH_TIMEOUT))
        except _Again:
            return False
        except RewardError:
            return True  # it refuses the question, as one without /health does, but it is there
        return True

    async def _once(self, method: str, path: str, make_body: MakeBody, timeout: float) -> dict[str, Any]:
        try:
            return self._read(await self._exchange(method, path, make_body, timeout))
        except ssl.CertificateError as error:
            reason = in_words(getattr(error, "certificate_error", error))
            raise RewardError(f"the server {self.url} shows an untrusted certificate ({reason})") from error
        except asyncio.TimeoutError as error:
            raise _Again(f"did not answer within {timeout:g} s") from error
        except (aiohttp.ClientResponseError, ValueError) as error:
            what = in_words(getattr(error, "message", error))
            raise RewardError(f"the server {self.url} answered no proper HTTP ({what}): is it its address?") from error
        except (OSError, aiohttp.ClientError) as error:
            if _speaks_no_tls(error):
                raise RewardError(f"the server {self.url} does not speak TLS ({_cause(error)}): try http://") from error
            raise _Again(f"cannot be reached ({_cause(error)})") from error

    async def _exchange(self, method: str, path: str, make_body: MakeBody, timeout: float) -> _Answer:
        limits = aiohttp.ClientTimeout(
            total=CONNECT_TIMEOUT + 3 * timeout,  # connecting, sending, waiting, reading
            sock_connect=min(CONNECT_TIMEOUT, timeout),
            sock_read=timeout,
        )
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True), timeout=limits, auto_decompress=False
            ) as session,
            session.request(
                method, self.url.rstrip("/") + path, data=make_body(), headers=headers, allow_redirects=False
            ) as response,
        ):
            data = bytearray()
            async for part in response.content.iter_any():
                data += part
                if len(data) > LARGEST:
                    raise RewardError(f"the server {self.url} answered more than {LARGEST >> 20} MiB")
            after, location, kind = (response.headers.get(n, "") for n in ("Retry-After", "Location", "Content-Type"))
            return _Answer(response.status, response.reason or "", after, location, kind, bytes(data))

    def _read(self, response: _Answer) -> dict[str, Any]:
        try:
            answer = json.loads(response.data, object_pairs_hook=_without_twins)
        except (ValueError, RecursionError):
            answer = None
        if response.status in AGAIN:
            raise _Again(f"answered {_reason(response, answer)}", _seconds(response.retry_after))
        if response.status != 200:
            raise RewardError(f"the server {self.url} answered {_reason(response, answer)}{_remedy(response)}")
        if not isinstance(answer, dict):
            page = " (a web page: is url the server's address?)" if "html" in response.content_type.lower() else ""
            raise RewardError(f"the server {self.url} answered no JSON object but {response.data[:40]!r}{page}")
        return answer


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for all requests, on a thread of its own: the caller may be on a loop itself, as ComfyUI's nodes are."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="asking reward servers", daemon=True).start()
    return loop


def json_body(value: object) -> aiohttp.Payload:
    return aiohttp.BytesIOPayload(io.BytesIO(json.dumps(value).encode()), content_type="application/json")


def check_url(url: str) -> None:
    """Raises RewardError if it is no address of a server, or holds a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port, URL(url), (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise RewardError(f"url {brief(url)} is no address ({in_words(error)}): write http://host:port") from None
    known = parts.scheme in ("http", "https") and re.fullmatch(HOST, parts.hostname or "")
    if not known or parts.query or parts.fragment:
        raise RewardError(f"url {brief(url)} is no address of a server: write http://host:port")
    if parts.username is not None:
        raise RewardError("url must hold no user or password, a run stores it: use token_env")


def token_in(variable: str) -> str:
    """What the environment variable of this name holds; empty if none is named. Raises RewardError: not set."""
    token = os.environ.get(variable, "").strip() if variable else ""
    if variable and not token:
        raise RewardError(
            f"token_env = {variable!r}: this environment variable is not set: put the server's token there"
        )
    if not token.isprintable():
        raise RewardError(f"token_env = {variable!r}: this environment variable holds control characters, no token")
    return token


def _cause(error: Exception) -> str:
    """In the system's words if it has some."""
    number = getattr(error, "errno", None) or 0
    if isinstance(getattr(error, "os_error", error), ssl.SSLError):
        return in_words(error)  # its numbers are not the system's
    return os.strerror(number) if number > 0 else in_words(error)  # those below are a resolver's


def _speaks_no_tls(error: Exception) -> bool:
    """Whether it answered to the first bytes of TLS with something else; one that hangs up may only be busy."""
    reason = getattr(error, "os_error", error)
    return isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _reason(response: _Answer, answer: object) -> str:
    reason = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(reason, dict):  # as OpenAI's
        reason = reason.get("message", reason)
    return f"{response.status}: {in_words(reason or response.reason)}"


def _remedy(response: _Answer) -> str:
    if 300 <= response.status < 400 and response.location:
        return f" (it leads to {brief(response.location)}: url must be the server's own address)"
    return f" ({REMEDIES[response.status]})" if response.status in REMEDIES else ""


def _seconds(retry_after: str) -> float:
    """Of a header's number or date; 0 if there is none."""
    if re.fullmatch("[0-9]{1,9}", retry_after.strip()):
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0.0


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError if a key is there twice: nobody knows which of the two is meant."""
    pairs = list(pairs)
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return found
