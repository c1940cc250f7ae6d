"""Asking a server over HTTP for JSON: one connection a request, straight to it, past any proxy."""

import email.utils
import http.client
import json
import os
import random
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .errors import RewardError, RewardUnavailable

AGAIN = (408, 429, 502, 503, 504)  # what may be otherwise a little later
CONNECT_TIMEOUT = 10.0  # seconds
HEALTH_TIMEOUT = 5.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries; each is up to twice as long as the one before
LOOK = 0.1  # seconds between two calls of `while_waiting`


class _Again(Exception):
    """Not answered, and worth another try; not before `after` seconds."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


class Server:
    """A server, by its address. May be asked by several threads at once.

    Args:
        url: http:// or https://, host, port and perhaps a path.
        token: sent as bearer token; empty for none.
        timeout: seconds in which an answer has to begin.
        retries: further tries if a request was not answered.

    `while_waiting` is called many times a second while an answer is waited for; what it raises ends the waiting.
    """

    def __init__(self, url: str, *, token: str = "", timeout: float, retries: int):
        self.url = url
        self.secure, self.host, self.port, self.path = parse_url(url)
        self.token = token
        self.timeout = timeout
        self.retries = retries
        self.while_waiting: Callable[[], None] = lambda: None
        self.jitter = random.Random()

    def ask(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> dict[str, Any]:
        """The JSON object that it answers with.

        Raises:
            RewardError: it refuses the request; with its reason.
            RewardUnavailable: it answered to none of the tries.
        """
        tries_left, pause = self.retries, FIRST_PAUSE
        while True:
            try:
                return self._once(method, path, body, content_type, self.timeout)
            except _Again as again:
                if not tries_left:
                    raise RewardUnavailable(f"the server {self.url} {again}", self.is_back) from again
                backoff = pause * self.jitter.uniform(0.5, 1)
                self._pause(min(max(again.after, backoff), LONGEST_PAUSE))
                tries_left, pause = tries_left - 1, pause * 2

    def is_back(self) -> bool:
        """Whether it takes requests, asked once."""
        try:
            self._once("GET", "/health", b"", "", HEALTH_TIMEOUT)
        except _Again:
            return False
        except RewardError:
            return True  # it refuses the question, as one without /health does, but it is there
        return True

    def _once(self, method: str, path: str, body: bytes, content_type: str, timeout: float) -> dict[str, Any]:
        headers = {"Connection": "close", "Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=min(CONNECT_TIMEOUT, timeout))
        try:
            connection.connect()
            connection.sock.settimeout(timeout)
            connection.request(method, self.path + path, body or None, headers)
            self._await(connection.sock, timeout)
            response = connection.getresponse()
            return self._read(response, response.read())
        except ssl.SSLCertVerificationError as error:
            raise RewardError(f"the server {self.url} shows an untrusted certificate ({error})") from error
        except TimeoutError as error:
            raise _Again(f"did not answer within {timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise _Again(f"cannot be reached ({reason})") from error
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, data: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if response.status in AGAIN:
            raise _Again(f"answered {_reason(response, answer)}", _retry_after(response))
        if response.status != 200:
            raise RewardError(f"the server {self.url} answered {_reason(response, answer)}")
        if not isinstance(answer, dict):
            raise RewardError(f"the server {self.url} answered no JSON object but {data[:40]!r}")
        return answer

    def _await(self, sock: socket.socket, timeout: float) -> None:
        """Returns when an answer begins."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            while not selector.select(LOOK):
                self.while_waiting()
                if time.monotonic() > deadline:
                    raise TimeoutError

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.while_waiting()
            time.sleep(min(LOOK, left))


def parse_url(url: str) -> tuple[bool, str, int | None, str]:
    """Whether it is https, the host, the port (None for the scheme's own), and the path before the routes.

    Raises:
        RewardError: it is no such address, or holds a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RewardError(f"url {url!r} is no address ({error}): write http://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise RewardError(f"url {url!r} is no address of a server: write http://host:port")
    if parts.username is not None:
        raise RewardError("url must hold no user or password, a run stores it: use token_env")
    return parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/")


def token_in(variable: str) -> str:
    """What the environment variable of this name holds; empty if none is named. Raises RewardError: not set."""
    token = os.environ.get(variable, "").strip() if variable else ""
    if variable and not token:
        raise RewardError(
            f"token_env = {variable!r}: this environment variable is not set: put the server's token there"
        )
    return token


def _reason(response: http.client.HTTPResponse, answer: object) -> str:
    reason = answer.get("error") if isinstance(answer, dict) else None
    return f"{response.status}: {str(reason or response.reason)[:300]}"


def _retry_after(response: http.client.HTTPResponse) -> float:
    """Seconds, of a number or a date; 0 if there is none."""
    value = response.headers.get("Retry-After", "")
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
