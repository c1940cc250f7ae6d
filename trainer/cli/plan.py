"""`python -m trainer plan [CONFIG.toml] [--vram GIB] [--card NAME]`: will it fit, and how long will it take?

Needs no GPU and no weights.
"""

import argparse
from pathlib import Path

from ..planning.cards import Card, card_named, measured
from ..planning.config import check_vram, read_config
from .output import note, print_json, say

FLUX_DEV = Path(__file__).parents[1] / "planning/flux-dev.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", type=Path, nargs="?", default=FLUX_DEV, metavar="CONFIG.toml", help="default: FLUX.1-dev with HPSv2.1"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as run.micro_batch=1"
    )
    parser.add_argument("--vram", type=float, metavar="GIB", help="memory of the card: says which plan fits")
    parser.add_argument("--card", metavar="NAME", help="whose speed counts, as 4090; default: by the memory")
    add_measured(parser)


def add_measured(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--measured", type=Path, metavar="FILE", help="a card's rates as `bench gpu --out FILE` measured them"
    )


def main(arguments: argparse.Namespace) -> int:
    config = read_config(arguments.config, arguments.set)
    check_vram(arguments.vram)
    card = card_of(arguments)
    from ..planning.report import plan

    report = plan(config, arguments.vram, lambda name: note(f"counting {name} ..."), card)
    if arguments.json:
        print_json(report.to_dict())
    else:
        say("\n".join(report.lines()))
    return 0


def card_of(arguments: argparse.Namespace) -> Card | None:
    """That of --measured, else of --card; None if neither is given.

    Raises:
        ConfigError: no such card, or no such file.
    """
    if arguments.measured:
        return measured(arguments.measured)
    return card_named(arguments.card) if arguments.card else None
