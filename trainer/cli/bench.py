"""`python -m trainer bench NAME`: what the engine costs, what it learns, how long the panel waits for its data."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..benchmarks import history, init, memory, overhead, reward, storage
from ..config import AUTO, Config
from ..config_file import load_config
from ..setup import pick_device
from .demo import CONFIG
from .output import print_json, say
from .terminal import quiet_libraries

PROMPTS = 'prompts=["red apple on a blue background", "panda on a pink background"]'
COLOURS = [  # a reward that rises within a few iterations
    'prompts=["octopus on a red background", "umbrella on a yellow background"]',
    'rewards=[{kind = "colourfulness"}]',
    *("grpo.prompts_per_iteration=2", "optimizer.learning_rate=2e-3", "run.iterations=8", "run.tiles_every=0"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=COMMANDS)
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: the demo's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--iterations", type=int, default=7, help="measurements (history, overhead, reward), default: 7"
    )
    parser.add_argument("--length", type=int, default=10_000, help="iterations of the run to look at (history)")
    parser.add_argument("--seeds", type=int, default=32, help="pictures of each prompt, default: 32 (init)")
    parser.add_argument(
        "--clip", default="", help="the CLIP to measure (reward), default: a ViT-B/32 of random weights"
    )
    parser.add_argument("--batch", type=int, default=12, help="pictures at once (reward), default: 12")
    parser.add_argument(
        "--edge", type=int, default=512, help="pixels of a picture's longer edge (reward), default: 512"
    )
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)  # one row of the memory table


def main(arguments: argparse.Namespace) -> int:
    quiet_libraries()
    if arguments.peak:
        print_json(memory.peak(config_of(arguments, PROMPTS)))
        return 0
    result, text = COMMANDS[arguments.name](arguments)
    print_json(result) if arguments.json else say(text)
    return 0


def config_of(arguments: argparse.Namespace, *defaults: str) -> Config:
    """The file's settings; `defaults` complete the demo's, `--set` changes either."""
    return load_config(arguments.config, [*(defaults if arguments.config == CONFIG else ()), *arguments.set])


def bench_history(arguments: argparse.Namespace) -> tuple[Any, str]:
    result = history.measure(arguments.length, arguments.iterations)
    return result, history.table(result)


def bench_init(arguments: argparse.Namespace) -> tuple[Any, str]:
    result = init.measure(config_of(arguments, *COLOURS), arguments.seeds)
    return {way: {**asdict(d), "rise": d.rise} for way, d in result.items()}, init.table(result)


def bench_memory(arguments: argparse.Namespace) -> tuple[Any, str]:
    def in_own_process(extra: list[str]) -> str:
        """A process's peak memory never falls, so each row needs a process of its own."""
        sets = [word for override in [*arguments.set, *extra] for word in ("--set", override)]
        command = [sys.executable, "-m", "trainer", "bench", "memory", "--peak", "--config", str(arguments.config)]
        return subprocess.run([*command, *sets], check=True, capture_output=True, text=True).stdout

    rows = memory.measure(in_own_process)
    return rows, memory.table(rows)


def bench_overhead(arguments: argparse.Namespace) -> tuple[Any, str]:
    result = overhead.measure(config_of(arguments, PROMPTS), arguments.iterations)
    return result, overhead.table(result)


def bench_reward(arguments: argparse.Namespace) -> tuple[Any, str]:
    options = arguments.clip, pick_device(AUTO), arguments.batch, arguments.edge, arguments.iterations
    result = reward.measure(*options)
    return result, reward.table(result)


def bench_storage(arguments: argparse.Namespace) -> tuple[Any, str]:
    result = storage.measure(config_of(arguments, PROMPTS))
    return result, storage.table(result)


COMMANDS: dict[str, Callable[[argparse.Namespace], tuple[Any, str]]] = {
    "history": bench_history,
    "init": bench_init,
    "memory": bench_memory,
    "overhead": bench_overhead,
    "reward": bench_reward,
    "storage": bench_storage,
}
