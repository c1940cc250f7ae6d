"""Tensors as pictures, and pictures as tensors."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..picture_files import PictureError

OVERSHOOT = 0.25  # below black and above white, as bicubic scaling leaves it


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


def channels_first(images: Tensor, where: str) -> Tensor:
    """A graph's pictures [N, height, width, 3] -> [N, 3, height, width] float32 in [0, 1], on the CPU.

    Raises:
        PictureError: `where` got something else: no picture, an alpha channel, numbers of another range.
    """
    if images.ndim == 4 and images.shape[-1] == 4:
        raise PictureError(f"{where} got pictures with an alpha channel: take it away (Split Image with Alpha)")
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise PictureError(f"{where} got pictures of shape {list(images.shape)}: must be [N, height, width, 3], N >= 1")
    return zero_to_one(images, f"{where} got pictures").movedim(-1, 1)


def zero_to_one(values: Tensor, what: str) -> Tensor:
    """float32 in [0, 1] on the CPU, what scaling overshot cut off.

    Raises:
        PictureError: whole numbers, NaN, or another range.
    """
    if not (values.is_floating_point() or values.dtype == torch.bool):
        raise PictureError(f"{what} of type {values.dtype}: must be floating point, from 0 to 1")
    low, high = torch.stack(values.float().aminmax()).tolist()
    if not -OVERSHOOT <= low <= high <= 1 + OVERSHOOT:
        raise PictureError(f"{what} with values from {low:.4g} to {high:.4g}: must be from 0 to 1")
    return values.cpu().float().clamp(0, 1)
