"""The reward server under load that the tests time: batches, the bounded queue, clients that go away, and its end."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from patience import GUARD, until
from served import image_file, multipart, servers
from server_requests import GOOD, ONE, PNG, image, pixels

serve = pytest.fixture(servers)


class Slow:
    """Means of pictures, each batch after `gate` opens; remembers the sizes of the batches."""

    def __init__(self):
        self.gate, self.begun, self.sizes = threading.Event(), threading.Event(), []

    def score(self, images, prompts):
        self.sizes.append(len(images))
        self.begun.set()
        assert self.gate.wait(GUARD)
        return images.flatten(1).mean(1)


def together(served, count: int, images: int = 1):
    """`count` requests at the same time; futures of their answers."""
    pool = ThreadPoolExecutor(count)
    parts = [{"prompts": ["a"] * images}, *[image(GOOD)] * images]
    return [pool.submit(served.score, *parts) for _ in range(count)]


def test_requests_that_wait_are_scored_together_in_whole_and_in_batches(serve):
    slow = Slow()
    served = serve({"slow": slow}, batch_size=8, batch_window=0.0)
    first = together(served, 1)
    assert slow.begun.wait(GUARD)
    others = together(served, 7, images=3) + together(served, 1, images=20)
    until(lambda: served.service.admission.requests == 9 and len(served.service.batcher.waiting) == 8)
    slow.gate.set()
    answers = [future.result() for future in first + others]
    assert [a.status for a in answers] == [200] * 9
    assert [len(a.json["scores"]["slow"]) for a in answers] == [1] + [3] * 7 + [20]
    assert sum(slow.sizes) == 1 + 21 + 20
    assert max(slow.sizes) == 8  # the large one in parts
    assert slow.sizes.count(6) >= 2  # two whole requests of 3, and no third
    assert len(slow.sizes) < 9


def test_the_window_lets_a_batch_fill(serve):
    slow = Slow()
    slow.gate.set()
    served = serve({"slow": slow}, batch_window=0.5)
    assert [future.result().status for future in together(served, 6)] == [200] * 6
    assert slow.sizes == [6]


def test_a_full_queue_answers_429_with_retry_after_and_recovers(serve):
    slow = Slow()
    served = serve({"slow": slow}, queue_requests=3)
    accepted = together(served, 1)
    assert slow.begun.wait(GUARD)
    accepted += together(served, 2)
    until(lambda: served.service.admission.requests == 3)
    refused = served.score(ONE, image(GOOD))
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json["error"] == "the queue is full: 3 requests"
    assert served.request("GET", "/health").json == {"status": "ok", "requests": 3}
    slow.gate.set()
    assert [future.result().status for future in accepted] == [200] * 3
    assert served.score(ONE, image(GOOD)).status == 200


def noise(size: int) -> tuple:
    """A picture whose file is about as large as its pixels."""
    return ("images", PNG, image_file(pixels(1, size=(size, size))[0]))


def test_the_queue_is_bounded_in_the_bytes_that_came(serve):
    slow, large = Slow(), noise(100)  # 30,000 bytes
    served = serve({"slow": slow}, max_bytes=40_000, queue_bytes=50_000)
    accepted = [ThreadPoolExecutor(1).submit(served.score, ONE, large)]
    assert slow.begun.wait(GUARD)
    refused = served.score(ONE, large)  # the rest of a body is read, so that its client reads the answer
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    accepted += together(served, 1)  # a small one still fits
    until(lambda: served.service.admission.requests == 2)
    slow.gate.set()
    assert [future.result().status for future in accepted] == [200] * 2
    assert served.service.admission.bytes == 0


def test_a_client_whose_body_is_refused_half_way_reads_why(serve):
    """More of it is left than a head may have."""
    slow = Slow()
    slow.gate.set()
    served = serve({"slow": slow}, max_bytes=16_000_000, queue_bytes=16_000_000)
    noise = ("images", "application/x-safetensors", bytes(15_900_000))
    with served.service.admission.enter() as other:
        other.take(15_000_000)
        assert served.score(ONE, noise).status == 429
    assert served.score(ONE, image(GOOD)).status == 200


def test_large_pictures_are_decoded_and_scored_a_few_at_a_time(serve):
    slow = Slow()
    slow.gate.set()
    served = serve({"slow": slow}, batch_size=8, max_pixels=10_000, batch_pixels=20_000)
    sent = [noise(size) for size in (100, 100, 100, 64, 64, 100, 64, 64)]
    answer = served.score({"prompts": ["a"] * 8}, *sent)
    assert answer.status == 200
    assert sorted(slow.sizes) == [2, 2, 4]
    assert all(0.4 < score < 0.6 for score in answer.json["scores"]["slow"])


def announced(served, count: int) -> list[socket.socket]:
    """Connections with requests whose bodies do not come."""
    host, port = served.url.removeprefix("http://").split(":")
    head = "POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    connections = [socket.create_connection((host, int(port)), timeout=GUARD) for _ in range(count)]
    for connection in connections:
        connection.sendall(f"{head}Content-Length: {2**28}\r\n\r\n--b\r\n".encode())
    return connections


def test_bodies_that_are_announced_and_do_not_come_lock_nobody_out(serve):
    slow = Slow()
    slow.gate.set()
    served = serve({"slow": slow}, queue_requests=4)
    idle = announced(served, 12)
    until(lambda: sum(c.timer is None for c in served.service.connections.idle) == 12)
    assert served.service.admission.bytes == 0
    assert served.score(ONE, image(GOOD)).status == 200
    for connection in idle:
        connection.close()
    until(lambda: not served.service.connections.idle)


def test_a_body_that_comes_in_drops_is_given_up(serve, monkeypatch):
    monkeypatch.setattr("trainer.reward_server.app.PATIENCE", 0.3)
    served = serve({"slow": Slow()})
    (connection,) = announced(served, 1)
    with connection:
        connection.sendall(b'Content-Disposition: form-data; name="images"\r\n\r\n')
        connection.settimeout(0.05)
        answer = b""
        while not answer:
            connection.sendall(b"a" * 10)
            with suppress(TimeoutError):
                answer = connection.recv(100)
    assert answer.startswith(b"HTTP/1.1 408 ")
    until(lambda: served.service.admission.bytes == 0)


def test_a_client_that_leaves_between_two_batches_of_its_request_is_scored_no_further(serve):
    slow = Slow()
    served = serve({"slow": slow}, batch_size=2, batch_window=0.0)
    host, port = served.url.removeprefix("http://").split(":")
    body, kind = multipart({"prompts": ["a"] * 9}, *[image(GOOD)] * 9)
    head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        assert slow.begun.wait(GUARD)
    until(lambda: served.service.admission.bytes == 0)
    slow.gate.set()
    assert served.score(ONE, image(GOOD)).status == 200
    assert slow.sizes == [2, 1]


def test_a_request_whose_client_went_away_is_never_scored(serve):
    slow = Slow()
    served = serve({"slow": slow})
    first = together(served, 1)
    assert slow.begun.wait(GUARD)
    host, port = served.url.removeprefix("http://").split(":")
    body, kind = multipart({"prompts": ["a"] * 5}, *[image(GOOD)] * 5)
    head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: served.service.admission.requests == 2)
    until(lambda: served.service.admission.requests == 1)
    slow.gate.set()
    assert first[0].result().status == 200
    assert served.score(ONE, image(GOOD)).status == 200
    assert slow.sizes == [1, 1]


def test_a_body_that_does_not_arrive_is_given_up(serve, monkeypatch):
    monkeypatch.setattr("trainer.reward_server.app.BODY_TIMEOUT", 0.2)
    served = serve({"slow": Slow()})
    host, port = served.url.removeprefix("http://").split(":")
    head = (
        "POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=GUARD) as connection:
        connection.sendall(head.encode() + b"\r\n--b")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    assert served.service.admission.requests == 0


def test_a_stop_finishes_what_was_accepted_and_refuses_the_rest(serve):
    slow = Slow()
    served = serve({"slow": slow})
    accepted = together(served, 1)
    assert slow.begun.wait(GUARD)
    accepted += together(served, 4)
    until(lambda: served.service.admission.requests == 5)
    end = served.drain()
    until(lambda: served.service.admission.stopping)
    refused = served.score(ONE, image(GOOD))
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert (served.request("GET", "/health").status, end.done()) == (503, False)
    slow.gate.set()
    assert [future.result().status for future in accepted] == [200] * 5
    end.result(GUARD)


def test_an_idle_server_stops_at_once(serve):
    serve({"slow": Slow()}).drain().result(GUARD)
