"""`python -m trainer demo`: train a LoRA on the embedded model, then compare on prompts and seeds it never saw.

It is taught to heed captions as "two red apples on the left": half of all combinations, and tested on others.
"""

import argparse
import time
from pathlib import Path

from ..events import COMPLETE
from ..experiments.tasks import FOLDER, TASKS
from ..settings.config_file import load_config
from ..training.run_folder import LORA, check_run
from .output import say

TASK = TASKS["scenes"]
CONFIG = FOLDER / "demo.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, help="of the run; default: runs/demo, runs/demo-2, ...")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, as run.seed=1")


def main(arguments: argparse.Namespace) -> int:
    trained, tested = prompts()
    folder = arguments.folder or unused(Path("runs/demo"))
    config = load_config(CONFIG, [*arguments.set, f"prompts={trained!r}", f"run.folder={str(folder)!r}"])
    check_run(config, resume=False)
    say(f"training on {len(trained)} prompts for {config.run.iterations} iterations", quiet=arguments.json)
    from ..events import Listener
    from ..training.run import start_run
    from .demo_report import conclude
    from .terminal import ProgressBar, interruptible, logged_in

    started = time.perf_counter()
    with interruptible() as interrupt:
        listeners: list[Listener] = [logged_in(folder), ProgressBar([r.label for r in config.rewards])]
        ending, setup = start_run(config, listeners=listeners, control=interrupt.control)
    if interrupt.pressed:
        return interrupt.code
    seconds = time.perf_counter() - started
    complete = ending.kind == COMPLETE
    return conclude(setup, tested, folder, folder / LORA, seconds, complete=complete, as_json=arguments.json)


def prompts() -> tuple[list[str], list[str]]:
    """Captions: those that are trained on, and those that are tested."""
    return list(TASK.trained), list(TASK.tested)


def unused(folder: Path) -> Path:
    """`folder`, or `folder-2`, `folder-3`, ... if it exists."""
    candidate, n = folder, 2
    while candidate.exists():
        candidate, n = folder.with_name(f"{folder.name}-{n}"), n + 1
    return candidate
