"""8-bit weights on `meta`, widened by one kernel as Triton's does on a card: torch's own operations would count."""

import torch
from torch import Tensor, nn

from ..models.storage.fetching import LayerFetcher
from ..models.storage.frozen import FrozenLinear
from ..models.storage.memory import Storage


@torch.library.custom_op("neighbor_grpo::widen", mutates_args=())
def widen(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """stored * scale in `dtype`, see `storage.eight_bits`; a shape alone, without data."""
    raise NotImplementedError(f"only the shape of {stored.device} tensors is known here")


@widen.register_fake
def _(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(stored, dtype=dtype)


class PlannedLinear(FrozenLinear):
    def widened(self, dtype: torch.dtype, *, backward: bool) -> Tensor:
        stored = self._fetched(backward=backward)
        return widen(stored, self.scale, dtype) if self.weight.dtype == torch.int8 else stored.to(dtype)


class PlannedStorage(Storage):
    """Whose layers are PlannedLinear."""

    def _replacement(self, linear: nn.Linear, fetcher: LayerFetcher | None) -> nn.Linear:
        shape = (linear.in_features, linear.out_features, linear.bias is not None)
        return PlannedLinear(*shape, fetcher=fetcher, in_8_bits=self.in_8_bits)
