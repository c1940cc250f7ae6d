"""`python -m trainer bench [NAME]`: what the engine costs, what it learns, how long the panel waits for its data."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..choices import AUTO
from ..errors import ConfigError
from ..experiments.tasks import TASKS, Task
from ..planning.cards import Card, card_named, measured
from ..planning.config import read_config
from ..settings.config import Config
from ..settings.config_file import load_config
from . import bench_gpu
from .output import note, print_json, say
from .plan import FLUX_DEV, add_measured

if TYPE_CHECKING:
    from ..experiments.bench import Bench

ALL = "all"
SET = ("overhead", "iteration", "scaling", "reward", "server", "history")  # of ALL
CONFIG = TASKS["emoji"].file
PROMPTS = 'prompts=["red apple on a blue background", "panda on a pink background"]'
CARDS = ("4090", "H200")  # that a roofline is of
COLOURS = [  # a reward that rises within a few iterations
    'prompts=["octopus on a red background", "umbrella on a yellow background"]',
    'rewards=[{kind = "colourfulness"}]',
    *("grpo.prompts_per_iteration=2", "optimizer.learning_rate=2e-3", "run.iterations=8", "run.tiles_every=0"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", default=ALL, choices=[*COMMANDS, "gpu", ALL], help=f"default: {ALL}, {told()}"
    )
    parser.add_argument("--quick", action="store_true", help=f"few repeats and short runs ({ALL}): under four minutes")
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: the emoji's; roofline: FLUX.1-dev's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--iterations",
        type=int,
        default=7,
        help="measurements (history, iteration, overhead, reward, scaling, server), default: 7",
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
    parser.add_argument("--card", action="append", default=[], metavar="NAME", help="default: 4090 and H200 (roofline)")
    add_measured(parser)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)  # one row of the memory table
    bench_gpu.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    if arguments.name == "gpu":
        return bench_gpu.main(arguments)
    if arguments.name == ALL:
        return every(arguments)
    given = COMMANDS[arguments.name](arguments)
    benchmark = import_module(f"..benchmarks.{arguments.name}", __package__)
    if arguments.peak:
        print_json(benchmark.peak(config_of(arguments, PROMPTS)))
        return 0
    result = benchmark.measure(*given)
    if arguments.json:
        print_json(result)
    else:
        say(benchmark.table(result))
    return 0


def every(arguments: argparse.Namespace) -> int:
    """Those of SET, one after the other, told as they end."""
    if arguments.quick:
        arguments.iterations, arguments.length = 2, 1000
    results = {}
    for name in SET:
        note(f"{name} ...")
        benchmark = import_module(f"..benchmarks.{name}", __package__)
        results[name] = benchmark.measure(*COMMANDS[name](arguments))
        if not arguments.json:
            say(f"{name}\n\n{benchmark.table(results[name])}\n")
    if arguments.json:
        print_json(results)
    return 0


def told() -> str:
    return f"which is {', '.join(SET)}"


def bench_of(arguments: argparse.Namespace) -> "Bench":
    """The file's model on one thread, whose seconds can be compared whatever else the machine does."""
    import torch

    from ..experiments.bench import Bench

    config = config_of(arguments, PROMPTS)  # a mistake is answered before anything is loaded
    torch.set_num_threads(1)
    few = ["grpo.prompts_per_iteration=2"] if arguments.config == CONFIG else []
    prompts = config.prompts
    return Bench(Task("bench", arguments.config, prompts, prompts[:1]), (*few, *arguments.set))


def config_of(arguments: argparse.Namespace, *defaults: str) -> Config:
    """The file's settings; `defaults` complete that of emoji, `--set` changes either."""
    return load_config(arguments.config, [*(defaults if arguments.config == CONFIG else ()), *arguments.set])


def each_by_itself(arguments: argparse.Namespace) -> Callable[[list[str]], str]:
    """Measures with some overrides in a process of its own, as a process's peak memory never falls."""
    config_of(arguments, PROMPTS)  # a mistake is answered by this process

    def run(extra: list[str]) -> str:
        sets = [word for override in [*arguments.set, *extra] for word in ("--set", override)]
        line = [sys.executable, "-m", "trainer", "bench", "memory", "--peak", "--config", str(arguments.config), *sets]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout

    return run


def clip_of(arguments: argparse.Namespace) -> str:
    """--clip, which has to be there."""
    if arguments.clip and not Path(arguments.clip).exists():
        raise ConfigError(f"--clip {arguments.clip}: there is no such file or folder")
    return arguments.clip


def cards_of(arguments: argparse.Namespace) -> list[Card]:
    """Those of --card and --measured."""
    named = [card_named(name) for name in arguments.card]
    return [*named, *([measured(arguments.measured)] if arguments.measured else [])] or [*map(card_named, CARDS)]


def real_size(arguments: argparse.Namespace) -> Config:
    """The file's settings, whose model need not be there; by default FLUX.1-dev's."""
    return read_config(FLUX_DEV if arguments.config == CONFIG else arguments.config, arguments.set)


# what `measure` of trainer/benchmarks/<name>.py is given; its `table` prints the result
COMMANDS: dict[str, Callable[[argparse.Namespace], tuple[object, ...]]] = {
    "history": lambda a: (a.length, a.iterations),
    "init": lambda a: (config_of(a, *COLOURS), a.seeds),
    "iteration": lambda a: (bench_of(a), a.iterations),
    "memory": lambda a: (each_by_itself(a),),
    "overhead": lambda a: (config_of(a, PROMPTS), a.iterations),
    "reward": lambda a: (clip_of(a), AUTO, a.batch, a.edge, a.iterations),
    "roofline": lambda a: (real_size(a), cards_of(a), lambda name: note(f"counting {name} ...")),
    "scaling": lambda a: (bench_of(a), each_by_itself(a), a.iterations),
    "server": lambda a: (a.batch, a.edge, a.iterations),
    "storage": lambda a: (config_of(a, PROMPTS),),
}
