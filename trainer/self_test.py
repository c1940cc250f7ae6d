"""Before a run: is the ratio of new to old policy 1, as it must be before the first update?

The rollout computes the velocities without gradient, the update computes them again with it. Where the two differ,
every ratio is wrong from the start, and the clip cuts off what was never learnt.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .events import SelfTested
from .iteration import begin, policy_velocity
from .noise import neighborhood
from .rollout import rollout
from .state import Setup
from .surrogate import leap, log_policy, softmax_temperature

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # of |rho - 1|


def self_test(setup: Setup, iteration: int) -> SelfTested:
    """|rho - 1| of one anchor's first step, and where it is above the tolerance, what makes it so.

    Costs a step of one neighborhood and one call with gradient; two more calls where the cause is to be found.
    """
    return setup.micro_batch.fit("self-test", lambda size: SelfTested(iteration, *_measure(setup, size)))


def _measure(setup: Setup, size: int) -> tuple[float, str]:
    grpo, geometry, policy = setup.config.grpo, setup.geometry, setup.policy
    noise = neighborhood(setup.config.run.seed, geometry.latent_shape, grpo.strength, grpo.group_size)
    x, rows, _ = begin(setup, [0], noise)
    velocity = policy_velocity(setup, [0], size)
    step = rollout(velocity, x, rows, setup.sigmas[:2], "euler", [0])
    tau = softmax_temperature(step.x_next, grpo.temperature, grpo.temperature_mode)

    def evaluated(x: Tensor) -> Tensor:
        return velocity(x, step.sigma.expand(len(x)), rows[: len(x)])

    # the first candidate is the anchor: others stood beside it in the rollout, copies of it do in the update
    v_old, v_new = step.v[0, :1], evaluated(x[:1]).detach()
    log_old, log_new = (log_policy(step.x_next, leap(x[:1], v, step.step_size), tau) for v in (v_old, v_new))
    error = (log_new - log_old).expm1().abs().max().item()
    if error <= TOLERANCES[policy.dtype]:
        return error, ""
    return error, cause(evaluated, x, v_old, policy.transformer.training)


def cause(evaluated: Callable[[Tensor], Tensor], x: Tensor, v_old: Tensor, training: bool) -> str:
    """What makes the velocity of the first of x [N, *latent] another one: the first thing that does."""
    with torch.no_grad():
        again, alone = evaluated(x)[:1], evaluated(x[:1])
    if training:
        return "the model is in training mode: its dropout is on"
    if not torch.equal(again, v_old):
        return "the model gives other numbers at each call"
    if not torch.equal(alone, again):
        return "its numbers depend on the candidates beside one in the micro-batch"
    return "it computes otherwise with gradient: autocast, or checkpointing that draws random numbers again"
