"""Stage 3: latents to images."""

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def decode(decoder: Callable[[Tensor], Tensor], x_0: Tensor, micro_batch: int) -> Tensor:
    """Decode [N, *latent], `micro_batch` at a time: images [N, 3, height, width], float32 in [0, 1]."""
    return torch.cat([decoder(part) for part in x_0.split(micro_batch)])
