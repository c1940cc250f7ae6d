"""The gradient of the leaping policy's objective, of plain tensors and numbers."""

from trainer.objectives.neighbor import LeapingLoss
from trainer.settings.config import GrpoSettings
from trainer.stages import update


def accumulate_gradient(
    velocity, trajectories, pairs, advantages, tau, *, clip, kl_weight=0.0, reference=None, **options
):
    """See `update.accumulate_gradient`; advantages [P, G], tau [K, P]. The reference is asked if its term counts."""
    groups = trajectories.inside(trajectories.x_next).unflatten(1, tuple(advantages.shape))
    settings = GrpoSettings(clip=clip, kl_weight=kl_weight)
    loss_of = LeapingLoss(trajectories, groups, trajectories.step_size, advantages, tau, settings)
    options |= {"group_size": advantages.shape[1], "reference": reference if kl_weight else None}
    return update.accumulate_gradient(velocity, trajectories, pairs, loss_of, **options)
