"""Captioned pictures of the first embedded model: emoji composed on plain backgrounds, 64 x 64 pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainer.tiny.captions import BACKGROUNDS, COMBINATIONS, EMOJI, caption

from .pictures import SIZE
from .sprites import premultiplied, sprites

BACKGROUND_JITTER = 10  # of 255, per channel


@dataclass(frozen=True)
class Placement:
    """How much size and place of the emoji vary, in pixels."""

    sizes: range
    max_shift: int  # away from the centre


VARIED = Placement(range(46, 57, 2), 3)
STEADY = Placement(range(50, 55, 2), 1)


class Compositions:
    """Draws random pictures of (emoji, background) combinations. See `pictures.Pictures`."""

    def __init__(self, package: Path):
        self.captions = [caption(*c) for c in COMBINATIONS]
        # the eighth of the combinations that the autoencoder never sees
        self.held_out = [sum(c) % len(BACKGROUNDS) == 0 for c in COMBINATIONS]
        images = sprites(package, EMOJI)
        # [emoji][size in pixels] -> premultiplied colour and alpha
        self.sprites = [{size: premultiplied(image, size) for size in VARIED.sizes} for image in images]
        self.colours = np.array(list(BACKGROUNDS.values()), np.float32) / 255

    def draw(self, rows: list[int], rng: np.random.Generator, *, steady: bool = False) -> torch.Tensor:
        placement = STEADY if steady else VARIED
        batch = np.empty((len(rows), SIZE, SIZE, 3), np.float32)
        for canvas, row in zip(batch, rows, strict=True):
            emoji, background = COMBINATIONS[row]
            canvas[:] = self.colours[background] + rng.uniform(-1, 1, 3) * BACKGROUND_JITTER / 255
            colour, alpha = self.sprites[emoji][int(rng.choice(placement.sizes))]
            size = len(colour)
            x, y = (SIZE - size) // 2 + rng.integers(-placement.max_shift, placement.max_shift + 1, 2)
            window = canvas[y : y + size, x : x + size]
            window[:] = window * (1 - alpha) + colour
        return torch.from_numpy(batch.clip(0, 1)).permute(0, 3, 1, 2).contiguous()

    def told(self, rows: list[int], rng: np.random.Generator, *, last: bool) -> list[int]:
        return rows

    def related(self, rows: list[int], rng: np.random.Generator) -> list[int]:
        """The same emoji elsewhere, or another emoji on the same background."""
        emojis, backgrounds = len(EMOJI), len(BACKGROUNDS)
        chosen = []
        for emoji, background in (COMBINATIONS[row] for row in rows):
            if rng.random() < 0.5:
                background = int(rng.integers(backgrounds))
            else:
                emoji = int(rng.integers(emojis))
            chosen.append(emoji * backgrounds + background)
        return chosen
