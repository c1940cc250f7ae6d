"""Servers that answer as they are told, whatever they are asked."""

import http.server
import json
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress

OFFER = (200, {}, {"rewards": [{"name": "a", "kind": "b"}], "limits": {"images": 64, "pixels": 9**9, "bytes": 9**9}})
SCORED = (200, {}, {"scores": {"a": [0.5]}})
DOWN = (503, {}, {"error": "the server is stopping"})


@contextmanager
def scripted(*answers):
    """A server with these (status, headers, body) as its answers, the last one again and again; lists what it saw."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((time.monotonic(), self.command, self.path, dict(self.headers)))
            status, headers, body = answers[min(len(seen), len(answers)) - 1]
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def endless(status_line=b"HTTP/1.0 200 OK\r\n\r\n", part=b"[", pause=0.0):
    """The address of a server that answers its first request without an end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        with listener, connection, suppress(OSError):
            connection.sendall(status_line)
            while True:
                connection.sendall(part)
                time.sleep(pause)

    threading.Thread(target=answer, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def raw(answer: bytes) -> str:
    """The address of a server that answers every request with these bytes, and hangs up."""
    return listening(lambda: answer)


@contextmanager
def each(answer):
    """A server that answers every request with the bytes that `answer()` gives, and hangs up."""
    going = [True]
    try:
        yield listening(answer, lambda: going[0])
    finally:
        going.clear()
        going.append(False)


def listening(answer, goes_on=lambda: True) -> str:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while goes_on():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.settimeout(5)
                whole_request(connection)
                connection.sendall(answer())
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def whole_request(connection: socket.socket) -> None:
    """Read one; aiohttp's client sends a body with its length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0:
        left -= len(received(connection))


def received(connection: socket.socket) -> bytes:
    """Some bytes. Raises ConnectionError: whoever asked has gone."""
    if data := connection.recv(65536):
        return data
    raise ConnectionError
