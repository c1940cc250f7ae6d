"""Tensors in files, of which the header is read at first and the values one tensor at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .headers import damage
from .nf4_file import unpacked
from .source import ModelError


class Stored(Protocol):
    """A tensor in a file."""

    shape: tuple[int, ...]
    dtype: str  # one of FLOATING, or of a kind that is not read

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        """Its values in memory of their own, of these ranges of rows one after another; without ranges, all."""


@dataclass(frozen=True)
class SafeTensor:
    """A tensor in a safetensors file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        try:
            with safe_open(self.path, "pt") as file:  # opened for each tensor: closing lets go of the pages read
                mapped = file.get_tensor(self.name)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{self.path}: {self.name} cannot be read ({error})") from error
        return torch.cat([mapped[r] for r in rows]) if rows else mapped.clone()


def safetensors_files(paths: Iterable[Path]) -> dict[str, Stored]:
    """What is in these files, of which only the headers are read.

    Raises:
        ModelError: one is not a safetensors file, or not all of it is there, or bitsandbytes is needed to read it.
    """
    found = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    header = file.get_slice(name)
                    found[name] = SafeTensor(path, name, tuple(header.get_shape()), header.get_dtype())
        except (OSError, SafetensorError) as error:
            raise ModelError(damage(path, error)) from error
    return unpacked(found)
