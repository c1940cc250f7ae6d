"""`python -m trainer train CONFIG.toml [--set key=value ...] [--resume]`"""

import argparse
import shlex
from pathlib import Path

from ..events import COMPLETE
from ..rewards import check_weights
from ..settings.config_file import load_config
from ..training.run_folder import LORA, check_run, defaults_of
from .output import print_json, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as grpo.strength=0.2"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the config's folder")


def main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.set)
    if arguments.resume and (before := defaults_of(Path(config.run.folder))):
        config = load_config(arguments.config, arguments.set, before)
    for reward in config.rewards:
        check_weights(reward.kind, reward.options)
    check_run(config, arguments.resume)
    from ..training.run import start_run
    from .terminal import ProgressBar, interruptible, logged_in

    folder = Path(config.run.folder)
    last: dict[str, float] = {}  # metrics

    def remember(event: object) -> None:
        last.update(getattr(event, "metrics", {}))

    with interruptible() as interrupt:
        ending, _ = start_run(
            config,
            resume=arguments.resume,
            listeners=[logged_in(folder), ProgressBar(list(config.weights)), remember],
            control=interrupt.control,
        )
    if arguments.json:
        print_json({"run": str(folder), "lora": str(folder / LORA), "reason": str(ending), "last": last})
    else:
        say(f"{ending}: {folder}\nLoRA: {folder / LORA}")
        if ending.kind != COMPLETE:
            sets = [word for override in arguments.set for word in ("--set", override)]
            say(f"go on with: python -m trainer train {shlex.join([str(arguments.config), *sets])} --resume")
    if interrupt.pressed:
        return interrupt.code
    return 0 if ending.kind == COMPLETE else 1
