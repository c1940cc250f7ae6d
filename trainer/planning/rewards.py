"""Reward models at their real sizes on the `meta` device, scored by the real classes if those can be made so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from ..plugins import is_own
from ..rewards import KINDS, kind_of
from ..rewards.base import Reward, pick_dtype
from ..rewards.clip import ClipEncoder, ClipReward
from ..rewards.image_reward import HEAD, LENGTH, Blip
from ..rewards.preprocess import Preprocess
from ..rewards.table import IMAGE_REWARD, VIT_H, VIT_L
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


MODELS: dict[str | Path, Callable[[], CLIPConfig]] = {VIT_H: vit_h_14, VIT_L: vit_l_14}


@dataclass
class Counted:
    """A reward whose model is on meta: going to a device is only counted. What was at home stays there, see Visitor."""

    reward: Reward
    model: nn.Module
    tracker: MemoryTracker
    was_home: bool = False
    home: Sequence[Tensor] = ()  # what stays there while the model is away

    def to(self, device: str | torch.device) -> None:
        weights, goes_home = [*self.model.parameters(), *self.model.buffers()], torch.device(device).type == "cpu"
        self.was_home |= goes_home
        with self.tracker.making(HOST):
            self.home = [torch.empty_like(w) for w in weights] if self.was_home and not goes_home else ()
        self.tracker.place(weights, HOST if goes_home else DEVICE)

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
        kind = KINDS.get(settings.kind)  # None for scores that a graph brings, and for a class of the user's own
        if kind and kind.model:
            dtype = model_dtype(settings, "meta")
            key = (kind.weights.get("path", kind.model), settings.options.get("path", ""), dtype)
            if key not in known:
                known[key] = _image_reward(dtype) if kind.model == IMAGE_REWARD else _clip_reward(settings, dtype)
            made[settings.label] = Counted(*known[key], tracker)
    return made


def model_dtype(settings: RewardSettings, device: str) -> torch.dtype:
    """What the reward's model computes in: the option, its default, or float32 if there is no such option."""
    choice = signature(kind_of(settings.kind).load()).parameters.get("dtype")
    usual = choice.default if choice else "float32"
    return pick_dtype(settings.options.get("dtype", usual), device)


def clip_config(kind: str, options: Mapping[str, Any]) -> CLIPConfig:
    """The sizes of a reward's CLIP: those of its folder, if it has one, or the usual ones."""
    model = kind_of(kind).model
    usual = MODELS.get(model, lambda: CLIPConfig.from_pretrained(model))
    return _folder_config(options) or usual()


def assumed(rewards: Sequence[RewardSettings]) -> list[str]:
    """Notes on rewards whose sizes are a guess, or not known at all."""
    own = [r.label for r in rewards if is_own(r.kind)]
    known = [r for r in rewards if r.label not in own]
    guessed = [r.label for r in known if r.options.get("path") and _folder_config(r.options) is None]
    return [
        *(f"reward {label!r}: counted as the model that is usual for it" for label in guessed),
        *(f"reward {label!r}: a class of your own, not counted" for label in own),
    ]


def _clip_reward(settings: RewardSettings, dtype: torch.dtype) -> tuple[Reward, nn.Module]:
    config = clip_config(settings.kind, settings.options)
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
