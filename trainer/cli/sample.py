"""`python -m trainer sample RUN_OR_LORA --prompts ... -o grid.png`: before and after, side by side."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import ConfigError, brief
from ..rewards import check_prompts, check_weights
from ..settings.config import Config
from ..settings.config_file import parse, set_value
from ..settings.described import require
from ..settings.run import SEEDS
from ..training.brought import Brought, brought_by, other_model
from ..training.taken import Given, table_of
from .output import note, print_json, say

OF_REWARDS = ("name", "weight", "held_out", "clip")  # what a reward has beside the options of its kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_lora(parser)
    parser.add_argument("--prompts", nargs="+", required=True, metavar="TEXT")
    parser.add_argument("--seeds", nargs="+", type=seed, default=[0, 1, 2, 3], metavar="N", help="default: 0 1 2 3")
    parser.add_argument("-o", "--output", type=Path, default=Path("grid.png"), help="default: grid.png")


def add_lora(parser: argparse.ArgumentParser) -> None:
    """What is asked of a LoRA that a run has left."""
    parser.add_argument("lora", type=Path, metavar="RUN_OR_LORA", help="a run's folder, or the .safetensors of one")
    parser.add_argument("--model", default="", metavar="PATH", help="the model, if it moved or only the LoRA is there")
    parser.add_argument(
        "--reward",
        nargs="+",
        action="append",
        default=[],
        metavar=("KIND", "KEY=VALUE"),
        help="score by this one instead of the run's, as: --reward remote url=http://localhost:8000; may be repeated",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, as sampling.steps=20"
    )


def seed(text: str) -> int:
    """A seed of 64 bits."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(SEEDS)) and int(digits) <= SEEDS):
        raise argparse.ArgumentTypeError(f"{brief(text)} must be a whole number from 0 to {SEEDS}")
    return int(digits)


def main(arguments: argparse.Namespace) -> int:
    config = checked(arguments)
    from ..pictures.sheets import before_after
    from ..training.evaluate import both, compare
    from ..training.prepare import prepare

    setup = prepare(config)
    prompts = [p for p in arguments.prompts for _ in arguments.seeds]
    before, after = both(setup, prompts, arguments.seeds * len(arguments.prompts))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    before_after(before.images, after.images, prompts).save(arguments.output)
    results = {
        name: vars(compare(before.scores[name], after.scores[name])) for name in before.scores if len(prompts) > 1
    }
    if arguments.json:
        print_json({"grid": str(arguments.output), "rewards": results})
    else:
        for name, r in results.items():
            say(f"{name}: {r['before']:.4f} -> {r['after']:.4f} ({r['difference']:+.4f} +- {r['standard_error']:.4f})")
        say(f"grid: {arguments.output}")
    return 0


def checked(arguments: argparse.Namespace) -> Config:
    """The settings to draw with.

    Raises:
        ConfigError, RewardError: what can be known to be wrong before anything is loaded.
    """
    kinds, output = Image.registered_extensions(), arguments.output
    require(output.suffix.lower() in kinds, "--output", str(output), "must be a picture, as grid.png")
    return config_of(arguments, brought_by(arguments.lora), arguments.prompts)


def config_of(arguments: argparse.Namespace, brought: Brought, prompts: Sequence[str]) -> Config:
    """The settings of what was brought, under those of the command line."""
    rewards = [reward_table(words) for words in arguments.reward]
    table = table_of(brought, Given(arguments.model, rewards, names_of(arguments.set)))
    for text in arguments.set:
        set_value(table, text)
    if not table["init"].get("image"):
        del table["init"]  # what there was to begin from
    config = parse({**table, "prompts": list(prompts)})
    if other_model(brought, config.model.path):
        note(f"{config.model.path} is not the model that {brought.source} was trained on: its digest is another")
    check_prompts((r.kind for r in config.rewards), config.prompts)
    for reward in config.rewards:
        check_weights(reward.kind, reward.options)
    return config


def names_of(overrides: Sequence[str]) -> set[str]:
    """The settings that these `--set` are about."""
    return {text.partition("=")[0].strip() for text in overrides}


def reward_table(words: Sequence[str]) -> Mapping[str, Any]:
    """`KIND KEY=VALUE ...` as a config's [[rewards]] has it.

    Raises:
        ConfigError: a word without a value.
    """
    kind, *options = words
    table: dict[str, Any] = {"kind": kind}
    for text in options:
        try:
            set_value(table, text if text.partition("=")[0].strip() in OF_REWARDS else f"options.{text}")
        except ConfigError:
            raise ConfigError(f"--reward {kind} {text}: must be KEY=VALUE, as url=http://localhost:8000") from None
    return table
