"""Random latents for the benchmarks."""

import torch
from torch import Tensor

from ..models.family import Geometry


def random_latents(geometry: Geometry, count: int, generator: torch.Generator | None = None) -> Tensor:
    """x [count, *latent] on the CPU, packed as the model takes it."""
    packed = geometry.pack(torch.zeros(1, *geometry.latent_shape))[0]
    return torch.randn(count, *packed.shape, generator=generator)
