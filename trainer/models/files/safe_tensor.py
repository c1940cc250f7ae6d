"""Tensors in safetensors files, of which the values are read when they are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .headers import damage
from .safe_file import DamagedFile, Entry, read_header, read_values, written
from .source import ModelError


@dataclass(frozen=True)
class SafeTensor:
    """A tensor in a safetensors file."""

    path: Path
    name: str
    entry: Entry
    written: tuple[int, int]  # of the file whose header has this entry

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    @property
    def dtype(self) -> str:
        return self.entry.dtype

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        """See `Stored`.

        Raises:
            ModelError: the file was changed or removed since its header was read.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                if written(file) != self.written:
                    raise DamagedFile("the file was changed while it was read")
                return read_values(file, self.entry, rows)
        except (OSError, DamagedFile) as error:
            raise ModelError(f"{self.path}: {self.name} cannot be read ({error})") from error


class Listing(NamedTuple):
    """What a file's header says."""

    tensors: dict[str, SafeTensor]
    metadata: Mapping[str, str]


def listed(path: Path) -> Listing:
    """What the header of a file lists.

    Raises:
        ModelError: it is not a safetensors file, or not all of it is there.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file)
    except (OSError, DamagedFile) as error:
        raise ModelError(damage(path, error)) from error
    tensors = {name: SafeTensor(path, name, entry, header.written) for name, entry in header.entries.items()}
    return Listing(tensors, header.metadata)
