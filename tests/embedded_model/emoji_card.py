"""Measuring the emoji model, and its card."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from trainer import tiny
from trainer.rewards.clip_kinds import clip
from trainer.tiny.captions import EMOJI

from .card import CAPTIONS, CHOICES, SHOWN, generate, pairs_sheet, right_caption_share
from .pictures import Pictures

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

    python -m tests.embedded_model emoji FOLDER

downloads the pictures with npm, trains everything from seeds, and writes this folder: about an hour and a half on one
CPU core. It keeps its progress in FOLDER and goes on where it was stopped.
"""


def measure(folder: Path, data: Pictures) -> tuple[Mapping[str, object], Image.Image]:
    """The shares of right captions, and a picture of samples beside originals."""
    rng = np.random.default_rng(100)
    rows = rng.choice(len(data.captions), CAPTIONS, replace=False).tolist()
    real = data.draw(rows, rng)
    generated = generate(folder / "flux", [data.captions[r] for r in rows], tokens=tiny.TEXT_TOKENS)
    shares: dict[str, object] = {"emoji": len(EMOJI), "chance": 1 / CHOICES}
    for name, key in (("clip", "clip"), ("clip-heldout", "heldout")):
        reward = clip("cpu", folder / name)
        for kind, images in (("real", real), ("generated", generated)):
            rng = np.random.default_rng(101)
            shares[f"{kind}_{key}"] = right_caption_share(reward, images, rows, data.captions, rng)
    return shares, pairs_sheet(real[:SHOWN], generated[:SHOWN])
