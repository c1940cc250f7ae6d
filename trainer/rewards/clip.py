"""Rewards of the CLIP family: agreement of a picture with its prompt, by any `transformers.CLIPModel` folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from .base import RewardError

SCALES = ("cosine", "logit")
# each by the names that transformers has given it
PARTS = (("config.json",), ("preprocessor_config.json", "processor_config.json"), ("tokenizer_config.json",))


class ClipReward:
    """cos(image, text), or exp(logit_scale) * cos with scale="logit" (PickScore's definition).

    Pictures are preprocessed in torch on their own device, as the folder's `preprocessor_config.json` says: shortest
    edge, centre crop, mean and standard deviation. Each prompt is encoded once.
    """

    def __init__(self, folder: str | Path, *, scale: str = "cosine", device: str = "cpu"):
        folder = Path(folder).expanduser()
        if scale not in SCALES:
            raise RewardError(f"CLIP reward: scale must be one of {', '.join(SCALES)}, got {scale!r}")
        for names in PARTS:
            if not any((folder / name).is_file() for name in names):
                raise RewardError(f"CLIP reward: {folder} is not a CLIPModel folder, {names[0]} is missing")
        try:
            self.model = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval().to(device)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            settings = _image_settings(folder)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise RewardError(f"CLIP reward: {folder} does not load ({' '.join(str(error).split())[:200]})") from error
        self.model.requires_grad_(False)
        self.size = self.model.config.vision_config.image_size
        self.mean = torch.tensor(settings["image_mean"], device=device)[:, None, None]
        self.std = torch.tensor(settings["image_std"], device=device)[:, None, None]
        self.scale = self.model.logit_scale.exp().item() if scale == "logit" else 1.0
        self.texts: dict[str, Tensor] = {}  # prompt -> unit vector [D]

    def to(self, device: str | torch.device) -> "ClipReward":
        """Move everything to where the pictures are."""
        self.model.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        self.texts = {prompt: vector.to(device) for prompt, vector in self.texts.items()}
        return self

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [N]; in [-1, 1] with scale="cosine"."""
        features = self.model.get_image_features(pixel_values=self.preprocess(images))
        image = F.normalize(_tensor(features), dim=-1)  # [N, D]
        text = torch.stack([self.text_features(p) for p in prompts])
        return self.scale * (image * text).sum(-1)

    def preprocess(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> normalised [N, 3, size, size]."""
        height, width = images.shape[-2:]
        if (height, width) != (self.size, self.size):
            shortest = min(height, width)
            # rounded down, as CLIP's processor does
            size = (self.size * height // shortest, self.size * width // shortest)
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            top, left = (size[0] - self.size) // 2, (size[1] - self.size) // 2
            images = images[..., top : top + self.size, left : left + self.size]
        return (images - self.mean) / self.std

    def text_features(self, prompt: str) -> Tensor:
        """Unit text vector [D]. A prompt longer than the model's context is cut."""
        if prompt not in self.texts:
            length = self.model.config.text_config.max_position_embeddings
            tokens = self.tokenizer(prompt, truncation=True, max_length=length, return_tensors="pt")
            tokens = tokens.to(self.mean.device)
            self.texts[prompt] = F.normalize(_tensor(self.model.get_text_features(**tokens)), dim=-1)[0]
        return self.texts[prompt]


def _image_settings(folder: Path) -> dict[str, Any]:
    """Of the image processor: transformers 4 keeps them in a file of their own, transformers 5 with the processor's."""
    own = folder / "preprocessor_config.json"
    if own.is_file():
        return json.loads(own.read_text("utf-8"))
    return json.loads((folder / "processor_config.json").read_text("utf-8"))["image_processor"]


def _tensor(features: object) -> Tensor:
    """transformers 5 returns an output object where 4 returned the tensor."""
    return features if isinstance(features, Tensor) else features.pooler_output  # type: ignore[attr-defined]
