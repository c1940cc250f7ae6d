"""Peak memory of an iteration over group size G, solver steps T and micro-batch."""

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..device import allocated_memory
from ..engine.state import new_state
from ..errors import ConfigError
from ..events import Event, IterationDone
from ..settings.config import Config
from ..training.loop import train
from ..training.prepare import prepare

# (G, T, micro-batch): G and T grow at a fixed micro-batch, then the micro-batch grows
CASES = [(4, 4, 4), (12, 4, 4), (24, 4, 4), (4, 8, 4), (4, 16, 4), (24, 16, 4), (24, 4, 8), (24, 4, 16)]
PIXELS = 256
MIB = 2**20


def measure(run: Callable[[list[str]], str]) -> list[dict[str, float]]:
    """One row a case. `run` measures with some overrides in a process of its own and returns what it printed."""
    rows = []
    for group_size, steps, micro_batch in CASES:
        overrides = [
            f"grpo.group_size={group_size}",
            f"sampling.steps={steps}",
            f"run.micro_batch={micro_batch}",
            "grpo.prompts_per_iteration=1",
            f"sampling.width={PIXELS}",
            f"sampling.height={PIXELS}",
        ]
        result = json.loads(run(overrides))
        rows.append({"group_size": group_size, "steps": steps, "micro_batch": micro_batch, **result})
    return rows


def peak(config: Config) -> dict[str, float]:
    """Peak MiB of two iterations above the loaded model: of the device if it counts, else of this process."""
    setup = prepare(replace(config, run=replace(config.run, iterations=2)))
    state = new_state(setup)
    loaded = allocated_memory(setup.policy.device) or _forget_peak()
    peaks = []

    def listen(event: Event) -> None:
        if isinstance(event, IterationDone) and "memory/device" in event.metrics:
            peaks.append(event.metrics["memory/device"])

    train(setup, state, on_event=listen, save=lambda _: None)
    highest = max(peaks) if peaks else _peak_resident()
    return {"loaded_mib": round(loaded / MIB, 1), "iteration_mib": round((highest - loaded) / MIB, 1)}


def _forget_peak() -> int:
    """Bytes that a peak counts from: those of this moment, or of the peak so far where it cannot be reset."""
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what loading freed is the system's again
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except (OSError, AttributeError, TypeError):  # not Linux with glibc, or a container that refuses
        pass
    return _peak_resident()


def _peak_resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.open(encoding="ascii") if line.startswith("VmHWM:")) * 1024
    try:
        import resource
    except ImportError:
        raise ConfigError("bench memory: needs Linux, macOS or a CUDA device") from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def table(rows: list[dict[str, float]]) -> str:
    lines = ["| G | T | micro-batch | peak above the loaded model |", "|---|---|---|---|"]
    lines += [f"| {r['group_size']} | {r['steps']} | {r['micro_batch']} | {r['iteration_mib']:.0f} MiB |" for r in rows]
    return "\n".join(lines)
