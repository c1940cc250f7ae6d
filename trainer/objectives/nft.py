"""DiffusionNFT (arXiv 2509.16117): reward by flow matching on pictures that are noised again. To compare with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..settings.config import Config
from ..stages.anchors import Pairs, choose_steps
from ..stages.rollout import Trajectories
from ..stages.solvers import Solver, Step, Velocity, solver_of
from ..stages.surrogate import PairLoss, leap
from .rival import MOST, Rival, plain

BETA = 1.0  # how far the implicit policies are from the old one


class Nft(Rival):
    """Any solver draws; then each picture is noised to K of the grid's sigmas, and one velocity fitted there.

    The old policy is the one that is trained: the velocity of each update stands for its own.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        self.ode = solver_of(config.sampling.solver)

    def solver(self, kept: list[int]) -> Solver:
        return Renoised(self.ode)

    def steps(self, *, generator: torch.Generator) -> list[int]:
        return choose_steps(self.total, self.trained, generator=generator)

    def prepare(self, trajectories: Trajectories, advantages: Tensor) -> "ForwardLoss":
        return ForwardLoss(trajectories, plain(advantages) / MOST / 2 + 0.5)


@dataclass(frozen=True)
class Renoised:
    """Where an ODE solver ends, x_0, noised to each sigma of the grid: yields (x_sigma, eps - x_0, x_0)."""

    ode: Solver
    renoises = True  # the states that it yields are not those at which it asked for the velocity

    def __call__(
        self, velocity: Velocity, x: Tensor, sigmas: Sequence[float], generator: Generator | None = None
    ) -> Iterator[Step]:
        *_, (_, _, x_0) = self.ode(velocity, x, sigmas, generator)
        for s in sigmas[:-1]:
            eps = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            yield (1 - s) * x_0 + s * eps, eps - x_0, x_0

    @property
    def on_grid(self) -> bool:
        return getattr(self.ode, "on_grid", False)

    def evaluations(self, steps: int) -> int:
        return self.ode.evaluations(steps)


@dataclass(frozen=True)
class ForwardLoss:
    """r * |x_0^+ - x_0|^2 + (1 - r) * |x_0^- - x_0|^2 (Eq. 5), each over its own mean error. See `update.Loss`."""

    trajectories: Trajectories
    optimality: Tensor  # r, [P, G] in 0 .. 1

    def __call__(self, pairs: Pairs, v: Tensor, v_reference: Tensor | None = None) -> PairLoss:
        """Of m pairs, whose policy has the velocities v [m, *latent]. v_reference is not asked for."""
        kept, k = self.trajectories, pairs.step
        row = pairs.prompt * self.optimality.shape[1] + pairs.anchor
        x, x_0, sigma = kept.x[k, row], kept.inside(kept.x_next[k, row]).flatten(1), kept.sigma[k]
        v_old = v.detach()

        def error(velocity: Tensor) -> Tensor:
            off = kept.inside(leap(x, velocity, -sigma)).flatten(1) - x_0
            return off.square().mean(1) / off.detach().abs().mean(1).clamp_min(1e-5)

        r = self.optimality[pairs.prompt, pairs.anchor]
        better, worse = (v_old + side * BETA * (v - v_old) for side in (1, -1))
        loss = (r * error(better) + (1 - r) * error(worse)) / BETA
        nothing = torch.zeros_like(r)
        return PairLoss(loss, nothing[:, None], nothing, nothing)
