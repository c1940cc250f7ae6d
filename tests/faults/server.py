"""The reward server and its client: mutated requests and answers, clients that are slow or leave, and memory.

The server is a process of its own with small limits, so that they are reached; every so often a right request is sent
beside the others, which has to be answered with the same scores as ever.
"""

import json
import random
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from rows import Row
from safetensors.torch import save
from scripted import OFFER, SCORED, each
from served import Answer, Served, ServerProcess, image_file, multipart
from server_requests import png

from trainer.reward_server.config import ServerSettings
from trainer.rewards import RewardError, RewardUnavailable, build

KINDS = ("colourfulness", "sharpness", "jpeg-compressibility", "tiny-clip")
LIMITS = {
    "max_images": 64, "max_pixels": 2**22, "max_bytes": 2**25, "queue_requests": 64, "queue_bytes": 2**27,
    "batch_pixels": 2**22, "connections": 64, "client_connections": 64, "batch_window": 0.0,
}  # fmt: skip
CLIENTS = 8  # at once
SILENCE = 0.05  # seconds after which a request that may not be whole is left
CHECKED = 200  # requests from one check that all is well to the next
PIXELS = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FILES = [
    ("images", "image/png", image_file(PIXELS)),
    ("images", "image/webp", image_file(PIXELS, "WEBP")),
    ("images", "application/x-safetensors", save({"images": PIXELS[None] / 255})),
]
WANTED = {"prompts": ["a cat"], "rewards": ["colourfulness"]}
WORDS = [
    *(b"\r\n", b"\r\n\r\n", b"--", b'"', b"{", b"[", b"null", b"NaN", b"1e400", b"\x00", b"\xff\xfe", b"9" * 400),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"\xed\xa0\x80"),
]


def rows(share: float) -> Iterator[Row]:
    with served() as process:
        yield from (requests(process, max(20, int(8000 * share))), clients(process, max(4, int(400 * share))))
        yield memory(process, max(2, int(16 * share)))
    yield answers(max(20, int(4000 * share)))


@contextmanager
def served() -> Iterator[ServerProcess]:
    with tempfile.TemporaryDirectory() as folder:
        process = ServerProcess(Path(folder) / "rewards.toml")
        limits = "".join(f"{name} = {value}\n" for name, value in LIMITS.items())
        rewards = "".join(f"[[rewards]]\nkind = '{kind}'\n" for kind in KINDS)
        process.config.write_text(f"{rewards}[server]\n{limits}", "utf-8")
        with open(Path(folder) / "errors.txt", "w") as log:
            process.start(stderr=log).ready()
        process.errors = Path(folder) / "errors.txt"
        try:
            yield process
        finally:
            process.kill()


def right(process: ServerProcess, file: tuple = FILES[0]) -> Answer:
    """What a right request is answered; as a client does, it is sent again if the server is busy."""
    for _ in range(20):
        with suppress(OSError):
            answer = Served(process.url, None, None).score(WANTED, file)
            if answer.status not in (429, 503):
                return answer
        time.sleep(0.1)
    return Answer(0, {}, b"")


def mutated(data: bytes, random: random.Random) -> bytes:
    """With one fault or a few: bytes replaced, a part repeated or lost, an end cut off, a telling word put in."""
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        a, b = sorted(random.randrange(len(data) + 1) for _ in range(2))
        a, b = (a, min(b, a + random.choice([1, 1, 4, 64]))) if random.random() < 0.9 else (a, b)
        data = random.choice(
            [
                data[:a] + random.randbytes(min(b - a, 8)) + data[b:],
                data[:b] + data[a:b] * random.randint(1, 3) + data[b:],
                data[:a] + data[b:],
                data[:a] + random.choice(WORDS) + data[a:],
                data[: max(1, a)],
            ]
        )
    return data


def requests(process: ServerProcess, times: int) -> Row:
    """The head is right for most, so that the body is looked at."""
    row, expected = Row("mutated requests"), [right(process, file).data for file in FILES]

    def ask(seed: int) -> str:
        chance = random.Random(seed)
        body, kind = multipart(WANTED, chance.choice(FILES))
        head = "POST /v1/score HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        if chance.random() < 0.2:
            return status(process, mutated(f"{head}Content-Type: {kind}\r\n\r\n".encode() + body, chance), SILENCE)
        body = mutated(body, chance)
        return status(process, f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body, 60)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for start in range(0, times, CHECKED):
            for outcome in pool.map(ask, range(start, min(times, start + CHECKED))):
                row.add(outcome, lost=outcome.startswith("answered 5") and "501" not in outcome)
            if [right(process, file).data for file in FILES] != expected:
                row.lost += 1
    row.tracebacks += process.errors.read_text("utf-8").count("Traceback")
    return row


def status(process: ServerProcess, data: bytes, patience: float) -> str:
    with socket.create_connection(("127.0.0.1", process.port), timeout=60) as connection, suppress(OSError):
        connection.sendall(data)
        connection.settimeout(patience)
        if answer := connection.recv(100):
            return f"answered {answer.split()[1].decode()}"
    return "hung up"


def clients(process: ServerProcess, times: int) -> Row:
    """Each keeps its connection until the next but 99, while right requests are sent beside them."""
    row, kept, expected = Row("clients that send half, in drops, or leave"), [], right(process).data
    body, kind = multipart({**WANTED, "prompts": ["a"] * 8}, *[("images", "image/png", png(512, 512, BLACK))] * 8)
    head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: ".encode()
    sent = [head, head + b"33000000\r\n\r\n", head + b"%d\r\n\r\n" % len(body) + body, b"", body, b"GET /h"]
    for n in range(times):
        connection = socket.create_connection(("127.0.0.1", process.port), timeout=60)
        with suppress(OSError):
            connection.sendall(sent[n % len(sent)])
            if n % 7 == 0:
                connection.close()
        kept = [*kept[-99:], connection]
        answer = right(process)
        row.add("the others are answered", lost=(answer.status, answer.data) != (200, expected))
    for connection in kept:
        connection.close()
    return row


BLACK = zlib.compress(bytes(512 * (512 * 3 + 1)), 9)
BLACK_2048 = zlib.compress(bytes(2048 * (2048 * 3 + 1)), 9)


def memory(process: ServerProcess, times: int) -> Row:
    """Black pictures of 2048 x 2048, up to 64 in a request of 0.8 MB, beside requests of many bytes."""
    row, stated = Row("requests that are small as files and large as pictures"), ServerSettings(**LIMITS).memory
    black, before = ("images", "image/png", png(2048, 2048, BLACK_2048)), resident(process, "VmRSS")
    floats = ("images", "application/x-safetensors", save({"images": torch.rand(2, 3, 1024, 1024)}))

    def ask(n: int) -> int:
        files, pictures, kinds = [black] * 4, 4, KINDS
        if n % 2:
            files, pictures = [floats], 2
        if n == 8:
            files, pictures, kinds = [black] * 64, 64, KINDS[:1]
        wanted = {"prompts": ["a"] * pictures, "rewards": list(kinds)}
        return Served(process.url, None, None).score(wanted, *files).status

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(ask, range(times)))
    grown = resident(process, "VmHWM") - before
    words = f"{grown / 2**20:.0f} MiB more than idle at the peak, {stated / 2**20:.0f} MiB are stated"
    for code in found:
        row.add(words, lost=code not in (200, 429) or grown > stated)
    return row


def resident(process: ServerProcess, what: str) -> int:
    """Bytes."""
    for line in Path(f"/proc/{process.process.pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise ValueError(what)


def answers(times: int) -> Row:
    """What is mutated is the whole answer, head and body; the client has to say in one line what came of it."""
    row, chance = Row("mutated answers"), random.Random(0)
    chat = {"choices": [{"message": {"role": "assistant", "content": "Final Score: 4"}}]}
    whole = [
        response(OFFER[2]),
        response(SCORED[2]),
        response(chat),
        response({"error": "no"}, b"503 Down\r\nRetry-After: 1"),
    ]
    picture, said = torch.full((1, 3, 8, 8), 0.5), []

    def answer() -> bytes:
        said.append(len(said))
        return mutated(chance.choice(whole), chance) if len(said) % 3 else whole[0]

    with each(answer) as url:
        options = {"url": url, "retries": 0, "timeout": 0.2}
        makes: list[Callable] = [lambda: build("remote", options, "cpu"), lambda: build("vlm-judge", options, "cpu")]
        for n in range(times):
            outcome, traceback = outcome_of(lambda n=n: makes[n % 2]().score(picture, ["a"]))
            row.add(outcome, traceback=traceback)
    return row


def response(value: object, line: bytes = b"200 OK") -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (line, len(body), body)


def outcome_of(score: Callable[[], torch.Tensor]) -> tuple[str, bool]:
    """In words, and whether a user would read a traceback, or more than a line."""
    try:
        score()
    except RewardUnavailable as error:
        return "the run waits", not str(error).isprintable() or len(str(error)) > 600
    except RewardError as error:
        return "one line ends the run", not str(error).isprintable() or len(str(error)) > 600
    except Exception as error:  # noqa: BLE001  anything else is what is looked for
        return f"{type(error).__name__}: {str(error)[:60]}", True
    return "scores", False
