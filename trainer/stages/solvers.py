"""Stage 2b: deterministic solvers of dx / dsigma = v(x, sigma).

Each is a generator: step by step it yields (x_j, v_j, x_{j+1}), where v_j is the velocity it evaluated at (x_j, s_j)
anyway. The leaping policy needs exactly these. It works in the precision of `x`; the step sizes come from a float64
grid as Python numbers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..plugins import is_own, load

if TYPE_CHECKING:  # a setting is checked against SOLVERS, without torch
    from torch import Generator, Tensor

Velocity = Callable[["Tensor", float], "Tensor"]
Step = tuple["Tensor", "Tensor", "Tensor"]  # x_j, v_j, x_{j+1}


class Solver(Protocol):
    """From x at the first sigma of a grid to x at the last."""

    def __call__(
        self, velocity: Velocity, x: "Tensor", sigmas: Sequence[float], generator: "Generator | None" = None
    ) -> Iterator[Step]:
        """Step by step. `generator` is for a solver that draws random numbers."""

    def evaluations(self, steps: int) -> int:
        """How often it asks for the velocity in `steps` steps down to sigma 0.

        One that has `on_grid = True` asks at the sigmas of the grid alone: what hangs on them is then computed once.
        """


@dataclass(frozen=True)
class Deterministic:
    """A solver of the ODE, which draws nothing, and asks at the sigmas of the grid alone."""

    on_grid = True
    steps: Callable[[Velocity, "Tensor", Sequence[float]], Iterator[Step]]
    asks: Callable[[int], int] = lambda steps: steps

    def __call__(
        self, velocity: Velocity, x: "Tensor", sigmas: Sequence[float], generator: "Generator | None" = None
    ) -> Iterator[Step]:
        return self.steps(velocity, x, sigmas)

    def evaluations(self, steps: int) -> int:
        return self.asks(steps)


def euler(velocity: Velocity, x: "Tensor", sigmas: Sequence[float]) -> Iterator[Step]:
    """First order, one evaluation a step."""
    for s, s_next in zip(sigmas, sigmas[1:], strict=False):
        v = velocity(x, s)
        x_next = x + (s_next - s) * v
        yield x, v, x_next
        x = x_next


def heun(velocity: Velocity, x: "Tensor", sigmas: Sequence[float]) -> Iterator[Step]:
    """Second order, two evaluations a step (one in the last: at sigma 0 nothing is left to correct)."""
    for s, s_next in zip(sigmas, sigmas[1:], strict=False):
        h = s_next - s
        v = velocity(x, s)
        x_next = x + h * v
        if s_next > 0:
            x_next = x + h / 2 * (v + velocity(x_next, s_next))
        yield x, v, x_next
        x = x_next


def adams_bashforth_2(velocity: Velocity, x: "Tensor", sigmas: Sequence[float]) -> Iterator[Step]:
    """Second order, one evaluation a step: v is extrapolated to the middle of the step from the last two.

    Variable steps: x_{j+1} = x_j + h * (v_j + h / (2 * h_prev) * (v_j - v_{j-1})).
    """
    v_prev, h_prev = None, 0.0
    for s, s_next in zip(sigmas, sigmas[1:], strict=False):
        h = s_next - s
        v = velocity(x, s)
        slope = v if v_prev is None else v + h / (2 * h_prev) * (v - v_prev)
        x_next = x + h * slope
        yield x, v, x_next
        x, v_prev, h_prev = x_next, v, h


def dpmpp_2m(velocity: Velocity, x: "Tensor", sigmas: Sequence[float]) -> Iterator[Step]:
    """DPM-Solver++(2M), arXiv 2211.01095, for alpha = 1 - sigma: the paper's solver. One evaluation a step.

    Second order in lambda = log(alpha / sigma). lambda is infinite at sigma 1 and 0; in these limits the steps that
    touch an end are of first order, which is what the formulas tend to.
    """
    x_0_prev, lambda_prev = None, -math.inf
    for s, s_next in zip(sigmas, sigmas[1:], strict=False):
        v = velocity(x, s)
        x_0 = x - s * v  # the model's prediction of the clean latent
        lam, lambda_next = _log_snr(s), _log_snr(s_next)
        h, h_prev = lambda_next - lam, lam - lambda_prev
        if x_0_prev is None or math.isinf(h) or math.isinf(h_prev):
            estimate = x_0
        else:
            estimate = x_0 + h / (2 * h_prev) * (x_0 - x_0_prev)
        # sigma_next / sigma * x - alpha_next * (exp(-h) - 1) * estimate; for alpha = 1 - sigma it stays finite
        ratio = s_next / s
        x_next = ratio * x + (1 - ratio) * estimate
        yield x, v, x_next
        x, x_0_prev, lambda_prev = x_next, x_0, lam


def _log_snr(s: float) -> float:
    if s >= 1:
        return -math.inf
    return math.log((1 - s) / s) if s > 0 else math.inf


def solver_of(name: str) -> Solver:
    """The solver that a setting names: a key of SOLVERS, or "package.module:Class" of the user's own.

    Raises:
        ConfigError: see `plugins.load`.
    """
    return load(name, "evaluations")() if is_own(name) else SOLVERS[name]


SOLVERS: dict[str, Solver] = {
    "euler": Deterministic(euler),
    "dpm++2m": Deterministic(dpmpp_2m),
    "ab2": Deterministic(adams_bashforth_2),
    "heun": Deterministic(heun, lambda steps: 2 * steps - 1),
}
