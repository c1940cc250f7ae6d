"""Tensors in safetensors files, of which the values are read when they are needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .headers import damage
from .source import ModelError


@dataclass(frozen=True)
class SafeTensor:
    """A tensor in a safetensors file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        (mapped,) = mapped_together({self.name: self}).values()
        return torch.cat([mapped[r] for r in rows]) if rows else mapped.clone()


def mapped_together(tensors: Mapping[str, SafeTensor]) -> dict[str, Tensor]:
    """Their values, each file opened once and then closed: what is mapped lives as long as its tensor.

    Raises:
        ModelError: a file was changed or removed since its header was read.
    """
    values = {}
    for path in {tensor.path for tensor in tensors.values()}:
        try:
            with safe_open(path, "pt") as file:
                values |= {key: file.get_tensor(t.name) for key, t in tensors.items() if t.path == path}
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: {', '.join(tensors)} cannot be read ({error})") from error
    return values


def listed(path: Path) -> Iterator[SafeTensor]:
    """What the header of a file lists.

    Raises:
        ModelError: it is not a safetensors file, or not all of it is there.
    """
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                header = file.get_slice(name)
                yield SafeTensor(path, name, tuple(header.get_shape()), header.get_dtype())
    except (OSError, SafetensorError) as error:
        raise ModelError(damage(path, error)) from error
