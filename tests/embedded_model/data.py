"""Captioned pictures: Noto emoji composed on plain backgrounds, 64 x 64 pixels.

The pictures come from the npm package `emoji-datasource-google` (images Apache-2.0, data MIT).
"""

import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.tiny.captions import BACKGROUNDS, COMBINATIONS, EMOJI

PACKAGE = "emoji-datasource-google@16.0.0"
SIZE = 64  # pixels
BACKGROUND_JITTER = 10  # of 255, per channel


@dataclass(frozen=True)
class Placement:
    """How much size and place of the emoji vary, in pixels."""

    sizes: range
    max_shift: int  # away from the centre


VARIED = Placement(range(46, 57, 2), 3)
STEADY = Placement(range(50, 55, 2), 1)


def fetch(folder: Path) -> Path:
    """Download the emoji package with npm into `folder` once; return the unpacked package."""
    package = folder / "package"
    if not package.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(
                f"npm is needed to download {PACKAGE}: install Node.js, or unpack the package to {package}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return package


def held_out(combination: tuple[int, int]) -> bool:
    """True for the eighth of the combinations that the autoencoder never sees."""
    emoji, background = combination
    return (emoji + background) % len(BACKGROUNDS) == 0


class Compositions:
    """Draws random compositions of given (emoji, background) combinations."""

    def __init__(self, package: Path):
        index = {e["short_name"]: e["image"] for e in json.loads((package / "emoji.json").read_text("utf-8"))}
        self.sprites = []  # [emoji][size in pixels] -> premultiplied colour [s, s, 3] and alpha [s, s, 1], in [0, 1]
        for name in EMOJI:
            image = Image.open(package / "img" / "google" / "64" / index[name]).convert("RGBA")
            premultiplied = image.convert("RGBa")
            self.sprites.append({size: self._sprite(premultiplied, size) for size in VARIED.sizes})
        self.colours = np.array(list(BACKGROUNDS.values()), np.float32) / 255

    @staticmethod
    def _sprite(image: Image.Image, size: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255
        return pixels[..., :3], pixels[..., 3:]

    def draw(
        self, combinations: list[tuple[int, int]], rng: np.random.Generator, placement: Placement = VARIED
    ) -> torch.Tensor:
        """One random placement of each combination: images [N, 3, 64, 64] in [0, 1]."""
        batch = np.empty((len(combinations), SIZE, SIZE, 3), np.float32)
        for canvas, (emoji, background) in zip(batch, combinations, strict=True):
            canvas[:] = self.colours[background] + rng.uniform(-1, 1, 3) * BACKGROUND_JITTER / 255
            colour, alpha = self.sprites[emoji][int(rng.choice(placement.sizes))]
            size = len(colour)
            x, y = (SIZE - size) // 2 + rng.integers(-placement.max_shift, placement.max_shift + 1, 2)
            window = canvas[y : y + size, x : x + size]
            window[:] = window * (1 - alpha) + colour
        return torch.from_numpy(batch.clip(0, 1)).permute(0, 3, 1, 2).contiguous()

    def sample(self, n: int, rng: np.random.Generator, *, unseen: bool | None = None):
        """`n` distinct combinations and their images; `unseen` picks the held-out ones, or only the others."""
        pool = [c for c in COMBINATIONS if unseen is None or held_out(c) == unseen]
        chosen = [pool[i] for i in rng.choice(len(pool), n, replace=False)]
        return chosen, self.draw(chosen, rng)
