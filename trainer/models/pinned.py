"""Page-locked host memory for weights that are offloaded: the device copies from it while it computes."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2**28  # bytes; a power of two
ALIGNED = 512  # bytes


@dataclass
class _Chunk:
    memory: Tensor  # [CHUNK] uint8
    used: int = 0


class PinnedMemory:
    """Keeps tensors side by side in large pieces of memory, each of which lives as long as a tensor in it.

    torch rounds the size of every pinned tensor up to a power of two: pinned one by one, weights of 36 MiB take 64.

    Args:
        device: where the memory is, the CPU but for predictions.
        pinned: whether it is page-locked, which needs CUDA.
    """

    def __init__(self, device: torch.device, *, pinned: bool):
        self.device, self.pinned = device, pinned
        self._chunks: list[_Chunk] = []

    def keep(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor` in this memory."""
        size = -(-tensor.nbytes // ALIGNED) * ALIGNED
        chunk = next((c for c in self._chunks if c.used + size <= len(c.memory)), None) or self._begin(size)
        place = chunk.memory[chunk.used : chunk.used + tensor.nbytes]
        chunk.used += size
        place.copy_(tensor.contiguous().flatten().view(torch.uint8))
        return place.view(tensor.dtype).view(tensor.shape)

    def _begin(self, size: int) -> _Chunk:
        memory = torch.empty(max(CHUNK, size), dtype=torch.uint8, device=self.device, pin_memory=self.pinned)
        self._chunks.append(_Chunk(memory))
        return self._chunks[-1]
