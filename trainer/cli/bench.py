"""`python -m trainer bench overhead|memory|reward|history`: what the engine costs beside its models, and the panel."""

import argparse
import subprocess
import sys
from pathlib import Path

from ..benchmarks import history, memory, overhead, reward
from ..config import AUTO
from ..config_file import load_config
from ..setup import pick_device
from .demo import CONFIG
from .output import print_json, say
from .terminal import quiet_libraries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=("overhead", "memory", "reward", "history"))
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: the demo's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--iterations", type=int, default=7, help="measurements (all but memory), default: 7")
    parser.add_argument("--length", type=int, default=10_000, help="iterations of the run to look at (history)")
    parser.add_argument(
        "--clip", default="", help="the CLIP to measure (reward), default: a ViT-B/32 of random weights"
    )
    parser.add_argument("--batch", type=int, default=12, help="pictures at once (reward), default: 12")
    parser.add_argument(
        "--edge", type=int, default=512, help="pixels of a picture's longer edge (reward), default: 512"
    )
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)  # one row of the memory table


def main(arguments: argparse.Namespace) -> int:
    if arguments.name == "history":
        result = history.measure(arguments.length, arguments.iterations)
        print_json(result) if arguments.json else say(history.table(result))
        return 0
    quiet_libraries()
    if arguments.name == "reward":
        options = arguments.clip, pick_device(AUTO), arguments.batch, arguments.edge, arguments.iterations
        result = reward.measure(*options)
        print_json(result) if arguments.json else say(reward.table(result))
        return 0
    overrides = list(arguments.set)
    if arguments.config == CONFIG:
        overrides.insert(0, 'prompts=["red apple on a blue background", "panda on a pink background"]')
    if arguments.name == "overhead":
        result = overhead.measure(load_config(arguments.config, overrides), arguments.iterations)
        print_json(result) if arguments.json else say(overhead.table(result))
    elif arguments.peak:
        print_json(memory.peak(load_config(arguments.config, overrides)))
    else:
        rows = memory.measure(lambda extra: _in_own_process(arguments, overrides + extra))
        print_json(rows) if arguments.json else say(memory.table(rows))
    return 0


def _in_own_process(arguments: argparse.Namespace, overrides: list[str]) -> str:
    """A process's peak memory never falls, so each row needs a process of its own."""
    sets = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "trainer", "bench", "memory", "--peak", "--config", str(arguments.config), *sets]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
