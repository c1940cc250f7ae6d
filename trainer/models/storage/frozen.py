"""Frozen linear layers that keep their weight small or elsewhere: y = x W^T + b, with W made anew at each use.

W is fetched and widened in the forward pass and again in the backward pass, so that autograd holds the stored weight
alone. The stored 8-bit weight is an int8 parameter, not a float8 one: peft and transformers' T5 cast what they add or
feed to the precision of a floating weight.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
EIGHT_BITS = (*FLOAT8, torch.int8)
LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448


class Fetcher(Protocol):
    """Brings a stored weight to the device that computes."""

    def fetch(self, weight: Tensor, *, backward: bool) -> Tensor: ...

    def settle(self) -> None:
        """Let go of copies made ahead."""


class FrozenLinear(nn.Linear):
    """A linear layer without gradients of its own. Its weight is on meta until `store_weight` stores one.

    `.to()` and its kin do not reach it: where the weight is and in which precision is a matter of the memory plan.
    """

    in_block = True  # one of the layers that a memory plan keeps in fewer bits

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, fetcher: Fetcher | None = None):
        super().__init__(in_features, out_features, bias, device="meta")
        self.requires_grad_(False)
        self.fetcher = fetcher  # None if the weight is on the device that computes
        self.float8: torch.dtype | None = None  # what the bytes of an int8 weight are, if they are no whole numbers
        self.register_buffer("scale", None, persistent=False)

    def store_weight(self, weight: Tensor, scale: Tensor | None, device: torch.device) -> None:
        """Store `weight` [out, in] as it is: W = weight * scale.

        Args:
            weight: of a floating type or int8; float8 is stored as its bytes.
            scale: of an 8-bit weight, float32: of the whole tensor ([] or [1]) or of each row ([out, 1]); None is 1.
            device: the one that computes, where the scale waits. The weight stays where it is.
        """
        self.float8 = weight.dtype if weight.dtype in FLOAT8 else None
        stored = weight.detach() if self.float8 is None else weight.detach().view(torch.int8)
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.scale = None if scale is None else scale.detach().to(device, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return _FrozenMatmul.apply(x, self)

    def widened(self, dtype: torch.dtype, *, backward: bool) -> Tensor:
        """W [out, in] in `dtype`, on the device that computes."""
        weight = self.weight.detach() if self.fetcher is None else self.fetcher.fetch(self.weight, backward=backward)
        if self.float8 is not None:
            weight = weight.view(self.float8)
        weight = weight.to(dtype)
        # in place: the product is made in float32 and rounded once, without a float32 copy on CUDA
        return weight if self.scale is None else weight.mul_(self.scale)

    def settle(self) -> None:
        """Nobody uses the layer for a while: let go of what is kept for its next use."""
        if self.fetcher is not None:
            self.fetcher.settle()

    def carry(self, device: torch.device) -> None:
        """Take to `device` what waits where the layer computes: an offloaded weight stays in host memory."""
        offloaded = None if self.fetcher is None else self.weight
        super()._apply(lambda tensor: tensor if tensor is offloaded else tensor.to(device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenLinear":
        return self


class _FrozenMatmul(torch.autograd.Function):  # whose ctx takes any attribute
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.widened(x.dtype, backward=False), layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.widened(gradient.dtype, backward=True), None


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float8_e4m3fn [out, in] and float32 scale [out, 1] of each row, whose largest element becomes 448.

    The same bits on every device: CUDA divides by a number of the host as a product with its inverse, hence a tensor.
    """
    wide = weight.detach().to(torch.float32, copy=True)
    low, high = wide.aminmax(dim=1, keepdim=True)  # which makes no second copy, as abs() would
    scale = torch.maximum(-low, high) / torch.full_like(low, LARGEST)
    scale = torch.where(scale > 0, scale, 1)  # rows of zeros stay zeros
    return wide.div_(scale).to(torch.float8_e4m3fn), scale
