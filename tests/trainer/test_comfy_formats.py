"""Each of ComfyUI's formats by its definition, written out number by number."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from comfy_files import Layer, Matrix, at_swizzled, e2m1, e4m3, layer_file, matrix, small_float, turned
from torch import Tensor

from trainer.models.files.opened import safetensors_files
from trainer.models.files.weights import pieces_of

OUT, IN = 160, 192  # more than the 128 rows and the 4 blocks of a row that scales are swizzled in


def codes(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def fp8_codes(*shape: int, seed: int = 0) -> Tensor:
    """All but the two that are no numbers."""
    drawn = codes(256, *shape, seed=seed)
    return torch.where(drawn % 128 == 127, 0, drawn)


def halves(*shape: int, seed: int = 1) -> Tensor:
    """Scales whose products are exact in float32."""
    return (codes(15, *shape, seed=seed) + 1).float() / 8


def signed(code: int, bits: int) -> int:
    return code - 2**bits if code >= 2 ** (bits - 1) else code


def of(rows: Matrix) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).float()


def nvfp4() -> Layer:
    packed, blocks = codes(256, OUT, IN // 2), fp8_codes(256, 12, seed=1)
    flat, weight = blocks.flatten().tolist(), packed.tolist()

    def entry(r: int, c: int) -> float:
        code = weight[r][c // 2] >> 4 if c % 2 == 0 else weight[r][c // 2] % 16
        return e2m1(code) * e4m3(flat[at_swizzled(r, c // 16, IN // 16)]) * 0.375

    stored = {"weight": packed, "weight_scale": blocks.view(torch.float8_e4m3fn), "weight_scale_2": torch.tensor(0.375)}
    return Layer({"format": "nvfp4"}, stored, of(matrix(OUT, IN, entry)))


def mxfp8() -> Layer:
    weight, exponents = fp8_codes(OUT, IN), codes(20, 256, 8, seed=1) + 117
    exponents[0, 0] = 0
    flat, numbers = exponents.flatten().tolist(), weight.tolist()

    def entry(r: int, c: int) -> float:
        exponent = flat[at_swizzled(r, c // 32, IN // 32)]
        return e4m3(numbers[r][c]) * (2.0 ** (exponent - 127) if exponent else 0)

    stored = {"weight": weight.view(torch.float8_e4m3fn), "weight_scale": exponents.view(torch.float8_e8m0fnu)}
    return Layer({"format": "mxfp8"}, stored, of(matrix(OUT, IN, entry)))


def fp8(kind: str, scale: Tensor, at: Callable[[int, int], tuple[int, ...]], dtype: torch.dtype) -> Layer:
    numbers = codes(120, OUT, IN)  # the largest is infinite in neither
    weight, scales = numbers.tolist(), scale.double()
    decoded = {torch.float8_e4m3fn: e4m3, torch.float8_e5m2: lambda code: small_float(code, 5, 2, 15)}[dtype]
    meant = matrix(OUT, IN, lambda r, c: decoded(weight[r][c]) * float(scales[at(r, c)]))
    return Layer({"format": kind}, {"weight": numbers.view(dtype), "weight_scale": scale}, of(meant))


def int8(kind: str, scale: Tensor, at: Callable[[int, int], tuple[int, ...]]) -> Layer:
    numbers = codes(256, OUT, IN).view(torch.int8)
    weight, scales = numbers.tolist(), scale.double()
    meant = matrix(OUT, IN, lambda r, c: weight[r][c] * float(scales[at(r, c)]))
    return Layer({"format": kind}, {"weight": numbers, "weight_scale": scale}, of(meant))


def rotated(size: int) -> Layer:
    told, stored, meant = int8("int8_tensorwise", halves(OUT, 1), lambda r, c: (r, 0))
    return Layer({**told, "convrot": True, "convrot_groupsize": size}, stored, of(turned(meant.tolist(), size)))


def int4() -> Layer:
    packed, scale = codes(256, OUT, IN // 2), halves(OUT)
    weight, scales = packed.tolist(), scale.tolist()

    def entry(r: int, c: int) -> float:
        code = weight[r][c // 2] % 16 if c % 2 == 0 else weight[r][c // 2] >> 4
        return signed(code, 4) * scales[r]

    stored = {"weight": packed.view(torch.int8), "weight_scale": scale}
    meant = turned(matrix(OUT, IN, entry), 16)
    return Layer({"format": "convrot_w4a4", "convrot_groupsize": 16}, stored, of(meant))


def int4_in_int8(book: Tensor | None) -> Layer:
    packed, groups, scale = codes(256, OUT, IN // 2), fp8_codes(OUT, IN // 32, seed=1), halves(OUT)
    weight, scales, group_codes = packed.tolist(), scale.tolist(), groups.tolist()
    values = list(range(-8, 8)) if book is None else book.tolist()

    def entry(r: int, c: int) -> float:
        code = weight[r][c // 2] % 16 if c % 2 == 0 else weight[r][c // 2] >> 4
        whole = round(values[code] * e4m3(group_codes[r][c // 32]))  # a tie goes to the even one, as in torch
        return max(-127, min(127, whole)) * scales[r]

    stored = {"weight": packed.view(torch.int8), "weight_s_channel": scale}
    stored["weight_s_rel"] = groups.view(torch.float8_e4m3fn)
    told = {"format": "asym_w4a8_int8", "params": {"group_size": 32, "convrot_groupsize": 16}}
    if book is not None:
        stored["weight_codebook"] = book
    return Layer(told, stored, of(turned(matrix(OUT, IN, entry), 16)))


E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
LAYERS = {
    "nvfp4": nvfp4,
    "mxfp8": mxfp8,
    "fp8": lambda: fp8("float8_e4m3fn", torch.tensor(0.375), lambda r, c: (), E4M3),
    "fp8 of the other kind": lambda: fp8("float8_e5m2", torch.tensor([0.375]), lambda r, c: (0,), E5M2),
    "fp8 by rows": lambda: fp8("float8_e4m3fn_rowwise", halves(OUT), lambda r, c: (r,), E4M3),
    "fp8 by tiles": lambda: fp8("float8_e4m3fn_blockwise", halves(5, 6), lambda r, c: (r // 32, c // 32), E4M3),
    "fp8 by parts of rows": lambda: fp8("float8_e4m3fn_block3d", halves(OUT, 6, 1), lambda r, c: (r, c // 32, 0), E4M3),
    "int8": lambda: int8("int8_tensorwise", torch.tensor(0.375), lambda r, c: ()),
    "int8 by rows": lambda: int8("int8_tensorwise", halves(OUT, 1), lambda r, c: (r, 0)),
    "int8 by tiles": lambda: int8("int8_blockwise", halves(5, 6), lambda r, c: (r // 32, c // 32)),
    "int8 rotated": lambda: rotated(64),
    "int8 rotated by fours": lambda: rotated(4),
    "int4 rotated": int4,
    "int4 in int8": lambda: int4_in_int8(None),
    "int4 in int8 by a book": lambda: int4_in_int8(halves(16, seed=3) - 1),
}


@cache
def layer_of(kind: str) -> Layer:
    return LAYERS[kind]()


@pytest.mark.parametrize("in_header", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_what_is_read_is_what_the_format_says(kind, in_header, tmp_path):
    layer = layer_of(kind)
    path = layer_file(tmp_path / "layer.safetensors", layer, in_header=in_header)
    piece = pieces_of(safetensors_files([path]))["a.b.weight"]
    assert (piece.shape, piece.unread) == ((OUT, IN), "")
    scale = piece.read_scale()
    assert torch.equal(piece.read().float() * (1 if scale is None else scale), layer.meant)


@pytest.mark.parametrize("kind", LAYERS)
def test_some_rows_are_rows_of_the_whole(kind, tmp_path):
    layer = layer_of(kind)
    path = layer_file(tmp_path / "layer.safetensors", layer)
    piece = pieces_of(safetensors_files([path]))["a.b.weight"].part(slice(130, 140), slice(0, 3))
    scale = piece.read_scale()
    found = piece.read().float() * (1 if scale is None else scale)
    assert torch.equal(found, torch.cat([layer.meant[130:140], layer.meant[:3]]))


@pytest.mark.parametrize("kind", ["nvfp4", "int8", "fp8 by rows"])
def test_an_input_that_was_smoothed_is_the_weights_columns(kind, tmp_path):
    layer, smooth = layer_of(kind), halves(IN, seed=5)
    layer = layer._replace(stored=layer.stored | {"pre_quant_scale": smooth})
    (piece,) = pieces_of(safetensors_files([layer_file(tmp_path / "layer.safetensors", layer)])).values()
    assert torch.equal(piece.read(), layer.meant * smooth)


def test_block_scales_as_bytes_are_the_same(tmp_path):
    for layer in map(layer_of, ("nvfp4", "mxfp8")):
        as_bytes = layer.stored | {"weight_scale": layer.stored["weight_scale"].view(torch.uint8)}
        found = safetensors_files([layer_file(tmp_path / "layer.safetensors", layer._replace(stored=as_bytes))])
        assert torch.equal(found["a.b.weight"].read(), layer.meant)
