"""Queries and keys before attention: y = rotate(rms_norm(x) * weight), text and picture joined.

diffusers computes it in some 20 operations, most of them float32 passes. Here a kernel of Triton's reads x and writes y
into its place, rounded once; the backward pass computes all from x again, which alone is kept.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..storage.trial import works

ARGUMENTS = "Tensor[] parts, Tensor[] weights, Tensor cos, Tensor sin, float eps"


def rotated(parts: Sequence[Tensor], weights: Sequence[Tensor], cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Parts of a sequence, one after the other: each number of a head is divided by the root of their mean square and
    multiplied by the part's weight, and each pair of neighbours (a, b) is turned to (a cos - b sin, b cos + a sin).

    On a device where `has_kernel` says so. Only the parts have gradients.

    Args:
        parts: each [N, tokens, heads, width], of one floating type, in which y is; computed in float32.
        weights: [width], one for each part.
        cos, sin: float32 [tokens of all parts, width].
        eps: added to the mean square.
    """
    return _Rotated.apply(len(parts), cos, sin, eps, *weights, *parts)


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether Triton's kernels run on the device: tried once."""

    def trial() -> None:
        from .rotary_kernels import forward, gradients

        x, ones = torch.ones(1, 2, 1, 16, device=device), torch.ones(2, 16, device=device)
        gradients(forward([x], [ones[0]], ones, ones, 1), [x], [ones[0]], ones, ones, 1)

    return works(device, trial, "queries and keys are normed and rotated by torch, which is slower")


class _Rotated(torch.autograd.Function):  # whose ctx takes any attribute
    @staticmethod
    def forward(ctx: Any, count: int, cos: Tensor, sin: Tensor, eps: float, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin, *tensors)
        ctx.count, ctx.eps = count, eps
        return _rotate(tensors[count:], tensors[:count], cos, sin, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin, *tensors = ctx.saved_tensors
        parts, weights = tensors[ctx.count :], tensors[: ctx.count]
        returned = _rotate_back(gradient, parts, weights, cos, sin, ctx.eps)
        return *(None for _ in (ctx.count, cos, sin, ctx.eps, *weights)), *returned


# as operations of torch, which know their result's shape on `meta` too: so the planner counts each as one kernel


@torch.library.custom_op("neighbor_grpo::rotate", mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor")
def _rotate(parts: Sequence[Tensor], weights: Sequence[Tensor], cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    from .rotary_kernels import forward

    return forward(parts, weights, cos, sin, eps)


@_rotate.register_fake
def _(parts: Sequence[Tensor], weights: Sequence[Tensor], cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    n, _, heads, width = parts[0].shape
    return parts[0].new_empty(n, sum(part.shape[1] for part in parts), heads, width)


@torch.library.custom_op(
    "neighbor_grpo::rotate_back", mutates_args=(), schema=f"(Tensor gradient, {ARGUMENTS}) -> Tensor[]"
)
def _rotate_back(
    gradient: Tensor, parts: Sequence[Tensor], weights: Sequence[Tensor], cos: Tensor, sin: Tensor, eps: float
) -> list[Tensor]:
    from .rotary_kernels import gradients

    return gradients(gradient, parts, weights, cos, sin, eps)


@_rotate_back.register_fake
def _(
    gradient: Tensor, parts: Sequence[Tensor], weights: Sequence[Tensor], cos: Tensor, sin: Tensor, eps: float
) -> list[Tensor]:
    return [torch.empty_like(part) for part in parts]
