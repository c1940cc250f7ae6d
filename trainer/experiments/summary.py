"""What an experiment's rows say: each arm at its best rate, over seeds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .measured import Table
from .sheet import Row


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, with its standard error: of the seeds, and of the pictures, which all seeds share."""

    value: float
    of_seeds: float
    of_pictures: float

    @property
    def error(self) -> float:
        return math.hypot(self.of_seeds, self.of_pictures)

    def __str__(self) -> str:
        return f"{self.value:+.3f} +- {self.error:.3f}"


@dataclass(frozen=True)
class Result:
    """An arm at its best rate, at the end of its budget."""

    task: str
    arm: str
    rate: float
    seeds: int
    iterations: float
    seconds: float
    trained: Mean
    held_out: Mean


def results(rows: Sequence[Row]) -> list[Result]:
    """Every arm of every task at its best rate, in the order of the rows."""
    last = last_marks(rows)
    arms = dict.fromkeys((row.task, row.arm) for row in last)
    return [best([row for row in last if (row.task, row.arm) == arm]) for arm in arms]


def best(rows: Sequence[Row]) -> Result:
    """An arm at the rate with the highest trained reward, of those that most seeds have been tried at."""
    last = last_marks(rows)
    rates = [result([row for row in last if row.rate == rate]) for rate in dict.fromkeys(row.rate for row in last)]
    return max(rates, key=lambda r: (r.seeds, r.trained.value))


def last_marks(rows: Iterable[Row]) -> list[Row]:
    """The last test of each run."""
    last: dict[tuple[str, str, float, int], Row] = {}
    for row in rows:
        last[row.run] = max(row, last.get(row.run, row), key=lambda row: row.mark)
    return list(last.values())


def result(rows: Sequence[Row]) -> Result:
    first = rows[0]
    return Result(
        first.task,
        first.arm,
        first.rate,
        len(rows),
        statistics.mean(row.iterations for row in rows),
        statistics.mean(row.seconds for row in rows),
        mean_of([row.trained for row in rows], [row.trained_se for row in rows]),
        mean_of([row.held_out for row in rows], [row.held_out_se for row in rows]),
    )


def mean_of(values: Sequence[float], errors: Sequence[float]) -> Mean:
    seeds = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Mean(statistics.mean(values), seeds, statistics.mean(errors))


def paired(rows: Sequence[Row], one: Result, other: Result) -> Mean:
    """How much more `one` raised the trained reward than `other`, seed by seed."""
    last = {row.run: row for row in last_marks(rows)}
    seeds = sorted({row.seed for row in rows})
    pairs = [
        (last[mine], last[its])
        for seed in seeds
        if (mine := (one.task, one.arm, one.rate, seed)) in last
        and (its := (other.task, other.arm, other.rate, seed)) in last
    ]
    return mean_of([a.trained - b.trained for a, b in pairs], [0.0 for _ in pairs])


def table(found: Sequence[Result]) -> str:
    """Markdown, a row an arm."""
    rows = [
        (r.task, r.arm, f"{r.rate:g}", f"{r.iterations:.0f}", f"{r.seconds:.0f}", r.trained, r.held_out) for r in found
    ]
    return Table(("task", "arm", "rate", "iterations", "seconds", "trained", "held out"), rows, "").markdown()


def paragraph(question: str, rows: Sequence[Row]) -> str:
    """Which arm reached most on each task, and whether the difference to the next is more than chance."""
    sentences = [question]
    found = results(rows)
    for task in dict.fromkeys(r.task for r in found):
        best, *others = sorted((r for r in found if r.task == task), key=lambda r: -r.trained.value)
        sentence = f"On {task}, {best.arm} reached most: {best.trained} (held out {best.held_out})"
        if others:
            more = paired(rows, best, others[0])
            certain = best.seeds > 1 and more.value > 2 * more.of_seeds
            sentence += (
                f", {others[0].arm} {others[0].trained}, a difference {'beyond' if certain else 'within'} chance"
            )
        sentences.append(f"{sentence} ({best.seeds} seeds, {best.seconds:.0f} s each).")
    return " ".join(sentences)
