"""Neighbor GRPO (arXiv 2511.16955): a softmax over distances to the candidates, the leaping policy, is the policy."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..choices import EARLY, END, KL, NEXT, POLICY, VELOCITY
from ..settings.config import Config, GrpoSettings
from ..stages.anchors import Pairs, choose_steps, joined
from ..stages.guards import divergence
from ..stages.noise import neighborhood
from ..stages.rollout import Trajectories
from ..stages.solvers import Solver, solver_of
from ..stages.surrogate import (
    PairLoss,
    clipped_objective,
    kl_divergence,
    leap,
    log_policy,
    softmax_temperature,
    trusted_objective,
)
from ..stages.update import relative_error
from .objective import Objective, pairs_of


class Neighbor(Objective):
    """G neighbours of one noise, an ODE solver, B anchors at each of K steps.

    Departures from the paper, by default: the softmax temperature is scale-free, and all steps are trained, each at one
    anchor of its own. On-policy the anchors of a group have nearly the same gradient, and steps have not.

    With `grpo.hold`, one of the steps that are not trained is drawn in each iteration, and the anchors' velocities are
    held there at what the model without its LoRA has: else a LoRA that is trained at some steps changes all others too.
    """

    def __init__(self, config: Config):
        self.grpo, self.total, self.trained = config.grpo, config.sampling.steps, config.trained_steps
        self.ode = solver_of(config.sampling.solver)
        self.holds, self.early = config.grpo.hold > 0, config.grpo.step_choice == EARLY
        self.needs_reference = config.grpo.kl_weight > 0 or self.holds

    def solver(self, kept: list[int]) -> Solver:
        return self.ode

    def noise(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        grpo = self.grpo
        return neighborhood(seed, shape, grpo.strength, grpo.group_size, antithetic=grpo.antithetic)

    def steps(self, *, generator: torch.Generator) -> list[int]:
        trained = choose_steps(self.total, self.trained, self.grpo.step_choice, generator=generator)
        if not self.holds:
            return trained
        others = [j for j in range(self.total) if j not in trained]
        return sorted([*trained, others[int(torch.randint(len(others), (), generator=generator))]])

    def pairs(self, prompts: int, *, generator: torch.Generator) -> Pairs:
        trained = pairs_of(self.grpo, prompts, self.trained, generator=generator)
        if not self.holds:
            return trained
        held = trained.only_step(0)
        return joined(trained, held) if self.early else joined(held, trained)

    def shares(self, pairs: Pairs, updates: int) -> list[Pairs]:
        return [pairs] * updates

    def prepare(self, trajectories: Trajectories, advantages: Tensor) -> "LeapingLoss":
        grpo = self.grpo
        points, leaps = targets(trajectories, grpo.distance)
        groups = trajectories.inside(points).unflatten(1, tuple(advantages.shape))  # [K, P, G, *latent]
        tau = torch.stack([softmax_temperature(g, grpo.temperature, grpo.temperature_mode) for g in groups])
        return LeapingLoss(trajectories, groups, leaps, advantages, tau, grpo, self.held(trajectories.steps))

    def held(self, kept: list[int]) -> int | None:
        """Which of the kept steps is not trained."""
        if not self.holds:
            return None
        return len(kept) - 1 if self.early else 0


def targets(trajectories: Trajectories, distance: str) -> tuple[Tensor, Tensor]:
    """Where the candidates are at each kept step, [K, N, *latent], and the leap that takes an anchor there, [K].

    next: x_{j+1}, by the step s_{j+1} - s_j. clean: the x_0 that the model expects, x_j - s_j * v_j, by a leap of -s_j:
    what is left of the noises, which no model can learn, does not count there. end: the same leap, to where each ended.
    """
    kept = trajectories
    if distance == NEXT:
        return kept.x_next, kept.step_size
    if distance == END:
        return kept.x_0.expand_as(kept.x), -kept.sigma
    return leap(kept.x, kept.v, -kept.sigma), -kept.sigma


@dataclass(frozen=True)
class LeapingLoss:
    """The clipped objective of the leaping policy (Eqs. 8 and 9) for one iteration's candidates. See `update.Loss`."""

    trajectories: Trajectories
    groups: Tensor  # where the candidates are compared, [K, P, G, *latent], see `targets`
    leaps: Tensor  # the leap that takes an anchor there, [K]
    advantages: Tensor  # A', [P, G]
    tau: Tensor  # softmax temperature of each kept step and prompt, [K, P]
    grpo: GrpoSettings
    held: int | None = None  # the kept step that is not trained; None: all are

    def __call__(self, pairs: Pairs, v: Tensor, v_reference: Tensor | None = None) -> PairLoss:
        """Of m pairs, whose policy has the velocities v [m, *latent]."""
        prompt, k, inside = pairs.prompt, pairs.step, self.trajectories.inside
        row = prompt * self.advantages.shape[1] + pairs.anchor
        x, v_old = self.trajectories.x[k, row], self.trajectories.v[k, row]  # [m, *latent]
        candidates, tau = self.groups[k, prompt], self.tau[k, prompt]  # [m, G, *latent], [m]
        size = self.leaps[k]

        def log_policy_of(velocity: Tensor) -> Tensor:
            return log_policy(candidates, inside(leap(x, velocity, size)), tau)

        log_new = log_policy_of(v)
        objective = trusted_objective if self.grpo.trust == KL else clipped_objective
        result = objective(log_new, log_policy_of(v_old), self.advantages[prompt], self.grpo.clip)
        result = replace(result, velocity_error=relative_error(inside(v), inside(v_old)))
        if v_reference is None:
            return result
        if self.grpo.kl_weight:
            if self.grpo.guard == POLICY:
                with torch.no_grad():
                    log_reference = log_policy_of(v_reference)
                away = kl_divergence(log_new, log_reference)
            else:
                away = divergence(inside(v), inside(v_reference), self.grpo.guard)
            result = replace(result, loss=result.loss + self.grpo.kl_weight * away, kl_reference=away.detach())
        if self.held is not None:
            away = divergence(inside(v), inside(v_reference), VELOCITY)
            result = replace(result, loss=self.holding(k == self.held, result.loss, away))
        return result

    def referred(self, pairs: Pairs) -> list[bool] | None:
        """Where the reference is asked: for a divergence in the loss everywhere, to hold a step there alone."""
        return None if self.grpo.kl_weight or self.held is None else (pairs.step == self.held).tolist()

    def holding(self, held: Tensor, loss: Tensor, away: Tensor) -> Tensor:
        """What the trained pairs have as a loss, and the held ones as a divergence, each a mean in the mean of all."""
        steps = len(self.trajectories.steps)  # with B pairs of each prompt each, one of them held
        return torch.where(held, self.grpo.hold * steps * away, steps / (steps - 1) * loss)
