"""Check 15: the races and the peaks once more, in another process with CUDA's own allocator."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .bench import Again, Bench
from .command import rows_of, worker
from .results import OK, Value

AGAIN = (2, 4)
ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}


def other_allocator(bench: Bench) -> Iterator[Value]:
    bench.card.need("get_allocator_backend")
    bench.drop()
    for found in bench.again(AGAIN, ALLOCATOR):
        number = found["number"]
        yield Value(f"check {number}", found["reason"] or found["status"], equals=OK)
        here = bench.results.get(number)
        if here is None:
            continue
        for value in found["values"]:
            before = here.value(value["name"])
            if value["name"].endswith(" peak") and isinstance(before, float):
                slack = max(0.02 * before, 2**-8)
                yield Value(value["name"], value["value"], "GiB", low=before - slack, high=before + slack)


def in_another_process(plans: Sequence[Path], seconds: float) -> Again:
    """A function that runs checks of some numbers by this same command, the peaks' check in its first case alone."""

    def run(numbers: Sequence[int], environment: Mapping[str, str]) -> list[dict[str, Any]]:
        command = [*worker(",".join(map(str, numbers)), seconds, plans), "--first-case"]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        found = [row for row in rows_of(done.stdout.splitlines()) if "number" in row]
        if len(found) < len(numbers):
            raise RuntimeError(f"the other process ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return found

    return run
