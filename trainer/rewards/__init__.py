"""Rewards: one file a family. `build` makes one from its kind, the name a config uses.

Nothing in this file imports torch: a config's rewards are checked before that. See `base` for what a reward is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import tiny
from .errors import RewardError, RewardUnavailable
from .quoted import quoted
from .weights import find

if TYPE_CHECKING:
    from .base import Reward

__all__ = ["KINDS", "Kind", "RewardError", "RewardUnavailable", "build", "check_prompts", "check_weights"]


@dataclass(frozen=True)
class Kind:
    """A family member: how it is made, `make(device=..., **options)`, the options it takes and those it needs."""

    make: "Callable[..., Reward]"
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)  # option: which of weights.KNOWN it is, if it is empty
    check_prompt: Callable[[str], object] | None = None  # raises RewardError for one that it cannot score
    may_change: tuple[str, ...] = ()  # options with which a run goes on if they are others: a server moves


def _late(module: str, name: str) -> "Callable[..., Reward]":
    """`name` of the module, which is imported when a reward of it is made: torch and transformers take seconds."""

    def make(**options: Any) -> "Reward":
        return getattr(import_module(f".{module}", __package__), name)(**options)

    return make


def _pixels(name: str) -> "Callable[..., Reward]":
    """A reward that computes where the pictures are, and has no options."""
    make = _late("pixels", name)
    return lambda device: make()


_clip, _ocr, _judge = _late("clip_kinds", "clip"), _late("ocr", "OcrReward"), _late("vlm", "VlmJudge")

SERVER = ("url", "timeout", "retries", "token_env")  # options of rewards over HTTP
VLM = (*SERVER, "model", "template", "pattern", "scale", "size", "concurrency")
CLIP_L = {"path": "clip-l"}

KINDS: dict[str, Kind] = {
    "clip": Kind(_clip, ("path", "scale", "dtype"), needs=("path",)),
    "tiny-clip": Kind(lambda device: _clip(device=device, path=tiny.CLIP)),
    "tiny-clip-heldout": Kind(lambda device: _clip(device=device, path=tiny.CLIP_HELD_OUT)),
    "hpsv2.1": Kind(_late("clip_kinds", "hpsv2_1"), ("path", "dtype"), weights={"path": "hpsv2.1"}),
    "hpsv2": Kind(_late("hpsv2_package", "hpsv2"), ("path",), weights={"path": "hpsv2.1"}),
    "pickscore": Kind(_late("clip_kinds", "pickscore"), ("path", "dtype"), weights={"path": "pickscore"}),
    "clipscore": Kind(_late("clip_kinds", "clipscore"), ("path", "dtype"), weights=CLIP_L),
    "aesthetic": Kind(
        _late("aesthetic", "aesthetic"), ("path", "head", "dtype"), weights={"head": "aesthetic", **CLIP_L}
    ),
    "text-preference": Kind(
        _late("text_preference", "text_preference"), ("path", "wanted", "unwanted", "dtype"), weights=CLIP_L
    ),
    "reference-similarity": Kind(
        _late("references", "reference_similarity"),
        ("path", "references", "compare", "dtype"),
        needs=("references",),
        weights=CLIP_L,
    ),
    "colourfulness": Kind(_pixels("Colourfulness")),
    "sharpness": Kind(_pixels("Sharpness")),
    "jpeg-compressibility": Kind(_pixels("JpegCompressibility")),
    "jpeg-incompressibility": Kind(_pixels("JpegIncompressibility")),
    "remote": Kind(_late("remote", "remote"), (*SERVER, "reward"), needs=("url",), may_change=SERVER),
    "imagereward": Kind(_late("image_reward", "image_reward"), ("path", "dtype"), weights={"path": "imagereward"}),
    "ocr": Kind(lambda device: _ocr(), check_prompt=quoted),
    "vlm-judge": Kind(lambda device, **options: _judge(**options), VLM, needs=("url",), may_change=SERVER),
}


def build(kind: str, options: Mapping[str, Any], device: str) -> "Reward":
    """The reward of a kind. Raises RewardError if its files are missing or damaged."""
    return KINDS[kind].make(device=device, **options)


def check_prompts(kinds: Iterable[str], prompts: Iterable[str]) -> None:
    """Raises RewardError if a reward of these kinds cannot score one of the prompts: before anything is loaded."""
    found = [KINDS[kind].check_prompt for kind in kinds if kind in KINDS]
    checks = [check for check in found if check]
    for prompt in prompts:
        for check in checks:
            check(prompt)


def check_weights(kind: str, options: Mapping[str, Any]) -> None:
    """Raises RewardError if weights that `build` would look for are not there, without building anything."""
    for option, what in KINDS[kind].weights.items():
        find(what, options.get(option, ""))
