"""The reward server over real HTTP: scores, limits, refusals, batching, and its end."""

import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save
from served import image_file, multipart, servers

from trainer.config import ConfigError
from trainer.reward_server.config import ServerSettings, load_server_config
from trainer.rewards import RewardError, RewardUnavailable, build

serve = pytest.fixture(servers)
PNG, WEBP, TENSORS = "image/png", "image/webp", "application/x-safetensors"
PROMPTS = ["red apple on a blue background", "", "zebra " * 500, '\N{SNOWMAN} \u4e2d\u6587 "quotes"\n\x00']


@pytest.fixture(scope="module")
def rewards():
    return {kind: build(kind, {}, "cpu") for kind in ("colourfulness", "jpeg-compressibility", "tiny-clip")}


def pixels(n: int, *, size: tuple[int, int] = (64, 64), seed: int = 0) -> torch.Tensor:
    """[n, 3, H, W] uint8."""
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def close(found, expected) -> None:
    """To 1e-6, or to float32's own rounding where the scores are large."""
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-6, rtol=1e-6)


class Slow:
    """Means of pictures, each batch after `gate` opens; remembers the sizes of the batches."""

    def __init__(self):
        self.gate, self.begun, self.sizes = threading.Event(), threading.Event(), []

    def score(self, images, prompts):
        self.sizes.append(len(images))
        self.begun.set()
        assert self.gate.wait(30)
        return images.flatten(1).mean(1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_files_of_8_bits_get_the_score_of_these_8_bits(serve, rewards, kind):
    images = pixels(4, size=(48, 80))
    parts = [("images", f"image/{kind.lower()}", image_file(image, kind)) for image in images]
    answer = serve(rewards).score({"prompts": PROMPTS}, *parts)
    assert answer.status == 200, answer.data
    assert answer.json["scores"].keys() == rewards.keys()
    for name, reward in rewards.items():
        close(answer.json["scores"][name], reward.score(images.float() / 255, PROMPTS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tensor_is_scored_as_it_is(serve, rewards, dtype):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    file = ("images", TENSORS, save({"images": images}))
    answer = serve(rewards).score({"prompts": PROMPTS, "rewards": ["tiny-clip", "colourfulness"]}, file)
    assert list(answer.json["scores"]) == ["tiny-clip", "colourfulness"]
    for name, scores in answer.json["scores"].items():
        close(scores, rewards[name].score(images.float(), PROMPTS))
    rounded = rewards["tiny-clip"].score((images.float() * 255).round() / 255, PROMPTS)
    assert (torch.tensor(answer.json["scores"]["tiny-clip"]) - rounded).abs().max() > 1e-6


def test_greyscale_and_pictures_of_several_sizes_come_in_one_request(serve, rewards):
    images = [pixels(1, size=size, seed=i)[0] for i, size in enumerate([(64, 64), (32, 80), (64, 64), (1, 1)])]
    files = [("images", PNG, image_file(image)) for image in images]
    files[3] = ("images", PNG, image_file(images[3][:1].expand(3, -1, -1)))
    images[3] = images[3][:1].expand(3, -1, -1)
    answer = serve(rewards).score({"prompts": PROMPTS, "rewards": ["colourfulness"]}, *files)
    alone = torch.cat([rewards["colourfulness"].score(i[None].float() / 255, [""]) for i in images])
    close(answer.json["scores"]["colourfulness"], alone)


def test_a_score_that_is_no_number_is_null(serve):
    class Broken:
        def score(self, images, prompts):
            return torch.tensor([float("nan"), float("inf"), 1 / 3])

    parts = [("images", PNG, image_file(image)) for image in pixels(3)]
    answer = serve({"broken": Broken()}).score({"prompts": ["a", "b", "c"]}, *parts)
    assert answer.json["scores"]["broken"] == [None, None, torch.tensor(1 / 3).item()]


def test_rewards_and_health_are_told(serve, rewards):
    served = serve({"a": rewards["colourfulness"]}, max_images=7, max_pixels=100, max_bytes=1000, queue_bytes=1500)
    told = served.request("GET", "/v1/rewards").json
    assert told == {
        "rewards": [{"name": "a", "kind": "test"}],
        "limits": {"images": 7, "pixels": 100, "bytes": 750},
    }
    assert served.request("GET", "/health").json == {"status": "ok", "requests": 0}


# ---- what is refused


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", *extra: bytes) -> bytes:
    """A PNG that claims a size, whatever its data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ZEROS = zlib.compress(bytes(64 * (64 * 3 + 1)))
GOOD = png(64, 64, ZEROS)
ONE = {"prompts": ["a"]}


def tensor(images: torch.Tensor, name: str = "images") -> tuple:
    return ("images", TENSORS, save({name: images}))


def lying(shape: list[int]) -> tuple:
    header = json.dumps({"images": {"dtype": "F32", "shape": shape, "data_offsets": [0, 12]}}).encode()
    return ("images", TENSORS, struct.pack("<Q", len(header)) + header + bytes(12))


def image(data: bytes, kind: str = PNG) -> tuple:
    return ("images", kind, data)


NAN = torch.full((1, 3, 8, 8), 0.5)
NAN[0, 1, 2, 3] = float("nan")
REFUSED = {
    "no request": ([image(GOOD)], 400, "'request' is missing"),
    "no images": ([ONE], 400, "'images' is missing"),
    "two requests": ([ONE, ONE, image(GOOD)], 400, "two parts 'request'"),
    "another part": ([ONE, ("file", PNG, GOOD)], 400, "part 'file'"),
    "nested": ([ONE, ("images", "multipart/mixed; boundary=x", b"--x\r\n\r\n--x--")], 400, "part None"),
    "no JSON": ([("request", "application/json", "{"), image(GOOD)], 400, "is no JSON"),
    "deep JSON": ([("request", "application/json", "[" * 100_000), image(GOOD)], 400, "is no JSON"),
    "long number": ([("request", "application/json", "1" * 10_000), image(GOOD)], 400, "JSON"),
    "long JSON": ([("request", "application/json", " " * 2**21), image(GOOD)], 413, "2097152 bytes"),
    "JSON list": ([("request", "application/json", "[]"), image(GOOD)], 400, "must be a JSON object"),
    "no UTF-8": ([("request", "application/json", b'{"prompts": ["\xff"]}'), image(GOOD)], 400, "is no JSON"),
    "unknown key": ([ONE | {"reward": "a"}, image(GOOD)], 400, "'reward' is no key of 'request'"),
    "no prompts": ([{}, image(GOOD)], 400, "prompts must be a list of texts"),
    "empty prompts": ([{"prompts": []}, image(GOOD)], 400, "1 images and 0 prompts"),
    "prompts of another type": ([{"prompts": ["a", 1]}, image(GOOD)], 400, "prompts must be a list of texts"),
    "prompts as text": ([{"prompts": "a"}, image(GOOD)], 400, "prompts must be a list of texts"),
    "half a surrogate pair": ([{"prompts": ["a\ud800"]}, image(GOOD)], 400, "prompts[0] is no Unicode"),
    "fewer images": ([{"prompts": ["a", "b"]}, image(GOOD)], 400, "1 images and 2 prompts"),
    "unknown reward": ([ONE | {"rewards": ["hps"]}, image(GOOD)], 404, "no reward 'hps': the server has colourf"),
    "rewards of another type": ([ONE | {"rewards": [1]}, image(GOOD)], 400, "rewards must be a list of names"),
    "no rewards": ([ONE | {"rewards": []}, image(GOOD)], 400, "and one at least"),
    "another type": ([ONE, image(GOOD, "image/jpeg")], 415, "images[0] is 'image/jpeg': must be image/png"),
    "pickle": ([ONE, image(b"\x80\x04.", "application/octet-stream")], 415, "must be image/png"),
    "truncated": ([ONE, image(GOOD[:-30])], 400, "images[0] is no whole PNG file"),
    "truncated header": ([ONE, image(GOOD[:20])], 400, "images[0] is no whole PNG file"),
    "empty": ([ONE, image(b"")], 400, "images[0] is no whole PNG file"),
    "garbage": ([ONE, image(bytes(range(256)) * 9)], 400, "images[0] is no whole PNG file"),
    "WebP as PNG": ([ONE, image(b"RIFF\x24\0\0\0WEBPVP8 ")], 400, "images[0] is no whole PNG file"),
    "bad compression": ([ONE, image(png(64, 64, b"\0" * 99))], 400, "images[0] is no whole PNG file"),
    "16 bits": ([ONE, image(GOOD.replace(b"\x08\x02\0\0\0", b"\x10\x00\0\0\0", 1))], 400, "images[0] is"),
    "beyond the pixels": ([ONE, image(png(513, 512))], 413, "images[0] is 513 x 512: at most 262144 pixels"),
    "decompression bomb": ([ONE, image(png(60_000, 60_000, ZEROS))], 413, "is far too large"),
    "text bomb": (
        [ONE, image(png(64, 64, ZEROS, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))))],
        400,
        "images[0] is no whole PNG file",
    ),
    "too many": ([{"prompts": ["a"] * 5}, *[image(GOOD)] * 5], 413, "5 images: at most 4"),
    "too many in a tensor": ([{"prompts": ["a"] * 5}, tensor(torch.zeros(5, 3, 8, 8))], 413, "5 images: at most 4"),
    "tensor beyond the pixels": ([ONE, tensor(torch.zeros(1, 3, 513, 512))], 413, "512 x 513: at most 262144"),
    "NaN": ([ONE, tensor(NAN)], 400, "nan"),
    "infinite": ([ONE, tensor(torch.full((1, 3, 8, 8), torch.inf))], 400, "inf"),
    "out of range": ([ONE, tensor(torch.full((1, 3, 8, 8), 255.0))], 400, "255"),
    "whole numbers": ([ONE, tensor(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))], 400, "uint8"),
    "channels last": ([ONE, tensor(torch.zeros(1, 8, 8, 3))], 400, "[1, 8, 8, 3]"),
    "no pictures in the tensor": ([ONE, tensor(torch.zeros(0, 3, 8, 8))], 400, "[0, 3, 8, 8]"),
    "no prompts for a tensor": ([{"prompts": []}, tensor(torch.zeros(1, 3, 8, 8))], 400, "0 prompts"),
    "another tensor": ([ONE, tensor(torch.zeros(1, 3, 8, 8), "x")], 400, "must hold one tensor, 'images'"),
    "tensor and file": ([ONE, tensor(torch.zeros(1, 3, 8, 8)), image(GOOD)], 400, "holds all pictures"),
    "a tensor that lies": ([ONE, lying([1, 3, 1000, 1000])], 400, "does not load"),
    "a tensor that lies about all": ([ONE, lying([2**40, 3, 2**20, 2**20])], 400, "does not load"),
    "a tensor's huge header": ([ONE, ("images", TENSORS, struct.pack("<Q", 2**62))], 400, "is broken"),
    "a tensor of few bytes": ([ONE, ("images", TENSORS, b"\0")], 400, "does not load"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_be_scored_is_refused_with_the_reason(serve, rewards, case):
    limited = serve(rewards, max_images=4, max_pixels=512 * 512)
    parts, status, reason = REFUSED[case]
    answer = limited.score(*parts)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json; charset=utf-8"), answer.data
    assert reason in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert limited.score(ONE, image(GOOD)).status == 200
    assert limited.service.admission.requests == limited.service.admission.bytes == 0


def test_a_body_that_is_no_form_is_refused_before_it_is_read(serve, rewards):
    served = serve(rewards, max_bytes=20_000)
    body, kind = multipart(ONE, image(GOOD))

    def status(body=body, **headers):
        answer = served.request("POST", "/v1/score", body, **{"Content_Type": kind, **headers})
        assert answer.json["error"]
        return answer.status

    assert status(Content_Type="application/json") == 415
    assert status(Content_Type="multipart/form-data") == 400  # no boundary
    assert status(Content_Type="multipart/form-data; boundary=other") == 400
    assert status(Content_Encoding="gzip") == 415
    assert status(b"") == 400
    assert status(body[:-9]) in (200, 400)  # the closing boundary is missing
    assert status(body[: len(body) // 2]) == 400
    assert status(body + bytes(20_000)) == 413
    assert status(iter([body])) == 411  # chunked, without a length
    assert served.request("POST", "/v1/score", body, Content_Type=kind).status == 200


def test_other_routes_and_methods_are_refused_as_json(serve, rewards):
    served = serve(rewards)
    assert served.request("GET", "/v1/score").status == 405
    assert served.request("GET", "/v1/score").headers["Allow"] == "POST"
    assert served.request("POST", "/nothing").json == {"error": "Not Found"}


def test_a_token_is_asked_for_everywhere_but_for_health(serve, rewards):
    served = serve(rewards, token="s\u00e9cret")
    for given in ("", "Bearer", "Bearer ", "Bearer secret", "bearer s\u00e9cret", "s\u00e9cret", "Bearer s\u00e9cret2"):
        answer = served.score(ONE, image(GOOD), Authorization=given.encode("utf-8").decode("latin-1"))
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert served.request("GET", "/v1/rewards").status == 401
    assert served.request("GET", "/health").status == 200
    right = "Bearer s\u00e9cret".encode().decode("latin-1")
    assert served.score(ONE, image(GOOD), Authorization=right).status == 200


def test_a_reward_that_fails_fails_its_own_request_only(serve):
    class Picky:
        def score(self, images, prompts):
            if "refuse" in prompts:
                raise RewardError("no quoted text in the prompt")
            if "later" in prompts:
                raise RewardUnavailable("the judge is asleep")
            if "crash" in prompts:
                raise RuntimeError("secret path")
            if "short" in prompts:
                return torch.zeros(0)
            return images.flatten(1).mean(1)

    served = serve({"picky": Picky()}, batch_window=0.3)
    asked = ["fine", "refuse", "fine", "crash", "later", "short"]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda prompt: served.score({"prompts": [prompt]}, image(GOOD)), asked))
    assert [answer.status for answer in found] == [200, 422, 200, 500, 503, 500]
    assert found[0].json["scores"] == {"picky": [0.0]}
    assert found[1].json == {"error": "no quoted text in the prompt"}
    assert found[3].json == {"error": "the server failed: RuntimeError"}
    assert found[4].headers["Retry-After"] == "1"


# ---- batching, queue, end


def together(served, count: int, images: int = 1):
    """`count` requests at the same time; futures of their answers."""
    pool = ThreadPoolExecutor(count)
    parts = [{"prompts": ["a"] * images}, *[image(GOOD)] * images]
    return [pool.submit(served.score, *parts) for _ in range(count)]


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_requests_that_wait_are_scored_together_in_whole_and_in_batches(serve):
    slow = Slow()
    served = serve({"slow": slow}, batch_size=8, batch_window=0.0)
    first = together(served, 1)
    assert slow.begun.wait(10)
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


def test_each_request_gets_its_own_scores_back(serve, rewards):
    """Requests of several sizes and rewards, scored together."""
    served = serve(rewards, batch_window=0.2, batch_size=64)
    names = list(rewards)

    def ask(seed: int):
        images = pixels(1 + seed % 4, size=((64, 64), (48, 80))[seed % 2], seed=seed)
        prompts, wanted = [f"picture {seed}"] * len(images), [names[seed % 3], names[(seed + 1) % 3]]
        answer = served.score(
            {"prompts": prompts, "rewards": wanted}, *[("images", PNG, image_file(image)) for image in images]
        )
        for name in wanted:
            close(answer.json["scores"][name], rewards[name].score(images.float() / 255, prompts))
        return answer.json["scores"].keys() == set(wanted)

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(ask, range(48)))


def test_a_full_queue_answers_429_with_retry_after_and_recovers(serve):
    slow = Slow()
    served = serve({"slow": slow}, queue_requests=3)
    accepted = together(served, 1)
    assert slow.begun.wait(10)
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
    assert slow.begun.wait(10)
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
    assert slow.begun.wait(10)
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
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + b"\r\n--b")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    assert served.service.admission.requests == 0


def test_a_stop_finishes_what_was_accepted_and_refuses_the_rest(serve):
    slow = Slow()
    served = serve({"slow": slow})
    accepted = together(served, 1)
    assert slow.begun.wait(10)
    accepted += together(served, 4)
    until(lambda: served.service.admission.requests == 5)
    end = served.drain()
    until(lambda: served.service.admission.stopping)
    refused = served.score(ONE, image(GOOD))
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert (served.request("GET", "/health").status, end.done()) == (503, False)
    slow.gate.set()
    assert [future.result().status for future in accepted] == [200] * 5
    end.result(10)


def test_an_idle_server_stops_at_once(serve):
    serve({"slow": Slow()}).drain().result(1)


# ---- settings

SETTINGS = {
    "no rewards": ("", r"rewards = \[\]: at least one"),
    "unknown section": ("[model]\npath = 'x'", "'model' is no section of a reward server's config"),
    "unknown key": ("[server]\nmax_image = 3", r"'max_image' is no key of \[server\]: did you mean 'max_images'"),
    "unknown kind": ("[[rewards]]\nkind = 'colour'", "is no reward kind: did you mean 'colourfulness'"),
    "twice": ("[[rewards]]\nkind = 'tiny-clip'\n" * 2, r"\['tiny-clip'\]: each reward needs a name of its own"),
    "none": ("[server]\nmax_images = 0", "server.max_images = 0: must be at least 1"),
    "window": ("[server]\nbatch_window = 5", "server.batch_window = 5.0: must be between 0 and 1 second"),
    "contradiction": ("[server]\nqueue_bytes = 9", "queue_bytes = 9: must be at least server.max_bytes = 268435456"),
}


@pytest.mark.parametrize("case", list(SETTINGS))
def test_a_bad_setting_is_one_line_with_the_remedy(tmp_path, case):
    text, message = SETTINGS[case]
    path = tmp_path / "rewards.toml"
    path.write_text(text if "rewards" in text or not text else "[[rewards]]\nkind = 'colourfulness'\n" + text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        load_server_config(path)


def test_a_config_names_rewards_as_a_run_does(tmp_path):
    path = tmp_path / "rewards.toml"
    path.write_text("[[rewards]]\nkind = 'tiny-clip'\nname = 'mine'\nweight = 2\n[server]\nbatch_size = 5\n", "utf-8")
    rewards, settings = load_server_config(path)
    assert [(r.kind, r.label) for r in rewards] == [("tiny-clip", "mine")]
    assert settings == ServerSettings(batch_size=5)
