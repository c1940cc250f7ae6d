"""What the reward server refuses, over real HTTP: each with its status and the reason in one line."""

import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from served import multipart, servers
from server_requests import GOOD, ONE, PNG, TENSORS, ZEROS, chunk, image, png

from trainer.rewards import RewardError, RewardUnavailable, build

serve = pytest.fixture(servers)


@pytest.fixture(scope="module")
def rewards():
    return {"colourfulness": build("colourfulness", {}, "cpu")}


def tensor(images: torch.Tensor, name: str = "images") -> tuple:
    return ("images", TENSORS, save({name: images}))


def lying(shape: list[int]) -> tuple:
    header = json.dumps({"images": {"dtype": "F32", "shape": shape, "data_offsets": [0, 12]}}).encode()
    return ("images", TENSORS, struct.pack("<Q", len(header)) + header + bytes(12))


def pillow(mode: str, kind: str = "PNG") -> bytes:
    """A whole file of another sort."""
    buffer = io.BytesIO()
    Image.new(mode, (64, 64)).save(buffer, kind)
    return buffer.getvalue()


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
    "long JSON": ([("request", "application/json", " " * 2**21), image(GOOD)], 413, "has more than 1048576 bytes"),
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
    "JPEG as PNG": ([ONE, image(pillow("RGB", "JPEG"))], 400, "images[0] is no whole PNG file"),
    "16 bits": ([ONE, image(pillow("I;16"))], 400, "images[0] is I;16: must be 8-bit RGB or greyscale"),
    "transparent": ([ONE, image(pillow("RGBA"))], 400, "images[0] is RGBA: must be 8-bit RGB or greyscale"),
    "a transparent colour": ([ONE, image(png(64, 64, ZEROS, chunk(b"tRNS", bytes(6))))], 400, "is RGB: must be 8-bit"),
    "palette": ([ONE, image(pillow("P"))], 400, "images[0] is P: must be 8-bit RGB or greyscale"),
    "beyond the pixels": ([ONE, image(png(513, 512))], 413, "images[0] is 513 x 512: at most 262144 pixels"),
    "decompression bomb": ([ONE, image(png(60_000, 60_000, ZEROS))], 413, "is far too large"),
    "text bomb": (
        [ONE, image(png(64, 64, ZEROS, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))))],
        400,
        "images[0] is no whole PNG file",
    ),
    "too many": ([{"prompts": ["a"] * 5}, *[image(GOOD)] * 5], 413, "more than 4 images in a request"),
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
            if "write" in prompts:
                images.add_(0.5)
            if "short" in prompts:
                return torch.zeros(0)
            return images.flatten(1).mean(1)

    served = serve({"picky": Picky()}, batch_window=0.3)
    asked = ["fine", "refuse", "fine", "crash", "later", "short", "write"]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda prompt: served.score({"prompts": [prompt]}, image(GOOD)), asked))
    assert [answer.status for answer in found] == [200, 422, 200, 500, 503, 500, 422]
    assert found[0].json["scores"] == {"picky": [0.0]}
    assert found[1].json == {"error": "no quoted text in the prompt"}
    assert found[3].json == {"error": "the server failed: RuntimeError"}
    assert found[4].headers["Retry-After"] == "1"
    assert found[6].json["error"].startswith("reward 'picky' writes into the pictures")
