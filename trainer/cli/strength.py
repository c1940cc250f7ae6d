"""`python -m trainer strength RUN_OR_LORA`: every reward at LoRA strengths from 0.4 to 1.2, and the best of them.

A run keeps the table, and the panel shows it.
"""

import argparse

from ..errors import ConfigError
from ..history.strengths import keep
from ..training.brought import Brought, brought_by, iteration_of
from .output import note, print_json, say
from .sample import add_lora, config_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_lora(parser)
    parser.add_argument("--prompts", nargs="+", metavar="TEXT", help="default: the run's, of its evaluation first")
    parser.add_argument("--pictures", type=int, default=4, help="of each prompt, default: 4")


def main(arguments: argparse.Namespace) -> int:
    brought = brought_by(arguments.lora)
    prompts = arguments.prompts or prompts_of(brought)
    config = config_of(arguments, brought, prompts)
    if len(prompts) * arguments.pictures < 2:
        raise ConfigError(f"--pictures {arguments.pictures}: two pictures at least are needed to compare")

    from ..training.evaluate import UNSEEN
    from ..training.prepare import prepare
    from ..training.strengths import measure, recommended, table, told

    setup = prepare(config)
    drawn = [p for p in prompts for _ in range(arguments.pictures)]
    seeds = range(UNSEEN, UNSEEN + len(drawn))
    found = measure(setup, drawn, seeds, on_done=lambda at: note(f"strength {at.strength:g} done"))
    best = recommended(found, list(config.weights), config.held_out)
    result = told(found, best, len(drawn))
    if arguments.json:
        print_json(result)
    else:
        say(table(config, found, best))
    if brought.is_run:
        keep(brought.source, result, iteration_of(brought.lora))
    return 0


def prompts_of(brought: Brought) -> list[str]:
    """What a run drew to be looked at, or else what it was trained on.

    Raises:
        ConfigError: a LoRA alone, which does not say its prompts.
    """
    settings = brought.settings
    evaluation = settings.get("evaluation")
    watched = evaluation.get("prompts") if isinstance(evaluation, dict) else None
    prompts = watched or settings.get("prompts") if brought.is_run else None
    if not isinstance(prompts, list | tuple) or not all(isinstance(p, str) for p in prompts):
        raise ConfigError(f"{brought.source}: a LoRA alone does not say its prompts; name some by --prompts")
    return list(dict.fromkeys(prompts))
