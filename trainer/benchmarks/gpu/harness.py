"""Runs the checks in order, each in its own try. What is known so far is always on disk."""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files import written_whole
from ...run import in_one_line
from .bench import Bench
from .results import FAILED, SKIPPED, Result, Skipped, Value, judged


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    number: int
    name: str
    seconds: float  # on an H200, roughly: one that would end after the budget is not begun
    measure: Callable[[Bench], Iterator[Value]]
    expected: str  # in words, for the documents


def run(
    bench: Bench, checks: Sequence[Check], *, budget: float, began: float, tell: Callable[[Result], None]
) -> list[Result]:
    """Every check's result, told one by one as they come.

    Args:
        budget: seconds since `began` (of time.monotonic) after which no check shall end.
    """
    for check in checks:
        left = budget - (time.monotonic() - began)
        if check.seconds > left:
            reason = f"takes about {check.seconds:.0f} s, of the budget {max(0.0, left):.0f} s are left"
            result = Result(check.number, check.name, SKIPPED, reason=reason)
        else:
            result = attempt(check, bench)
        bench.results[check.number] = result
        tell(result)
    return list(bench.results.values())


def attempt(check: Check, bench: Bench) -> Result:
    """The check's result, whatever happens in it; the values before an exception are kept."""
    values: list[Value] = []
    began, trace = time.monotonic(), ""
    try:
        for value in check.measure(bench):
            values.append(value)
        status, reason = judged(values)
    except Skipped as error:
        status, reason = SKIPPED, str(error)
    except Exception as error:  # noqa: BLE001  it is this check's result, and the next one goes on
        status, reason, trace = FAILED, in_one_line(error), traceback.format_exc(limit=-8)
    if status == FAILED:
        bench.drop()  # whatever state the model is in
    bench.card.release()
    return Result(check.number, check.name, status, values, time.monotonic() - began, reason, trace)


def written(path: Path, facts: dict[str, Any], results: Sequence[Result]) -> None:
    """The whole report as one JSON file, in place of the one before."""
    report = {"head": facts, "checks": [result.to_dict() for result in results]}
    with written_whole(path) as partial:
        partial.write_text(json.dumps(report, indent=1), "utf-8")
