"""`python -m trainer bench NAME`: what the engine costs, what it learns, how long the panel waits for its data."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
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
    measure, table = COMMANDS[arguments.name]
    result = measure(arguments)
    print_json(result) if arguments.json else say(table(result))
    return 0


def config_of(arguments: argparse.Namespace, *defaults: str) -> Config:
    """The file's settings; `defaults` complete the demo's, `--set` changes either."""
    return load_config(arguments.config, [*(defaults if arguments.config == CONFIG else ()), *arguments.set])


def in_own_process(arguments: argparse.Namespace, extra: list[str]) -> str:
    """A process's peak memory never falls, so each row needs a process of its own."""
    sets = [word for override in [*arguments.set, *extra] for word in ("--set", override)]
    command = [sys.executable, "-m", "trainer", "bench", "memory", "--peak", "--config", str(arguments.config), *sets]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Any], Callable[[Any], str]]] = {
    "history": (lambda a: history.measure(a.length, a.iterations), history.table),
    "init": (lambda a: init.measure(config_of(a, *COLOURS), a.seeds), init.table),
    "memory": (lambda a: memory.measure(partial(in_own_process, a)), memory.table),
    "overhead": (lambda a: overhead.measure(config_of(a, PROMPTS), a.iterations), overhead.table),
    "reward": (lambda a: reward.measure(a.clip, pick_device(AUTO), a.batch, a.edge, a.iterations), reward.table),
    "storage": (lambda a: storage.measure(config_of(a, PROMPTS)), storage.table),
}
