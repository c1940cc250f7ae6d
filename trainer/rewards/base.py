"""Stage 4: what a reward is."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ..errors import UserError


class Reward(Protocol):
    """Scores pictures. Any object with this method is a reward; larger is better."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images [N, 3, H, W] float32 in [0, 1] and the N prompts they were made from -> scores [N]."""
        ...


class RewardError(UserError):
    """A reward that cannot be built, with the reason and the remedy in one line."""
