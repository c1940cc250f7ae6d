"""Which kernels compute attention, and the blocks that are computed again in the backward pass with the same ones."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from diffusers import FluxTransformer2DModel
from torch.utils.checkpoint import checkpoint


@contextmanager
def sound_attention() -> Iterator[None]:
    """Inside, attention is not cuDNN's, which torch prefers on Hopper and newer cards.

    Measured on an H200 (torch 2.11, cuDNN 9.19): its backward pass takes the output's gradient for one that lies in
    memory as the output does, and gives numbers of no meaning, NaN, or an illegal memory access. Its forward pass is
    left out as well: rollout and update must compute the same velocity.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def checkpoint_blocks(transformer: FluxTransformer2DModel) -> None:
    """If gradients are asked for, keep each block's inputs alone and compute it again in the backward pass."""
    again = partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), sound_attention()))
    transformer.enable_gradient_checkpointing(again)
