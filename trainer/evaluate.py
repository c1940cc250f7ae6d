"""Scoring a policy on fixed prompts and seeds: before, after, and the paired difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .decode import decode
from .iteration import Setup
from .models.text import Conditioning
from .noise import base_noise
from .rewards import on_device, score_all
from .rollout import micro_batched, rollout


@dataclass(frozen=True)
class Samples:
    """Pictures [N, 3, H, W] and each reward's scores [N]."""

    images: Tensor
    scores: dict[str, Tensor]


@dataclass(frozen=True)
class Difference:
    """Mean before and after, and the mean paired difference with its standard error."""

    before: float
    after: float
    difference: float
    standard_error: float

    @property
    def rise(self) -> float:
        """The difference in standard errors."""
        return (
            self.difference / self.standard_error if self.standard_error else math.copysign(math.inf, self.difference)
        )


def sample(setup: Setup, conditioning: Conditioning, prompts: Sequence[str], seeds: Sequence[int]) -> Samples:
    """One picture for each (prompt, seed) pair, by the same solver as in training.

    Args:
        conditioning: of `prompts`, in their order.
        seeds: as many as prompts.
    """
    geometry, sampling = setup.geometry, setup.config.sampling
    noise = torch.stack([base_noise(geometry.latent_shape, seed) for seed in seeds])
    velocity = micro_batched(setup.policy.velocity(conditioning, geometry), setup.config.run.micro_batch)
    device = setup.policy.device
    rows = torch.arange(len(prompts), device=device)
    end = rollout(velocity, geometry.pack(noise).to(device), rows, setup.sigmas, sampling.solver)
    images = decode(lambda x_0: setup.policy.decode(x_0, geometry), end.x_0, setup.config.run.micro_batch)
    with on_device(setup.rewards.values(), device, stay=not setup.config.run.offload_rewards):
        scores = score_all(setup.rewards, images, prompts)
    return Samples(images.cpu(), {name: values.cpu() for name, values in scores.items()})


def compare(before: Tensor, after: Tensor) -> Difference:
    """Paired comparison of scores [N] on the same prompts and seeds, N at least 2."""
    paired = (after - before).double()
    error = paired.std(correction=1) / math.sqrt(len(paired))
    return Difference(float(before.mean()), float(after.mean()), float(paired.mean()), float(error))
