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


class JpegCompressibility:
    """-kB / 500 of the picture as JPEG (quality 95): high for plain pictures. A negative weight asks for detail."""

    quality = 95

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        kilobytes = [self._size(Image.fromarray(p)) / 1000 for p in pixels]
        return torch.tensor(kilobytes, device=images.device) / -500

    def _size(self, image: Image.Image) -> int:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.quality)
        return buffer.tell()
