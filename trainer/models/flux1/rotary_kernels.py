"""Triton's kernels for `rotary`. Whoever imports this has asked whether Triton is there."""

# mypy: allow-untyped-decorators, allow-untyped-defs, allow-incomplete-defs
# a kernel's arguments are Triton's own: pointers and whole numbers

from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...device import current

HEADS = 8  # of a token, that a program takes


@triton.jit
def _quarter(pairs, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Each pair of neighbours (a, b) turned by a right angle: (-b, a)."""
    first, second = tl.split(tl.reshape(pairs, (HEADS, BLOCK // 2, 2)))
    return tl.reshape(tl.join(-second, first), (HEADS, BLOCK))


@triton.jit
def _place(row, heads, WIDTH: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Where a program's heads of a token lie, and which of these places exist."""
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    return (row * heads + head) * WIDTH + column, (head < heads) & (column < WIDTH)


@triton.jit
def _forward(
    x, weight, cos, sin, y, tokens, first, total, heads, eps,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x [N, tokens, heads, WIDTH] -> the tokens from `first` on of y [N, total, heads, WIDTH]; a program takes one."""
    row = tl.program_id(0).to(tl.int64)
    token = first + row % tokens
    column = tl.arange(0, BLOCK)[None, :]
    known = column < WIDTH
    place, inside = _place(row, heads, WIDTH, HEADS, BLOCK)
    value = tl.load(x + place, mask=inside, other=0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 1) / WIDTH + eps)[:, None]
    value *= scale * tl.load(weight + column, mask=known, other=0).to(tl.float32)
    c = tl.load(cos + token * WIDTH + column, mask=known, other=0)
    s = tl.load(sin + token * WIDTH + column, mask=known, other=0)
    value = value * c + _quarter(value, HEADS, BLOCK) * s
    place, inside = _place(row // tokens * total + token, heads, WIDTH, HEADS, BLOCK)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    gradient, x, weight, cos, sin, dx, tokens, first, total, heads, eps,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of x, from that of y: with a that of x / rms(x), dx = (a - x mean(a x) / rms^2) / rms."""
    row = tl.program_id(0).to(tl.int64)
    token = first + row % tokens
    column = tl.arange(0, BLOCK)[None, :]
    known = column < WIDTH
    place, inside = _place(row // tokens * total + token, heads, WIDTH, HEADS, BLOCK)
    a = tl.load(gradient + place, mask=inside, other=0).to(tl.float32)
    c = tl.load(cos + token * WIDTH + column, mask=known, other=0)
    s = tl.load(sin + token * WIDTH + column, mask=known, other=0)
    a = a * c - _quarter(a * s, HEADS, BLOCK)
    a *= tl.load(weight + column, mask=known, other=0).to(tl.float32)
    place, inside = _place(row, heads, WIDTH, HEADS, BLOCK)
    value = tl.load(x + place, mask=inside, other=0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 1) / WIDTH + eps)[:, None]
    along = (tl.sum(a * value, 1) / WIDTH)[:, None]
    a = scale * (a - value * (along * scale * scale))
    tl.store(dx + place, a.to(dx.dtype.element_ty), mask=inside)


def forward(parts: Sequence[Tensor], weights: Sequence[Tensor], cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """See `rotary.rotated`."""
    n, _, heads, width = parts[0].shape
    y = parts[0].new_empty(n, len(cos), heads, width)
    for part, weight, first in _with_places(parts, weights):
        _launch(_forward, (part, weight, cos, sin, y), part, first, len(cos), eps)
    return y


def gradients(
    gradient: Tensor, parts: Sequence[Tensor], weights: Sequence[Tensor], cos: Tensor, sin: Tensor, eps: float
) -> list[Tensor]:
    """Of the parts, from that of y."""
    gradient, returned = gradient.contiguous(), []
    for part, weight, first in _with_places(parts, weights):
        returned.append(torch.empty_like(part))
        _launch(_backward, (gradient, part, weight, cos, sin, returned[-1]), part, first, len(cos), eps)
    return returned


def _with_places(parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Each part with its weight, and the first of its tokens in the whole sequence."""
    first = 0
    for part, weight in zip(parts, weights, strict=True):
        yield part.contiguous(), weight.contiguous(), first
        first += part.shape[1]


def _launch(kernel, tensors: tuple[Tensor, ...], part: Tensor, first: int, total: int, eps: float) -> None:
    n, tokens, heads, width = part.shape
    sizes = tokens, first, total, heads, eps, width, HEADS, triton.next_power_of_2(width)
    with current(part.device):
        kernel[n * tokens, triton.cdiv(heads, HEADS)](*tensors, *sizes)
