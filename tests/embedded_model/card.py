"""Measuring the finished model, and its card."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from trainer.pictures.convert import to_pictures
from trainer.rewards.clip import ClipReward
from trainer.rewards.clip_kinds import clip
from trainer.tiny.captions import COMBINATIONS, EMOJI, caption

from .data import SIZE, Compositions

CAPTIONS, CHOICES = 200, 32
STEPS = 20
SHOWN, COLUMNS = 32, 8  # pairs on the picture of samples
GAP = 4  # pixels

CARD = """# The embedded model

A small FLUX that ships with the project, so that the demo and the tests need no download. It draws {emoji} everyday
emoji on 8 backgrounds, 64 x 64 pixels: "red apple on a blue background".

![pairs: an original on the left, a generated picture for the same caption on the right](samples.png)

*Pairs: an original composition on the left, a picture generated for the same caption on the right.*

| part | class | parameters |
|---|---|---|
{parts}

`flux/` is a diffusers folder with FLUX's own geometry (8x autoencoder, 16 latent channels, 2 x 2 packing, CLIP and T5
conditioning, resolution-dependent time shift; no guidance embedding). Plain
`FluxPipeline.from_pretrained("trainer/tiny/flux")` opens it. `clip/` is a reward to train on; `clip-heldout/`,
trained on its own with another seed, width, depth and patch size, is there to notice reward hacking.

## Measured by the build script

| | |
|---|---|
| reconstruction, PSNR on compositions held out from the autoencoder's training | {psnr:.1f} dB |
| held-out CLIP, right caption out of {choices}: pictures generated for {captions} captions | {generated_heldout:.1%} |
| the same for original pictures (the ceiling) | {real_heldout:.1%} |
| tiny-clip, generated pictures | {generated_clip:.1%} |
| tiny-clip, original pictures | {real_clip:.1%} |
| chance | {chance:.1%} |
| last training losses | {losses} |

## Data and licence

Pictures: Noto emoji from the npm package `emoji-datasource-google@16.0.0` (images Apache-2.0, data MIT), composed on
plain backgrounds with random size, place and shade. The weights are licensed like the project, Apache-2.0.

It knows nothing but these emoji and backgrounds: other words are spelt out, and ignored.

## How it was built

    python -m tests.embedded_model FOLDER

downloads the pictures with npm, trains everything from seeds, and writes this folder: about an hour and a half on one
CPU core. It keeps its progress in FOLDER and goes on where it was stopped.
"""


def right_caption_share(
    reward: ClipReward, images: torch.Tensor, rows: Sequence[int], rng: np.random.Generator
) -> float:
    """How often the right caption scores highest among CHOICES: it and others drawn at random, all different."""
    image = reward.encoder.images(reward.preprocess(images))
    right = 0
    for vector, row in zip(image, rows, strict=True):
        others = rng.choice([r for r in range(len(COMBINATIONS)) if r != row], CHOICES - 1, replace=False)
        texts = reward.encoder.texts([caption(*COMBINATIONS[r]) for r in [row, *others]])
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


def measure(folder: Path, data: Compositions, *, tokens: int) -> tuple[dict[str, float], Image.Image]:
    """The shares of right captions, and a picture of samples beside originals."""
    rng = np.random.default_rng(100)
    rows = rng.choice(len(COMBINATIONS), CAPTIONS, replace=False).tolist()
    real = data.draw([COMBINATIONS[r] for r in rows], rng)
    generated = generate(folder / "flux", [caption(*COMBINATIONS[r]) for r in rows], tokens=tokens)
    shares = {}
    for name, key in (("clip", "clip"), ("clip-heldout", "heldout")):
        reward = clip("cpu", folder / name)
        for kind, images in (("real", real), ("generated", generated)):
            shares[f"{kind}_{key}"] = right_caption_share(reward, images, rows, np.random.default_rng(101))
    return shares, pairs_sheet(real[:SHOWN], generated[:SHOWN])


def pairs_sheet(left: torch.Tensor, right: torch.Tensor) -> Image.Image:
    cell = (2 * SIZE + 3 * GAP, SIZE + GAP)
    sheet = Image.new("RGB", (COLUMNS * cell[0], -(-len(left) // COLUMNS) * cell[1] + GAP), (255, 255, 255))
    for n, pair in enumerate(zip(to_pictures(left), to_pictures(right), strict=True)):
        x, y = n % COLUMNS * cell[0] + GAP, n // COLUMNS * cell[1] + GAP
        sheet.paste(pair[0], (x, y))
        sheet.paste(pair[1], (x + SIZE + GAP, y))
    return sheet


def write(
    folder: Path, values: Mapping[str, object], parts: Mapping[str, torch.nn.Module], losses: Mapping[str, float]
):
    rows = [f"| `{n}` | {type(m).__name__} | {sum(p.numel() for p in m.parameters()):,} |" for n, m in parts.items()]
    text = CARD.format(
        emoji=len(EMOJI), parts="\n".join(rows), choices=CHOICES, captions=CAPTIONS, steps=STEPS, chance=1 / CHOICES,
        losses=", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()), **values,
    )  # fmt: skip
    (folder / "README.md").write_text(text, "utf-8")
