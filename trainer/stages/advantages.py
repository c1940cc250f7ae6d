"""Stage 5: group-relative advantages with quasi-norm reweighting (Eq. 11)."""

import torch
from torch import Tensor

# rewards that differ by less than this share of their size are equal: below it a float32 model only reports rounding
FLAT = 1e-6


def group_advantages(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """A_i = (r_i - mean(r)) / std(r) within each group (population standard deviation).

    Args:
        rewards: [P, G], any finite scale.

    Returns:
        advantages [P, G] float32, mean 0 and standard deviation 1 in each informative group, and
        informative [P] bool: False if all rewards of a group are equal or one is NaN or infinite. Such a group
        has no advantage: zeros.
    """
    r = rewards.double()  # the spread of a group may be 1e-4 of its mean
    informative = r.isfinite().all(-1)
    r = torch.where(informative[:, None], r, 0)
    informative &= (r.amax(-1) - r.amin(-1)) > FLAT * r.abs().amax(-1)
    deviation = r - r.mean(-1, keepdim=True)
    std = deviation.square().mean(-1, keepdim=True).sqrt()
    advantages = deviation / torch.where(informative[:, None], std, 1)
    return torch.where(informative[:, None], advantages, 0).float(), informative


def quasi_norm_reweight(advantages: Tensor, p: float) -> Tensor:
    """A'_i = A_i / (sum_k |A_k|^p)^(1/p) (Eq. 11).

    With p < 2 a flat group (all |A_k| alike) gets smaller values than one with a few clear winners; p = 2 is plain
    GRPO divided by sqrt(G).

    Args:
        advantages: [P, G]; a row of zeros stays zeros.
        p: in (0, 2]; the paper's best is 0.8.
    """
    if not 0 < p <= 2:
        raise ValueError(f"quasi-norm p must be above 0 and at most 2, got {p}")
    norm = advantages.abs().pow(p).sum(-1, keepdim=True).pow(1 / p)
    return advantages / torch.where(norm > 0, norm, 1)


def relative_spread(spread: Tensor) -> Tensor:
    """The spread of each group's rewards over the mean of those that have one: [P] -> [P]."""
    mean = spread.sum() / (spread > 0).sum().clamp_min(1)
    return spread / torch.where(mean > 0, mean, 1)


def softly_bounded(advantages: Tensor, most: float) -> Tensor:
    """A bounded by `most` on either side, with a slope of 1 at 0: most * tanh(A / most)."""
    return most * (advantages / most).tanh()


def flatness(advantages: Tensor) -> Tensor:
    """How flat each group is, [P] in (0, 1]: (sum |A|)^2 / (G * sum A^2). 1: all |A_i| alike; 2 / G: one against one.

    NaN for a group without advantages.
    """
    a = advantages.abs()
    return a.sum(-1).square() / (a.shape[-1] * a.square().sum(-1))
