"""The way between FLUX.1's latents and pictures."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ..storage.visiting import visiting

SINGLY, TILED = 512, 1024  # pixels of the longer side, above which pictures are done one at a time and in tiles


class Autoencoder(Protocol):
    """Latents [N, 16, height / 8, width / 8] in the transformer's units; images [N, 3, height, width] in [0, 1]."""

    def staying(self, device: torch.device) -> AbstractContextManager[None]:
        """Inside, it is used many times on `device`."""

    def decode(self, z: Tensor) -> Tensor: ...

    def encode(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Vae:
    """diffusers' autoencoder, with its scale and shift of the latents."""

    vae: AutoencoderKL

    def staying(self, device: torch.device) -> AbstractContextManager[None]:
        """The weights are on `device` inside; outside they wait on the host."""
        return visiting(self.vae, device)

    def decode(self, z: Tensor) -> Tensor:
        """The weights come to the latents' device meanwhile."""
        config = self.vae.config
        z = z / config.scaling_factor + (config.shift_factor or 0)
        self._divide(8 * max(z.shape[-2:]))
        with self.staying(z.device):
            images = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The mode: no noise. The weights come to the pictures' device meanwhile."""
        config = self.vae.config
        self._divide(max(images.shape[-2:]))
        with self.staying(images.device):
            pixels = images.to(self.vae.dtype) * 2 - 1
            z = self.vae.encode(pixels, return_dict=False)[0].mode().float()
        return (z - (config.shift_factor or 0)) * config.scaling_factor

    def _divide(self, side: int) -> None:
        """Large pictures, by the pixels of their longer side, are done singly, larger ones in tiles."""
        self.vae.use_slicing, self.vae.use_tiling = side > SINGLY, side > TILED
