"""Stage 6b: the surrogate leaping policy (Eq. 8) and the clipped objective (Eq. 9).

Everything here is float32: squared distances over a latent are about 1e4 and their differences matter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..choices import TEMPERATURE_MODES

STEEPEST = 20.0  # of a log-ratio that is raised: e^20 is 5e8


def leap(x: Tensor, v: Tensor, step_size: Tensor) -> Tensor:
    """One first-order step: x + (s_{j+1} - s_j) * v. x, v [M, *latent]; step_size = s_{j+1} - s_j, [M].

    The old policy takes the same first-order step with its stored velocity, whatever solver made the trajectory, so
    that the ratio is 1 before the first update.
    """
    return x + step_size.view(-1, *[1] * (x.dim() - 1)) * v


def squared_distances(candidates: Tensor, point: Tensor) -> Tensor:
    """|| x^(i) - point ||^2 over the latent: candidates [M, G, *latent], point [M, *latent] -> [M, G]."""
    return (candidates - point.unsqueeze(1)).square().flatten(2).sum(-1)


def mean_pairwise_distance(candidates: Tensor) -> Tensor:
    """Mean off-diagonal squared distance of each group: candidates [P, G, *latent] -> [P].

    Over all ordered pairs i != j it equals 2 * G / (G - 1) * the summed variance: no G x G table is needed.
    """
    deviation = candidates - candidates.mean(1, keepdim=True)
    group_size = candidates.shape[1]
    return 2 / (group_size - 1) * deviation.square().flatten(1).sum(-1)


def pairwise_distances(candidates: Tensor) -> Tensor:
    """Root mean squared difference of any two of a group: candidates [P, G, *latent] -> [P, G, G].

    Of the differences themselves, and one row after the other: the products of a matrix form lose the small ones.
    """
    flat = candidates.flatten(2)
    rows = [(flat - flat[:, i : i + 1]).square().mean(-1).sqrt() for i in range(flat.shape[1])]
    return torch.stack(rows, 1)


def softmax_temperature(candidates: Tensor, temperature: float, mode: str) -> Tensor:
    """tau of each group, [P] float32, for candidates [P, G, *latent].

    scale-free: temperature * mean off-diagonal squared distance, the same over resolutions, steps and models.
    element-mean: temperature * latent elements, so that distances are means.
    raw: temperature itself, as in the paper.
    """
    if mode == "scale-free":
        return temperature * mean_pairwise_distance(candidates)
    if mode == "element-mean":
        return candidates.new_full((len(candidates),), temperature * candidates[0, 0].numel())
    if mode == "raw":
        return candidates.new_full((len(candidates),), temperature)
    raise ValueError(f"temperature mode must be one of {', '.join(TEMPERATURE_MODES)}, got {mode!r}")


def log_policy(candidates: Tensor, point: Tensor, tau: Tensor) -> Tensor:
    """log pi(i | k, j) = log_softmax_i(-|| x^(i)_{j+1} - point ||^2 / tau) (Eq. 8): [M, G]; tau [M]."""
    return torch.log_softmax(-squared_distances(candidates, point) / tau[:, None], dim=-1)


@dataclass(frozen=True)
class PairLoss:
    """The loss of M pairs and what it looked like, detached. Each [M] but `log_ratio`."""

    loss: Tensor  # with gradient
    log_ratio: Tensor  # [M, G] log rho
    clip_fraction: Tensor  # share of the candidates whose clipped term was taken
    kl_old: Tensor  # KL(pi_old || pi_theta) >= 0
    kl_reference: Tensor | None = None  # KL(pi_theta || pi_reference) if it is part of the loss
    velocity_error: Tensor | None = None  # ||v - v_old|| / ||v_old||, if the old policy's velocity is known


def compared(log_new: Tensor, log_old: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log rho and rho [M, G], and KL(pi_old || pi_theta) [M], without gradient."""
    log_ratio = log_new - log_old
    with torch.no_grad():
        kl_old = (log_old.exp() * -log_ratio).sum(-1)
    return log_ratio, log_ratio.clamp(-STEEPEST, STEEPEST).exp(), kl_old  # far outside the clip, and no infinity


def trusted_objective(log_new: Tensor, log_old: Tensor, advantages: Tensor, most: float) -> PairLoss:
    """-sum_i A'_i * rho_i of the pairs whose KL(pi_old || pi_theta) is at most `most`; the others are left out.

    Instead of the clip, which looks at one candidate at a time. Arguments as `clipped_objective`'s.
    """
    log_ratio, rho, kl_old = compared(log_new, log_old)
    left_out = kl_old > most
    loss = -(advantages * rho).sum(-1) * ~left_out
    return PairLoss(loss, log_ratio.detach(), left_out.float(), kl_old)


def clipped_objective(log_new: Tensor, log_old: Tensor, advantages: Tensor, clip: float) -> PairLoss:
    """-sum_i min(A'_i * rho_i, A'_i * clip(rho_i, 1 - eps, 1 + eps)) for each pair (Eq. 9).

    Args:
        log_new: log pi_theta, [M, G], with gradient.
        log_old: log pi_old, [M, G].
        advantages: A', [M, G].
        clip: eps, above 0.
    """
    log_ratio, rho, kl_old = compared(log_new, log_old)
    plain = advantages * rho
    clipped = advantages * rho.clamp(1 - clip, 1 + clip)
    loss = -torch.minimum(plain, clipped).sum(-1)
    with torch.no_grad():
        clip_fraction = (clipped < plain).float().mean(-1)
    return PairLoss(loss, log_ratio.detach(), clip_fraction, kl_old)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Exact KL(p || q) of the candidates' distributions, [M, G] -> [M]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
