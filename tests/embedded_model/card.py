"""What the cards of both models are made of."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from trainer.pictures.convert import to_pictures
from trainer.rewards.clip import ClipReward

from .pictures import SIZE

CAPTIONS, CHOICES = 200, 32
STEPS = 20
SHOWN, COLUMNS = 32, 8  # pairs on the picture of samples
GAP = 4  # pixels


def right_caption_share(
    reward: ClipReward, images: torch.Tensor, rows: Sequence[int], captions: Sequence[str], rng: np.random.Generator
) -> float:
    """How often the right caption scores highest among CHOICES: it and others drawn at random, all different."""
    image = reward.encoder.images(reward.preprocess(images))
    right = 0
    for vector, row in zip(image, rows, strict=True):
        others = rng.choice([r for r in range(len(captions)) if r != row], CHOICES - 1, replace=False)
        texts = reward.encoder.texts([captions[r] for r in [row, *others]])
        right += int((texts @ vector).argmax() == 0)
    return right / len(rows)


def generate(folder: Path, prompts: Sequence[str], *, tokens: int, seed: int = 0) -> torch.Tensor:
    """Pictures [N, 3, 64, 64] by the plain FluxPipeline."""
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for start in range(0, len(prompts), 25):
        batch = list(prompts[start : start + 25])
        generator = torch.Generator().manual_seed(seed + start)
        options = {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS, "max_sequence_length": tokens}
        images.append(pipeline(batch, generator=generator, output_type="pt", **options).images.float())
    return torch.cat(images)


def pairs_sheet(left: torch.Tensor, right: torch.Tensor) -> Image.Image:
    cell = (2 * SIZE + 3 * GAP, SIZE + GAP)
    sheet = Image.new("RGB", (COLUMNS * cell[0], -(-len(left) // COLUMNS) * cell[1] + GAP), (255, 255, 255))
    for n, pair in enumerate(zip(to_pictures(left), to_pictures(right), strict=True)):
        x, y = n % COLUMNS * cell[0] + GAP, n // COLUMNS * cell[1] + GAP
        sheet.paste(pair[0], (x, y))
        sheet.paste(pair[1], (x + SIZE + GAP, y))
    return sheet


def write(
    folder: Path,
    card: str,
    values: Mapping[str, object],
    parts: Mapping[str, torch.nn.Module],
    losses: Mapping[str, float],
) -> None:
    rows = [f"| `{n}` | {type(m).__name__} | {sum(p.numel() for p in m.parameters()):,} |" for n, m in parts.items()]
    told = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    text = card.format(parts="\n".join(rows), choices=CHOICES, captions=CAPTIONS, losses=told, **values)
    (folder / "README.md").write_text(text, "utf-8")
