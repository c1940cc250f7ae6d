"""Stage 1: one base noise per prompt, G neighbours of it (Eq. 7)."""

import math

import numpy as np
import torch
from torch import Tensor


def base_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal noise of `shape`, float32 on the CPU, the same on every device for the same `seed`.

    As of torch's generators on the CPU, and so of ComfyUI's noises, the lowest 32 bits of the seed count.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturb(
    base: Tensor, strength: float, group_size: int, *, generator: torch.Generator, antithetic: bool = False
) -> Tensor:
    """G neighbours of a base noise (Eq. 7): eps_i = sqrt(1 - s^2) * base + s * delta_i, with delta_i ~ N(0, I).

    Args:
        base: base noise, [*shape], N(0, I).
        strength: s in (0, 1]; 1 makes the neighbours independent. The paper's best is 0.3.
        group_size: G, at least 2.
        generator: source of delta, on the device of `base`.
        antithetic: every second delta is the one before it, turned round.

    Returns:
        [G, *shape]: each neighbour is N(0, I) again, and any two have covariance 1 - s^2.

    Raises:
        ValueError: strength or group size out of range.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be above 0 and at most 1, got {strength}")
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size}: one candidate has nothing to compare with")
    delta = torch.randn((group_size, *base.shape), generator=generator, device=base.device, dtype=base.dtype)
    if antithetic:
        delta[1::2] = -delta[: group_size - 1 : 2]
    return math.sqrt(1 - strength**2) * base + strength * delta


def partly_noised(latent: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Where image-to-image begins: (1 - sigma) * latent + sigma * noise, which at sigma = 1 is the noise itself."""
    return noise if sigma == 1 else (1 - sigma) * latent + sigma * noise


def derive_seed(*path: int) -> int:
    """An independent 63-bit seed for each `path` of non-negative integers, such as (run seed, iteration, prompt).

    Seeds depend on the position alone, so a resumed run draws what the uninterrupted one would have drawn.
    """
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0]) >> 1


def neighborhood(
    seed: int, shape: tuple[int, ...], strength: float, group_size: int, *, antithetic: bool = False
) -> Tensor:
    """The G neighbours that belong to one seed, [G, *shape] on the CPU: base noise and perturbations alike."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 1))
    return perturb(base_noise(shape, seed), strength, group_size, generator=generator, antithetic=antithetic)
