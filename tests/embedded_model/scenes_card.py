"""Measuring the model of scenes, and its card."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from trainer import tiny
from trainer.experiments.tasks import TASKS
from trainer.pictures.convert import to_pictures
from trainer.rewards.clip_kinds import clip
from trainer.rewards.scene import facts
from trainer.tiny.scene_captions import COLOURS, SCENES, THINGS

from .card import CAPTIONS, SHOWN, generate, pairs_sheet, right_caption_share
from .pictures import Pictures
from .scenes import WRONG

CARD = """# The embedded model of scenes

Another small FLUX that ships with the project. It draws rows of things, 64 x 64 pixels: "two red apples on the left".
Captions on the web are often wrong, and so were those that it was trained on: the number was drawn by lot in
{wrong_number:.0%} of them, the place in {wrong_place:.0%}. So it knows all of
{scenes} scenes ({things} things in {colours} colours, one to three of them, in four places), and often draws another
one than it was asked for. A reward can train that away.

![pairs: an original on the left, a generated picture for the same caption on the right](samples.png)

*Pairs: an original on the left, a picture generated for the same caption on the right.*

| part | class | parameters |
|---|---|---|
{parts}

`flux/` is a diffusers folder with FLUX's own geometry, see the [other model](../README.md), and the setting
`model.path = "embedded-scenes"`. The reward `tiny-scene` counts in the pixels whether number, place and colour are
right; `clip/`, the reward `tiny-scene-clip`, is there to notice reward hacking.

## Measured by the build script

| | |
|---|---|
| reconstruction, PSNR on scenes held out from the autoencoder's training | {psnr:.1f} dB |
| pictures generated for {captions} captions: number, place and colour right | {right:.1%} |
| number; colour; place | {number:.1%}; {colour:.1%}; {place:.1%} |
| originals: all right, by the same count | {real:.1%} |
| CLIP, right caption out of {choices}: original pictures | {real_clip:.1%} |
| last training losses | {losses} |

## Data and licence

Pictures: Noto emoji from the npm package `emoji-datasource-google@16.0.0` (images Apache-2.0, data MIT), tinted and
composed. The weights are licensed like the project, Apache-2.0.

## How it was built

    python -m tests.embedded_model scenes FOLDER

downloads the pictures with npm, trains everything from seeds, the autoencoder from the other model's, and writes this
folder: about an hour and a half on one CPU core. It keeps its progress in FOLDER and goes on where it was stopped.
"""


def measure(folder: Path, data: Pictures) -> tuple[Mapping[str, object], Image.Image]:
    """How often the facts of captions are right, and a picture of samples beside originals."""
    rng = np.random.default_rng(100)
    rows = rng.choice(len(SCENES), CAPTIONS, replace=False).tolist()
    captions = [data.captions[r] for r in rows]
    real = data.draw(rows, rng)
    tokens = tiny.MODELS["embedded-scenes"].text_tokens
    generated = generate(folder / "flux", captions, tokens=tokens)
    right = facts(generated, captions)
    known = {
        "right": right.all(1).float().mean().item(),
        "real": facts(real, captions).all(1).float().mean().item(),
        "real_clip": right_caption_share(clip("cpu", folder / "clip"), real, rows, data.captions, rng),
        **dict(zip(("number", "colour", "place"), right.float().mean(0).tolist(), strict=True)),
        **{f"wrong_{fact}": share for fact, share in WRONG.items()},
        "scenes": len(SCENES),
        "things": len(THINGS),
        "colours": len(COLOURS),
    }
    tested = data.draw([data.captions.index(text) for text in TASKS["scenes"].tested], rng)
    column = [np.asarray(picture) for picture in to_pictures(tested)]
    Image.fromarray(np.concatenate(column)).save(folder / tiny.SCENE_ORIGINALS.name)
    return known, pairs_sheet(real[:SHOWN], generated[:SHOWN])
