"""`python -m trainer plan [CONFIG.toml] [--vram GIB]`: will it fit, and at what cost? Needs no GPU and no weights."""

import argparse
import sys
from pathlib import Path

from .output import print_json, say
from .terminal import quiet_libraries

FLUX_DEV = Path(__file__).parents[1] / "planning/flux-dev.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", type=Path, nargs="?", default=FLUX_DEV, metavar="CONFIG.toml", help="default: FLUX.1-dev with HPSv2.1"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as run.micro_batch=1"
    )
    parser.add_argument("--vram", type=float, metavar="GIB", help="memory of the card: says which plan fits")


def main(arguments: argparse.Namespace) -> int:
    quiet_libraries()
    from ..planning.report import plan, read_config

    config = read_config(arguments.config, arguments.set)
    report = plan(config, arguments.vram, progress=lambda name: print(f"counting {name} ...", file=sys.stderr))
    print_json(report.to_dict()) if arguments.json else say("\n".join(report.lines()))
    return 0
