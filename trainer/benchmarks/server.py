"""What a reward costs through a reward server on this machine, beside the same reward in the process."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..rewards import build
from ..rewards.base import Reward
from ..rewards.remote import RemoteReward

KIND = "tiny-clip"
PROMPT = "red apple on a blue background"


def measure(batch: int, edge: int, pairs: int) -> dict[str, float]:
    """Alternate both on `batch` pictures of edge x edge pixels, by the clock: two processes share the work."""
    images = torch.rand(batch, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    here = build(KIND, {}, "cpu")
    with serving() as url:
        there = RemoteReward(url, reward=KIND)
        for reward in (here, there):
            seconds(reward, images)  # warm-up
        found = [(seconds(there, images), seconds(here, images)) for _ in range(pairs)]
    return {
        "server_seconds": statistics.median(a for a, _ in found),
        "local_seconds": statistics.median(b for _, b in found),
        "ratio": statistics.median(a / b for a, b in found),
        "added_seconds": statistics.median(a - b for a, b in found),
        "batch": batch,
        "edge": edge,
        "pairs": pairs,
    }


@contextmanager
def serving() -> Iterator[str]:
    """A reward server in a process of its own; its address."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rewards.toml"
        config.write_text(f'[[rewards]]\nkind = "{KIND}"\n\n[server]\ndevice = "cpu"\n', "utf-8")
        line = [sys.executable, "-m", "trainer", "reward-server", "--config", str(config), "--port", "0", "--json"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield told(process)["url"]
            finally:
                process.terminate()


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The first JSON object on its stdout.

    Raises:
        RuntimeError: it ended.
    """
    text = ""
    for line in process.stdout or ():
        text += line
        if line == "}\n":
            return dict(json.loads(text))
    raise RuntimeError("the reward server did not start: see above")


def seconds(reward: Reward, images: torch.Tensor) -> float:
    began = time.perf_counter()
    reward.score(images, [PROMPT] * len(images))
    return time.perf_counter() - began


def table(result: dict[str, float]) -> str:
    return (
        f"{result['batch']:.0f} pictures of {result['edge']:.0f} pixels through a reward server "
        f"{result['server_seconds']:.3f} s, in the process {result['local_seconds']:.3f} s: "
        f"{result['added_seconds']:.3f} s more (median of {result['pairs']:.0f} pairs)"
    )
