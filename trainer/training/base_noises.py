"""The base noises of neighborhoods: their own pictures, and how far the policy went from its base model on the way."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ..engine.drawing import conditioning_of, decode_all, policy_velocity, solve
from ..engine.state import Setup
from ..stages.noise import base_noise
from ..stages.rollout import Trajectories


def base_trajectories(setup: Setup, prompts: Sequence[int], seeds: Sequence[int]) -> Trajectories:
    """Of P base noises, with all steps; `prompts` count in config.prompts."""
    noise = torch.stack([base_noise(setup.geometry.latent_shape, seed) for seed in seeds])
    told, every = conditioning_of(setup, prompts), range(len(setup.sigmas) - 1)
    return solve(setup, prompts, told, noise, setup.solver, every, filled=False)


def base_pictures(setup: Setup, prompts: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """What base noises become, [P, 3, H, W]."""
    return decode_all(setup, base_trajectories(setup, prompts, seeds).x_0)


def look_at(setup: Setup, prompts: Sequence[int], seeds: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
    """Their pictures, and how far the policy went from its base model on the way there."""
    way = base_trajectories(setup, prompts, seeds)
    return decode_all(setup, way.x_0), away_from_base(setup, prompts, way)


@torch.no_grad()
def away_from_base(setup: Setup, prompts: Sequence[int], way: Trajectories) -> dict[str, float]:
    """How the velocity on trajectories of `base_trajectories` differs from the base model's at the same states.

    velocity_change: ||v - v_base|| / ||v_base||, and velocity_norm: ||v|| / ||v_base||; means of all steps and prompts.
    """

    def run(size: int) -> Tensor:
        velocity = policy_velocity(setup, prompts, size, filled=False)
        rows = torch.arange(len(prompts), device=way.x.device)
        return torch.stack([velocity(x, s.expand(len(rows)), rows) for x, s in zip(way.x, way.sigma, strict=True)])

    with setup.policy.reference():
        v_base = setup.rollout_batch.fit("rollout", run)
    v, v_base = (way.inside(each).flatten(0, 1) for each in (way.v, v_base))
    norm = partial(torch.linalg.vector_norm, dim=tuple(range(1, v.dim())))
    values = {"velocity_change": norm(v - v_base) / norm(v_base), "velocity_norm": norm(v) / norm(v_base)}
    return {name: value.mean().item() for name, value in values.items()}
