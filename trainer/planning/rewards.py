"""Reward models at their real sizes on the `meta` device, scored by the real classes if those can be made so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from .. import tiny
from ..choices import AUTO
from ..rewards.base import Reward, pick_dtype
from ..rewards.clip import ClipEncoder, ClipReward
from ..rewards.image_reward import HEAD, LENGTH, Blip
from ..rewards.preprocess import Preprocess
from ..settings.config import RewardSettings
from .models import META
from .tracker import DEVICE, HOST, MemoryTracker


def _clip(vision: tuple[int, int, int], text: tuple[int, int, int], projection: int) -> CLIPConfig:
    """Of (width, layers, heads) of each tower; pictures of 224 pixels in patches of 14."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    towers = [{**dict(zip(names, t, strict=True)), "intermediate_size": 4 * t[0]} for t in (vision, text)]
    return CLIPConfig(
        vision_config={**towers[0], "patch_size": 14, "image_size": 224},
        text_config={**towers[1], "vocab_size": 49408},
        projection_dim=projection,
    )


def vit_h_14() -> CLIPConfig:
    return _clip((1280, 32, 16), (1024, 24, 16), 1024)


def vit_l_14() -> CLIPConfig:
    return _clip((1024, 24, 16), (768, 12, 12), 768)


SIZES: dict[str, Callable[[], CLIPConfig]] = {
    "hpsv2.1": vit_h_14,
    "hpsv2": vit_h_14,
    "pickscore": vit_h_14,
    "clipscore": vit_l_14,
    "aesthetic": vit_l_14,
    "clip": vit_l_14,
    "text-preference": vit_l_14,
    "reference-similarity": vit_l_14,
    "tiny-clip": lambda: CLIPConfig.from_pretrained(tiny.CLIP),
    "tiny-clip-heldout": lambda: CLIPConfig.from_pretrained(tiny.CLIP_HELD_OUT),
}
FLOAT32 = ("clip", "hpsv2", "tiny-clip", "tiny-clip-heldout")  # kinds whose models are not narrowed by themselves
IMAGE_REWARD = "imagereward"


@dataclass
class Counted:
    """A reward whose model is on meta: going to a device is only counted."""

    reward: Reward
    model: nn.Module
    tracker: MemoryTracker

    def to(self, device: str | torch.device) -> None:
        where = HOST if torch.device(device).type == "cpu" else DEVICE
        self.tracker.place([*self.model.parameters(), *self.model.buffers()], where)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.reward.score(images, prompts)


class _BlipReward:
    """ImageReward's scoring without its vocabulary, which is not shipped: prompts of the longest length."""

    def __init__(self, model: Blip):
        self.model, self.preprocess = model, Preprocess(model.size, centred_by_rounding=True)

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        first = next(self.model.parameters())
        tokens, mask = (torch.ones(len(prompts), LENGTH, dtype=torch.int64, device=META) for _ in range(2))
        return self.model(self.preprocess(images).to(first.dtype), tokens, mask)


def counted(rewards: Sequence[RewardSettings], tracker: MemoryTracker) -> dict[str, Counted]:
    """The rewards that have a model on the device, by label; rewards of the same CLIP share it, as in a run."""
    known: dict[object, tuple[Reward, nn.Module]] = {}
    made = {}
    for settings in rewards:
        if settings.kind in SIZES or settings.kind == IMAGE_REWARD:
            options = dict(settings.options)
            dtype = pick_dtype(options.get("dtype", "float32" if settings.kind in FLOAT32 else AUTO), "meta")
            key = (SIZES.get(settings.kind), options.get("path", ""), dtype)
            if key not in known:
                known[key] = _image_reward(dtype) if settings.kind == IMAGE_REWARD else _clip_reward(settings, dtype)
            made[settings.label] = Counted(*known[key], tracker)
    return made


def assumed(rewards: Sequence[RewardSettings]) -> list[str]:
    """Notes on what the sizes of these rewards were taken from, if that is a guess."""
    guessed = [r.label for r in rewards if r.options.get("path") and _folder_config(r.options) is None]
    return [f"reward {label!r}: counted as the model that is usual for it" for label in guessed if label]


def _clip_reward(settings: RewardSettings, dtype: torch.dtype) -> tuple[Reward, nn.Module]:
    config = _folder_config(settings.options) or SIZES[settings.kind]()
    with META:
        model = CLIPModel(config).eval().requires_grad_(False)
    model.logit_scale = nn.Parameter(torch.zeros(()), requires_grad=False)  # the encoder reads its value
    encoder = ClipEncoder(model, lambda _: list(range(config.text_config.max_position_embeddings)), "meta", dtype)
    return ClipReward(encoder, Preprocess(encoder.size)), model


def _folder_config(options: Mapping[str, Any]) -> CLIPConfig | None:
    folder = Path(options.get("path") or "/")
    return CLIPConfig.from_pretrained(folder) if (folder / "config.json").is_file() else None


def _image_reward(dtype: torch.dtype) -> tuple[Reward, nn.Module]:
    vision = BlipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224
    )
    text = BlipTextConfig(vocab_size=30524, encoder_hidden_size=1024, intermediate_size=3072, num_attention_heads=12)
    widths = (768, 1024, 128, 64, 16, 1)
    head = {n: (out, wide) for n, wide, out in zip(HEAD, widths, widths[1:], strict=True)}
    with META:
        model = Blip(vision, text, head).to(dtype).eval().requires_grad_(False)
    return _BlipReward(model), model
