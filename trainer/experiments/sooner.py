"""How much sooner an arm is where another one ends."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from .sheet import Row
from .summary import Result


@dataclass(frozen=True)
class Sooner:
    """When an arm had the trained reward that another one ends with: of each seed."""

    other: Result
    seconds: tuple[float, ...]  # inf: never
    held_out: tuple[float, ...]  # its held-out reward then

    @property
    def ratio(self) -> float:
        """The other's seconds by the median seed's; 0 if that seed never had as much."""
        return self.other.seconds / statistics.median(self.seconds)

    def __str__(self) -> str:
        if self.ratio == 0:
            return f"{self.other.arm}'s {self.other.trained.value:+.3f} it has not reached"
        when = " to ".join(dict.fromkeys(f"{s:.1f}" for s in (min(self.seconds), max(self.seconds))))
        return (
            f"{self.other.arm}'s {self.other.trained.value:+.3f} it has after {when} s, {self.ratio:.1f} times sooner, "
            f"held out {statistics.mean(self.held_out):+.3f} against {self.other.held_out.value:+.3f}"
        )


def sooner(rows: Sequence[Row], one: Result, other: Result) -> Sooner | None:
    """None if the other raised nothing: there is nothing to reach."""
    if other.trained.value <= 0:
        return None
    mine = [row for row in rows if (row.task, row.arm, row.rate) == (one.task, one.arm, one.rate)]
    crossings = [
        crossing([r for r in mine if r.seed == s], other.trained.value) for s in sorted({r.seed for r in mine})
    ]
    return Sooner(other, *zip(*crossings, strict=True))


def crossing(run: Sequence[Row], target: float) -> tuple[float, float]:
    """Seconds and held-out reward where a run's trained reward first is the target, on lines between its tests."""
    points = [(0.0, 0.0, 0.0), *((r.seconds, r.trained, r.held_out) for r in sorted(run, key=lambda r: r.mark))]
    for (began, low, held), (ended, high, further) in pairwise(points):
        if low < target <= high:
            share = (target - low) / (high - low)
            return began + share * (ended - began), held + share * (further - held)
    return inf, points[-1][2]


def in_words(rows: Sequence[Row], found: Sequence[Result]) -> str:
    """Of each task's best arm, and of those that are as good but for chance, when it had what the others end with."""
    sentences = []
    for task in dict.fromkeys(r.task for r in found):
        arms = sorted((r for r in found if r.task == task), key=lambda r: -r.trained.value)
        good = [r for r in arms if r.trained.value >= arms[0].trained.value - arms[0].trained.error]
        for one in good:
            told = [str(s) for other in arms if other not in good and (s := sooner(rows, one, other))]
            if told:
                sentences.append(f"{one.arm} on {task}: {'; '.join(told)}.")
    return " ".join(sentences)
