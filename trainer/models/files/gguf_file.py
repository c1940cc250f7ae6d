"""GGUF files: weights quantised in blocks, made numbers again one tensor at a time. The `gguf` package knows how."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .gguf_header import read_gguf_header
from .safe_file import DamagedFile
from .source import ModelError


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a GGUF file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: Any  # gguf.GGMLQuantizationType
    offset: int
    size: int  # bytes
    dtype: str  # after reading

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        from gguf.quants import dequantize, quant_shape_to_byte_shape

        # read and not mapped: mapped pages would stay in memory beside the model
        data = np.fromfile(self.path, np.uint8, self.size, offset=self.offset)
        columns = self.shape[1:] or (1,)  # numbers of a vector are rows too
        quantised = data.reshape(quant_shape_to_byte_shape((*self.shape[:1], *columns), self.kind))
        parts = [quantised[r] for r in rows] or [quantised]
        numbers = torch.cat([torch.from_numpy(dequantize(part, self.kind)).float() for part in parts])
        return numbers.reshape(-1, *self.shape[1:])


def gguf_file(path: Path) -> dict[str, GgufTensor]:
    """What is in a GGUF file, of which only the header is read.

    Raises:
        ModelError: the gguf package is not installed, or this is not a whole GGUF file.
    """
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise ModelError(f"{path} is a GGUF file: `pip install gguf` to read it") from error
    try:
        entries = read_gguf_header(path, {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()})
    except (OSError, DamagedFile) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} is not a whole GGUF file ({reason}): download it again") from error
    kinds = [GGMLQuantizationType(entry.kind) for entry in entries]
    return {
        e.name: GgufTensor(path, e.name, e.shape, kind, e.start, e.size, _dtype(kind))
        for e, kind in zip(entries, kinds, strict=True)
    }


@cache
def _dtype(kind: Any) -> str:
    """What tensors of this kind become: float32, if the package can read one block of them."""
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    _, size = GGML_QUANT_SIZES[kind]
    try:
        dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return f"GGUF {kind.name}"
    return "F32"
