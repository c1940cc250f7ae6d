"""Rewards: one file a family. `build` makes one from its kind, the name a config uses."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import tiny
from .base import Reward, RewardError
from .combine import Combined, combine
from .ocr import OcrReward, quoted
from .pixels import Colourfulness, JpegCompressibility
from .vlm import VlmJudge

__all__ = ["KINDS", "Combined", "Kind", "Reward", "RewardError", "build", "check_prompts", "combine"]


@dataclass(frozen=True)
class Kind:
    """A family member: how it is made, `make(device=..., **options)`, and the options it takes."""

    make: Callable[..., Reward]
    options: tuple[str, ...] = ()
    check_prompt: Callable[[str], object] | None = None  # raises RewardError for one that it cannot score


def _clip(device: str, path: str, **options: Any) -> Reward:
    from .clip import ClipReward  # transformers: loaded by the rewards that need it

    return ClipReward(path, device=device, **options)


def _image_reward(**options: Any) -> Reward:
    from .image_reward import image_reward

    return image_reward(**options)


VLM = ("url", "model", "template", "pattern", "scale", "size", "concurrency", "timeout", "retries", "token_env")

KINDS: dict[str, Kind] = {
    "clip": Kind(_clip, ("path", "scale")),
    "tiny-clip": Kind(lambda device: _clip(device, tiny.CLIP)),
    "tiny-clip-heldout": Kind(lambda device: _clip(device, tiny.CLIP_HELD_OUT)),
    "colourfulness": Kind(lambda device: Colourfulness()),
    "jpeg-compressibility": Kind(lambda device: JpegCompressibility()),
    "imagereward": Kind(_image_reward, ("path", "dtype")),
    "ocr": Kind(lambda device: OcrReward(), check_prompt=quoted),
    "vlm-judge": Kind(lambda device, **options: VlmJudge(**options), VLM),
}


def build(kind: str, options: Mapping[str, Any], device: str) -> Reward:
    """The reward of a kind. Raises RewardError where its files are missing or damaged."""
    return KINDS[kind].make(device=device, **options)


def check_prompts(kinds: Iterable[str], prompts: Iterable[str]) -> None:
    """Raises RewardError where a reward of these kinds cannot score one of the prompts: before anything is loaded."""
    checks = [KINDS[kind].check_prompt for kind in kinds if kind in KINDS and KINDS[kind].check_prompt]
    for prompt in prompts:
        for check in checks:
            check(prompt)
