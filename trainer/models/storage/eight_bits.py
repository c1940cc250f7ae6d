"""8-bit numbers with a scale for each row: made, widened, multiplied.

On a device that Triton compiles for, widening is one kernel that reads a byte and writes a number; torch alone writes
the wide number twice and reads it once. Both give the same bits. A compiled block fuses torch's own operations.
"""

import math
from functools import cache

import torch
from torch import Tensor

from .trial import works

E4M3 = torch.float8_e4m3fn
FLOAT8 = (E4M3, torch.float8_e5m2)
EIGHT_BITS = (*FLOAT8, torch.int8)
LARGEST = torch.finfo(E4M3).max  # 448
MULTIPLE = 16  # of a product's sizes: what the hardware takes


def quantise(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """float8_e4m3fn [rows, n] and float32 scale [rows, 1] of each row, whose largest element becomes 448.

    The same bits on every device: CUDA divides by a number of the host as a product with its inverse, hence a tensor.
    """
    wide = numbers.detach().to(torch.float32, copy=True)
    low, high = wide.aminmax(dim=1, keepdim=True)  # which makes no second copy, as abs() would
    scale = torch.maximum(-low, high) / torch.full_like(low, LARGEST)
    scale = torch.where(scale > 0, scale, 1)  # rows of zeros stay zeros
    return wide.div_(scale).to(E4M3), scale


def widen(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """stored * scale in `dtype`: the product is made in float32 and rounded once.

    Args:
        stored: [rows, n] of EIGHT_BITS, or of a floating type without a scale, which is only cast.
        scale: float32, [], [1] or [rows, 1]; None is 1.
    """
    if stored.dtype in EIGHT_BITS and not torch.compiler.is_compiling() and _one_kernel(stored.device):
        from .kernels import widened

        return widened(stored, scale, dtype)
    wide = stored.to(dtype)
    # in place: no float32 copy on a GPU
    return wide if scale is None else wide.mul_(scale)


def can_multiply(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether `multiply` takes this weight [out, in] and numbers of `dtype`."""
    fits = all(size % MULTIPLE == 0 for size in weight.shape)
    return fits and weight.dtype == E4M3 and dtype == torch.bfloat16


def multiply(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x W^T + b by the hardware's 8-bit products: each row of x is rounded to 8 bits, so that no row depends on others.

    Args:
        x: [..., in], bfloat16.
        weight: [out, in], float8_e4m3fn.
        scale: as for `widen`.
        bias: [out], bfloat16.
    """
    rows, of_rows = _rounded(x.reshape(-1, x.shape[-1]))
    of_columns = torch.ones((), device=x.device) if scale is None else scale
    of_columns = of_columns.reshape(1, -1).expand(1, len(weight)).contiguous()
    y = torch._scaled_mm(rows, weight.T, scale_a=of_rows, scale_b=of_columns, bias=bias, out_dtype=x.dtype)
    return y.view(*x.shape[:-1], -1)


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `quantise`, for numbers that come anew at each use: in x's own precision, three readings instead of ten."""
    largest = torch.linalg.vector_norm(x, math.inf, 1, keepdim=True)
    scale = torch.where(largest > 0, largest / LARGEST, 1)
    return (x / scale).to(E4M3), scale.float()  # 448 may become 450, which is rounded to 448


@cache
def _one_kernel(device: torch.device) -> bool:
    """Whether Triton's kernel runs on the device: tried once."""

    def trial() -> None:
        from .kernels import widened

        widened(torch.zeros(1, MULTIPLE, dtype=torch.int8, device=device), None, torch.bfloat16)

    return works(device, trial, "8-bit weights are widened by torch, which is slower")
