"""Weights that bitsandbytes stored in 4 bits (nf4 or fp4), in safetensors files: made numbers again one at a time.

Beside the packed weight stand its scales, its code, and a JSON text with its shape.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import brief
from .safe_tensor import SafeTensor
from .source import ModelError
from .stored import Stored

STATE = ".quant_state.bitsandbytes__"
LONGEST = 2**16  # bytes of that text
CODES, NESTED_CODES = 16, 256  # numbers that 4 bits stand for, and those that the scales' 8 bits do
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True)
class FourBitTensor:
    """A weight of these parts."""

    name: str
    parts: Mapping[str, SafeTensor]  # the packed weight by its name, and what belongs to it
    shape: tuple[int, ...]
    dtype: str  # after reading

    @property
    def path(self) -> Path:
        return self.parts[self.name].path

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        state = {name: part.read() for name, part in self.parts.items()}
        packed = state.pop(self.name)
        try:
            numbers = dequantize_4bit(packed, QuantState.from_dict(state, device="cpu")).reshape(self.shape)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ModelError(f"{self.path}: {brief(self.name)} in 4 bits cannot be read ({reason})") from error
        return torch.cat([numbers[r] for r in rows]) if rows else numbers


def unpacked(tensors: Mapping[str, SafeTensor]) -> dict[str, Stored]:
    """The same tensors, with those in 4 bits as the weights that they stand for.

    Raises:
        ModelError: there are some, and bitsandbytes is not installed, or their parts do not fit each other.
    """
    weights = {name.partition(STATE)[0]: tensor for name, tensor in tensors.items() if STATE in name}
    parts: dict[str, dict[str, SafeTensor]] = {weight: {} for weight in weights}
    others: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        words = name.split(".")
        whose = next((w for n in range(len(words), 0, -1) if (w := ".".join(words[:n])) in parts), None)
        if whose is None:
            others[name] = tensor
        else:
            parts[whose][name] = tensor
    for weight, state in weights.items():
        _require(state)
        shape, dtype = _described(weight, state, parts[weight])
        others[weight] = FourBitTensor(weight, parts[weight], shape, dtype)
    return others


def _described(weight: str, tensor: SafeTensor, parts: Mapping[str, SafeTensor]) -> tuple[tuple[int, ...], str]:
    """Shape and kind of a weight, by the text beside it; bitsandbytes would read beyond parts that are too small."""
    try:
        state = json.loads(bytes(tensor.read().flatten()[:LONGEST].tolist()))
        shape, dtype = tuple(state["shape"]), DTYPES[state["dtype"]]
        if not all(type(n) is int and n > 0 for n in (*shape, state["blocksize"], state.get("nested_blocksize", 1))):
            raise ValueError(f"shape {brief(shape)}")
        scales = -(-math.prod(shape) // state["blocksize"])
        needed = {"": -(-math.prod(shape) // 2), ".absmax": scales, ".quant_map": CODES}
        if f"{weight}.nested_absmax" in parts:
            needed |= {".nested_absmax": -(-scales // state["nested_blocksize"]), ".nested_quant_map": NESTED_CODES}
        for part, count in needed.items():
            held = parts[f"{weight}{part}"]
            found = held.entry.end - held.entry.start if part == "" else math.prod(held.shape)
            if found != count:
                raise ValueError(f"{part or 'its weight'} has {found} numbers of {count}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = brief(" ".join(str(error).split()))[1:-1]
        raise ModelError(
            f"{tensor.path}: {brief(weight)} in 4 bits cannot be read ({reason}): download it again"
        ) from None
    return shape, dtype


def _require(tensor: SafeTensor) -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        remedy = "`pip install bitsandbytes` to read it"
        raise ModelError(f"{tensor.path} has weights in 4 bits by bitsandbytes: {remedy}") from error
