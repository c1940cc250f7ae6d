"""Captioned pictures of rows of things, 64 x 64 pixels, whose captions are wrong now and then, as on the web."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.tiny.scene_captions import COLOURS, NUMBERS, PLACES, SCENES, THINGS, Scene, caption

from .pictures import SIZE
from .sprites import premultiplied, sprites

SIZES = (17, 18)  # pixels of a thing's edge
SPACING = 22  # pixels from thing to thing
SHIFT = (1.0, 1.5)  # pixels that a thing is off its place at most, along the row and across
BACKGROUNDS = np.array([(246, 243, 236), (238, 241, 245), (241, 246, 239), (247, 240, 243)], np.float32) / 255
BACKGROUND_JITTER = 4 / 255
WRONG = {"number": 0.35, "place": 0.3}  # shares of the captions whose fact was drawn by lot
WRONG_FIRST = {**WRONG, "colour": 0.2}  # in the first part of the training
ROWS = {scene: row for row, scene in enumerate(SCENES)}
FACTS = {"number": len(NUMBERS), "colour": len(COLOURS), "thing": len(THINGS), "place": len(PLACES)}


class Scenes:
    """Draws random pictures of SCENES. See `pictures.Pictures`."""

    def __init__(self, package: Path):
        tints = np.array(list(COLOURS.values()), np.float32) / 255
        self.captions = [caption(scene) for scene in SCENES]
        self.held_out = [sum(dataclasses.astuple(scene)) % 8 == 0 for scene in SCENES]
        images = sprites(package, THINGS)
        # [thing][colour][size in pixels] -> premultiplied colour and alpha
        self.sprites = [[{size: tinted(image, size, tint) for size in SIZES} for tint in tints] for image in images]

    def draw(self, rows: list[int], rng: np.random.Generator, *, steady: bool = False) -> torch.Tensor:
        batch = np.empty((len(rows), SIZE, SIZE, 3), np.float32)
        for canvas, row in zip(batch, rows, strict=True):
            self.compose(canvas, SCENES[row], rng)
        return torch.from_numpy(batch.clip(0, 1)).permute(0, 3, 1, 2).contiguous()

    def compose(self, canvas: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
        canvas[:] = BACKGROUNDS[rng.integers(len(BACKGROUNDS))] + rng.uniform(-1, 1, 3) * BACKGROUND_JITTER
        size = int(rng.choice(SIZES))
        colour, alpha = self.sprites[scene.thing][scene.colour][size]
        name, (_, middle) = list(PLACES.items())[scene.place]
        along = 1 if name in ("left", "right") else 0
        shift = np.array(SHIFT if along == 0 else SHIFT[::-1])
        for place in range(scene.number + 1):
            centre = np.array(middle) * SIZE + rng.uniform(-shift, shift)
            centre[along] += (place - scene.number / 2) * SPACING
            x, y = np.round(centre - size / 2).astype(int)
            window = canvas[y : y + size, x : x + size]
            window[:] = window * (1 - alpha) + colour

    def told(self, rows: list[int], rng: np.random.Generator, *, last: bool) -> list[int]:
        """Each fact of a caption was drawn by lot in its share of the pictures."""
        return [ROWS[changed(SCENES[row], rng, WRONG if last else WRONG_FIRST)] for row in rows]

    def related(self, rows: list[int], rng: np.random.Generator) -> list[int]:
        """Every fact may be another one."""
        return [ROWS[changed(SCENES[row], rng, dict.fromkeys(FACTS, 0.4))] for row in rows]


def changed(scene: Scene, rng: np.random.Generator, shares: Mapping[str, float]) -> Scene:
    """The scene with some facts drawn anew, each with its probability."""
    drawn = {fact: int(rng.integers(FACTS[fact])) for fact, share in shares.items() if rng.random() < share}
    return dataclasses.replace(scene, **drawn)


def tinted(image: Image.Image, size: int, tint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A premultiplied picture in the shades of one colour."""
    colour, alpha = premultiplied(image, size)
    grey = (colour / np.maximum(alpha, 1e-3)) @ np.array([0.3, 0.59, 0.11], np.float32)
    shade = (grey[..., None] / ((grey * alpha[..., 0]).sum() / alpha.sum())).clip(0.45, 1.6)
    return np.where(shade < 1, tint * shade, tint + (1 - tint) * (shade - 1) * 0.75) * alpha, alpha
