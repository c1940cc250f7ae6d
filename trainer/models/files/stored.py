"""Tensors in files, of which the header is read at first and the values one tensor at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor


class Stored(Protocol):
    """A tensor in a file."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def name(self) -> str:
        """Its name in the file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str:
        """One of FLOATING, or a kind that is not read."""

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        """Its values in memory of their own, of these ranges of rows one after another; without ranges, all."""
