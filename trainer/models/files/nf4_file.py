"""Weights that bitsandbytes stored in 4 bits (nf4 or fp4), in safetensors files: made numbers again one at a time.

Beside the packed weight stand its scales, its code, and a JSON text with its shape.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .safe_tensor import SafeTensor
from .source import ModelError
from .stored import Stored

STATE = ".quant_state.bitsandbytes__"
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True)
class FourBitTensor:
    """A weight of these parts."""

    name: str
    parts: Mapping[str, SafeTensor]  # the packed weight by its name, and what belongs to it
    shape: tuple[int, ...]
    dtype: str  # after reading

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        state = {name: part.read() for name, part in self.parts.items()}
        packed = state.pop(self.name)
        numbers = dequantize_4bit(packed, QuantState.from_dict(state, device="cpu")).reshape(self.shape)
        return torch.cat([numbers[r] for r in rows]) if rows else numbers


def unpacked(tensors: Mapping[str, SafeTensor]) -> dict[str, Stored]:
    """The same tensors, with those in 4 bits as the weights that they stand for.

    Raises:
        ModelError: there are some, and bitsandbytes is not installed.
    """
    found: dict[str, Stored] = {}
    used: set[str] = set()
    for name, tensor in tensors.items():
        weight, mark, _ = name.partition(STATE)
        if mark:
            _require(tensor)
            parts = {n: t for n, t in tensors.items() if n == weight or n.startswith(f"{weight}.")}
            state = json.loads(bytes(tensor.read().tolist()))
            found[weight] = FourBitTensor(weight, parts, tuple(state["shape"]), DTYPES[state["dtype"]])
            used |= parts.keys()
    others: dict[str, Stored] = {name: tensor for name, tensor in tensors.items() if name not in used}
    return others | found


def _require(tensor: SafeTensor) -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        remedy = "`pip install bitsandbytes` to read it"
        raise ModelError(f"{tensor.path} has weights in 4 bits by bitsandbytes: {remedy}") from error
