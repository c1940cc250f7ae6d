"""How long a browser waits for a long run, from its request over HTTP to the last byte of the answer."""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from ..board.routes import PREFIX, Board
from ..store.database import created
from ..store.facts import put
from ..store.schema import create, insert

METRICS = 24
GROUP = 12  # candidates
REWARDS = ("clip", "held-out")
PATHS = {
    "list of runs": "/runs",
    "description": "/runs/long",
    "all curves": "/runs/long/curves",
    "index of groups": "/runs/long/groups",
    "one group": "/runs/long/groups/{middle}",
    "diagnosis": "/runs/long/diagnosis",
    "CSV": "/runs/long/export.csv",
}


def measure(iterations: int, repeats: int) -> dict[str, Any]:
    """Medians and maxima in seconds over `repeats`, of a run of `iterations`; the first request of each is left out."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "long", iterations)
        seconds, sizes = asyncio.run(ask(Path(folder), iterations // 2, repeats))
    return {
        "iterations": iterations,
        "metrics": METRICS,
        "repeats": repeats,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "longest": {name: max(times) for name, times in seconds.items()},
        "bytes": sizes,
    }


async def ask(runs: Path, middle: int, repeats: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    app = web.Application()
    app.add_routes(Board(lambda: runs).routes())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}"
    seconds, sizes = {}, {}
    async with aiohttp.ClientSession() as session:
        for name, path in PATHS.items():
            times = []
            for _ in range(repeats + 1):
                began = time.perf_counter()
                async with session.get(base + path.format(middle=middle)) as answer:
                    answer.raise_for_status()
                    sizes[name] = len(await answer.read())
                times.append(time.perf_counter() - began)
            seconds[name] = times[1:]
    await runner.cleanup()
    return seconds, sizes


def write(folder: Path, iterations: int) -> None:
    """A run's store without pictures."""
    random = np.random.default_rng(0)
    names = [f"{kind}/{r}" for kind in ("reward", "reward_std") for r in REWARDS]
    names += [f"metric {n}" for n in range(METRICS - len(names))]
    rewards = [{"kind": r, "name": r, "weight": 1.0, "held_out": r == "held-out"} for r in REWARDS]
    grpo = {"prompts_per_iteration": 1, "group_size": GROUP, "strength": 0.3, "clip": 0.2}
    cells = [(i, c) for i in range(iterations) for c in range(GROUP)]
    distances = np.ones((GROUP, GROUP), "<f4").tobytes()
    with created(folder) as database, database:
        create(database)
        put(database, {"settings": {"prompts": ["a prompt"], "rewards": rewards, "grpo": grpo}})
        for name in names:
            values = random.normal(size=iterations).tolist()
            insert(database, "metrics", [(name, i, value) for i, value in enumerate(values)])
        insert(database, "groups", [(i, 0, "a prompt", i, None, distances) for i in range(iterations)])
        insert(database, "candidates", [(i, 0, c, 0.5, c % 2, None) for i, c in cells])
        insert(database, "scores", [(i, 0, c, reward, 0.5) for i, c in cells for reward in REWARDS])


def table(result: dict[str, Any]) -> str:
    lines = [
        f"a run of {result['iterations']} iterations, {result['metrics']} curves; {result['repeats']} requests each"
    ]
    lines.append(f"{'':<18}{'median':>10}{'longest':>10}{'size':>10}")
    for name, seconds in result["seconds"].items():
        longest, size = result["longest"][name], result["bytes"][name]
        lines.append(f"{name:<18}{seconds * 1e3:>7.0f} ms{longest * 1e3:>7.0f} ms{size / 1e3:>7.0f} kB")
    return "\n".join(lines)
