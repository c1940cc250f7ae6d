"""Stage 4: what a reward is."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import UserError

TOLERANCE = 1e-3  # below 0 and above 1, as rounding and resizing leave it


class Reward(Protocol):
    """Scores pictures. Any object with this method is a reward; larger is better."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images [N, 3, H, W] float32 in [0, 1] and the N prompts they were made from -> scores [N]."""
        ...


class RewardError(UserError):
    """A reward that cannot be built, with the reason and the remedy in one line."""


class RewardUnavailable(RewardError):
    """A reward that does not answer for now, and may again: a run waits for it. `is_back` asks whether it would."""

    def __init__(self, reason: str, is_back: Callable[[], bool] = lambda: True):
        super().__init__(reason)
        self.is_back = is_back


def check_images(images: Tensor, prompts: Sequence[str]) -> None:
    """Raises RewardError with the value that does not fit: shape, type, a number that is not finite, the range."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise RewardError(f"pictures of shape {list(images.shape)} cannot be scored: must be [N, 3, height, width]")
    if not images.is_floating_point():
        raise RewardError(f"pictures of type {images.dtype} cannot be scored: must be floating point, from 0 to 1")
    if len(prompts) != len(images):
        raise RewardError(f"{len(images)} pictures but {len(prompts)} prompts: each picture needs its own prompt")
    # one pass and one wait for the device; NaN and infinity come through
    low, high = torch.stack(images.aminmax()).tolist()
    if not -TOLERANCE <= low <= high <= 1 + TOLERANCE:
        raise RewardError(_misfit(images, low, high))


def _misfit(images: Tensor, low: float, high: float) -> str:
    broken = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        value = images[broken[0]][~images[broken[0]].isfinite()][0].item()
        return f"picture {broken[0]} has a pixel of {value}: the model that drew it ran out of range, lower its rate"
    return f"pictures from {low:.4g} to {high:.4g} cannot be scored: must be from 0 to 1"
