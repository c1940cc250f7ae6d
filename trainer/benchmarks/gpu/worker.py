"""The process that the checks run in: it says what they come to as lines of JSON, and ends if one breaks the device."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import UserError
from .again import in_another_process
from .bench import Bench
from .card import Card
from .counts import Counts
from .harness import Check, run
from .results import BROKEN, Broken
from .sizes import FULL
from .table import CHECKS

AGAIN_SECONDS = 300.0  # of the other process that one check starts


def wanted(numbers: str) -> list[Check]:
    """The checks of these numbers, all if there are none. Raises UserError."""
    known = {str(check.number): check for check in CHECKS}
    asked = [number.strip() for number in numbers.split(",")] if numbers else list(known)
    strange = [number for number in asked if number not in known]
    if strange:
        raise UserError(f"--only {numbers}: {strange[0]!r} is no check, they are 0 to {len(CHECKS) - 1}")
    return [known[number] for number in known if number in asked]


def work(
    device: str,
    say: Callable[[str], None],
    *,
    only: str,
    plans: list[Path],
    began: float,
    budget: float,
    first_case: bool = False,
) -> int:
    """Run the checks; says {"head": facts, "checks": numbers}, then one row each.

    Args:
        first_case: whether check 4 measures its first case alone.

    Returns 0, or BROKEN if the rest has to run in another process.

    Raises:
        UserError: a mistake in the options.
    """
    checks = wanted(only)
    sizes = replace(FULL, first_case=first_case)
    bench = Bench(Card(device), sizes, Counts(plans), in_another_process(plans, AGAIN_SECONDS))

    def tell(what: dict[str, Any]) -> None:
        say(json.dumps(what))

    tell({"head": bench.card.facts(), "checks": [(check.number, check.name) for check in checks]})
    try:
        run(bench, checks, budget=budget, began=began, tell=lambda result: tell(result.to_dict()))
    except Broken:
        return BROKEN
    return 0
