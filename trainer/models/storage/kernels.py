"""Triton's kernels. Whoever imports this has asked whether Triton is there."""

# mypy: allow-untyped-decorators, allow-untyped-defs, allow-incomplete-defs
# a kernel's arguments are Triton's own: pointers and whole numbers

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...device import current

BLOCK = 2048  # numbers of a program
WHOLE, E4M3, E5M2 = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
KINDS = {torch.int8: WHOLE, torch.float8_e4m3fn: E4M3, torch.float8_e5m2: E5M2}


@triton.jit
def _widen(stored, scale, wide, columns, step, KIND: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr):
    """A block of a row: [row, columns] bytes -> numbers of `wide`'s type. `step` from a row's scale to the next."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    byte = tl.load(stored + row * columns + column, mask=inside, other=0)
    if KIND == WHOLE:
        value = byte.to(tl.float32)
    else:  # through float16 by its bits: older cards know no 8-bit floating type
        bits = byte.to(tl.int16) & 0xFF
        if KIND == E5M2:
            value = (bits << 8).to(tl.float16, bitcast=True).to(tl.float32)
        else:  # one exponent bit less: 2^8 too small, and all ones is the only NaN
            moved = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
            value = moved.to(tl.float16, bitcast=True).to(tl.float32) * 256
            value = tl.where((bits & 0x7F) == 0x7F, float("nan"), value)
    if SCALED:
        value *= tl.load(scale + row * step)
    tl.store(wide + row * columns + column, value.to(wide.dtype.element_ty), mask=inside)


def widened(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """See `eight_bits.widen`: `stored` of 8 bits."""
    stored = stored.contiguous()
    rows, columns = stored.shape
    wide = torch.empty(rows, columns, dtype=dtype, device=stored.device)
    step = 0 if scale is None or scale.numel() == 1 else 1
    grid = (rows, -(-columns // BLOCK))
    octets = stored.view(torch.int8)
    factors = octets if scale is None else scale.contiguous()
    with current(stored.device):
        _widen[grid](octets, factors, wide, columns, step, KINDS[stored.dtype].value, scale is not None, BLOCK)
    return wide
