"""The reward server under load that the tests time: batches, the bounded queue, clients that go away, and its end."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from patience import GUARD, until
from served import image_file, multipart, servers
from server_requests import GOOD, ONE, PNG, image

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


def test_the_queue_is_bounded_in_bytes_with_what_pictures_decode_to(serve):
    plain = ("images", PNG, image_file(torch.zeros(3, 500, 500, dtype=torch.uint8)))  # 750,000 bytes of a few hundred
    slow = Slow()
    served = serve({"slow": slow}, max_bytes=10_000, queue_bytes=1_000_000)
    accepted = [ThreadPoolExecutor(1).submit(served.score, ONE, plain)]
    assert slow.begun.wait(GUARD)
    assert served.score(ONE, plain).status == 429
    accepted += together(served, 1)  # a small one still fits
    until(lambda: served.service.admission.requests == 2)
    slow.gate.set()
    assert [future.result().status for future in accepted] == [200] * 2
    never = served.score({"prompts": ["a", "b"]}, plain, plain)
    assert never.status == 413
    assert "bytes with the decoded images: at most 1000000" in never.json["error"]
    assert served.service.admission.bytes == 0


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
