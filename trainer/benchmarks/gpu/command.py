"""`python -m trainer bench gpu` from its options to the report.

The checks run in a process of their own. An illegal memory access ends a process's way to its card for good: another
process then goes on with the checks that are left.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from .report import Report
from .results import BROKEN, FAILED, Result

WORKER = (sys.executable, "-m", "trainer", "bench", "gpu", "--worker")
MISTAKE = 2  # exit code of what the user can put right


def main(arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the checks; returns 0 if everything that ran is as expected, else 1.

    Args:
        say: called with each line for the terminal.

    Raises:
        UserError: a mistake in the options.
    """
    began, report = time.monotonic(), Report(arguments.out, arguments.json, say)
    only: str | None = arguments.only
    while only is not None:
        left = arguments.budget - (time.monotonic() - began)
        only = one_process(report, worker(only, left, arguments.plans))
    return report.end()


def worker(only: str, budget: float, plans: Sequence[Path]) -> list[str]:
    """The command of a process that runs the checks of these numbers."""
    command = [*WORKER, "--only", only, f"--budget={budget}"]  # as one word: it may be negative
    return [*command, "--plans", *map(str, plans)] if plans else command


def one_process(report: Report, command: list[str]) -> str | None:
    """Report what a process of checks says; returns the numbers of those that it left, None if it left none."""
    asked: dict[int, str] = {}  # numbers and names
    with tempfile.TemporaryFile("w+", encoding="utf-8") as words:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, text=True, encoding="utf-8")
        with process:
            try:
                for row in rows_of(process.stdout or ()):
                    if "head" in row:
                        asked = dict(row["checks"])
                        report.begin(row["head"])
                    else:
                        report.add(row)
            except BaseException:  # Ctrl-C
                process.terminate()
                raise
        words.seek(0)
        last = (words.read().strip().splitlines() or [""])[-1]
    if process.returncode == MISTAKE or not asked:
        raise UserError(last.removeprefix("error: ") or f"bench gpu: its process ended with {process.returncode}")
    left = [number for number in asked if number not in report.rows]
    if left and process.returncode != BROKEN:  # it died in the first one of them
        reason = f"its process ended with {process.returncode}: {last}"
        report.add(Result(number := left.pop(0), asked[number], FAILED, reason=reason).to_dict())
    return ",".join(map(str, left)) or None


def rows_of(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The objects of a process's output, one in each line; other lines are left out."""
    return (json.loads(line) for line in lines if line.startswith("{"))
