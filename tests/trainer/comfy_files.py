"""Layers quantised as ComfyUI does it, in files: some written by hand, whole models by its own package."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flux_files import Tensors, write
from needed import package
from safetensors.torch import save_file
from torch import Tensor

H4 = ((1, 1, 1, -1), (1, 1, -1, 1), (1, -1, 1, 1), (-1, 1, 1, 1))
Matrix = list[list[float]]


class Layer(NamedTuple):
    """What a file holds of a layer, and the weight that it stands for."""

    told: dict[str, Any]
    stored: Tensors  # by the names' ends
    meant: Tensor


def text(told: object) -> Tensor:
    return torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)


def layer_file(path: Path, layer: Layer, *, in_header: bool = False, prefix: str = "") -> Path:
    """A file of that layer, named prefix + "a.b", with its text beside it or in the header."""
    name = f"{prefix}a.b"
    tensors = {f"{name}.{end}": tensor.contiguous() for end, tensor in layer.stored.items()}
    if not in_header:
        save_file(tensors | {f"{name}.comfy_quant": text(layer.told)}, path)
        return path
    layers = json.dumps({"format_version": "1.0", "layers": {"a.b": layer.told, "not.here": {"format": "nvfp4"}}})
    save_file(tensors, path, {"_quantization_metadata": layers})
    return path


def small_float(code: int, exponent_bits: int, mantissa_bits: int, bias: int) -> float:
    """The number that sign, exponent and mantissa stand for, by IEEE 754's definition."""
    sign = -1 if code >> (exponent_bits + mantissa_bits) else 1
    exponent = code >> mantissa_bits & (1 << exponent_bits) - 1
    mantissa = (code & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    return sign * (2.0 ** (exponent - bias) * (1 + mantissa) if exponent else 2.0 ** (1 - bias) * mantissa)


def e2m1(code: int) -> float:
    return small_float(code, 2, 1, 1)


def e4m3(code: int) -> float:
    return small_float(code, 4, 3, 7)


def at_swizzled(row: int, block: int, blocks: int) -> int:
    """Where cuBLAS looks for the scale of a row's block."""
    tile = row // 128 * math.ceil(blocks / 4) + block // 4
    return tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + block % 4


def hadamard(i: int, j: int, size: int) -> float:
    """An entry of the rotation: the product of H4's at the digits of i and j to the base 4, of length 1 a row."""
    entry = 1 / math.sqrt(size)
    while size > 1:
        entry *= H4[i % 4][j % 4]
        i, j, size = i // 4, j // 4, size // 4
    return entry


def turned(weight: Matrix, size: int) -> Matrix:
    """Each row times the rotation, in groups of `size` columns."""
    h = matrix(size, size, lambda i, j: hadamard(i, j, size))
    return [
        [sum(row[start + i] * h[i][j] for i in range(size)) for start in range(0, len(row), size) for j in range(size)]
        for row in weight
    ]


def matrix(rows: int, columns: int, entry: Callable[[int, int], float]) -> Matrix:
    return [[entry(r, c) for c in range(columns)] for r in range(rows)]


def in_nvfp4(tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors of these sizes, the blocks' matrices as nvfp4; all numbers are 1."""
    stored = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or "block" not in name:
            stored[name] = tensor
            continue
        module, (rows, columns) = name.removesuffix(".weight"), tensor.shape
        stored[name] = torch.full((rows, columns // 2), 0x22, dtype=torch.uint8)
        swizzled = math.ceil(rows / 128) * 128, math.ceil(columns / 64) * 4
        stored[f"{module}.weight_scale"] = torch.ones(swizzled).to(torch.float8_e4m3fn)
        stored[f"{module}.weight_scale_2"] = torch.ones(())
        stored[f"{module}.comfy_quant"] = text({"format": "nvfp4"})
    return stored


# --- whole models, by comfy-kitchen's own quantisers


class Kitchen(NamedTuple):
    """One of its layouts, as files name it."""

    layout: str
    options: dict[str, Any]  # of its quantiser
    told: dict[str, Any]

    def layer(self, weight: Tensor) -> Layer:
        layout = getattr(package("comfy_kitchen.tensor"), self.layout)
        data, params = layout.quantize(weight, **self.options)
        stored = {f"weight{end}": t for end, t in layout.state_dict_tensors(data, params).items()}
        return Layer(self.told, stored, layout.dequantize(data, params))


TURNED = {"convrot_groupsize": 16}
BY_ROWS = {"per_channel": True, "convrot": True, **TURNED}
KITCHEN = {
    "float8_e4m3fn": Kitchen("TensorCoreFP8Layout", {}, {"format": "float8_e4m3fn"}),
    "float8_e5m2": Kitchen("TensorCoreFP8Layout", {"dtype": torch.float8_e5m2}, {"format": "float8_e5m2"}),
    "nvfp4": Kitchen("TensorCoreNVFP4Layout", {}, {"format": "nvfp4"}),
    "mxfp8": Kitchen("TensorCoreMXFP8Layout", {}, {"format": "mxfp8"}),
    "int8": Kitchen("TensorWiseINT8Layout", {}, {"format": "int8_tensorwise"}),
    "int8 by rows": Kitchen("TensorWiseINT8Layout", {"per_channel": True}, {"format": "int8_tensorwise"}),
    "int8 rotated": Kitchen("TensorWiseINT8Layout", BY_ROWS, {"format": "int8_tensorwise", "convrot": True, **TURNED}),
    "convrot_w4a4": Kitchen("TensorCoreConvRotW4A4Layout", TURNED, {"format": "convrot_w4a4", **TURNED}),
    "asym_w4a8_int8": Kitchen("AsymW4A8Int8Layout", TURNED, {"format": "asym_w4a8_int8", "group_size": 16, **TURNED}),
}


def quantised(tensors: Mapping[str, Tensor], kitchen: Kitchen) -> tuple[Tensors, Tensors]:
    """(a model's tensors with the blocks' matrices quantised, the same as the numbers that they stand for)."""
    stored, meant = {}, {}
    for name, tensor in tensors.items():
        module = name.rpartition(".")[0]
        if tensor.ndim != 2 or "block" not in name or tensor.shape[1] % 64:
            stored[name] = meant[name] = tensor
            continue
        layer = kitchen.layer(tensor.float())
        stored |= {f"{module}.{end}": t for end, t in layer.stored.items()}
        stored |= {f"{module}.comfy_quant": text(layer.told), f"{module}.input_scale": torch.ones(())}
        meant[name] = layer.meant
    return stored, meant


def write_quantised(path: Path, tensors: Mapping[str, Tensor], kind: str) -> Path:
    return write(path, quantised(tensors, KITCHEN[kind])[0])
