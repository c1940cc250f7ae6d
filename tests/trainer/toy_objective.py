"""An objective in one file: every step is drawn to where the better candidates ended, without a ratio."""

import torch

from trainer.stages.anchors import Pairs
from trainer.stages.solvers import SOLVERS
from trainer.stages.surrogate import PairLoss


class Pull:
    """Noises are independent, and every candidate is trained at one step."""

    needs_reference = False

    def __init__(self, config):
        self.group_size, self.total = config.grpo.group_size, config.sampling.steps

    def solver(self, kept):
        return SOLVERS["euler"]

    def noise(self, seed, shape):
        return torch.randn(self.group_size, *shape, generator=torch.Generator().manual_seed(seed))

    def steps(self, *, generator):
        return torch.randint(self.total, (1,), generator=generator).tolist()

    def pairs(self, prompts, *, generator):
        prompt, anchor = torch.meshgrid(torch.arange(prompts), torch.arange(self.group_size), indexing="ij")
        return Pairs(prompt.flatten(), anchor.flatten(), torch.zeros(prompt.numel(), dtype=torch.int64))

    def shares(self, pairs, updates):
        return [pairs] * updates

    def prepare(self, trajectories, advantages):
        ends = trajectories.x_0.unflatten(0, advantages.shape)  # [P, G, *latent]
        better = (advantages[..., None] * ends.flatten(2)).sum(1)  # [P, n]: from the worse candidates' ends

        def loss_of(pairs, v, v_reference):
            row = pairs.prompt * self.group_size + pairs.anchor
            leap = trajectories.step_size[pairs.step, None] * v.flatten(1)
            away = (v - trajectories.v[pairs.step, row]).flatten(1)
            loss = away.square().mean(1) - (leap * better[pairs.prompt]).sum(1)
            nothing = torch.zeros_like(loss.detach())
            return PairLoss(loss, nothing[:, None], nothing, nothing)

        return loss_of
