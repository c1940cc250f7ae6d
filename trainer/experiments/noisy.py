"""Rewards that are wrong on purpose."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..rewards.base import Reward

GAUSSIAN, FLIPPED, PURE = KINDS = ("gaussian", "flipped", "pure")


@dataclass
class Noisy:
    """A reward whose scores are disturbed, differently at each call.

    gaussian: noise of `amount` times the spread of a group's scores, or of all, if its members do not differ.
    flipped: each candidate has, with probability `amount`, the score of the mirrored rank: .5 is noise alone.
    pure: a constant and noise, whatever is in the picture.
    """

    reward: Reward
    kind: str
    amount: float
    group_size: int
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        scores = self.reward.score(images, prompts)
        groups = scores.cpu().view(-1, self.group_size)
        if self.kind == PURE:
            disturbed = self.normal(groups)
        elif self.kind == GAUSSIAN:
            spread = groups.std(1, correction=0, keepdim=True)
            disturbed = groups + self.amount * torch.where(spread > 0, spread, groups.std()) * self.normal(groups)
        else:
            disturbed = torch.where(self.uniform(groups) < self.amount, mirrored(groups), groups)
        return disturbed.flatten().to(scores)

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.generator)


def mirrored(groups: Tensor) -> Tensor:
    """The best score of each group [P, G] in place of the worst, the second best of the second worst, ..."""
    ordered, places = groups.sort(dim=1, stable=True)
    return torch.empty_like(groups).scatter(1, places, ordered.flip(1))
