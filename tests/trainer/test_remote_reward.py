"""The remote reward against real servers: its scores, and what it does when they do not answer."""

import http.server
import json
import math
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from patience import GUARD, until
from served import servers

from trainer.rewards import RewardError, RewardUnavailable, build
from trainer.rewards import transport as transport_module
from trainer.rewards.remote import RemoteReward

serve = pytest.fixture(servers)
PROMPTS = ["red apple on a blue background", "zebra", "", '\N{SNOWMAN} "quoted"']


@pytest.fixture(scope="module")
def rewards():
    return {kind: build(kind, {}, "cpu") for kind in ("colourfulness", "tiny-clip")}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(transport_module, "FIRST_PAUSE", 0.01)


def pictures(n: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


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


OFFER = (200, {}, {"rewards": [{"name": "a", "kind": "b"}], "limits": {"images": 64, "pixels": 9**9, "bytes": 9**9}})
SCORED = (200, {}, {"scores": {"a": [0.5]}})
DOWN = (503, {}, {"error": "the server is stopping"})


@pytest.mark.parametrize(
    ("answer", "back"), [((200, {}, {}), True), ((404, {}, {}), True), ((500, {}, b"oops"), True), (DOWN, False)]
)
def test_a_server_is_back_when_it_answers_be_it_with_a_refusal(answer, back):
    with scripted(answer) as (url, _):
        assert build("remote", {"url": url}, "cpu").server.is_back() is back


@pytest.mark.parametrize("kind", ["colourfulness", "tiny-clip"])
def test_a_remote_score_is_the_score_in_this_process(serve, rewards, kind):
    images = pictures(4)
    remote = build("remote", {"url": serve(rewards).url, "reward": kind}, "cpu")
    found = remote.score(images, PROMPTS)
    assert (found.dtype, found.device) == (torch.float32, images.device)
    assert torch.equal(found, rewards[kind].score(images, PROMPTS))


def test_one_reward_needs_no_name_and_several_do(serve, rewards):
    one = serve({"colourfulness": rewards["colourfulness"]})
    assert RemoteReward(one.url).score(pictures(1), ["a"]).shape == (1,)
    two = serve(rewards)
    with pytest.raises(RewardError, match="has colourfulness, tiny-clip: name one of them as reward"):
        RemoteReward(two.url).score(pictures(1), ["a"])
    with pytest.raises(RewardError, match="has no 'hps': it has colourfulness, tiny-clip"):
        RemoteReward(two.url, reward="hps").score(pictures(1), ["a"])


@pytest.mark.parametrize("limit", [{"max_images": 3}, {"max_bytes": 2**16 + 3 * 50_000, "queue_bytes": 2**20}])
def test_a_large_batch_goes_in_requests_that_the_server_takes(serve, rewards, limit):
    served = serve(rewards, **limit)
    calls, score = [], served.service.batcher.score
    served.service.batcher.score = lambda pictures, *rest: calls.append(len(pictures)) or score(pictures, *rest)
    images, prompts = pictures(8), [f"picture {n}" for n in range(8)]
    found = RemoteReward(served.url, reward="tiny-clip").score(images, prompts)
    assert calls == [3, 3, 2]
    torch.testing.assert_close(found, rewards["tiny-clip"].score(images, prompts), atol=1e-6, rtol=0)


def test_a_score_that_is_no_number_arrives_as_nan():
    with scripted(OFFER, (200, {}, {"scores": {"a": [None, 1.5]}})) as (url, _):
        found = RemoteReward(url).score(pictures(2), ["a", "b"]).tolist()
    assert math.isnan(found[0])
    assert found[1] == 1.5


def test_the_token_comes_from_the_environment_and_is_sent(serve, rewards, monkeypatch):
    url = serve(rewards, token="secret").url
    with pytest.raises(RewardError, match="answered 401: the token is missing or wrong"):
        RemoteReward(url, reward="tiny-clip").score(pictures(1), ["a"])
    with pytest.raises(RewardError, match="token_env = 'MY_TOKEN': this environment variable is not set"):
        RemoteReward(url, token_env="MY_TOKEN")
    monkeypatch.setenv("MY_TOKEN", " secret\n")
    remote = RemoteReward(url, reward="tiny-clip", token_env="MY_TOKEN")
    assert remote.score(pictures(1), ["a"]).isfinite().all()
    assert remote.server.is_back()


def test_a_proxy_is_not_asked(serve, rewards, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert RemoteReward(serve(rewards).url, reward="tiny-clip").score(pictures(1), ["a"]).isfinite().all()


# ---- what goes wrong


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_what_may_pass_is_tried_again(status):
    busy = (status, {}, b"<html>busy</html>")
    with scripted(OFFER, busy, busy, SCORED) as (url, seen):
        assert RemoteReward(url, retries=2).score(pictures(1), ["a"]).tolist() == [0.5]
        assert [path for _, _, path, _ in seen] == ["/v1/rewards"] + ["/v1/score"] * 3


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 301])
def test_what_will_not_pass_is_told_at_once_with_the_servers_reason(status):
    with scripted(OFFER, (status, {"Location": "/"}, {"error": "picture 3 is NaN"})) as (url, seen):
        with pytest.raises(RewardError, match=f"the server {url} answered {status}: picture 3 is NaN") as caught:
            RemoteReward(url).score(pictures(1), ["a"])
        assert not isinstance(caught.value, RewardUnavailable)
        assert len(seen) == 2


def test_pauses_grow_and_retry_after_is_honoured(monkeypatch):
    monkeypatch.setattr(transport_module, "FIRST_PAUSE", 0.1)
    waited = []
    monkeypatch.setattr(transport_module.Server, "_pause", lambda self, seconds: waited.append(seconds))
    date = (503, {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))}, {})
    told = [
        (429, {"Retry-After": "7"}, {}),
        (429, {"Retry-After": "100000"}, {}),
        date,
        (429, {"Retry-After": "x"}, {}),
    ]
    with scripted(*[DOWN] * 3, *told, DOWN) as (url, seen), pytest.raises(RewardUnavailable):
        RemoteReward(url, retries=8).score(pictures(1), ["a"])
    assert len(seen) == 9
    for pause, longest in zip(waited[:3], (0.1, 0.2, 0.4), strict=True):
        assert longest / 2 <= pause <= longest
    assert waited[3:5] == [7.0, 30.0]
    assert 15 < waited[5] <= 20
    assert 0.1 * 2**6 / 2 <= waited[6] <= 0.1 * 2**6


def test_a_server_that_is_gone_is_unavailable_and_its_return_is_noticed(serve, rewards):
    with scripted(DOWN) as (url, seen):
        with pytest.raises(RewardUnavailable, match=f"{url} answered 503: the server is stopping") as caught:
            RemoteReward(url, retries=3).score(pictures(1), ["a"])
        assert len(seen) == 4
        assert not caught.value.is_back()
    with pytest.raises(RewardUnavailable, match=f"{url} cannot be reached") as caught:
        RemoteReward(url, retries=0).score(pictures(1), ["a"])
    assert not caught.value.is_back()
    serve(rewards, port=int(url.rpartition(":")[2]))
    assert caught.value.is_back()


def test_a_connection_that_breaks_in_mid_answer_is_tried_again():
    cut = (200, {"Content-Length": "1000"}, b'{"scores": {"a": [0.')
    with scripted(OFFER, cut, SCORED) as (url, _):
        assert RemoteReward(url, retries=1, timeout=1).score(pictures(1), ["a"]).tolist() == [0.5]


class Never:
    def __init__(self):
        self.gate = threading.Event()

    def score(self, images, prompts):
        self.gate.wait(GUARD)
        return torch.zeros(len(images))


def test_an_answer_that_does_not_come_is_given_up_and_the_work_is_dropped(serve):
    never = Never()
    served = serve({"never": never})
    with pytest.raises(RewardUnavailable, match=r"did not answer within 0\.3 s"):
        RemoteReward(served.url, timeout=0.3, retries=0).score(pictures(1), ["a"])
    until(lambda: not served.service.admission.requests)
    never.gate.set()


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("where", ["answer", "pause"])
def test_waiting_can_be_ended_from_outside(serve, monkeypatch, where):
    """As ComfyUI's Cancel does, while an answer is awaited and between two tries."""
    monkeypatch.setattr(transport_module, "FIRST_PAUSE", 2 * GUARD)
    monkeypatch.setattr(transport_module, "LONGEST_PAUSE", 2 * GUARD)
    never = Never()
    url = serve({"never": never}).url if where == "answer" else "http://127.0.0.1:9"
    remote, began = RemoteReward(url, timeout=2 * GUARD), time.monotonic()

    def cancel():
        if time.monotonic() > began + 0.3:
            raise Cancelled

    remote.server.while_waiting = cancel
    with pytest.raises(Cancelled):
        remote.score(pictures(1), ["a"])
    never.gate.set()
    assert time.monotonic() < began + GUARD


NO_SERVERS = {
    "a page": [(200, {}, b"<html></html>")],
    "a list": [(200, {}, [])],
    "other JSON": [(200, {}, {"hello": 1})],
    "no scores": [OFFER, (200, {}, {"hello": 1})],
    "too few scores": [OFFER, (200, {}, {"scores": {"a": []}})],
    "scores of another type": [OFFER, (200, {}, {"scores": {"a": ["x"]}})],
}


@pytest.mark.parametrize("case", list(NO_SERVERS))
def test_what_is_no_reward_server_is_named(case):
    with (
        scripted(*NO_SERVERS[case]) as (url, _),
        pytest.raises(RewardError, match=f"{url} (is no reward server|answered no JSON object)"),
    ):
        RemoteReward(url).score(pictures(1), ["a"])


OPTIONS = {
    "no url": ({"url": ""}, "url '' is no address of a server"),
    "no scheme": ({"url": "localhost:8190"}, "write http://host:port"),
    "another scheme": ({"url": "ftp://a"}, "write http://host:port"),
    "a port": ({"url": "http://a:99999"}, "is no address .*: write http://host:port"),
    "a password": ({"url": "http://me:secret@a"}, "must hold no user or password, a run stores it: use token_env"),
    "timeout": ({"url": "http://a", "timeout": 0}, "timeout = 0: must be above 0"),
    "timeout's type": ({"url": "http://a", "timeout": "9"}, "timeout = '9': must be above 0"),
    "retries": ({"url": "http://a", "retries": -1}, "retries = -1: must be between 0 and 100"),
    "reward": ({"url": "http://a", "reward": 3}, "reward = 3: must be text"),
}


@pytest.mark.parametrize("case", list(OPTIONS))
def test_a_bad_option_is_one_line_with_the_remedy(case):
    options, message = OPTIONS[case]
    with pytest.raises(RewardError, match=message) as caught:
        build("remote", options, "cpu")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_that_cannot_be_scored_are_not_sent():
    with pytest.raises(RewardError, match="nan"):
        RemoteReward("http://127.0.0.1:9").score(torch.full((1, 3, 8, 8), torch.nan), ["a"])
