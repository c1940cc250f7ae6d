"""Before a run: does the update compute the policy that the rollout computed, and the gradient of that policy?

The rollout computes the velocities without gradient and in batches of its own, the update computes them again with it.
If the two differ, every ratio is wrong from the start, and the clip cuts off what was never learnt. The velocities
themselves are compared: the ratio tells less and less the larger a picture is, as |rho - 1| falls with 1 / sqrt(D). A
kernel's backward pass may be wrong where its forward pass is right, so the LoRA takes a small step along its gradient
and is held to its promise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..engine.drawing import begin, policy_velocity
from ..engine.state import Setup
from ..events import SelfTested
from ..stages.anchors import Pairs
from ..stages.rollout import Trajectories, rollout
from ..stages.solvers import SOLVERS
from ..stages.update import relative_error

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}  # of the relative error of a velocity
STEP = 0.03  # of the velocity, that a step along the gradient shall change: less drowns in bfloat16, more bends
BROKEN_PROMISE = 0.3  # of it: bfloat16 misses it by 0.13, a gradient of no direction by 1
WRONG_GRADIENT = "the gradient is not that of the velocity: a backward pass of this device or this torch is wrong"


@dataclass(frozen=True)
class Ends:
    """The first and the last step of one neighborhood, by the rollout's batches."""

    noise: Tensor  # [G, *latent]
    rows: Tensor  # [G], all of the first prompt
    steps: list[Trajectories]
    again: Callable[[Trajectories], Tensor]  # the velocity of the first candidate there, as the rollout has it


def self_test(setup: Setup, iteration: int) -> SelfTested:
    """One anchor's velocity at the first and at the last step, its gradient at the first, and the cause of an error.

    Costs a step of one neighborhood and one call with gradient for either, and a backward pass and two calls; two more
    calls to find a cause.
    """
    ends = setup.rollout_batch.fit("self-test", lambda size: drawn(setup, size))
    return setup.micro_batch.fit("self-test", lambda size: SelfTested(iteration, *_measure(setup, ends, size)))


def drawn(setup: Setup, size: int) -> Ends:
    """What the rollout computes, `size` candidates at once."""
    sigmas, objective = setup.sigmas, setup.objective
    x, rows, _ = begin(setup, [0], objective.noise(setup.config.run.seed, setup.geometry.latent_shape))
    velocity = policy_velocity(setup, [0], size, filled=size == setup.micro_batch.size)
    first = rollout(velocity, x, rows, sigmas[:2], SOLVERS["euler"], [0])
    near = x + (sigmas[-2] - sigmas[0]).item() * first.v[0]  # about where the last step begins
    last = rollout(velocity, near, rows, sigmas[-2:], SOLVERS["euler"], [0])

    @torch.no_grad()
    def again(step: Trajectories) -> Tensor:
        return velocity(step.x[0], step.sigma.expand(len(rows)), rows)[:1]

    return Ends(x, rows, [first, last], again)


def _measure(setup: Setup, ends: Ends, size: int) -> tuple[float, float, float, str]:
    """|rho - 1|, the velocity's relative error, the gradient's, the cause."""
    rows, tolerance = ends.rows, TOLERANCES[setup.policy.dtype]
    advantages, first_pair = ends.noise.new_zeros(1, len(rows)), Pairs(*rows.new_zeros(3, 1))
    velocity = policy_velocity(setup, [0], size, filled=size == setup.rollout_batch.size)
    gradient, ratios, errors, found = 0.0, [], [], ""
    for step in ends.steps:
        # the first candidate is the anchor: others stood beside it in the rollout, copies of it may in the update
        evaluated = partial(velocity, step.x[0, :1], step.sigma, rows[:1])
        v_old, v = step.v[0, :1], evaluated()
        v_new = v.detach()
        loss_of = setup.objective.prepare(step, advantages)
        ratios.append(loss_of(first_pair, v_new, None).log_ratio.expm1().abs().max().item())
        errors.append(relative_error(v_new, v_old).item())
        if not errors[-1] <= tolerance:  # NaN is none either
            found = found or cause(
                evaluated, ends.again(step), v_old, tolerance, training=setup.policy.network.training
            )
        if len(errors) == 1:
            gradient = gradient_error(v, evaluated, list(setup.lora.values()))
    return max(ratios), max(errors), gradient, found or (WRONG_GRADIENT if not gradient <= BROKEN_PROMISE else "")


def gradient_error(v: Tensor, velocity: Callable[[], Tensor], lora: list[Tensor]) -> float:
    """How much of the change of ||v||^2 / 2 that the gradient promises for a step of the LoRA does not come.

    `v` is what `velocity()` gives, with its graph. A step to either side, so that the curvature cancels; afterwards the
    LoRA is as it was, and without gradients.
    """
    v_0, kept = v.detach(), [p.detach().to("cpu", copy=True) for p in lora]  # no more room than an update takes
    try:
        v.backward(v_0)
        promised = STEP * v_0.square().sum()
        step = (promised / sum(p.grad.square().sum() for p in lora if p.grad is not None)).item()
        change = torch.zeros_like(promised)
        for side in (1, -1):
            with torch.no_grad():
                for p, start in zip(lora, kept, strict=True):
                    p.copy_(start)
                    if p.grad is not None:
                        p.add_(p.grad, alpha=side * step)
                change += side / 2 * (velocity() * v_0).sum()
    finally:
        with torch.no_grad():
            for p, start in zip(lora, kept, strict=True):
                p.copy_(start)
                p.grad = None
    return abs((change / promised).item() - 1)


def cause(evaluated: Callable[[], Tensor], again: Tensor, v_old: Tensor, tolerance: float, *, training: bool) -> str:
    """What makes the velocity of a candidate another one than v_old, the rollout's: the first thing that does.

    Args:
        evaluated: what the update computes.
        again: what the rollout computes, once more.
    """
    with torch.no_grad():
        alone = evaluated()
    if training:
        return "the model is in training mode: its dropout is on"
    if not torch.equal(again, v_old):
        return "the model gives other numbers at each call"
    if not relative_error(alone, again).item() <= tolerance:
        return "its numbers depend on the candidates beside one in the micro-batch"
    return "it computes otherwise with gradient: autocast, or checkpointing that draws random numbers again"
