"""Stage 6c: what holds the policy back to the model without its LoRA."""

import torch
from torch import Tensor

from ..choices import NORM, VELOCITY


def divergence(v: Tensor, v_reference: Tensor, kind: str) -> Tensor:
    """How far velocities [M, *latent] are from the reference's, relative to these: [M], with gradient for v.

    velocity: mean (v - v_ref)^2 / mean v_ref^2, which sees a change in any direction.
    norm: (|v| / |v_ref| - 1)^2, if v is longer: pictures that are overdrawn have a longer one.
    """
    v, v_reference = v.flatten(1), v_reference.flatten(1)
    if kind == VELOCITY:
        return (v - v_reference).square().mean(1) / v_reference.square().mean(1)
    if kind == NORM:
        return norm_ratio(v, v_reference).sub(1).clamp_min(0).square()
    raise ValueError(f"a divergence of velocities is {VELOCITY} or {NORM}, got {kind!r}")


def norm_ratio(v: Tensor, v_reference: Tensor) -> Tensor:
    """|v| / |v_ref| of velocities [M, *latent]: [M]."""
    return torch.linalg.vector_norm(v.flatten(1), dim=1) / torch.linalg.vector_norm(v_reference.flatten(1), dim=1)
