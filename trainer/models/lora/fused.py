"""A linear layer and its LoRA in one function: y = x W^T + b + s (x A^T) B^T.

peft stays the owner of names, scales and which LoRA is in use; only the plain case of its forward pass is done here, in
three kernels instead of seven. A and B are rounded to the precision of x once for each value that they take.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..storage.frozen import product, returned


class _Rounded(NamedTuple):
    weight: Tensor  # the float32 one
    version: int  # torch counts the writes into a tensor
    copy: Tensor

    def is_of(self, weight: Tensor, dtype: torch.dtype) -> bool:
        same = self.weight is weight and self.version == weight._version
        return same and (self.copy.dtype, self.copy.device) == (dtype, weight.device)


class FusedLora(lora.Linear):
    """peft's layer. What is not plain, DoRA or a float16 model, takes peft's own way."""

    spared = False  # whether nobody needs the output of the call, see `flux1.checkpointing`

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._rounded: dict[str, _Rounded] = {}

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self._plain(x.dtype)
        if adapter is None:
            return super().forward(x, *args, **kwargs)
        a, b = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        return _Product.apply(x, a, b, *self.rounded(x.dtype), self.scaling[adapter], self.base_layer, self.spared)

    def rounded(self, dtype: torch.dtype) -> list[Tensor]:
        """What a call in this precision multiplies by: A and B; nothing if peft's own way is taken."""
        adapter = self._plain(dtype)
        if adapter is None:
            return []
        return [self._round(half, getattr(self, half)[adapter].weight, dtype) for half in ("lora_A", "lora_B")]

    def _plain(self, dtype: torch.dtype) -> str | None:
        """The LoRA in use, if it is one and a plain one. float16's range is too small for the gradients of A and B."""
        if self.disable_adapters or self.merged or dtype == torch.float16 or len(self.active_adapters) != 1:
            return None
        (adapter,) = self.active_adapters
        return adapter if adapter in self.lora_A and adapter not in self.lora_variant else None

    def _round(self, half: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """A or B in `dtype`, with no history."""
        if torch.compiler.is_compiling() or weight.dtype == dtype:  # a compiled block has the cast among its kernels
            return weight.detach().to(dtype)
        known = self._rounded.get(half)
        if known is None or not known.is_of(weight, dtype):
            with torch.inference_mode(False):  # else no backward pass could use the copy
                known = self._rounded[half] = _Rounded(weight, weight._version, weight.detach().to(dtype))
        return known.copy

    def delete_adapter(self, adapter_name: str) -> None:
        self._rounded.clear()
        super().delete_adapter(adapter_name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FusedLora":
        self._rounded.clear()  # copies do not move along, and take no room where the layer is not
        return super()._apply(fn, recurse)


class _Product(torch.autograd.Function):  # whose ctx takes any attribute
    """Keeps x and x A^T alone, in the model's precision; A's and B's gradients are float32."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        rounded_a: Tensor,
        rounded_b: Tensor,
        scale: float,
        layer: nn.Linear,
        spared: bool,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        within = rows @ rounded_a.T  # [rows, rank]
        y = product(layer, rows, spared=spared)  # [rows, out]
        if not spared:
            y.addmm_(within, rounded_b.T, alpha=scale)
        ctx.save_for_backward(x, within, rounded_a, rounded_b)
        ctx.layer, ctx.scale = layer, scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, within, rounded_a, rounded_b = ctx.saved_tensors
        g, rows = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        through = g @ rounded_b  # [rows, rank]
        dx = None
        if ctx.needs_input_grad[0]:
            dx = returned(ctx.layer, g).addmm_(through, rounded_a, alpha=ctx.scale).view(x.shape)
        da, db = (through.T @ rows).float().mul_(ctx.scale), (g.T @ within).float().mul_(ctx.scale)
        return dx, da, db, None, None, None, None, None
