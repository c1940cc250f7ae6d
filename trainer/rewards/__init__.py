"""Rewards: one file a family. `build` makes one from its kind, the name a config uses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import tiny
from .base import Reward, RewardError, RewardUnavailable
from .combine import Combined, combine
from .pixels import Colourfulness, JpegCompressibility

__all__ = ["KINDS", "Combined", "Kind", "Reward", "RewardError", "RewardUnavailable", "build", "combine"]


@dataclass(frozen=True)
class Kind:
    """A family member: how it is made, `make(device=..., **options)`, and the options it takes."""

    make: Callable[..., Reward]
    options: tuple[str, ...] = ()


def _clip(device: str, path: str, **options: Any) -> Reward:
    from .clip import ClipReward  # transformers: loaded by the rewards that need it

    return ClipReward(path, device=device, **options)


def _remote(device: str, **options: Any) -> Reward:
    from .remote import RemoteReward

    return RemoteReward(**options)


KINDS: dict[str, Kind] = {
    "clip": Kind(_clip, ("path", "scale")),
    "tiny-clip": Kind(lambda device: _clip(device, tiny.CLIP)),
    "tiny-clip-heldout": Kind(lambda device: _clip(device, tiny.CLIP_HELD_OUT)),
    "colourfulness": Kind(lambda device: Colourfulness()),
    "jpeg-compressibility": Kind(lambda device: JpegCompressibility()),
    "remote": Kind(_remote, ("url", "reward", "token_env", "timeout", "retries")),
}


def build(kind: str, options: Mapping[str, Any], device: str) -> Reward:
    """The reward of a kind. Raises RewardError where its files are missing or damaged."""
    return KINDS[kind].make(device=device, **options)
