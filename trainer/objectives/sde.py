"""GRPO on the steps of a stochastic process, as Neighbor GRPO's rivals do it: to compare with."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..settings.config import Config
from ..stages.anchors import Pairs, choose_steps
from ..stages.noise import base_noise
from ..stages.rollout import Trajectories
from ..stages.solvers import Solver
from ..stages.stochastic import Stochastic, Transition, dance_grpo_step, flow_grpo_step
from ..stages.surrogate import PairLoss, clipped_objective
from ..stages.update import relative_error
from .rival import Rival, plain


class FlowGrpo(Rival):
    """Flow-GRPO (arXiv 2505.05470): every step but the last is noisy."""

    transition: Transition = staticmethod(flow_grpo_step)

    def __init__(self, config: Config):
        super().__init__(config)
        self.trained = min(self.trained, self.total - 1)  # the last step has no noise, and no probability

    def solver(self, kept: list[int]) -> Solver:
        return Stochastic(self.transition, self.grpo.noise_level, lambda j, steps: j < steps - 1)

    def steps(self, *, generator: torch.Generator) -> list[int]:
        return choose_steps(self.total - 1, self.trained, generator=generator)

    def prepare(self, trajectories: Trajectories, advantages: Tensor) -> "GaussianLoss":
        grpo = self.grpo
        return GaussianLoss(trajectories, plain(advantages), self.transition, grpo.noise_level, grpo.clip)


class DanceGrpo(FlowGrpo):
    """DanceGRPO (arXiv 2505.07818): the candidates of a group begin from one noise, and part at the steps."""

    transition = staticmethod(dance_grpo_step)

    def noise(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        return base_noise(shape, seed).expand(self.grpo.group_size, *shape).clone()


class MixGrpo(FlowGrpo):
    """MixGRPO (arXiv 2507.21802): a window of noisy steps, which alone are trained; the others are the ODE's.

    The window's place is drawn anew in each iteration, one of the ways that the paper compares.
    """

    def solver(self, kept: list[int]) -> Solver:
        return Stochastic(self.transition, self.grpo.noise_level, lambda j, steps: j in kept)

    def steps(self, *, generator: torch.Generator) -> list[int]:
        first = int(torch.randint(self.total - self.trained, (), generator=generator))
        return list(range(first, first + self.trained))


@dataclass(frozen=True)
class GaussianLoss:
    """The clipped objective of steps whose probabilities are known. See `update.Loss`."""

    trajectories: Trajectories
    advantages: Tensor  # A, [P, G]
    transition: Transition
    level: float  # of the noise
    clip: float  # eps of the ratio

    def __call__(self, pairs: Pairs, v: Tensor, v_reference: Tensor | None = None) -> PairLoss:
        """Of m pairs, whose policy has the velocities v [m, *latent]. v_reference is not asked for."""
        kept, k = self.trajectories, pairs.step
        row = pairs.prompt * self.advantages.shape[1] + pairs.anchor
        x, v_old, x_next = kept.x[k, row], kept.v[k, row], kept.x_next[k, row]

        def mean_and_std(velocity: Tensor) -> tuple[Tensor, Tensor]:
            mean, std = self.transition(x, velocity, kept.sigma[k], kept.step_size[k], self.level)
            return kept.inside(mean).flatten(1), std

        (mean, std), (mean_old, _) = mean_and_std(v), mean_and_std(v_old)
        end = kept.inside(x_next).flatten(1)
        new, old = (log_probability(end, m, std)[:, None] for m in (mean, mean_old))
        advantages = self.advantages[pairs.prompt, pairs.anchor][:, None]
        error = relative_error(kept.inside(v), kept.inside(v_old))
        kl = (mean.detach() - mean_old).square().mean(1) / (2 * std.square())
        return replace(clipped_objective(new, old, advantages, self.clip), kl_old=kl, velocity_error=error)


def log_probability(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(x; mean, std^2) as the mean over elements: x, mean [M, n], std [M] -> [M], without the constant."""
    return -(x - mean).square().mean(1) / (2 * std.square()) - std.log()
