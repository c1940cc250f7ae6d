"""Page-locked host memory for weights that are offloaded: the device copies from it while it computes."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)

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
        pinned: whether it is page-locked, which needs CUDA. If the system allows no more (Windows: half of its
            memory), the rest is not.
    """

    def __init__(self, device: torch.device, *, pinned: bool):
        self.device, self.pinned = device, pinned
        self._chunks: list[_Chunk] = []

    def copied(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor` in this memory."""
        size = -(-tensor.nbytes // ALIGNED) * ALIGNED
        chunk = next((c for c in self._chunks if c.used + size <= len(c.memory)), None) or self._begin(size)
        place = chunk.memory[chunk.used : chunk.used + tensor.nbytes]
        chunk.used += size
        place.copy_(tensor.contiguous().flatten().view(torch.uint8))
        return place.view(tensor.dtype).view(tensor.shape)

    def _begin(self, size: int) -> _Chunk:
        self._chunks.append(_Chunk(self._allocate(max(CHUNK, size))))
        return self._chunks[-1]

    def _allocate(self, size: int) -> Tensor:
        try:
            return torch.empty(size, dtype=torch.uint8, device=self.device, pin_memory=self.pinned)
        except RuntimeError as error:
            if not self.pinned:
                raise
            reason = str(error).partition("\n")[0]
            locked = sum(len(c.memory) for c in self._chunks) / 2**30
            log.warning(
                "no more than %.1f GiB can be page-locked (%s): other weights are copied slower", locked, reason
            )
            self.pinned = False
            return self._allocate(size)
