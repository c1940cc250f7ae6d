"""`python -m trainer sample RUN_OR_LORA --prompts ... -o grid.png`: before and after, side by side."""

import argparse
import json
from pathlib import Path

from PIL import Image

from ..errors import ConfigError
from ..models.files.headers import damage, metadata
from ..models.files.safe_file import DamagedFile
from ..plugins import is_own
from ..rewards import check_prompts, check_weights
from ..settings.config import Config
from ..settings.config_file import parse
from ..settings.described import require
from ..training.run_folder import LORA
from .output import print_json, say

# settings that may name a class of the user's own, beside the kinds of rewards
CLASSES = (("model", "family"), ("sampling", "solver"), ("grpo", "objective"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", type=Path, metavar="RUN_OR_LORA", help="a run's folder, or the .safetensors of one")
    parser.add_argument("--prompts", nargs="+", required=True, metavar="TEXT")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3], metavar="N", help="default: 0 1 2 3")
    parser.add_argument("-o", "--output", type=Path, default=Path("grid.png"), help="default: grid.png")


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
    path = arguments.lora / LORA if arguments.lora.is_dir() else arguments.lora
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give a run's folder or a LoRA that a run exported")
    kinds = Image.registered_extensions()
    require(
        arguments.output.suffix.lower() in kinds, "--output", str(arguments.output), "must be a picture, as grid.png"
    )
    try:
        config = config_of(path, metadata(path), arguments.prompts, trusted=path != arguments.lora)
    except (OSError, DamagedFile) as error:
        raise ConfigError(damage(path, error)) from error
    check_prompts((r.kind for r in config.rewards), config.prompts)
    for reward in config.rewards:
        check_weights(reward.kind, reward.options)
    return config


def config_of(path: Path, metadata: dict[str, str], prompts: list[str], *, trusted: bool) -> Config:
    """The settings a LoRA was trained with, which its file holds, with other prompts; it starts from the file.

    Only a `trusted` file may name classes of the user's own, whose code runs: a LoRA may come from anybody.
    """
    try:
        settings, rewards = json.loads(metadata["settings"]), json.loads(metadata["rewards"])
        names = [*(reward["kind"] for reward in rewards), *(settings[part].get(name, "") for part, name in CLASSES)]
    except (KeyError, ValueError, TypeError):
        raise ConfigError(f"{path}: not exported by a run of this project (its settings are missing)") from None
    own = [name for name in names if is_own(name)]
    if own and not trusted:
        raise ConfigError(f"{path} names {own[0]!r}, whose code would run: give the folder of your run instead")
    lora = {**settings["lora"], "start": str(path.absolute())}
    return parse({**settings, "lora": lora, "rewards": rewards, "prompts": prompts})
