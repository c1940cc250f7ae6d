"""The way between FLUX.1's latents and pictures."""

from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ..storage.memory import visiting

SINGLY, TILED = 512, 1024  # pixels of the longer side, above which pictures are decoded one at a time and in tiles


class Autoencoder(Protocol):
    """Latents [N, 16, height / 8, width / 8] in the transformer's units; images [N, 3, height, width] in [0, 1]."""

    def decode(self, z: Tensor) -> Tensor: ...

    def encode(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Vae:
    """diffusers' autoencoder, with its scale and shift of the latents."""

    vae: AutoencoderKL

    def decode(self, z: Tensor) -> Tensor:
        """The weights come to the latents' device meanwhile. Large pictures come singly, larger ones in tiles."""
        config = self.vae.config
        z = z / config.scaling_factor + (config.shift_factor or 0)
        side = 8 * max(z.shape[-2:])
        self.vae.use_slicing, self.vae.use_tiling = side > SINGLY, side > TILED
        with visiting(self.vae, z.device):
            images = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The mode: no noise. On the device where the weights wait."""
        config = self.vae.config
        pixels = images.to(self.vae.device, self.vae.dtype) * 2 - 1
        z = self.vae.encode(pixels, return_dict=False)[0].mode().float()
        return (z - (config.shift_factor or 0)) * config.scaling_factor
