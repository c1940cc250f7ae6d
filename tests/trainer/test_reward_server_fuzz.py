"""Anything at all sent to the reward server: it refuses what it cannot score, and stays as it is.

Three kinds of input, each as bytes on a connection of its own: forms of parts that are nearly right, a right request
with bytes changed, and requests of any method, path and header. The server runs in a process of its own.
"""

import json
import os
import re
import socket
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import GUARD
from safetensors.torch import save
from served import ServerProcess, image_file, multipart

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "120"))  # of each kind
SILENCE = 0.15  # seconds after which one that may not be whole counts as unanswered
MEMORY = 40  # MiB that the server may grow by, over all
bounded = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

seen: Counter[int] = Counter()  # statuses
PIXELS = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FILES = {
    "image/png": image_file(PIXELS),
    "image/webp": image_file(PIXELS, "WEBP"),
    "application/x-safetensors": save({"images": PIXELS[None] / 255}),
}
RIGHT = {"prompts": ["a cat"], "rewards": ["colourfulness"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With small limits, so that they are reached. Afterwards it is as it was: alive, idle, quiet and no larger."""
    folder = tmp_path_factory.mktemp("fuzz")
    process, errors = ServerProcess(folder / "rewards.toml"), folder / "errors.txt"
    limits = "max_images = 3\nmax_pixels = 10000\nmax_bytes = 200000\nqueue_bytes = 400000\nbatch_window = 0.0"
    rewards = "".join(f"[[rewards]]\nkind = '{kind}'\n" for kind in ("colourfulness", "tiny-clip"))
    process.config.write_text(f"{rewards}[server]\n{limits}\n", "utf-8")
    with open(errors, "w") as log:
        process.start(stderr=log).ready()
    try:
        expected = [send(process, request(*multipart(RIGHT, ("images", kind, FILES[kind])))) for kind in FILES]
        assert [status for status, _ in expected] == [[200]] * 3
        before = resident(process)
        seen.clear()
        yield process
        assert seen.keys() >= {200, 400, 413}, seen  # the inputs were of every sort
        assert process.health() == {"status": "ok", "requests": 0}
        again = [send(process, request(*multipart(RIGHT, ("images", kind, FILES[kind])))) for kind in FILES]
        assert [data for _, data in again] == [data for _, data in expected]
        print(f"{seen}; memory: {before:.1f} MiB before, {resident(process):.1f} MiB after")
        assert resident(process) - before < MEMORY
        assert process.stop() == 0
    finally:
        process.kill()
    assert "Traceback" not in errors.read_text("utf-8")


def resident(process) -> float:
    """MiB; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0.0
    pages = Path(f"/proc/{process.process.pid}/statm").read_text("ascii").split()[1]
    return int(pages) * 4096 / 2**20


def request(body: bytes, content_type: str, length: int | None = None) -> bytes:
    head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode("latin-1") + body


def send(process, data: bytes, patience: float = GUARD) -> tuple[list[int], bytes]:
    """The statuses that come back, and the last body."""
    answer = b""
    with socket.create_connection(("127.0.0.1", process.port), timeout=GUARD) as connection:
        try:
            connection.sendall(data)
            connection.settimeout(patience)
            while more := connection.recv(65536):
                answer += more
        except OSError:  # no whole request, or the server has hung up on it
            pass
    statuses = [int(s) for s in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
    return statuses, answer.rpartition(b"\r\n\r\n")[2]


def accepted(process, data: bytes, patience: float = GUARD) -> list[int]:
    statuses, body = send(process, data, patience)
    seen.update(statuses)
    assert all(200 <= s < 500 for s in statuses), body
    return statuses


def changed(data: bytes) -> st.SearchStrategy[bytes]:
    """With some bytes replaced, a part repeated, or an end cut off."""
    places = st.integers(0, len(data))

    def replace(edits: list[tuple[int, bytes]]) -> bytes:
        out = data
        for place, new in edits:
            out = out[:place] + new + out[place + len(new) :]
        return out

    return st.one_of(
        st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4).map(replace),
        places.map(lambda end: data[:end]),
        st.tuples(places, places).map(lambda p: data[: p[0]] + data[p[1] :]),
    )


def valid_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# chunks whose checksums are right, so that what is in them is looked at
chunks = st.lists(
    st.tuples(st.sampled_from([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"IEND"]),
              st.one_of(st.binary(max_size=40), st.binary(max_size=200).map(zlib.compress))), max_size=6,
).map(lambda parts: FILES["image/png"][:33] + b"".join(valid_chunk(*part) for part in parts))  # fmt: skip
headers = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "U8", "I64", "F99"]),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, 4, 64, 2**31, 2**62, -1]), max_size=5),
        "data_offsets": st.lists(st.sampled_from([0, 1, 48, 2**40, -1]), max_size=3),
    }
).map(lambda header: json.dumps({"images": header}).encode())
tensors = st.tuples(headers, st.integers(-8, 8), st.binary(max_size=64)).map(
    lambda t: struct.pack("<Q", max(0, len(t[0]) + t[1])) + t[0] + t[2]
)
floats = st.tuples(st.sampled_from([torch.float32, torch.float16, torch.float64, torch.bfloat16]), st.integers(0, 255))
odd_floats = floats.map(lambda f: save({"images": torch.full((1, 3, 4, 4), f[1] / 64).to(f[0]) / (f[1] % 7)}))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
wanted = st.one_of(
    st.just(RIGHT),
    st.fixed_dictionaries({}, optional={"prompts": anything, "rewards": anything, "more": anything}),
    st.fixed_dictionaries({"prompts": st.lists(st.text(max_size=50), max_size=5)}),
).map(lambda value: json.dumps(value).encode())
kinds = st.sampled_from([*FILES, "application/json", "application/octet-stream", "multipart/mixed", "", "image/gif"])
files = st.one_of(
    *[changed(data) for data in FILES.values()], st.sampled_from([*FILES.values()]), chunks, tensors, odd_floats,
    st.binary(max_size=100),
)  # fmt: skip
parts = st.tuples(st.just("request"), st.just("application/json"), wanted | changed(json.dumps(RIGHT).encode()))
pictures = st.tuples(st.sampled_from(["images", "images", "images", "image", ""]), kinds, files)


@bounded
@given(st.lists(parts, min_size=0, max_size=2), st.lists(pictures, max_size=5))
def test_forms_of_any_parts_are_scored_or_refused(server, requested, sent):
    assert len(accepted(server, request(*multipart(*requested, *sent)))) == 1


whole = st.sampled_from([("images", kind, FILES[kind]) for kind in ("image/png", "image/webp")])
stacks = st.integers(0, 5).map(lambda n: save({"images": torch.zeros(n, 3, 4, 4)}))
stacks = stacks.map(lambda data: [("images", "application/x-safetensors", data)])
large = st.just(("images", "image/png", image_file(torch.zeros(3, 101, 100, dtype=torch.uint8))))


@bounded
@given(st.lists(st.text(max_size=30), max_size=5), st.lists(whole | large, max_size=5) | stacks)
def test_whole_forms_are_scored_within_the_limits_and_refused_beyond(server, prompts, sent):
    assert len(accepted(server, request(*multipart({"prompts": prompts}, *sent)))) == 1


@bounded
@given(st.sampled_from(list(FILES)), st.data())
def test_a_damaged_file_is_scored_or_refused(server, kind, data):
    """The form is right, and so is everything but the file."""
    file = data.draw(changed(FILES[kind]) | (chunks if kind == "image/png" else tensors))
    assert len(accepted(server, request(*multipart(RIGHT, ("images", kind, file))))) == 1


WHOLE = request(*multipart(RIGHT, ("images", "image/png", FILES["image/png"])))
tokens = st.text(st.characters(codec="ascii", exclude_categories=["Cc", "Cs"], exclude_characters=" :"), max_size=12)
values = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60)
names = st.sampled_from(
    "Content-Length Content-Type Content-Encoding Transfer-Encoding Authorization Expect Connection Upgrade "
    "Content-Disposition Accept Cookie Range X".split()
)
telling = st.sampled_from(
    ["gzip", "chunked", "identity", "100-continue", "-1", "999999999999", "0", "5", "multipart/form-data",
     "multipart/form-data; boundary=", 'multipart/form-data; boundary="' + "b" * 80, "multipart/form-data; boundary=x",
     "multipart/mixed; boundary=x", "close", "keep-alive", "websocket", "Bearer x", "a" * 9000]
)  # fmt: skip


@bounded
@given(
    st.sampled_from("GET POST PUT DELETE HEAD OPTIONS TRACE PATCH CONNECT get".split()) | tokens,
    st.sampled_from(["/v1/score", "/v1/rewards", "/health", "/", "*", "/v1/score?a=b", "/v1//score", "http://x/health"])
    | values.map(lambda text: "/" + text.replace(" ", "")),
    st.lists(st.tuples(names | tokens, telling | values), max_size=6),
    st.binary(max_size=60) | st.just(b"--x\r\n\r\n\r\n--x--"),
)
def test_requests_of_any_method_path_and_header_are_answered_or_dropped(server, method, path, fields, body):
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in fields)]
    accepted(server, "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body, SILENCE)


@bounded
@given(changed(WHOLE) | st.binary(max_size=200))
def test_a_damaged_request_is_answered_or_dropped(server, data):
    accepted(server, data, SILENCE)
