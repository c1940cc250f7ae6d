"""Asking a server over HTTP for JSON: one connection a request, straight to it, past any proxy."""

import http.client
import json
import random
import time
from typing import Any
from urllib.parse import urlsplit

from .base import RewardError

AGAIN = (408, 429, 502, 503, 504)  # what may be otherwise a little later
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries; each is up to twice as long as the one before


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
        retries: further tries where a request was not answered.
    """

    def __init__(self, url: str, *, token: str = "", timeout: float, retries: int):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username is not None:
            raise RewardError(f"url {url!r} is no address of a server: write http://host:port")
        self.url, self.token, self.timeout, self.retries = url, token, timeout, retries
        self.secure, self.host, self.port, self.path = parts.scheme == "https", parts.hostname, parts.port, parts.path

    def ask(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> dict[str, Any]:
        """The JSON object that it answers with.

        Raises:
            RewardError: it refuses the request, with its reason, or answered to none of the tries.
        """
        pause = FIRST_PAUSE
        for tries_left in range(self.retries, -1, -1):
            try:
                return self._once(method, path, body, content_type)
            except _Again as again:
                if not tries_left:
                    raise RewardError(f"the server {self.url} {again}") from again
                time.sleep(min(max(again.after, pause * random.uniform(0.5, 1)), LONGEST_PAUSE))
                pause *= 2

    def _once(self, method: str, path: str, body: bytes, content_type: str) -> dict[str, Any]:
        headers = {"Connection": "close", "Accept": "application/json", "Content-Type": content_type}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=self.timeout)
        try:
            connection.request(method, self.path.rstrip("/") + path, body or None, headers)
            response = connection.getresponse()
            return self._read(response, response.read())
        except TimeoutError as error:
            raise _Again(f"did not answer within {self.timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Again(f"cannot be reached ({error or type(error).__name__})") from error
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, data: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if response.status != 200:
            error = answer.get("error") if isinstance(answer, dict) else None
            reason = f"answered {response.status}: {str(error or response.reason)[:300]}"
            if response.status in AGAIN:
                after = response.headers.get("Retry-After", "")
                raise _Again(reason, float(after) if after.isdigit() else 0.0)
            raise RewardError(f"the server {self.url} {reason}")
        if not isinstance(answer, dict):
            raise RewardError(f"the server {self.url} answered no JSON object but {data[:40]!r}")
        return answer
