"""The formats of quantised weights that ComfyUI writes, as formulas: what is stored becomes numbers again.

A weight W [out, in] is kept as small numbers and their scales. What shares a scale is a tile of the matrix: all of it,
a row, some numbers of a row, or a rectangle. Some files keep W H in place of W, see `unrotated`.

Names and options: https://github.com/Comfy-Org/ComfyUI/blob/master/QUANTIZATION.md
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]

NVFP4_BLOCK, MXFP8_BLOCK = 16, 32  # numbers of a row that share a scale
MANTISSA = 23  # bits of a float32, below its exponent
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], device="cpu")  # by 3 bits; the fourth is the sign
FP4 = torch.cat([E2M1, -E2M1])
INT4 = E2M1.new_tensor([*range(8), *range(-8, 0)])  # two's complement
EVEN = INT4.sort().values  # a code book for those without one
H4 = E2M1.new_tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])

FLOATS = ("F32", "F16", "BF16", "F64")
E4M3_BYTES, E8M0_BYTES = ("F8_E4M3", "U8"), ("F8_E8M0", "U8")


@dataclass(frozen=True)
class Options:
    """What a layer's format says beyond its name."""

    rotated: int = 0  # columns that are rotated together; 0 if none are
    group: int = 16  # numbers of a row that share a scale, where the format leaves that open


@dataclass(frozen=True)
class Rows:
    """Some rows of a weight as they are stored, and the scales of all rows."""

    weight: Tensor  # [rows, stored columns]
    parts: Mapping[str, Tensor]
    shape: tuple[int, int]  # of the whole weight: out, in
    ranges: Sequence[slice]  # which rows they are; all if there are none
    options: Options

    def scales(self, of_all: Tensor) -> Tensor:
        """Scales [out, tiles of a row] -> those of these rows."""
        if not of_all.any():
            raise ValueError("its scales are all 0")
        return torch.cat([of_all[r] for r in self.ranges]) if self.ranges else of_all


class Need(NamedTuple):
    """Something that stands beside a weight."""

    numbers: int
    kinds: tuple[str, ...]  # which its numbers may be


Needs = Callable[[tuple[int, int], Mapping[str, Shape], Options], dict[str, Need]]


@dataclass(frozen=True)
class Format:
    """How a weight is stored."""

    kinds: tuple[str, ...]  # that what is stored may be
    packed: int  # numbers in one of them
    needs: Needs  # of a weight [out, in] with parts of these shapes; raises ValueError: it cannot be one
    widened: Callable[[Rows], Tensor]  # [rows, in] float32; raises ValueError: see `Rows.scales`


def scaled(numbers: Tensor, scales: Tensor) -> Tensor:
    """Numbers [rows, in] times scales [rows, tiles of a row], float32; in place if they are that already."""
    return numbers.float().view(*scales.shape, -1).mul_(scales[..., None]).view(numbers.shape)


def pairs(packed: Tensor, table: Tensor, *, high_first: bool) -> Tensor:
    """Bytes [rows, n] -> what their halves stand for in a table of 16, [rows, 2 n] float32."""
    high, low = table.repeat_interleave(16), table.repeat(16)  # of each byte
    both = torch.stack([high, low] if high_first else [low, high], dim=1)  # [256, 2]
    return F.embedding(packed.view(torch.uint8).int(), both).flatten(1)


def unswizzled(stored: Tensor, rows: int, columns: int) -> Tensor:
    """Scales in the order in which tensor cores take them -> [rows, columns].

    Tiles of 128 rows and 4 columns follow each other, the last ones filled up. In a tile come row 0, 32, 64 and 96,
    then 1, 33, 65 and 97, and so on: https://docs.nvidia.com/cuda/cublas/#d-block-scaling-factors-layout
    """
    tiles = stored.reshape(-(-rows // 128), -(-columns // 4), 32, 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).flatten(0, 2).flatten(1)[:rows, :columns]


def unrotated(rotated: Tensor, size: int) -> Tensor:
    """W H -> W, for the orthogonal and symmetric H of `size` columns, a power of 4, by which each group was turned."""
    h = H4.new_ones(1, 1)
    while len(h) < size:
        h = torch.kron(h, H4)
    groups = rotated.view(len(rotated), -1, size)
    return (groups @ (h / math.isqrt(size))).view(rotated.shape)


def tiles(scale: Shape, weight: Shape) -> tuple[int, int]:
    """How many tiles a column and a row have. A list of scales is for the rows; [out, n, 1] is [out, n].

    Raises:
        ValueError: the weight cannot be cut so.
    """
    rows = scale[0] if scale else 1
    columns = scale[1] if len(scale) > 1 else 1
    if math.prod(scale) != rows * columns or not rows * columns or weight[0] % rows or weight[1] % columns:
        raise ValueError(f"its scales are {list(scale)} for a weight of {list(weight)}")
    return rows, columns


def _eight_bits_needs(shape: tuple[int, int], parts: Mapping[str, Shape], options: Options) -> dict[str, Need]:
    scale = parts.get("weight_scale", ())
    tiles(scale, shape)
    return {"weight_scale": Need(math.prod(scale), FLOATS)}


def _eight_bits(of: Rows) -> Tensor:
    scale = of.parts["weight_scale"].float()
    rows, columns = tiles(tuple(scale.shape), of.shape)
    each = scale.view(rows, columns).repeat_interleave(of.shape[0] // rows, 0)
    return scaled(of.weight, of.scales(each))


def _blocks_need(shape: tuple[int, int], size: int, kinds: tuple[str, ...]) -> Need:
    if shape[1] % size:
        raise ValueError(f"{size} numbers of a row share a scale, and it has {shape[1]}")
    return Need(-(-shape[0] // 128) * -(-shape[1] // size // 4) * 512, kinds)


def _nvfp4_needs(shape: tuple[int, int], parts: Mapping[str, Shape], options: Options) -> dict[str, Need]:
    return {"weight_scale": _blocks_need(shape, NVFP4_BLOCK, E4M3_BYTES), "weight_scale_2": Need(1, FLOATS)}


def _nvfp4(of: Rows) -> Tensor:
    blocks = unswizzled(_e4m3(of.parts["weight_scale"]), of.shape[0], of.shape[1] // NVFP4_BLOCK)
    scales = blocks * of.parts["weight_scale_2"].float().reshape(())
    return scaled(pairs(of.weight, FP4, high_first=True), of.scales(scales))


def _mxfp8_needs(shape: tuple[int, int], parts: Mapping[str, Shape], options: Options) -> dict[str, Need]:
    return {"weight_scale": _blocks_need(shape, MXFP8_BLOCK, E8M0_BYTES)}


def _mxfp8(of: Rows) -> Tensor:
    exponents = unswizzled(of.parts["weight_scale"], of.shape[0], of.shape[1] // MXFP8_BLOCK)
    scales = (exponents.int() << MANTISSA).view(torch.float32)  # 2^(e - 127), and 0 for e = 0
    return scaled(of.weight, of.scales(scales))


def _int4_needs(shape: tuple[int, int], parts: Mapping[str, Shape], options: Options) -> dict[str, Need]:
    return {"weight_scale": Need(shape[0], FLOATS)}


def _int4(of: Rows) -> Tensor:
    scales = of.parts["weight_scale"].float().view(-1, 1)
    return scaled(pairs(of.weight, INT4, high_first=False), of.scales(scales))


def _int4_in_int8_needs(shape: tuple[int, int], parts: Mapping[str, Shape], options: Options) -> dict[str, Need]:
    if "weight_correction" in parts or shape[1] % options.group:
        raise ValueError("of this format, 4 bits without a correction are read")
    needs = {
        "weight_s_rel": Need(shape[0] * shape[1] // options.group, (*E4M3_BYTES, *FLOATS)),
        "weight_s_channel": Need(shape[0], FLOATS),
    }
    return needs | ({"weight_codebook": Need(16, FLOATS)} if "weight_codebook" in parts else {})


def _int4_in_int8(of: Rows) -> Tensor:
    """4 bits stand for whole numbers of 8 bits, of which each row has a scale."""
    book = of.parts.get("weight_codebook", EVEN).float().flatten()
    groups, rows = _e4m3(of.parts["weight_s_rel"]), of.parts["weight_s_channel"].float()
    eight = scaled(pairs(of.weight, book, high_first=False), of.scales(groups.view(of.shape[0], -1)))
    return scaled(eight.round_().clamp_(-127, 127), of.scales(rows.view(-1, 1)))


def _e4m3(stored: Tensor) -> Tensor:
    return (stored.view(torch.float8_e4m3fn) if stored.dtype == torch.uint8 else stored).float()


FP8 = Format(("F8_E4M3", "F8_E5M2"), 1, _eight_bits_needs, _eight_bits)
INT8 = Format(("I8",), 1, _eight_bits_needs, _eight_bits)
FORMATS = {
    "float8_e4m3fn": FP8,
    "float8_e5m2": FP8,
    "float8_e4m3fn_rowwise": FP8,
    "float8_e4m3fn_blockwise": FP8,
    "float8_e4m3fn_block3d": FP8,
    "int8_tensorwise": INT8,
    "int8_blockwise": INT8,
    "nvfp4": Format(("U8",), 2, _nvfp4_needs, _nvfp4),
    "mxfp8": Format(("F8_E4M3",), 1, _mxfp8_needs, _mxfp8),
    "convrot_w4a4": Format(("I8", "U8"), 2, _int4_needs, _int4),
    "asym_w4a8_int8": Format(("I8", "U8"), 2, _int4_in_int8_needs, _int4_in_int8),
}
ROTATED = ("convrot_w4a4", "asym_w4a8_int8")  # whose weights always are
