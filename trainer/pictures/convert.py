"""Tensors as pictures, and pictures as tensors."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def to_pictures(images: Tensor) -> Iterator[Image.Image]:
    """[N, 3, H, W] in [0, 1] -> N pictures. NaN shows as black."""
    pixels = (images.nan_to_num(0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return (Image.fromarray(p) for p in pixels)


def to_grey(mask: Tensor) -> Image.Image:
    """[H, W] in [0, 1] -> a picture in shades of grey."""
    return Image.fromarray((mask * 255).round().to(torch.uint8).cpu().numpy())


def fitted(picture: Image.Image, size: tuple[int, ...]) -> Tensor:
    """[channels, height, width] in [0, 1]: scaled to cover (width, height), what stands out cut off evenly."""
    width, height = size
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
