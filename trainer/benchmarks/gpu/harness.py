"""Runs the checks in order, each in its own try."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...training.run import in_one_line
from .bench import Bench
from .results import FAILED, SKIPPED, Broken, Result, Skipped, Value, judged


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

    Raises:
        Broken: the device answers no more, as after an illegal memory access; the results so far are told.
    """
    for check in checks:
        left = budget - (time.monotonic() - began)
        if check.seconds > left:
            reason = f"takes about {check.seconds:.0f} s, of the budget {max(0.0, left):.0f} s are left"
            result = Result(check.number, check.name, SKIPPED, reason=reason)
        else:
            result = attempt(check, bench, began + budget)
        bench.results[check.number] = result
        tell(result)
        if result.status == FAILED:
            bench.loaded = None  # whatever state the model is in
        try:
            bench.card.release()
        except RuntimeError as error:
            raise Broken(in_one_line(error)) from error
    return list(bench.results.values())


def attempt(check: Check, bench: Bench, deadline: float = float("inf")) -> Result:
    """The check's result, whatever happens in it; what was found before an exception or the deadline is kept."""
    values: list[Value] = []
    began, trace, cut = time.monotonic(), "", False
    try:
        for value in check.measure(bench):
            values.append(value)
            if time.monotonic() > deadline:
                cut = True
                break
        status, reason = judged(values)
        reason = "; ".join(filter(None, [f"cut off by the budget after {len(values)} values" if cut else "", reason]))
    except Skipped as error:
        status, reason = SKIPPED, str(error)
    except Exception as error:  # noqa: BLE001  it is this check's result, and the next one goes on
        status, reason, trace = FAILED, in_one_line(error), traceback.format_exc(limit=-8)
    return Result(check.number, check.name, status, values, time.monotonic() - began, reason, trace, cut)
