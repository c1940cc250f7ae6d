"""`python -m trainer bench gpu` on a card that is there, from its options to the report."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

from ...errors import UserError
from .again import in_another_process
from .bench import Bench
from .card import Card
from .counts import Counts
from .harness import Check, run, written
from .results import Result
from .sizes import FULL
from .table import CHECKS, all_well, lines, summary

AGAIN_SECONDS = 300.0  # of the other process that one check starts


def wanted(numbers: str) -> list[Check]:
    """The checks of these numbers, all if there are none. Raises UserError."""
    known = {str(check.number): check for check in CHECKS}
    asked = [number.strip() for number in numbers.split(",")] if numbers else list(known)
    strange = [number for number in asked if number not in known]
    if strange:
        raise UserError(f"--only {numbers}: {strange[0]!r} is no check, they are 0 to {len(CHECKS) - 1}")
    return [known[number] for number in known if number in asked]


def main(device: str, arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the checks; returns 0 if everything that ran is as expected, else 1.

    Args:
        say: called with each line for the terminal.

    Raises:
        UserError: a mistake in the options.
    """
    began = time.monotonic()
    checks = wanted(arguments.only)
    sizes = replace(FULL, first_case=arguments.first_case)
    again = in_another_process(arguments.plans, AGAIN_SECONDS)
    bench = Bench(Card(device), sizes, Counts(arguments.plans), again)
    facts = bench.card.facts()
    say(json.dumps({"head": facts}) if arguments.json else headline(facts))

    def tell(result: Result) -> None:
        say(json.dumps(result.to_dict()) if arguments.json else "\n".join(lines(result)))
        if arguments.out:
            written(arguments.out, facts, list(bench.results.values()))

    results = run(bench, checks, budget=arguments.budget, began=began, tell=tell)
    if not arguments.json:
        say(summary(results))
    return 0 if all_well(results) else 1


def headline(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)
