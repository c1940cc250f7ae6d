"""Frozen linear layers that keep their weight small or elsewhere: y = x W^T + b, with W made anew at each use.

W is fetched and widened in the forward pass and again in the backward pass, so that autograd holds the stored weight
alone. The stored 8-bit weight is an int8 parameter, not a float8 one: peft and transformers' T5 cast what they add or
feed to the precision of a floating weight.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .eight_bits import FLOAT8, can_multiply, multiply, widen


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
    spared = False  # whether nobody needs the output of the call, see `flux1.checkpointing`

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        fetcher: Fetcher | None = None,
        in_8_bits: bool = False,
    ):
        super().__init__(in_features, out_features, bias, device="meta")
        self.requires_grad_(False)
        self.fetcher = fetcher  # None if the weight is on the device that computes
        # whether y is made in 8 bits, if W's are float8_e4m3fn; the gradient of x is made with W widened
        self.in_8_bits = in_8_bits
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
        return _FrozenMatmul.apply(x, self, self.spared)

    def product(self, x: Tensor) -> Tensor:
        """x W^T + b, without a history."""
        if not (self.in_8_bits and can_multiply(self._values(self.weight), x.dtype)):
            return F.linear(x, self.widened(x.dtype, backward=False), self.bias)
        return multiply(x, self._fetched(backward=False), self.scale, self.bias)

    def widened(self, dtype: torch.dtype, *, backward: bool) -> Tensor:
        """W [out, in] in `dtype`, on the device that computes."""
        return widen(self._fetched(backward=backward), self.scale, dtype)

    def _fetched(self, *, backward: bool) -> Tensor:
        weight = self.weight.detach() if self.fetcher is None else self.fetcher.fetch(self.weight, backward=backward)
        return self._values(weight)

    def _values(self, weight: Tensor) -> Tensor:
        """The stored weight as what its bytes are."""
        return weight if self.float8 is None else weight.view(self.float8)

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
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear, spared: bool) -> Tensor:
        ctx.layer = layer
        return product(layer, x, spared=spared)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return returned(ctx.layer, gradient), None, None


def product(layer: nn.Linear, x: Tensor, *, spared: bool = False) -> Tensor:
    """x W^T + b of a frozen layer, without a history of its own. A spared one is NaN without memory of its own: so it
    shows if somebody needs it after all."""
    if spared:
        return x.new_full((), math.nan).expand(*x.shape[:-1], layer.out_features)
    return layer.product(x) if isinstance(layer, FrozenLinear) else F.linear(x, layer.weight, layer.bias)


def returned(layer: nn.Linear, gradient: Tensor) -> Tensor:
    """The gradient of x, from that of `product`."""
    if isinstance(layer, FrozenLinear):
        return gradient @ layer.widened(gradient.dtype, backward=True)
    return gradient @ layer.weight
