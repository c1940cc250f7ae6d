"""Asking a server over HTTP for JSON: one connection a request, straight to it, past any proxy, and nowhere else."""

import asyncio
import email.utils
import io
import json
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from .errors import RewardError, RewardUnavailable

AGAIN = (408, 429, 502, 503, 504)  # what may be otherwise a little later
CONNECT_TIMEOUT = 10.0  # seconds
HEALTH_TIMEOUT = 5.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries; each is up to twice as long as the one before
LOOK = 0.1  # seconds between two calls of `while_waiting`
LARGEST = 2**24  # bytes of an answer: scores and a model's words are far smaller

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
    retry_after: str  # a header
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
        tries_left, pause = self.retries, FIRST_PAUSE
        while True:
            try:
                return self._once(method, path, make_body, self.timeout)
            except _Again as again:
                if not tries_left:
                    raise RewardUnavailable(f"the server {self.url} {again}", self.is_back) from again
                backoff = pause * self.jitter.uniform(0.5, 1)
                self._pause(min(max(again.after, backoff), LONGEST_PAUSE))
                tries_left, pause = tries_left - 1, pause * 2

    def is_back(self) -> bool:
        """Whether it takes requests, asked once."""
        try:
            self._once("GET", "/health", lambda: None, HEALTH_TIMEOUT)
        except _Again:
            return False
        except RewardError:
            return True  # it refuses the question, as one without /health does, but it is there
        return True

    def _once(self, method: str, path: str, make_body: MakeBody, timeout: float) -> dict[str, Any]:
        asked = asyncio.run_coroutine_threadsafe(self._exchange(method, path, make_body, timeout), _loop())
        try:
            while not wait([asked], LOOK).done:
                self.while_waiting()
            return self._read(asked.result())
        except aiohttp.ClientConnectorCertificateError as error:
            reason = error.certificate_error
            raise RewardError(f"the server {self.url} shows an untrusted certificate ({reason})") from error
        except asyncio.TimeoutError as error:
            raise _Again(f"did not answer within {timeout:g} s") from error
        except (OSError, aiohttp.ClientError) as error:
            raise _Again(f"cannot be reached ({_cause(error)})") from error
        finally:
            asked.cancel()

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
            retry_after = response.headers.get("Retry-After", "")
            return _Answer(response.status, response.reason or "", retry_after, bytes(data))

    def _read(self, response: _Answer) -> dict[str, Any]:
        try:
            answer = json.loads(response.data)
        except (ValueError, RecursionError):
            answer = None
        if response.status in AGAIN:
            raise _Again(f"answered {_reason(response, answer)}", _seconds(response.retry_after))
        if response.status != 200:
            raise RewardError(f"the server {self.url} answered {_reason(response, answer)}")
        if not isinstance(answer, dict):
            raise RewardError(f"the server {self.url} answered no JSON object but {response.data[:40]!r}")
        return answer

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.while_waiting()
            time.sleep(min(LOOK, left))


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
        _ = parts.port
    except ValueError as error:
        raise RewardError(f"url {url!r} is no address ({error}): write http://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise RewardError(f"url {url!r} is no address of a server: write http://host:port")
    if parts.username is not None:
        raise RewardError("url must hold no user or password, a run stores it: use token_env")


def token_in(variable: str) -> str:
    """What the environment variable of this name holds; empty if none is named. Raises RewardError: not set."""
    token = os.environ.get(variable, "").strip() if variable else ""
    if variable and not token:
        raise RewardError(
            f"token_env = {variable!r}: this environment variable is not set: put the server's token there"
        )
    return token


def _cause(error: Exception) -> str:
    """In the system's words if it has some."""
    number = getattr(error, "errno", None) or 0
    own_words = " ".join(str(error).split()) or type(error).__name__
    return os.strerror(number) if number > 0 else own_words  # those below are a resolver's


def _reason(response: _Answer, answer: object) -> str:
    reason = answer.get("error") if isinstance(answer, dict) else None
    return f"{response.status}: {str(reason or response.reason)[:300]}"


def _seconds(retry_after: str) -> float:
    """Of a header's number or date; 0 if there is none."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
