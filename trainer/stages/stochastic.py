"""Stage 2d: the same flow as a stochastic process, as the rivals of Neighbor GRPO sample it: noise at each step.

A step is a Gaussian, x_{j+1} ~ N(mean, std^2 I). For small steps, both forms leave the ODE's
marginals as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .solvers import Step, Velocity

# (x [M, *latent], v likewise, sigma [M], step size s_{j+1} - s_j [M], noise level) -> mean [M, *latent], std [M]
Transition = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def flow_grpo_step(x: Tensor, v: Tensor, sigma: Tensor, step_size: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Flow-GRPO (arXiv 2505.05470, Eqs. 9 and 12): the noise is a * sqrt(sigma / (1 - sigma)), large at the beginning.

    At sigma 1, where that is infinite, 1 - sigma is the next step's, as in the published code.
    """
    rest = torch.where(sigma == 1, -step_size, 1 - sigma)
    scale = level * (sigma / rest).sqrt()
    pull, push = scale.square() / (2 * sigma), scale.square() * (1 - sigma) / (2 * sigma)
    mean = x + (wide(pull, x) * x + wide(1 + push, x) * v) * wide(step_size, x)
    return mean, scale * (-step_size).sqrt()


def dance_grpo_step(x: Tensor, v: Tensor, sigma: Tensor, step_size: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """DanceGRPO (arXiv 2505.07818, Eq. 8): the same noise, eta, at every sigma."""
    x_0 = x - wide(sigma, x) * v
    score = (wide(1 - sigma, x) * x_0 - x) / wide(sigma, x).square()
    mean = x + (v - level**2 / 2 * score) * wide(step_size, x)
    return mean, level * (-step_size).sqrt()


def wide(values: Tensor, x: Tensor) -> Tensor:
    """[M] shaped to multiply x [M, *latent]."""
    return values.view(-1, *[1] * (x.dim() - 1))


@dataclass(frozen=True)
class Stochastic:
    """A solver that takes the steps of `transition`, and where it must not be noisy Euler's. See `solvers.Solver`."""

    transition: Transition
    level: float  # a of Flow-GRPO, eta of DanceGRPO
    noisy: Callable[[int, int], bool]  # (j, T) -> whether step j has noise
    on_grid = True

    def __call__(
        self, velocity: Velocity, x: Tensor, sigmas: Sequence[float], generator: Generator | None = None
    ) -> Iterator[Step]:
        for j, (s, s_next) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
            v, h = velocity(x, s), s_next - s
            if self.noisy(j, len(sigmas) - 1):
                sigma, step_size = (x.new_full((len(x),), value) for value in (s, h))
                mean, std = self.transition(x, v, sigma, step_size, self.level)
                noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
                x_next = mean + wide(std, x) * noise
            else:
                x_next = x + h * v
            yield x, v, x_next
            x = x_next

    def evaluations(self, steps: int) -> int:
        return steps
