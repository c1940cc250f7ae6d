"""What the remote reward does if a server does not answer, or answers something else."""

import asyncio
import gzip
import threading
import time

import pytest
import torch
from patience import GUARD, until
from scripted import DOWN, OFFER, SCORED, endless, scripted
from served import servers

from trainer.rewards import RewardError, RewardUnavailable, build
from trainer.rewards import transport as transport_module
from trainer.rewards.remote import RemoteReward

serve = pytest.fixture(servers)


@pytest.fixture(scope="module")
def rewards():
    return {"tiny-clip": build("tiny-clip", {}, "cpu")}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(transport_module, "FIRST_PAUSE", 0.01)


def pictures(n: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("answer", "back"), [((200, {}, {}), True), ((404, {}, {}), True), ((500, {}, b"oops"), False), (DOWN, False)]
)
def test_a_server_is_back_if_it_answers_be_it_with_a_refusal(answer, back):
    with scripted(answer) as (url, _):
        assert build("remote", {"url": url}, "cpu").server.is_back() is back


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504])
def test_what_may_pass_is_tried_again(status):
    busy = (status, {}, b"<html>busy</html>")
    with scripted(OFFER, busy, busy, SCORED) as (url, seen):
        assert RemoteReward(url, retries=2).score(pictures(1), ["a"]).tolist() == [0.5]
        assert [path for _, _, path, _ in seen] == ["/v1/rewards"] + ["/v1/score"] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 301, 505])
def test_what_will_not_pass_is_told_at_once_with_the_servers_reason(status):
    with scripted(OFFER, (status, {"Location": "/"}, {"error": "picture 3 is NaN"})) as (url, seen):
        with pytest.raises(RewardError, match=f"the server {url} answered {status}: picture 3 is NaN") as caught:
            RemoteReward(url).score(pictures(1), ["a"])
        assert not isinstance(caught.value, RewardUnavailable)
        assert len(seen) == 2


def test_pauses_grow_and_retry_after_is_honoured(monkeypatch):
    monkeypatch.setattr(transport_module, "FIRST_PAUSE", 0.1)
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(transport_module, "sleep", sleep)
    date = (503, {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))}, {})
    told = [
        (429, {"Retry-After": "7"}, {}),
        (429, {"Retry-After": "100000"}, {}),
        date,
        (429, {"Retry-After": "x"}, {}),
        (429, {"Retry-After": "\u00b2"}, {}),  # a digit that is no number
        (429, {"Retry-After": "9" * 400}, {}),
        (429, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359"}, {}),
    ]
    with scripted(*[DOWN] * 3, *told, DOWN) as (url, seen), pytest.raises(RewardUnavailable):
        RemoteReward(url, retries=11).score(pictures(1), ["a"])
    assert len(seen) == 12
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


def test_an_answer_that_does_not_come_is_given_up_and_the_work_is_dropped(serve, monkeypatch):
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT", 2 * GUARD)
    never, began = Never(), time.monotonic()
    served = serve({"never": never})
    with pytest.raises(RewardUnavailable, match=r"did not answer within 0\.3 s"):
        RemoteReward(served.url, timeout=0.3, retries=0).score(pictures(1), ["a"])
    assert time.monotonic() < began + GUARD
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


def test_an_answer_that_grows_and_grows_is_not_read_on():
    with pytest.raises(RewardError, match="answered more than 16 MiB") as caught:
        RemoteReward(endless(part=b"[" * 2**16), retries=0).score(pictures(1), ["a"])
    assert not isinstance(caught.value, RewardUnavailable)


def test_an_answer_that_trickles_in_has_an_end(monkeypatch):
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT", 0.1)
    with pytest.raises(RewardUnavailable, match=r"did not answer within 0\.2 s"):
        RemoteReward(endless(pause=0.05), retries=0, timeout=0.2).score(pictures(1), ["a"])


def test_a_packed_answer_is_not_unpacked():
    bomb = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"[" * 2**20))
    with scripted(bomb) as (url, _), pytest.raises(RewardError, match="answered no JSON object but"):
        RemoteReward(url).score(pictures(1), ["a"])


def test_a_redirect_is_not_followed_and_its_goal_sees_no_token(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    with (
        scripted(OFFER) as (elsewhere, seen),
        scripted((307, {"Location": f"{elsewhere}/v1/rewards"}, {})) as (url, asked),
        pytest.raises(RewardError, match=f"{url} answered 307"),
    ):
        RemoteReward(url, token_env="MY_TOKEN").score(pictures(1), ["a"])
    assert asked[0][3]["Authorization"] == "Bearer secret"
    assert seen == []


def test_it_asks_from_within_a_running_event_loop():
    """As ComfyUI runs its nodes."""

    async def node():
        return RemoteReward(url).score(pictures(1), ["a"]).tolist()

    with scripted(OFFER, SCORED) as (url, _):
        assert asyncio.run(node()) == [0.5]


def test_each_request_has_a_connection_of_its_own():
    """A server that is stopped between two iterations leaves no connection that only looks alive."""
    with scripted(OFFER, SCORED) as (url, seen):
        RemoteReward(url).score(pictures(1), ["a"])
    assert [headers["Connection"] for _, _, _, headers in seen] == ["close"] * 2


def test_an_answer_of_a_million_brackets_is_no_answer():
    with scripted((200, {}, b"[" * 2**20)) as (url, _), pytest.raises(RewardError, match="answered no JSON object but"):
        RemoteReward(url).score(pictures(1), ["a"])


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
