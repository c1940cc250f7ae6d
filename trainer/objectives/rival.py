"""What the methods that Neighbor GRPO is compared with have in common."""

import torch
from torch import Tensor

from ..settings.config import Config
from ..stages.anchors import Pairs
from ..stages.noise import neighborhood
from .objective import Objective, pairs_of

MOST = 5.0  # of an advantage, in standard deviations of its group


class Rival(Objective):
    """Candidates begin from noises of their own. Each update has its share of them, dealt out in every group."""

    needs_reference = False

    def __init__(self, config: Config):
        self.grpo, self.total, self.trained = config.grpo, config.sampling.steps, config.trained_steps

    def noise(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        return neighborhood(seed, shape, 1.0, self.grpo.group_size)

    def pairs(self, prompts: int, *, generator: torch.Generator) -> Pairs:
        return pairs_of(self.grpo, prompts, self.trained, generator=generator)

    def shares(self, pairs: Pairs, updates: int) -> list[Pairs]:
        return [pairs.those(pairs.anchor % updates == update, updates) for update in range(updates)]


def plain(advantages: Tensor) -> Tensor:
    """A of each candidate, [P, G], at most MOST: a quasi-norm of 2 has divided it by sqrt(G)."""
    return (advantages * advantages.shape[1] ** 0.5).clamp(-MOST, MOST)
