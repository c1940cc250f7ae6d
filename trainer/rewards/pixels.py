"""Rewards that need no model."""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor


class Colourfulness:
    """Hasler and Suesstrunk 2003: about 0 (grey) to 100 and more (extremely colourful)."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """M = |std(rg), std(yb)| + 0.3 * |mean(rg), mean(yb)|, with rg = R - G and yb = (R + G) / 2 - B, of 255."""
        red, green, blue = (images * 255).unbind(1)
        opponents = torch.stack([red - green, (red + green) / 2 - blue], 1).flatten(2)  # [N, 2, H W]
        spread = opponents.std(-1, correction=0).norm(dim=1)
        offset = opponents.mean(-1).norm(dim=1)
        return spread + 0.3 * offset


class Sharpness:
    """Mean size of the gradient of the brightness, in levels of 255 a pixel: 0 (flat), about 3 (soft) to 15 (crisp).

    Differences to the right and lower neighbour. Noise and texture count as sharp too: use it beside another reward.
    """

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """mean over pixels of |(Y[i, j + 1] - Y[i, j], Y[i + 1, j] - Y[i, j])|, Y the luma of ITU-R BT.601."""
        luma = torch.einsum("nchw,c->nhw", images * 255, images.new_tensor([0.299, 0.587, 0.114]))
        right = luma[:, :-1, 1:] - luma[:, :-1, :-1]
        down = luma[:, 1:, :-1] - luma[:, :-1, :-1]
        return torch.hypot(right, down).mean((1, 2))


class JpegSize:
    """kB of the picture as JPEG (quality 95), times `scale`."""

    quality = 95

    def __init__(self, scale: float):
        self.scale = scale

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        kilobytes = [self._size(Image.fromarray(p)) / 1000 for p in pixels]
        return torch.tensor(kilobytes, device=images.device) * self.scale

    def _size(self, image: Image.Image) -> int:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.quality)
        return buffer.tell()


def jpeg_compressibility() -> JpegSize:
    """-kB / 500: high for plain pictures. A negative weight asks for detail."""
    return JpegSize(-1 / 500)


def jpeg_incompressibility() -> JpegSize:
    """kB / 1000: high for pictures full of detail, or of noise."""
    return JpegSize(1 / 1000)
