"""Stage 2a: the grid of sigmas, 1 = s_0 > s_1 > ... > s_T = 0; image-to-image begins below 1."""

import math

import torch
from torch import Tensor

# FLUX.1-dev: mu rises linearly with the number of image tokens
BASE_TOKENS, BASE_MU = 256, 0.5
MAX_TOKENS, MAX_MU = 4096, 1.15


def resolution_mu(tokens: int) -> float:
    """FLUX.1-dev's log-shift `mu` for a number of image tokens (one per 16 x 16 pixels)."""
    slope = (MAX_MU - BASE_MU) / (MAX_TOKENS - BASE_TOKENS)
    return BASE_MU + slope * (tokens - BASE_TOKENS)


def sigma_grid(steps: int, shift: float = 1.0, denoise: float = 1.0) -> Tensor:
    """The grid FLUX samples on: `steps` sigmas from 1 to 1/steps, time-shifted, and 0 at the end.

    Args:
        steps: T, at least 1.
        shift: above 0; s -> shift * s / (1 + (shift - 1) * s). 1 is no shift (FLUX.1-schnell);
            FLUX.1-dev uses exp(resolution_mu(tokens)).
        denoise: above 0, at most 1; below 1 the last `steps` of int(steps / denoise), as in ComfyUI's samplers.

    Returns:
        [T + 1] float64, strictly decreasing; s_0 is 1 if denoise is. In float32, differences of neighbouring sigmas
        would lose half the digits.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"shift must be a positive number, got {shift}")
    if not 0 < denoise <= 1:
        raise ValueError(f"denoise must be above 0 and at most 1, got {denoise}")
    total = int(steps / denoise)
    s = torch.linspace(1, 1 / total, total, dtype=torch.float64)[-steps:]
    s = shift * s / (shift * s + (1 - s))  # written so that s_0 is exactly 1 for every shift
    return torch.cat([s, s.new_zeros(1)])


def jittered(sigmas: Tensor, share: float, *, generator: torch.Generator) -> Tensor:
    """A grid whose inner sigmas all move one way, by a random part of the gap to their neighbour there.

    Args:
        sigmas: [T + 1], strictly decreasing.
        share: below 1, the most of a gap that they move.
    """
    way = (2 * torch.rand((), generator=generator, dtype=sigmas.dtype) - 1) * share
    gap = -sigmas.diff()
    moved = sigmas.clone()
    moved[1:-1] += way * (gap[:-1] if way > 0 else gap[1:])
    return moved
