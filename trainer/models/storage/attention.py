"""Which kernels compute attention."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
