"""Pictures as a vision model wants them, in torch, on their own device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """[N, 3, H, W] in [0, 1] -> normalised [N, 3, size, size].

    Shrinks or enlarges the shortest edge to `shortest` (bicubic with antialias) and crops the centre, as CLIP does.
    With `letterbox` the longest edge is fitted and the rest filled with black, half before and half after, as HPSv2
    does; on a picture that is not square the two differ by as much as its score differs from another picture's.

    PIL, which CLIP's processor uses, rounds to 8 bits after each of its two passes. Measured from 512..1024 to 224
    pixels: its normalised pixels differ by 0.004 on average (0.3 of 255 levels) and by 0.016 at most on smooth
    pictures, 0.07 on noise; cosines with a text by at most 6e-5.
    """

    size: int  # pixels
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    shortest: int = 0  # pixels; 0 is `size`
    letterbox: bool = False
    centred_by_rounding: bool = False  # the crop, as torchvision does; CLIP's processor rounds its margin down

    def __call__(self, images: Tensor) -> Tensor:
        pixels = self._letterboxed(images) if self.letterbox else self._cropped(images)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _cropped(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        edge, shortest = self.shortest or self.size, min(height, width)
        if shortest != edge:
            # rounded down, as CLIP's processor does
            size = (edge * height // shortest, edge * width // shortest)
            # clamped, as the processor's 8 bits do to the overshoot of the bicubic kernel
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        margins = (n - self.size for n in images.shape[-2:])
        top, left = (round(m / 2) if self.centred_by_rounding else m // 2 for m in margins)
        return images[..., top : top + self.size, left : left + self.size]

    def _letterboxed(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if max(height, width) != self.size:
            scale = self.size / max(height, width)
            size = (round(height * scale), round(width * scale))
            # not clamped: HPSv2 resizes floating point pictures too
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True)
        down, right = (self.size - n for n in images.shape[-2:])
        # before normalising: black, not grey
        return F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))
