"""Pictures and masks to begin from, as the transformer sees them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...picture_files import PictureError
from ...stages.inpainting import Init
from .conditions import FILL, REFERENCE
from .geometry import CHANNELS, Geometry

Encoder = Callable[[Tensor], Tensor]  # images [N, 3, height, width] in [0, 1] -> latents [N, 16, height / 8, width / 8]


def latent_mask(mask: Tensor) -> Tensor:
    """[height, width] in [0, 1] -> [height / 8, width / 8] bool: where at least half of an 8 x 8 square is masked.

    Raises:
        PictureError: nothing is masked.
    """
    cells = F.avg_pool2d(mask[None], 8)[0] >= 0.5
    if not cells.any():
        raise PictureError("the mask covers no square of 8 x 8 pixels: paint white what is to be drawn anew")
    return cells


def encode_init(
    images: Tensor, mask: Tensor | None, encoder: Encoder, geometry: Geometry, *, fill: bool, reference: bool = False
) -> Init:
    """What trajectories begin from, of images [N, 3, height, width] and a mask [height, width], in [0, 1] both.

    Args:
        fill: whether the transformer is FLUX.1-Fill's, which sees picture and mask.
        reference: whether it sees the pictures as FLUX.1-Kontext does.
    """
    latents = torch.cat([encoder(image) for image in images.split(1)])
    seen = {REFERENCE: geometry.pack(latents)} if reference else {}
    if mask is None:
        return Init(latents, seen=seen)
    if fill:
        seen[FILL] = fill_conditioning(images, mask, encoder, geometry)
    return Init(latents, latent_mask(mask), seen)


def fill_conditioning(images: Tensor, mask: Tensor, encoder: Encoder, geometry: Geometry) -> Tensor:
    """What FLUX.1-Fill sees beside x: the picture with grey in place of the mask, and the mask's pixels.

    As in diffusers' `FluxFillPipeline.prepare_mask_latents`, but for the encoder's mode in place of a sample.

    Returns:
        [N, tokens, 64 + 256]: of each latent, the 64 pixels of the mask are channels.
    """
    hole = (mask >= 0.5).float()
    seen = torch.where(hole.bool(), 0.5, images)
    latents = torch.cat([encoder(image) for image in seen.split(1)])
    squares = hole.unflatten(1, (-1, 8)).unflatten(0, (-1, 8)).permute(1, 3, 0, 2)  # [8, 8, height / 8, width / 8]
    packed = geometry.pack(squares.flatten(0, 1).unflatten(0, (-1, CHANNELS)))  # [4, tokens, 64]
    channels = packed.permute(1, 0, 2).flatten(1).to(latents)  # [tokens, 256]
    return torch.cat([geometry.pack(latents), channels.expand(len(latents), -1, -1)], -1)
