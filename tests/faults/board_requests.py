"""A board in a process of its own, and requests to it of any shape."""

import json
import random
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trainer.board.routes import PREFIX

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds
METHODS = "GET GET GET GET HEAD POST PATCH DELETE PUT OPTIONS TRACE CONNECT BREW get".split()
PARTS = (
    *("runs", "run", "groups", "curves", "tiles", "evaluations", "diagnosis", "control", "export.csv", "export.json"),
    *(
        "0",
        "2",
        "-1",
        "99999999999999999999",
        "1e3",
        "0x1",
        " ",
        "%00",
        "%2e%2e",
        "..",
        "%2f",
        "%5c",
        "%ff",
        "%",
        "\xff",
    ),
    *(
        "a" * 300,
        "a" * 5000,
        "%F0%9F%90%B1",
        "{run}",
        "base",
        ".trash",
        "*",
        "'",
        '"',
        "<script>",
        "~",
        "CON",
        "\\..\\",
    ),
)
QUERIES = ("points", "from", "to", "names", "offset", "limit", "x", "")
VALUES = (
    "",
    "0",
    "1",
    "-1",
    "10000",
    "999999999999",
    "1.5",
    "nan",
    "loss",
    "loss,seconds",
    ",",
    "%00",
    "%ff",
    "a" * 4000,
)
HEADERS = (
    *("Host: evil.example", "Host: ", "Host: [", "Host: localhost:1", "Host: 127.0.0.1, evil.example"),
    *("Origin: http://evil.example", "Origin: null", "Origin: http://127.0.0.1:{port}", "Origin: ://["),
    *("Sec-Fetch-Site: cross-site", "X-Forwarded-Host: evil.example", "X-HTTP-Method-Override: DELETE"),
    *("Range: bytes=0-", "Range: bytes=9999999-", "Range: bytes=-1", "Range: x", "If-None-Match: *", "If-Range: x"),
    *("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT", "If-Modified-Since: x", "If-Match: x", "If-Match: *"),
    *("Accept-Encoding: gzip", "Expect: 100-continue", "Expect: x", "Upgrade: websocket", "Connection: upgrade"),
    *("Content-Type: application/json", "Content-Type: text/plain", "Content-Type: application/json; charset=utf-7"),
    *("Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999", "Content-Length: x"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: x", "Content-Encoding: gzip", "Content-Encoding: x"),
    *("Cookie: a=b; c", "Authorization: Basic x", "X: " + "y" * 9000, "\xff: \xff", "no colon", ": no name", "A\0: b"),
)
BODIES = (
    *(b"", b"{}", b'{"action": "stop"}', b'{"action": "change", "learning_rate": NaN}', b'{"title": 3}', b"[" * 50_000),
    *(
        b'{"title": "' + b"x" * 70_000 + b'"}',
        b"\xff\xfe",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\n",
        b"\x1f\x8b\x08\0\0",
        b"null",
    ),
    *(b'{"action": ["stop"]}', b'{"action": "stop", "action": 1}', b'{"title": "\\ud800"}', b'{"title": "a\\u2028b"}'),
)


@dataclass
class Answer:
    status: int  # 0 if the connection was closed without one
    head: bytes
    body: bytes


class BoardProcess:
    """`python -m trainer board` on `runs`, while inside."""

    def __init__(self, runs: Path):
        self.runs = runs

    def __enter__(self) -> "BoardProcess":
        command = [sys.executable, "-m", "trainer", "board", str(self.runs), "--port", "0", "--json"]
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self.errors)
        text = b""
        while not text.rstrip().endswith(b"}"):
            line = self.process.stdout.readline()
            assert line, "the board ended before it answered"
            text += line
        self.port = int(re.search(r":(\d+)", json.loads(text)["url"])[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.errors.close()

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        lines = [f"{method} {PREFIX}{path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return self.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body, PATIENCE)

    def raw(self, request: bytes, patience: float = 0.3) -> Answer:
        """What comes back; if nothing does within `patience` seconds, the client leaves."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), patience) as connection:
            try:
                connection.sendall(request)
                while chunk := connection.recv(2**20):
                    answer += chunk
            except (ConnectionError, TimeoutError):  # what it said before counts
                pass
        head, _, body = answer.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.\d (\d+)", head)
        return Answer(int(status[1]) if status else 0, head, body)

    def complaints(self) -> str:
        """What it printed on standard error that is a stack trace."""
        self.errors.seek(0)
        text = self.errors.read().decode("utf-8", "replace")
        return text if "Traceback" in text else ""

    def memory(self) -> int:
        return self._status("VmRSS")

    def most_memory(self) -> int:
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        """Bytes; 0 if this system has no /proc."""
        path = Path(f"/proc/{self.process.pid}/status")
        found = re.search(rf"{name}:\s+(\d+) kB", path.read_text()) if path.exists() else None
        return int(found[1]) * 1024 if found else 0


def odd_request(chance: random.Random, port: int) -> bytes:
    """It never asks well to change the run named `run`: that has to be there at the end."""
    method, parts = chance.choice(METHODS), chance.choices(PARTS, k=chance.randrange(6))
    prefix = chance.choice((PREFIX, PREFIX, PREFIX, PREFIX + "/runs/run", PREFIX + "/runs/run", "", "//", "http://x"))
    if method in ("DELETE", "PATCH") and prefix.endswith("/run") and not parts:
        parts = ["x"]
    if method in ("DELETE", "PATCH") and parts[-2:] == ["runs", "run"]:
        parts.append("x")
    path = "/".join([prefix, *parts])
    if chance.random() < 0.4:
        pairs = (f"{chance.choice(QUERIES)}={chance.choice(VALUES)}" for _ in range(chance.randrange(1, 5)))
        path += "?" + "&".join(pairs)
    headers = chance.choices(HEADERS, k=chance.choice((0, 0, 1, 1, 2, 4)))
    if not any(line.startswith("Host:") for line in headers) and chance.random() < 0.95:
        headers.insert(0, f"Host: 127.0.0.1:{port}")
    body = chance.choice(BODIES) if method in ("POST", "PATCH", "PUT") or chance.random() < 0.1 else b""
    if body and chance.random() < 0.7:
        headers.append(f"Content-Length: {len(body)}")
        headers.append("Content-Type: application/json")
    version = chance.choice(("HTTP/1.1",) * 20 + ("HTTP/1.0", "HTTP/9.9", "x"))
    lines = [f"{method} {path} {version}", *(line.replace("{port}", str(port)) for line in headers)]
    text = "\r\n".join([*lines, "Connection: close", "", ""])
    raw = bytearray(text.encode("latin-1", "replace") + body)
    if chance.random() < 0.1:
        raw[chance.randrange(len(raw))] = chance.randrange(128)
    return bytes(raw)
