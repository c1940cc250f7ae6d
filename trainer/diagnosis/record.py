"""What a check looks at, what it finds, and the few statistics that all of them share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Series = Sequence[tuple[int, float | None]]  # (iteration, value); None where there was none
PASSES = 8  # over the prompts, from which on means of whole passes are compared
SHORTEST = 4  # values that a window has at least
WINDOWS = 6  # that a run is cut into


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run."""

    check: str
    severity: str  # "warning", or "problem" where the training does harm
    evidence: str  # one sentence with the numbers
    advice: str
    since: int  # iteration


@dataclass(frozen=True)
class Curve:
    """Values [n] and the iterations [n] in which they begin: of one iteration, or means of `period` of them."""

    iterations: np.ndarray
    values: np.ndarray
    period: int = 1

    def __len__(self) -> int:
        return len(self.values)

    @property
    def noise(self) -> float:
        """Standard deviation of a value about its trend, from the differences of neighbours (von Neumann)."""
        return math.sqrt(np.square(np.diff(self.values)).mean() / 2) if len(self) > 1 else math.inf

    def windows(self) -> list["Curve"]:
        """Equally long parts that end with the last value, at least two; none where the curve is too short."""
        length = max(SHORTEST, len(self) // WINDOWS)
        starts = range(len(self) % length, len(self), length)
        parts = [Curve(self.iterations[s : s + length], self.values[s : s + length], self.period) for s in starts]
        return parts if len(parts) > 1 else []

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
    strength: float  # s
    clip: float  # eps of the ratio

    @staticmethod
    def of(curves: Mapping[str, Series], settings: Mapping[str, Any]) -> "Record":
        """`settings` are those that a run stores, `Config.to_dict()`."""
        rewards = [(r["name"] or r["kind"], r) for r in settings["rewards"]]
        grpo = settings["grpo"]
        return Record(
            curves=curves,
            weights={label: r["weight"] for label, r in rewards if not r["held_out"]},
            held_out=[label for label, r in rewards if r["held_out"]],
            prompts=len(settings["prompts"]),
            prompts_per_iteration=grpo["prompts_per_iteration"],
            group_size=grpo["group_size"],
            strength=grpo["strength"],
            clip=grpo["clip"],
        )

    def curve(self, name: str) -> Curve:
        """The values of a metric, iteration by iteration, without the missing ones."""
        known = [(i, v) for i, v in self.curves.get(name, ()) if v is not None and math.isfinite(v)]
        return Curve(np.array([i for i, _ in known], int), np.array([v for _, v in known], float))

    def passes(self, name: str) -> Curve:
        """Means over whole passes of the prompts, where there are enough of them, and the values themselves elsewhere.

        Prompts differ far more in their rewards than candidates do: a mean over all prompts moves with the policy
        alone. A pass with a missing value is left out.
        """
        curve, period = self.curve(name), -(-self.prompts // self.prompts_per_iteration)
        number = curve.iterations // period
        counts = np.bincount(number) if len(curve) else np.zeros(0, int)
        whole = np.flatnonzero(counts == period)
        if period == 1 or len(whole) < PASSES:
            return curve
        sums = np.bincount(number, weights=curve.values)
        return Curve(whole * period, sums[whole] / period, period)


def standard_errors(before: Curve, after: Curve, noise: float) -> float:
    """How far the mean rose between two windows, in standard errors of the difference; `noise` is that of a value."""
    error = noise * math.sqrt(1 / len(before) + 1 / len(after))
    rise = after.mean - before.mean
    return rise / error if error else math.copysign(math.inf, rise) if rise else 0.0
