"""An experiment as a picture: what each arm reached over time, trained reward above, held-out reward below."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .sheet import Row
from .summary import Result, results

ROWS = (("trained", "trained reward"), ("held_out", "held-out reward"))


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    found = results(rows)
    tasks = list(dict.fromkeys(r.task for r in found))
    figure = Figure(figsize=(7.5 * len(tasks), 6.5), layout="constrained")
    grid = figure.subplots(2, len(tasks), squeeze=False, sharex="col")
    for column, task in enumerate(tasks):
        for line, (name, label) in enumerate(ROWS):
            axes = grid[line][column]
            for colour, result in enumerate(r for r in found if r.task == task):
                curve(axes, rows, result, name, f"C{colour}")
            axes.axhline(0, color="0.8", linewidth=1, zorder=0)
            axes.set_ylabel(f"{label}, rise")
            axes.spines[["top", "right"]].set_visible(False)
        grid[0][column].set_title(task)
        grid[0][column].legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        grid[1][column].set_xlabel("seconds of training")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def curve(axes: Any, rows: Sequence[Row], result: Result, name: str, colour: str) -> None:
    """The mean over seeds, and each seed pale."""
    mine = [r for r in rows if (r.task, r.arm, r.rate) == (result.task, result.arm, result.rate)]
    marks = sorted({row.mark for row in mine})
    at = [[r for r in mine if r.mark == mark] for mark in marks]
    x = [0.0, *(statistics.mean(r.seconds for r in some) for some in at)]
    y = [0.0, *(statistics.mean(getattr(r, name) for r in some) for some in at)]
    axes.plot(x, y, color=colour, marker="o", markersize=3, label=f"{result.arm} ({result.rate:g})")
    for seed in sorted({row.seed for row in mine}):
        own = sorted((r for r in mine if r.seed == seed), key=lambda r: r.mark)
        axes.plot([0.0, *(r.seconds for r in own)], [0.0, *(getattr(r, name) for r in own)], color=colour, alpha=0.25)
