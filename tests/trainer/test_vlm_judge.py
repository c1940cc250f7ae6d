"""The VLM judge against a server of its own that plays an OpenAI endpoint: right, slow, busy, talking nonsense."""

import base64
import io
import logging
import math
import time

import numpy as np
import pytest
import torch
from aiohttp import web
from chat_endpoint import GOOD, ChatEndpoint
from patience import GUARD
from PIL import Image

from trainer.rewards import RewardError, build, transport
from trainer.rewards.vlm import FINAL_SCORE, UNIFIED_REWARD, VlmJudge, as_data_url


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.01)
    server = ChatEndpoint()
    yield server
    server.stop()


def judge(server: ChatEndpoint, **options) -> VlmJudge:
    return build("vlm-judge", {"url": server.url, **options}, "cpu")


def pictures(n: int, size: int = 32) -> torch.Tensor:
    """Picture k is grey, k of 255."""
    return (torch.arange(n).float() / 255).view(n, 1, 1, 1).expand(n, 3, size, size)


def sent(request: dict) -> tuple[np.ndarray, str]:
    """The picture and the question of a request."""
    image, text = request["messages"][0]["content"]
    head, _, data = image["image_url"]["url"].partition(",")
    assert (image["type"], text["type"], head) == ("image_url", "text", "data:image/png;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), text["text"]


def test_the_question_is_unified_rewards_and_its_answer_is_a_fifth_of_the_final_score(server):
    scores = judge(server).score(pictures(1), ["a red apple {on} a [table] 100%"])
    assert scores.tolist() == pytest.approx([0.8])
    ((headers, request),) = server.seen
    picture, question = sent(request)
    assert question.endswith("Text Caption: [a red apple {on} a [table] 100%]")
    assert question.startswith("You are given a text caption and a generated image based on that caption. Your task is")
    assert (request["model"], request["temperature"]) == ("UnifiedReward", 0)
    assert picture.shape == (512, 512, 3)
    assert "Authorization" not in headers


def test_each_picture_gets_the_score_of_its_own_answer(server):
    """Twenty at once, answered in any order."""
    server.delay = lambda request: 0.02
    server.answers = [lambda request: f"Final Score: {sent(request)[0][0, 0, 0] / 4} of {sent(request)[1]}"]
    reward = judge(server, size=32, template="rate {prompt}", pattern=r"Final Score: ([\d.]+)", concurrency=4)
    scores = reward.score(pictures(20), [f"prompt {n}" for n in range(20)])
    assert scores.tolist() == pytest.approx([n / 20 for n in range(20)])
    assert {sent(request)[1] for _, request in server.seen} == {f"rate prompt {n}" for n in range(20)}
    assert 2 <= server.most_busy <= 4


@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 64), (100, 30), (48, 48)])
def test_the_longest_edge_is_brought_to_the_size_and_the_shape_is_kept(server, width, height):
    image = torch.zeros(1, 3, height, width)
    image[:, :, : height // 2, : width // 2] = torch.tensor([1.0, 0.4, 0.0]).view(1, 3, 1, 1)
    judge(server, size=64).score(image, [""])
    picture, _ = sent(server.seen[0][1])
    scale = 64 / max(width, height)
    assert picture.shape == (round(height * scale), round(width * scale), 3)
    assert picture[1, 1].tolist() == [255, 102, 0]
    middle = [n // 2 for n in picture.shape[:2]]
    assert picture[: middle[0] - 1, : middle[1] - 1, 0].min() > 200  # at the edge it overshoots white
    assert picture[middle[0] + 1 :, middle[1] + 1 :].max() < 50


def test_a_picture_of_the_right_size_arrives_bit_for_bit():
    image = torch.randint(0, 256, (3, 40, 24), generator=torch.Generator().manual_seed(0)) / 255
    data = base64.b64decode(as_data_url(image, 40).partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), (image * 255).round().byte().permute(1, 2, 0))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Final Score: 3.62", 0.724),
        ("Final Score:5", 1),
        ("Final Score: 0", 0),
        ("I first thought Final Score: 2, but no.\nFinal Score: 4", 0.8),
    ],
)
def test_the_last_score_of_an_answer_counts(server, answer, expected):
    server.answers = [answer]
    assert judge(server).score(pictures(1), ["a"]).tolist() == pytest.approx([expected])
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("answer", "best", "expected"),
    [
        ("**Final Score:** 4", 5, 0.8),
        ("Final Score: **4**", 5, 0.8),
        ("### Final Score\n\n4 / 5", 5, 0.8),
        ("| Final Score | 4 |", 5, 0.8),
        ("_Score_: 4", 5, 0.8),
        ("The overall rating is 4.", 5, 0.8),
        ("Final Score: $\\boxed{4}$", 5, 0.8),
        ("**Score:** 7/10", 10, 0.7),
        ("**Score:** 7/10", 5, 0.7),
        ("Rating: 8.5 out of 10", 10, 0.85),
        ("Rating: **8.5** out of **10**", 10, 0.85),
        ("Final Score: 4/10", 5, 0.4),
        ("Score (1-10): 7", 5, 0.7),
        ("**Final Score (out of 5):** 4", 5, 0.8),
        ("Score: 70%", 10, 0.7),
        ('```json\n{"score": 7}\n```', 10, 0.7),
        ('```json\n{"score": "7/10"}\n```', 10, 0.7),
        ('{"alignment_score": 4, "quality_score": 2, "final_score": 3}', 5, 0.6),
        ("Score: 4. It has 5 apples", 5, 0.8),
        ("Score: 4\n**Score: 4**", 5, 0.8),
    ],
)
def test_a_score_in_markdown_or_json_and_what_it_is_out_of_are_read(server, answer, best, expected):
    server.answers = [answer]
    assert judge(server, scale=best).score(pictures(1), ["a"]).tolist() == pytest.approx([expected])
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        '{"alignment_score": 4, "quality_score": 2}',
        "**Composition Score:** 3/5\n**Colour Score:** 4/5",
        "Final Score: 3-4",
        "Final Score: 3 to 4",
        "Score: 3 or 4",
        "Final Score: 3,5",
        "Score: 3.5.1",
        "Score: - 1",
        "**Score:** -1",
        "Score: 11/10",
        "Score: 0/0",
        "Score: N/A, 4 of them",
        "I would give it a 4",
    ],
)
def test_what_an_answer_leaves_open_is_no_score(server, answer):
    assert math.isnan(judge(server).read(answer))


def test_a_pattern_of_ones_own_is_the_only_one_and_takes_whole_numbers(server):
    own = judge(server, pattern=r"Beauty: (\d+)", scale=10)
    assert own.read("Final Score: 4, Beauty: 7") == pytest.approx(0.7)
    assert own.read("Beauty: 3/4") == pytest.approx(0.75)
    assert math.isnan(own.read("Final Score: 4"))
    assert math.isnan(own.read("Beauty: 7.5"))
    assert math.isnan(judge(server, pattern="Beauty: (.*)").read("Beauty: high"))


NONSENSE = ["", None, "no idea", "Final Score: high", "Final Score: 45", "Final Score: -1", "Final Score: 5.01"]


@pytest.mark.parametrize("answer", NONSENSE)
def test_an_answer_without_a_score_in_range_is_asked_for_once_more(server, answer):
    server.answers = [answer, GOOD]
    assert judge(server).score(pictures(1), ["a"]).tolist() == pytest.approx([0.8])
    first, second = (request for _, request in server.seen)
    assert (first["temperature"], second["temperature"]) == (0, 1)  # else it would answer the same
    assert first["messages"] == second["messages"]


@pytest.mark.parametrize("answer", NONSENSE)
def test_after_that_the_picture_counts_as_nan_and_this_is_told_once(server, answer, caplog):
    server.answers = [lambda request: answer if sent(request)[1].endswith("[bad]") else GOOD]
    reward = judge(server)
    with caplog.at_level(logging.WARNING):
        scores = reward.score(pictures(3), ["good", "bad", "bad"])
        reward.score(pictures(1), ["bad"])
    assert scores.isnan().tolist() == [False, True, True]
    assert len(server.seen) == 7
    (line,) = caplog.messages
    assert "no score from 0 to 5" in line


def test_a_scale_and_a_pattern_of_ones_own(server):
    server.answers = ["<score>73</score> of 100"]
    template = 'Answer {"score": n}: is {prompt} there? Is {prompt} red?'
    reward = judge(server, scale=100, pattern="<score>(.*?)</score>", template=template, model="m")
    assert reward.score(pictures(1), ["a {cat}"]).tolist() == pytest.approx([0.73])
    assert sent(server.seen[0][1])[1] == 'Answer {"score": n}: is a {cat} there? Is a {cat} red?'
    assert server.seen[0][1]["model"] == "m"


def test_a_busy_server_is_asked_again_after_the_time_it_names(server):
    busy = {"status": 429, "headers": {"Retry-After": "1"}}
    server.answers = [web.json_response({"error": {"message": "slow down"}}, **busy), web.Response(status=503), GOOD]
    began = time.monotonic()
    assert judge(server).score(pictures(1), ["a"]).tolist() == pytest.approx([0.8])
    assert time.monotonic() - began >= 1
    assert len(server.seen) == 3


def test_a_server_that_stays_busy_ends_in_one_sentence(server):
    server.answers = [lambda request: web.json_response({"error": {"message": "slow down"}}, status=429)]
    with pytest.raises(RewardError, match=r"answered 429: .*slow down") as caught:
        judge(server, retries=2).score(pictures(1), ["a"])
    assert len(server.seen) == 3
    assert "\n" not in str(caught.value)


def test_a_slow_server_is_given_up_after_the_timeout_and_its_tries(server):
    server.delay = lambda request: GUARD
    with pytest.raises(RewardError, match=r"did not answer within 0.2 s"):
        judge(server, timeout=0.2, retries=1).score(pictures(1), ["a"])
    assert len(server.seen) == 2


def test_a_refusal_is_not_repeated_and_ends_the_other_questions(server):
    server.answers = [lambda request: web.json_response({"error": {"message": "no model 'x'"}}, status=404)]
    with pytest.raises(RewardError, match=r"answered 404: .*no model 'x'"):
        judge(server, concurrency=2).score(pictures(40), ["a"] * 40)
    time.sleep(0.5)
    assert len(server.seen) < 20


def test_a_refusal_does_not_wait_for_slow_answers(server):
    server.delay = lambda request: 0.0 if sent(request)[1] == "refused" else GUARD
    server.answers = [lambda request: web.json_response({"error": "no"}, status=404)]
    began = time.monotonic()
    with pytest.raises(RewardError, match="answered 404: no"):
        judge(server, size=32, template="{prompt}", timeout=2 * GUARD).score(
            pictures(4), ["refused", "slow", "slow", "slow"]
        )
    assert time.monotonic() - began < GUARD


def test_a_server_that_is_not_there_is_named(server):
    server.stop()
    with pytest.raises(RewardError, match=f"{server.url} cannot be reached"):
        judge(server, retries=1).score(pictures(1), ["a"])


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"text": "<html>hello</html>"}, "answered no JSON object but b'<html>hello"),
        ({"text": "[1]"}, "answered no JSON object"),
        ({"text": "{}"}, "has no chat completions like OpenAI's: it answered {}"),
        ({"text": '{"choices": []}'}, "has no chat completions like OpenAI's"),
    ],
)
def test_another_kind_of_server_is_refused_with_what_it_answered(server, response, message):
    server.answers = [lambda request: web.Response(**response)]
    with pytest.raises(RewardError, match=message):
        judge(server).score(pictures(1), ["a"])


def test_the_url_may_end_in_v1(server):
    for suffix in ("/", "/v1", "/v1/"):
        assert judge(server, url=server.url + suffix).score(pictures(1), ["a"]).tolist() == pytest.approx([0.8])


def test_no_proxy_comes_between(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert judge(server, retries=0).score(pictures(1), ["a"]).tolist() == pytest.approx([0.8])


def test_the_token_comes_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("JUDGE_TOKEN", "secret\n")
    judge(server, token_env="JUDGE_TOKEN").score(pictures(1), ["a"])
    assert server.seen[0][0]["Authorization"] == "Bearer secret"
    monkeypatch.delenv("JUDGE_TOKEN")
    with pytest.raises(RewardError, match="token_env = 'JUDGE_TOKEN': this environment variable is not set"):
        judge(server, token_env="JUDGE_TOKEN")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"template": "rate this"}, "template = 'rate this': must have {prompt}"),
        ({"pattern": "Score: ("}, "not a regular expression"),
        ({"pattern": r"Score: \d"}, "must have one group"),
        ({"pattern": r"(a)(b)"}, "must have one group"),
        ({"scale": 0}, "scale = 0: must be from"),
        ({"scale": "5"}, "scale = '5': must be from"),
        ({"size": 8}, "size = 8: must be from 16 to 4096"),
        ({"size": 64.5}, "size = 64.5: must be from"),
        ({"concurrency": 0}, "concurrency = 0: must be from 1 to 256"),
        ({"timeout": 0}, "timeout = 0: must be from"),
        ({"retries": -1}, "retries = -1: must be from 0"),
        ({"retries": True}, "retries = True: must be from 0"),
        ({"model": 7}, "model = 7: must be text"),
        ({"url": ""}, "url '' is no address of a server"),
        ({"url": "127.0.0.1:8000"}, "'127.0.0.1:8000' is no address of a server"),
        ({"url": "http://me:pw@host"}, "must hold no user or password"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_its_value(option, message):
    with pytest.raises(RewardError) as caught:
        build("vlm-judge", {"url": "http://127.0.0.1:1", **option}, "cpu")
    assert message in str(caught.value)


def test_the_default_question_and_pattern_belong_together():
    assert UNIFIED_REWARD.count("{prompt}") == 1
    assert "from 1 to 5 after 'Final Score:'" in UNIFIED_REWARD
    assert FINAL_SCORE.startswith("Final Score:")
