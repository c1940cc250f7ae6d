"""Tensors as pictures."""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor


def to_pictures(images: Tensor) -> Iterator[Image.Image]:
    """[N, 3, H, W] in [0, 1] -> N pictures. NaN shows as black."""
    pixels = (images.nan_to_num(0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return (Image.fromarray(p) for p in pixels)


def to_grey(mask: Tensor) -> Image.Image:
    """[H, W] in [0, 1] -> a picture in shades of grey."""
    return Image.fromarray((mask * 255).round().to(torch.uint8).cpu().numpy())
