"""The remote reward against real servers: its scores, its token, its way to them."""

import math

import pytest
import torch
from scripted import OFFER, scripted
from served import servers

from trainer.rewards import RewardError, build
from trainer.rewards.remote import RemoteReward

serve = pytest.fixture(servers)
PROMPTS = ["red apple on a blue background", "zebra", "", '\N{SNOWMAN} "quoted"']


@pytest.fixture(scope="module")
def rewards():
    return {kind: build(kind, {}, "cpu") for kind in ("colourfulness", "tiny-clip")}


def pictures(n: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


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
