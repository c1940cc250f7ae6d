"""Tensors in files, of which the header is read at first and the values one tensor at a time."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from .nf4_file import unpacked
from .safe_tensor import listed


class Stored(Protocol):
    """A tensor in a file."""

    shape: tuple[int, ...]
    dtype: str  # one of FLOATING, or of a kind that is not read

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        """Its values in memory of their own, of these ranges of rows one after another; without ranges, all."""


def safetensors_files(paths: Iterable[Path]) -> dict[str, Stored]:
    """What is in these files, of which only the headers are read.

    Raises:
        ModelError: one is not a safetensors file, or not all of it is there, or bitsandbytes is needed to read it.
    """
    return unpacked({tensor.name: tensor for path in paths for tensor in listed(path)})
