"""Rewards: one file a family. `build` makes one from its kind, a name a config may use."""

from collections.abc import Callable, Mapping
from typing import Any

from .. import tiny
from .base import Reward, RewardError
from .clip import ClipReward
from .combine import Combined, combine
from .pixels import Colourfulness, JpegCompressibility

__all__ = ["KINDS", "ClipReward", "Combined", "Reward", "RewardError", "build", "combine"]

# kind -> (options it takes, constructor)
KINDS: dict[str, tuple[tuple[str, ...], Callable[..., Reward]]] = {
    "clip": (("path", "scale"), lambda device, path, **o: ClipReward(path, device=device, **o)),
    "tiny-clip": ((), lambda device: ClipReward(tiny.CLIP, device=device)),
    "tiny-clip-heldout": ((), lambda device: ClipReward(tiny.CLIP_HELD_OUT, device=device)),
    "colourfulness": ((), lambda device: Colourfulness()),
    "jpeg-compressibility": ((), lambda device: JpegCompressibility()),
}


def build(kind: str, options: Mapping[str, Any], device: str) -> Reward:
    """The reward of a kind. Raises RewardError where its files are missing or damaged."""
    return KINDS[kind][1](device=device, **options)
