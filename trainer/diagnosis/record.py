"""What a check looks at, what it finds, and the few statistics that all of them share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Series = Sequence[tuple[int, float | None]]  # (iteration, value); None if there was none
ENOUGH = 12  # values that tell the noise well enough to measure a rise by it
PASSES = ENOUGH  # over the prompts, from which on means of whole passes are compared
SHORTEST = 4  # iterations of the best window, and values of the last one, at least
LAST = 6  # the last window is this part of a run
# of the squared differences of neighbours that are used, and the mean of a chi-squared variable below that quantile
KEPT, KEPT_MEAN = 0.8, 0.4401


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run."""

    check: str
    severity: str  # "warning", or "problem" if the training does harm
    evidence: str  # one sentence with the numbers
    advice: str
    since: int  # iteration


@dataclass(frozen=True)
class Curve:
    """Values [n] and the iterations [n] in which they begin: of one iteration, or means of `period` of them."""

    iterations: NDArray[np.int64]
    values: NDArray[np.float64]
    period: int = 1

    def __len__(self) -> int:
        return len(self.values)

    @property
    def noise(self) -> float:
        """Standard deviation of a value about its trend, from the differences of neighbours.

        The largest fifth of them is left out, and made up for as in normal noise: a run that breaks has a few that are
        no noise.
        """
        squares = np.sort(np.square(np.diff(self.values)))
        kept = squares[: math.ceil(KEPT * len(squares))]
        return math.sqrt(kept.mean() / KEPT_MEAN / 2) if len(kept) else math.inf

    @property
    def variance(self) -> float:
        """Of a value about its trend, from all differences of neighbours (von Neumann)."""
        return float(np.square(np.diff(self.values)).mean() / 2)

    def part(self, start: int, stop: int) -> "Curve":
        return Curve(self.iterations[start:stop], self.values[start:stop], self.period)

    def last(self) -> "Curve":
        """What the run is like now: its last sixth, or SHORTEST values."""
        return self.part(max(0, len(self) - max(SHORTEST, len(self) // LAST)), len(self))

    def best(self, sign: float) -> "Curve | None":
        """The short window before `last` with the highest mean, or the lowest with a negative `sign`.

        None if the curve is too short to measure how far it is from there to `last`.
        """
        length, earlier = max(2, SHORTEST // self.period), len(self) - len(self.last())
        if len(self) < ENOUGH:
            return None
        means = np.convolve(self.values[:earlier], np.full(length, math.copysign(1 / length, sign)), "valid")
        start = int(means.argmax())
        return self.part(start, start + length)

    def at(self, iterations: NDArray[np.int64]) -> "Curve":
        """The values of these iterations that it has."""
        rows = np.isin(self.iterations, iterations)
        return Curve(self.iterations[rows], self.values[rows], self.period)

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def end(self) -> int:
        """The iteration after its last one."""
        return int(self.iterations[-1]) + self.period


@dataclass(frozen=True)
class Record:
    """The curves of a run, and the settings that tell what they mean."""

    curves: Mapping[str, Series]
    weights: Mapping[str, float]  # of the trained rewards; a negative one is to fall
    held_out: Sequence[str]
    prompts: int  # in the whole run
    prompts_per_iteration: int  # P
    group_size: int  # G
    strength: float  # s, the last one if a person changed it
    clip: float  # eps of the ratio

    @staticmethod
    def of(curves: Mapping[str, Series], settings: Mapping[str, Any]) -> "Record":
        """`settings` are those that a run stores, `Config.to_dict()`."""
        rewards = [(r["name"] or r["kind"], r) for r in settings["rewards"]]
        grpo = settings["grpo"]
        strengths = [value for _, value in curves.get("strength", ()) if value is not None]
        return Record(
            curves=curves,
            weights={label: r["weight"] for label, r in rewards if not r["held_out"]},
            held_out=[label for label, r in rewards if r["held_out"]],
            prompts=len(settings["prompts"]),
            prompts_per_iteration=grpo["prompts_per_iteration"],
            group_size=grpo["group_size"],
            strength=strengths[-1] if strengths else grpo["strength"],
            clip=grpo["clip"],
        )

    def curve(self, name: str) -> Curve:
        """The values of a metric, iteration by iteration, without the missing ones."""
        known = [(i, v) for i, v in self.curves.get(name, ()) if v is not None and math.isfinite(v)]
        return Curve(np.array([i for i, _ in known], int), np.array([v for _, v in known], float))

    @property
    def settled(self) -> int:
        """The first iteration of the strength that it has now."""
        others = [i for i, value in self.curves.get("strength", ()) if value != self.strength]
        return others[-1] + 1 if others else 0

    def passes(self, name: str) -> Curve:
        """Means over whole passes of the prompts, if there are enough of them, and the values themselves elsewhere.

        Prompts differ far more in their rewards than candidates do: a mean over all prompts moves with the policy
        alone. A pass with a missing value is left out.
        """
        curve, period = self.curve(name), -(-self.prompts // self.prompts_per_iteration)
        passes, place, counts = np.unique(curve.iterations // period, return_inverse=True, return_counts=True)
        whole = counts == period
        if period == 1 or whole.sum() < PASSES:
            return curve
        sums = np.bincount(place, weights=curve.values)
        return Curve(passes[whole] * period, sums[whole] / period, period)


def standard_errors(before: Curve, after: Curve, noise: float) -> float:
    """How far the mean rose between two windows, in standard errors of the difference; `noise` is that of a value."""
    if not len(before) or not len(after):
        return 0.0
    error = noise * math.sqrt(1 / len(before) + 1 / len(after))
    rise = after.mean - before.mean
    if error:
        return rise / error
    return math.copysign(math.inf, rise) if rise else 0.0
