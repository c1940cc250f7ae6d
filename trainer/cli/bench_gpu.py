"""`python -m trainer bench gpu`: proves the GPU path on the card at hand, on random weights."""

import argparse
import time
from pathlib import Path

from ..choices import AUTO
from ..errors import UserError
from .output import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("gpu")
    group.add_argument("--budget", type=float, default=600, metavar="SECONDS", help="no check ends after, default: 600")
    group.add_argument("--only", default="", metavar="N,M", help="numbers of checks, default: all")
    counts = "counts made elsewhere by plan --json, default: counted here when needed"
    group.add_argument("--plans", type=Path, nargs="+", default=[], metavar="FILE", help=counts)
    group.add_argument("--out", type=Path, metavar="FILE", help="results as JSON, rewritten whole after each check")
    group.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # the process that the checks run in
    group.add_argument("--first-case", action="store_true", help=argparse.SUPPRESS)  # of check 4, alone


def main(arguments: argparse.Namespace) -> int:
    """Raises UserError without a card, before anything heavy is imported or done."""
    from ..device import pick_device

    began = time.monotonic()
    device = pick_device(AUTO)
    if device == "cpu":
        raise UserError("bench gpu: torch sees no GPU here; it needs an NVIDIA card and a torch that is built for CUDA")
    if not arguments.worker:
        from ..benchmarks.gpu import command

        return command.main(arguments, say)
    from ..benchmarks.gpu.worker import work

    options = {"only": arguments.only, "plans": arguments.plans, "first_case": arguments.first_case}
    return work(device, say, began=began, budget=arguments.budget, **options)
