"""Small CLIP models: to train on, and to notice reward hacking."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from .fit import fit
from .pictures import SIZE, Pictures, sample
from .text import clip_tokenizer

BATCH = 96
TEXT_LENGTH = 32  # tokens


@dataclass(frozen=True)
class Recipe:
    """Everything in which the models differ."""

    name: str
    width: int
    layers: int
    patch: int
    seed: int
    steps: int


TRAINED = Recipe("clip", width=128, layers=4, patch=8, seed=21, steps=1500)
HELD_OUT = Recipe("clip-heldout", width=160, layers=3, patch=16, seed=22, steps=2600)
OF_SCENES = Recipe("clip", width=160, layers=3, patch=16, seed=32, steps=2600)


def new_clip(captions: Sequence[str], recipe: Recipe) -> CLIPModel:
    tokenizer = clip_tokenizer(captions)
    tower = {
        "hidden_size": recipe.width,
        "intermediate_size": 4 * recipe.width,
        "num_attention_heads": recipe.width // 32,
        "projection_dim": recipe.width,
    }
    tokens = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {**tower, **tokens, "num_hidden_layers": 2, "max_position_embeddings": TEXT_LENGTH}
    vision = {**tower, "num_hidden_layers": recipe.layers, "image_size": SIZE, "patch_size": recipe.patch}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.width))


def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def train(data: Pictures, folder: Path, recipe: Recipe) -> tuple[CLIPModel, float]:
    """Contrastive training (in-batch softmax) on distorted pictures; returns the model and its last loss."""
    torch.manual_seed(recipe.seed)
    model = new_clip(data.captions, recipe)
    ids = torch.tensor(clip_tokenizer(data.captions, TEXT_LENGTH)(data.captions, padding="max_length").input_ids)
    ids = ids[:, : int((ids != ids[0, -1]).sum(1).max()) + 1]  # as long as the longest caption
    normalise = Normalise()

    def contrastive(rng: np.random.Generator, step: int) -> torch.Tensor:
        rows, images = sample(data, BATCH, rng)
        # half of the batch in families, so that every fact of a caption must be read
        rows[BATCH // 2 :] = data.related(rows[: BATCH // 2], rng)
        images[BATCH // 2 :] = data.draw(rows[BATCH // 2 :], rng)
        images = normalise(distort(images, rng))
        output = model(input_ids=ids[rows], pixel_values=images)
        same = torch.tensor([[a == b for b in rows] for a in rows])
        logits = output.logits_per_image.masked_fill(same & ~torch.eye(BATCH, dtype=torch.bool), float("-inf"))
        target = torch.arange(BATCH)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    loss = fit(recipe.name, model, contrastive, folder, steps=recipe.steps, lr=1e-3, seed=recipe.seed, ema_decay=0.99)
    return model, loss


def distort(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blur, noise, and changes of colour and place: a generated picture is never as clean as an original."""
    n = len(images)
    scale = int(rng.choice([16, 24, 32, 48, 64]))
    if scale < SIZE:
        small = F.interpolate(images, size=scale, mode="bilinear", antialias=True)
        blurred = F.interpolate(small, size=SIZE, mode="bicubic")
        keep = torch.rand(n, 1, 1, 1) < 0.4
        images = torch.where(keep, images, blurred)
    gain = 1 + 0.15 * (torch.rand(n, 3, 1, 1) - 0.5)
    shift = 0.1 * (torch.rand(n, 3, 1, 1) - 0.5)
    noise = 0.06 * torch.rand(n, 1, 1, 1) * torch.randn_like(images)
    images = images * gain + shift + noise
    dx, dy = (int(v) for v in rng.integers(-3, 4, 2))
    return F.pad(images, (4, 4, 4, 4), mode="replicate")[..., 4 + dy : 4 + dy + SIZE, 4 + dx : 4 + dx + SIZE].clamp(
        0, 1
    )


class Normalise:
    """CLIP's mean and standard deviation, from the same processor that is saved beside the model."""

    def __init__(self):
        processor = image_processor()
        self.mean = torch.tensor(processor.image_mean)[:, None, None]
        self.std = torch.tensor(processor.image_std)[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std
