"""Many clients at once: no request fails, and every answer is the score that the reward gives in this process."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save
from served import Served, ServerProcess, image_file

from trainer.rewards import build

CLIENTS, REQUESTS, DIFFERENT = 64, 640, 120
KINDS = ("colourfulness", "tiny-clip")


@pytest.fixture
def process(tmp_path):
    process = ServerProcess(tmp_path / "rewards.toml")
    process.config.write_text("".join(f"[[rewards]]\nkind = '{kind}'\n" for kind in KINDS), "utf-8")
    process.start().ready()
    yield process
    process.kill()


def asked(n: int) -> tuple[torch.Tensor, list[str], list[str]]:
    """The n-th request: 8-bit pictures of two sizes, prompts, rewards."""
    count, size = 1 + n % 3, ((64, 64), (48, 80))[n % 2]
    generator = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    return pixels, [f"picture {i} of request {n}" for i in range(count)], list(KINDS[: 1 + (n % 5 == 0)])


def parts(n: int) -> list:
    """Every fourth as files, the others as a tensor."""
    pixels, prompts, kinds = asked(n)
    tensor = [("images", "application/x-safetensors", save({"images": pixels.float() / 255}))]
    files = [("images", "image/png", image_file(image)) for image in pixels]
    return [{"prompts": prompts, "rewards": kinds}, *(files if n % 4 == 0 else tensor)]


def scores(n: int, rewards: dict) -> dict[str, torch.Tensor]:
    pixels, prompts, kinds = asked(n)
    return {kind: rewards[kind].score(pixels.float() / 255, prompts) for kind in kinds}


def test_64_clients_with_ten_requests_each_get_the_scores_of_this_process(process):
    served, rewards = Served(process.url, None, None), {kind: build(kind, {}, "cpu") for kind in KINDS}
    bodies, expected = [parts(n) for n in range(DIFFERENT)], [scores(n, rewards) for n in range(DIFFERENT)]

    def ask(n: int) -> tuple[int, dict, float]:
        began = time.perf_counter()
        answer = served.score(*bodies[n % DIFFERENT])
        return answer.status, answer.json, time.perf_counter() - began

    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.perf_counter()
        answers = list(pool.map(ask, range(REQUESTS)))
        seconds = time.perf_counter() - began
    assert [answer for status, answer, _ in answers if status != 200] == []
    worst = dict.fromkeys(KINDS, 0.0)
    for n, (_, answer, _) in enumerate(answers):
        assert answer["scores"].keys() == expected[n % DIFFERENT].keys()
        for kind, values in expected[n % DIFFERENT].items():
            difference = (torch.tensor(answer["scores"][kind]) - values).abs().max().item()
            worst[kind] = max(worst[kind], difference)
    waits = sorted(wait for _, _, wait in answers)
    print(
        f"{REQUESTS / seconds:.0f} requests/s of {CLIENTS} clients; median {statistics.median(waits):.3f} s, "
        f"99 % within {waits[int(0.99 * REQUESTS)]:.3f} s; largest differences {worst}"
    )
    assert max(worst.values()) <= 1e-6, worst
    assert process.health() == {"status": "ok", "requests": 0}
    assert process.stop() == 0
