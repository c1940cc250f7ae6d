"""Stage 7: gradients of the pairs, the optimiser step, and the average of the LoRA."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .anchors import Pairs
from .rollout import BatchVelocity, Trajectories
from .surrogate import PairLoss

# in front of the loss: gradients inside a float16 model would underflow. A power of two rounds nothing
LOSS_SCALE = 2.0**16
TYPICAL = 1e-3  # root mean square of the gradients as AdamW sees them; its eps is 1e-8
WINDOW, ENOUGH = 50, 8  # norms that are remembered, and how many make a median


@dataclass(frozen=True)
class PairMetrics:
    """Means over the trained pairs (scalar tensors on the device: reading one waits for the device)."""

    loss: Tensor
    clip_fraction: Tensor
    kl_old: Tensor  # KL(pi_old || pi_theta)
    kl_reference: Tensor  # KL(pi_theta || pi_reference); 0 if it was not asked for
    ratio_error: Tensor  # largest |rho - 1|
    # largest ||v - v_old|| / ||v_old||: it tells another policy at any size, and |rho - 1| falls with 1 / sqrt(D)
    velocity_error: Tensor


# the loss of some pairs, of the policy's velocities at their states and, if it is asked for, of the reference's
Loss = Callable[[Pairs, Tensor, Tensor | None], PairLoss]


@runtime_checkable
class Referring(Protocol):
    """A Loss that asks for the reference at some pairs alone."""

    def referred(self, pairs: Pairs) -> Sequence[bool] | None:
        """At which of M pairs, on the CPU; None: at all."""


Around = Callable[[int], AbstractContextManager[None]]


def accumulate_gradient(
    velocity: BatchVelocity,
    trajectories: Trajectories,
    pairs: Pairs,
    loss_of: Loss,
    *,
    group_size: int,
    micro_batch: int,
    normaliser: int,
    reference: BatchVelocity | None = None,
    referred: Sequence[bool] | None = None,
    loss_scale: float = 1.0,
    around: Around | None = None,
) -> PairMetrics:
    """Add the gradient of the objective over all pairs to the LoRA's, `micro_batch` pairs at a time.

    Args:
        velocity: the policy with gradient, which takes `micro_batch` rows at once.
        trajectories: of the N = P * G candidates.
        pairs: the M trained triples.
        loss_of: what an objective makes of them, see `objectives`.
        group_size: G.
        normaliser: what the sum over pairs is divided by: all drawn pairs, trained or not.
        reference: the policy without its LoRA; None if the objective does not ask for it.
        referred: at which of the M pairs it has to be asked; None: at all. Elsewhere the policy's own velocity may
            stand for it.
        loss_scale: what the gradient is multiplied by; no metric is.
        around: entered for each call of `velocity` with gradient, with the number of its first pair.
    """
    totals = trajectories.sigma.new_zeros(4)
    ratio_error, velocity_error = trajectories.sigma.new_zeros(2)
    for start in range(0, len(pairs), micro_batch):
        part = pairs.part(start, micro_batch)
        row = part.prompt * group_size + part.anchor
        x = trajectories.x[part.step, row]  # [m, *latent]
        sigma = trajectories.sigma[part.step]

        with around(start) if around else nullcontext():
            v = velocity(x, sigma, part.prompt)
        v_reference = None
        if reference is not None:
            asked = [i for i in range(len(part)) if referred is None or referred[start + i]]
            v_reference = v.detach().clone()
            if asked:  # those of a step stand together: a slice, for which the device need not wait
                place = slice(asked[0], asked[-1] + 1)
                with torch.no_grad():
                    v_reference[place] = reference(x[place], sigma[place], part.prompt[place])
        result = loss_of(part, v, v_reference)
        (result.loss.sum() * (loss_scale / normaliser)).backward()

        kl = torch.zeros_like(result.kl_old) if result.kl_reference is None else result.kl_reference
        totals += torch.stack([result.loss.detach(), result.clip_fraction, result.kl_old, kl]).sum(1)
        ratio_error = torch.maximum(ratio_error, result.log_ratio.expm1().abs().max())
        if result.velocity_error is not None:
            velocity_error = torch.maximum(velocity_error, result.velocity_error.max())
    loss, clip_fraction, kl_old, kl_reference = (totals / max(1, len(pairs))).unbind()
    loss = loss * len(pairs) / normaliser
    return PairMetrics(loss, clip_fraction, kl_old, kl_reference, ratio_error, velocity_error)


@torch.no_grad()
def relative_error(v: Tensor, v_old: Tensor) -> Tensor:
    """||v - v_old|| / ||v_old|| of velocities [M, *latent]: [M]."""
    return (v - v_old).flatten(1).norm(dim=1) / v_old.flatten(1).norm(dim=1)


@dataclass
class GradientHistory:
    """What the gradients of a run have been like.

    FLUX's are about 1e-8 a number, as small as AdamW's eps. They are brought to a root mean square of TYPICAL by a
    power of two, found at the first update and kept: eps is then small beside a true gradient and large beside the
    rounding of numbers that have none, at any resolution and for any reward.
    """

    exponent: int | None = None  # of that power; None before the first update
    norms: list[float] = field(default_factory=list)  # of the last WINDOW updates, before clipping

    def limit(self, max_ratio: float) -> float:
        """The largest norm that is not clipped: max_ratio x the median; none before ENOUGH updates."""
        return max_ratio * statistics.median(self.norms) if len(self.norms) >= ENOUGH else math.inf

    def add(self, norm: float, numbers: int) -> None:
        if self.exponent is None and norm > 0:
            self.exponent = round(math.log2(TYPICAL * math.sqrt(numbers) / norm))
        self.norms = [*self.norms[1 - WINDOW :], norm]


def step_optimizer(
    optimizer: torch.optim.Optimizer,
    history: GradientHistory,
    *,
    max_ratio: float,
    lr: float,
    loss_scale: float = 1.0,
) -> tuple[float, bool]:
    """Clip the gradients to `max_ratio` times their usual norm, take one step at `lr`, and clear them.

    A gradient that is not finite leaves parameters, optimiser state and history as they were.

    Args:
        loss_scale: what the gradients are multiplied by, see `accumulate_gradient`.

    Returns:
        the gradient's norm before clipping, of the plain loss, and whether the step was taken.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = float(nn.utils.clip_grad_norm_(parameters, math.inf)) / loss_scale
    finite = math.isfinite(norm)
    if finite:
        limit = history.limit(max_ratio)
        history.add(norm, sum(p.numel() for p in parameters))
        unit = 2.0 ** (history.exponent or 0) / loss_scale
        torch._foreach_mul_([p.grad for p in parameters], unit * min(1.0, limit / norm if norm else 1.0))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        # a fused kernel writes without telling, and rounded copies of the LoRA would stay as they were
        torch.autograd.graph.increment_version(parameters)
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


@torch.no_grad()
def effective_step(optimizer: torch.optim.Optimizer) -> Tensor:
    """Root mean square of the last step, in learning rates: 1 if all gradients had one direction.

    Gradients of mere noise still make sqrt((1 - beta1) / (1 + beta1)): .23 at a beta1 of .9.
    """
    squares, numbers = [], 0
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for known in (optimizer.state[p] for p in group["params"] if p in optimizer.state):
            n = float(known["step"])
            spread = (known["exp_avg_sq"] / (1 - beta2**n)).sqrt_().add_(group["eps"])
            step = known["exp_avg"] / (1 - beta1**n) / spread
            squares.append(step.square().sum())
            numbers += step.numel()
    return (torch.stack(squares).sum() / numbers).sqrt() if squares else torch.zeros(())


def make_optimizer(
    parameters: Sequence[nn.Parameter], *, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay)


def warmed_up(lr: float, update: int, warmup: int) -> float:
    """Learning rate of the update number `update` (from 0): linear over the first `warmup` updates, then `lr`."""
    return lr * min(1.0, (update + 1) / warmup) if warmup else lr


class Ema:
    """Exponential moving average of the LoRA's weights, in their precision (float32).

    The decay rises with the number of updates n, min(decay, (1 + n) / (10 + n)), so that the average leaves the
    untrained start behind early. Without decay the average would be the weights: nothing is kept of them.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.updates = 0
        self.shadow = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """average <- d * average + (1 - d) * weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, average in self.shadow.items():
            average.lerp_(parameters[name], 1 - decay)
        self.updates += 1

    def to(self, device: torch.device) -> None:
        self.shadow = {name: average.to(device) for name, average in self.shadow.items()}
