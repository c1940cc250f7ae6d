"""How time and peak memory of an iteration grow with G, P, T, K, B and the pixels."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from ..experiments.bench import Bench
from .iteration import one

START = ["grpo.group_size=8", "grpo.prompts_per_iteration=2", "sampling.steps=8", "run.micro_batch=4"]
START += ["grpo.anchors=2", "grpo.trained_steps=2", "grpo.pairing='crossed'"]
EDGES = (64, 96, 128)
AXES: Mapping[str, Mapping[int, list[str]]] = {
    "G, candidates": {n: [f"grpo.group_size={n}"] for n in (8, 16, 32)},
    "P, prompts": {n: [f"grpo.prompts_per_iteration={n}"] for n in (2, 4, 8)},
    "T, steps": {n: [f"sampling.steps={n}"] for n in (4, 8, 16)},
    "K, trained steps": {n: [f"grpo.trained_steps={n}"] for n in (2, 4, 8)},
    "B, anchors": {n: [f"grpo.anchors={n}"] for n in (2, 4, 8)},
    "pixels": {n * n: [f"sampling.width={n}", f"sampling.height={n}"] for n in EDGES},
}


def measure(bench: Bench, run: Callable[[list[str]], str], rounds: int) -> list[dict[str, object]]:
    """One row an axis: medians of `rounds` in turn, the peak of each value, and the exponents of both.

    Args:
        bench: whose other settings stay as they are.
        run: measures the peak with some overrides in a process of its own, as `memory.measure` has it.
    """
    rows: list[dict[str, object]] = []
    for name, values in AXES.items():
        seconds: dict[int, list[float]] = {value: [] for value in values}
        for turn in range(-1, rounds):
            for value, overrides in values.items():
                taken = one(bench.setup(bench.task.config([*bench.overrides, *START, *overrides])))
                if turn >= 0:
                    seconds[value].append(taken)
        medians = [statistics.median(taken) for taken in seconds.values()]
        peaks = [json.loads(run([*START, *overrides]))["iteration_mib"] for overrides in values.values()]
        rows.append(
            {
                "axis": name,
                "values": list(values),
                "seconds": medians,
                "seconds_exponent": exponent(list(values), medians),
                "peak_mib": peaks,
                "peak_exponent": exponent(list(values), peaks),
            }
        )
    return rows


def exponent(values: Sequence[float], measured: Sequence[float]) -> float:
    """b of the power law a * value^b that fits best, on logarithms; nan if something measured is not above 0."""
    if min(measured) <= 0:
        return math.nan
    x, y = ([math.log(v) for v in each] for each in (values, measured))
    return statistics.linear_regression(x, y).slope


def table(rows: Sequence[dict[str, object]]) -> str:
    lines = [
        "| | values | seconds | exponent | peak above the loaded model, MiB | exponent |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['axis']} | {listed(r['values'], 'd')} | {listed(r['seconds'], '.2f')} | {r['seconds_exponent']:.2f} "
        f"| {listed(r['peak_mib'], '.0f')} | {r['peak_exponent']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def listed(values: object, kind: str) -> str:
    return ", ".join(format(value, kind) for value in values) if isinstance(values, list) else ""
