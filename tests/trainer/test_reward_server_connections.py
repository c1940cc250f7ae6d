"""The reward server's connections: half heads, idle ones, too many, and no log that a stranger fills."""

import logging
import resource
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from patience import GUARD, until
from served import multipart, servers
from server_requests import GOOD, ONE, image

from trainer.reward_server import connections
from trainer.reward_server.connections import room_for
from trainer.serving import Sparing

serve = pytest.fixture(servers)
HALF = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nX: "


class Grey:
    def score(self, images, prompts):
        return torch.zeros(len(images))


def connected(served, stack: ExitStack) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=GUARD))


def ended(connection: socket.socket) -> bool:
    """Whether the server has hung up."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_half_heads_lock_nobody_out_the_oldest_makes_room(serve):
    served = serve({"grey": Grey()}, connections=8, client_connections=8)
    with ExitStack() as stack:
        halves = [connected(served, stack) for _ in range(8)]
        for half in halves:
            half.sendall(HALF)
        until(lambda: len(served.service.connections.idle) == 8)
        assert served.score(ONE, image(GOOD)).status == 200
        assert ended(halves[0])
        halves[7].sendall(b"y\r\nContent-Length: 0\r\n\r\n")
        assert halves[7].recv(100).startswith(b"HTTP/1.1 415 ")


def test_one_address_has_its_share_of_the_connections(serve):
    served = serve({"grey": Grey()}, connections=99, client_connections=3)
    with ExitStack() as stack:
        halves = [connected(served, stack) for _ in range(5)]
        assert ended(halves[0])
        assert ended(halves[1])
        until(lambda: len(served.service.connections.idle) == 3)
        assert served.service.connections.clients == {"127.0.0.1": 3}
    until(lambda: not served.service.connections.idle)
    assert not served.service.connections.clients


def test_a_head_that_does_not_come_and_a_connection_that_nobody_uses_end(serve, monkeypatch):
    monkeypatch.setattr(connections, "IDLE", 0.2)
    served = serve({"grey": Grey()})
    with ExitStack() as stack:
        silent, half, used = (connected(served, stack) for _ in range(3))
        half.sendall(HALF)
        used.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert used.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert all(ended(connection) for connection in (silent, half, used))


def test_a_head_without_an_end_is_not_read_on(serve, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_BYTES", 1000)
    served = serve({"grey": Grey()})
    with ExitStack() as stack:
        endless = connected(served, stack)
        endless.sendall(HALF + b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\nX: " * 50)
        until(lambda: any(c.came > 1000 for c in served.service.connections.idle))
        endless.sendall(b"y\r\n")
        assert ended(endless)


HEAD = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"


def test_bodies_that_do_not_come_make_room_too(serve):
    served = serve({"grey": Grey()}, connections=4, client_connections=4)
    with ExitStack() as stack:
        announced = [connected(served, stack) for _ in range(4)]
        for connection in announced:
            connection.sendall(HEAD + b"Content-Length: 99\r\n\r\n")
        until(lambda: sum(c.timer is None for c in served.service.connections.idle) == 4)
        assert served.score(ONE, image(GOOD)).status == 200


def test_a_body_on_its_way_is_not_cut_off_by_the_time_for_heads(serve, monkeypatch):
    monkeypatch.setattr(connections, "IDLE", 0.2)
    body, kind = multipart(ONE, image(GOOD))
    served = serve({"grey": Grey()})
    with ExitStack() as stack:
        slow, silent = (connected(served, stack) for _ in range(2))
        slow.sendall(f"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n".encode())
        slow.sendall(b"Content-Length: %d\r\n\r\n" % len(body))
        assert ended(silent)  # which came later
        slow.sendall(body)
        assert slow.recv(100).startswith(b"HTTP/1.1 200 ")


def test_while_all_are_at_work_a_further_one_is_refused_politely(serve):
    gate = threading.Event()

    class Slow:
        def score(self, images, prompts):
            assert gate.wait(GUARD)
            return torch.zeros(len(images))

    served = serve({"slow": Slow()}, connections=2, client_connections=2)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(served.score, ONE, image(GOOD)) for _ in range(2)]
        until(lambda: len(served.service.connections.busy) == 2)
        refused = served.request("GET", "/health")
        gate.set()
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert refused.json == {"error": "too many connections: each is at work"}
    assert [answer.result().status for answer in answers] == [200, 200]
    assert served.request("GET", "/health").status == 200


def test_there_are_fewer_connections_than_files_may_be_open():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
    try:
        assert (room_for(512), room_for(7)) == (96, 7)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_web_page_is_refused(serve):
    answer = serve({"grey": Grey()}).score(ONE, image(GOOD), Origin="http://evil.example")
    assert (answer.status, answer.json) == (403, {"error": "a web page asks: only programs may"})


def test_a_log_has_a_few_lines_a_minute_and_counts_the_others(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("trainer.serving.time.monotonic", lambda: now[0])
    logger = logging.Logger("flooded")
    logger.addHandler(caplog.handler)
    logger.addFilter(Sparing(most=2, period=60))
    for second in (*range(50), 61):
        now[0] = second
        logger.warning("a reward failed: %s", second)
    assert caplog.messages == ["a reward failed: 0", "a reward failed: 1", "a reward failed: 61 (and 48 more before)"]
